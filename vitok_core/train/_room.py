"""Samples in memory together: how many a device can hold, and what happens when it cannot.

"auto" takes the largest micro-batch that the closed form of `vitok_core.spec` and the free memory
of a GPU allow, and computes activations again where fewer than eight samples fit without. On a CPU
it is the whole share of the process.

A closed form may be wrong, and another process may take memory meanwhile. So gradients of a step
are computed in tries: one that runs out of memory is dropped, whole, and the next takes half as
many samples at once. Nothing is lost, because weights change only after the gradients of the whole
batch are there, and everything drawn is a function of the step.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch

from vitok_core.settings import Run
from vitok_core.spec import Memory, chosen
from vitok_core.train._history import History
from vitok_core.train._parallel import GradientSum, micro_batches, part
from vitok_core.train._progress import Event


def fitted(run: Run, memory: Callable[[bool], Memory], batch: int) -> Run:
    """How to run on a device, with numbers in place of "auto".

    Args:
        run: as asked for.
        memory: of the training, with and without recomputed activations.
        batch: samples of a step, of all processes together.
    """
    given, again = run.micro_batch, run.recompute_activations
    if given != "auto" and again != "auto":
        return run
    rows, free = part(batch), _free_bytes(torch.device(run.device))
    if free is None:
        micro_batch, recompute = None if given == "auto" else given, again is True
    else:
        own = rows.stop - rows.start
        micro_batch, recompute = chosen(
            memory,
            own,
            free,
            micro_batch=None if given == "auto" else given or own,
            recompute=None if again == "auto" else again,
        )
        # Where the closed form says that it does not fit, the device has the last word.
        micro_batch = (micro_batch or 1) if given == "auto" else given
    return dataclasses.replace(run, micro_batch=micro_batch, recompute_activations=recompute)


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of a GPU; None on a CPU, where memory is no reason to cut a batch."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0])


class Room:
    """How many samples of a process are in memory together.

        for trying in room.tries(step, rows):
            with trying:
                for own in room.micro_batches(rows):
                    ...  # adds to gradients, which were zeroed

    Args:
        micro_batch: to begin with; None for all rows.
        device: whose memory it is.
        gradients: what the tries compute.

    Attributes:
        micro_batch: samples whose gradients are computed together; None for all rows.
    """

    def __init__(
        self, micro_batch: int | None, device: torch.device, gradients: GradientSum
    ) -> None:
        self.micro_batch = micro_batch
        self._device, self._gradients = device, gradients
        self._history: History | None = None

    def tell(self, history: History) -> None:
        """Keep the events of running out of memory in a history."""
        self._history = history
        history.micro_batch = self.micro_batch

    def tries(self, step: int, rows: slice) -> Iterator[_Try]:
        """Tries at the gradients of a step, until one of them fits in every process.

        Each begins with zeroed gradients; after the last one they are those of all processes.

        Args:
            step: from 0.
            rows: of the global batch, of this process.

        Raises:
            torch.OutOfMemoryError: not even one sample fits, here or in another process.
        """
        while True:
            trying = _Try()
            self._gradients.begin()
            yield trying
            together = rows.stop - rows.start
            now = min(self.micro_batch or together, together)
            error = trying.ran_out
            ran_out, hopeless = self._gradients.finish(
                error is not None, error is not None and now == 1
            )
            if hopeless:
                raise error or torch.OutOfMemoryError(
                    "another process cannot hold even one sample in the memory of its device"
                )
            if not ran_out:
                return
            self._halve(step, now, error)

    def micro_batches(self, rows: slice) -> Iterator[slice]:
        """The parts of `rows` that are in memory together; with the last, gradients are sent."""
        parts = micro_batches(rows, self.micro_batch)
        for own in parts:
            self._gradients.last = own is parts[-1]
            yield own

    def _halve(self, step: int, now: int, error: torch.OutOfMemoryError | None) -> None:
        self.micro_batch = max(now // 2, 1)
        if self._history is not None:
            self._history.micro_batch = self.micro_batch
        if error is not None and self._history is not None:
            text = (
                f"step {step + 1}: {now} samples at once do not fit the memory of the device; "
                f"continues with {self.micro_batch}"
            )
            self._history.events.append(Event(step=step, kind="out of memory", text=text))
        # What the failed try has left, so that the smaller one does not find its pieces.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Try(AbstractContextManager[None]):
    """One try at the gradients of a step; running out of memory ends it without an error.

    Attributes:
        ran_out: the error, without the frames that would keep tensors alive.
    """

    ran_out: torch.OutOfMemoryError | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        """Take an error of memory upon itself, and no other."""
        if isinstance(error, torch.OutOfMemoryError):
            self.ran_out = error.with_traceback(None)
            return True
        return None
