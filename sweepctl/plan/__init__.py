"""What will run? Study -> cells -> tasks -> graph, with fingerprints, sharing and cost. Pure.

`make_plan` reads no clock, environment, file or database: what the world knows (data sets, states,
measured speeds) is an argument. The same study gives the same plan everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweepctl.plan._describe import Code, Part, Sized, describe_tokenizer
from sweepctl.plan._design import CellCost, cell_costs, design_rows
from sweepctl.plan._expand import MAX_CELLS, Dropped, axis_names, derived, expand
from sweepctl.plan._identity import (
    ADDED_LATER,
    DataSet,
    canonical,
    completed,
    differences,
    fingerprint,
    flat,
    lasting,
)
from sweepctl.plan._tasks import STAGE_ORDER, STAGE_VERSIONS, Cost, Task, TaskMaker
from sweepctl.study import StudyFile

__all__ = [
    "ADDED_LATER",
    "MAX_CELLS",
    "STAGE_ORDER",
    "STAGE_VERSIONS",
    "Cell",
    "CellCost",
    "Code",
    "Cost",
    "DataSet",
    "Derived",
    "Dropped",
    "Part",
    "Plan",
    "Reason",
    "Recorded",
    "Sized",
    "Speed",
    "StageSummary",
    "Task",
    "canonical",
    "cell_costs",
    "completed",
    "describe_tokenizer",
    "design_rows",
    "differences",
    "expected_seconds",
    "fingerprint",
    "flat",
    "lasting",
    "make_plan",
    "reasons",
    "summary",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """The typed values of a cell that become columns.

    Attributes:
        p, q, c: patch side in pixels, temporal stride in frames, channels of a token.
        encoder, decoder: sizes by name.
        resolution: image side in pixels.
        frames: frames of a sample, 1 for images.
        seed: the cell's seed.
        tokens: L, tokens of the code of a sample; of a masked tokenizer the length it is measured
            at.
        E: L * c, floating points of that code.
        compression: values of the image for one value of that code.
        parameters: of encoder and decoder together.
        macs: multiply-accumulates of one forward pass of one sample.
        encoder_parameters, decoder_parameters: of each alone.
        encoder_macs, decoder_macs: of each alone.
    """

    p: int
    q: int
    c: int
    encoder: str
    decoder: str
    resolution: int
    frames: int
    seed: int
    tokens: int
    E: int
    compression: float
    parameters: int
    macs: int
    encoder_parameters: int
    decoder_parameters: int
    encoder_macs: int
    decoder_macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of a study.

    Attributes:
        index: its number in the study, from 1.
        key: hash of its config; unique in a study and stable when others come and go.
        axes: short axis name -> value.
        config: the resolved config, plain data.
        derived: the values that become columns.
        tasks: stage -> fingerprint; "stage1", and "prepare:", "reference:", "reconstruct:" with the
            data set's name.
        datasets: evaluation data sets, the main one first.
    """

    index: int
    key: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    derived: Derived
    tasks: Mapping[str, str]
    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a study comes to.

    Attributes:
        study: the study and its source.
        axes: short names of the axes, in order.
        cells: the cells, in order.
        tasks: fingerprint -> task; parents stand before children.
        dropped: combinations that are no cells, with the reason.
        notices: what the user should be told.
    """

    study: StudyFile
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    tasks: Mapping[str, Task]
    dropped: tuple[Dropped, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def study_name(self) -> str:
        """Name of the study."""
        return self.study.name


def make_plan(
    study: StudyFile,
    *,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None] = lambda name: None,
) -> Plan:
    """Expand a study into cells and tasks.

    Args:
        study: a loaded study.
        data: every data set that exists, by name.
        missing: why a pretrained file cannot be used, in one line, or None; without it the plan is
            made as if all were there.

    Raises:
        StudyError: the grid is too large, empty, or holds a cell that cannot be run.
    """
    expansion = expand(study, data, missing)
    maker = TaskMaker(data)
    cells = []
    for index, point in enumerate(expansion.points, start=1):
        spec = point.spec
        cells.append(
            Cell(
                index=index,
                key=point.key,
                axes=point.axes,
                config=point.config,
                derived=Derived(
                    p=spec.p,
                    q=spec.q,
                    c=spec.c,
                    encoder=spec.encoder,
                    decoder=spec.decoder,
                    resolution=spec.resolution,
                    frames=spec.frames,
                    seed=point.config["seed"],
                    **derived(spec, point.tokens),
                ),
                tasks=maker.of_cell(point),
                datasets=tuple(point.config["evaluate"]["reconstruction"]["on"]),
            )
        )
    return Plan(
        study=study,
        axes=axis_names(study.grid.factors),
        cells=tuple(cells),
        tasks=maker.tasks,
        dropped=tuple(expansion.dropped),
        notices=tuple(expansion.notices),
    )


# --- what a plan costs and why ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast a kind of task has been on a device, summed over finished attempts.

    Attributes:
        kind: kind of the tasks.
        device: device they ran on.
        attempts: number of finished attempts.
        flops: floating point operations they did; 0 where they are not counted.
        seconds: wall time they took.
    """

    kind: str
    device: str
    attempts: int
    flops: float
    seconds: float


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
        hours: time of the new tasks on one slot; None before anything of the kind was measured.
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


def summary(
    plan: Plan, states: Mapping[str, str], speeds: Sequence[Speed] = ()
) -> list[StageSummary]:
    """A line a stage.

    Args:
        plan: the plan.
        states: fingerprint -> "pending", "running", "done" or "failed"; unknown tasks are new.
        speeds: finished attempts to calibrate hours with.
    """
    blocked = _blocked(plan.tasks, states)
    uses: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    for cell in plan.cells:
        kinds = Counter(stage.split(":")[0] for stage in cell.tasks)
        uses.update(kinds)
        cells.update(set(kinds))
    lines = []
    for stage in STAGE_ORDER:
        tasks = [task for task in plan.tasks.values() if task.kind == stage]
        if not tasks:
            continue
        new = [
            task
            for task in tasks
            if states.get(task.fingerprint) != "done" and task.fingerprint not in blocked
        ]
        times = [expected_seconds(stage, task.cost.flops, speeds) for task in new]
        known = [time for time in times if time is not None]
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
                hours=sum(known) / 3600 if len(known) == len(new) else None,
            )
        )
    return lines


def expected_seconds(kind: str, flops: float, speeds: Iterable[Speed]) -> float | None:
    """How long a task will take by the finished attempts of its kind, or None without any.

    Tasks with counted FLOPs go by the achieved FLOP/s, others by the mean seconds.

    Args:
        kind: kind of the task.
        flops: its floating point operations, 0 where they are not counted.
        speeds: what was measured.
    """
    recorded = [speed for speed in speeds if speed.kind == kind and speed.seconds > 0]
    if not recorded:
        return None
    time, done = sum(one.seconds for one in recorded), sum(one.flops for one in recorded)
    if flops and done:
        return flops * time / done
    return time / sum(one.attempts for one in recorded)


def _blocked(tasks: Mapping[str, Task], states: Mapping[str, str]) -> set[str]:
    """Failed tasks and everything that waits for one, however far down."""
    blocked: set[str] = set()
    for name, task in tasks.items():  # parents come first
        if states.get(name) == "done":
            continue
        if states.get(name) == "failed" or any(parent in blocked for _, parent in task.parents):
            blocked.add(name)
    return blocked


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
    example: str = field(default="")


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
    blocked = _blocked(plan.tasks, states)
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
    order = {stage: index for index, stage in enumerate(STAGE_ORDER)}
    return [
        Reason(stage=stage, why=why, tasks=len(ids), example=ids[0])
        for (stage, why), ids in sorted(groups.items(), key=lambda item: order[item[0][0]])
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
        return "was interrupted; goes on from its checkpoint"
    if earlier is None or earlier.fingerprint == name:
        return "never run"
    changed = differences(earlier.identity, plan.tasks[name].identity)
    own = [line for line in changed if not line.startswith("parents.")]
    if own:
        return "changed: " + "; ".join(own[:4]) + ("; ..." if len(own) > 4 else "")
    roles = sorted(line.split(":")[0].removeprefix("parents.") for line in changed)
    return "made anew because its " + " and ".join(roles) + " changed"
