"""Which trial is promoted? Trials are measured at rungs, and the better ones train on from there.

A rung is a training step at which a trial waits. Two rules say which one is promoted, both by
nothing but what was measured so far, so that a restart comes to the same answer. `asha` is
asynchronous successive halving (Li et al. 2018, arXiv:1810.05934): of n trials measured at a rung
the best n // factor are promoted, each as soon as it is among them. `median` promotes a trial that
is not worse than the median at its rung, and always the first few at a rung. A trial that waits may
still be promoted later, when others turn out to be worse: nothing of its training is thrown away.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sweepctl.study import Prune


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialProgress:
    """The rungs of a trial.

    Attributes:
        number: of the trial.
        costs: what it measured at each rung it came to, in their order, all to be made small.
        asked: rungs it was promoted to; more than `costs` while it trains, more than there are
            rungs when it was promoted to the end.
    """

    number: int
    costs: tuple[float, ...]
    asked: int

    @property
    def waits(self) -> bool:
        """Whether it has been measured at every rung it was promoted to."""
        return len(self.costs) == self.asked


def promoted(prune: Prune, progress: Sequence[TrialProgress]) -> int | None:
    """The number of the trial that is promoted next, None when none may be.

    Args:
        prune: the rule.
        progress: of the trials that are measured at rungs; those that failed are left out.
    """
    for rung in reversed(range(prune.rungs)):  # the trial nearest to the end comes first
        there = sorted(
            (trial for trial in progress if len(trial.costs) > rung),
            key=lambda trial: (trial.costs[rung], trial.number),
        )
        for trial in there[: _promotable(prune, [trial.costs[rung] for trial in there])]:
            if trial.waits and trial.asked == rung + 1:
                return trial.number
    return None


def _promotable(prune: Prune, costs: Sequence[float]) -> int:
    """How many of the sorted costs of a rung are good enough."""
    if prune.rule == "asha":
        return len(costs) // prune.factor
    if len(costs) <= prune.startup:
        return len(costs)
    middle = statistics.median(costs)
    return sum(1 for cost in costs if cost <= middle)


def best_waiting(progress: Sequence[TrialProgress]) -> int | None:
    """The best trial at the highest rung, which continues when no rule promotes any; None without.

    A search that is over has then at least one whole training.
    """
    waiting = [trial for trial in progress if trial.waits and trial.costs]
    if not waiting:
        return None
    return min(waiting, key=lambda trial: (-trial.asked, trial.costs[-1], trial.number)).number
