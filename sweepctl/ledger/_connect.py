"""The connection to the database: places, engines, transactions, and errors in our words.

A place is a SQLite file (the default) or a PostgreSQL URL. SQLite gets two engines: writers begin
with BEGIN IMMEDIATE, because a transaction that reads first and writes later cannot wait for its
turn; readers begin deferred. WAL needs shared memory between the processes of one host, so on a
network file system the journal is TRUNCATE and a notice says so. PostgreSQL has one engine.

Every database error leaves as one of ours with a next step, or stays what it was when it is a bug.
Passwords: only the URL object holds one, only `Place.shown` is ever printed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from sweepctl.errors import LedgerError, SweepctlError, UnreachableError, UsageError
from sweepctl.ledger._tables import DamagedJson, metadata
from sweepctl.plain import to_json

BUSY_S = 10.0
"""Seconds a statement waits for another writer of the same SQLite file."""

CONNECT_S = 10
"""Seconds to wait for a PostgreSQL server to answer."""

CHUNK = 5_000
"""Parameters of one IN list; SQLite allows 32,766 and PostgreSQL 65,535."""

_SHOWN = 5
"""Damaged rows that a message names."""

MOUNTS = Path("/proc/self/mounts")

# WAL's shared memory works only where all processes see one page cache.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "virtiofs"}
    | {"wekafs"}
)
# What libpq and slips of the pen make of a URL; as a file's name it would show a password.
_NOT_A_PATH = re.compile(
    r"\s*(host|hostaddr|port|dbname|user|password|service)\s*=|[a-z]+(\+[a-z0-9]+)?:/"
    r"|[^/]*:[^/]*@",
    re.IGNORECASE,
)
_SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a ledger is.

    Attributes:
        shown: the place in words that hold no secret.
        path: the SQLite file, or None.
        url: the PostgreSQL URL, or None.
        file_system: type of the file system of `path` when that is a network one, else empty.
    """

    shown: str
    path: Path | None
    url: URL | None
    file_system: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An open database: what every part of `Ledger` reads from and writes to.

    Attributes:
        place: where it is.
        reader: engine of transactions that only read.
        writer: engine of transactions that write; the same one on PostgreSQL.
        read_only: whether nothing may be written.
    """

    place: Place
    reader: Engine
    writer: Engine
    read_only: bool

    def reading(self) -> AbstractContextManager[Connection]:
        """One transaction that sees one state of the database; raises as `transaction` does."""
        return transaction(self.reader, self.place)

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction of which everything is recorded, or nothing.

        Raises:
            LedgerError: the ledger was opened for reading only; and as `transaction` does.
        """
        if self.read_only:
            raise LedgerError(f"{self.place.shown} was opened for reading only")
        return transaction(self.writer, self.place)


def locate(url: str | None, folder: Path | None) -> Place:
    """Find the place that a URL, a path, the environment or the default names.

    Raises:
        UsageError: the URL cannot be read or names another kind of database.
    """
    in_environment = os.environ.get("SWEEPCTL_DB")
    given = url or in_environment or "results.db"
    source = "SWEEPCTL_DB" if given == in_environment else "--db"
    base = Path.cwd() if folder is None else folder
    if "://" not in given:
        if _NOT_A_PATH.match(given):
            raise _unreadable(source)
        return _file_place(base / given)
    try:
        parsed = sa.make_url(given)
    except (ArgumentError, ValueError):
        raise _unreadable(source) from None
    backend = parsed.drivername.split("+")[0]
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise UsageError(
                "a database in memory cannot hold results",
                hint="give the path of a file, for example results.db",
            )
        return _file_place(base / parsed.database)
    if backend in ("postgres", "postgresql"):
        if "@" in (parsed.host or ""):  # a part of the password, taken for one of the host
            raise _unreadable(source)
        parsed = parsed.set(drivername="postgresql+psycopg")
        # Parameters of the query may hold secrets too (password=, sslpassword=).
        shown = parsed.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
        return Place(shown=shown, path=None, url=parsed)
    raise UsageError(
        f"the database URL given by {source} asks for {backend!r}",
        hint="sweepctl keeps its results in SQLite (a path) or PostgreSQL (postgresql://...)",
    )


def _unreadable(source: str) -> UsageError:
    # The text itself is left out: it may hold a password.
    return UsageError(
        f"the database URL given by {source} cannot be read",
        hint="write postgresql://user@host:5432/name (special characters of a password as "
        "%XX), or the path of a SQLite file",
    )


def _file_place(path: Path) -> Place:
    path = path.expanduser().absolute()
    kind = _file_system(path.parent)
    network = kind in _NETWORK_FILE_SYSTEMS or kind.startswith("fuse.")
    return Place(shown=str(path), path=path, url=None, file_system=kind if network else "")


def _file_system(folder: Path) -> str:
    """Type of the file system that holds a folder; empty where the kernel does not say."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    real = Path(os.path.realpath(folder))
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # The kernel writes blanks and backslashes of a path in octal.
        point = (
            fields[1].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
        )
        if real.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind


def check_file(path: Path, *, create: bool, read_only: bool) -> None:
    """Look at a SQLite file before SQLite does; make an empty one (0600) where it may be made.

    Raises:
        LedgerError: it is missing, not readable, not writable or no SQLite database.
    """
    if not path.parent.is_dir():
        raise LedgerError(
            f"the folder {path.parent} of the results database does not exist",
            hint=f"make it (mkdir -p {path.parent}), or name another place with --db",
        )
    if path.is_dir():
        raise LedgerError(
            f"{path} is a folder, not a results database", hint="name a file with --db"
        )
    if not path.exists():
        if read_only or not create:
            raise LedgerError(
                f"there is no results database at {path}",
                hint="start a study with `sweepctl run STUDY`, or name the database with --db",
            )
        _create_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE_MAGIC))
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror}") from error
    if head and head != _SQLITE_MAGIC:
        raise damaged(str(path), "it does not begin like a SQLite database")
    if not read_only and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise LedgerError(
            f"{path} cannot be written: the file or its folder is read-only for you",
            hint="make both writable, or name another place with --db",
        )


def _create_file(path: Path) -> None:
    try:
        # SQLite gives its journal files the mode of the database: nobody else reads any of them.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return  # another process was faster; both use the same file
    except OSError as error:
        raise LedgerError(
            f"cannot create the results database {path}: {error.strerror}",
            hint="make its folder writable, or name another place with --db",
        ) from error


def damaged(shown: str, why: str) -> LedgerError:
    """The error for a file that is no database or a broken one."""
    return LedgerError(
        f"{shown} is damaged or no database of sweepctl: {why}; nothing was changed",
        hint=f"move it aside (mv {shown} {shown}.damaged) and run again: results that are "
        "finished in the run folder are reused without computing them again",
    )


def read_only_uri(path: Path) -> str:
    """The URI that opens a SQLite file for reading only.

    A database in WAL mode wants to make its -shm file even for reading. Where the folder does not
    allow that and no other process has the file open, nothing can change it: immutable is true.
    """
    uri = f"file:{quote(str(path))}?mode=ro"
    shared = path.with_name(path.name + "-shm")
    if not os.access(path.parent, os.W_OK) and not shared.exists():
        uri += "&immutable=1"
    return uri


def engines(place: Place, *, read_only: bool) -> tuple[Engine, Engine]:
    """The (reading, writing) engines of a place; the same one twice on PostgreSQL."""
    if place.path is None:
        engine = _postgres_engine(place, read_only=read_only)
        return engine, engine
    reader = _sqlite_engine(place, begin="BEGIN", read_only=read_only)
    if read_only:
        return reader, reader
    return reader, _sqlite_engine(place, begin="BEGIN IMMEDIATE", read_only=False)


def _postgres_engine(place: Place, *, read_only: bool) -> Engine:
    assert place.url is not None
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_S, "application_name": "sweepctl"}
    options = {"postgresql_readonly": True} if read_only else {}
    return sa.create_engine(
        place.url,
        connect_args={key: v for key, v in arguments.items() if key not in place.url.query},
        execution_options=options,
        pool_pre_ping=True,  # a driver waits for hours between two statements
        json_serializer=to_json,
    )


def _sqlite_engine(
    place: Place, *, begin: str, read_only: bool, foreign_keys: bool = True
) -> Engine:
    path = place.path
    assert path is not None
    uri = read_only_uri(path) if read_only else f"file:{quote(str(path))}?mode=rw"
    journal = "truncate" if place.file_system else "wal"

    def connect() -> sqlite3.Connection:
        # isolation_level None: the driver begins nothing by itself, the event below does.
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        if begin == "BEGIN IMMEDIATE":
            _settle_journal(connection, journal)
            # In WAL a power cut can lose the last commits but not the file; results are files.
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if journal == 'wal' else 'FULL'}")
        return connection

    engine = sa.create_engine(
        "sqlite+pysqlite://", creator=connect, poolclass=QueuePool, json_serializer=to_json
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def migration_engine(place: Place) -> Engine:
    """An engine for schema changes: they rebuild tables, so foreign keys are off meanwhile."""
    if place.path is None:
        return _postgres_engine(place, read_only=False)
    return _sqlite_engine(place, begin="BEGIN IMMEDIATE", read_only=False, foreign_keys=False)


def _settle_journal(connection: sqlite3.Connection, journal: str) -> None:
    """Bring the file to the wished journal mode; SQLite does not wait for others here, so we do."""
    deadline = time.monotonic() + BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != journal:
        try:
            connection.execute(f"PRAGMA journal_mode = {journal}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.02)


def chunks(values: Iterable[str]) -> Iterator[list[str]]:
    """Cut values into lists short enough for one statement."""
    every = list(values)
    for start in range(0, len(every), CHUNK):
        yield every[start : start + CHUNK]


def now() -> dt.datetime:
    """The time written into rows: aware, UTC."""
    return dt.datetime.now(dt.UTC)


def clean(text: str) -> str:
    """Text that both databases take: no NUL, no half of a surrogate pair."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


@contextlib.contextmanager
def transaction(engine: Engine, place: Place) -> Iterator[Connection]:
    """One transaction: everything inside is recorded, or nothing.

    Raises:
        LedgerError: the database refuses or cannot (full disk, damage, rights, lock); of damaged
            JSON it names tables, rows and columns.
        UnreachableError: the server does not answer.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        explained = explain(error.orig or error, place)
        if "malformed JSON" in str(error.orig):  # SQLite looked into it for a query
            explained = damaged_json(engine, place) or explained
        if explained is None:
            raise
        raise explained from error
    except SQLAlchemyError as error:
        raise LedgerError(f"{place.shown} cannot be used: {_first_line(error)}") from error
    except sqlite3.Error as error:  # from the connect hook, which SQLAlchemy does not wrap
        explained = explain(error, place)
        if explained is None:
            raise
        raise explained from error
    except (json.JSONDecodeError, DamagedJson) as error:
        raise damaged_json(engine, place) or error from error
    except UnicodeDecodeError as error:  # from sqlite3, where names in the schema are garbled
        raise damaged(place.shown, str(error)) from error


def damaged_json(engine: Engine, place: Place) -> LedgerError | None:
    """The error for rows with JSON that cannot be read; None when there are none.

    A database of an older schema is read as far as it has the tables and columns.
    """
    found = []
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            if not inspector.has_table(table.name):
                continue
            present = {column["name"] for column in inspector.get_columns(table.name)}
            keys = list(table.primary_key)
            for column in table.columns:
                kind = getattr(column.type, "kind", None)
                if kind is None or column.name not in present:
                    continue
                # As text, which is how it is stored: the type would refuse it again.
                stored = sa.select(*keys, sa.cast(sa.type_coerce(column, sa.Text), sa.Text))
                for *key, text in connection.execute(stored):
                    if why := _why_damaged(text, kind):
                        row = ", ".join(f"{k.name} {v}" for k, v in zip(keys, key, strict=True))
                        found.append(f"{table.name}, row {row}: {column.name} {why}")
    if not found:
        return None
    more = f"\n  ... and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return LedgerError(
        f"{place.shown} holds damaged JSON:\n  " + "\n  ".join(found[:_SHOWN]) + more,
        hint="restore the database from a backup, or move it aside and run again: results that "
        "are finished in the run folder are reused without computing them again",
    )


def _why_damaged(text: Any, kind: type) -> str:
    """What is wrong with stored JSON, without its text, which may hold a secret; empty if good."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        return f"is not JSON ({error})"
    wanted = "an object" if kind is dict else "a list"
    return "" if isinstance(value, kind) else f"is not {wanted}"


def explain(error: BaseException, place: Place) -> SweepctlError | None:
    """What a driver's error means to a user; None when it is a bug and must keep its traceback."""
    if place.path is None:
        return _explain_postgres(error, place)
    return _explain_sqlite(error, place)


def _explain_sqlite(error: BaseException, place: Place) -> SweepctlError | None:
    said = str(error)
    if "disk is full" in said or "disk I/O error" in said:
        return LedgerError(
            f"{place.shown} cannot be written ({said}); nothing of this step was recorded",
            hint="free some space on that disk and run again",
        )
    if "locked" in said:
        return LedgerError(
            f"{place.shown} has been locked by another process for {BUSY_S:.0f} s",
            hint="wait for it, or see who holds it with `fuser`; a database that several people "
            "write belongs on PostgreSQL (--db postgresql://...)",
        )
    if "malformed" in said or "not a database" in said or "decode to UTF-8" in said:
        return damaged(place.shown, said)
    if "readonly" in said or "unable to open" in said:
        return LedgerError(
            f"{place.shown} cannot be opened or written: {said}",
            hint="make the file and its folder accessible, or name another place with --db",
        )
    if "no such table" in said or "no such column" in said:
        return damaged(place.shown, said)
    return None


def _explain_postgres(error: BaseException, place: Place) -> SweepctlError | None:
    state = getattr(error, "sqlstate", None)
    said = _first_line(error)
    # No code: no connection came about. 08 connection, 28 sign-in, 3D no such database,
    # 57P shutdown, 53300 too many connections.
    unreachable = ("08", "28", "3D", "57P", "53300")
    if state is None and type(error).__name__ in ("OperationalError", "ConnectionTimeout"):
        return _unreachable(place, said)
    if state is None:
        return None
    if state.startswith(unreachable):
        return _unreachable(place, said)
    if state.startswith("53"):
        return LedgerError(
            f"{place.shown} is out of resources: {said}; nothing of this step was recorded"
        )
    if state in ("42501", "25006"):
        return LedgerError(
            f"{place.shown} does not allow that: {said}",
            hint="the role needs the rights to create and to write tables in its schema",
        )
    if state in ("40001", "40P01", "55P03"):
        return LedgerError(f"{place.shown} is busy: {said}", hint="run again")
    return None


def _unreachable(place: Place, said: str) -> UnreachableError:
    return UnreachableError(
        f"the database {place.shown} does not answer: {said}",
        hint="see that the server runs and that host, port, name and user are right; a password "
        "belongs in SWEEPCTL_DB or ~/.pgpass",
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
