"""Several processes make one update: each computes its slice of the same global batch.

Order, mirroring and noise are drawn for the global batch from (seed, step) and sliced, every loss
is weighted by its share of the global batch, and gradients are added up over the processes before
they are clipped. So the number of processes, like the size of a micro-batch, changes float rounding
and nothing else, and there is no wrapper between the loop and the model: accumulation, a second
optimiser, penalties on gradients and compiled functions work as they do in one process.

Processes find each other by the environment that `torchrun` sets. Outside of it there is one
process, and nothing here costs anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as processes

from vitok_core.errors import SpecError

BUCKET_VALUES = 2**23
"""Values that are added up in one message: few messages, and 32 MiB of memory for the copy."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who is here.

    Attributes:
        rank: number of this process, from 0; only process 0 writes files.
        size: number of processes.
    """

    rank: int
    size: int


def world() -> World:
    """This process among those that train together; one of one outside of `distributed`."""
    if not (processes.is_available() and processes.is_initialized()):
        return World(rank=0, size=1)
    return World(rank=processes.get_rank(), size=processes.get_world_size())


@contextlib.contextmanager
def distributed(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the processes that `torchrun` started, and leave them at the end.

    Without torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) this is
    one process.

    Args:
        device: "cpu" (gloo), or "cuda" (nccl): each process takes the GPU of its local rank.

    Yields:
        The device of this process; pass it on to the training.

    Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291): a script
    whose work is on disk may leave by `os._exit(0)`.
    """
    chosen = torch.device(device)
    if "WORLD_SIZE" not in os.environ:
        yield chosen
        return
    if str(device) == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    # Flags and errors travel on the CPU whatever the gradients are on.
    processes.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        processes.destroy_process_group()


def part(batch: int) -> slice:
    """The rows of a global batch that this process computes: contiguous, sizes differ by one.

    Raises:
        SpecError: fewer rows than processes.
    """
    here = world()
    if batch < here.size:
        raise SpecError(
            "batch",
            f"batch = {batch} is less than the {here.size} processes, some would have nothing to "
            "do; start fewer, or enlarge the batch",
        )
    return slice(here.rank * batch // here.size, (here.rank + 1) * batch // here.size)


def micro_batches(rows: slice, most: int | None) -> list[slice]:
    """The parts of `rows`, each of at most `most`, that are in memory together; None for all."""
    size = most or rows.stop - rows.start
    starts = range(rows.start, rows.stop, size)
    return [slice(start, min(start + size, rows.stop)) for start in starts]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients up over all processes, in place.

    Parameters without a gradient are passed over; they must be the same ones in every process.
    """
    if world().size == 1:
        return
    bucket: list[Tensor] = []
    values = 0
    for gradient in [p.grad for p in parameters if p.grad is not None]:
        if bucket and (
            values + gradient.numel() > BUCKET_VALUES or gradient.dtype != bucket[0].dtype
        ):
            _sum_bucket(bucket)
            bucket, values = [], 0
        bucket.append(gradient)
        values += gradient.numel()
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(bucket: list[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
    processes.all_reduce(flat)
    pieces = torch.split(flat, [gradient.numel() for gradient in bucket])
    for gradient, piece in zip(bucket, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def sum_tensor(tensor: Tensor) -> Tensor:
    """The tensor itself after adding it up over all processes, in place."""
    if world().size > 1:
        processes.all_reduce(tensor)
    return tensor


def agree(flag: bool) -> bool:
    """Whether any process says so; all of them must ask at the same point."""
    if world().size == 1:
        return flag
    said = torch.tensor(int(flag))
    processes.all_reduce(said, op=processes.ReduceOp.MAX)
    return bool(said.item())


def from_first(action: Callable[[], Result]) -> Result:
    """Do something in the first process only; every process gets its result or raises its error.

    All processes must come here at the same point, and none leaves before the first is done. What
    travels is pickled, so results are plain data.
    """
    here = world()
    if here.size == 1:
        return action()
    cpu = torch.device("cpu")
    answer: list[Any] = [None, None]
    if here.rank == 0:
        try:
            answer[0] = action()
        except Exception as error:
            processes.broadcast_object_list([None, error], device=cpu)
            raise
    processes.broadcast_object_list(answer, device=cpu)
    result, failure = answer
    if failure is not None:
        raise failure
    given: Result = result
    return given
