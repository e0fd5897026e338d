"""Which trial may go on? Trials are measured at early steps, and the better ones go on from there.

A rung is a training step at which a trial waits. Two rules say who climbs on, both by nothing but
what was measured so far, so that a restart comes to the same answer. `asha` is asynchronous
successive halving (Li et al. 2018, arXiv:1810.05934): of n trials measured at a rung the best
n // factor may go on, each as soon as it is among them. `median` lets a trial go on that is no
worse than the median at its rung; the first few at a rung always do. Who waits may still go on
later, when others turn out to be worse: nothing of its training was thrown away.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sweepctl.study import Prune


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """How far a trial has come.

    Attributes:
        number: of the trial.
        costs: what it measured at each rung it came to, in their order, all to be made small.
        asked: rungs it was let go to; more than `costs` while it is on its way, more than there
            are rungs when it was let go to the end.
    """

    number: int
    costs: tuple[float, ...]
    asked: int

    @property
    def waits(self) -> bool:
        """Whether it has been measured wherever it was let go to."""
        return len(self.costs) == self.asked


def promoted(prune: Prune, climbs: Sequence[Climb]) -> int | None:
    """The number of the trial that goes on next, None when none may.

    Args:
        prune: the rule.
        climbs: the trials that are measured at rungs; those that failed are left out.
    """
    for rung in reversed(range(prune.rungs)):  # who is nearest to the end goes first
        there = sorted(
            (climb for climb in climbs if len(climb.costs) > rung),
            key=lambda climb: (climb.costs[rung], climb.number),
        )
        for climb in there[: _may_go_on(prune, [climb.costs[rung] for climb in there])]:
            if climb.waits and climb.asked == rung + 1:
                return climb.number
    return None


def _may_go_on(prune: Prune, costs: Sequence[float]) -> int:
    """How many of the sorted costs of a rung are good enough."""
    if prune.rule == "asha":
        return len(costs) // prune.factor
    if len(costs) <= prune.startup:
        return len(costs)
    middle = statistics.median(costs)
    return sum(1 for cost in costs if cost <= middle)


def last_hope(climbs: Sequence[Climb]) -> int | None:
    """The best trial at the highest rung: who goes on when no rule lets anyone; None without one.

    A search that is over has then at least one whole training.
    """
    waiting = [climb for climb in climbs if climb.waits and climb.costs]
    if not waiting:
        return None
    return min(waiting, key=lambda climb: (-climb.asked, climb.costs[-1], climb.number)).number
