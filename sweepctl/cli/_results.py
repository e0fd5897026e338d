"""`results`: print what a study has measured, one row per cell."""

from __future__ import annotations

from typing import Annotated

import typer

from sweepctl.cli._options import Db, Format, Name
from sweepctl.cli._output import check_format, give_table
from sweepctl.cli._session import open_for_reading
from sweepctl.errors import UsageError

CELL_ORDER = "E,p"
"""How `results` sorts cells when nothing else is asked."""


def results(
    study: Name,
    where: Annotated[
        str | None, typer.Option("--where", help="SQL condition over the columns.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns to print, comma-separated.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="Columns to sort by; a minus for descending.")
    ] = CELL_ORDER,
    trials: Annotated[
        bool, typer.Option("--trials", help="Of a search: its trials, as they were asked.")
    ] = False,
    best: Annotated[bool, typer.Option("--best", help="Of a search: its best trial.")] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Of a search: the trials that no other one beats.")
    ] = False,
    form: Format = "table",
    db: Db = None,
) -> None:
    """Print a study's results, one row a cell.

    Example: sweepctl results quickstart --where "p = 8 and E >= 256" --sort=-psnr
    """
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
            table = ledger.cells.results(study, where=where, columns=names, sort=sort)
    give_table(table.columns, table.rows, form)
