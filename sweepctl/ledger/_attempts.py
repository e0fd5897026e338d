"""Attempts in the ledger: their start, progress and end, and the task's state with them.

An attempt ends by one conditional update: it must still be running and must be the newest of its
task, otherwise nothing at all is written. That is the fence against a driver that was away and
comes back. Every method locks the row of the task first, so that on PostgreSQL two drivers wait
for each other in one order.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.errors import LedgerError
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import Database, chunks, clean, now
from sweepctl.ledger._records import Attempt, AttemptProgress, RecentAttempt
from sweepctl.runs import AttemptOutcome, TaskResult, attempt_folder

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempts:
    """`Ledger.attempts`: what a driver writes about the tasks it runs."""

    _database: Database

    def start(
        self,
        fingerprint: str,
        *,
        host: str = "",
        predicted_s: float | None = None,
        folder: Path | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Take a pending task; returns the number of its attempt, from 1.

        Returns None when the task is not pending any more: another driver runs it, or it has
        ended.

        Args:
            fingerprint: the task.
            host: where it is started from; the outcome may know better.
            predicted_s: how long the whole task is expected to take, in seconds.
            folder: run folder of the task; the attempt's log lies in it.
            provenance: where its numbers will come from; "code", "device", "device_name" and "host"
                in it become columns. The result's provenance overrides it.

        Raises:
            LedgerError: the ledger has no such task.
        """
        with self._database.writing() as connection:
            found = connection.execute(
                t.task.update()
                .where(t.task.c.fingerprint == fingerprint, t.task.c.state == "pending")
                .values(state="running", attempts=t.task.c.attempts + 1)
                .returning(t.task.c.attempts)
            ).scalar()
            if found is None:
                known = sa.select(t.task.c.id).where(t.task.c.fingerprint == fingerprint)
                if connection.execute(known).first() is None:
                    raise _unknown(fingerprint)
                return None
            number = int(found)
            row = _attempt_row(fingerprint, number, "running", now()) | _origin(provenance or {})
            row["predicted_s"] = predicted_s
            row |= {"host": host} if host else {}
            if folder is not None:
                row["log"] = str(attempt_folder(folder.absolute(), number) / "log.txt")
            connection.execute(t.attempt.insert(), row)
            return number

    def progress(self, updates: Iterable[AttemptProgress]) -> None:
        """Write how far running attempts are; attempts that ended meanwhile stay as they are."""
        at = now()
        rows = [
            {
                "of_task": update.fingerprint,
                "of_number": update.attempt,
                "step": update.step,
                "steps": update.steps,
                # The last loss of a run that diverged is not a number; SQL has NULL for that.
                "loss": update.loss
                if update.loss is not None and math.isfinite(update.loss)
                else None,
                "progress_at": at,
            }
            for update in updates
        ]
        if not rows:
            return
        with self._database.writing() as connection:
            connection.execute(
                t.attempt.update()
                .where(
                    t.attempt.c.task == sa.bindparam("of_task"),
                    t.attempt.c.number == sa.bindparam("of_number"),
                    t.attempt.c.state == "running",
                )
                .values(
                    {name: sa.bindparam(name) for name in ("step", "steps", "loss", "progress_at")}
                ),
                rows,
            )

    def finish(
        self, outcome: AttemptOutcome, result: TaskResult | None = None, *, retry: bool = False
    ) -> bool:
        """Write how an attempt ended: its state, the task's state, metrics and files.

        Returns False, and writes nothing, when the attempt is not the newest running one of its
        task: it was given up, or another attempt has the task now.

        Args:
            outcome: how it ended; `stopped` makes the task pending again.
            result: what a done attempt left; None for every other state.
            retry: whether a failed task becomes pending again instead of failed.

        Raises:
            LedgerError: the ledger has no such task, or the result is another task's.
        """
        if (outcome.state == "done") != (result is not None):
            raise ValueError(f"attempt {outcome.attempt} of {outcome.task_id}: done needs a result")
        with self._database.writing() as connection:
            row = connection.execute(
                sa.select(t.task.c.fingerprint, t.task.c.state, t.task.c.attempts)
                .where(t.task.c.id == outcome.task_id)
                .with_for_update()
            ).first()
            if row is None:
                raise _unknown(outcome.task_id)
            if result is not None and result.fingerprint != row.fingerprint:
                raise LedgerError(
                    f"the result of {outcome.task_id} belongs to {result.fingerprint}, "
                    f"not to {row.fingerprint}",
                    hint="move the task's run folder away and run again",
                )
            if row.state != "running" or row.attempts != outcome.attempt:
                return False
            ended_at = now()
            ended = connection.execute(
                t.attempt.update()
                .where(
                    t.attempt.c.task == row.fingerprint,
                    t.attempt.c.number == outcome.attempt,
                    t.attempt.c.state == "running",
                )
                .values(_outcome_values(outcome, ended_at))
            )
            if ended.rowcount != 1:
                return False
            if result is not None:
                _keep_result(connection, result, outcome.attempt, ended_at)
            else:
                _end_without_result(connection, row.fingerprint, outcome, ended_at, retry=retry)
            return True

    def adopt(self, fingerprint: str, result: TaskResult) -> bool:
        """Make a task done by a result found on disk; returns False when it is done already.

        The attempt that wrote it is recorded as done, attempts that still run are given up.
        """
        if result.fingerprint != fingerprint:
            raise ValueError(f"the result of {result.fingerprint} is not one of {fingerprint}")
        with self._database.writing() as connection:
            row = connection.execute(
                sa.select(t.task.c.state, t.task.c.attempts)
                .where(t.task.c.fingerprint == fingerprint)
                .with_for_update()
            ).first()
            if row is None:
                raise _unknown(fingerprint)
            if row.state == "done":
                return False
            at = now()
            mine = sa.and_(t.attempt.c.task == fingerprint, t.attempt.c.number == result.attempt)
            if connection.execute(sa.select(t.attempt.c.number).where(mine)).first() is None:
                started_at = at - dt.timedelta(seconds=result.seconds)
                connection.execute(
                    t.attempt.insert(),
                    _attempt_row(fingerprint, result.attempt, "done", started_at),
                )
            connection.execute(
                t.attempt.update()
                .where(mine)
                .values(
                    state="done",
                    failure=None,
                    message="",
                    ended_at=at,
                    seconds=float(result.seconds),
                    peak_memory_bytes=result.peak_memory_bytes,
                )
            )
            _lose(connection, [fingerprint], at, "another attempt of the task had finished")
            connection.execute(
                t.task.update()
                .where(t.task.c.fingerprint == fingerprint)
                .values(attempts=max(row.attempts, result.attempt))
            )
            _keep_result(connection, result, result.attempt, at)
            return True

    def lose_running(
        self, *, study: str | None = None, logs_under: Path | None = None
    ) -> list[str]:
        """Give up the attempts that a dead driver left running; their tasks become pending.

        Args:
            study: only tasks of this study's newest submission; None for all.
            logs_under: only attempts whose log file lies in this folder. A driver that holds the
                lock of its run folder names it here, so that attempts of another driver in the
                same database continue.

        Returns:
            The fingerprints of the tasks.
        """
        # The task's row is locked first, as everywhere: whoever comes second sees it changed.
        query = (
            sa.select(t.task.c.fingerprint)
            .join(t.attempt, t.NEWEST_ATTEMPT)
            .where(t.task.c.state == "running")
            .with_for_update(of=t.task)
        )
        if study is not None:
            query = query.where(t.task.c.fingerprint.in_(t.tasks_of(study)))
        if logs_under is not None:
            folder = str(logs_under.absolute()).rstrip("/") + "/"
            query = query.where(t.attempt.c.log.startswith(folder, autoescape=True))
        with self._database.writing() as connection:
            lost = sorted(connection.execute(query).scalars())
            at = now()
            for some in chunks(lost):
                _lose(connection, some, at, "the driver that ran it went away")
                connection.execute(
                    t.task.update()
                    .where(t.task.c.fingerprint.in_(some), t.task.c.state == "running")
                    .values(state="pending")
                )
        return lost

    def of(self, fingerprint: str) -> list[Attempt]:
        """All attempts of a task, oldest first."""
        query = (
            sa.select(t.attempt, t.task.c.id)
            .join(t.task, t.task.c.fingerprint == t.attempt.c.task)
            .where(t.attempt.c.task == fingerprint)
            .order_by(t.attempt.c.number)
        )
        with self._database.reading() as connection:
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
                for row in connection.execute(query)
            ]

    def recent(self, *, ended: int = 20) -> list[RecentAttempt]:
        """The running attempts, by task, and then the newest of the tasks that ended last.

        Args:
            ended: how many of the tasks that are done or have failed, the last one first.
        """
        columns = (
            *(t.task.c.id, t.task.c.kind, t.task.c.label, t.task.c.state, t.task.c.message),
            *(t.attempt.c.host, t.attempt.c.device, t.attempt.c.worker, t.attempt.c.step),
            *(t.attempt.c.steps, t.attempt.c.loss, t.attempt.c.started_at, t.attempt.c.ended_at),
        )
        newest = sa.select(*columns).outerjoin(t.attempt, t.NEWEST_ATTEMPT).select_from(t.task)
        running = newest.where(t.task.c.state == "running").order_by(t.task.c.id)
        over = newest.where(t.task.c.finished_at.is_not(None)).order_by(
            t.task.c.finished_at.desc(), t.task.c.id
        )
        with self._database.reading() as connection:
            rows = [*connection.execute(running), *connection.execute(over.limit(ended))]
        return [
            RecentAttempt(
                task_id=row.id,
                kind=row.kind,
                label=row.label,
                state=row.state,
                message=row.message,
                host=row.host or "",
                device=row.device or "",
                worker=row.worker or "",
                step=row.step,
                steps=row.steps,
                loss=row.loss,
                since=row.ended_at or row.started_at,
            )
            for row in rows
        ]

    def seconds(self, fingerprints: Collection[str]) -> float:
        """Wall time of all ended attempts of some tasks, in seconds."""
        spent = 0.0
        with self._database.reading() as connection:
            for some in chunks(fingerprints):
                total = sa.select(sa.func.sum(t.attempt.c.seconds)).where(
                    t.attempt.c.task.in_(some)
                )
                spent += float(connection.execute(total).scalar() or 0.0)
        return spent


def _unknown(name: str) -> LedgerError:
    return LedgerError(f"the ledger has no task {name}", hint="record the plan it belongs to first")


def _origin(provenance: Mapping[str, Any]) -> Row:
    """Provenance as columns: all of it as JSON, and what is grouped by as columns of its own."""
    plain = _finite(dict(provenance))
    row: Row = {"provenance": plain}
    for column in ("device", "device_name", "code", "host"):
        if isinstance(given := plain.get(column), str) and given:
            row[column] = given
    return row


def _attempt_row(fingerprint: str, number: int, state: str, started_at: dt.datetime) -> Row:
    return {
        "task": fingerprint,
        "number": number,
        "state": state,
        "message": "",
        "started_at": started_at,
        "seconds": 0.0,
        "peak_memory_bytes": 0,
        "flops": 0.0,
        "host": "",
        "device": "",
        "device_name": "",
        "worker": "",
        "code": "",
        "log": "",
        "result_values": {},
        "provenance": {},
    }


def _outcome_values(outcome: AttemptOutcome, ended_at: dt.datetime) -> Row:
    values: Row = {
        "state": outcome.state,
        "failure": outcome.failure,
        "message": clean(outcome.message),
        "ended_at": ended_at,
        "seconds": float(outcome.seconds),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "exit_code": outcome.exit_code,
    }
    # What the driver wrote at the start is kept where the outcome does not know better.
    if outcome.host:
        values["host"] = clean(outcome.host)
    if outcome.worker:
        values["worker"] = clean(outcome.worker)
    return values


def _end_without_result(
    connection: Connection,
    fingerprint: str,
    outcome: AttemptOutcome,
    ended_at: dt.datetime,
    *,
    retry: bool,
) -> None:
    failed = outcome.state == "failed"
    ends = failed and not retry
    connection.execute(
        t.task.update()
        .where(t.task.c.fingerprint == fingerprint)
        .values(
            state="failed" if ends else "pending",
            failure=outcome.failure,
            message=clean(outcome.message),
            failed_attempts=t.task.c.failed_attempts + (1 if failed else 0),
            finished_at=ended_at if ends else None,
        )
    )


def _keep_result(
    connection: Connection, result: TaskResult, attempt: int, ended_at: dt.datetime
) -> None:
    """Make a task done by one of its attempts: metrics, files, provenance."""
    fingerprint = result.fingerprint
    mine = sa.and_(t.attempt.c.task == fingerprint, t.attempt.c.number == attempt)
    # What the driver knew at the start stays, what the child knows better wins.
    begun = connection.execute(sa.select(t.attempt.c.provenance).where(mine)).scalar_one()
    values: Row = {"flops": float(result.flops), "result_values": _finite(dict(result.values))}
    values |= _origin({**begun, **result.provenance})
    connection.execute(t.attempt.update().where(mine).values(values))
    connection.execute(
        t.task.update()
        .where(t.task.c.fingerprint == fingerprint)
        .values(
            state="done", result_attempt=attempt, failure=None, message="", finished_at=ended_at
        )
    )
    metrics: list[Row] = [
        {
            "task": fingerprint,
            "name": metric.name,
            "dataset": metric.dataset,
            "protocol": metric.protocol,
            "step": t.FINAL_STEP if metric.step is None else metric.step,
            "value": float(metric.value),
            "n": metric.n,
            "se": metric.se,
        }
        for metric in result.metrics
    ]
    bad = [
        metric.name
        for metric in result.metrics
        if not math.isfinite(metric.value)
        or (metric.step is not None and metric.step < 0)
        or (metric.se is not None and not 0 <= metric.se < math.inf)
    ]
    if bad:
        raise LedgerError(
            f"the result of {fingerprint} holds values that are not finite or have a step below "
            f"0 or an impossible standard error: {', '.join(bad)}; nothing of it was recorded"
        )
    if metrics:
        connection.execute(t.metric.insert(), metrics)
    files = [
        {"task": fingerprint, "name": clean(file.name), "bytes": file.bytes, "sha256": file.sha256}
        for file in result.files
    ]
    if files:
        connection.execute(t.file.insert(), files)


def _lose(connection: Connection, fingerprints: Sequence[str], at: dt.datetime, why: str) -> None:
    connection.execute(
        t.attempt.update()
        .where(t.attempt.c.task.in_(fingerprints), t.attempt.c.state == "running")
        .values(state="lost", message=why, ended_at=at)
    )


def _finite(value: Any) -> Any:
    """Plain JSON with NaN and infinity as words: a value of a result may be one of them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
