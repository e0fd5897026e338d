"""How does a plan get in? Studies, submissions, cells, tasks and their dependencies, and fits.

A plan is compared by hashes first: a known one costs one row. Otherwise everything goes in bulk,
with inserts that leave known rows alone, so that tasks shared with other studies keep their state.
Each public function here is the body of one transaction.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from sweepctl.errors import LedgerError
from sweepctl.kinds import measuring_kind
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import chunks, clean, now
from sweepctl.ledger._records import Submission
from sweepctl.plain import to_json

if TYPE_CHECKING:
    from sweepctl.plan import Cell, Plan, Task

Row = dict[str, Any]

_LARGE = 1_000  # new tasks after which PostgreSQL's statistics are too old to plan by
_PLAN_LOCK = 7_236_590_114  # names the recording of a plan among a server's advisory locks

_CELL_UPDATES = tuple(
    column.name for column in t.cell.columns if column.name not in ("study", "key")
)


def record_plan(connection: Connection, plan: Plan, submission: Submission) -> int:
    """Record a plan and how it was handed in; see `Ledger.record_plan`."""
    study = plan.study_name
    cells = [_cell_row(study, cell) for cell in plan.cells]
    cell_tasks = [row for cell in plan.cells for row in _cell_task_rows(study, cell)]
    tasks = [_task_row(task) for task in plan.tasks.values()]
    asked = _digest([submission.resolved, submission.overrides])
    planned = _digest([cells, cell_tasks, sorted(plan.tasks)])
    if connection.dialect.name == "postgresql":
        # Two studies that share tasks would otherwise wait for each other's rows in a circle.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PLAN_LOCK})")

    newest = connection.execute(
        sa.select(t.submission.c.number, t.submission.c.asked_sha256, t.submission.c.plan_sha256)
        .where(t.submission.c.study == study)
        .order_by(t.submission.c.number.desc())
        .limit(1)
    ).first()
    same = newest is not None and newest.asked_sha256 == asked
    if newest is not None and same and newest.plan_sha256 == planned:
        return int(newest.number)

    created_at = now()
    _record_study(connection, study, submission, created_at)
    added = _record_tasks(connection, tasks, plan, created_at)
    _record_cells(connection, study, cells, cell_tasks)
    if added > _LARGE and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "ANALYZE sweep_task, sweep_dependency, sweep_cell, sweep_cell_task"
        )
    if newest is not None and same:
        # The same question, planned anew by newer code: one submission, its plan brought up.
        connection.execute(
            t.submission.update()
            .where(t.submission.c.study == study, t.submission.c.number == newest.number)
            .values(plan_sha256=planned)
        )
        return int(newest.number)
    number = 1 if newest is None else int(newest.number) + 1
    connection.execute(
        t.submission.insert().values(
            study=study,
            number=number,
            study_text=clean(submission.text),
            resolved=submission.resolved,
            overrides=list(submission.overrides),
            argv=[clean(word) for word in submission.argv],
            git_commit=submission.git_commit,
            git_dirty=submission.git_dirty,
            sweepctl_version=submission.version,
            asked_sha256=asked,
            plan_sha256=planned,
            created_at=created_at,
        )
    )
    return number


def _digest(value: object) -> str:
    # Key order is kept: a study whose axes changed places shows its columns in another order.
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def _cell_row(study: str, cell: Cell) -> Row:
    derived = cell.derived
    return {
        "study": study,
        "key": cell.key,
        "number": cell.index,
        "is_current": True,
        "p": derived.p,
        "q": derived.q,
        "c": derived.c,
        "encoder": derived.encoder,
        "decoder": derived.decoder,
        "resolution": derived.resolution,
        "frames": derived.frames,
        "seed": derived.seed,
        "tokens": derived.tokens,
        "e": derived.E,
        "compression": float(derived.compression),
        "parameters": derived.parameters,
        "macs": derived.macs,
        "encoder_parameters": derived.encoder_parameters,
        "decoder_parameters": derived.decoder_parameters,
        "encoder_macs": derived.encoder_macs,
        "decoder_macs": derived.decoder_macs,
        "dit_parameters": derived.dit_parameters,
        "dit_macs": derived.dit_macs,
        "dataset": cell.datasets[0] if cell.datasets else None,
        "generation_dataset": _first_generated(cell),
        "until": cell.until,
        "datasets": list(cell.datasets),
        "axes": dict(cell.axes),
        "config": dict(cell.config),
    }


def _first_generated(cell: Cell) -> str | None:
    """The data set that the samples of a cell are compared with first; None without samples."""
    kinds = (stage.partition(":") for stage in cell.tasks)
    sampling = measuring_kind("generation").name
    return next((dataset for kind, _, dataset in kinds if kind == sampling), None)


def _cell_task_rows(study: str, cell: Cell) -> Iterator[Row]:
    for position, (stage, fingerprint) in enumerate(cell.tasks.items()):
        yield {
            "study": study,
            "cell": cell.key,
            "stage": stage,
            "position": position,
            "task": fingerprint,
        }


def _task_row(task: Task) -> Row:
    return {
        "fingerprint": task.fingerprint,
        "id": task.id,
        "kind": task.kind,
        "label": task.label,
        "identity": task.identity,
        "state": "pending",
        "parameters": task.cost.parameters,
        "macs": task.cost.macs,
        "flops": float(task.cost.flops),
        "samples": task.cost.samples,
        "disk_bytes": task.cost.disk_bytes,
        "attempts": 0,
        "failed_attempts": 0,
        "message": "",
    }


def _record_study(
    connection: Connection, study: str, submission: Submission, created_at: dt.datetime
) -> None:
    row = {
        "name": study,
        "title": clean(submission.title),
        "question": clean(submission.question),
        "created_at": created_at,
    }
    insert(connection, t.study, [row], update=("title", "question"))


def _record_tasks(
    connection: Connection, tasks: list[Row], plan: Plan, created_at: dt.datetime
) -> int:
    """Insert the tasks that are not known yet; returns how many."""
    known: set[str] = set()
    for some in chunks(plan.tasks):
        found = connection.execute(
            sa.select(t.task.c.fingerprint).where(t.task.c.fingerprint.in_(some))
        )
        known.update(found.scalars())
    new = [row | {"created_at": created_at} for row in tasks if row["fingerprint"] not in known]
    insert(connection, t.task, new)
    # The parents of a task are part of its fingerprint: known tasks have theirs already.
    edges = [
        {"task": row["fingerprint"], "role": role, "parent": parent}
        for row in new
        for role, parent in plan.tasks[row["fingerprint"]].parents
    ]
    insert(connection, t.dependency, edges)
    return len(new)


def _record_cells(
    connection: Connection, study: str, cells: list[Row], cell_tasks: list[Row]
) -> None:
    mine = t.cell.c.study == study
    connection.execute(t.cell.update().where(mine, t.cell.c.is_current).values(is_current=False))
    insert(connection, t.cell, cells, update=_CELL_UPDATES)
    current = sa.select(t.cell.c.key).where(mine, t.cell.c.is_current)
    connection.execute(
        t.cell_task.delete().where(t.cell_task.c.study == study, t.cell_task.c.cell.in_(current))
    )
    insert(connection, t.cell_task, cell_tasks)


def add_cells(connection: Connection, plan: Plan) -> None:
    """Add the cells and tasks of a plan to those that the study has."""
    study = plan.study_name
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PLAN_LOCK})")
    _record_tasks(connection, [_task_row(task) for task in plan.tasks.values()], plan, now())
    keys = [cell.key for cell in plan.cells]
    cells = [_cell_row(study, cell) for cell in plan.cells]
    insert(connection, t.cell, cells, update=_CELL_UPDATES)
    mine = sa.and_(t.cell_task.c.study == study, t.cell_task.c.cell.in_(keys))
    connection.execute(t.cell_task.delete().where(mine))
    rows = [row for cell in plan.cells for row in _cell_task_rows(study, cell)]
    insert(connection, t.cell_task, rows)


def insert(
    connection: Connection, table: sa.Table, rows: list[Row], *, update: tuple[str, ...] = ()
) -> None:
    """Insert many rows; known ones are left alone, or get the `update` columns."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(_sqlite_insert(table, update), rows)
        return
    keys = [column.name for column in table.primary_key]
    # All rows in one parameter: a message a row would take seconds for a large plan.
    names = ", ".join(rows[0])
    changes = ", ".join(f"{name} = excluded.{name}" for name in update)
    known = f"({', '.join(keys)}) DO UPDATE SET {changes}" if update else "DO NOTHING"
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({names}) SELECT {names} "
        f"FROM json_populate_recordset(NULL::{table.name}, %s::json) ON CONFLICT {known}",
        (to_json(rows),),
    )


@functools.cache
def _sqlite_insert(table: sa.Table, update: tuple[str, ...]) -> sqlite.Insert:
    """Building it takes as long as running it, and a search does that for every trial."""
    insert = sqlite.insert(table)
    if not update:
        return insert.on_conflict_do_nothing()
    keys = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in update}
    return insert.on_conflict_do_update(index_elements=keys, set_=changed)


def save_fit(
    connection: Connection,
    study: str,
    name: str,
    result: Mapping[str, Any],
    about: Mapping[str, Any],
) -> int:
    """Keep a fit; see `Ledger.save_fit`."""
    known = connection.execute(sa.select(t.study.c.name).where(t.study.c.name == study)).first()
    if known is None:
        raise LedgerError(f"the ledger has no study {study!r}", hint="record its plan first")
    mine = sa.and_(t.fit.c.study == study, t.fit.c.name == name)
    newest = connection.execute(
        sa.select(t.fit)
        .where(mine, t.fit.c.condition == about["condition"])
        .order_by(t.fit.c.number.desc())
        .limit(1)
    ).first()
    plain = json.loads(to_json(result))
    same = newest is not None and newest.result == plain
    # Asking again without files does not forget where those of the same result are.
    if newest is not None and same and about["folder"] in (None, newest.folder):
        return int(newest.number)
    last = connection.execute(sa.select(sa.func.max(t.fit.c.number)).where(mine)).scalar()
    number = 1 + int(last or 0)
    connection.execute(
        t.fit.insert().values(
            study=study, name=name, number=number, created_at=now(), result=plain, **about
        )
    )
    return number


def reference_edition(connection: Connection) -> str | None:
    """The edition of the published numbers that are kept; None without any."""
    found = connection.execute(sa.select(t.reference.c.edition).limit(1)).scalar()
    return None if found is None else str(found)


def keep_reference(
    connection: Connection, edition: str, points: Iterable[Mapping[str, Any]]
) -> int:
    """Replace the published numbers; see `Ledger.keep_reference`."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PLAN_LOCK})")
    if reference_edition(connection) == edition:
        return 0  # another driver was faster
    rows = [
        {name.lower(): value for name, value in point.items()} | {"edition": edition}
        for point in points
    ]
    connection.execute(t.reference.delete())
    insert(connection, t.reference, rows)
    return len(rows)
