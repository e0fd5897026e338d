"""How does an attempt get in? Its start, its progress, its end, and the task's state with it.

An attempt ends by one conditional update: it must still be running and must be the newest of its
task, otherwise nothing at all is written. That is the fence against a driver that was away and
comes back. Every function locks the row of the task first, so that on PostgreSQL two drivers wait
for each other in one order. Each public function here is the body of one transaction.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sweepctl.errors import LedgerError
from sweepctl.ledger import _tables as t
from sweepctl.ledger._connect import chunks, clean, now
from sweepctl.ledger._records import Progress
from sweepctl.runs import AttemptOutcome, TaskResult, attempt_folder

Row = dict[str, Any]


def start_attempt(
    connection: Connection,
    fingerprint: str,
    *,
    host: str,
    worker: str,
    device: str,
    code: str,
    predicted_s: float | None,
    folder: Path | None,
    provenance: Mapping[str, Any],
) -> int | None:
    """Give a pending task its next attempt; see `Ledger.start_attempt`."""
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
    row = _attempt_row(fingerprint, number, "running", now()) | _origin(provenance)
    row["predicted_s"] = predicted_s
    told = {"host": host, "worker": worker, "device": device, "code": code}
    row |= {column: value for column, value in told.items() if value}
    if folder is not None:
        row["log"] = str(attempt_folder(folder.absolute(), number) / "log.txt")
    connection.execute(t.attempt.insert(), row)
    return number


def _unknown(name: str) -> LedgerError:
    return LedgerError(f"the ledger has no task {name}", hint="record the plan it belongs to first")


def _origin(provenance: Mapping[str, Any]) -> Row:
    """Provenance as columns: all of it as JSON, and what is grouped by as columns of its own."""
    plain = _finite(dict(provenance))
    row: Row = {"provenance": plain}
    for column in ("device", "device_name", "code", "host"):
        if isinstance(told := plain.get(column), str) and told:
            row[column] = told
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


def progress(connection: Connection, updates: Iterable[Progress]) -> None:
    """Write how far running attempts are; attempts that have ended are left as they are."""
    at = now()
    rows = [
        {
            "of_task": update.fingerprint,
            "of_number": update.attempt,
            "step": update.step,
            "steps": update.steps,
            # The last loss of a run that diverged is not a number; SQL has NULL for that.
            "loss": update.loss if update.loss is not None and math.isfinite(update.loss) else None,
            "progress_at": at,
        }
        for update in updates
    ]
    if not rows:
        return
    connection.execute(
        t.attempt.update()
        .where(
            t.attempt.c.task == sa.bindparam("of_task"),
            t.attempt.c.number == sa.bindparam("of_number"),
            t.attempt.c.state == "running",
        )
        .values(
            step=sa.bindparam("step"),
            steps=sa.bindparam("steps"),
            loss=sa.bindparam("loss"),
            progress_at=sa.bindparam("progress_at"),
        ),
        rows,
    )


def finish_attempt(
    connection: Connection, outcome: AttemptOutcome, result: TaskResult | None, *, retry: bool
) -> bool:
    """Write how an attempt ended, with everything it measured; see `Ledger.finish_attempt`."""
    if (outcome.state == "done") != (result is not None):
        raise ValueError(f"attempt {outcome.attempt} of {outcome.task_id}: done needs a result")
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
    # What the driver wrote at the start stands where the outcome does not know better.
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


def _drop_results(connection: Connection, fingerprints: Sequence[str]) -> None:
    connection.execute(t.metric.delete().where(t.metric.c.task.in_(fingerprints)))
    connection.execute(t.file.delete().where(t.file.c.task.in_(fingerprints)))


def adopt_result(connection: Connection, fingerprint: str, result: TaskResult) -> bool:
    """Take up a result found on disk; see `Ledger.adopt_result`."""
    if result.fingerprint != fingerprint:
        raise ValueError(f"the result of {result.fingerprint} is not one of {fingerprint}")
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
            t.attempt.insert(), _attempt_row(fingerprint, result.attempt, "done", started_at)
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


def lose_running(connection: Connection, study: str | None, logs_under: str | None) -> list[str]:
    """Mark attempts of a driver that is gone; see `Ledger.lose_running`."""
    # The task's row is locked first, as everywhere: whoever comes second sees it changed.
    query = (
        sa.select(t.task.c.fingerprint)
        .join(
            t.attempt,
            sa.and_(
                t.attempt.c.task == t.task.c.fingerprint, t.attempt.c.number == t.task.c.attempts
            ),
        )
        .where(t.task.c.state == "running")
        .with_for_update(of=t.task)
    )
    if study is not None:
        query = query.where(t.task.c.fingerprint.in_(t.tasks_of(study)))
    if logs_under is not None:
        folder = logs_under.rstrip("/") + "/"
        query = query.where(t.attempt.c.log.startswith(folder, autoescape=True))
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


def _lose(connection: Connection, fingerprints: Sequence[str], at: dt.datetime, why: str) -> None:
    connection.execute(
        t.attempt.update()
        .where(t.attempt.c.task.in_(fingerprints), t.attempt.c.state == "running")
        .values(state="lost", message=why, ended_at=at)
    )


def reset(connection: Connection, fingerprints: Collection[str], *, done: bool) -> list[str]:
    """Make failed (and done) tasks pending again; see `Ledger.reset`."""
    states = ("failed", "done") if done else ("failed",)
    changed: list[str] = []
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
            _drop_results(connection, again)
        changed += again
    return sorted(changed)


def _finite(value: Any) -> Any:
    """Plain JSON with NaN and infinity as words: a fact beside the metrics may be one of them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
