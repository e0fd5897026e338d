"""What will run: a study becomes cells and tasks, with fingerprints, sharing and cost. Pure.

`make_plan` reads no clock, environment, file or database: what the world knows (data sets, states,
measured speeds) is an argument. The same study gives the same plan everywhere.

    _model        Plan, Cell, Task and the records that lead to them
    _expand       the cells of a study                _mistakes    what makes a cell impossible
    _identity     canonical JSON and fingerprints     _tasks       one planner per kind of task
    _operations   the cost of a task                  _cost        expected hours
    _summary      what remains to be done, and why    _rungs       trials up to a rung of a search
    _design       what a plan will measure            _candidates  cells that a study could have
    _describe     one tokenizer without a study       _points      points of a search
    _memory       what fits a GPU                     _needs       GPUs of a task
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sweepctl.columns import Derived
from sweepctl.plan._candidates import Candidates, candidates
from sweepctl.plan._cost import Calibration, On, Speed, expected_hours, parse_on
from sweepctl.plan._describe import describe_tokenizer
from sweepctl.plan._design import CellCost, cell_costs, design_rows
from sweepctl.plan._expand import axis_names, expand
from sweepctl.plan._identity import (
    ADDED_LATER,
    DataSet,
    canonical,
    completed,
    fingerprint,
    group_of,
    lasting,
    settings_of,
)
from sweepctl.plan._memory import Measured, Need, StageMemory, configuration, memory_on, needs_on
from sweepctl.plan._model import Cell, Plan, Task, Trial
from sweepctl.plan._needs import check_batches, check_room, gpus_of, gpus_of_tasks
from sweepctl.plan._operations import Cost
from sweepctl.plan._points import MOST_COUNTED, about_points, about_search, look_at_points
from sweepctl.plan._rungs import measuring_stage, rung_stage, rung_steps, up_to
from sweepctl.plan._summary import (
    Left,
    Open,
    Recorded,
    StageSummary,
    Total,
    reasons,
    ruled_rates,
    summary,
    time_left,
    total,
    whole_run,
)
from sweepctl.plan._tasks import PLANNERS, CellTasks, TaskMaker
from sweepctl.study import StudyFile

__all__ = [
    "ADDED_LATER",
    "MOST_COUNTED",
    "PLANNERS",
    "Calibration",
    "Candidates",
    "Cell",
    "CellCost",
    "CellTasks",
    "Cost",
    "DataSet",
    "Derived",
    "Left",
    "Measured",
    "Need",
    "On",
    "Open",
    "Plan",
    "Recorded",
    "Speed",
    "StageMemory",
    "StageSummary",
    "Task",
    "Total",
    "Trial",
    "candidates",
    "canonical",
    "cell_costs",
    "check_room",
    "completed",
    "configuration",
    "describe_tokenizer",
    "design_rows",
    "expected_hours",
    "fingerprint",
    "gpus_of",
    "gpus_of_tasks",
    "group_of",
    "lasting",
    "make_plan",
    "measuring_stage",
    "memory_on",
    "needs_on",
    "parse_on",
    "reasons",
    "ruled_rates",
    "rung_stage",
    "rung_steps",
    "settings_of",
    "summary",
    "time_left",
    "total",
    "up_to",
    "whole_run",
]


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
        StudyError: the grid is too large, empty, or holds a cell that cannot be run, or a training
            has more GPUs than samples per step.
    """
    needed: set[str] = set()

    def missed(name: str) -> str | None:
        needed.add(name)
        return missing(name)

    search = study.search if trials is None else None
    looked = None if search is None else look_at_points(study, search, data, missed)
    shown = () if looked is None else looked.shown
    expansion = expand(study, data, missed, trials, shown)
    notices = list(expansion.notices)
    if search is not None and looked is not None:
        notices += about_search(search, expansion.points)
        notices += about_points(study, search, looked)
    maker = TaskMaker(data)
    cells = []
    for index, point in enumerate(expansion.points, start=first):
        cells.append(
            Cell(
                index=index,
                key=point.key,
                axes=point.axes,
                config=point.config,
                rules=point.rules,
                derived=point.derived,
                tasks=maker.of_cell(point),
                datasets=tuple(point.config["evaluate"]["reconstruction"]["on"]),
            )
        )
    if trials is None:
        check_batches(study, maker.tasks)
    return Plan(
        study=study,
        axes=axis_names(study.grid.factors, study.search),
        cells=tuple(cells),
        tasks=maker.tasks,
        dropped=tuple(expansion.dropped),
        notices=tuple(notices),
        absent=tuple(expansion.absent),
        weights=tuple(sorted(needed)),
        placed=tuple(expansion.placed),
    )
