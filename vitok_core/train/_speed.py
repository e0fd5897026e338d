"""How fast is training, and how much of the machine does it use? A clock and known peaks.

The clock tells the caller about once a second how far training is and says when a checkpoint is
due. Throughput is samples and closed-form operations over the wall time of the loop. A share of the
peak (MFU) is given only for devices whose dense peak stands in a data sheet, never guessed; it is
the least time for all operations, each at the peak of its precision, over the time they took.
"""

from __future__ import annotations

import math
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vitok_core.spec import PEAK_FLOPS, Flops, least_seconds
from vitok_core.train._parallel import agree, world
from vitok_core.train._progress import History, Progress

TELL_S = 1.0


class Pace:
    """The clock of one attempt.

    Args:
        steps: of the whole training.
        batch: samples a step, of all processes together.
        first: step this attempt begins with.
        checkpoint_s: seconds between checkpoints.
        progress: told after the first and the last step and about once a second, in the first
            process only.
    """

    def __init__(
        self,
        *,
        steps: int,
        batch: int,
        first: int,
        checkpoint_s: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.steps, self.batch, self.first = steps, batch, first
        self.saved_step = first
        self._checkpoint_s = checkpoint_s
        self._progress = progress if world().rank == 0 else None
        self._began = self._saved_at = time.perf_counter()
        self._told_at = -math.inf

    def tell(
        self,
        done: int,
        terms: Mapping[str, float],
        *,
        lr: float,
        grad_norm: float,
        history: History,
        notes: Sequence[str],
    ) -> None:
        """Call `progress` if it is time.

        Args:
            done: updates made.
            terms: "loss" and its parts in the last step.
            lr: learning rate of the last step.
            grad_norm: norm of its gradient before clipping.
            history: whose events are told as notes.
            notes: other things that someone should know.
        """
        now = time.perf_counter()
        if self._progress is None or (now - self._told_at < TELL_S and done != self.steps):
            return
        self._told_at = now
        speed = (done - self.first) * self.batch / (now - self._began)
        self._progress(
            Progress(
                step=done,
                steps=self.steps,
                loss=terms["loss"],
                parts={name: value for name, value in terms.items() if name != "loss"},
                lr=lr,
                grad_norm=grad_norm,
                samples_per_s=speed,
                eta_s=(self.steps - done) * self.batch / speed,
                notes=(*notes, *(event.text for event in history.events)),
            )
        )

    def checkpoint_due(self, done: int) -> bool:
        """Whether to write one after `done` updates; every process gets the same answer."""
        late = time.perf_counter() - self._saved_at >= self._checkpoint_s
        return agree(late) and done < self.steps

    def saved(self, done: int) -> None:
        """A checkpoint after `done` updates has been written."""
        self.saved_step, self._saved_at = done, time.perf_counter()

    def result(
        self,
        history: History,
        *,
        weights: Path,
        flops: Flops,
        began: float,
        device: torch.device,
        notes: Sequence[str],
    ) -> dict[str, Any]:
        """The fields of `TrainingResult` at the end of the loop, to be passed on by name.

        Args:
            history: of all steps.
            weights: where the weights will be.
            flops: of all steps, by precision.
            began: when this attempt began, by `time.perf_counter`.
            device: of this process.
            notes: for the result.
        """
        now = time.perf_counter()
        steps_per_s = (self.steps - self.first) / (now - self._began)
        recent = history.recent()
        share = None
        if steps_per_s > 0:
            in_a_device_s = world().size * self.steps / steps_per_s
            share = share_of_peak(flops, in_a_device_s, device)
        return {
            "weights": weights,
            "steps": self.steps,
            "samples": self.steps * self.batch,
            "flops": flops.total,
            "loss": history.at(self.steps - 1, "loss"),
            "loss_recent": recent.loss,
            "parts_recent": recent.parts,
            "curve": history.curve(),
            "events": tuple(history.events),
            "samples_per_s": steps_per_s * self.batch,
            "flops_per_s": steps_per_s * flops.total / self.steps,
            "mfu": share,
            "peak_memory_bytes": peak_memory_bytes(device),
            "seconds": now - began,
            "resumed_from": self.first,
            "notes": tuple(notes),
        }


def share_of_peak(flops: Flops, seconds: float, device: torch.device) -> float | None:
    """Least time for operations at a device's peaks over the time they took (MFU).

    Args:
        flops: the operations of one device.
        seconds: the time they took, above 0.
        device: of this process.

    Returns:
        The share, or None if no data sheet of the device is known here.
    """
    if device.type != "cuda":
        return None
    peaks = PEAK_FLOPS.get(torch.cuda.get_device_name(device))
    if peaks is None:
        return None
    if torch.get_float32_matmul_precision() != "highest":
        peaks = {**peaks, "fp32": peaks["tf32"]}
    return least_seconds(flops, peaks) / seconds


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory so far: of torch's allocator on a GPU, else resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        # Not getrusage: its maximum is inherited from the process that started this one.
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        if found is not None:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
