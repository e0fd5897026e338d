"""Tasks in the ledger: their states, which one is meant, what they measured and what they cost."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.errors import UsageError
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database, chunks
from sweepctl.ledger._records import (
    MISSING,
    Difference,
    KindCost,
    Prediction,
    Relative,
    TaskRecord,
    TaskState,
)
from sweepctl.ledger._studies import blocked_tasks, check_study
from sweepctl.paths import flat
from sweepctl.runs import FileRecord, MetricValue

if TYPE_CHECKING:
    from sweepctl.plan import Speed

_MOST = 200  # matches of a prefix that are worth counting
_SPEEDS = 2_000  # finished tasks that forecasts go by, the newest


@dataclass(frozen=True, slots=True)
class Tasks:
    """`Ledger.tasks`: each task once, however many cells and studies share it."""

    _database: Database

    def states(
        self, fingerprints: Collection[str] | None = None, *, study: str | None = None
    ) -> dict[str, TaskState]:
        """The states of tasks, by fingerprint; unknown fingerprints are left out.

        Args:
            fingerprints: which tasks; None for those of `study`, or all when that is None too.
            study: all tasks of its newest submission; excludes `fingerprints`.

        Raises:
            UsageError: there is no such study.
        """
        if fingerprints is not None and study is not None:
            raise ValueError("states takes fingerprints or a study, not both")
        with self._database.reading() as connection:
            if study is not None:
                check_study(connection, study)
                return study_states(connection, study)
            if fingerprints is None:
                return _states(connection, sa.true())
            wanted = list(chunks(sorted(set(fingerprints))))
            return _states(connection, *(t.task.c.fingerprint.in_(some) for some in wanted))

    def find(self, prefix: str) -> TaskRecord:
        """The task whose id, fingerprint, or the hex part of it, begins so.

        Raises:
            UsageError: none does, or several do; then they are listed. Or it is STUDY/NUMBER.
        """
        with self._database.reading() as connection:
            return _record(connection, _found(connection, prefix))

    def closest(
        self, kind: str, identity: str, *, state: str | None = None
    ) -> tuple[TaskRecord, tuple[Difference, ...]] | None:
        """The recorded task of a kind whose identity differs in the fewest fields, and those.

        A task with the very same identity is passed over; among equals a done one and then the
        newest wins. None when there is no other task of that kind.

        Args:
            kind: kind of the task.
            identity: canonical JSON of what changes its numbers.
            state: only tasks in this state, for example "done".
        """
        given = flat(json.loads(identity), lists=True)
        query = sa.select(t.task.c.fingerprint, t.task.c.identity, t.task.c.state).where(
            t.task.c.kind == kind, t.task.c.identity != identity
        )
        if state is not None:
            query = query.where(t.task.c.state == state)
        # The newest comes first and wins a tie, unless an older one is done.
        query = query.order_by(t.task.c.created_at.desc(), t.task.c.fingerprint)
        best: tuple[int, bool] | None = None
        closest = None
        with self._database.reading() as connection:
            for row in connection.execute(query):
                recorded = flat(json.loads(row.identity), lists=True)
                shared = sum(1 for path, value in recorded.items() if _equal(given, path, value))
                rank = (len(given.keys() | recorded.keys()) - shared, row.state != "done")
                if best is None or rank < best:
                    best, closest = rank, (row.fingerprint, recorded)
            if closest is None:
                return None
            fingerprint, recorded = closest
            return _record(connection, fingerprint), _differences(recorded, given)

    def lineage(self, fingerprint: str) -> tuple[list[Relative], list[Relative]]:
        """Tasks that a task was made from, and tasks made from it, the closest first.

        What `v_lineage` says of one task, in both directions.
        """
        up, down = t.dependency.c.parent, t.dependency.c.task
        with self._database.reading() as connection:
            blocked = blocked_tasks(connection)
            return (
                _relatives(connection, blocked, fingerprint, down, up),
                _relatives(connection, blocked, fingerprint, up, down),
            )

    def parents(self, study: str) -> dict[str, tuple[str, ...]]:
        """Fingerprint -> fingerprints of the tasks it needs, for the newest submission.

        Tasks that need none are left out.

        Raises:
            UsageError: there is no such study.
        """
        edges = sa.select(t.dependency.c.task, t.dependency.c.parent).where(
            t.dependency.c.task.in_(t.tasks_of(study))
        )
        graph: dict[str, tuple[str, ...]] = {}
        with self._database.reading() as connection:
            check_study(connection, study)
            for name, parent in connection.execute(edges):
                graph[name] = (*graph.get(name, ()), parent)
        return graph

    def files(self, fingerprint: str) -> list[FileRecord]:
        """The files of a task's result, by name; none before it is done."""
        query = (
            sa.select(t.file.c.name, t.file.c.bytes, t.file.c.sha256)
            .where(t.file.c.task == fingerprint)
            .order_by(t.file.c.name)
        )
        with self._database.reading() as connection:
            return [
                FileRecord(name=row.name, bytes=row.bytes, sha256=row.sha256)
                for row in connection.execute(query)
            ]

    def metrics(self, fingerprint: str, step: int | None = None) -> list[MetricValue]:
        """What a task has measured, by data set, name and protocol.

        Args:
            fingerprint: the task.
            step: training step of what it has measured; None for the end of training.
        """
        at = t.FINAL_STEP if step is None else int(step)
        query = (
            sa.select(t.metric)
            # Written out: SQLite takes a partial index only for a number it can see.
            .where(t.metric.c.task == fingerprint, t.metric.c.step == sa.literal_column(str(at)))
            .order_by(t.metric.c.dataset, t.metric.c.name, t.metric.c.protocol)
        )
        with self._database.reading() as connection:
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
                for row in connection.execute(query)
            ]

    def reset(self, fingerprints: Collection[str], *, done: bool = False) -> list[str]:
        """Make failed tasks pending, with their count of failures at 0; returns which.

        Args:
            fingerprints: the tasks; those that are pending or running stay as they are.
            done: whether done tasks are reset too. Their metrics and files are forgotten, their
                attempts are not: name only tasks whose files are gone.
        """
        states = ("failed", "done") if done else ("failed",)
        changed: list[str] = []
        with self._database.writing() as connection:
            for some in chunks(fingerprints):
                found = connection.execute(
                    t.task.update()
                    .where(t.task.c.fingerprint.in_(some), t.task.c.state.in_(states))
                    .values(
                        state="pending",
                        result_attempt=None,
                        failed_attempts=0,
                        failure=None,
                        message="",
                        finished_at=None,
                    )
                    .returning(t.task.c.fingerprint)
                ).scalars()
                again = list(found)
                if done and again:
                    connection.execute(t.metric.delete().where(t.metric.c.task.in_(again)))
                    connection.execute(t.file.delete().where(t.file.c.task.in_(again)))
                changed += again
        return sorted(changed)

    def speeds(self) -> list[Speed]:
        """How fast the newest finished tasks were, the newest last, to calibrate forecasts.

        Seconds are those of one device: of an attempt on several, the sum over all of them.
        Tasks of which an attempt failed or was lost are left out: some of their work was done
        twice, or took an unknown number of seconds.
        """
        from sweepctl.plan import Speed

        every = t.attempt.alias("every")
        whole = every.c.state.in_(("done", "stopped"))
        seconds = sa.func.sum(every.c.seconds * ranks_of(every))
        device = sa.func.coalesce(
            sa.func.nullif(t.attempt.c.device_name, ""), t.attempt.c.device
        ).label("device")
        query = (
            sa.select(
                t.task.c.kind,
                t.task.c.samples,
                t.attempt.c.flops,
                device,
                seconds.label("seconds"),
            )
            .join(t.attempt, t.RESULT_ATTEMPT)
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
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
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

    def predictions(self, study: str) -> list[Prediction]:
        """How long finished tasks of a study were expected to take and took, in their order.

        Only those that their first attempt finished: what others took is not what was predicted.

        Raises:
            UsageError: there is no such study.
        """
        query = (
            sa.select(t.task.c.id, t.task.c.kind, t.attempt.c.predicted_s, t.attempt.c.seconds)
            .join(t.attempt, t.RESULT_ATTEMPT)
            .where(
                t.task.c.fingerprint.in_(t.tasks_of(study)),
                t.task.c.result_attempt == 1,
                t.attempt.c.predicted_s > 0,
                t.attempt.c.seconds > 0,
            )
            .order_by(t.task.c.finished_at, t.task.c.id)
        )
        with self._database.reading() as connection:
            check_study(connection, study)
            return [
                Prediction(
                    task_id=row.id,
                    kind=row.kind,
                    predicted_s=row.predicted_s,
                    seconds=row.seconds,
                )
                for row in connection.execute(query)
            ]

    def costs(self) -> list[KindCost]:
        """What each kind of task has cost, the costliest first: `v_cost` over all studies."""
        query = sa.text(
            "SELECT kind, sum(tasks) AS tasks, sum(tasks_done) AS tasks_done, "
            "sum(attempts) AS attempts, sum(seconds) AS seconds, "
            "sum(seconds_lost) AS seconds_lost, sum(flops) AS flops, "
            "max(peak_memory_bytes) AS peak_memory_bytes, sum(file_bytes) AS file_bytes "
            "FROM v_cost GROUP BY kind ORDER BY sum(seconds) DESC"
        )
        with self._database.reading() as connection:
            return [
                KindCost(
                    kind=row.kind,
                    tasks=int(row.tasks),
                    tasks_done=int(row.tasks_done),
                    attempts=int(row.attempts),
                    seconds=float(row.seconds),
                    seconds_lost=float(row.seconds_lost),
                    flops=float(row.flops),
                    peak_memory_bytes=int(row.peak_memory_bytes),
                    file_bytes=int(row.file_bytes),
                )
                for row in connection.execute(query)
            ]

    def code_counts(self, fingerprints: Collection[str]) -> dict[str, int]:
        """Code hash -> how many of these tasks have a result that was recorded by it."""
        counts: dict[str, int] = {}
        with self._database.reading() as connection:
            for some in chunks(fingerprints):
                rows = connection.execute(
                    sa.select(t.attempt.c.code, sa.func.count().label("results"))
                    .join(t.task, t.RESULT_ATTEMPT)
                    .where(t.task.c.fingerprint.in_(some))
                    .group_by(t.attempt.c.code)
                )
                for row in rows:
                    counts[row.code] = counts.get(row.code, 0) + row.results
        return counts


# --- within one transaction --------------------------------------------------------------------


def study_states(connection: Connection, study: str) -> dict[str, TaskState]:
    """The states of the tasks of a study's newest submission, by fingerprint."""
    return _states(connection, t.task.c.fingerprint.in_(t.tasks_of(study)))


def ranks_of(attempts: sa.FromClause) -> sa.ColumnElement[int]:
    """Processes, each with a device of its own, that worked on an attempt; 1 of old ones."""
    ranks = sa.type_coerce(attempts.c.provenance, sa.JSON)["ranks"].as_integer()
    return sa.func.coalesce(ranks, 1)


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
    ranks_of(t.attempt).label("ranks"),
).select_from(t.task.outerjoin(t.attempt, t.NEWEST_ATTEMPT))


def _states(connection: Connection, *conditions: sa.ColumnElement[bool]) -> dict[str, TaskState]:
    """The states of the tasks that meet one of the conditions."""
    blocked = blocked_tasks(connection)
    return {
        row.fingerprint: TaskState(
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
            ranks=row.ranks,
        )
        for condition in conditions
        for row in connection.execute(_STATE_QUERY.where(condition))
    }


def _found(connection: Connection, prefix: str) -> str:
    """The fingerprint of the one task whose id or fingerprint begins so."""
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
    return str(found[0].fingerprint)


def _record(connection: Connection, fingerprint: str) -> TaskRecord:
    state = _states(connection, t.task.c.fingerprint == fingerprint)[fingerprint]
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
        .join(t.cell_task, t.CELL_TASK)
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


def _relatives(
    connection: Connection,
    blocked: Collection[str],
    fingerprint: str,
    here: sa.Column[str],
    there: sa.Column[str],
) -> list[Relative]:
    """Tasks reached by going from one end of a dependency to the other, any number of times."""
    line = (
        sa.select(there.label("reached"), sa.literal(1).label("depth"))
        .where(here == fingerprint)
        .cte("line", recursive=True)
    )
    line = line.union(sa.select(there, line.c.depth + 1).where(here == line.c.reached))
    closest = sa.func.min(line.c.depth).label("depth")
    of_task = (t.task.c.fingerprint, t.task.c.id, t.task.c.kind, t.task.c.label, t.task.c.state)
    rows = connection.execute(
        sa.select(*of_task, closest)
        .join(line, line.c.reached == t.task.c.fingerprint)
        .group_by(*of_task)
        .order_by(closest, t.task.c.kind, t.task.c.id)
    )
    return [
        Relative(
            id=row.id,
            kind=row.kind,
            label=row.label,
            state="blocked" if row.state == "pending" and row.fingerprint in blocked else row.state,
            depth=row.depth,
        )
        for row in rows
    ]


def _differences(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Difference, ...]:
    return tuple(
        Difference(path=path, recorded=recorded.get(path, MISSING), given=given.get(path, MISSING))
        for path in dict.fromkeys([*given, *recorded])
        if path not in recorded or not _equal(given, path, recorded[path])
    )


def _equal(leaves: Mapping[str, Any], path: str, value: Any) -> bool:
    # JSON tells 1 from 1.0 and from true, and so does a fingerprint; Python's == does not.
    return path in leaves and repr(leaves[path]) == repr(value)
