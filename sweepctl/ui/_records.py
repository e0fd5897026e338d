"""What is shown? The rows and parts of pages, as frozen dataclasses; nothing is asked here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.ledger import Attempt, CellState, Difference, TaskRecord
from sweepctl.ui._folders import Curve

STATES = ("done", "running", "failed", "blocked", "pending")
"""In the order in which they are counted and drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCard:
    """One study on the first page.

    Attributes:
        name: name of the study.
        title: short name for people; empty without one.
        question: what it asks.
        cells: number of its cells.
        counts: state -> number of tasks, shared tasks once.
        recorded_at: when it was handed in last.
    """

    name: str
    title: str
    question: str
    cells: int
    counts: Mapping[str, int]
    recorded_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One stage of one cell in the grid.

    Attributes:
        cell: number of the cell.
        task: id of the task.
        state: one of `STATES`.
        fraction: share that is done while it runs, 0 to 1; None where it is not known.
    """

    cell: int
    task: str
    state: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a study stands at one moment.

    Attributes:
        study: name of the study.
        number: number of its newest submission.
        mark: the ledger's mark at that moment.
        cells: its cells, without the states of their tasks.
        stages: names of the stages, in order.
        tasks: id of a task -> its state.
        fractions: id of a running task -> share that is done, 0 to 1.
        states: number of a cell -> its state.
        counts: state -> number of tasks, shared tasks once.
    """

    study: str
    number: int
    mark: str
    cells: Sequence[CellState]
    stages: tuple[str, ...]
    tasks: Mapping[str, str]
    fractions: Mapping[str, float]
    states: Mapping[int, str]
    counts: Mapping[str, int]

    def line(self, stage: str) -> list[Square]:
        """A stage of every cell that has it, in the order of the cells."""
        return [self._square(cell, stage) for cell in self.cells if stage in cell.stages]

    def of_cells(self, numbers: Collection[int]) -> dict[int, list[Square]]:
        """The stages of some cells, by the number of the cell."""
        return {
            cell.index: [self._square(cell, stage) for stage in cell.stages]
            for cell in self.cells
            if cell.index in numbers
        }

    def strip(self, stage: str) -> list[tuple[int, int, str]]:
        """The states of a stage over the cells as runs of one state: (first, how many, state)."""
        runs: list[tuple[int, int, str]] = []
        place = 0
        for cell in self.cells:
            if stage not in cell.stages:
                continue
            state = self.tasks.get(cell.stages[stage].id, "pending")
            if runs and runs[-1][2] == state:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1, state)
            else:
                runs.append((place, 1, state))
            place += 1
        return runs

    def _square(self, cell: CellState, stage: str) -> Square:
        task = cell.stages[stage].id
        return Square(
            cell=cell.index,
            task=task,
            state=self.tasks.get(task, "pending"),
            fraction=self.fractions.get(task),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured number of a cell, with all that it must not be read without."""

    name: str
    dataset: str
    protocol: str
    value: float
    n: int
    se: float | None
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """A task in a lineage: how far it is from the one that is shown, and how it stands."""

    task: str
    kind: str
    depth: int
    label: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """Everything about one task.

    Attributes:
        record: what it is and how it stands.
        attempts: all attempts, oldest first.
        curves: how its training went.
        log: the end of the newest attempt's log.
        log_path: that log, as an absolute path; empty when it was never started.
        files: (absolute path, bytes) of the files of its result.
        pictures: kind of picture -> how many there are.
        sheets: how many sheets of samples it left while it ran.
        up: the tasks it was made from, nearest first.
        down: the tasks that were made from it, nearest first.
        classes: number of classes of its samples, 0 without labels.
    """

    record: TaskRecord
    attempts: tuple[Attempt, ...]
    curves: tuple[Curve, ...]
    log: str
    log_path: str
    files: tuple[tuple[str, int], ...]
    pictures: Mapping[str, int]
    sheets: int
    up: tuple[Kin, ...]
    down: tuple[Kin, ...]
    classes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell of a study.

    Attributes:
        study: name of the study.
        cell: number of the cell.
        state: one of `STATES`.
        axes: short axis name -> value.
        values: p, q, c, E, tokens, parameters, macs and so on.
        metrics: final numbers.
        tasks: (stage, task), in order.
        neighbours: axis -> (number of the cell with the value before, with the value after), None
            where there is none.
        differences: fields of the config in which it differs from `other`.
        other: number of the cell it is compared with, None when it is alone.
        before: number of the cell before it in the study, None for the first.
        after: number of the cell after it.
    """

    study: str
    cell: int
    state: str
    axes: Mapping[str, Any]
    values: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    tasks: tuple[tuple[str, TaskView], ...]
    neighbours: Mapping[str, tuple[int | None, int | None]]
    differences: tuple[Difference, ...]
    other: int | None
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One running attempt, or one that ended lately, and where."""

    task: str
    kind: str
    label: str
    state: str
    host: str
    device: str
    worker: str
    step: int | None
    steps: int | None
    loss: float | None
    since: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What runs where: running attempts, those that ended last, and what each kind has cost."""

    running: tuple[Place, ...]
    ended: tuple[Place, ...]
    costs: tuple[Mapping[str, Any], ...]
