"""What does a worker have, and who has it now? Slots, and GPUs by their ids."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sweepctl.errors import SweepctlError

LOOK_S = 0.5
"""Seconds between two looks at whether somebody still wants GPUs that are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A worker and its slots. A slot is a GPU, or on a CPU the cores of one rank.

    Attributes:
        name: by which `Pool.submit` finds it.
        slots: that it has.
        free: of them, those that nothing runs on.
        most: ranks of the largest attempt that it can take when all is free: of a worker with more
            slots than GPUs the number of its GPUs.
    """

    name: str
    slots: int
    free: int
    most: int


class GpusTaken(SweepctlError):
    """More GPUs are needed than a worker has, or nobody wants them any more."""


class Devices:
    """The GPUs of a worker process, each taken by at most so many attempts at a time.

    Drivers that share a worker share this, so that they never take the same GPU by accident; they
    wait for each other.

    Args:
        ids: of the GPUs; none for a worker without.
        slots: of the worker. More slots than GPUs share them evenly.
    """

    def __init__(self, ids: Sequence[str], slots: int) -> None:
        self.ids = tuple(ids)
        self._each = -(-slots // len(ids)) if ids else 0
        self._users = dict.fromkeys(ids, 0)
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, count: int, unwanted: Callable[[], bool]) -> Iterator[tuple[str, ...]]:
        """Ids of so many GPUs, those with the fewest users first; none of a worker without GPUs.

        Raises:
            GpusTaken: there are not so many, or `unwanted` says so before they are free.
        """
        if not self.ids:
            yield ()
            return
        if count > len(self.ids):
            raise GpusTaken(
                f"{count} GPUs are needed, and the worker has {len(self.ids)}: "
                f"{', '.join(self.ids)}"
            )
        mine = self._take(count, unwanted)
        try:
            yield mine
        finally:
            with self._changed:
                for one in mine:
                    self._users[one] -= 1
                self._changed.notify_all()

    def _take(self, count: int, unwanted: Callable[[], bool]) -> tuple[str, ...]:
        with self._changed:
            while True:
                free = [one for one in self.ids if self._users[one] < self._each]
                if len(free) >= count:
                    mine = tuple(sorted(free, key=lambda one: self._users[one])[:count])
                    for one in mine:
                        self._users[one] += 1
                    return mine
                if unwanted():
                    raise GpusTaken("stopped before its GPUs were free")
                self._changed.wait(LOOK_S)
