"""How long will it take, and were earlier answers right? For `status` and for a run.

The estimate is `sweepctl.plan.time_left`: recorded speeds, the graph, and the slots that work now.
How good such estimates are is not promised but measured: what each task was expected to take is
kept when it is dispatched, and compared with what it took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweepctl.ledger import Ledger, Prediction, TaskState
    from sweepctl.plan import Left


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How well finished tasks were predicted.

    Attributes:
        tasks: that had a prediction and were finished by their first attempt.
        ratio: median of taken over predicted time.
        low, high: range of that ratio without the lowest and highest 5 %.
    """

    tasks: int
    ratio: float
    low: float
    high: float


def study_left(study: str, tasks: Mapping[str, TaskState], ledger: Ledger) -> Left | None:
    """What is left of a study, or None when nothing is.

    Args:
        study: its name.
        tasks: its tasks by fingerprint.
        ledger: the ledger that holds their states.
    """
    open_tasks = {
        name: task
        for name, task in tasks.items()
        if task.state in ("pending", "running") and not task.blocked
    }
    if not open_tasks:
        return None
    from sweepctl.plan import Calibration, Cost, Open, time_left

    rest, parents = {}, ledger.tasks.parents(study)
    for name, task in open_tasks.items():
        running = task.state == "running"
        fraction = task.step / task.steps if running and task.step and task.steps else 0.0
        rest_s = None
        if fraction > 0 and task.attempts == 1 and task.started_at is not None:
            # Of a later attempt nobody here knows at which step it began.
            rest_s = (time.time() - task.started_at.timestamp()) * (1 - fraction) / fraction
        rest[name] = Open(
            kind=task.kind,
            cost=Cost(flops=int(task.flops), samples=task.samples),
            parents=parents.get(name, ()),
            running=running,
            fraction=fraction,
            rest_s=rest_s,
            gpus=task.ranks if running else 1,
        )
    # How many GPUs the tasks to come will have is not recorded: they are spread over these.
    slots = sum(task.ranks for task in open_tasks.values() if task.state == "running")
    return time_left(rest, Calibration(ledger.tasks.speeds()), max(slots, 1))


def how_it_was_kept(predictions: Sequence[Prediction]) -> Kept | None:
    """The error of past predictions, or None when there were none."""
    ratios = sorted(one.seconds / one.predicted_s for one in predictions)
    if not ratios:
        return None
    middle, last = len(ratios) // 2, len(ratios) - 1
    cut = math.floor(0.05 * len(ratios))
    ratio = ratios[middle] if last % 2 == 0 else (ratios[middle - 1] + ratios[middle]) / 2
    return Kept(tasks=len(ratios), ratio=ratio, low=ratios[cut], high=ratios[last - cut])


def kept_in_words(kept: Kept) -> str:
    """One line on past predictions."""
    if kept.tasks == 1:
        return f"actual/predicted time: {kept.ratio:.2f}x (n = 1)"
    return (
        f"median actual/predicted time: {kept.ratio:.2f}x "
        f"({kept.low:.2f}x to {kept.high:.2f}x, n = {kept.tasks})"
    )


def left_in_words(left: Left) -> str:
    """The time that is left, "about 12 min left (9 to 16)"; empty where nothing is known of it."""
    if left.seconds <= 0:
        return ""
    name = "h" if left.seconds >= 2 * 3600 else "min" if left.seconds >= 120 else "s"
    unit_s = {"h": 3600.0, "min": 60.0, "s": 1.0}[name]
    words = "at least" if left.unknown else "about"
    said = f"{words} {figure(left.seconds / unit_s)} {name} left"
    if left.low is None or left.high is None:
        return said
    return f"{said} ({figure(left.low / unit_s)} to {figure(left.high / unit_s)})"


def figure(number: float) -> str:
    """Two figures of a number, as a whole number from 10 on."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
