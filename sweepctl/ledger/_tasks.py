"""Where do tasks stand, which one is meant, and what has it cost? Reading by task.

States come as dataclasses for the driver and for `status`; `find_task` and `nearest_task` answer
`why`, `logs` and `retry`. Each public function reads within one transaction of its caller.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.errors import UsageError
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import chunks
from sweepctl.ledger._records import (
    MISSING,
    Attempt,
    Difference,
    Kin,
    Prediction,
    TaskRecord,
    TaskState,
)
from sweepctl.ledger._views import BLOCKED
from sweepctl.paths import flat
from sweepctl.runs import FileRecord, MetricValue

if TYPE_CHECKING:
    from sweepctl.plan import Recorded, Speed

_MOST = 200  # matches of a prefix that are worth counting
_SPEEDS = 2_000  # finished tasks that forecasts go by, the newest


def study_names(connection: Connection) -> list[str]:
    """Names of all studies, in alphabetical order."""
    return list(connection.execute(sa.select(t.study.c.name).order_by(t.study.c.name)).scalars())


def check_study(connection: Connection, study: str) -> None:
    """Raise a UsageError that names the studies there are, unless `study` is one of them."""
    names = study_names(connection)
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


def mark(connection: Connection) -> str:
    """What every write moves: counts, newest times, states; see `Ledger.mark`."""
    now_running = sa.select(
        sa.func.count(),
        sa.func.max(t.attempt.c.started_at),
        sa.func.max(t.attempt.c.ended_at),
        sa.func.max(t.attempt.c.progress_at),
    )
    parts = [
        connection.execute(now_running).all(),
        connection.execute(
            sa.select(
                t.task.c.state, sa.func.count(), sa.func.sum(t.task.c.failed_attempts)
            ).group_by(t.task.c.state)
        ).all(),
        *(
            connection.execute(sa.select(sa.func.count(), sa.func.max(table.c.created_at))).all()
            for table in (t.submission, t.fit)
        ),
    ]
    said = repr([sorted(map(str, part)) for part in parts])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def task_states(
    connection: Connection, fingerprints: Collection[str] | None, study: str | None
) -> dict[str, TaskState]:
    """Where tasks stand; see `Ledger.task_states`."""
    conditions: list[sa.ColumnElement[bool]]
    if fingerprints is not None:
        wanted = set(fingerprints)
        conditions = [t.task.c.fingerprint.in_(some) for some in chunks(sorted(wanted))]
    elif study is not None:
        conditions = [t.task.c.fingerprint.in_(t.tasks_of(study))]
    else:
        conditions = [sa.true()]
    blocked = _blocked(connection)
    states: dict[str, TaskState] = {}
    for condition in conditions:
        for row in connection.execute(_STATE_QUERY.where(condition)):
            states[row.fingerprint] = _task_state(row, blocked)
    return states


_NEWEST = sa.and_(t.attempt.c.task == t.task.c.fingerprint, t.attempt.c.number == t.task.c.attempts)

_STATE_QUERY = sa.select(
    t.task.c.fingerprint,
    t.task.c.id,
    t.task.c.kind,
    t.task.c.label,
    t.task.c.state,
    t.task.c.failure,
    t.task.c.message,
    t.task.c.attempts,
    t.task.c.failed_attempts,
    t.task.c.flops,
    t.task.c.samples,
    t.attempt.c.step,
    t.attempt.c.steps,
    t.attempt.c.loss,
    t.attempt.c.started_at,
    t.attempt.c.seconds,
    t.attempt.c.host,
    t.attempt.c.device,
).select_from(t.task.outerjoin(t.attempt, _NEWEST))


def _blocked(connection: Connection) -> set[str]:
    """Fingerprints of all tasks with a failed ancestor."""
    rows = connection.exec_driver_sql(f"WITH RECURSIVE {BLOCKED} SELECT task FROM blocked")
    return set(rows.scalars())


def _task_state(row: Any, blocked: Collection[str]) -> TaskState:
    return TaskState(
        fingerprint=row.fingerprint,
        id=row.id,
        kind=row.kind,
        label=row.label,
        state=row.state,
        blocked=row.state == "pending" and row.fingerprint in blocked,
        failure=row.failure,
        message=row.message,
        attempts=row.attempts,
        failed_attempts=row.failed_attempts,
        flops=row.flops,
        samples=row.samples,
        step=row.step,
        steps=row.steps,
        loss=row.loss,
        started_at=row.started_at,
        seconds=row.seconds or 0.0,
        host=row.host or "",
        device=row.device or "",
    )


def find_task(connection: Connection, prefix: str) -> TaskRecord:
    """The one task whose id or fingerprint begins so; see `Ledger.find_task`."""
    cell = re.fullmatch(r"([^/]+)/\d+", prefix.strip())
    if cell is not None:  # its number must not be taken for the beginning of some task's id
        check_study(connection, cell[1])
        raise UsageError(
            f"{prefix!r} is a cell, and a cell has several tasks",
            hint=f"`sweepctl show {cell[0]}` names them",
        )
    given = prefix.strip().rstrip("/").rpartition("/")[2]  # runs/<task id>/ is understood too
    matches = sa.or_(
        t.task.c.id.startswith(given, autoescape=True),
        t.task.c.fingerprint.startswith(given, autoescape=True),
        t.task.c.fingerprint.contains(":" + given, autoescape=True),
    )
    query = sa.select(t.task.c.fingerprint, t.task.c.id, t.task.c.label).order_by(t.task.c.id)
    found = connection.execute(query.where(matches).limit(_MOST)).all() if given else []
    exact = [row for row in found if given in (row.id, row.fingerprint)]
    if len(exact) == 1:
        found = exact
    if not found:
        raise UsageError(
            f"no task begins with {prefix!r}",
            hint="ids look like stage1-0f3a52c1d2e4b6a8; "
            '`sweepctl query "select task, label, state from v_task"` lists them',
        )
    if len(found) > 1:
        shown = "".join(f"\n  {row.id}  {row.label}" for row in found[:8])
        more = "\n  ..." if len(found) > 8 else ""
        count = f"{_MOST} or more" if len(found) == _MOST else str(len(found))
        raise UsageError(
            f"{count} tasks begin with {prefix!r}:{shown}{more}", hint="give more of the id"
        )
    return _task_record(connection, found[0].fingerprint)


def _task_record(connection: Connection, fingerprint: str) -> TaskRecord:
    state = task_states(connection, [fingerprint], None)[fingerprint]
    row = connection.execute(
        sa.select(t.task.c.identity, t.task.c.created_at, t.task.c.finished_at).where(
            t.task.c.fingerprint == fingerprint
        )
    ).one()
    parents = connection.execute(
        sa.select(t.dependency.c.role, t.task.c.id)
        .join(t.task, t.task.c.fingerprint == t.dependency.c.parent)
        .where(t.dependency.c.task == fingerprint)
        .order_by(t.dependency.c.role, t.task.c.id)
    )
    children = connection.execute(
        sa.select(t.task.c.id)
        .join(t.dependency, t.task.c.fingerprint == t.dependency.c.task)
        .where(t.dependency.c.parent == fingerprint)
        .distinct()
        .order_by(t.task.c.id)
    )
    cells = connection.execute(
        sa.select(t.cell.c.study, t.cell.c.number, t.cell_task.c.stage)
        .join(t.cell_task, CELL_TASK)
        .where(t.cell_task.c.task == fingerprint, t.cell.c.is_current)
        .order_by(t.cell.c.study, t.cell.c.number, t.cell_task.c.position)
    )
    return TaskRecord(
        state=state,
        identity=row.identity,
        parents=tuple((parent.role, parent.id) for parent in parents),
        children=tuple(children.scalars()),
        cells=tuple((cell.study, cell.number, cell.stage) for cell in cells),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def lineage(connection: Connection, fingerprint: str) -> tuple[list[Kin], list[Kin]]:
    """Ancestors and descendants, the nearest first; see `Ledger.lineage`."""
    up, down = t.dependency.c.parent, t.dependency.c.task
    return _kin(connection, fingerprint, down, up), _kin(connection, fingerprint, up, down)


def _kin(
    connection: Connection, fingerprint: str, here: sa.Column[str], there: sa.Column[str]
) -> list[Kin]:
    """Tasks reached by going from one end of a dependency to the other, any number of times."""
    line = (
        sa.select(there.label("kin"), sa.literal(1).label("depth"))
        .where(here == fingerprint)
        .cte("line", recursive=True)
    )
    line = line.union(sa.select(there, line.c.depth + 1).where(here == line.c.kin))
    nearest = sa.func.min(line.c.depth).label("depth")
    rows = connection.execute(
        sa.select(t.task.c.id, t.task.c.kind, t.task.c.label, t.task.c.state, nearest)
        .join(line, line.c.kin == t.task.c.fingerprint)
        .group_by(t.task.c.id, t.task.c.kind, t.task.c.label, t.task.c.state)
        .order_by(nearest, t.task.c.kind, t.task.c.id)
    )
    return [
        Kin(id=row.id, kind=row.kind, label=row.label, state=row.state, depth=row.depth)
        for row in rows
    ]


def files(connection: Connection, fingerprint: str) -> list[FileRecord]:
    """Files of a task's result; see `Ledger.files`."""
    rows = connection.execute(
        sa.select(t.file.c.name, t.file.c.bytes, t.file.c.sha256)
        .where(t.file.c.task == fingerprint)
        .order_by(t.file.c.name)
    )
    return [FileRecord(name=row.name, bytes=row.bytes, sha256=row.sha256) for row in rows]


def metrics(connection: Connection, fingerprint: str, step: int | None) -> list[MetricValue]:
    """What a task measured; see `Ledger.metrics`."""
    at = t.FINAL_STEP if step is None else int(step)
    rows = connection.execute(
        sa.select(t.metric)
        # Written out: SQLite takes a partial index only for a number it can see.
        .where(t.metric.c.task == fingerprint, t.metric.c.step == sa.literal_column(str(at)))
        .order_by(t.metric.c.dataset, t.metric.c.name, t.metric.c.protocol)
    )
    return [
        MetricValue(
            name=row.name,
            dataset=row.dataset,
            protocol=row.protocol,
            value=row.value,
            n=row.n,
            step=step,
            se=row.se,
        )
        for row in rows
    ]


CELL_TASK = sa.and_(t.cell_task.c.study == t.cell.c.study, t.cell_task.c.cell == t.cell.c.key)


def nearest_task(
    connection: Connection, kind: str, identity: str, state: str | None
) -> tuple[TaskRecord, tuple[Difference, ...]] | None:
    """The recorded task that differs least; see `Ledger.nearest_task`."""
    given = flat(json.loads(identity), lists=True)
    query = sa.select(t.task.c.fingerprint, t.task.c.identity, t.task.c.state).where(
        t.task.c.kind == kind, t.task.c.identity != identity
    )
    if state is not None:
        query = query.where(t.task.c.state == state)
    best: tuple[int, bool] | None = None
    nearest = None
    # The newest comes first and wins a tie, unless an older one is done.
    for row in connection.execute(query.order_by(t.task.c.created_at.desc(), t.task.c.fingerprint)):
        recorded = flat(json.loads(row.identity), lists=True)
        shared = sum(1 for path, value in recorded.items() if _equal(given, path, value))
        rank = (len(given.keys() | recorded.keys()) - shared, row.state != "done")
        if best is None or rank < best:
            best, nearest = rank, (row.fingerprint, recorded)
    if nearest is None:
        return None
    fingerprint, recorded = nearest
    differences = tuple(
        Difference(path=path, recorded=recorded.get(path, MISSING), given=given.get(path, MISSING))
        for path in dict.fromkeys([*given, *recorded])
        if path not in recorded or not _equal(given, path, recorded[path])
    )
    return _task_record(connection, fingerprint), differences


def _equal(leaves: Mapping[str, Any], path: str, value: Any) -> bool:
    # JSON tells 1 from 1.0 and from true, and so does a fingerprint; Python's == does not.
    return path in leaves and repr(leaves[path]) == repr(value)


def attempts(connection: Connection, fingerprint: str) -> list[Attempt]:
    """All attempts of a task, oldest first."""
    rows = connection.execute(
        sa.select(t.attempt, t.task.c.id)
        .join(t.task, t.task.c.fingerprint == t.attempt.c.task)
        .where(t.attempt.c.task == fingerprint)
        .order_by(t.attempt.c.number)
    )
    return [
        Attempt(
            task_id=row.id,
            number=row.number,
            state=row.state,
            failure=row.failure,
            message=row.message,
            started_at=row.started_at,
            ended_at=row.ended_at,
            seconds=row.seconds,
            peak_memory_bytes=row.peak_memory_bytes,
            flops=row.flops,
            exit_code=row.exit_code,
            host=row.host,
            device=row.device,
            device_name=row.device_name,
            predicted_s=row.predicted_s,
            worker=row.worker,
            code=row.code,
            log=row.log,
            step=row.step,
            steps=row.steps,
            loss=row.loss,
            values=row.result_values,
            provenance=row.provenance,
        )
        for row in rows
    ]


_RESULT = sa.and_(
    t.attempt.c.task == t.task.c.fingerprint, t.attempt.c.number == t.task.c.result_attempt
)


def speeds(connection: Connection) -> list[Speed]:
    """How fast finished tasks were; see `Ledger.speeds`."""
    from sweepctl.plan import Speed

    every = t.attempt.alias("every")
    whole = every.c.state.in_(("done", "stopped"))
    rows = connection.execute(
        sa.select(
            t.task.c.kind,
            t.task.c.samples,
            t.attempt.c.flops,
            sa.func.coalesce(sa.func.nullif(t.attempt.c.device_name, ""), t.attempt.c.device).label(
                "device"
            ),
            sa.func.sum(every.c.seconds).label("seconds"),
        )
        .join(t.attempt, _RESULT)
        .join(every, every.c.task == t.task.c.fingerprint)
        .group_by(
            t.task.c.fingerprint,
            t.attempt.c.flops,
            t.attempt.c.device_name,
            t.attempt.c.device,
            t.attempt.c.ended_at,
        )
        .having(
            sa.func.sum(sa.case((whole, 0), else_=1)) == 0,
            sa.func.count() == t.task.c.result_attempt,
            sa.func.sum(every.c.seconds) > 0,
        )
        .order_by(t.attempt.c.ended_at.desc())
        .limit(_SPEEDS)
    ).all()
    return [
        Speed(
            kind=row.kind,
            device=row.device,
            flops=row.flops,
            samples=row.samples,
            seconds=row.seconds,
        )
        for row in reversed(rows)
    ]


def predictions(connection: Connection, study: str) -> list[Prediction]:
    """Expected and taken times of finished tasks; see `Ledger.predictions`."""
    check_study(connection, study)
    rows = connection.execute(
        sa.select(t.task.c.id, t.task.c.kind, t.attempt.c.predicted_s, t.attempt.c.seconds)
        .join(t.attempt, _RESULT)
        .where(
            t.task.c.fingerprint.in_(t.tasks_of(study)),
            t.task.c.result_attempt == 1,
            t.attempt.c.predicted_s > 0,
            t.attempt.c.seconds > 0,
        )
        .order_by(t.task.c.finished_at, t.task.c.id)
    )
    return [
        Prediction(task_id=row.id, kind=row.kind, predicted_s=row.predicted_s, seconds=row.seconds)
        for row in rows
    ]


def parents(connection: Connection, study: str) -> dict[str, tuple[str, ...]]:
    """The graph of a study's tasks; see `Ledger.parents`."""
    check_study(connection, study)
    mine = t.tasks_of(study)
    edges = sa.select(t.dependency.c.task, t.dependency.c.parent)
    graph: dict[str, tuple[str, ...]] = {}
    for name, parent in connection.execute(edges.where(t.dependency.c.task.in_(mine))):
        graph[name] = (*graph.get(name, ()), parent)
    return graph


def recorded(connection: Connection, study: str) -> list[Recorded]:
    """What former submissions of a study used for each cell and stage; see `Ledger.recorded`."""
    from sweepctl.plan import Recorded

    rows = connection.execute(
        sa.select(
            t.cell.c.axes,
            t.cell_task.c.stage,
            t.task.c.fingerprint,
            t.task.c.identity,
            t.task.c.state,
        )
        .select_from(t.cell)
        .join(t.cell_task, CELL_TASK)
        .join(t.task, t.task.c.fingerprint == t.cell_task.c.task)
        .where(t.cell.c.study == study)
        # Those of the newest submission come last: they are the ones a new plan is held against.
        .order_by(t.cell.c.is_current, t.cell.c.number, t.cell_task.c.position)
    )
    return [
        Recorded(
            axes=row.axes,
            stage=row.stage,
            fingerprint=row.fingerprint,
            identity=row.identity,
            state=row.state,
        )
        for row in rows
    ]


def code_counts(connection: Connection, fingerprints: Collection[str]) -> dict[str, int]:
    """Code hash -> how many of these tasks have a result recorded by it."""
    counts: dict[str, int] = {}
    for some in chunks(fingerprints):
        rows = connection.execute(
            sa.select(t.attempt.c.code, sa.func.count().label("results"))
            .join(t.task, _RESULT)
            .where(t.task.c.fingerprint.in_(some))
            .group_by(t.attempt.c.code)
        )
        for row in rows:
            counts[row.code] = counts.get(row.code, 0) + row.results
    return counts
