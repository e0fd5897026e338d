"""Which task starts next, and on which worker?

Tasks are looked at in their order. The first one that finds room starts, on the worker that has the
fewest slots left over, so that large tasks find whole workers. The first one that finds none gets a
reservation: the worker that has room for it soonest, by when what runs there will end. Tasks behind
it start on that worker only where they do not delay it: they end before that time, or take slots
that it leaves over. So a stream of small tasks never keeps a large one waiting, and what waits for
it costs no more time than the end of what runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweepctl.cluster import Node
from sweepctl.kinds import KINDS
from sweepctl.plan import Task

LOOKED_AT = 1_000
"""Ready tasks that are looked at for one that fits beside a large task that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task that could start.

    Attributes:
        name: its fingerprint.
        ranks: slots that it takes, all of one worker.
        seconds: how long it will run; None where nothing is known of it.
    """

    name: str
    ranks: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """An attempt that runs.

    Attributes:
        ranks: slots that it takes.
        rest_s: seconds until it ends; None where nothing is known of it.
    """

    ranks: int
    rest_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reserved:
    """A worker that is kept for a large task.

    Attributes:
        node: its name.
        in_s: seconds until it has room for the task; infinite where that is not known.
        over: slots that are left over then.
    """

    node: str
    in_s: float
    over: int


def order(task: Task) -> tuple[int, int, str]:
    """Ready tasks start in this order."""
    return KINDS[task.kind].priority, -task.cost_left.flops, task.fingerprint


def next_start(
    waiting: Iterable[Waiting], nodes: Sequence[Node], running: Mapping[str, Sequence[Busy]]
) -> tuple[str, str] | None:
    """The task to start now and the worker to start it on; None where none can.

    Args:
        waiting: tasks that could start, in order. Those that no worker could take if it were empty
            are passed over.
        nodes: the workers.
        running: name of a worker -> what runs there.
    """
    reserved: _Reserved | None = None
    most = max((node.most for node in nodes), default=0)
    placeable = (task for task in waiting if task.ranks <= most)
    for task in itertools.islice(placeable, LOOKED_AT):
        fits = [
            node
            for node in nodes
            if task.ranks <= min(node.free, node.most) and _may_start(task, node, reserved)
        ]
        if fits:
            return task.name, min(fits, key=lambda node: node.free).name
        if reserved is None:
            reserved = _reserve(task, nodes, running)
    return None


def _may_start(task: Waiting, node: Node, reserved: _Reserved | None) -> bool:
    if reserved is None or node.name != reserved.node:
        return True
    return task.ranks <= reserved.over or (
        task.seconds is not None and task.seconds <= reserved.in_s < math.inf
    )


def _reserve(
    task: Waiting, nodes: Sequence[Node], running: Mapping[str, Sequence[Busy]]
) -> _Reserved | None:
    """The worker that has room for a task soonest; None where none ever has."""
    found = [
        _room_in(task, node, running.get(node.name, ()))
        for node in nodes
        if task.ranks <= node.most
    ]
    free = {node.name: node.free for node in nodes}
    return min(found, key=lambda one: (one.in_s, -free[one.node]), default=None)


def _room_in(task: Waiting, node: Node, running: Sequence[Busy]) -> _Reserved:
    free, in_s = node.free, 0.0
    ends = sorted((math.inf if one.rest_s is None else one.rest_s, one.ranks) for one in running)
    for rest_s, ranks in ends:
        if free >= task.ranks:
            break
        free, in_s = free + ranks, max(in_s, rest_s)
    # Of what ends at an unknown time, nobody knows what else will have ended by then.
    over = 0 if in_s == math.inf else free - task.ranks
    return _Reserved(node=node.name, in_s=in_s, over=max(0, over))
