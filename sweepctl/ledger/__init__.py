"""The ledger: every study, task, attempt and measured number, in one SQL database.

SQLite by default (`results.db`), PostgreSQL by URL; the only package that imports SQLAlchemy and
Alembic. Only the driver of a run writes; anybody may read. The public interface for users is
`VIEWS`, for the rest of sweepctl the class `Ledger` below: one attribute per subject, and each of
their methods is one transaction. Reading order:

    _records    what goes in and comes out        _tables    the facts that are kept
    _views      what users query                  _connect   places, engines, errors
    _schema     creation, checks, upgrades        _studies   submissions and their plans
    _attempts   how attempts and results get in   _tasks     reading by task
    _cells      reading by cell: states, numbers  _fits      fits and published numbers
    _searches   searches and their trials         _query     users' own SQL, read-only for real
    _fitted     what fitted the memory of devices
    describe    everything about one task or cell

The life of a task (state of the task, state of its newest attempt):

    pending ──start──> running ──done──────> done      one result, metrics and files with it
                          ├────failed──────> failed    or pending again when it is to be retried
                          ├────stopped─────> pending   asked to stop, has a checkpoint
                          └────lost────────> pending   its driver went away
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from sweepctl.errors import UsageError
from sweepctl.ledger import _schema
from sweepctl.ledger import _tables as t
from sweepctl.ledger._attempts import Attempts
from sweepctl.ledger._cells import Cells
from sweepctl.ledger._connect import Database, check_file, engines, locate, transaction
from sweepctl.ledger._fits import Fits
from sweepctl.ledger._fitted import FittedMemory
from sweepctl.ledger._query import matching, narrowed, query_postgres, query_sqlite
from sweepctl.ledger._records import (
    MISSING,
    Attempt,
    AttemptProgress,
    CellMetric,
    CellState,
    Difference,
    FitRecord,
    KindCost,
    Prediction,
    RecentAttempt,
    Relative,
    ShownState,
    StudySummary,
    Submission,
    Submitted,
    Table,
    TaskRecord,
    TaskState,
)
from sweepctl.ledger._searches import Searches, SearchRecord, TrialRecord
from sweepctl.ledger._studies import Studies
from sweepctl.ledger._tasks import Tasks
from sweepctl.ledger._views import VIEWS

__all__ = [
    "MISSING",
    "VIEWS",
    "Attempt",
    "AttemptProgress",
    "CellMetric",
    "CellState",
    "Difference",
    "FitRecord",
    "KindCost",
    "Ledger",
    "Prediction",
    "RecentAttempt",
    "Relative",
    "SearchRecord",
    "ShownState",
    "StudySummary",
    "Submission",
    "Submitted",
    "Table",
    "TaskRecord",
    "TaskState",
    "TrialRecord",
    "ledger_exists",
    "matching",
    "narrowed",
    "open_ledger",
    "upgrade_ledger",
]


def open_ledger(
    url: str | None = None,
    *,
    create: bool = True,
    read_only: bool = False,
    folder: Path | None = None,
) -> Ledger:
    """Open the results database, creating or upgrading it where that is allowed.

    Args:
        url: path of a SQLite file or a database URL; None asks SWEEPCTL_DB, then results.db.
        create: whether a missing database is created.
        read_only: open for reading; nothing is created or upgraded.
        folder: what relative paths are relative to; None for the current folder.

    Raises:
        UsageError: the URL cannot be read or names another kind of database.
        LedgerError: missing, damaged, newer, not writable, or older and not ours to upgrade.
        UnreachableError: the server does not answer.
    """
    place = locate(url, folder)
    if place.path is not None:
        check_file(place.path, create=create, read_only=read_only)
    reader, writer = engines(place, read_only=read_only)
    try:
        notice = _schema.ensure_schema(place, reader, writer, create=create, read_only=read_only)
    except BaseException:
        reader.dispose()
        writer.dispose()
        raise
    notices = [] if notice is None else [notice]
    if place.file_system and not read_only:
        notices.append(
            f"{place.shown} is on a network file system ({place.file_system}): journal mode "
            "TRUNCATE, one driver at a time; for several use PostgreSQL"
        )
    database = Database(place=place, reader=reader, writer=writer, read_only=read_only)
    return Ledger(database, notices=tuple(notices))


def ledger_exists(url: str | None = None, *, folder: Path | None = None) -> bool:
    """Whether there is a ledger at a place, of whatever age; nothing is created.

    Raises:
        UsageError: the URL cannot be read or names another kind of database.
        LedgerError: what is there is damaged or cannot be read.
        UnreachableError: the server does not answer.
    """
    place = locate(url, folder)
    if place.path is not None:
        if not place.path.exists():
            return False
        check_file(place.path, create=False, read_only=True)
    reader, _ = engines(place, read_only=True)
    try:
        with transaction(reader, place) as connection:
            return _schema.revision_of(connection) is not None
    finally:
        reader.dispose()


def upgrade_ledger(url: str | None = None, *, folder: Path | None = None) -> str:
    """Bring a database to the newest schema (`sweepctl db upgrade`); returns what was done.

    Raises:
        LedgerError: missing, damaged, newer, or a migration failed; nothing was changed then.
        UnreachableError: the server does not answer.
    """
    place = locate(url, folder)
    if place.path is not None:
        check_file(place.path, create=False, read_only=False)
    return _schema.upgrade(place) or f"{place.shown} has the newest schema ({_schema.HEAD})"


class Ledger:
    """An open results database; made by `open_ledger`, closed by `close` or a with statement.

    Attributes:
        shown: where the database is, without any secret.
        notices: what the user should know about how it was opened, for stderr.
        studies: what was submitted.
        tasks: each task once, however many cells share it.
        attempts: what drivers write, and what they wrote.
        cells: the cells of a study: states, configs, numbers.
        searches: searches and their trials.
        fits: laws and verdicts that were saved, and published numbers.
        fitted: how many samples of a training fitted which device.

    Every method of these is one transaction: all of it is recorded or nothing is. Every method may
    raise LedgerError (the database cannot or must not do it) and UnreachableError.
    """

    def __init__(self, database: Database, *, notices: tuple[str, ...] = ()) -> None:
        self.shown = database.place.shown
        self.notices = notices
        self.studies = Studies(database)
        self.tasks = Tasks(database)
        self.attempts = Attempts(database)
        self.cells = Cells(database)
        self.searches = Searches(database)
        self.fits = Fits(database)
        self.fitted = FittedMemory(database)
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back all connections; the ledger cannot be used afterwards."""
        self._database.reader.dispose()
        self._database.writer.dispose()

    def mark(self) -> str:
        """A short text that changes whenever anything else is recorded; costs little."""
        attempts = sa.select(
            sa.func.count(),
            sa.func.max(t.attempt.c.started_at),
            sa.func.max(t.attempt.c.ended_at),
            sa.func.max(t.attempt.c.progress_at),
        )
        tasks = sa.select(
            t.task.c.state, sa.func.count(), sa.func.sum(t.task.c.failed_attempts)
        ).group_by(t.task.c.state)
        newest = (
            sa.select(sa.func.count(), sa.func.max(table.c.created_at))
            for table in (t.submission, t.fit)
        )
        with self._database.reading() as connection:
            parts = [connection.execute(query).all() for query in (attempts, tasks, *newest)]
        seen = repr([sorted(map(str, part)) for part in parts])
        return hashlib.sha256(seen.encode()).hexdigest()[:16]

    def query(self, sql: str, *, limit_rows: int = 10_000, timeout_s: float = 30.0) -> Table:
        """Run one SELECT of a user over `VIEWS`; the database refuses everything else.

        Raises:
            LedgerError: refused, wrong, or not ended within `timeout_s` seconds.
            UsageError: `limit_rows` is below 1 or `timeout_s` not above 0.
        """
        if limit_rows < 1 or not timeout_s > 0:
            raise UsageError("limit_rows must be at least 1 and timeout_s above 0")
        place = self._database.place
        if place.path is None:
            return query_postgres(place, self._database.reader, sql, limit_rows, timeout_s)
        return query_sqlite(place, place.path, sql, limit_rows, timeout_s)
