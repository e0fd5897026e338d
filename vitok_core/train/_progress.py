"""Records of a training: progress, the loss curve, events, the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in training and did not stop it.

    Attributes:
        step: updates made when it was seen, its own included.
        kind: "loss spike", "not finite" for a skipped step, or what else a stage watches.
        text: a sentence for people.
    """

    step: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Where training is, after a step.

    Attributes:
        step: updates made.
        steps: updates to make.
        loss: weighted total of this step.
        parts: unweighted terms of this step, such as pixel, kl and lpips.
        lr: learning rate of this step.
        grad_norm: norm of the gradient before clipping.
        samples_per_s: of this attempt.
        eta_s: seconds to the end at that speed.
        micro_batch: samples in memory together; None for all of a process.
        recompute_activations: whether activations are recomputed.
        notes: what happened on the way that someone should know: damaged checkpoints, events.
    """

    step: int
    steps: int
    loss: float
    parts: Mapping[str, float]
    lr: float
    grad_norm: float
    samples_per_s: float
    eta_s: float
    micro_batch: int | None
    recompute_activations: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A stretch of training.

    Attributes:
        step: updates made at its end.
        loss: mean weighted total over the stretch.
        parts: mean unweighted terms over the steps of the stretch that had them.
    """

    step: int
    loss: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What training has left and how it went; every stage adds what is its own.

    Attributes:
        weights: path of the safetensors file.
        steps: updates made in all attempts.
        samples: samples shown in all attempts.
        flops: floating point operations of all attempts, counted in closed form: tokenizer,
            perceptual networks and discriminator, as `vitok_core.spec` says.
        loss: weighted total of the last step.
        loss_recent: mean weighted total over the last 50 steps.
        parts_recent: mean unweighted terms over the last 50 steps.
        curve: at most 100 stretches of equal length.
        events: of all attempts, oldest first.
        samples_per_s: of this attempt, all processes together, by the wall clock of the loop with
            its checkpoints and sample grids; 0 when it had nothing left to do.
        flops_per_s: of this attempt, all processes together, by the same clock.
        mfu: share of the peak: the least time for these operations, each at the dense peak of its
            precision on all devices, over the time they took; None when the peak is not known, as
            on CPUs.
        peak_memory_bytes: of this process: of the allocator on a GPU, else the largest resident
            size since the process began.
        seconds: wall time of this attempt.
        resumed_from: step of the checkpoint this attempt began with; 0 for none.
        micro_batch: samples whose gradients were computed together in this process, at the end of
            this attempt; None for all of a step.
        recompute_activations: whether blocks were computed again in the backward pass.
        notes: what happened on the way that someone should know, such as damaged checkpoints.
    """

    weights: Path
    steps: int
    samples: int
    flops: int
    loss: float
    loss_recent: float
    parts_recent: Mapping[str, float]
    curve: tuple[CurvePoint, ...]
    events: tuple[Event, ...]
    samples_per_s: float
    flops_per_s: float
    mfu: float | None
    peak_memory_bytes: int
    seconds: float
    resumed_from: int
    micro_batch: int | None
    recompute_activations: bool
    notes: tuple[str, ...]


def with_metrics(
    about: Mapping[str, Any] | None, result: TrainingResult, **further: float
) -> dict[str, Any]:
    """What a weights file says of its training: the caller's plain data, with "metrics" added.

    Only what is the same for the same training, however often it was interrupted.
    """
    own = {
        "loss_recent": result.loss_recent,
        **{f"{name}_recent": value for name, value in result.parts_recent.items()},
        "steps": result.steps,
        "samples": result.samples,
        **further,
    }
    given = dict(about or {})
    return {**given, "metrics": {**given.get("metrics", {}), **own}}
