"""What do plans come to? Tasks, hours and disk: of a plan by stage, of several plans with sharing.

Tasks that are done or blocked are counted and cost nothing; a task that several cells or studies
use is run once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweepctl.kinds import KINDS, kind_of
from sweepctl.plan._cost import Calibration, Speed, expected_hours
from sweepctl.plan._left import Left, Open, time_left
from sweepctl.plan._tasks import Task

if TYPE_CHECKING:
    from sweepctl.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """One line of `sweepctl plan`.

    Attributes:
        stage: kind of the tasks.
        cells: cells that need the stage.
        tasks: distinct tasks.
        shared: uses that are served by a task of another cell.
        cached: tasks that are done already.
        new: tasks that would be run.
        blocked: tasks that failed before or wait for one that did.
        flops: floating point operations of the new tasks.
        disk_bytes: disk the new tasks will take.
        hours: time of the new tasks on one device; None where nothing is known of one of them.
        hours_low, hours_high: ends of its 95 % interval; None where it is not known.
        source: where the hours come from, for people; empty without hours.
    """

    stage: str
    cells: int
    tasks: int
    shared: int
    cached: int
    new: int
    blocked: int
    flops: int
    disk_bytes: int
    hours: float | None
    hours_low: float | None
    hours_high: float | None
    source: str


def summary(
    plan: Plan, states: Mapping[str, str], speeds: Sequence[Speed] | Calibration = ()
) -> list[StageSummary]:
    """A line a stage.

    Args:
        plan: the plan.
        states: fingerprint -> "pending", "running", "done" or "failed"; unknown tasks are new.
        speeds: finished tasks to calibrate hours with, or the calibration.
    """
    calibration = speeds if isinstance(speeds, Calibration) else Calibration(speeds)
    blocked = blocked_tasks(plan.tasks, states)
    uses: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    for cell in plan.cells:
        kinds = Counter(kind_of(stage) for stage in cell.tasks)
        uses.update(kinds)
        cells.update(set(kinds))
    by_kind: dict[str, list[Task]] = defaultdict(list)
    for task in plan.tasks.values():
        by_kind[task.kind].append(task)
    lines = []
    for stage in KINDS:
        tasks = by_kind[stage]
        if not tasks:
            continue
        new = [
            task
            for task in tasks
            if states.get(task.fingerprint) != "done" and task.fingerprint not in blocked
        ]
        hours = expected_hours(new, calibration)
        lines.append(
            StageSummary(
                stage=stage,
                cells=cells[stage],
                tasks=len(tasks),
                shared=uses[stage] - len(tasks),
                cached=sum(states.get(task.fingerprint) == "done" for task in tasks),
                new=len(new),
                blocked=sum(task.fingerprint in blocked for task in tasks),
                flops=sum(task.cost.flops for task in new),
                disk_bytes=sum(task.cost.disk_bytes for task in new),
                hours=None if hours.unknown else hours.hours,
                hours_low=None if hours.unknown else hours.low,
                hours_high=None if hours.unknown else hours.high,
                source="; ".join(hours.sources),
            )
        )
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What one or several plans come to, each task counted once.

    Attributes:
        cells: cells, of several plans the sum.
        uses: tasks if every cell had its own.
        tasks: distinct tasks.
        cached: tasks that are done already.
        new: tasks that would be run.
        blocked: tasks that failed before or wait for one that did.
        flops: floating point operations of the new tasks.
        disk_bytes: disk the new tasks will take.
        hours: time of the new tasks on one device; of those that something is known of.
        hours_low, hours_high: ends of its 95 % interval; None where it is not known.
        hours_unshared: the same if every cell had its own tasks; those that are done cost nothing.
        unknown: new tasks that nothing is known of, by kind; they are not in the hours.
        sources: where the hours come from.
    """

    cells: int
    uses: int
    tasks: int
    cached: int
    new: int
    blocked: int
    flops: int
    disk_bytes: int
    hours: float
    hours_low: float | None
    hours_high: float | None
    hours_unshared: float
    unknown: Mapping[str, int]
    sources: tuple[str, ...]


def total(plans: Sequence[Plan], states: Mapping[str, str], calibration: Calibration) -> Total:
    """What plans come to together; tasks that they share are counted once.

    Args:
        plans: one or several.
        states: fingerprint -> state; unknown tasks are new.
        calibration: how long tasks take.
    """
    tasks = {name: task for plan in plans for name, task in plan.tasks.items()}
    blocked = blocked_tasks(tasks, states)
    new = [
        task for name, task in tasks.items() if states.get(name) != "done" and name not in blocked
    ]
    uses: Counter[str] = Counter()
    for plan in plans:
        for cell in plan.cells:
            uses.update(cell.tasks.values())
    hours, unshared_s = expected_hours(new, calibration), 0.0
    for task in new:
        expected = calibration.expect(task.kind, task.cost)
        unshared_s += 0.0 if expected is None else expected.seconds * uses[task.fingerprint]
    return Total(
        cells=sum(len(plan.cells) for plan in plans),
        uses=sum(uses.values()),
        tasks=len(tasks),
        cached=sum(states.get(name) == "done" for name in tasks),
        new=len(new),
        blocked=len(blocked),
        flops=sum(task.cost.flops for task in new),
        disk_bytes=sum(task.cost.disk_bytes for task in new),
        hours=hours.hours,
        hours_low=hours.low,
        hours_high=hours.high,
        hours_unshared=unshared_s / 3600,
        unknown=hours.unknown,
        sources=hours.sources,
    )


def whole_run(
    plans: Sequence[Plan], states: Mapping[str, str], calibration: Calibration, devices: int
) -> Left:
    """How long running plans will take on so many devices, one task a device."""
    tasks = {name: task for plan in plans for name, task in plan.tasks.items()}
    blocked = blocked_tasks(tasks, states)
    rest = {
        name: Open(
            kind=task.kind,
            cost=task.cost,
            parents=tuple(parent for _, parent in task.parents),
        )
        for name, task in tasks.items()
        if states.get(name) != "done" and name not in blocked
    }
    return time_left(rest, calibration, devices)


def blocked_tasks(tasks: Mapping[str, Task], states: Mapping[str, str]) -> set[str]:
    """Failed tasks and everything that waits for one, however far down."""
    blocked: set[str] = set()
    for name, task in tasks.items():  # parents come first
        if states.get(name) == "done":
            continue
        if states.get(name) == "failed" or any(parent in blocked for _, parent in task.parents):
            blocked.add(name)
    return blocked
