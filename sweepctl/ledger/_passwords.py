"""Rows that an older sweepctl wrote: the passwords in them are removed, in the file's bytes too."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from sweepctl.plain import to_json
from sweepctl.secrets import command_line, without_passwords_in

# Spelled out here, not taken from `_tables`: a database of any revision since the first is read.
_ROWS = (
    (
        ("sweep_submission", ("study", "number")),
        (("argv", sa.JSON), ("overrides", sa.JSON), ("resolved", sa.JSON), ("study_text", sa.Text)),
    ),
    (("sweep_study", ("name",)), (("title", sa.Text), ("question", sa.Text))),
    (("sweep_task", ("fingerprint",)), (("message", sa.Text),)),
    (("sweep_attempt", ("task", "number")), (("message", sa.Text),)),
)


def remove_passwords(connection: Connection) -> int:
    """Remove the passwords of URLs from command lines, studies and messages.

    Returns:
        Number of rows that held one.
    """
    changed = 0
    for (name, key), texts in _ROWS:
        table = sa.table(
            name,
            *(sa.column(part) for part in key),
            *(sa.column(text, kind()) for text, kind in texts),
        )
        for row in connection.execute(sa.select(table)).mappings().all():
            cleaned = {text: _cleaned(text, row[text]) for text, _ in texts}
            if all(cleaned[text] == row[text] for text, _ in texts):
                continue
            same = sa.and_(*(table.c[part] == row[part] for part in key))
            connection.execute(table.update().where(same).values(cleaned))
            changed += 1
    return changed


def _cleaned(name: str, value: object) -> object:
    if name == "argv" and isinstance(value, list):
        return list(command_line([str(word) for word in value]))
    return without_passwords_in(value)


def rewrite(path: Path) -> None:
    """Write a SQLite file again, so that what was replaced in it is in none of its bytes.

    Raises:
        sqlite3.Error: another process uses it, or the disk has no room for a second copy.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def clean_copy(path: Path) -> int:
    """Remove the passwords from a copy of a ledger that nobody else uses.

    Returns:
        Number of rows that held one.

    Raises:
        sqlite3.Error: it cannot be read or written.
        sqlalchemy.exc.SQLAlchemyError: it is not a ledger.
    """
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=NullPool, json_serializer=to_json)
    with engine.begin() as connection:
        changed = remove_passwords(connection)
    if changed:
        rewrite(path)
    return changed
