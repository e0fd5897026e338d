"""Which samples a process evaluates, and how processes put their parts together.

Batches are cut from the samples in order. Where torch.distributed is initialised, each process
takes a run of whole batches; what it has collected is then exchanged and put into the order of the
samples. So the number of processes changes no number at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from vitok_core.data import SampleSet
from vitok_core.errors import SpecError, Stopped

Part = TypeVar("Part")


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


def rank_and_size() -> tuple[int, int]:
    """This process among those of its group; (0, 1) without one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def batches(
    samples: SampleSet,
    batch: int,
    progress: Callable[[EvaluateProgress], None] | None,
    should_stop: Callable[[], bool] | None,
    what: str,
) -> Iterator[NDArray[np.int64]]:
    """Consecutive indices of this process's share; stops before a batch, reports after it.

    Args:
        samples: all of them.
        batch: images, or frames of whole clips, at a time.
        progress: called after every batch.
        should_stop: called before every batch.
        what: name of the work, for the message of a stop.

    Raises:
        SpecError: a batch below 1.
        Stopped: `should_stop` said so.
    """
    if batch < 1:
        raise SpecError("batch", f"batch = {batch}: must be at least 1")
    size = max(1, batch // samples.frames)
    rank, processes = rank_and_size()
    count = -(-len(samples) // size)
    first, last = (min(at * size, len(samples)) for at in share(count, rank, processes))
    begun = time.perf_counter()
    for at in range(first, last, size):
        if should_stop is not None and should_stop():
            raise Stopped(
                f"{what} stopped at sample {at} of {len(samples)}; it starts again from 0"
            )
        end = min(at + size, last)
        yield np.arange(at, end)
        if progress is not None:
            done = end - first
            speed = done / max(time.perf_counter() - begun, 1e-9)
            progress(EvaluateProgress(done=done, total=last - first, samples_per_s=speed))


def share(count: int, rank: int, processes: int) -> tuple[int, int]:
    """First and one past the last of the things, out of `count`, that a process does."""
    return rank * count // processes, (rank + 1) * count // processes


def gathered(part: Part) -> list[Part]:
    """What every process has, in the order of the processes; on every process."""
    _, processes = rank_and_size()
    if processes == 1:
        return [part]
    parts: list[Part | None] = [None] * processes
    torch.distributed.all_gather_object(parts, part)
    return [one for one in parts if one is not None]
