"""Which samples a process evaluates, in a world of several.

Batches are cut from the samples in order, and each process takes a run of whole ones. What they
have collected goes to the first process, in the order of the samples, which computes every value
and writes every file. So the number of processes changes no number at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitok_core.data import SampleSet
from vitok_core.errors import SpecError, Stopped
from vitok_core.ranks import agree, fail_together, world


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateProgress:
    """How far an evaluation is.

    Attributes:
        done: samples finished.
        total: samples to do by this process.
        samples_per_s: since the start.
    """

    done: int
    total: int
    samples_per_s: float


def each_batch(
    samples: SampleSet,
    action: Callable[[NDArray[np.int64]], None],
    *,
    batch: int,
    progress: Callable[[EvaluateProgress], None] | None,
    should_stop: Callable[[], bool] | None,
    what: str,
) -> None:
    """Do something with consecutive indices of this process's share, batch by batch.

    Args:
        samples: all of them.
        action: given the indices of a batch.
        batch: images, or frames of whole clips, at a time.
        progress: called after every batch, in the first process.
        should_stop: called before every batch, in every process.
        what: name of the work, for the message of a stop.

    Raises:
        SpecError: a batch below 1.
        Stopped: `should_stop` of any process said so.
        Exception: in every process, what was raised in one of them.
    """
    if batch < 1:
        raise SpecError("batch", f"batch = {batch}: must be at least 1")
    size, here = max(1, batch // samples.frames), world()
    count = -(-len(samples) // size)
    turns = [
        range(rank * count // here.size, (rank + 1) * count // here.size)
        for rank in range(here.size)
    ]
    own, begun, done = turns[here.rank], time.perf_counter(), 0
    total = min(own.stop * size, len(samples)) - own.start * size
    for turn in range(max(map(len, turns))):
        if agree(should_stop is not None and should_stop()):
            raise Stopped(
                f"{what} stopped at sample {turn * size * here.size} of {len(samples)}; it starts "
                "again from 0"
            )
        error = None
        try:
            if turn < len(own):
                first = own[turn] * size
                indices = np.arange(first, min(first + size, len(samples)))
                action(indices)
                done += len(indices)
                if progress is not None and here.rank == 0:
                    speed = done / max(time.perf_counter() - begun, 1e-9)
                    progress(EvaluateProgress(done=done, total=total, samples_per_s=speed))
        except Exception as failure:  # noqa: BLE001  # raised below, in all processes
            error = failure
        fail_together(error)
