"""Does a step ever wait for the device? Counted on a CPU, where every read succeeds at once.

A read waits when what it reads was computed in the step that is being made: numbers of the step
before are there by the time the next one is launched. So every tensor is tagged with the step that
wrote it last, and a read of one of this step counts, as do operations whose result has a shape that
only the device knows, and copies to the device that do not run alongside.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dit_entries import CONFIG as DIT_CONFIG
from dit_entries import SPEC as DIT_SPEC
from dit_entries import make_latents
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitok_core.data import SampleSet
from vitok_core.diffusion import linear_schedule
from vitok_core.latents import open_latents
from vitok_core.settings import Adversarial, Loss, Optimiser, Run, Stage1, Stage2
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok, save_tokenizer
from vitok_core.train import train_dit, train_stage1, train_stage2

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
STEPS = 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Waits(TorchDispatchMode):
    """Counts what would make the CPU wait for a GPU, step by step, while it is entered.

    All memory is the host's here, so it keeps books: on the device is what was sent there by `to`,
    what was made there (a factory that names a device), and what was computed from these.

    Attributes:
        found: for each step what was found, and how often.
        writes: for each step how many tensors of the device were written.
    """

    SHAPES = ("nonzero", "bincount", "masked_select", "_unique2", "unique_dim", "equal")
    """Operations that wait because a shape, or a bool, comes back from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.step = -1
        self.found: list[Counter[str]] = []
        self.writes: list[int] = []
        self.makes_on_device = False
        self._written: dict[int, int] = {}
        # A weak reference keeps the place of a storage from being given to another.
        self._places: list[StorageWeakRef] = []
        self._names = _Names(self)

    def __enter__(self) -> Waits:
        self._names.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._names.__exit__(*error)

    def begins_step(self) -> bool:
        """A training's `should_stop`: False."""
        self.step += 1
        self.found.append(Counter())
        self.writes.append(0)
        return False

    def is_new(self, value: Any) -> bool:
        """Whether a tensor of the device was written in this step."""
        return (
            self.step >= 0
            and isinstance(value, Tensor)
            and self._written.get(value.untyped_storage()._cdata) == self.step
        )

    def is_there(self, value: Any) -> bool:
        """Whether a tensor is on the device."""
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self._written

    def write(self, value: Any) -> None:
        """A tensor of the device is written, or gets there."""
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage._cdata not in self._written:
                self._places.append(StorageWeakRef(storage))
            self._written[storage._cdata] = self.step
            if self.step >= 0:
                self.writes[-1] += 1

    def count(self, what: str) -> None:
        """Count one wait; before the first step nothing counts."""
        if self.step >= 0:
            self.found[-1][what] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        there = any(map(self.is_there, given))
        if name == "_local_scalar_dense" and self.is_new(args[0]):
            self.count("item")
        by_bools = name in ("index", "index_put_") and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1]
        )
        if there and (name in self.SHAPES or by_bools):
            self.count(name)
        before = {one.untyped_storage()._cdata for one in given}
        made = func(*args, **kwargs)
        if func._schema.is_mutable:
            if there and not self.is_there(args[0]) and isinstance(args[0], Tensor):
                if not kwargs.get("non_blocking") and True not in args[2:]:
                    self.count("copy to the host")
            else:
                changed = [*given, *tree_leaves(made)]
                for one in changed if self.makes_on_device else filter(self.is_there, changed):
                    self.write(one)
        elif there or self.makes_on_device:
            for one in tree_leaves(made):  # a view writes nothing
                if isinstance(one, Tensor) and one.untyped_storage()._cdata not in before:
                    self.write(one)
        return made


class _Names(TorchFunctionMode):
    """What is seen only by its name: on a CPU nothing is dispatched for it."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, waits = kwargs or {}, self._waits
        name, first = getattr(func, "__name__", ""), args[0] if args else None
        if name == "to":
            return self._to(func, args, kwargs)
        if name in ("tolist", "numpy", "__array__", "cpu") and waits.is_new(first):
            waits.count(name)
        device = kwargs.get("device")
        if device is None or isinstance(first, Tensor):
            return func(*args, **kwargs)
        if name in ("tensor", "as_tensor"):
            waits.count(f"{name} on the device")
        waits.makes_on_device = str(device) != "meta"
        try:
            return func(*args, **kwargs)
        finally:
            waits.makes_on_device = False

    def _to(self, func: Any, args: Any, kwargs: Any) -> Any:
        waits, first, to = self._waits, args[0], [*args[1:], kwargs.get("device")]
        made = func(*args, **kwargs)
        # `nn.Module.to` says non_blocking by its place.
        waiting = not kwargs.get("non_blocking", False) and True not in args[2:]
        if "cpu" in to:
            if waiting and waits.is_new(first):
                waits.count("to the host")
        elif any(isinstance(one, torch.device) for one in to) and not waits.is_there(first):
            if waiting:
                waits.count("to the device")
            # What was sent stays where it was, so that sending it again is seen again.
            made = made.clone() if made is first else made
            waits.write(made)
        return made


def samples() -> SampleSet:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    return SampleSet(samples=pixels, labels=np.zeros(20, np.int64))


def stage1(folder: Path, waits: Waits) -> None:
    config = Stage1(
        steps=STEPS, batch=7, ema=0.9, optimiser=Optimiser(lr=1e-3), loss=Loss(lpips=0.0, ssim=0.1)
    )
    train_stage1(SPEC, config, samples(), folder, run=RUN, should_stop=waits.begins_step)


def masked(folder: Path, waits: Waits) -> None:
    spec = dataclasses.replace(SPEC, latent_tokens=8, lengths=(2, 4, 8), positions="1d")
    config = Stage1(steps=STEPS, batch=7, loss=Loss(lpips=0.0))
    train_stage1(spec, config, samples(), folder, run=RUN, should_stop=waits.begins_step)


def stage2(folder: Path, waits: Waits) -> None:
    torch.manual_seed(0)
    save_tokenizer(ViTok(SPEC), folder / "first.safetensors")
    config = Stage2(
        steps=STEPS,
        batch=7,
        discriminator_width=1 / 64,
        loss=Loss(lpips=0.0),
        adversarial=Adversarial(ramp=2, r1=0.1, lecam=1e-3, adaptive=True),
    )
    first = folder / "first.safetensors"
    train_stage2(first, config, samples(), folder, run=RUN, should_stop=waits.begins_step)


def dit(folder: Path, waits: Waits) -> None:
    latents = open_latents(make_latents(folder / "latents"))
    linear_schedule.cache_clear()  # made before, it would not be in the books
    config = dataclasses.replace(DIT_CONFIG, steps=STEPS)
    train_dit(DIT_SPEC, config, latents, folder, run=RUN, should_stop=waits.begins_step)


RUN = Run(checkpoint_s=10**6, micro_batch=3)
TRAININGS: dict[str, Callable[[Path, Waits], None]] = {
    "stage 1": stage1,
    "masked": masked,
    "stage 2": stage2,
    "dit": dit,
}


@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_waits_for_the_device(name: str, tmp_path: Path) -> None:
    waits = Waits()
    with waits:
        TRAININGS[name](tmp_path, waits)
    # The first step makes what is made once; behind the last one everything is read.
    inner = waits.found[1 : STEPS - 1]
    assert len(inner) == STEPS - 2
    assert inner == [Counter()] * len(inner)
    # The books are of the whole model: forward and backward pass, update, moving average.
    assert min(waits.writes[1 : STEPS - 1]) > 200


def test_waits_are_seen() -> None:
    waits, device = Waits(), torch.device("cpu")
    with waits:
        waits.begins_step()
        old = torch.ones(3, device=device) + 1
        waits.begins_step()
        old.tolist(), float(old[0]), float(old[0] + 1)
        new = old * 2
        new.tolist(), new.cpu(), new.numpy(), float(new[0]), bool((new > 0).all())
        new.nonzero(), torch.bincount(new.long()), new[new > 0], new.to("cpu"), new.add_(1).tolist()
        new.to("cpu", non_blocking=True), new.to(torch.float64)
        here = torch.empty(3)
        here.copy_(new, non_blocking=True), here.tolist(), here.mul(2).tolist()
        here.copy_(new), here.add_(1).nonzero()
        waits.begins_step()
        new.tolist(), torch.tensor([1.0], device=device), torch.tensor([1.0]).tolist()
        host = torch.from_numpy(np.ones(2))
        host.to(device), host.to(device), new.to(device)
        sent = torch.from_numpy(np.ones(2)).to(device, non_blocking=True)
        sent.tolist()
    assert waits.found[1] == {
        "item": 3,
        "tolist": 2,
        "cpu": 1,
        "numpy": 1,
        "nonzero": 1,
        "bincount": 1,
        "index": 1,
        "to the host": 1,
        "copy to the host": 1,
    }
    assert waits.found[2] == {"tensor on the device": 1, "to the device": 2, "tolist": 1}
