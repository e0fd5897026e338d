"""One description of a task and of a cell, which `show`, the dashboard and the report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.errors import UsageError
from sweepctl.ledger import (
    MISSING,
    Attempt,
    CellMetric,
    CellState,
    Difference,
    Ledger,
    Relative,
    Submitted,
    TaskRecord,
)
from sweepctl.paths import flat
from sweepctl.runs import FileRecord, MetricValue


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """Everything the ledger knows about one task.

    Attributes:
        record: its identity, its state, its parents and children, the cells that use it.
        attempts: all attempts, oldest first.
        metrics: what it measured, at the end of training.
        files: the files of its result.
        up: the tasks it was made from, the closest first.
        down: the tasks that were made from it, the closest first.
    """

    record: TaskRecord
    attempts: tuple[Attempt, ...]
    metrics: tuple[MetricValue, ...]
    files: tuple[FileRecord, ...]
    up: tuple[Relative, ...]
    down: tuple[Relative, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closest:
    """The recorded task of the same kind that differs in the fewest fields.

    Attributes:
        id: name of that task.
        differences: the fields in which it differs; `recorded` is that task's value.
    """

    id: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointView:
    """Everything the ledger knows about one cell.

    Attributes:
        study: name of the study.
        cell: its axes, derived values, state, and the states of its tasks by stage.
        submission: how its study was submitted last.
        config: the resolved config.
        metrics: its final numbers, by stage, data set and name.
        neighbors: axis -> (number of the cell with the value before, with the value after), all
            other axes being equal; None where there is none.
        other: number of the cell it is compared with, None when it is the only one.
        differences: fields of the config in which it differs from `other`.
        before: number of the cell before it in the study, None for the first.
        after: number of the cell after it, None for the last.
    """

    study: str
    cell: CellState
    submission: Submitted
    config: Mapping[str, Any]
    metrics: tuple[CellMetric, ...]
    neighbors: Mapping[str, tuple[int | None, int | None]]
    other: int | None
    differences: tuple[Difference, ...]
    before: int | None
    after: int | None


def describe_task(ledger: Ledger, name: str) -> TaskView:
    """Describe one task.

    Args:
        ledger: an open ledger.
        name: the beginning of its id or fingerprint.

    Raises:
        UsageError: no task or several tasks begin so.
    """
    record = ledger.tasks.find(name)
    fingerprint = record.state.fingerprint
    up, down = ledger.tasks.lineage(fingerprint)
    return TaskView(
        record=record,
        attempts=tuple(ledger.attempts.of(fingerprint)),
        metrics=tuple(ledger.tasks.metrics(fingerprint)),
        files=tuple(ledger.tasks.files(fingerprint)),
        up=tuple(up),
        down=tuple(down),
    )


def closest_task(ledger: Ledger, task: TaskRecord) -> Closest | None:
    """Why a task is not another one: the closest recorded task and what differs from it.

    Reads the identities of all tasks of the kind: milliseconds per thousand of them.

    Returns:
        None when no other task of that kind was recorded.
    """
    found = ledger.tasks.closest(task.state.kind, task.identity)
    return None if found is None else Closest(id=found[0].state.id, differences=found[1])


def describe_cell(
    ledger: Ledger,
    study: str,
    number: int,
    *,
    other: int | None = None,
    cells: Sequence[CellState] | None = None,
) -> PointView:
    """Describe one cell of a study.

    Args:
        ledger: an open ledger.
        study: name of the study.
        number: number of the cell, from 1.
        other: number of the cell it is compared with; None for the one that differs in the fewest
            axes.
        cells: the study's cells, where they are at hand.

    Raises:
        UsageError: there is no such study or cell.
    """
    if cells is None:
        cells = ledger.cells.of(study)
    mine = _cell(study, cells, number)
    config = ledger.cells.config(study, mine.key)
    other = other or _closest_cell(cells, mine)
    differences: tuple[Difference, ...] = ()
    if other is not None:
        key = _cell(study, cells, other).key
        differences = _differences(ledger.cells.config(study, key), config)
    numbers = [cell.index for cell in cells]
    place = numbers.index(number)
    return PointView(
        study=study,
        cell=mine,
        submission=ledger.studies.submission(study),
        config=config,
        metrics=tuple(ledger.cells.metrics(study, number)),
        neighbors=_neighbors(cells, mine),
        other=other,
        differences=differences,
        before=numbers[place - 1] if place else None,
        after=numbers[place + 1] if place + 1 < len(numbers) else None,
    )


def _cell(study: str, cells: Sequence[CellState], number: int) -> CellState:
    for cell in cells:
        if cell.index == number:
            return cell
    raise UsageError(f"the study {study!r} has no cell {number}")


def _neighbors(
    cells: Sequence[CellState], mine: CellState
) -> dict[str, tuple[int | None, int | None]]:
    found = {}
    for axis in mine.axes:
        line = sorted(
            (cell for cell in cells if _equal_but(cell.axes, mine.axes, axis)),
            key=lambda cell: _order(cell.axes.get(axis)),
        )
        place = [cell.index for cell in line].index(mine.index)
        before = line[place - 1].index if place else None
        after = line[place + 1].index if place + 1 < len(line) else None
        if before or after:
            found[axis] = (before, after)
    return found


def _order(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _equal_but(one: Mapping[str, Any], other: Mapping[str, Any], axis: str) -> bool:
    return all(one.get(name) == value for name, value in other.items() if name != axis)


def _closest_cell(cells: Sequence[CellState], mine: CellState) -> int | None:
    """The cell that differs in the fewest axes; among equals the closest number."""

    def distance(cell: CellState) -> tuple[int, int]:
        differing = sum(cell.axes.get(name) != value for name, value in mine.axes.items())
        return (differing, abs(cell.index - mine.index))

    others = [cell for cell in cells if cell.index != mine.index]
    return min(others, key=distance).index if others else None


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[Difference, ...]:
    old, new = flat(there), flat(here)
    return tuple(
        Difference(path=path, recorded=old.get(path, MISSING), given=new.get(path, MISSING))
        for path in sorted(old.keys() | new.keys())
        if old.get(path, MISSING) != new.get(path, MISSING)
    )
