"""`results`: print what a study has measured, one row per cell."""

from __future__ import annotations

from sweepctl.cli._options import Columns, Format, Name, Sort, Where
from sweepctl.cli._output import check_format, give_table, say
from sweepctl.cli._session import open_for_reading


def results(
    study: Name,
    where: Where = None,
    columns: Columns = None,
    sort: Sort = "E,p",
    form: Format = "table",
) -> None:
    """Print a study's results, one row per cell.

    Example: sweepctl results quickstart --where "p = 8 and E >= 256" --sort=-psnr
    """
    check_format(form)
    with open_for_reading() as ledger:
        table = ledger.cells.results(study, where=where, columns=names_of(columns), sort=sort)
        about_overlap = ledger.studies.submission(study).about_overlap
    if about_overlap:
        say(f"note: {about_overlap}")
    give_table(table.columns, table.rows, form)


def names_of(columns: str | None) -> list[str] | None:
    """The columns that --columns names; None when it was not given."""
    return [name.strip() for name in columns.split(",")] if columns else None
