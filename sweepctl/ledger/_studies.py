"""Studies in the ledger: their submissions, and how a plan's cells and tasks get in.

A plan is compared by hashes first: a known one costs one row. Otherwise everything goes in bulk,
with inserts that leave known rows alone, so that tasks shared with other studies keep their state.
"""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from sweepctl.columns import COLUMNS
from sweepctl.errors import UsageError
from sweepctl.kinds import measuring_kind
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database, chunks, clean, now
from sweepctl.ledger._records import StudySummary, Submission, Submitted
from sweepctl.ledger._views import BLOCKED
from sweepctl.plain import to_json
from sweepctl.secrets import command_line, without_passwords, without_passwords_in

if TYPE_CHECKING:
    from sweepctl.plan import Cell, Plan, Task

Row = dict[str, Any]

_LARGE = 1_000  # new tasks after which PostgreSQL's statistics are too old to plan by
_PLAN_LOCK = 7_236_590_114  # names the recording of a plan among a server's advisory locks

_CELL_UPDATES = tuple(
    column.name for column in t.cell.columns if column.name not in ("study", "key")
)


@dataclass(frozen=True, slots=True)
class Studies:
    """`Ledger.studies`: what was submitted, and when."""

    _database: Database

    def names(self) -> list[str]:
        """Names of all studies, in alphabetical order."""
        with self._database.reading() as connection:
            return _names(connection)

    def submission(self, study: str) -> Submitted:
        """The newest submission of a study.

        Raises:
            UsageError: there is no such study.
        """
        with self._database.reading() as connection:
            check_study(connection, study)
            row = connection.execute(
                sa.select(t.submission, t.study.c.question)
                .join(t.study, t.study.c.name == t.submission.c.study)
                .where(t.submission.c.study == study)
                .order_by(t.submission.c.number.desc())
                .limit(1)
            ).one()
            allowed = t.cell.c.config["evaluate"]["allow_overlap"].as_boolean()
            mine = sa.and_(t.cell.c.study == study, t.cell.c.is_current, allowed)
            overlapping = connection.execute(
                sa.select(sa.func.count()).select_from(t.cell).where(mine)
            ).scalar_one()
        return Submitted(
            study=study,
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
            overlapping=overlapping,
        )

    def summaries(self) -> list[StudySummary]:
        """All studies with their cells and tasks counted, the newest submission first."""
        cells = (
            sa.select(t.cell.c.study, sa.func.count().label("cells"))
            .where(t.cell.c.is_current)
            .group_by(t.cell.c.study)
            .subquery()
        )
        newest = (
            sa.select(t.submission.c.study, sa.func.max(t.submission.c.created_at).label("at"))
            .group_by(t.submission.c.study)
            .subquery()
        )
        listed = (
            sa.select(t.study.c.name, t.study.c.question, newest.c.at, cells)
            .join(newest, newest.c.study == t.study.c.name)
            .outerjoin(cells, cells.c.study == t.study.c.name)
            .order_by(newest.c.at.desc(), t.study.c.name)
        )
        used = (
            sa.select(t.cell.c.study, t.cell_task.c.task)
            .join(t.cell_task, t.CELL_TASK)
            .where(t.cell.c.is_current)
            .distinct()
            .subquery()
        )
        counted = sa.select(used.c.study, t.task.c.fingerprint, t.task.c.state).join(
            t.task, t.task.c.fingerprint == used.c.task
        )
        counts: dict[str, Counter[str]] = {}
        with self._database.reading() as connection:
            blocked = blocked_tasks(connection)
            for study, task, state in connection.execute(counted):
                shown = "blocked" if state == "pending" and task in blocked else state
                counts.setdefault(study, Counter())[shown] += 1
            return [
                StudySummary(
                    name=row.name,
                    question=row.question,
                    cells=row.cells or 0,
                    counts=counts.get(row.name, {}),
                    submitted_at=row.at,
                )
                for row in connection.execute(listed)
            ]

    def record(self, plan: Plan, submission: Submission) -> int:
        """Record a plan and how it was submitted; returns the number of the submission.

        The study's current cells become those of the plan; tasks that are known, from this study
        or another, keep their state. A submission that asks for the same as the newest one (the
        same resolved study and overrides) is not repeated.
        """
        study = plan.study_name
        cells = [_cell_row(study, cell) for cell in plan.cells]
        cell_tasks = [row for cell in plan.cells for row in _cell_task_rows(study, cell)]
        asked = _digest([submission.resolved, submission.overrides])
        planned = _digest([cells, cell_tasks, sorted(plan.tasks)])
        with self._database.writing() as connection:
            lock_plans(connection)
            newest = connection.execute(
                sa.select(
                    t.submission.c.number, t.submission.c.asked_sha256, t.submission.c.plan_sha256
                )
                .where(t.submission.c.study == study)
                .order_by(t.submission.c.number.desc())
                .limit(1)
            ).first()
            same = newest is not None and newest.asked_sha256 == asked
            if newest is not None and same and newest.plan_sha256 == planned:
                return int(newest.number)

            created_at = now()
            _record_study(connection, study, submission, created_at)
            added = _record_tasks(connection, plan, created_at)
            _record_cells(connection, study, cells, cell_tasks)
            if added > _LARGE and connection.dialect.name == "postgresql":
                connection.exec_driver_sql(
                    "ANALYZE sweep_task, sweep_dependency, sweep_cell, sweep_cell_task"
                )
            if newest is not None and same:
                # The same question, planned again by newer code: one submission, its plan updated.
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
                    study_text=clean(without_passwords(submission.text)),
                    resolved=without_passwords_in(submission.resolved),
                    overrides=without_passwords_in(submission.overrides),
                    argv=[clean(word) for word in command_line(submission.argv)],
                    git_commit=submission.git_commit,
                    git_dirty=submission.git_dirty,
                    sweepctl_version=submission.version,
                    asked_sha256=asked,
                    plan_sha256=planned,
                    created_at=created_at,
                )
            )
            return number


# --- what other parts of the ledger ask within their own transactions --------------------------


def _names(connection: Connection) -> list[str]:
    return list(connection.execute(sa.select(t.study.c.name).order_by(t.study.c.name)).scalars())


def check_study(connection: Connection, study: str) -> None:
    """Raise a UsageError that names the studies there are, unless `study` is one of them."""
    names = _names(connection)
    if study in names:
        return
    if not names:
        raise UsageError(
            f"there is no study {study!r}: no study has been recorded yet",
            hint="start one with `sweepctl run STUDY_FILE`",
        )
    near = difflib.get_close_matches(study, names, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise UsageError(f"there is no study {study!r}{meant}", hint=f"recorded studies: {shown}")


def blocked_tasks(connection: Connection) -> set[str]:
    """Fingerprints of all tasks with a failed ancestor."""
    rows = connection.exec_driver_sql(f"WITH RECURSIVE {BLOCKED} SELECT task FROM blocked")
    return set(rows.scalars())


def lock_plans(connection: Connection) -> None:
    """On PostgreSQL, wait until no other process records a plan; freed by commit.

    Two studies that share tasks would otherwise wait for each other's rows in a circle.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PLAN_LOCK})")


def add_cells(connection: Connection, plan: Plan) -> None:
    """Add the cells and tasks of a plan to those that the study has."""
    study = plan.study_name
    lock_plans(connection)
    _record_tasks(connection, plan, now())
    cells = [_cell_row(study, cell) for cell in plan.cells]
    insert(connection, t.cell, cells, update=_CELL_UPDATES)
    keys = [cell.key for cell in plan.cells]
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
    # All rows in one parameter: a message per row would take seconds for a large plan.
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


# --- rows of a plan ----------------------------------------------------------------------------


def _digest(value: object) -> str:
    # Key order is kept: a study whose axes changed places shows its columns in another order.
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def _cell_row(study: str, cell: Cell) -> Row:
    values = {name.lower(): getattr(cell.derived, name) for name in COLUMNS}
    return {
        "study": study,
        "key": cell.key,
        "number": cell.index,
        "is_current": True,
        **values,
        "compression": float(cell.derived.compression),
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
        "title": "",  # no study has one; the column stays, since dropping it rewrites the table
        "question": clean(without_passwords(submission.question)),
        "created_at": created_at,
    }
    insert(connection, t.study, [row], update=("question",))


def _record_tasks(connection: Connection, plan: Plan, created_at: dt.datetime) -> int:
    """Insert the tasks that are not known yet; returns how many."""
    known: set[str] = set()
    for some in chunks(plan.tasks):
        found = connection.execute(
            sa.select(t.task.c.fingerprint).where(t.task.c.fingerprint.in_(some))
        )
        known.update(found.scalars())
    new = [task for task in plan.tasks.values() if task.fingerprint not in known]
    insert(connection, t.task, [_task_row(task) | {"created_at": created_at} for task in new])
    # The parents of a task are part of its fingerprint: known tasks have theirs already.
    edges = [
        {"task": task.fingerprint, "role": role, "parent": parent}
        for task in new
        for role, parent in task.parents
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
