"""Several processes at one piece of work: who is here, and how they share, agree and fail.

Processes find each other by the environment that `torchrun` sets. Outside of it there is one
process, and nothing here costs anything. What sends or waits has to be called by all processes at
the same point; an error in one of them is raised in all, because the others would wait for a
message that never comes. What travels is pickled, so results are plain data.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as processes

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: one may measure or write for hours while they do. A
process that ends is noticed without this, by its closed connections or by who started it."""

Result = TypeVar("Result")
Batch = TypeVar("Batch")
Part = TypeVar("Part")


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
    """This process among those that work together; one of one outside of `distributed`."""
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
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    processes.init_process_group(backend, timeout=PATIENCE)
    try:
        yield chosen
    finally:
        processes.destroy_process_group()


def agree(flag: bool) -> bool:
    """Whether any process says so."""
    return agree_on([flag])[0]


def agree_on(flags: Sequence[bool]) -> list[bool]:
    """As `agree`, of several flags in one message."""
    if world().size == 1:
        return list(flags)
    said = torch.tensor(flags, dtype=torch.uint8)
    processes.all_reduce(said, op=processes.ReduceOp.MAX)
    return [bool(one) for one in said.tolist()]


def from_first(action: Callable[[], Result]) -> Result:
    """Do something in the first process only; every process gets its result or raises its error.

    None leaves before the first is done.
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
            processes.broadcast_object_list([None, _sendable(error)], device=cpu)
            raise
    processes.broadcast_object_list(answer, device=cpu)
    result, failure = answer
    if failure is not None:
        raise failure
    given: Result = result
    return given


def fail_together(error: Exception | None) -> None:
    """Raise the own error, or that of the first process which has one; nothing without any."""
    if agree(error is not None) and world().size > 1:
        errors: list[Exception | None] = [None] * world().size
        processes.all_gather_object(errors, None if error is None else _sendable(error))
        error = error or next(one for one in errors if one is not None)
    if error is not None:
        raise error


def collected(part: Part) -> list[Part]:
    """What every process has, in their order, in the first process; nothing in the others."""
    here = world()
    if here.size == 1:
        return [part]
    parts: list[Any] = [None] * here.size
    processes.gather_object(part, parts if here.rank == 0 else None, dst=0)
    return parts if here.rank == 0 else []


def share_out(
    batches: Sequence[Batch],
    compute: Callable[[Batch], Part],
    write: Callable[[Part], None],
    *,
    report: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> bool:
    """Compute batches in all processes; in the first one, write the results in their order.

    Batches are given out in turn, and what is computed of one does not depend on who does it. So
    what is written is the same for any number of processes, and what was written when the work
    ends early are the first batches. Writing goes on in a thread while the next are computed.

    Args:
        batches: all that is left to do.
        compute: gives plain data of the CPU.
        write: called in a thread, for one result after the other.
        report: called in the first process, with the number of batches that are computed: before
            each turn, and at the end.
        should_stop: called before each turn, in every process.

    Returns:
        Whether all was done; False if any process was told to stop.

    Raises:
        Exception: in every process, what was raised in one of them.
    """
    here = world()
    writing: Future[None] | None = None

    def write_all(parts: Sequence[Any]) -> None:
        for part in parts:
            write(part)

    with ThreadPoolExecutor(1) as writer:
        stopped, made, error = False, None, None
        for start in range(0, len(batches), here.size):
            if stopped := agree(should_stop is not None and should_stop()):
                break
            turn = batches[start : start + here.size]
            try:
                if here.rank == 0:
                    report(start)
                if here.rank < len(turn):
                    made = compute(turn[here.rank])
                if writing is not None:
                    writing.result()
            except Exception as failure:  # noqa: BLE001  # raised below, in all processes
                error = failure
            fail_together(error)
            parts = collected(made)[: len(turn)]
            if here.rank == 0:
                writing = writer.submit(write_all, parts)
    try:
        if writing is not None:
            writing.result()
        if here.rank == 0 and not stopped:
            report(len(batches))
    except Exception as failure:  # noqa: BLE001  # raised below, in all processes
        error = failure
    fail_together(error)
    return not stopped


def _sendable(error: Exception) -> Exception:
    """An error as other processes can read it; of one that cannot be pickled, its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # whatever its class does when it is rebuilt
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
