"""The tables: which facts the ledger keeps.

One row per study, submission, cell, task, attempt, measured value, file, fit, search, trial,
configuration that fitted a device, and published number.
What is plotted, filtered or joined has a typed column; what is only read back is JSON. All names
begin with `sweep_`, so that other tools may use the same database. Users read the views
(`sweepctl.ledger.VIEWS`); these tables may change with every schema revision.

A change here needs a revision in `migrations/versions` and the new head in `_schema.HEAD`; a test
compares both. Column names are lower case: PostgreSQL folds unquoted names, so that `E` finds `e`.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect

from sweepctl.columns import COLUMNS

PREFIX = "sweep_"

FINAL_STEP = -1
"""Stored step of a value measured after training (a key cannot be NULL); views show NULL."""


class UtcTime(TypeDecorator[dt.datetime]):
    """An aware time, kept in UTC: `timestamptz` on PostgreSQL, text without offset on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        """To UTC; SQLite's text has no offset, so it is dropped there."""
        if value is None:
            return None
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> dt.datetime | None:
        """Aware again, in UTC whatever the time zone of the session is."""
        if value is None:
            return None
        stored: dt.datetime = value
        if stored.tzinfo is None:
            return stored.replace(tzinfo=dt.UTC)
        return stored.astimezone(dt.UTC)


class DamagedJson(ValueError):
    """A stored value is not the JSON that this package writes; `_connect` finds the row."""


class PlainJson(TypeDecorator[Any]):
    """JSON that is always an object (`dict`) or always a list."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: type = dict) -> None:
        super().__init__()
        self.kind = kind

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        """The value, if it is of its kind."""
        if not isinstance(value, self.kind):
            raise DamagedJson(f"{type(value).__name__} instead of {self.kind.__name__}")
        return value


class JsonText(TypeDecorator[str]):
    """Text that is a JSON object, byte for byte as it was written."""

    impl = Text
    cache_ok = True
    kind = dict

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str:
        """The text, if it is a JSON object."""
        if not isinstance(value, str) or not isinstance(json.loads(value), dict):
            raise DamagedJson("no JSON object")
        return value


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

study = Table(
    "sweep_study",
    metadata,
    Column("name", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

submission = Table(
    "sweep_submission",
    metadata,
    Column("study", ForeignKey("sweep_study.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("study_text", Text, nullable=False),
    Column("resolved", PlainJson(), nullable=False),
    Column("overrides", PlainJson(list), nullable=False),
    Column("argv", PlainJson(list), nullable=False),
    Column("git_commit", Text, nullable=False),
    Column("git_dirty", Boolean, nullable=False),
    Column("sweepctl_version", Text, nullable=False),
    Column("asked_sha256", Text, nullable=False),  # of resolved and overrides
    Column("plan_sha256", Text, nullable=False),  # of every row this submission recorded
    Column("created_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("study", "number"),
)

_TYPES: dict[type, type[sa.types.TypeEngine[Any]]] = {int: BigInteger, float: Double, str: Text}


cell = Table(
    "sweep_cell",
    metadata,
    Column("study", ForeignKey("sweep_study.name"), nullable=False),
    Column("key", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("is_current", Boolean, nullable=False),
    *(
        Column(one.name.lower(), Integer if one.small else _TYPES[one.type], nullable=one.nullable)
        for one in COLUMNS.values()
    ),
    Column("dataset", Text),  # the first evaluation data set; NULL without evaluation
    Column("generation_dataset", Text),  # the first one that samples are compared with, or NULL
    Column("until", BigInteger),  # step up to which a search promoted it; NULL for its end
    Column("datasets", PlainJson(list), nullable=False),
    Column("axes", PlainJson(), nullable=False),
    Column("config", PlainJson(), nullable=False),
    PrimaryKeyConstraint("study", "key"),
    Index(None, "study", "is_current", "number"),
)

task = Table(
    "sweep_task",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("identity", JsonText, nullable=False),
    Column("state", Text, nullable=False),
    Column("parameters", BigInteger, nullable=False),
    Column("macs", BigInteger, nullable=False),
    Column("flops", Double, nullable=False),  # a long training passes 2**63
    Column("samples", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),  # number of the newest attempt, 0 for none
    Column("failed_attempts", Integer, nullable=False),  # since the last reset
    Column("result_attempt", Integer),
    Column("failure", Text),
    Column("message", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    CheckConstraint("state IN ('pending', 'running', 'done', 'failed')", name="state"),
    CheckConstraint("(state = 'done') = (result_attempt IS NOT NULL)", name="result"),
    Index(None, "kind", "state"),
    Index(None, "state"),
)

cell_task = Table(
    "sweep_cell_task",
    metadata,
    Column("study", Text, nullable=False),
    Column("cell", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("position", Integer, nullable=False),  # stages in the order in which they run
    Column("task", ForeignKey("sweep_task.fingerprint"), nullable=False),
    PrimaryKeyConstraint("study", "cell", "stage"),
    ForeignKeyConstraint(["study", "cell"], ["sweep_cell.study", "sweep_cell.key"]),
    Index(None, "task"),
)

dependency = Table(
    "sweep_dependency",
    metadata,
    Column("task", ForeignKey("sweep_task.fingerprint"), nullable=False),
    Column("role", Text, nullable=False),
    Column("parent", ForeignKey("sweep_task.fingerprint"), nullable=False),
    PrimaryKeyConstraint("task", "role", "parent"),
    Index(None, "parent"),
)

attempt = Table(
    "sweep_attempt",
    metadata,
    Column("task", ForeignKey("sweep_task.fingerprint"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("failure", Text),
    Column("message", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("seconds", Double, nullable=False),
    Column("predicted_s", Double),  # of the whole task, when the attempt was submitted
    Column("peak_memory_bytes", BigInteger, nullable=False),
    Column("flops", Double, nullable=False),
    Column("exit_code", Integer),
    Column("host", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("device_name", Text, nullable=False),  # kind of device, what speeds are compared by
    Column("worker", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("log", Text, nullable=False),
    Column("step", BigInteger),
    Column("steps", BigInteger),
    Column("loss", Double),
    Column("progress_at", UtcTime),
    Column("result_values", PlainJson(), nullable=False),
    Column("provenance", PlainJson(), nullable=False),
    PrimaryKeyConstraint("task", "number"),
    CheckConstraint("state IN ('running', 'done', 'failed', 'stopped', 'lost')", name="state"),
    # At most one attempt of a task runs; the law that fencing keeps, kept by the database too.
    Index(
        "uq_sweep_attempt_running",
        "task",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
)

metric = Table(
    "sweep_metric",
    metadata,
    Column("task", ForeignKey("sweep_task.fingerprint"), nullable=False),
    Column("name", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("se", Double),  # standard error of the value; NULL where none is known
    PrimaryKeyConstraint("task", "name", "dataset", "protocol", "step"),
    Index(None, "name", "dataset", "step"),
    # Few rows of many: what is read all day must not scan the curves.
    Index(
        "ix_sweep_metric_final",
        "task",
        "dataset",
        sqlite_where=text("step = -1"),
        postgresql_where=text("step = -1"),
    ),
)

file = Table(
    "sweep_file",
    metadata,
    Column("task", ForeignKey("sweep_task.fingerprint"), nullable=False),
    Column("name", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    PrimaryKeyConstraint("task", "name"),
)

fit = Table(
    "sweep_fit",
    metadata,
    Column("study", ForeignKey("sweep_study.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("condition", Text, nullable=False),  # `fit --where`; empty for all cells
    Column("law", Text),  # the equation; NULL for a claim and for what was not fitted
    Column("n", Integer),
    Column("slope", Double),
    Column("slope_low", Double),
    Column("slope_high", Double),
    Column("r2", Double),
    Column("folder", Text),  # where `fit --save` has put its files
    Column("result", PlainJson(), nullable=False),
    PrimaryKeyConstraint("study", "name", "number"),
)

search = Table(
    "sweep_search",
    metadata,
    Column("study", ForeignKey("sweep_study.name"), nullable=False),
    Column("key", Text, nullable=False),  # hash of all that decides which trials it asks
    Column("position", Integer, nullable=False),  # its place in the grid of axes, from 0
    Column("is_current", Boolean, nullable=False),
    Column("axes", PlainJson(), nullable=False),
    Column(
        "start", PlainJson(list), nullable=False
    ),  # the points it starts with, as they were found once
    Column("created_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("study", "key"),
)

trial = Table(
    "sweep_trial",
    metadata,
    Column("study", Text, nullable=False),
    Column("search", Text, nullable=False),
    Column("number", Integer, nullable=False),  # in its search, from 0
    Column("place", Integer, nullable=False),  # among all trials of the study, as they were asked
    Column("point", PlainJson(), nullable=False),
    Column(
        "sampler", PlainJson(), nullable=False
    ),  # what the sampler has to find again after a restart
    Column("cell", Text),  # NULL when no cell could be made of it
    Column("why_not", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("study", "search", "number"),
    ForeignKeyConstraint(["study", "search"], ["sweep_search.study", "sweep_search.key"]),
    ForeignKeyConstraint(
        ["study", "cell"], ["sweep_cell.study", "sweep_cell.key"], name="fk_sweep_trial_cell"
    ),
    Index(None, "study", "place"),
)

fitted = Table(
    "sweep_fitted",
    metadata,
    Column("configuration", Text, nullable=False),  # hash of all that decides a training's memory
    Column("device_name", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),  # of the device; 0 for a CPU
    Column("ranks", Integer, nullable=False),  # processes that shared a step
    Column("micro_batch", Integer),  # samples in memory together; NULL for all of a process
    Column("recompute", Boolean, nullable=False),
    Column("peak_bytes", BigInteger),  # NULL until a training has ended, and on a CPU
    Column("free_bytes", BigInteger),  # when it began; NULL on a CPU
    Column("task", ForeignKey("sweep_task.fingerprint"), nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("configuration", "device_name", "memory_bytes", "ranks"),
)

reference = Table(
    "sweep_reference",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("edition", Text, nullable=False),  # hash of the file that the numbers came from
    Column("source", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("figure", Text),
    Column("kind", Text),
    Column("dataset", Text),
    Column("variant", Text),
    Column("encoder", Text),
    Column("decoder", Text),
    Column("encoder_parameters", BigInteger),
    Column("decoder_parameters", BigInteger),
    Column("resolution", Integer),
    Column("frames", Integer),
    Column("q", Integer),
    Column("p", Integer),
    Column("c", Integer),
    Column("tokens", BigInteger),
    Column("e", BigInteger),
    Column("setting", Text),
    Column("generator", Text),
    Column("cfg", Double),
    Column("name", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("value_high", Double),
    Column("n", BigInteger),
    Column("protocol", Text, nullable=False),
    Column("note", Text),
)


NEWEST_ATTEMPT = sa.and_(attempt.c.task == task.c.fingerprint, attempt.c.number == task.c.attempts)
"""Joins a task with its newest attempt."""

RESULT_ATTEMPT = sa.and_(
    attempt.c.task == task.c.fingerprint, attempt.c.number == task.c.result_attempt
)
"""Joins a done task with the attempt that finished it."""

CELL_TASK = sa.and_(cell_task.c.study == cell.c.study, cell_task.c.cell == cell.c.key)
"""Joins a cell with its tasks."""


def tasks_of(study: str) -> sa.Select[tuple[str]]:
    """The fingerprints of the tasks of a study's newest submission, as a subquery."""
    return (
        sa.select(cell_task.c.task)
        .join(cell, CELL_TASK)
        .where(cell.c.study == study, cell.c.is_current)
    )
