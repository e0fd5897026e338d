"""Small trainings on random pictures, and comparing their results, for bench/gpu_checks.py."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitok_core.data import SampleSet
from vitok_core.latents import compute_latents, open_latents
from vitok_core.settings import Adversarial, DiTTraining, Loss, Optimiser, Run, Stage1, Stage2
from vitok_core.spec import DiTSpec, TokenizerSpec
from vitok_core.tokenizer import ViTok, save_tokenizer
from vitok_core.train import TrainingResult, train_dit, train_stage1, train_stage2

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=32)
PLAIN = dataclasses.replace(SPEC, bottleneck="none")
"""Draws no noise, which every device draws otherwise: the same numbers on all of them."""
DIT = DiTSpec.for_tokenizer(SPEC, size="nano", classes=3, learn_sigma=True)
STEPS, BATCH = 12, 6


def samples(spec: TokenizerSpec = SPEC, count: int = 24) -> SampleSet:
    """Random pictures with labels 0, 1, 2."""
    side = spec.resolution
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return SampleSet(samples=pixels, labels=np.arange(count) % 3)


def stage1(
    folder: Path, device: str, *, spec: TokenizerSpec = SPEC, run: Run | None = None, **changes: Any
) -> TrainingResult:
    """A short stage 1; `stop` among the changes stops it before that step, by Stopped."""
    stop, asked = changes.pop("stop", None), iter(range(10**9))
    settings: dict[str, Any] = {
        "precision": "fp32",
        "steps": STEPS,
        "batch": BATCH,
        "ema": 0.9,
        "optimiser": Optimiser(lr=1e-3),
        "loss": Loss(lpips=0.0, kl=0.0 if spec.bottleneck == "none" else 1e-3),
    }
    config = Stage1(**{**settings, **changes})
    run = run or Run(checkpoint_s=10**6)
    return train_stage1(
        spec,
        config,
        samples(spec),
        folder,
        run=dataclasses.replace(run, device=device),
        should_stop=lambda: next(asked) == stop,
    )


def stage2(folder: Path, device: str, *, run: Run | None = None, **changes: Any) -> TrainingResult:
    """A short stage 2 with everything: discriminator, R1, LeCam, the adaptive weight."""
    stop, asked = changes.pop("stop", None), iter(range(10**9))
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    first = folder / "first.safetensors"
    if not first.is_file():
        save_tokenizer(ViTok(SPEC), first)
    settings: dict[str, Any] = {
        "precision": "fp32",
        "steps": STEPS,
        "batch": BATCH,
        "discriminator_width": 1 / 64,
        "loss": Loss(lpips=0.0),
        "adversarial": Adversarial(ramp=2, r1=0.1, lecam=1e-3, adaptive=True),
    }
    run = run or Run(checkpoint_s=10**6)
    return train_stage2(
        first,
        Stage2(**{**settings, **changes}),
        samples(),
        folder,
        run=dataclasses.replace(run, device=device),
        should_stop=lambda: next(asked) == stop,
    )


def dit(folder: Path, device: str, *, run: Run | None = None, **changes: Any) -> TrainingResult:
    """A short training of a generator, over latents that this computes on the CPU first."""
    stop, asked = changes.pop("stop", None), iter(range(10**9))
    settings: dict[str, Any] = {
        "precision": "fp32",
        "steps": STEPS,
        "batch": BATCH,
        "class_dropout": 0.3,
        "ema": 0.9,
        "optimiser": Optimiser(lr=1e-3, weight_decay=0.0),
    }
    if not (folder / "latents").is_dir():
        latents(folder / "latents", "cpu")
    run = run or Run(checkpoint_s=10**6)
    return train_dit(
        DIT,
        DiTTraining(**{**settings, **changes}),
        open_latents(folder / "latents"),
        folder,
        run=dataclasses.replace(run, device=device),
        should_stop=lambda: next(asked) == stop,
    )


TRAININGS: dict[str, Callable[..., TrainingResult]] = {
    "stage 1": stage1,
    "stage 2": stage2,
    "dit": dit,
}


def latents(folder: Path, device: str) -> Path:
    """Latents of the random pictures by an untrained tokenizer, mirrored too."""
    torch.manual_seed(0)
    tokenizer = ViTok(SPEC)
    compute_latents(
        tokenizer, samples(), folder, normalisation="per-channel", flip=True, device=device, batch=7
    )
    return folder


def weights_apart(one: Path, other: Path) -> float:
    """Largest difference of two files of weights, relative to the largest weight."""
    from safetensors.numpy import load_file

    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys(), f"{one} and {other} hold other tensors"
    largest = max(float(np.abs(value).max(initial=0.0)) for value in left.values())
    gaps = [float(np.abs(left[name] - right[name]).max(initial=0.0)) for name in left]
    assert all(map(math.isfinite, gaps)), f"{one} or {other} holds what is no number"
    return max(gaps) / largest


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files of weights hold the same bytes; the record inside, with times, aside."""
    from safetensors.numpy import load_file

    left, right = load_file(one), load_file(other)
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def near(left: float, right: float, rel: float, what: str) -> None:
    """Require two numbers to be the same within a share of the larger one."""
    ok = math.isclose(left, right, rel_tol=rel)
    assert ok, f"{what}: {left:.6g} and {right:.6g} are more than {rel:g} apart"


def repeat(on: bool) -> None:
    """Ask torch for kernels that repeat, or not, as an attempt does for `run: deterministic`."""
    torch.use_deterministic_algorithms(on, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not on


@contextlib.contextmanager
def repeating() -> Iterator[None]:
    """Kernels that repeat, inside."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    repeat(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=True)
        torch.backends.cudnn.benchmark = before[1]
