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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from vitok_core.errors import SpecError, Stopped
from vitok_core.settings import DiTTraining, Run, Stage1, Stage2, whole_steps
from vitok_core.spec import Flops
from vitok_core.train._checkpoints import Checkpoints
from vitok_core.train._parallel import agree, part, world
from vitok_core.train._progress import History, SpikeWatch, TrainingProgress
from vitok_core.train._room import Room
from vitok_core.train._speed import peak_memory_bytes, share_of_peak

PROGRESS_S = 1.0


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
        self._latest: tuple[Mapping[str, float], float, float] | None = None
        self.history = History(last)
        self._spikes = SpikeWatch(self.history)
        self._checkpoints = Checkpoints(folder / "checkpoints", identity)
        self.remaining = range(self._resume(), last)
        self.notes = list(self._checkpoints.notes)
        self._began = self._saved_at = time.perf_counter()
        self._told_at = -math.inf
        self._saved = self.remaining.start

    def _resume(self) -> int:
        """Load the newest whole checkpoint; the step it is of, 0 for none."""
        found = self._checkpoints.newest(self.last)
        if found is None:
            return 0
        step, state = found
        for name, one in self._resumable.items():
            if one is not None:
                one.load_state_dict(state[name])
        self.history.load(state["history"])
        return step

    def _save(self, step: int) -> None:
        state = {
            name: None if one is None else one.state_dict() for name, one in self._resumable.items()
        }
        self._checkpoints.write(step, {**state, "history": self.history.state(step)})
        self._saved, self._saved_at = step, time.perf_counter()

    def steps(self) -> Iterator[int]:
        """The steps to make, from 0; after each it reports progress and writes checkpoints.

        Raises:
            Stopped: `should_stop` said so; a checkpoint was written first.
            CheckpointError: the folder cannot be written.
            OSError: the disk is full.
        """
        for step in self.remaining:
            if agree(self._should_stop is not None and self._should_stop()):
                # At step 0, too: whoever resumes shall find that the training had begun.
                if step != self._saved or step == 0:
                    self._save(step)
                raise Stopped(f"stopped at step {step} of {self.last}; a checkpoint is written")
            yield step
            self._tell(step + 1)
            late = time.perf_counter() - self._saved_at >= self.run.checkpoint_s
            # All processes write it or none, although their clocks differ.
            if agree(late) and step + 1 < self.last:
                self._save(step + 1)
        if self._keep_last and self._saved != self.last:
            self._save(self.last)

    def record(self, step: int, terms: Mapping[str, float], *, lr: float, grad_norm: float) -> None:
        """Keep what a step came to: "loss" and its parts, learning rate, norm of the gradient."""
        self.history.add(step, terms)
        self._spikes.look(step)
        self._latest = (terms, lr, grad_norm)

    def grid_due(self, step: int) -> Path | None:
        """Where a sample grid after this step, from 0, is to be written; None for no grid now."""
        every, done = self.run.sheet_every, step + 1
        if every is None or done % every:
            return None
        return self.folder / "sheets" / f"step-{done:07d}.png"

    def _tell(self, done: int) -> None:
        now = time.perf_counter()
        late = now - self._told_at >= PROGRESS_S or done == self.last
        if self._progress is None or self._latest is None or not late:
            return
        self._told_at = now
        terms, lr, grad_norm = self._latest
        speed = (done - self.remaining.start) * self.batch / (now - self._began)
        self._progress(
            TrainingProgress(
                step=done,
                steps=self.last,
                loss=terms["loss"],
                parts={name: value for name, value in terms.items() if name != "loss"},
                lr=lr,
                grad_norm=grad_norm,
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
            "loss": self.history.at(self.last - 1, "loss"),
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
