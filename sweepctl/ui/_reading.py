"""What pages, the report and the terminal's plot read from the ledger and the run folders.

A `Reader` gives frozen dataclasses. What costs little (states, progress) is read whenever the
ledger's mark moves. What costs more (the wide table, the laws) is kept, and recomputed in a thread
of its own: a poll answers with what there is and finds the news next time. Nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from sweepctl.errors import SweepctlError, UsageError
from sweepctl.kinds import KINDS
from sweepctl.ledger import (
    CellMetric,
    CellState,
    Ledger,
    StudySummary,
    Submitted,
    Table,
    TaskRecord,
    narrowed,
)
from sweepctl.ledger.describe import describe_cell, describe_task
from sweepctl.runs import attempt_folder
from sweepctl.ui import _folders
from sweepctl.ui._records import STATES, Cluster, PointPage, Standing, TaskPage

if TYPE_CHECKING:
    from sweepctl.analyse import Score
    from sweepctl.claims import Analysis


_T = TypeVar("_T")


class _Kept(Generic[_T]):
    """A value that is kept while its key stays, and recomputed in a thread when it has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: tuple[object, _T] | None = None
        self._making = False
        self.version = 0

    def get(self, key: object, make: Callable[[], _T], *, wait: bool = True) -> _T | None:
        """The value of that key.

        Without `wait` an older value while the new one is made in a thread, and None while the
        very first one is.
        """
        with self._lock:
            if self._value is not None and self._value[0] == key:
                return self._value[1]
            if not wait:
                if not self._making:
                    self._making = True
                    threading.Thread(target=self._remake, args=(key, make), daemon=True).start()
                return None if self._value is None else self._value[1]
        return self._put(key, make())

    def _remake(self, key: object, make: Callable[[], _T]) -> None:
        # An error here (a database that does not answer for a moment) is raised again by the next
        # request, which reports it.
        try:
            with contextlib.suppress(SweepctlError):
                self._put(key, make())
        finally:
            self._making = False

    def _put(self, key: object, value: _T) -> _T:
        with self._lock:
            self._value = (key, value)
            self.version += 1
        return value


@dataclass(slots=True)
class _Known:
    """What a reader keeps of one study."""

    cells: _Kept[list[CellState]] = field(default_factory=_Kept)
    standing: _Kept[Standing] = field(default_factory=_Kept)
    table: _Kept[Table] = field(default_factory=_Kept)
    analysis: _Kept[tuple[Analysis | None, str]] = field(default_factory=_Kept)


class Reader:
    """Asks one ledger and one run folder; safe to be asked by several threads.

    Attributes:
        shown: where the ledger is, without any secret.
        runs: the run folder, absolute.
    """

    def __init__(self, ledger: Ledger, runs: Path) -> None:
        self.shown = ledger.shown
        self.runs = runs.absolute()
        self._ledger = ledger
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Read the newest study in a thread, so that its first page is there at once."""

        def read() -> None:
            # An error here is raised again by the first request, which reports it.
            with contextlib.suppress(SweepctlError):
                for card in self.studies()[:1]:
                    self.table(card.name)
                    self.analysis(card.name)

        threading.Thread(target=read, daemon=True).start()

    # --- studies ----------------------------------------------------------------------------

    def mark(self, study: str | None = None) -> str:
        """Changes whenever a page about that study (or all) would show something else."""
        mark = self._ledger.mark()
        if study is None:
            return mark
        known = self._of(study)
        return f"{mark}-{known.table.version}-{known.analysis.version}"

    def studies(self) -> list[StudySummary]:
        """All studies, the newest submission first."""
        return self._ledger.studies.summaries()

    def submission(self, study: str) -> Submitted:
        """The newest submission of a study; UsageError when there is no such study."""
        return self._ledger.studies.submission(study)

    def standing(self, study: str) -> Standing:
        """The state of a study now; UsageError when there is no such study."""
        mark = self._ledger.mark()
        made = self._of(study).standing.get(mark, lambda: self._standing(study, mark))
        assert made is not None
        return made

    def _standing(self, study: str, mark: str) -> Standing:
        number = self._ledger.studies.submission(study).number
        known = self._of(study).cells.get(number, lambda: self._ledger.cells.of(study)) or []
        tasks = self._ledger.tasks.states(study=study)
        cells = [cell.now(tasks) for cell in known]
        # The cell with most stages has them in the order of the flow.
        longest_first = sorted(cells, key=lambda cell: -len(cell.stages))
        counts = Counter(task.shown for task in tasks.values())
        return Standing(
            study=study,
            number=number,
            mark=mark,
            cells=cells,
            stages=tuple(dict.fromkeys(stage for cell in longest_first for stage in cell.stages)),
            states={cell.index: cell.state for cell in cells},
            counts={state: counts[state] for state in STATES if counts[state]},
        )

    def table(self, study: str, *, standing: Standing | None = None, wait: bool = False) -> Table:
        """Every column of every cell, as `sweepctl results` counts them; states are the newest.

        Args:
            study: name of the study.
            standing: how it stands, where that is known already.
            wait: whether numbers that were recorded a moment ago must be in it; else they come
                with one of the next calls.
        """
        standing = standing or self.standing(study)
        known = self._of(study)
        key = (standing.number, standing.counts.get("done", 0))
        whole = known.table.get(key, lambda: self._whole_table(study), wait=wait)
        if whole is None:  # nothing older to show
            whole = known.table.get(key, lambda: self._whole_table(study))
        assert whole is not None
        at, place = whole.columns.index("cell"), whole.columns.index("state")
        rows = tuple(
            row
            if standing.states.get(row[at]) == row[place]
            else (*row[:place], standing.states.get(row[at], row[place]), *row[place + 1 :])
            for row in whole.rows
        )
        return Table(columns=whole.columns, rows=rows)

    def _whole_table(self, study: str) -> Table:
        return self._ledger.cells.results(study, columns=["*"])

    def shown_columns(self, standing: Standing, table: Table) -> list[str]:
        """The columns that a page shows: axes, E, tokens, parameters, state, numbers."""
        axes = len(standing.cells[0].axes) if standing.cells else 0
        columns = list(table.columns)
        derived = [name for name in ("E", "tokens", "parameters") if name in columns[axes + 1 :]]
        return [*columns[: axes + 1], *derived, "state", *self.metrics(table)]

    def metrics(self, table: Table) -> list[str]:
        """The columns of a whole table that hold measured numbers, their errors left out."""
        columns = list(table.columns)
        measured = columns[columns.index("state") + 1 :]
        errors = {f"{name}_se" for name in measured}
        return [name for name in measured if name not in errors]

    def narrowed(self, table: Table, where: str, sort: str, chosen: Mapping[str, str]) -> Table:
        """Rows that meet a condition and have the chosen axis values, in order.

        Raises:
            UsageError: the condition or the order cannot be used.
        """
        found = table
        if where.strip() or sort:
            found = narrowed(table, where=where, sort=sort or None)
        for name, value in chosen.items():
            if value and name in found.columns:
                place = found.columns.index(name)
                rows = tuple(row for row in found.rows if str(row[place]) == value)
                found = Table(columns=found.columns, rows=rows)
        return found

    def analysis(
        self, study: str, *, standing: Standing | None = None, wait: bool = False
    ) -> tuple[Analysis | None, str]:
        """Laws and verdicts as `sweepctl fit` gives them, and why there are none.

        They are recomputed in a thread of its own whenever more tasks are done.
        """
        standing = standing or self.standing(study)
        key = (standing.number, standing.counts.get("done", 0))
        made = self._of(study).analysis.get(key, lambda: self._analysis(study), wait=wait)
        return made if made is not None else (None, "the laws are being fitted")

    def _analysis(self, study: str) -> tuple[Analysis | None, str]:
        from sweepctl.claims import fit_study
        from sweepctl.study import Study

        declared = Study.model_validate(self._ledger.studies.submission(study).resolved)
        frame = self._ledger.cells.frame(study)
        if frame.empty:
            return None, "nothing was measured yet"
        if not declared.fits and not declared.claims:
            return None, "the study declares no fits and no claims"
        try:
            return fit_study(frame, declared.fits, declared.claims), ""
        except SweepctlError as error:
            return None, str(error)

    def scores(self, analysis: Analysis) -> dict[str, Score]:
        """How well each law predicts what it has not seen, by the name of the fit."""
        from sweepctl.analyse import compare

        return {fit.name: compare([fit])[0] for fit in analysis.fits if fit.fitted}

    # --- one point --------------------------------------------------------------------------

    def point(self, study: str, cell: int, other: int | None = None) -> PointPage:
        """Everything about one cell.

        Raises:
            UsageError: there is no such study or cell.
        """
        cells = self.standing(study).cells
        view = describe_cell(self._ledger, study, cell, other=other, cells=cells)
        tasks = tuple((stage, self.task(task.id)) for stage, task in view.cell.stages.items())
        return PointPage(view=view, tasks=tasks)

    def finals(self, study: str) -> list[CellMetric]:
        """The final numbers of all cells."""
        return self._ledger.cells.metrics(study)

    def task(self, task: str) -> TaskPage:
        """Everything about one task.

        Args:
            task: its id, whole.

        Raises:
            UsageError: there is no task with exactly this id.
        """
        view = describe_task(self._ledger, task)
        record = view.record
        if record.state.id != task:
            raise UsageError(f"there is no task {task!r}")
        folder = _folders.task_folder(self.runs, task)
        number = record.state.attempts
        if folder is None:
            return TaskPage(
                view=view, curves=(), log="", log_path="", files=(), pictures={}, sheets=0
            )
        return TaskPage(
            view=view,
            curves=_folders.curves(folder, number) if number else (),
            log=_folders.log_tail(folder, number) if number else "",
            log_path=str(attempt_folder(folder, number) / "log.txt") if number else "",
            files=tuple((str(folder / file.name), file.bytes) for file in view.files),
            pictures=_pictures(folder, record.state.kind),
            sheets=len(_folders.sheets(folder)),
            classes=self._classes(record),
        )

    def _classes(self, record: TaskRecord) -> int:
        """Classes of a generator's samples, as its DiT knows them; sample i is of i mod classes."""
        kind = KINDS.get(record.state.kind)
        for role, parent in record.parents:
            if kind is not None and role == kind.measures:
                identity = self._ledger.tasks.find(parent).identity
                classes = json.loads(identity).get("config", {}).get("classes", 0)
                return classes if isinstance(classes, int) else 0
        return 0

    def task_mark(self, task: str) -> str:
        """Changes whenever the page of a task would show something else."""
        record = self._ledger.tasks.find(task)
        folder = _folders.task_folder(self.runs, record.state.id)
        log = _folders.log_mark(folder, record.state.attempts) if folder else ""
        return f"{self._ledger.mark()}-{log}"

    def point_mark(self, study: str, cell: int) -> str:
        """Changes whenever the page of a cell would show something else."""
        found = next((one for one in self.standing(study).cells if one.index == cell), None)
        if found is None:
            raise UsageError(f"the study {study!r} has no cell {cell}")
        logs = []
        for task in found.stages.values():
            folder = _folders.task_folder(self.runs, task.id)
            logs.append(_folders.newest_log_mark(folder) if folder else "")
        return f"{self._ledger.mark()}-{'-'.join(logs)}"

    # --- the machines -----------------------------------------------------------------------

    def cluster(self) -> Cluster:
        """What runs where."""
        recent = self._ledger.attempts.recent()
        return Cluster(
            running=tuple(one for one in recent if one.state == "running"),
            ended=tuple(one for one in recent if one.state != "running"),
            costs=tuple(self._ledger.tasks.costs()),
        )

    def _of(self, study: str) -> _Known:
        with self._lock:
            if study not in self._known:
                if study not in self._ledger.studies.names():
                    raise UsageError(f"there is no study {study!r}")
                self._known[study] = _Known()
            return self._known[study]


def _pictures(folder: Path, kind: str) -> dict[str, int]:
    # A prepared data set has samples.npy too: those are its originals, not what a model drew.
    pictures = KINDS[kind].pictures if kind in KINDS else ()
    return {name: many for name in pictures if (many := _folders.count(folder, name))}


def is_number(value: object) -> bool:
    """Whether a value can be drawn."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    )
