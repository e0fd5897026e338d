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
from sweepctl.errors import UsageError

CELL_ORDER = "E,p"
"""How `results` sorts cells when nothing else is asked."""


def results(
    study: str,
    db: str | None,
    *,
    where: str | None,
    columns: str | None,
    sort: str | None,
    form: str,
    trials: bool = False,
    best: bool = False,
    pareto: bool = False,
) -> None:
    """Print a study's results."""
    check_format(form)
    if trials + best + pareto > 1:
        raise UsageError(
            "--trials, --best and --pareto are three questions", hint="ask one of them"
        )
    names = [name.strip() for name in columns.split(",")] if columns else None
    with open_for_reading(db) as ledger:
        if trials or best or pareto:
            from sweepctl.cli._trials import table as trials_table
            from sweepctl.ledger import narrowed

            whole = trials_table(ledger, study, best=best, pareto=pareto)
            # The order of a search is that of its trials, or along the front.
            order = None if sort == CELL_ORDER else sort
            table = narrowed(whole, where=where, columns=names, sort=order)
        else:
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
