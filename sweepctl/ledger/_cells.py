"""Cells in the ledger: their states for `status`, their numbers for fits and tables.

Everything about a study means its newest submission. `Cells.frame` has one row per measured value,
`Cells.results` one row per cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.columns import COLUMNS
from sweepctl.errors import UsageError
from sweepctl.kinds import trainings, trainings_behind
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database
from sweepctl.ledger._query import narrowed
from sweepctl.ledger._records import CellMetric, CellState, Table, TaskState, cell_state
from sweepctl.ledger._studies import check_study
from sweepctl.ledger._tasks import study_states

if TYPE_CHECKING:
    import pandas as pd

    from sweepctl.plan import Recorded

_FRAME_TAIL = ("training_flops", "metric", "dataset", "protocol", "n", "value", "se", "task")


@dataclass(frozen=True, slots=True)
class Cells:
    """`Ledger.cells`: the cells of a study's newest submission."""

    _database: Database

    def of(self, study: str) -> list[CellState]:
        """The cells of a study, in order, with the state of every stage.

        Raises:
            UsageError: there is no such study.
        """
        with self._database.reading() as connection:
            check_study(connection, study)
            return _cells(connection, study)

    def config(self, study: str, key: str) -> dict[str, Any]:
        """The resolved config of one cell of a study, by the cell's key.

        Raises:
            UsageError: there is no such study or cell.
        """
        mine = sa.and_(t.cell.c.study == study, t.cell.c.key == key)
        with self._database.reading() as connection:
            check_study(connection, study)
            config = connection.execute(sa.select(t.cell.c.config).where(mine)).scalar()
        if config is None:
            raise UsageError(f"the study {study!r} has no cell with the key {key!r}")
        return dict(config)

    def metrics(self, study: str, cell: int | None = None) -> list[CellMetric]:
        """The final numbers of a study's cells, in the order of cells and stages.

        Args:
            study: name of the study.
            cell: number of the cell; None for all.

        Raises:
            UsageError: there is no such study.
        """
        with self._database.reading() as connection:
            check_study(connection, study)
            return _metrics(connection, study, cell)

    def frame(self, study: str) -> pd.DataFrame:
        """Final metrics of a study's cells in long form, for fits.

        One row per value: cell, one column per axis, the derived values of `v_cell` (p to
        dit_macs), training_flops (of all trainings behind the value), metric, dataset, protocol,
        n, value, se, task.

        Raises:
            UsageError: there is no such study.
        """
        import pandas as pd

        with self._database.reading() as connection:
            check_study(connection, study)
            rows = {row.number: row for row in _cell_rows(connection, study)}
            flops = _training_flops(connection, study)
            metrics = _metrics(connection, study)
        names = axis_columns([row.axes for row in rows.values()])
        columns = list(dict.fromkeys(["cell", *names.values(), *COLUMNS, *_FRAME_TAIL]))
        records = []
        for metric in metrics:
            row = rows[metric.cell]
            records.append(
                {
                    "cell": row.number,
                    **_values(row),
                    **{names[axis]: _level(value) for axis, value in row.axes.items()},
                    "training_flops": sum(
                        flops.get((metric.cell, kind), 0.0)
                        for kind in trainings_behind(metric.kind)
                    ),
                    "metric": metric.name,
                    "dataset": metric.dataset,
                    "protocol": metric.protocol,
                    "n": metric.n,
                    "value": metric.value,
                    "se": metric.se,
                    "task": metric.task,
                }
            )
        return pd.DataFrame.from_records(records, columns=columns)

    def results(
        self,
        study: str,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        sort: str | None = None,
    ) -> Table:
        """One row per cell: axes, E, tokens, parameters, state, and the metrics measured.

        A metric's column is `psnr`, `psnr@dataset` when there are several data sets, and
        `psnr@dataset/protocol` (or `psnr/protocol`) when there are several protocols. With "_se" at
        its end it is the standard error, where one is known; given when asked for.

        Args:
            study: name of the study.
            where: SQL condition over all columns, every axis and every derived value of `v_cell`
                included; in SQLite's dialect whatever the database is.
            columns: names of the columns to give instead; ["*"] for all of them.
            sort: columns to sort by, comma-separated, a minus before one for descending; missing
                values last.

        Raises:
            UsageError: there is no such study or column, or the condition cannot be used.
        """
        with self._database.reading() as connection:
            check_study(connection, study)
            cells = _cells(connection, study)
            metrics = _metrics(connection, study)
        shown, every, rows = _wide(cells, metrics)
        if columns is None:
            columns = shown
        elif list(columns) == ["*"]:
            columns = every
        whole = Table(columns=tuple(every), rows=tuple(rows))
        return narrowed(whole, where=where, columns=columns, sort=sort)

    def recorded(self, study: str) -> list[Recorded]:
        """The tasks that submissions of a study used for each cell and stage, newest last.

        Empty for a study that was never recorded.
        """
        from sweepctl.plan import Recorded

        query = (
            sa.select(
                t.cell.c.axes,
                t.cell_task.c.stage,
                t.task.c.fingerprint,
                t.task.c.identity,
                t.task.c.state,
            )
            .select_from(t.cell)
            .join(t.cell_task, t.CELL_TASK)
            .join(t.task, t.task.c.fingerprint == t.cell_task.c.task)
            .where(t.cell.c.study == study)
            # The newest submission comes last: a new plan is compared with it.
            .order_by(t.cell.c.is_current, t.cell.c.number, t.cell_task.c.position)
        )
        with self._database.reading() as connection:
            return [
                Recorded(
                    axes=row.axes,
                    stage=row.stage,
                    fingerprint=row.fingerprint,
                    identity=row.identity,
                    state=row.state,
                )
                for row in connection.execute(query)
            ]


# --- within one transaction --------------------------------------------------------------------


def _cells(connection: Connection, study: str) -> list[CellState]:
    states = study_states(connection, study)
    stages: dict[str, dict[str, TaskState]] = {}
    rows = connection.execute(
        sa.select(t.cell_task.c.cell, t.cell_task.c.stage, t.cell_task.c.task)
        .where(t.cell_task.c.study == study)
        .order_by(t.cell_task.c.cell, t.cell_task.c.position)
    )
    for row in rows:
        if row.task in states:  # cells of older submissions keep theirs too
            stages.setdefault(row.cell, {})[row.stage] = states[row.task]
    return [
        CellState(
            index=row.number,
            key=row.key,
            axes=row.axes,
            values=_values(row),
            datasets=tuple(row.datasets),
            until=row.until,
            state=cell_state(stages.get(row.key, {}).values(), row.until),
            stages=stages.get(row.key, {}),
        )
        for row in _cell_rows(connection, study)
    ]


def _cell_rows(connection: Connection, study: str) -> Sequence[Any]:
    unread = ("config",)
    columns = [column for column in t.cell.columns if column.name not in unread]
    return connection.execute(
        sa.select(*columns)
        .where(t.cell.c.study == study, t.cell.c.is_current)
        .order_by(t.cell.c.number)
    ).all()


def _metrics(connection: Connection, study: str, cell: int | None = None) -> list[CellMetric]:
    query = (
        sa.select(
            t.cell.c.number,
            t.cell_task.c.stage,
            t.task.c.id,
            t.task.c.kind,
            t.metric.c.name,
            t.metric.c.dataset,
            t.metric.c.protocol,
            t.metric.c.n,
            t.metric.c.value,
            t.metric.c.se,
        )
        .select_from(t.cell)
        .join(t.cell_task, t.CELL_TASK)
        .join(t.task, t.task.c.fingerprint == t.cell_task.c.task)
        .join(t.metric, t.metric.c.task == t.task.c.fingerprint)
        .where(
            t.cell.c.study == study,
            t.cell.c.is_current,
            t.task.c.state == "done",
            # Written out: SQLite takes a partial index only for a number it can see.
            t.metric.c.step == sa.literal_column(str(t.FINAL_STEP)),
        )
        .order_by(
            t.cell.c.number,
            t.cell_task.c.position,
            t.metric.c.dataset,
            t.metric.c.name,
            t.metric.c.protocol,
        )
    )
    if cell is not None:
        query = query.where(t.cell.c.number == cell)
    return [
        CellMetric(
            cell=row.number,
            stage=row.stage,
            task=row.id,
            kind=row.kind,
            name=row.name,
            dataset=row.dataset,
            protocol=row.protocol,
            value=row.value,
            n=row.n,
            se=row.se,
        )
        for row in connection.execute(query)
    ]


def _training_flops(connection: Connection, study: str) -> dict[tuple[int, str], float]:
    """What each training of each cell costs, by number of the cell and kind of the task."""
    rows = connection.execute(
        sa.select(t.cell.c.number, t.task.c.kind, t.task.c.flops)
        .select_from(t.cell)
        .join(t.cell_task, t.CELL_TASK)
        .join(t.task, t.task.c.fingerprint == t.cell_task.c.task)
        .where(
            t.cell.c.study == study,
            t.cell.c.is_current,
            t.cell_task.c.stage.in_(trainings()),  # and not what they are at a rung
        )
    )
    return {(row.number, row.kind): float(row.flops) for row in rows}


# --- rows as tables ----------------------------------------------------------------------------


def _values(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name.lower()) for name in COLUMNS}


def _level(value: object) -> object:
    """An axis value as a level of a factor; a list, which has no hash, as its text."""
    return json.dumps(value) if isinstance(value, list) else value


def axis_columns(axes: Iterable[Mapping[str, Any]], others: Iterable[str] = ()) -> dict[str, str]:
    """Axis -> name of its column; an axis called like another column gets `axis_` before it."""
    taken = {name.casefold() for name in ("cell", *_FRAME_TAIL, "state", *others)}
    names = dict.fromkeys(axis for cell in axes for axis in cell)
    return {name: f"axis_{name}" if name.casefold() in taken else name for name in names}


def _wide(
    cells: Sequence[CellState], measured: Sequence[CellMetric]
) -> tuple[list[str], list[str], list[tuple[Any, ...]]]:
    """The default columns, all columns, and all rows in the order of the study."""
    metrics = _metric_columns(measured)
    # Ledgers of former plans may have an axis with the name of a metric, as the weight of LPIPS.
    axes = axis_columns([cell.axes for cell in cells], metrics.values())
    folded = {name.casefold() for name in axes.values()}
    values = [name for name in COLUMNS if name.casefold() not in folded]
    found: dict[int, dict[str, Any]] = {cell.index: {} for cell in cells}
    for row in measured:
        column = metrics[row.name, row.dataset, row.protocol]
        found[row.cell][column] = row.value
        if row.se is not None:
            found[row.cell][f"{column}_se"] = row.se
    names = list(dict.fromkeys(metrics.values()))
    known = {column for measures in found.values() for column in measures}
    errors = [error for name in names if (error := f"{name}_se") in known]
    every = ["cell", *axes.values(), *values, "state", *names, *errors]
    rows = [
        (
            cell.index,
            *(cell.axes.get(axis) for axis in axes),
            *(cell.values[name] for name in values),
            cell.state,
            *(found[cell.index].get(name) for name in (*names, *errors)),
        )
        for cell in cells
    ]
    derived = [name for name in ("E", "tokens", "parameters") if name in values]
    return ["cell", *axes.values(), *derived, "state", *names], every, rows


def _metric_columns(measured: Sequence[CellMetric]) -> dict[tuple[str, str, str], str]:
    """(metric, data set, protocol) -> column; as short as it can be without mixing any two."""
    keys = dict.fromkeys((row.name, row.dataset, row.protocol) for row in measured)
    datasets = len({dataset for _, dataset, _ in keys}) > 1
    protocols = len({protocol for _, _, protocol in keys}) > 1
    return {
        key: key[0] + (f"@{key[1]}" if datasets else "") + (f"/{key[2]}" if protocols else "")
        for key in keys
    }
