"""The parts of pages, as frozen dataclasses; nothing is read here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sweepctl.ledger import CellState, KindCost, RecentAttempt, ShownState
from sweepctl.ledger.describe import PointView, TaskView
from sweepctl.ui._folders import Curve

STATES: tuple[ShownState, ...] = ("done", "running", "failed", "blocked", "pending")
"""In the order in which they are counted and drawn."""


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
    """The state of a study at one moment.

    Attributes:
        study: name of the study.
        number: number of its newest submission.
        mark: the ledger's mark at that moment.
        cells: its cells with the states of their tasks.
        stages: names of the stages, in order.
        states: number of a cell -> its state.
        counts: state -> number of tasks, shared tasks once.
    """

    study: str
    number: int
    mark: str
    cells: Sequence[CellState]
    stages: tuple[str, ...]
    states: Mapping[int, str]
    counts: Mapping[str, int]

    def line(self, stage: str) -> list[Square]:
        """A stage of every cell that has it, in the order of the cells."""
        return [_square(cell, stage) for cell in self.cells if stage in cell.stages]

    def of_cells(self, numbers: Collection[int]) -> dict[int, list[Square]]:
        """The stages of some cells, by the number of the cell."""
        return {
            cell.index: [_square(cell, stage) for stage in cell.stages]
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
            state = cell.stages[stage].shown
            if runs and runs[-1][2] == state:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1, state)
            else:
                runs.append((place, 1, state))
            place += 1
        return runs


def _square(cell: CellState, stage: str) -> Square:
    task = cell.stages[stage]
    fraction = task.fraction if task.state == "running" else None
    return Square(cell=cell.index, task=task.id, state=task.shown, fraction=fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """One task: what the ledger says of it, and what its run folder holds.

    Attributes:
        view: what the ledger says.
        curves: how its training went.
        log: the end of the newest attempt's log.
        log_path: that log, as an absolute path; empty when it was never started.
        files: (absolute path, bytes) of the files of its result; none when its folder is gone.
        pictures: kind of picture -> how many there are.
        sheets: how many sheets of samples it left while it ran.
        classes: number of classes of its samples, 0 without labels.
    """

    view: TaskView
    curves: tuple[Curve, ...]
    log: str
    log_path: str
    files: tuple[tuple[str, int], ...]
    pictures: Mapping[str, int]
    sheets: int
    classes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPage:
    """One cell: what the ledger says of it, and the pages of its tasks.

    Attributes:
        view: what the ledger says.
        tasks: (stage, task), in order.
    """

    view: PointView
    tasks: tuple[tuple[str, TaskPage], ...]

    @property
    def cell(self) -> int:
        """Number of the cell."""
        return self.view.cell.index


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What runs where: running attempts, those that ended last, and what each kind has cost."""

    running: tuple[RecentAttempt, ...]
    ended: tuple[RecentAttempt, ...]
    costs: tuple[KindCost, ...]
