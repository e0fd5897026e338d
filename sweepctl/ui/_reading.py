"""What do the pages show? Everything that is asked of the ledger and the run folders, once.

A `Reader` asks the ledger's views and methods and gives frozen dataclasses; pages, the report and
the terminal's plot are made of them. What costs little (states, progress) is read whenever the
ledger's mark moves. What costs more (the wide table, the laws) is kept and made anew beside the
requests: a poll answers with what there is and finds the news next time. Nothing is ever written.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import SweepctlError, UsageError
from sweepctl.kinds import KINDS
from sweepctl.ledger import (
    Asked,
    CellState,
    Difference,
    Ledger,
    Table,
    TaskRecord,
    narrowed,
)
from sweepctl.paths import flat
from sweepctl.ui import _folders
from sweepctl.ui._kept import Kept
from sweepctl.ui._records import (
    STATES,
    Cluster,
    Kin,
    Metric,
    Place,
    Point,
    Standing,
    StudyCard,
    TaskView,
)

if TYPE_CHECKING:
    from sweepctl.analyse import Score
    from sweepctl.claims import Analysis

_MOST_ROWS = 2_000_000


@dataclass(slots=True)
class _Known:
    """What a reader keeps of one study."""

    static: Kept[list[CellState]] = field(default_factory=Kept)
    standing: Kept[Standing] = field(default_factory=Kept)
    table: Kept[Table] = field(default_factory=Kept)
    analysis: Kept[tuple[Analysis | None, str]] = field(default_factory=Kept)


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
        """Read the newest study beside the requests, so that its first page is there at once."""

        def read() -> None:
            # What goes wrong here goes wrong in the first request, too, and is told there.
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

    def studies(self) -> list[StudyCard]:
        """All studies, those that were handed in last first."""
        counted: dict[str, Counter[str]] = {}
        for study, state, count in self._rows(
            "SELECT study, state, count(*) FROM (SELECT DISTINCT study, task, state "
            "FROM v_cell_task) AS used GROUP BY study, state"
        ):
            counted.setdefault(study, Counter())[state] = count
        cells = dict(
            self._rows("SELECT study, count(DISTINCT cell) FROM v_cell_task GROUP BY study")
        )
        cards = []
        for name in self._ledger.study_names():
            asked = self._ledger.asked(name)
            cards.append(
                StudyCard(
                    name=name,
                    title=asked.title,
                    question=asked.question,
                    cells=cells.get(name, 0),
                    counts=_ordered(counted.get(name, Counter())),
                    recorded_at=asked.created_at,
                )
            )
        return sorted(cards, key=lambda card: card.recorded_at, reverse=True)

    def asked(self, study: str) -> Asked:
        """How a study was handed in; UsageError when there is no such study."""
        return self._ledger.asked(study)

    def standing(self, study: str) -> Standing:
        """How a study stands now; UsageError when there is no such study."""
        mark = self._ledger.mark()
        made = self._of(study).standing.get(mark, lambda: self._standing(study, mark))
        assert made is not None
        return made

    def _standing(self, study: str, mark: str) -> Standing:
        number = self._ledger.asked(study).number
        cells = self._of(study).static.get(number, lambda: self._ledger.cells(study)) or []
        tasks: dict[str, str] = dict(
            self._rows(f"SELECT DISTINCT task, state FROM v_cell_task WHERE study = {_text(study)}")
        )
        running = {
            task.fingerprint
            for cell in cells
            for task in cell.stages.values()
            if tasks.get(task.id) == "running"
        }
        fractions = {
            task.id: min(1.0, task.step / task.steps)
            for task in self._ledger.task_states(running).values()
            if task.step and task.steps
        }
        # The cell with most stages has them in the order of the flow.
        longest_first = sorted(cells, key=lambda cell: -len(cell.stages))
        return Standing(
            study=study,
            number=number,
            mark=mark,
            cells=cells,
            stages=tuple(dict.fromkeys(stage for cell in longest_first for stage in cell.stages)),
            tasks=tasks,
            fractions=fractions,
            states={cell.index: _state_of(cell, tasks) for cell in cells},
            counts=_ordered(Counter(tasks.values())),
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
        return self._ledger.results(study, columns=["*"])

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

        They are made anew, beside the request, whenever more tasks are done.
        """
        standing = standing or self.standing(study)
        key = (standing.number, standing.counts.get("done", 0))
        made = self._of(study).analysis.get(key, lambda: self._analysis(study), wait=wait)
        return made if made is not None else (None, "the laws are being fitted")

    def _analysis(self, study: str) -> tuple[Analysis | None, str]:
        from sweepctl.claims import fit_study
        from sweepctl.study import Study

        asked = Study.model_validate(self._ledger.resolved_study(study))
        frame = self._ledger.frame(study)
        if frame.empty:
            return None, "nothing was measured yet"
        if not asked.fits and not asked.claims:
            return None, "the study declares no fits and no claims"
        try:
            return fit_study(frame, asked.fits, asked.claims), ""
        except SweepctlError as error:
            return None, str(error)

    def scores(self, analysis: Analysis) -> dict[str, Score]:
        """How well each law predicts what it has not seen, by the name of the fit."""
        from sweepctl.analyse import compare

        return {fit.name: compare([fit])[0] for fit in analysis.fits if fit.fitted}

    # --- one point --------------------------------------------------------------------------

    def point(self, study: str, cell: int, other: int | None = None) -> Point:
        """Everything about one cell.

        Raises:
            UsageError: there is no such study or cell.
        """
        standing = self.standing(study)
        mine = _cell_of(standing, cell)
        neighbours = _neighbours(standing.cells, mine)
        near = other or _nearest(standing.cells, mine)
        differences: tuple[Difference, ...] = ()
        if near is not None:
            there = _cell_of(standing, near)
            differences = _differences(
                self._ledger.cell_config(study, there.key),
                self._ledger.cell_config(study, mine.key),
            )
        numbers = [one.index for one in standing.cells]
        place = numbers.index(cell)
        return Point(
            study=study,
            cell=cell,
            state=standing.states[cell],
            axes=mine.axes,
            values=mine.values,
            metrics=self._metrics(study, cell),
            tasks=tuple(
                (stage, self.task(task.id, lineage=False)) for stage, task in mine.stages.items()
            ),
            neighbours=neighbours,
            differences=differences,
            other=near,
            before=numbers[place - 1] if place else None,
            after=numbers[place + 1] if place + 1 < len(numbers) else None,
        )

    def finals(self, study: str) -> tuple[Metric, ...]:
        """The final numbers of all cells."""
        frame = self._ledger.frame(study)
        columns = ["metric", "dataset", "protocol", "value", "n", "se", "task"]
        return tuple(
            Metric(
                name=name,
                dataset=dataset,
                protocol=protocol,
                value=float(value),
                n=int(n),
                se=float(se) if is_number(se) else None,
                task=task,
            )
            for name, dataset, protocol, value, n, se, task in frame[columns].itertuples(
                index=False
            )
        )

    def _metrics(self, study: str, cell: int) -> tuple[Metric, ...]:
        rows = self._rows(
            "SELECT name, dataset, protocol, value, n, se, task FROM v_metric "
            f"WHERE study = {_text(study)} AND cell = {cell:d} AND step IS NULL "
            "ORDER BY dataset, name, protocol"
        )
        return tuple(
            Metric(
                name=name, dataset=dataset, protocol=protocol, value=value, n=n, se=se, task=task
            )
            for name, dataset, protocol, value, n, se, task in rows
        )

    def task(self, task: str, *, lineage: bool = True) -> TaskView:
        """Everything about one task.

        Args:
            task: its id, whole.
            lineage: whether all tasks before and after it are looked up; those next to it are
                named by `TaskView.record` anyway.

        Raises:
            UsageError: there is no task with exactly this id.
        """
        record = self._ledger.find_task(task)
        if record.state.id != task:
            raise UsageError(f"there is no task {task!r}")
        attempts = tuple(self._ledger.attempts(record.state.fingerprint))
        folder = _folders.task_folder(self.runs, task)
        number = record.state.attempts
        started = folder is not None and number > 0
        return TaskView(
            record=record,
            attempts=attempts,
            curves=_folders.curves(folder, number) if folder and started else (),
            log=_folders.log_tail(folder, number) if folder and started else "",
            log_path=str(folder / "attempts" / str(number) / "log.txt")
            if folder and started
            else "",
            files=tuple((str(folder / name), size) for name, size in _folders.files_of(folder))
            if folder
            else (),
            pictures=_pictures(folder, record.state.kind),
            sheets=len(_folders.sheets(folder)) if folder else 0,
            up=self._kin("task", "ancestor", task) if lineage else (),
            down=self._kin("ancestor", "task", task) if lineage else (),
            classes=self._classes(record),
        )

    def _classes(self, record: TaskRecord) -> int:
        """Classes of a generator's samples, as its DiT knows them; sample i is of i mod classes."""
        kind = KINDS.get(record.state.kind)
        for role, parent in record.parents:
            if kind is not None and role == kind.measures:
                config = json.loads(self._ledger.find_task(parent).identity).get("config", {})
                classes = config.get("classes", 0)
                return classes if isinstance(classes, int) else 0
        return 0

    def _kin(self, mine: str, theirs: str, task: str) -> tuple[Kin, ...]:
        rows = self._rows(
            f"SELECT l.{theirs}, t.kind, l.depth, t.label, t.state FROM v_lineage l "
            f"JOIN v_task t ON t.task = l.{theirs} WHERE l.{mine} = {_text(task)} "
            f"ORDER BY l.depth, l.{theirs} LIMIT 200"
        )
        return tuple(
            Kin(task=other, kind=kind, depth=depth, label=label, state=state)
            for other, kind, depth, label, state in rows
        )

    def task_mark(self, task: str) -> str:
        """Changes whenever the page of a task would show something else."""
        record = self._ledger.find_task(task)
        folder = _folders.task_folder(self.runs, record.state.id)
        log = _folders.log_mark(folder, record.state.attempts) if folder else ""
        return f"{self._ledger.mark()}-{log}"

    def point_mark(self, study: str, cell: int) -> str:
        """Changes whenever the page of a cell would show something else."""
        standing = self.standing(study)
        logs = []
        for task in _cell_of(standing, cell).stages.values():
            folder = _folders.task_folder(self.runs, task.id)
            logs.append(_folders.newest_log_mark(folder) if folder else "")
        return f"{self._ledger.mark()}-{'-'.join(logs)}"

    # --- the machines -----------------------------------------------------------------------

    def cluster(self) -> Cluster:
        """What runs where."""
        running = self._places("state = 'running'", "t.task")
        ended = self._places("finished_at IS NOT NULL", "finished_at DESC", limit=20)
        columns = (
            *("kind", "tasks", "tasks_done", "attempts", "seconds", "seconds_lost"),
            *("flops", "peak_memory_bytes", "file_bytes"),
        )
        costs = self._rows(
            "SELECT kind, sum(tasks), sum(tasks_done), sum(attempts), sum(seconds), "
            "sum(seconds_lost), sum(flops), max(peak_memory_bytes), sum(file_bytes) "
            "FROM v_cost GROUP BY kind ORDER BY sum(seconds) DESC"
        )
        return Cluster(
            running=running,
            ended=ended,
            costs=tuple(dict(zip(columns, row, strict=True)) for row in costs),
        )

    def _places(self, condition: str, order: str, limit: int = 500) -> tuple[Place, ...]:
        rows = self._rows(
            "SELECT t.task, kind, label, state, host, device, step, steps, loss, fingerprint, "
            f"seconds, message FROM v_task t WHERE {condition} ORDER BY {order} LIMIT {limit:d}"
        )
        places = []
        for task, kind, label, state, host, device, step, steps, loss, mark, _, message in rows:
            newest = self._ledger.attempts(mark)[-1:]
            places.append(
                Place(
                    task=task,
                    kind=kind,
                    label=label,
                    state=state,
                    host=host or "",
                    device=device or "",
                    worker=newest[0].worker if newest else "",
                    step=step,
                    steps=steps,
                    loss=loss,
                    since=(
                        (newest[0].ended_at or newest[0].started_at).isoformat() if newest else ""
                    ),
                    message=message or "",
                )
            )
        return tuple(places)

    # --- asking -----------------------------------------------------------------------------

    def _of(self, study: str) -> _Known:
        with self._lock:
            if study not in self._known:
                if study not in self._ledger.study_names():
                    raise UsageError(f"there is no study {study!r}")
                self._known[study] = _Known()
            return self._known[study]

    def _rows(self, sql: str) -> tuple[tuple[Any, ...], ...]:
        return self._ledger.query(sql, limit_rows=_MOST_ROWS).rows


def _text(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''").replace("\x00", "") + "'"


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {state: counts[state] for state in STATES if counts.get(state)}


def _cell_of(standing: Standing, number: int) -> CellState:
    for cell in standing.cells:
        if cell.index == number:
            return cell
    raise UsageError(f"the study {standing.study!r} has no cell {number}")


def _state_of(cell: CellState, tasks: Mapping[str, str]) -> str:
    seen = {tasks.get(task.id, "pending") for task in cell.stages.values()}
    for state in ("failed", "blocked", "running"):
        if state in seen:
            return state
    if seen != {"done"}:
        return "pending"
    return "done" if cell.until is None else "pruned"


def _order(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _neighbours(
    cells: Sequence[CellState], mine: CellState
) -> dict[str, tuple[int | None, int | None]]:
    """For each axis the cells with the value before and after, all other axes being equal."""
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


def _equal_but(one: Mapping[str, Any], other: Mapping[str, Any], axis: str) -> bool:
    return all(one.get(name) == value for name, value in other.items() if name != axis)


def _nearest(cells: Sequence[CellState], mine: CellState) -> int | None:
    """The cell that differs in the fewest axes; among equals the one before, else the next."""
    others = [cell for cell in cells if cell.index != mine.index]
    if not others:
        return None

    def distance(cell: CellState) -> tuple[int, int]:
        differing = sum(cell.axes.get(name) != value for name, value in mine.axes.items())
        return (differing, abs(cell.index - mine.index))

    return min(others, key=distance).index


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[Difference, ...]:
    old, new = flat(there), flat(here)
    gone = "(missing)"
    return tuple(
        Difference(path=path, recorded=old.get(path, gone), given=new.get(path, gone))
        for path in sorted(old.keys() | new.keys())
        if old.get(path, gone) != new.get(path, gone)
    )


def _pictures(folder: Path | None, kind: str) -> dict[str, int]:
    if folder is None:
        return {}
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
