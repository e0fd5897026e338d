"""What has been measured? Reading by cell: states for `status`, numbers for fits and tables.

Everything about a study means its newest submission. Measured numbers come as a long frame, one row
a value; the wide table for people is made of the same rows by `_query.results`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.errors import UsageError
from sweepctl.kinds import trainings, trainings_behind
from sweepctl.ledger import _tables as t
from sweepctl.ledger._records import Asked, CellState, CellStateName, FitRecord, TaskState
from sweepctl.ledger._tasks import CELL_TASK, check_study, task_states

if TYPE_CHECKING:
    import pandas as pd

VALUES = (
    "p",
    "q",
    "c",
    "encoder",
    "decoder",
    "resolution",
    "frames",
    "seed",
    "tokens",
    "E",
    "compression",
    "parameters",
    "macs",
    "encoder_parameters",
    "decoder_parameters",
    "encoder_macs",
    "decoder_macs",
    "dit_parameters",
    "dit_macs",
)
"""Typed values of a cell, in the order of columns."""

_FRAME_TAIL = ("training_flops", "metric", "dataset", "protocol", "n", "value", "se", "task")


def cells(connection: Connection, study: str) -> list[CellState]:
    """The cells of a study and how their tasks stand; see `Ledger.cells`."""
    check_study(connection, study)
    states = task_states(connection, None, study)
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
            state=_cell_state(stages.get(row.key, {}).values(), row.until),
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


def _values(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name.lower()) for name in VALUES}


def _cell_state(states: Iterable[TaskState], until: int | None) -> CellStateName:
    every = list(states)
    names = {"blocked" if state.blocked else state.state for state in every}
    for name in ("failed", "blocked", "running"):
        if name in names:
            return name
    if names != {"done"}:
        return "pending"
    return "done" if until is None else "pruned"


def resolved_study(connection: Connection, study: str) -> dict[str, Any]:
    """The study as its newest submission resolved it."""
    check_study(connection, study)
    newest = (
        sa.select(t.submission.c.resolved)
        .where(t.submission.c.study == study)
        .order_by(t.submission.c.number.desc())
        .limit(1)
    )
    return dict(connection.execute(newest).scalar_one())


def asked(connection: Connection, study: str) -> Asked:
    """The newest submission of a study; see `Ledger.asked`."""
    check_study(connection, study)
    row = connection.execute(
        sa.select(t.submission, t.study.c.title, t.study.c.question)
        .join(t.study, t.study.c.name == t.submission.c.study)
        .where(t.submission.c.study == study)
        .order_by(t.submission.c.number.desc())
        .limit(1)
    ).one()
    return Asked(
        study=study,
        title=row.title,
        question=row.question,
        number=row.number,
        text=row.study_text,
        resolved=row.resolved,
        overrides=tuple(row.overrides),
        argv=tuple(row.argv),
        git_commit=row.git_commit,
        git_dirty=row.git_dirty,
        version=row.sweepctl_version,
        created_at=row.created_at,
    )


def cell_config(connection: Connection, study: str, key: str) -> dict[str, Any]:
    """The resolved config of one cell."""
    check_study(connection, study)
    mine = sa.and_(t.cell.c.study == study, t.cell.c.key == key)
    config = connection.execute(sa.select(t.cell.c.config).where(mine)).scalar()
    if config is None:
        raise UsageError(f"the study {study!r} has no cell with the key {key!r}")
    return dict(config)


def final_metrics(connection: Connection, study: str) -> Sequence[Any]:
    """Rows measured after training: cell key, task id, kind, name, dataset ... value, se."""
    return connection.execute(
        sa.select(
            t.cell.c.key,
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
        .join(t.cell_task, CELL_TASK)
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
    ).all()


def frame(connection: Connection, study: str) -> pd.DataFrame:
    """Measured numbers in long form; see `Ledger.frame`."""
    import pandas as pd

    check_study(connection, study)
    rows = {row.key: row for row in _cell_rows(connection, study)}
    names = axis_columns([row.axes for row in rows.values()])
    columns = list(dict.fromkeys(["cell", *names.values(), *VALUES, *_FRAME_TAIL]))
    flops = _training_flops(connection, study)
    records = []
    for metric in final_metrics(connection, study):
        row = rows[metric.key]
        records.append(
            {
                "cell": row.number,
                **_values(row),
                **{names[axis]: _level(value) for axis, value in row.axes.items()},
                "training_flops": sum(
                    flops.get((metric.key, kind), 0.0) for kind in trainings_behind(metric.kind)
                ),
                "metric": metric.name,
                "dataset": metric.dataset,
                "protocol": metric.protocol,
                "n": metric.n,
                "value": metric.value,
                "se": metric.se,
                "task": metric.id,
            }
        )
    return pd.DataFrame.from_records(records, columns=columns)


def _training_flops(connection: Connection, study: str) -> dict[tuple[str, str], float]:
    """What each training of each cell costs, by key of the cell and kind of the task."""
    rows = connection.execute(
        sa.select(t.cell.c.key, t.task.c.kind, t.task.c.flops)
        .select_from(t.cell)
        .join(t.cell_task, CELL_TASK)
        .join(t.task, t.task.c.fingerprint == t.cell_task.c.task)
        .where(
            t.cell.c.study == study,
            t.cell.c.is_current,
            t.cell_task.c.stage.in_(trainings()),  # and not what they are at a rung
        )
    )
    return {(row.key, row.kind): float(row.flops) for row in rows}


def _level(value: object) -> object:
    """An axis value as a level of a factor; a list, which has no hash, as its text."""
    return json.dumps(value) if isinstance(value, list) else value


def axis_columns(axes: Iterable[Mapping[str, Any]], others: Iterable[str] = ()) -> dict[str, str]:
    """Axis -> name of its column; an axis called like another column gets `axis_` before it."""
    taken = {name.casefold() for name in ("cell", *_FRAME_TAIL, "state", *others)}
    names = dict.fromkeys(axis for cell in axes for axis in cell)
    return {name: f"axis_{name}" if name.casefold() in taken else name for name in names}


def fits(connection: Connection, study: str) -> list[FitRecord]:
    """The newest result of every fit of a study, by name."""
    check_study(connection, study)
    last = (
        sa.select(t.fit.c.name, t.fit.c.condition, sa.func.max(t.fit.c.number).label("number"))
        .where(t.fit.c.study == study)
        .group_by(t.fit.c.name, t.fit.c.condition)
        .subquery()
    )
    newest = sa.and_(t.fit.c.name == last.c.name, t.fit.c.number == last.c.number)
    rows = connection.execute(
        sa.select(t.fit)
        .join(last, newest)
        .where(t.fit.c.study == study)
        .order_by(t.fit.c.name, t.fit.c.number)
    )
    return [
        FitRecord(
            study=row.study,
            name=row.name,
            number=row.number,
            created_at=row.created_at,
            condition=row.condition,
            law=row.law,
            n=row.n,
            slope_low=row.slope_low,
            slope_high=row.slope_high,
            folder=row.folder,
            result=row.result,
        )
        for row in rows
    ]
