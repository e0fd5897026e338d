"""`query`: read the results database in SQL."""

from __future__ import annotations

from typing import Annotated

import typer

from sweepctl.cli._options import Format
from sweepctl.cli._output import check_format, give_table, say
from sweepctl.cli._session import open_for_reading


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the views.")],
    form: Format = "table",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Most rows; more are cut, with a notice.")
    ] = 10_000,
) -> None:
    """Query the results database in SQL, read-only.

    Views: v_cell, v_cell_task, v_task, v_metric, v_cost, v_lineage, v_fit, v_trial,
    v_reference. Their columns: `sweepctl db views`.

    Example: sweepctl query "select p, c, E, psnr from v_cell where study = 'quickstart'"
    """
    check_format(form)
    with open_for_reading() as ledger:
        table = ledger.query(sql, limit_rows=limit)
    give_table(table.columns, table.rows, form)
    if table.truncated:
        say(f"note: cut after {limit:,} rows; --limit gives more")
