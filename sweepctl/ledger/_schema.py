"""Does the database have the tables this code expects? Created, checked and upgraded here.

The revision is one row of `sweep_alembic_version` (a name of its own: Optuna keeps an
`alembic_version` in the same database). Opening a ledger reads that row with plain SQL; Alembic is
imported only when there is something to upgrade. A revision is called
"<number>_sweepctl_<first release that reads it>", so that an old sweepctl can say which one is
needed.

    no tables       created from the metadata at once, views included, in one transaction
    SQLite, older   lock file, backup copy, then all migrations in one transaction
    PostgreSQL, older   refused with the command to run: other people use that server
    newer           refused; nothing is changed

Views are dropped and recreated from `_views` after every upgrade; a changed view therefore needs a
revision too, if only an empty one. A test holds the digest of the views against the head.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from sweepctl.errors import LedgerError
from sweepctl.ledger._connect import Place, damaged, damaged_json, migration_engine, transaction
from sweepctl.ledger._passwords import clean_copy, rewrite
from sweepctl.ledger._tables import metadata
from sweepctl.ledger._views import create_views, drop_views

HEAD = "0004_sweepctl_0.1.0"
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "sweep_alembic_version"

# Any constant will do; it names the schema change of sweepctl among a server's advisory locks.
_ADVISORY_LOCK = 7_236_590_113


def revision_of(connection: Connection) -> str | None:
    """The recorded revision, or None when the database holds no ledger."""
    if connection.dialect.name == "sqlite":
        exists = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = '%s'"
    else:
        # Not to_regclass: it may answer from before the lock that we have just waited for.
        exists = (
            "SELECT c.relname FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relname = '%s' AND n.nspname = ANY (current_schemas(false))"
        )
    if connection.exec_driver_sql(exists % VERSION_TABLE).first() is None:
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    return None if found is None else str(found)


def ensure_schema(
    place: Place, reader: Engine, writer: Engine, *, create: bool, read_only: bool
) -> str | None:
    """Bring the database to `HEAD`, or say why not.

    Returns:
        A notice about an upgrade that was made, None when there was nothing to do.

    Raises:
        LedgerError: newer, older where that is not upgraded by itself, no ledger, or damaged.
    """
    with transaction(reader, place) as connection:
        found = revision_of(connection)
    if found == HEAD:
        return None
    if found is None:
        if read_only or not create:
            raise LedgerError(
                f"{place.shown} holds no results of sweepctl",
                hint="start a study with `sweepctl run STUDY`, or name the database with --db",
            )
        _create(place, writer)
        return None
    if _number(found, place) > _number(HEAD, place):
        raise _newer(place, found)
    if place.path is None or read_only:
        raise LedgerError(
            f"{place.shown} has the older schema {found}; this sweepctl needs {HEAD}",
            hint="nothing was changed; make a backup and run `sweepctl db upgrade`",
        )
    return upgrade(place)


def _number(revision: str, place: Place) -> int:
    digits = revision.split("_")[0]
    if not digits.isdigit():
        raise damaged(place.shown, f"its schema revision {revision!r} is not one of ours")
    return int(digits)


def _newer(place: Place, found: str) -> LedgerError:
    release = found.rpartition("_")[2]
    return LedgerError(
        f"{place.shown} has the newer schema {found}; this sweepctl reads {HEAD}. "
        "Nothing was changed",
        hint=f"it is read by sweepctl {release} or later: pip install 'sweepctl>={release}'",
    )


def _create(place: Place, writer: Engine) -> None:
    with transaction(writer, place) as connection:
        _lock_server(connection)
        if revision_of(connection) is not None:
            return  # another process was faster
        metadata.create_all(connection)
        create_views(connection)
        connection.exec_driver_sql(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
        connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')")


def _lock_server(connection: Connection) -> None:
    """On PostgreSQL, wait until no other process changes the schema; freed by commit."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def upgrade(place: Place) -> str | None:
    """Run the missing migrations in one transaction; on SQLite after a backup copy.

    Returns:
        What was done, in words; None when the schema was already the newest.

    Raises:
        LedgerError: the database is newer, holds no ledger or damaged JSON, or a migration failed
            (in which case nothing was changed).
    """
    engine = migration_engine(place)
    try:
        with _file_lock(place):
            with transaction(engine, place) as connection:
                found = revision_of(connection)
            if found == HEAD:
                return None
            if found is None:
                raise LedgerError(f"{place.shown} holds no results of sweepctl to upgrade")
            if _number(found, place) > _number(HEAD, place):
                raise _newer(place, found)
            if unreadable := damaged_json(engine, place):
                raise unreadable
            backup = None if place.path is None else _back_up(place.path, found)
            with transaction(engine, place) as connection:
                _lock_server(connection)
                _migrate(connection, place)
                cleaned = int(connection.info.pop("rows_with_passwords", 0))
            engine.dispose()  # no connection may hold the file that is written again
            secrets = _forget(place, cleaned)
    finally:
        engine.dispose()
    kept = "" if backup is None else f"; the old one is kept as {backup}"
    return f"{place.shown} was upgraded from schema {found} to {HEAD}{kept}{secrets}"


def _forget(place: Place, cleaned: int) -> str:
    """Remove passwords from the bytes of the file and of its older backups; says what was done."""
    said = []
    if cleaned:
        said.append(
            f"passwords were removed from {cleaned} rows: change them, because they were readable"
        )
    path = place.path
    if path is None:
        return "".join(f"; {part}" for part in said)
    for copy in [path] * bool(cleaned) + sorted(path.parent.glob(f"{path.name}.bak-*")):
        try:
            if copy == path:
                rewrite(copy)
            elif copy.suffix != ".partial":
                clean_copy(copy)
        except (sqlite3.Error, SQLAlchemyError) as error:
            why = str(error).split("\n")[0]
            said.append(f"{copy} may still hold passwords in its bytes ({why})")
    return "".join(f"; {part}" for part in said)


@contextlib.contextmanager
def _file_lock(place: Place) -> Iterator[None]:
    """Let one process at a time back up and upgrade a SQLite file; waits for the other one."""
    if place.path is None:
        yield
        return
    path = place.path.with_name(place.path.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise LedgerError(f"cannot create {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise LedgerError(
                f"cannot lock {path}: {error.strerror}",
                hint="copy the database to a disk whose file system has locks, upgrade it there "
                "with `sweepctl db upgrade`, and copy it back",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _back_up(path: Path, revision: str) -> Path:
    """Copy a SQLite database with everything that is still in its journal."""
    backup = path.with_name(f"{path.name}.bak-{revision}")
    partial = backup.with_name(backup.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            source.backup(copy)
        # A backup is kept for years: it has every row of the old one, but no password.
        clean_copy(partial)
        partial.replace(backup)
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        partial.unlink(missing_ok=True)
        raise LedgerError(
            f"{path} has to be upgraded, but no backup copy could be made: {error}. "
            "Nothing was changed",
            hint=f"free space for {path.stat().st_size} bytes in {path.parent} and run again",
        ) from error
    return backup


def _migrate(connection: Connection, place: Place) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    drop_views(connection)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"{place.shown} cannot be upgraded: {error}. Nothing was changed"
        ) from error
    create_views(connection)
    if connection.dialect.name == "sqlite":
        # Foreign keys are off while tables are rebuilt; nothing may be left pointing nowhere.
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise LedgerError(
                f"{place.shown} cannot be upgraded: {len(broken)} rows would point to rows that "
                f"are not there, the first in {broken[0][0]}. Nothing was changed",
            )
