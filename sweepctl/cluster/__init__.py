"""Pools that run attempts: in this process, on this machine, or on a Dask cluster.

The driver sees a pool with slots: it submits a request when a slot is free and later takes the
outcome. What is run is named by a string, "module:function"; the pool knows neither tasks nor
models. The function gets an `AttemptRequest`, does the work, writes attempts/<n>/outcome.json (an
`AttemptOutcome`) as the last thing and returns None.

Dask only carries requests and outcomes. It keeps no queue (the driver submits what fits), repeats
nothing (the driver counts attempts), and the work itself happens in a child process of the worker
(`_isolated`, `_fork_server`), so whatever happens to the child, the worker can tell.

    _slots       what a worker has: slots, and the GPUs that attempts take and give back
    open_pool    _inline.InlinePool or _dask.DaskPool, as `sweepctl.clusters` says
    find_gpus    the GPUs of a machine, see _devices
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from sweepctl.cluster._devices import Gpu, child_variables, find_gpus, memory_takers
from sweepctl.cluster._slots import Node
from sweepctl.clusters import find_cluster
from sweepctl.errors import UsageError
from sweepctl.runs import AttemptOutcome, AttemptRequest

__all__ = [
    "HERE",
    "Answer",
    "Gpu",
    "Node",
    "Pool",
    "PoolRequest",
    "child_variables",
    "find_gpus",
    "memory_takers",
    "open_pool",
]


HERE = "this machine"
"""Who answers for a pool whose workers are all on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a worker has answered.

    Attributes:
        worker: its name, or `HERE`.
        value: what the function returned; None where there is a problem.
        problem: why it did not return, in a line; empty where it did.
    """

    worker: str
    value: Any = None
    problem: str = ""


class Pool(Protocol):
    """Slots that run attempts. A context manager; leaving it ends what still runs.

    Attributes:
        notices: what the user should know about this pool, for example that it is not encrypted.
        grows: whether workers may still join, so that what finds no room now may find it later.
    """

    notices: tuple[str, ...]
    grows: bool

    @property
    def slots(self) -> int:
        """How many ranks can run at the same time now; changes when workers come and go."""

    def room(self) -> list[Node]:
        """The workers that are connected now, and what is free on them.

        Raises:
            UnreachableError: the cluster is gone.
        """

    def submit(self, request: AttemptRequest, node: str = "") -> None:
        """Start an attempt; never waits. The caller submits no more than there are free slots.

        Args:
            request: what to run.
            node: name of the worker; "" for any, where every attempt has one rank.

        Raises:
            RunFolderError: the attempt's folder cannot be written.
        """

    def completed(self, timeout_s: float) -> list[AttemptOutcome]:
        """Attempts that ended since the last call; waits until there is one or the time is over.

        Every submitted attempt is reported exactly once, in the order in which they end.

        Raises:
            UnreachableError: the cluster is gone; what ran there may go on, and is found on disk.
        """

    def ask(self, function: str, argument: Mapping[str, Any]) -> list[Answer]:
        """Call a function on every worker that is connected now; one answer for this machine.

        Args:
            function: "module:function"; takes the argument and returns plain data.
            argument: plain data.

        Raises:
            UnreachableError: the cluster is gone.
        """

    def stop(self, hard: bool = False) -> None:
        """Ask all submitted attempts to write a checkpoint and stop; end them now when `hard`.

        Returns at once; outcomes come from `completed`. May be called from a signal handler.

        Raises:
            RunFolderError: a stop file cannot be written.
        """

    def close(self) -> None:
        """End attempts that still run, then the workers if the pool started them."""

    def __enter__(self) -> Self:
        """Return the pool."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRequest:
    """What `open_pool` was asked for; the openers of `sweepctl.clusters` get it, numbers checked.

    Attributes are the arguments of `open_pool`.
    """

    where: str
    workers: int | None
    threads: int
    entry: str
    preload: str | None
    grace_s: float
    gpus: bool
    ranks: int


def open_pool(
    where: str,
    *,
    workers: int | None = None,
    threads: int = 1,
    entry: str,
    preload: str | None = None,
    grace_s: float = 30.0,
    gpus: bool = False,
    ranks: int = 1,
) -> Pool:
    """Open a pool.

    Args:
        where: name or address of a cluster, see `sweepctl.clusters`: "inline", "local",
            "tcp://host:port" or "tls://host:port".
        workers: local: number of slots, by default one for each GPU, else as many as the cores
            allow; a scheduler: use at most so many slots; inline: 1.
        threads: CPU threads of one attempt, at least 1.
        entry: "module:function" that runs a request.
        preload: "module:function" called once in each fork server before the first attempt, to
            import what attempts need; it must not start threads or touch a GPU. Inline needs none.
        grace_s: seconds between asking an attempt to stop and killing it; inline cannot kill.
        gpus: whether attempts may use GPUs: then each gets one of its worker's for each rank, and
            no other attempt has it while there are as many GPUs as slots.
        ranks: of the largest attempt that is to come. With GPUs, or where it is above 1, all local
            slots belong to one worker process; else each has a process of its own, whose death
            costs one attempt.

    Raises:
        UsageError: a `where` that does not exist, or numbers that make no sense with it.
        UnreachableError: the scheduler does not answer.
    """
    if threads < 1 or (workers is not None and workers < 1):
        raise UsageError(f"workers ({workers}) and threads ({threads}) must be at least 1")
    if ranks < 1:
        raise UsageError(f"an attempt has at least 1 rank, not {ranks}")
    if entry.count(":") != 1 or (preload is not None and preload.count(":") != 1):
        raise UsageError(f'entry {entry!r} and preload {preload!r} must read "module:function"')
    try:
        kind = find_cluster(where)
    except ValueError as error:
        raise UsageError(str(error)) from None
    asked = PoolRequest(
        where=where,
        workers=workers,
        threads=threads,
        entry=entry,
        preload=preload,
        grace_s=grace_s,
        gpus=gpus,
        ranks=ranks,
    )
    module, _, function = kind.opener.partition(":")
    pool: Pool = getattr(importlib.import_module(module), function)(asked)
    return pool
