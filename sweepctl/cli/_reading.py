"""What came of a study? `results`, `query`, and the commands for the database itself."""

from __future__ import annotations

from sweepctl.cli._session import (
    check_format,
    database,
    give,
    give_json,
    give_table,
    open_for_reading,
    say,
)


def results(
    study: str,
    db: str | None,
    *,
    where: str | None,
    columns: str | None,
    sort: str | None,
    form: str,
) -> None:
    """Print a study's results."""
    check_format(form)
    names = [name.strip() for name in columns.split(",")] if columns else None
    with open_for_reading(db) as ledger:
        table = ledger.results(study, where=where, columns=names, sort=sort)
    give_table(table.columns, table.rows, form)


def query(sql: str, db: str | None, *, form: str, limit: int) -> None:
    """Run a SELECT."""
    check_format(form)
    with open_for_reading(db) as ledger:
        table = ledger.query(sql, limit_rows=limit)
    give_table(table.columns, table.rows, form)
    if table.truncated:
        say(f"note: cut after {limit:,} rows; --limit gives more")


def upgrade(db: str | None) -> None:
    """Bring the database to the newest schema."""
    from sweepctl.ledger import upgrade_ledger

    give(upgrade_ledger(database(db)))


def views(*, as_json: bool) -> None:
    """Print the public views."""
    from sweepctl.ledger import VIEWS

    if as_json:
        give_json(
            {
                name: {"about": about, "columns": dict(columns)}
                for name, (about, columns) in VIEWS.items()
            }
        )
        return
    for name, (about, columns) in VIEWS.items():
        give(f"{name}: {about}")
        for column, meaning in columns.items():
            give(f"    {column:<18}{meaning}")
