"""Is the memory of tasks that train nothing what tensors really take? Counted on live tensors."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from studies import SMALL, write
from vitok_core.dit import DiT
from vitok_core.generate import sample_codes
from vitok_core.settings import Sampling
from vitok_core.spec import (
    DiTSpec,
    TokenizerSpec,
    decoding_memory,
    encoding_memory,
    reconstruction_memory,
    sampling_memory,
)
from vitok_core.tokenizer import ViTok, from_uint8

SPECS = {
    "S-B/16": TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=128),
    "tiny-nano/8": TokenizerSpec(encoder="tiny", decoder="nano", p=8, c=4, resolution=64),
    "large patches": TokenizerSpec(encoder="nano", decoder="nano", p=8, c=16, resolution=32),
    "clips": TokenizerSpec(encoder="tiny", decoder="tiny", q=2, p=8, c=16, resolution=64, frames=8),
    "rmsnorm": TokenizerSpec(
        encoder="tiny", decoder="tiny", p=16, c=16, resolution=64, norm="rmsnorm", qk_norm=True
    ),
    "1-D": TokenizerSpec(
        encoder="tiny",
        decoder="tiny",
        p=8,
        c=16,
        resolution=64,
        latent_tokens=32,
        bottleneck="none",
    ),
}


class Live(TorchDispatchMode):
    """Counts the bytes of storages that operations make, as long as somebody holds them.

    Attributes:
        peak: most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        made = function(*given, **(named or {}))
        before = {
            one.untyped_storage()._cdata
            for one in tree_leaves((given, named))
            if isinstance(one, Tensor)
        }
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._take(one.untyped_storage(), before)
        return made

    def _take(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        place = storage._cdata
        if place in self._held or place in before:
            return
        self._held[place] = (weakref.ref(storage, lambda _: self._drop(place)), storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _drop(self, place: int) -> None:
        self.now -= self._held.pop(place)[1]


def per_sample(run: Callable[[int], object]) -> float:
    """Bytes that one sample more takes at the peak."""
    peaks = []
    for samples in (4, 8):
        with torch.no_grad(), Live() as live:
            run(samples)
        peaks.append(live.peak)
    return (peaks[1] - peaks[0]) / 4


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "S-B/16" else name for name in SPECS],
)
def test_a_tokenizer_takes_what_the_closed_form_says(name: str) -> None:
    spec = SPECS[name]
    with torch.random.fork_rng():
        model = ViTok(spec).eval()
    time = () if spec.frames == 1 else (spec.frames,)

    def pixels(samples: int) -> Tensor:
        shape = (samples, 3, *time, spec.resolution, spec.resolution)
        return from_uint8(torch.zeros(shape, dtype=torch.uint8))

    for run, memory in (
        (lambda samples: model.encode(pixels(samples)), encoding_memory(spec)),
        (
            lambda samples: model.decode(torch.zeros(samples, spec.tokens, spec.c)),
            decoding_memory(spec),
        ),
        (lambda samples: model(pixels(samples)), reconstruction_memory(spec)),
    ):
        assert memory.per_sample == pytest.approx(per_sample(run), rel=0.1)


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(
    ("size", "side", "precision"),
    # Products of bfloat16 numbers are slow on a CPU.
    [
        ("nano", 128, "fp32"),
        ("nano", 128, "bf16"),
        pytest.param("S", 64, "fp32", marks=pytest.mark.slow),
    ],
)
def test_sampling_takes_what_the_closed_form_says(
    size: str, side: int, cfg: float, precision: Any
) -> None:
    tokenizer = TokenizerSpec(encoder="S", decoder="B", p=8, c=16, resolution=side)
    spec = DiTSpec.for_tokenizer(
        tokenizer, size=size, classes=10, target="eps", learn_sigma=True, qk_norm=False
    )
    with torch.random.fork_rng():
        model = DiT(spec).eval()
    how = Sampling(steps=2, cfg=cfg, precision=precision)

    def run(samples: int) -> object:
        labels = np.zeros(samples, np.int64)
        return sample_codes(model, labels, sampling=how, seed=0, batch=samples)

    memory = sampling_memory(spec, precision, guided=cfg != 1)
    assert memory.per_sample == pytest.approx(per_sample(run), rel=0.1)


def test_plan_says_what_does_not_fit(call: Callable[..., tuple[int, str, str]]) -> None:
    large = SMALL.replace("resolution: 32", "resolution: 512").replace("nano", "L")
    write(Path(), large.replace("images: 64", "images: 4").replace("[4, 8]", "[4]"))
    code, out, _ = call("plan", "study.yaml", "--on", "RTX A4000", "--json")
    assert code == 0
    [found] = json.loads(out)["memory_without_gradients"]
    assert (found["stage"], found["tasks"], found["samples"]) == ("reconstruct", 2, 64)
    assert found["bytes"] > 16e9
    assert len(found["misfits"]) == 2
    _, _, err = call("plan", "study.yaml", "--on", "RTX A4000")
    assert "for 64 samples at once, by a closed form, more than NVIDIA RTX A4000 has, and 1" in err
    assert "at once, by a closed form" not in call("plan", "study.yaml", "--on", "B200")[2]
