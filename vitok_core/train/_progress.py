"""Records of a training: progress, the loss curve, events, the result.

The history holds every step's terms, float64, and travels in the checkpoints, so that curve, events
and result of a resumed run are those of one that was never stopped.

A loss spike is an event, and never stops training: the loss of a step lies more than twice the
size of the median of up to 100 steps before it above that median (for a positive loss: more than
three times the median), at least 20 such steps exist, and the step before was no spike. Long after
training it tells where to look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CURVE_POINTS = 100
RECENT_STEPS = 50
SPIKE_FACTOR = 3.0
SPIKE_WINDOW = 100
SPIKE_LEAST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in training and did not stop it.

    Attributes:
        step: updates made when it was seen, its own included.
        kind: "loss spike", or what else a stage watches.
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


class History:
    """The terms of every step so far, and the events.

    Args:
        steps: of the whole training.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.events: list[Event] = []
        self.micro_batch: int | None = None  # as the `Room` of the training has it now
        # By name, float64 (steps,). A term that a step does not have is NaN and no part of means.
        self._values: dict[str, Tensor] = {}

    def add(self, step: int, terms: Mapping[str, float]) -> None:
        """Record the terms of a step, from 0: "loss", and its parts as far as the step has them."""
        for name, value in terms.items():
            self._column(name)[step] = value

    def at(self, step: int, name: str) -> float:
        """The value of a term in a step, from 0; NaN if the step had none."""
        return float(self._column(name)[step])

    def before(self, step: int, name: str, count: int) -> list[float]:
        """The values of a term in up to `count` steps before `step`; steps without it left out."""
        values = self._column(name)[max(step - count, 0) : step].tolist()
        return [value for value in values if not math.isnan(value)]

    def curve(self) -> tuple[CurvePoint, ...]:
        """At most 100 stretches of equal length over all steps."""
        length = -(-self.steps // CURVE_POINTS)
        return tuple(
            self._stretch(first, min(first + length, self.steps))
            for first in range(0, self.steps, length)
        )

    def recent(self) -> CurvePoint:
        """The last 50 steps as one stretch."""
        return self._stretch(max(self.steps - RECENT_STEPS, 0), self.steps)

    def state(self, step: int) -> dict[str, Any]:
        """Everything up to `step` updates as tensors and plain data, for checkpoints."""
        return {
            "values": {name: column[:step].clone() for name, column in self._values.items()},
            "events": [[event.step, event.kind, event.text] for event in self.events],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, values in state["values"].items():
            self._column(name)[: len(values)] = values
        self.events = [Event(step=at, kind=kind, text=text) for at, kind, text in state["events"]]

    def _column(self, name: str) -> Tensor:
        if name not in self._values:
            self._values[name] = torch.full((self.steps,), math.nan, dtype=torch.float64)
        return self._values[name]

    def _stretch(self, first: int, end: int) -> CurvePoint:
        means = {name: float(column[first:end].nanmean()) for name, column in self._values.items()}
        parts = {name: mean for name, mean in means.items() if not math.isnan(mean)}
        return CurvePoint(step=end, loss=parts.pop("loss"), parts=parts)


class SpikeWatch:
    """Sees loss spikes by the rule at the top of this file; keeps nothing but the history.

    Args:
        history: where the terms of the steps are.
        name: the term to watch.
    """

    def __init__(self, history: History, name: str = "loss") -> None:
        self.history, self.name = history, name

    def look(self, step: int) -> Event | None:
        """Record and return the event if a spike begins with this step, from 0, of the history."""
        median = self._median(step)
        if median is None or not self._is_spike(step) or self._is_spike(step - 1):
            return None
        event = Event(
            step=step + 1,
            kind="loss spike",
            text=f"step {step + 1}: {self.name} {self.history.at(step, self.name):.4g} after a "
            f"median of {median:.4g} over the steps before",
        )
        self.history.events.append(event)
        return event

    def _median(self, step: int) -> float | None:
        before = self.history.before(step, self.name, SPIKE_WINDOW)
        if len(before) < SPIKE_LEAST:
            return None
        return float(torch.tensor(before, dtype=torch.float64).median())

    def _is_spike(self, step: int) -> bool:
        median = self._median(step)
        if median is None:
            return False
        return self.history.at(step, self.name) - median > (SPIKE_FACTOR - 1) * abs(median)
