"""A user's own SQL: one SELECT, refused by the database itself when it is more.

SQLite: a connection of its own, opened `mode=ro`, with an authorizer that allows four actions
(select, read a column, call a function, recurse) and denies all others; `mode=ro` alone would let
ATTACH and VACUUM INTO write files. PostgreSQL: a transaction that is READ ONLY, in which the
statement becomes a cursor (the grammar of DECLARE CURSOR takes nothing but a SELECT), sent as a
prepared statement (which cannot hold two), without superuser rights, rolled back at the end.
Time and rows are limited on both. There is no list of forbidden words.

`results --where` runs the user's condition the same way on a small copy in memory, so that it means
the same on both databases and knows every axis by its name.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import difflib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from sweepctl.errors import LedgerError, SweepctlError, UsageError
from sweepctl.ledger._connect import BUSY_S, Place, explain, read_only_uri
from sweepctl.ledger._records import Table
from sweepctl.ledger._views import VIEWS

_ALLOWED = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    }
)
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "writefile", "edit"})
_REFUSALS = ("not authorized", "authorization denied", "prohibited", "one statement")
_LONGEST_VALUE_BYTES = 50_000_000  # zeroblob(1e9) would take the memory of the login node
_CHECK_EVERY = 20_000  # virtual machine steps between two looks at the clock, about a millisecond


def _hint() -> str:
    return (
        "one SELECT over the views " + ", ".join(VIEWS) + "; "
        "`sweepctl db views` lists their columns"
    )


def _refused(why: str) -> LedgerError:
    return LedgerError(f"the database refuses the statement: {why}", hint=_hint())


def _timed_out(timeout_s: float) -> LedgerError:
    return LedgerError(
        f"the statement was stopped after {timeout_s:g} s",
        hint="narrow it with WHERE, or ask for fewer columns",
    )


# ---------------------------------------------------------------------------------------------
# SQLite
# ---------------------------------------------------------------------------------------------


def query_sqlite(place: Place, path: Path, sql: str, limit_rows: int, timeout_s: float) -> Table:
    """Run one SELECT on a SQLite file; `Ledger.query` says what it raises."""
    try:
        connection = sqlite3.connect(
            read_only_uri(path), uri=True, timeout=BUSY_S, isolation_level=None
        )
    except sqlite3.Error as error:
        raise explain(error, place) or error from error
    with contextlib.closing(connection), _sqlite_errors(timeout_s, place):
        # Tell a damaged file from a refused statement while everything is still allowed.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _restrict(connection, timeout_s)
        cursor = connection.execute(sql)
        if cursor.description is None:
            raise _refused("it gives no rows")
        rows = cursor.fetchmany(limit_rows + 1)
        columns = tuple(entry[0] for entry in cursor.description)
    return Table(columns=columns, rows=tuple(rows[:limit_rows]), truncated=len(rows) > limit_rows)


def _restrict(connection: sqlite3.Connection, timeout_s: float) -> None:
    """From here on, the connection selects and does nothing else, for `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_EVERY)
    connection.set_authorizer(_authorize)


def _authorize(
    action: int, first: str | None, second: str | None, _base: str | None, _inner: str | None
) -> int:
    if action not in _ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


@contextlib.contextmanager
def _sqlite_errors(timeout_s: float, place: Place | None) -> Iterator[None]:
    """Say in our words what SQLite said to a user's SQL."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        said = str(error)
        if said == "malformed JSON":  # of the statement's own JSON functions; no damage
            raise LedgerError(
                "the statement cannot be run: malformed JSON",
                hint="a JSON function was given a text that is not JSON: keep rows where "
                "json_valid(...)",
            ) from error
        if said == "interrupted":
            raise _timed_out(timeout_s) from error
        if any(word in said for word in _REFUSALS):
            raise _refused(said) from error
        if "no such table" in said or "no such column" in said:
            raise _unknown_name(said) from error
        explained = None if place is None else explain(error, place)
        raise explained or LedgerError(
            f"the statement cannot be run: {said}", hint=_hint()
        ) from error


def _unknown_name(said: str) -> LedgerError:
    """A table or a column that is not there, with what comes nearest to it."""
    name = said.partition(": ")[2].strip('" ').rpartition(".")[2].lower()
    columns = {column.lower(): column for _, named in VIEWS.values() for column in named}
    near = difflib.get_close_matches(name, [*VIEWS, *columns], n=1)
    meant = ""
    if near and near[0] != name:
        holders = [view for view, (_, named) in VIEWS.items() if columns.get(near[0]) in named]
        meant = f"; did you mean {columns.get(near[0], near[0])!r}"
        meant += f" ({', '.join(holders)})?" if holders else "?"
    elif near and name in columns:
        holders = [view for view, (_, named) in VIEWS.items() if columns[name] in named]
        meant = f"; {columns[name]!r} is a column of {', '.join(holders)}"
    return LedgerError(f"the statement cannot be run: {said}{meant}", hint=_hint())


# ---------------------------------------------------------------------------------------------
# PostgreSQL
# ---------------------------------------------------------------------------------------------


_CURSOR = "DECLARE users_own NO SCROLL CURSOR FOR\n"


def query_postgres(
    place: Place, engine: Engine, sql: str, limit_rows: int, timeout_s: float
) -> Table:
    """Run one SELECT on a PostgreSQL server; `Ledger.query` says what it raises."""
    import psycopg

    with _connection(place, engine) as connection:
        raw: Any = connection.connection.driver_connection
        try:
            with raw.cursor() as cursor:
                cursor.execute("SET TRANSACTION READ ONLY")
                cursor.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
                _give_up_superuser(cursor)
                # prepare: the protocol for prepared statements takes one statement only.
                cursor.execute(_CURSOR + sql.lstrip(), prepare=True)
                cursor.execute(f"FETCH FORWARD {limit_rows + 1} FROM users_own")
                rows = cursor.fetchall()
                columns = tuple(entry.name for entry in cursor.description)
        except psycopg.Error as error:
            raise _postgres_error(error, place, timeout_s) from error
        finally:
            raw.rollback()
    return Table(
        # PostgreSQL folds names; E is called E in every other place.
        columns=tuple("E" if name == "e" else name for name in columns),
        rows=tuple(tuple(_plain(value) for value in row) for row in rows[:limit_rows]),
        truncated=len(rows) > limit_rows,
    )


@contextlib.contextmanager
def _connection(place: Place, engine: Engine) -> Iterator[Connection]:
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise explain(error.orig or error, place) or error from error
    with connection:
        yield connection
        # The transaction was ended behind SQLAlchemy's back, and settings went with it.
        connection.invalidate()


def _give_up_superuser(cursor: Any) -> None:
    """A superuser's SELECT can read and write files of the server; a reader's cannot."""
    cursor.execute(
        "SELECT current_setting('is_superuser') = 'on' "
        "AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_read_all_data')"
    )
    if cursor.fetchone()[0]:
        cursor.execute("SET LOCAL ROLE pg_read_all_data")


def _postgres_error(error: Any, place: Place, timeout_s: float) -> SweepctlError:
    state = getattr(error, "sqlstate", None)
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if state == "57014":
        return _timed_out(timeout_s)
    if state in ("25001", "25006", "42501", "0A000") or "multiple commands" in said:
        return _refused(said)
    if state == "42601" and error.diag.statement_position == str(len(_CURSOR) + 1):
        return _refused(f"it is not a SELECT ({said})")
    if state in ("42P01", "42703"):
        return _unknown_name(_like_sqlite(said))
    explained = None if state and state.startswith("42") else explain(error, place)
    return explained or LedgerError(f"the statement cannot be run: {said}", hint=_hint())


def _like_sqlite(said: str) -> str:
    """`relation "x" does not exist` -> `no such table: x`, so that both databases say the same."""
    kind, _, rest = said.partition(" ")
    name = rest.removesuffix(" does not exist").strip('"')
    return f"no such {'column' if kind == 'column' else 'table'}: {name}"


def _plain(value: Any) -> Any:
    """A value of PostgreSQL as SQLite would give it."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, decimal.Decimal) and not value.is_finite():
        return float(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        return value.isoformat(sep=" ", timespec="microseconds")
    if value is None or isinstance(value, (str, int, float, bytes)):
        return value
    return str(value)


# ---------------------------------------------------------------------------------------------
# Rows of any table, filtered by the user's condition
# ---------------------------------------------------------------------------------------------


def narrowed(
    table: Table,
    *,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    sort: str | None = None,
) -> Table:
    """Rows of a table that meet a condition, in order, as `Cells.results` takes them.

    Raises:
        UsageError: there is no such column, or the condition cannot be used.
    """
    every, rows = list(table.columns), table.rows
    shown = every
    order = [_sort_key(part.strip(), every) for part in (sort or "").split(",") if part.strip()]
    chosen = shown if columns is None else [_column(name, every, "column") for name in columns]
    places = _filter(every, rows, where, order)
    picked = [every.index(name) for name in chosen]
    return Table(
        columns=tuple(chosen),
        rows=tuple(tuple(rows[place][pick] for pick in picked) for place in places),
    )


def _column(name: str, every: Sequence[str], what: str) -> str:
    for column in every:
        if column.casefold() == name.casefold():
            return column
    near = difflib.get_close_matches(name, every, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"there is no {what} {name!r} in the results{meant}", hint="columns: " + ", ".join(every)
    )


def _sort_key(part: str, every: Sequence[str]) -> str:
    descending = part.startswith("-")
    column = _column(part.removeprefix("-"), every, "column to sort by")
    return f"{_quoted(column)} {'DESC' if descending else 'ASC'} NULLS LAST"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _filter(
    every: Sequence[str], rows: Sequence[tuple[Any, ...]], where: str | None, order: Sequence[str]
) -> list[int]:
    """Positions of the rows that meet a condition, in order."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        names = ", ".join(_quoted(name) for name in every)
        connection.execute(f"CREATE TABLE results (rowid INTEGER PRIMARY KEY, {names})")
        marks = ", ".join("?" for _ in range(len(every) + 1))
        connection.executemany(
            f"INSERT INTO results VALUES ({marks})",
            ((place, *map(_bindable, row)) for place, row in enumerate(rows)),
        )
        _restrict(connection, 30.0)
        # The line breaks keep a comment at the end of the condition from swallowing the rest.
        condition = f"WHERE (\n{where}\n)" if where and where.strip() else ""
        sql = f"SELECT rowid FROM results {condition} ORDER BY {', '.join([*order, 'rowid'])}"
        try:
            return [row[0] for row in connection.execute(sql)]
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise _where_error(str(error), where or "", every) from error


def matching(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], where: str, *, unknown: bool = False
) -> list[int]:
    """Places of the rows of any table that meet a condition, as `results` takes it.

    Args:
        columns: names of the columns.
        rows: one sequence of values per row.
        where: the condition.
        unknown: whether a row that lacks what the condition asks for is kept.

    Raises:
        UsageError: the condition cannot be used.
    """
    condition = f"(\n{where}\n) IS NOT FALSE" if unknown else where
    try:
        return _filter(columns, [tuple(row) for row in rows], condition, [])
    except UsageError as error:
        message = error.message.replace(repr(condition), repr(where))
        raise UsageError(message, hint=error.hint) from error
    except sqlite3.Error as error:  # two columns that differ in case only, a column called rowid
        raise UsageError(f"--where cannot be used with these columns: {error}") from error


def _bindable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _where_error(said: str, where: str, every: Sequence[str]) -> UsageError:
    name = said.partition("no such column: ")[2]
    near = difflib.get_close_matches(name, every, n=1) if name else []
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return UsageError(
        f"--where {where!r} cannot be used: {said}{meant}",
        hint=f"a condition like \"p = 16 and encoder = 'S'\" (texts in single quotes, names with "
        f"@ or . in double quotes) over: {', '.join(every)}",
    )
