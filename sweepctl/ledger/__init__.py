"""What happened? The ledger: every study, task, attempt and measured number, in one SQL database.

SQLite by default (`results.db`), PostgreSQL by URL; the only package that imports SQLAlchemy and
Alembic. Only the driver of a run writes; anybody may read. The public interface for users is
`VIEWS`, for the rest of sweepctl the class `Ledger` below, whose methods each are one transaction.
Reading order:

    _records    what goes in and comes out        _tables    the facts that are kept
    _views      what users query                  _connect   places, engines, errors
    _schema     creation, checks, upgrades        _plans     how plans and fits get in
    _attempts   how attempts and results get in   _tasks     reading by task
    _cells      reading by cell: states, numbers  _query     users' own SQL, read-only for real
    _opened     how it is held open               _searches  what searches have asked

The life of a task (state of the task, state of its newest attempt):

    pending ──start──> running ──done──────> done      one result, metrics and files with it
                          ├────failed──────> failed    or pending again when it is to be retried
                          ├────stopped─────> pending   asked to stop, has a checkpoint
                          └────lost────────> pending   its driver went away
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.ledger import _attempts, _cells, _plans, _query, _schema, _tasks
from sweepctl.ledger._connect import check_file, engines, locate, transaction
from sweepctl.ledger._query import matching, narrowed
from sweepctl.ledger._records import (
    MISSING,
    Asked,
    Attempt,
    CellState,
    Difference,
    FitRecord,
    Kin,
    Prediction,
    Progress,
    Submission,
    Table,
    TaskRecord,
    TaskState,
)
from sweepctl.ledger._searches import Searches, SearchRecord, TrialRecord
from sweepctl.ledger._views import METRIC_COLUMNS, VIEWS
from sweepctl.runs import AttemptOutcome, FileRecord, MetricValue, TaskResult

if TYPE_CHECKING:
    import pandas as pd

    from sweepctl.plan import Plan, Recorded, Speed

__all__ = [
    "METRIC_COLUMNS",
    "MISSING",
    "VIEWS",
    "Asked",
    "Attempt",
    "CellState",
    "Difference",
    "FitRecord",
    "Kin",
    "Ledger",
    "Prediction",
    "Progress",
    "SearchRecord",
    "Submission",
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
    return Ledger(place, reader, writer, read_only=read_only, notices=tuple(notices))


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


class Ledger(Searches):
    """An open results database; made by `open_ledger`, closed by `close` or a with statement.

    Attributes:
        shown: where the database is, without any secret.
        notices: what the user should know about how it was opened, for stderr.

    Every method is one transaction: all of it is recorded or nothing is. Every method may raise
    LedgerError (the database cannot or must not do it) and UnreachableError.
    """

    # What the driver writes

    def record_plan(self, plan: Plan, submission: Submission) -> int:
        """Record a plan and how it was handed in; returns the number of the submission.

        The study's current cells become those of the plan; tasks that are known, from this study
        or another, keep their state. A submission that asks for the same as the newest one (the
        same resolved study and overrides) is not repeated.
        """
        with self._writing() as connection:
            return _plans.record_plan(connection, plan, submission)

    def start_attempt(
        self,
        fingerprint: str,
        *,
        host: str = "",
        worker: str = "",
        device: str = "",
        code: str = "",
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
            worker: name of the worker, when it is known.
            device: torch device, when it is known.
            code: hash of the code that runs.
            predicted_s: how long the whole task is expected to take, in seconds.
            folder: run folder of the task; the attempt's log lies in it.
            provenance: where its numbers will come from; "code", "device", "device_name" and "host"
                in it become columns. The result's provenance is laid over it.

        Raises:
            LedgerError: the ledger has no such task.
        """
        with self._writing() as connection:
            return _attempts.start_attempt(
                connection,
                fingerprint,
                host=host,
                worker=worker,
                device=device,
                code=code,
                predicted_s=predicted_s,
                folder=folder,
                provenance=provenance or {},
            )

    def progress(self, updates: Iterable[Progress]) -> None:
        """Write how far running attempts are; attempts that ended meanwhile stay as they are."""
        with self._writing() as connection:
            _attempts.progress(connection, updates)

    def finish_attempt(
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
        with self._writing() as connection:
            return _attempts.finish_attempt(connection, outcome, result, retry=retry)

    def adopt_result(self, fingerprint: str, result: TaskResult) -> bool:
        """Make a task done by a result found on disk; returns False when it is done already.

        The attempt that wrote it is recorded as done, attempts that still run are given up.
        """
        with self._writing() as connection:
            return _attempts.adopt_result(connection, fingerprint, result)

    def lose_running(
        self, *, study: str | None = None, logs_under: Path | None = None
    ) -> list[str]:
        """Give up the attempts that a dead driver left running; their tasks become pending.

        Args:
            study: only tasks of this study's newest submission; None for all.
            logs_under: only attempts whose log file lies in this folder. A driver that holds the
                lock of its run folder names it here, so that attempts of another driver in the
                same database go on.

        Returns:
            The fingerprints of the tasks.
        """
        with self._writing() as connection:
            under = None if logs_under is None else str(logs_under.absolute())
            return _attempts.lose_running(connection, study, under)

    def reset(self, fingerprints: Collection[str], *, done: bool = False) -> list[str]:
        """Make failed tasks pending, with their count of failures at 0; returns which.

        Args:
            fingerprints: the tasks; those that are pending or running stay as they are.
            done: whether done tasks are reset too. Their metrics and files are forgotten, their
                attempts are not: name only tasks whose files are gone.
        """
        with self._writing() as connection:
            return _attempts.reset(connection, fingerprints, done=done)

    def save_fit(
        self,
        study: str,
        name: str,
        result: Mapping[str, Any],
        *,
        condition: str = "",
        law: str | None = None,
        n: int | None = None,
        slope: tuple[float, float, float] | None = None,
        r2: float | None = None,
        folder: str | None = None,
    ) -> int:
        """Keep a fit; a result equal to the newest one is not repeated. Returns its number.

        Args:
            study: name of the study.
            name: name of the fit.
            result: the fit as plain data.
            condition: the condition on the cells, as `results` takes it; empty for all.
            law: the equation.
            n: number of configurations.
            slope: the slope and both ends of its 95 % interval; an end that is not finite is kept
                as unknown.
            r2: share of the variance explained.
            folder: where the fit's files are.
        """
        numbers = [None if one is None or not math.isfinite(one) else one for one in slope or ()]
        about = {"condition": condition, "law": law, "n": n, "r2": r2, "folder": folder}
        about |= dict(zip(("slope", "slope_low", "slope_high"), numbers, strict=False))
        with self._writing() as connection:
            return _plans.save_fit(connection, study, name, result, about)

    def keep_reference(
        self, edition: str, points: Callable[[], Iterable[Mapping[str, Any]]]
    ) -> int:
        """Keep published numbers beside the measured ones (`v_reference`).

        Args:
            edition: hash of where they come from; numbers of the same edition are not written
                again, those of another one are replaced.
            points: gives the rows, by the names of `v_reference`; not called when it need not be.

        Returns:
            How many rows were written.
        """
        with self._reading() as connection:
            if _plans.reference_edition(connection) == edition:
                return 0
        with self._writing() as connection:
            return _plans.keep_reference(connection, edition, points())

    # What is asked

    def study_names(self) -> list[str]:
        """Names of all studies, in alphabetical order."""
        with self._reading() as connection:
            return _tasks.study_names(connection)

    def resolved_study(self, study: str) -> dict[str, Any]:
        """The study as its newest submission resolved it (`Submission.resolved`).

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _cells.resolved_study(connection, study)

    def cell_config(self, study: str, key: str) -> dict[str, Any]:
        """The resolved config of one cell of a study, by the cell's key.

        Raises:
            UsageError: there is no such study or cell.
        """
        with self._reading() as connection:
            return _cells.cell_config(connection, study, key)

    def task_states(
        self, fingerprints: Collection[str] | None = None, *, study: str | None = None
    ) -> dict[str, TaskState]:
        """Where tasks stand, by fingerprint; unknown fingerprints are left out.

        Args:
            fingerprints: which tasks; None for those of `study`, or all when that is None too.
            study: all tasks of its newest submission; excludes `fingerprints`.

        Raises:
            UsageError: there is no such study.
        """
        if fingerprints is not None and study is not None:
            raise ValueError("task_states takes fingerprints or a study, not both")
        with self._reading() as connection:
            if study is not None:
                _tasks.check_study(connection, study)
            return _tasks.task_states(connection, fingerprints, study)

    def cells(self, study: str) -> list[CellState]:
        """The cells of a study's newest submission, in order, with the state of every stage.

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _cells.cells(connection, study)

    def frame(self, study: str) -> pd.DataFrame:
        """Final metrics of a study's cells in long form, for fits.

        One row a value: cell, one column an axis, p, q, c, encoder, decoder, resolution, frames,
        seed, tokens, E, compression, parameters, macs (both also of encoder and decoder alone),
        training_flops (of all trainings behind the value), metric, dataset, protocol, n, value, se,
        task.

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _cells.frame(connection, study)

    def results(
        self,
        study: str,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        sort: str | None = None,
    ) -> Table:
        """One row a cell: axes, E, tokens, parameters, state, and the metrics that were measured.

        A metric's column is `psnr`, `psnr@dataset` when there are several data sets, and
        `psnr@dataset/protocol` (or `psnr/protocol`) when there are several protocols. With "_se" at
        its end it is the standard error, where one is known; given when asked for.

        Args:
            study: name of the study.
            where: SQL condition over all columns, any axis and p, q, c, encoder, decoder,
                resolution, frames, seed, tokens, E, compression, parameters, macs (both also of
                encoder and decoder alone) included;
                in SQLite's words whatever the database is.
            columns: names of the columns to give instead; ["*"] for all of them.
            sort: columns to sort by, comma-separated, a minus before one for descending; missing
                values last.

        Raises:
            UsageError: there is no such study or column, or the condition cannot be used.
        """
        with self._reading() as connection:
            return _query.results(connection, study, where=where, columns=columns, sort=sort)

    def mark(self) -> str:
        """A short text that is another one whenever anything else is recorded; costs little."""
        with self._reading() as connection:
            return _tasks.mark(connection)

    def asked(self, study: str) -> Asked:
        """How the newest submission of a study was handed in.

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _cells.asked(connection, study)

    def query(self, sql: str, *, limit_rows: int = 10_000, timeout_s: float = 30.0) -> Table:
        """Run one SELECT of a user over `VIEWS`; the database refuses everything else.

        Raises:
            LedgerError: refused, wrong, or not ended within `timeout_s` seconds.
        """
        return _query.query(
            self._place, self._reader, sql, limit_rows=limit_rows, timeout_s=timeout_s
        )

    def find_task(self, prefix: str) -> TaskRecord:
        """The task whose id, fingerprint, or the hex part of it, begins so.

        Raises:
            UsageError: none does, or several do; then they are listed. Or it is STUDY/NUMBER.
        """
        with self._reading() as connection:
            return _tasks.find_task(connection, prefix)

    def lineage(self, fingerprint: str) -> tuple[list[Kin], list[Kin]]:
        """Tasks that a task was made from, and tasks made from it, the nearest first.

        What `v_lineage` says of one task, in both directions.
        """
        with self._reading() as connection:
            return _tasks.lineage(connection, fingerprint)

    def files(self, fingerprint: str) -> list[FileRecord]:
        """The files of a task's result, by name; none before it is done."""
        with self._reading() as connection:
            return _tasks.files(connection, fingerprint)

    def metrics(self, fingerprint: str, step: int | None = None) -> list[MetricValue]:
        """What a task has measured, by data set, name and protocol.

        Args:
            fingerprint: the task.
            step: training step of what it has measured; None for the end of training.
        """
        with self._reading() as connection:
            return _tasks.metrics(connection, fingerprint, step)

    def nearest_task(
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
        with self._reading() as connection:
            return _tasks.nearest_task(connection, kind, identity, state)

    def attempts(self, fingerprint: str) -> list[Attempt]:
        """All attempts of a task, oldest first."""
        with self._reading() as connection:
            return _tasks.attempts(connection, fingerprint)

    def fits(self, study: str) -> list[FitRecord]:
        """The newest result of every saved fit of a study and condition, by name.

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _cells.fits(connection, study)

    def speeds(self) -> list[Speed]:
        """How fast the newest finished tasks were, the newest last, to calibrate forecasts.

        Tasks of which an attempt failed or was lost are left out: some of their work was done
        twice, or by nobody knows how many seconds.
        """
        with self._reading() as connection:
            return _tasks.speeds(connection)

    def predictions(self, study: str) -> list[Prediction]:
        """How long finished tasks of a study were expected to take and took, in their order.

        Only those that their first attempt finished: what others took is not what was predicted.

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _tasks.predictions(connection, study)

    def parents(self, study: str) -> dict[str, tuple[str, ...]]:
        """Fingerprint -> fingerprints of the tasks it needs, for the newest submission.

        Tasks that need none are left out.

        Raises:
            UsageError: there is no such study.
        """
        with self._reading() as connection:
            return _tasks.parents(connection, study)

    def recorded(self, study: str) -> list[Recorded]:
        """The tasks that submissions of a study used for each cell and stage, newest last.

        Empty for a study that was never recorded.
        """
        with self._reading() as connection:
            return _tasks.recorded(connection, study)

    def code_counts(self, fingerprints: Collection[str]) -> dict[str, int]:
        """Code hash -> how many of these tasks have a result that was recorded by it."""
        with self._reading() as connection:
            return _tasks.code_counts(connection, fingerprints)
