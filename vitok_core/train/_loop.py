"""The loop that all stages share: resume, stop, record, checkpoints, sample grids, the result.

A stage computes gradients and updates weights; everything around that is here:

    loop = Loop(...)                    # resumes from the newest whole checkpoint
    for step in loop.steps():           # stops when asked to; writes checkpoints
        terms, grad_norm = ...          # the stage: gradients, guard, update
        loop.record(step, terms, ...)   # history, loss spikes, progress
    loop.result(...)                    # throughput, loss curve, events

Throughput is samples and closed-form operations over the wall time of the loop, checkpoints and
sample grids included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vitok_core.errors import NonFiniteError, SpecError, Stopped
from vitok_core.ranks import agree, world
from vitok_core.settings import DiTTraining, Run, Stage1, Stage2, whole_steps
from vitok_core.spec import Flops
from vitok_core.train._checkpoints import Checkpoints
from vitok_core.train._guard import NORM, Later, Side, what_is_not_finite
from vitok_core.train._history import History, SpikeWatch
from vitok_core.train._parallel import part, sum_tensor
from vitok_core.train._progress import Event, TrainingProgress
from vitok_core.train._room import Room
from vitok_core.train._speed import peak_memory_bytes, share_of_peak

PROGRESS_S = 1.0

SKIPPED = "not finite"
"""Kind of the event of a step whose update was not made."""

STOP, SAVE, FAILED = 0, 1, 2
"""Wishes of a process, by their place: to stop, to write a checkpoint (the first process decides),
and that the checkpoint on its way could not be written."""


class Resumable(Protocol):
    """What a checkpoint keeps, by the names that modules and optimisers of torch have for it."""

    def state_dict(self) -> Any:
        """Tensors and plain data."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Continue from what `state_dict` returned."""


def check_run(config: Stage1 | Stage2 | DiTTraining, run: Run, until: int | None) -> int:
    """The step at which a training ends; refuses what cannot be run, before anything is loaded.

    Args:
        config: of the stage.
        run: how it is run.
        until: steps after which to end before the last one of `config`; None for all.

    Raises:
        SpecError: a setting of the run out of range, a batch of fewer samples than there are
            processes, no steps, or `until` is not one of them.
    """
    run.check()
    part(config.batch)
    steps = whole_steps(config.steps)
    if until is not None and not 1 <= until <= steps:
        raise SpecError("until", f"until = {until}: must be from 1 to {steps}, or None")
    return steps if until is None else until


class Loop:
    """One attempt at a training: from its newest whole checkpoint, which is loaded, to its end.

    Args:
        folder: of the training; checkpoints/ and sheets/ are made in it.
        batch: samples per step, of all processes together.
        run: how it is run.
        last: step at which it ends, from `check_run`.
        keep_last: whether a checkpoint of the last step is written, for a longer training to
            resume from; a training that is finished needs none.
        identity: what a checkpoint must agree with, see `Checkpoints`.
        resumable: what a checkpoint holds besides the history, by name; None is kept as None.
        progress: called after the first and the last step and about once a second, in the first
            process only.
        should_stop: called before every step, in every process.

    Raises:
        CheckpointError: checkpoints of other settings, or a folder that cannot be written.

    Attributes:
        history: the terms of every step, and the events.
        notes: what someone should know, such as damaged checkpoints; a stage may add to it.
        remaining: the steps that this attempt makes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch: int,
        run: Run,
        last: int,
        keep_last: bool,
        identity: Mapping[str, Any],
        resumable: Mapping[str, Resumable | None],
        progress: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.folder, self.batch, self.run, self.last = folder, batch, run, last
        self._keep_last, self._resumable = keep_last, resumable
        self._progress = progress if world().rank == 0 else None
        self._should_stop = should_stop
        self._device = torch.device(run.device)
        self._later: Later[tuple[int, Sequence[str], Sequence[Side]]] = Later(self._device)
        self._wishes_F: Tensor | None = None
        self._granted = [False] * 3
        self.history = History(last)
        self._watches: list[Callable[[int], object]] = [SpikeWatch(self.history).look]
        self._checkpoints = Checkpoints(
            folder / "checkpoints", identity, self.history, run.checkpoint_s
        )
        self.remaining = range(self._resume(), last)
        self.notes = list(self._checkpoints.notes)
        self._began = time.perf_counter()
        self._told_at = -math.inf

    def _resume(self) -> int:
        """Load the newest whole checkpoint; the step it is of, 0 for none."""
        found = self._checkpoints.newest(self.last)
        if found is None:
            return 0
        step, state = found
        for name, one in self._resumable.items():
            if one is not None:
                one.load_state_dict(state[name])
        return step

    def _state(self) -> dict[str, Any]:
        return {
            name: None if one is None else one.state_dict() for name, one in self._resumable.items()
        }

    def steps(self) -> Iterator[int]:
        """The steps to make, from 0; after each it reports progress and writes checkpoints.

        Raises:
            Stopped: `should_stop` said so; a checkpoint was written first.
            NonFiniteError: an update was not made, and that is not to be skipped.
            CheckpointError: the folder cannot be written.
            OSError: the disk is full.
        """
        checkpoints = self._checkpoints
        if world().size > 1:
            self._granted[STOP] = agree(self._wants_to_stop())
        for step in self.remaining:
            if self._is_granted(STOP):
                self._read(but=0)
                # At step 0, too: whoever resumes shall find that the training had begun.
                if step != checkpoints.begun:
                    checkpoints.write(step, self._state)
                checkpoints.finish()
                raise Stopped(f"stopped at step {step} of {self.last}; a checkpoint is written")
            if self._is_granted(FAILED):
                checkpoints.finish()
            yield step
            if self._is_granted(SAVE) and step + 1 < self.last:
                self._read(but=0)  # a step that is not finite ends the training before it is kept
                checkpoints.begin(step + 1, self._state)
        self._read(but=0)
        if self._keep_last and checkpoints.begun != self.last:
            checkpoints.write(self.last, self._state)
        checkpoints.finish()

    def close(self) -> None:
        """Let a checkpoint that is on its way be written, also when the training has failed."""
        self._checkpoints.close()

    def _wants_to_stop(self) -> bool:
        return self._should_stop is not None and self._should_stop()

    def _wish(self, which: int) -> bool:
        """What this process wants now."""
        if which == STOP:
            return self._wants_to_stop()
        if world().rank > 0:
            return False
        return self._checkpoints.is_due() if which == SAVE else self._checkpoints.has_failed()

    def _is_granted(self, which: int) -> bool:
        """Whether a wish is to be followed: at once in one process, else what all have read."""
        if world().size == 1:
            return self._wish(which)
        return self._granted[which]

    def sum(self, numbers_N: Tensor) -> Tensor:
        """The numbers added up over the processes, as float64; their wishes travel with them."""
        if world().size == 1:
            return numbers_N.double()
        wishes_F = torch.tensor([float(self._wish(which)) for which in (STOP, SAVE, FAILED)])
        if self._device.type == "cuda":
            wishes_F = wishes_F.pin_memory()
        wishes_F = wishes_F.to(numbers_N, non_blocking=True)
        summed = sum_tensor(torch.cat([numbers_N, wishes_F]))
        self._wishes_F = summed[len(numbers_N) :]
        return summed[: len(numbers_N)].double()

    def watch(self, look: Callable[[int], object]) -> None:
        """Call `look` with every step whose terms have come to the history."""
        self._watches.append(look)

    def record(
        self, step: int, names: Sequence[str], numbers_N: Tensor, ok: Tensor, sides: Sequence[Side]
    ) -> None:
        """Keep what a step came to; what the step before came to is read now.

        Args:
            step: from 0.
            names: of the numbers: "loss" and its parts, and the norms of `sides`.
            numbers_N: float64 on the device; NaN for a term that this step does not have.
            ok: boolean scalar: whether the update was made.
            sides: whose numbers they are; the first is the model.

        Raises:
            NonFiniteError: the update of the step before was not made, and is not to be skipped.
        """
        wishes_F = numbers_N.new_zeros(0) if self._wishes_F is None else self._wishes_F.double()
        self._later.put((step, names, sides), torch.cat([numbers_N, ok.double()[None], wishes_F]))
        self._read(but=1)

    def _read(self, *, but: int) -> None:
        """Take in the numbers of all steps but the newest ones."""
        for (step, names, sides), values in self._later.take(but=but):
            numbers = dict(zip(names, values, strict=False))
            ok, *wishes = values[len(names) :]
            if wishes:
                self._granted = [wish > 0 for wish in wishes]
                # A wish from before the checkpoint that was begun last has come true by it.
                self._granted[SAVE] &= step >= (self._checkpoints.begun or 0)
            if ok:
                self.history.add(step, {k: v for k, v in numbers.items() if k != NORM})
                for look in self._watches:
                    look(step)
            else:
                self._skip(step, what_is_not_finite(step, numbers, sides))
            self._tell(step + 1, numbers, sides)

    def _skip(self, step: int, text: str) -> None:
        """Count a step whose update was not made; too many end the training."""
        budget = self.run.skip_non_finite
        before = sum(event.kind == SKIPPED for event in self.history.events)
        if before >= budget:
            used = f" ({before} steps were skipped before, as many as allowed)" if before else ""
            raise NonFiniteError(f"{text}{used}")
        self.history.events.append(Event(step=step + 1, kind=SKIPPED, text=f"skipped {text}"))

    def grid_due(self, step: int) -> Path | None:
        """Where a sample grid after this step, from 0, is to be written; None for no grid now."""
        every, done = self.run.sheet_every, step + 1
        if every is None or done % every:
            return None
        return self.folder / "sheets" / f"step-{done:07d}.png"

    def _tell(self, done: int, numbers: Mapping[str, float], sides: Sequence[Side]) -> None:
        now = time.perf_counter()
        late = now - self._told_at >= PROGRESS_S or done == self.last
        if self._progress is None or not late:
            return
        self._told_at = now
        speed = (done - self.remaining.start) * self.batch / (now - self._began)
        hidden = ("loss", NORM)
        self._progress(
            TrainingProgress(
                step=done,
                steps=self.last,
                loss=numbers["loss"],
                parts={k: v for k, v in numbers.items() if k not in hidden and not math.isnan(v)},
                lr=sides[0].lr,
                grad_norm=numbers[NORM],
                samples_per_s=speed,
                eta_s=(self.last - done) * self.batch / speed,
                micro_batch=self.history.micro_batch,
                recompute_activations=bool(self.run.recompute_activations),
                notes=(*self.notes, *(event.text for event in self.history.events)),
            )
        )

    def result(
        self, weights: Path, flops: Flops, began: float, run: Run, room: Room
    ) -> dict[str, Any]:
        """The fields of `TrainingResult` after the last step, to be passed on by name.

        Args:
            weights: where the weights will be.
            flops: of all steps of all attempts, by precision.
            began: when this attempt began, by `time.perf_counter`.
            run: how it was run.
            room: how many samples were in memory together.
        """
        now = time.perf_counter()
        device = torch.device(self.run.device)
        steps_per_s = len(self.remaining) / (now - self._began)
        recent = self.history.recent()
        mfu = None
        if steps_per_s > 0:
            mfu = share_of_peak(flops, world().size * self.last / steps_per_s, device)
        return {
            "weights": weights,
            "steps": self.last,
            "samples": self.last * self.batch,
            "flops": flops.total,
            "loss": self.history.last("loss"),
            "loss_recent": recent.loss,
            "parts_recent": recent.parts,
            "curve": self.history.curve(),
            "events": tuple(self.history.events),
            "samples_per_s": steps_per_s * self.batch,
            "flops_per_s": steps_per_s * flops.total / self.last,
            "mfu": mfu,
            "peak_memory_bytes": peak_memory_bytes(device),
            "seconds": now - began,
            "resumed_from": self.remaining.start,
            "micro_batch": room.micro_batch,
            "recompute_activations": bool(run.recompute_activations),
            "notes": tuple(self.notes),
        }
