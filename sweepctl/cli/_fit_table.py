"""`fit-table`: a law fitted to any table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._figures import drawing
from sweepctl.cli._fit_output import TABLES, give_fitted
from sweepctl.cli._options import Figures, Json, Out, Save, Where
from sweepctl.cli._output import say
from sweepctl.cli._table_file import read_table
from sweepctl.errors import SweepctlError, UsageError

if TYPE_CHECKING:
    from sweepctl.report import Wanted

LAW = "The law"


def fit_table(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A table, .csv or .tsv, with named columns.")
    ],
    y: Annotated[
        str,
        typer.Option("--y", metavar="COLUMN", help="What is fitted.", rich_help_panel=LAW),
    ],
    x: Annotated[
        list[str],
        typer.Option(
            "--x", metavar="COLUMN", help="A variable; can be repeated.", rich_help_panel=LAW
        ),
    ],
    form: Annotated[
        str,
        typer.Option("--form", help="loglog, semilog, quadratic, power, ...", rich_help_panel=LAW),
    ],
    factor: Annotated[
        list[str] | None,
        typer.Option(
            "--factor",
            metavar="COLUMN",
            help="Each value of it has an effect; can be repeated.",
            rich_help_panel=LAW,
        ),
    ] = None,
    interaction: Annotated[
        bool,
        typer.Option(
            "--interaction", help="Each value of a factor has its own slope.", rich_help_panel=LAW
        ),
    ] = False,
    scale: Annotated[
        str | None,
        typer.Option("--scale", help="log2 or raw, of a quadratic's y.", rich_help_panel=LAW),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", help="squares, huber:1e-3 or lad.", rich_help_panel=LAW),
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(
            "--weight", metavar="COLUMN", help="1 / variance of each row.", rich_help_panel=LAW
        ),
    ] = None,
    where: Where = None,
    save: Save = None,
    figures: Figures = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a law to the columns of a table; every row is one point.

    Example: sweepctl fit-table psnr.csv --y psnr --x E --form semilog
    """
    from sweepctl.report import Wanted

    _check_file(file)
    if y in (*x, *(factor or ())):
        raise UsageError(f"the column {y!r} cannot explain itself")
    drawn = drawing(figures, out, kinds=True)
    law: dict[str, Any] = {
        "metric": y,
        "on": file.name,
        "x": tuple(x),
        "factors": tuple(factor or ()),
        "form": form,
        "scale": scale,
        "loss": loss,
        "interaction": interaction,
    }
    _fit(
        file,
        {name: value for name, value in law.items() if value},
        weight,
        Wanted(where=where, out=drawn.folder, kinds=drawn.kinds, formats=drawn.formats, keep=save),
        as_json=as_json,
    )


def _check_file(file: Path) -> None:
    if file.is_dir():
        raise UsageError(f"{file} is a folder, not a table", hint="give a .csv or .tsv file in it")
    if file.suffix not in TABLES:
        raise UsageError(
            f"{file} is not a table: its name ends in none of {', '.join(TABLES)}",
            hint=f"the laws of a study are in its file: sweepctl fit {file}",
        )


def _fit(
    path: Path, stated: dict[str, Any], weight: str | None, wanted: Wanted, *, as_json: bool
) -> None:
    from sweepctl.analyse import error_column
    from sweepctl.analyse import fit_table as fit_columns
    from sweepctl.claims import Analysis
    from sweepctl.report import Fitted, draw_kinds, keep_fits
    from sweepctl.study import stated_fit

    law = stated_fit(stated)
    table = read_table(path)
    for note in table.notes:
        say(f"note: {path}: {note}")
    factors = stated.get("factors", ())
    needed = (law.metric, *stated["x"], *filter(None, (weight,)))
    error = error_column(table.columns, law)
    values = table.values(needed, texts=factors, errors=[error] if error else [])
    condition = (wanted.where or "").strip()
    numbers = _rows_where(values, condition)
    chosen = {name: [column[i - 1] for i in numbers] for name, column in values.items()}
    made = fit_columns(chosen, law, weight=weight, numbers=numbers)
    analysis = Analysis(fits=(made,), claims=())
    files: tuple[Path, ...] = ()
    if wanted.out is not None and made.fitted:
        files = draw_kinds(analysis, None, (), wanted.out / path.stem, wanted, title=path.stem)
    kept = keep_fits(analysis, wanted, path.stem, condition)
    if condition:
        say(f"only rows where {condition}: {len(numbers)} of {len(table.lines)}")
    if made.fitted:
        for warning in made.warnings:
            if warning.code in ("columns_left_out", "seeds_as_rows"):
                say(f"note: {warning.message}")
    facts = {"file": str(path), "rows": len(numbers), "where": condition or None}
    give_fitted(Fitted(analysis=analysis, files=files, kept=kept), facts, as_json=as_json)
    if not made.fitted:
        raise SweepctlError(f"the law was not fitted: {made.warnings[0].code}: {made.reason}")


def _rows_where(values: Mapping[str, Sequence[Any]], condition: str) -> list[int]:
    """Numbers of the rows, from 1, that meet a condition."""
    from sweepctl.ledger import matching

    rows = list(zip(*values.values(), strict=True))
    if not condition:
        return list(range(1, len(rows) + 1))
    found = [place + 1 for place in matching(list(values), rows, condition)]
    if not found:
        raise UsageError(f"no row of the table meets --where {condition!r}")
    return found
