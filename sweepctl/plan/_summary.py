"""What remains to be done: tasks by stage and why they run, hours and disk, the end of a run.

Tasks that are done or blocked are counted and cost nothing; a task that several cells or studies
use is run once. The end of a run is found by simulating the schedule: whenever a slot is free the
longest ready task starts, as in the driver. The rate of a running task, once it reports one, takes
precedence over that of finished tasks of its kind.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sweepctl import paths
from sweepctl.kinds import KINDS, kind_of
from sweepctl.plan._cost import Calibration, Expected, Speed, expected_hours, together
from sweepctl.plan._identity import canonical, differences, group_of, groups_off
from sweepctl.plan._model import Plan, Task
from sweepctl.plan._operations import Cost

OWN_PACE = 0.05
"""Fraction of a running task after which its own rate predicts its end, not that of others."""


# --- by stage -----------------------------------------------------------------------------------


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
    """One line per stage.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledRate:
    """A learning rate that follows its batch, as some cells have it.

    Attributes:
        path: its config path.
        per_256: number of its rule, the rate at a batch of 256.
        batch: of its stage.
        lr: the rate.
        cells: how many cells have it.
    """

    path: str
    per_256: float
    batch: int
    lr: float
    cells: int


def ruled_rates(plan: Plan) -> list[RuledRate]:
    """The learning rates that follow a batch, of the stages that the cells have."""
    found: Counter[tuple[str, float, int, float]] = Counter()
    for cell in plan.cells:
        off = groups_off(cell.config)
        for path, rule in cell.rules.items():
            if group_of(path) not in off:
                (number,) = rule.values()
                batch = paths.get(cell.config, f"{'.'.join(path.split('.')[:2])}.batch")
                found[path, number, batch, paths.get(cell.config, path)] += 1
    return [
        RuledRate(path=path, per_256=number, batch=batch, lr=lr, cells=cells)
        for (path, number, batch, lr), cells in found.items()
    ]


def blocked_tasks(tasks: Mapping[str, Task], states: Mapping[str, str]) -> set[str]:
    """Failed tasks and everything that waits for one, however far down."""
    blocked: set[str] = set()
    for name, task in tasks.items():  # parents come first
        if states.get(name) == "done":
            continue
        if states.get(name) == "failed" or any(parent in blocked for _, parent in task.parents):
            blocked.add(name)
    return blocked


# --- why tasks run ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A task that an earlier submission of the study used for a stage of a cell.

    Attributes:
        axes: the cell's axis values.
        stage: the stage's name.
        fingerprint: the task.
        identity: its canonical JSON.
        state: "pending", "running", "done" or "failed".
    """

    axes: Mapping[str, Any]
    stage: str
    fingerprint: str
    identity: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why some tasks of a stage will run: the reason and how many tasks share it."""

    stage: str
    why: str
    tasks: int
    example: str = ""


def reasons(
    plan: Plan, states: Mapping[str, str], recorded: Iterable[Recorded], attempts: Mapping[str, int]
) -> list[Reason]:
    """Why each task that is not done will run, grouped.

    Args:
        plan: the plan.
        states: fingerprint -> state.
        recorded: what earlier submissions of this study used for each cell and stage.
        attempts: fingerprint -> number of attempts so far.
    """
    before: dict[tuple[str, str], Recorded] = {}
    for one in recorded:
        before[canonical(dict(one.axes)), one.stage] = one
    blocked = blocked_tasks(plan.tasks, states)
    groups: dict[tuple[str, str], list[str]] = {}
    seen: set[str] = set()
    for cell in plan.cells:
        key = canonical(dict(cell.axes))
        for stage, name in cell.tasks.items():
            if name in seen or states.get(name) == "done":
                continue
            seen.add(name)
            why = _why(plan, name, states, blocked, before.get((key, stage)), attempts)
            groups.setdefault((plan.tasks[name].kind, why), []).append(plan.tasks[name].id)
    order = list(KINDS)
    return [
        Reason(stage=stage, why=why, tasks=len(ids), example=ids[0])
        for (stage, why), ids in sorted(groups.items(), key=lambda item: order.index(item[0][0]))
    ]


def _why(
    plan: Plan,
    name: str,
    states: Mapping[str, str],
    blocked: set[str],
    earlier: Recorded | None,
    attempts: Mapping[str, int],
) -> str:
    if states.get(name) == "failed":
        return "failed before; `sweepctl retry` gives it another attempt"
    if name in blocked:
        return "waits for a task that failed"
    if states.get(name) == "running":
        return "running now, or left behind by a driver that died"
    if attempts.get(name):
        return "was interrupted; resumes from its checkpoint"
    if earlier is None or earlier.fingerprint == name:
        return "never run"
    changed = differences(earlier.identity, plan.tasks[name].identity)
    own = [line for line in changed if not line.startswith("parents.")]
    if own:
        return "changed: " + "; ".join(own[:4]) + ("; ..." if len(own) > 4 else "")
    roles = sorted(line.split(":")[0].removeprefix("parents.") for line in changed)
    return "recomputed because its " + " and ".join(roles) + " changed"


# --- the end of a run -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left of a run.

    Attributes:
        seconds: until the end, by starting the longest ready task whenever a slot is free; of the
            tasks whose time is known.
        low, high: ends of its 95 % interval, that of the work; None where it is not known.
        work_seconds: of all those tasks, one after the other on one GPU.
        chain_seconds: of the longest chain of tasks that wait for each other.
        slots: GPUs, or tasks that run at the same time.
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
        rest_s: seconds left by its own rate; None when it has not reported one.
        gpus: that compute it together; it takes as many slots.
    """

    kind: str
    cost: Cost
    parents: tuple[str, ...] = ()
    running: bool = False
    fraction: float = 0.0
    rest_s: float | None = None
    gpus: int = 1


def whole_run(
    plans: Sequence[Plan],
    states: Mapping[str, str],
    calibration: Calibration,
    devices: int,
    gpus: Mapping[str, int] = MappingProxyType({}),
) -> Left:
    """How long running plans will take on so many devices.

    Args:
        plans: one or several.
        states: fingerprint -> state; unknown tasks are new.
        calibration: how long tasks take.
        devices: how many, all of one worker.
        gpus: fingerprint -> devices of a task, for those that have several.
    """
    tasks = {name: task for plan in plans for name, task in plan.tasks.items()}
    blocked = blocked_tasks(tasks, states)
    rest = {
        name: Open(
            kind=task.kind,
            cost=task.cost,
            parents=tuple(parent for _, parent in task.parents),
            gpus=gpus.get(name, 1),
        )
        for name, task in tasks.items()
        if states.get(name) != "done" and name not in blocked
    }
    return time_left(rest, calibration, devices)


def time_left(tasks: Mapping[str, Open], calibration: Calibration, slots: int) -> Left:
    """When tasks will all be done.

    Args:
        tasks: name -> what is still to be done.
        calibration: how long tasks take.
        slots: GPUs, or on CPUs tasks of one rank that run at the same time; at least 1. A task
            with more GPUs than that is computed by as many as there are.
    """
    slots = max(slots, 1)
    parts: dict[str, Expected] = {}
    unknown: Counter[str] = Counter()
    for name, task in tasks.items():
        whole = calibration.expect(task.kind, task.cost)
        if task.rest_s is not None and task.fraction >= OWN_PACE:
            basis = None if whole is None else whole.basis
            rest_s = task.rest_s * min(task.gpus, slots)
            parts[name] = Expected(seconds=rest_s, low=None, high=None, basis=basis)
        elif whole is None:
            unknown[task.kind] += 1
        else:
            rest_s = whole.seconds * (1.0 - task.fraction)
            parts[name] = Expected(seconds=rest_s, low=None, high=None, basis=whole.basis)
    work = together(parts.values())
    together_on = {name: min(task.gpus, slots) for name, task in tasks.items()}
    durations = {
        name: parts[name].seconds / together_on[name] if name in parts else 0.0 for name in tasks
    }
    end, chain_seconds = _ends(tasks, durations, together_on, slots)
    known = work.low is not None and work.high is not None and work.seconds > 0
    return Left(
        seconds=end,
        low=end * work.low / work.seconds if known and work.low is not None else None,
        high=end * work.high / work.seconds if known and work.high is not None else None,
        work_seconds=work.seconds,
        chain_seconds=chain_seconds,
        slots=slots,
        unknown=dict(unknown),
    )


def _ends(
    tasks: Mapping[str, Open],
    durations: Mapping[str, float],
    together_on: Mapping[str, int],
    slots: int,
) -> tuple[float, float]:
    """When the last task ends: with so many slots, the longest ready task first; and with any.

    A task that does not find all its slots free waits for them, and nothing starts before it.
    """
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
    now, free, busy = 0.0, slots, list[tuple[float, str]]()
    chain = dict(durations)  # until the end of each, with any number of slots
    while ready or busy:
        while ready and together_on[ready[0][-1]] <= free:
            name = heapq.heappop(ready)[-1]
            free -= together_on[name]
            heapq.heappush(busy, (now + durations[name], name))
        now, ended = heapq.heappop(busy)
        free += together_on[ended]
        for child in children.get(ended, ()):
            chain[child] = max(chain[child], chain[ended] + durations[child])
            unmet[child] -= 1
            if unmet[child] == 0:
                heapq.heappush(ready, (True, -durations[child], child))
    return now, max(chain.values(), default=0.0)
