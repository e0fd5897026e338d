"""What will run? Study -> cells -> tasks -> graph, with fingerprints, sharing and cost. Pure.

`make_plan` reads no clock, environment, file or database: what the world knows (data sets, states,
measured speeds) is an argument. The same study gives the same plan everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweepctl.errors import Problem
from sweepctl.kinds import KINDS
from sweepctl.plan._candidates import Candidates, candidates
from sweepctl.plan._cost import (
    ASSUMED_SHARE,
    Calibration,
    Expected,
    Hours,
    On,
    Speed,
    expected_hours,
    parse_on,
)
from sweepctl.plan._describe import Code, Part, Sized, describe_tokenizer
from sweepctl.plan._design import CellCost, cell_costs, design_rows
from sweepctl.plan._expand import (
    MAX_CELLS,
    Dropped,
    Placed,
    Trial,
    axis_names,
    derived,
    expand,
)
from sweepctl.plan._identity import (
    ADDED_LATER,
    DataSet,
    canonical,
    completed,
    differences,
    fingerprint,
    lasting,
)
from sweepctl.plan._left import Left, Open, time_left
from sweepctl.plan._operations import Cost
from sweepctl.plan._rungs import measuring_stage, rung_stage, rung_steps, up_to
from sweepctl.plan._summary import (
    StageSummary,
    Total,
    blocked_tasks,
    summary,
    total,
    whole_run,
)
from sweepctl.plan._tasks import Task, TaskMaker
from sweepctl.study import StudyFile

__all__ = [
    "ADDED_LATER",
    "ASSUMED_SHARE",
    "MAX_CELLS",
    "Calibration",
    "Candidates",
    "Cell",
    "CellCost",
    "Code",
    "Cost",
    "DataSet",
    "Derived",
    "Dropped",
    "Expected",
    "Hours",
    "Left",
    "On",
    "Open",
    "Part",
    "Placed",
    "Plan",
    "Reason",
    "Recorded",
    "Sized",
    "Speed",
    "StageSummary",
    "Task",
    "Total",
    "Trial",
    "candidates",
    "canonical",
    "cell_costs",
    "completed",
    "describe_tokenizer",
    "design_rows",
    "differences",
    "expected_hours",
    "fingerprint",
    "lasting",
    "make_plan",
    "measuring_stage",
    "parse_on",
    "reasons",
    "rung_stage",
    "rung_steps",
    "summary",
    "time_left",
    "total",
    "up_to",
    "whole_run",
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
        dit_parameters, dit_macs: of the DiT and of one prediction by it; None without one.
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
    dit_parameters: int | None = None
    dit_macs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of a study.

    Attributes:
        index: its number in the study, from 1.
        key: hash of its config; unique in a study and stable when others come and go.
        axes: short axis name -> value.
        config: the resolved config, plain data.
        derived: the values that become columns.
        tasks: stage -> fingerprint; "stage1", "stage2", "latents", "dit", and "prepare:",
            "reference:", "reconstruct:", "generate:" with the data set's name; at a rung of a
            search with "@" and the step behind that.
        datasets: evaluation data sets, the main one first.
        until: training step that a search has let it come to; None for its end.
    """

    index: int
    key: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    derived: Derived
    tasks: Mapping[str, str]
    datasets: tuple[str, ...]
    until: int | None = None


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
        absent: what it needs and this machine does not have (data sets, pretrained files), at its
            place in the study; it can be looked at here, and not run.
        placed: of a search, what became of each trial it was made of.
    """

    study: StudyFile
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    tasks: Mapping[str, Task]
    dropped: tuple[Dropped, ...] = ()
    notices: tuple[str, ...] = ()
    absent: tuple[Problem, ...] = ()
    placed: tuple[Placed, ...] = ()

    @property
    def study_name(self) -> str:
        """Name of the study."""
        return self.study.name


def make_plan(
    study: StudyFile,
    *,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None] = lambda name: None,
    trials: Sequence[Trial] | None = None,
    first: int = 1,
) -> Plan:
    """Expand a study into cells and tasks.

    Args:
        study: a loaded study.
        data: every data set that exists, by name.
        missing: why a pretrained file cannot be used, in one line, or None; without it the plan is
            made as if all were there. What is missing is in `absent`.
        trials: what the search of a study has asked; None shows a search by one point of it.
        first: number of the first cell.

    Raises:
        StudyError: the grid is too large, empty, or holds a cell that cannot be run.
    """
    expansion = expand(study, data, missing, trials)
    maker = TaskMaker(data)
    cells = []
    for index, point in enumerate(expansion.points, start=first):
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
                    **derived(spec, point.tokens, point.dit),
                ),
                tasks=maker.of_cell(point),
                datasets=tuple(point.config["evaluate"]["reconstruction"]["on"]),
            )
        )
    return Plan(
        study=study,
        axes=axis_names(study.grid.factors, study.search),
        cells=tuple(cells),
        tasks=maker.tasks,
        dropped=tuple(expansion.dropped),
        notices=tuple(expansion.notices),
        absent=tuple(expansion.absent),
        placed=tuple(expansion.placed),
    )


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
    order = {stage: index for index, stage in enumerate(KINDS)}
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
