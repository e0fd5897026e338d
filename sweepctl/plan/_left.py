"""How long until tasks are done? The graph, the slots and the expected times, put together.

The end is found by running the graph in the mind: whenever a slot is free the longest ready task
starts, as the driver does it. A running task that tells its own pace is believed more than the
others of its kind.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweepctl.plan._cost import Calibration, Expected, together

if TYPE_CHECKING:
    from sweepctl.plan._operations import Cost

OWN_PACE = 0.05
"""Fraction of a running task after which its own pace tells when it ends, not that of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left of a run.

    Attributes:
        seconds: until the end, by starting the longest ready task whenever a slot is free; of the
            tasks whose time is known.
        low, high: ends of its 95 % interval, that of the work; None where it is not known.
        work_seconds: of all those tasks, one after the other.
        chain_seconds: of the longest chain of tasks that wait for each other.
        slots: tasks that run at the same time.
        unknown: tasks that nothing is known of, by kind; the time is then too short.
    """

    seconds: float
    low: float | None
    high: float | None
    work_seconds: float
    chain_seconds: float
    slots: int
    unknown: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A task that is not done.

    Attributes:
        kind: its kind.
        cost: what it takes.
        parents: tasks it waits for; those that are not open are done.
        running: whether it runs now; running tasks come before all others.
        fraction: done of it, from 0 to 1.
        rest_s: what is left of it by its own pace, in seconds; None when it has not told.
    """

    kind: str
    cost: Cost
    parents: tuple[str, ...] = ()
    running: bool = False
    fraction: float = 0.0
    rest_s: float | None = None


def time_left(tasks: Mapping[str, Open], calibration: Calibration, slots: int) -> Left:
    """When tasks will all be done.

    Args:
        tasks: name -> what is still to be done.
        calibration: how long tasks take.
        slots: tasks that run at the same time, at least 1.
    """
    parts: dict[str, Expected] = {}
    unknown: Counter[str] = Counter()
    for name, task in tasks.items():
        whole = calibration.expect(task.kind, task.cost)
        if task.rest_s is not None and task.fraction >= OWN_PACE:
            basis = None if whole is None else whole.basis
            parts[name] = Expected(seconds=task.rest_s, low=None, high=None, basis=basis)
        elif whole is None:
            unknown[task.kind] += 1
        else:
            rest_s = whole.seconds * (1.0 - task.fraction)
            parts[name] = Expected(seconds=rest_s, low=None, high=None, basis=whole.basis)
    work = together(parts.values())
    durations = {name: parts[name].seconds if name in parts else 0.0 for name in tasks}
    end, chain_seconds = _ends(tasks, durations, max(slots, 1))
    known = work.low is not None and work.high is not None and work.seconds > 0
    return Left(
        seconds=end,
        low=end * work.low / work.seconds if known and work.low is not None else None,
        high=end * work.high / work.seconds if known and work.high is not None else None,
        work_seconds=work.seconds,
        chain_seconds=chain_seconds,
        slots=max(slots, 1),
        unknown=dict(unknown),
    )


def _ends(
    tasks: Mapping[str, Open], durations: Mapping[str, float], slots: int
) -> tuple[float, float]:
    """When the last task ends: with so many slots, the longest ready task first; and with any."""
    unmet = {name: sum(parent in tasks for parent in task.parents) for name, task in tasks.items()}
    children: dict[str, list[str]] = defaultdict(list)
    for name, task in tasks.items():
        for parent in task.parents:
            if parent in tasks:
                children[parent].append(name)
    ready = [
        (not tasks[name].running, -durations[name], name)
        for name, waits in unmet.items()
        if waits == 0
    ]
    heapq.heapify(ready)
    now, busy = 0.0, list[tuple[float, str]]()
    chain = dict(durations)  # until the end of each, with any number of slots
    while ready or busy:
        while ready and len(busy) < slots:
            name = heapq.heappop(ready)[-1]
            heapq.heappush(busy, (now + durations[name], name))
        now, ended = heapq.heappop(busy)
        for child in children.get(ended, ()):
            chain[child] = max(chain[child], chain[ended] + durations[child])
            unmet[child] -= 1
            if unmet[child] == 0:
                heapq.heappush(ready, (True, -durations[child], child))
    return now, max(chain.values(), default=0.0)
