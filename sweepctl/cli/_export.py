"""`export`: write a study's results as a file for other tools."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._options import Name, Where
from sweepctl.cli._output import give, say
from sweepctl.cli._session import open_for_reading
from sweepctl.errors import UsageError
from sweepctl.plain import many

EXPORTS = (".csv", ".json", ".parquet")


def export(
    study: Name,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file: results.csv, .json or .parquet.")
    ] = None,
    where: Where = None,
    long: Annotated[
        bool, typer.Option("--long", help="One row per measured value, with protocol, n and error.")
    ] = False,
    optuna: Annotated[
        Path | None,
        typer.Option("--optuna", help="Of a search: its trials as Optuna's storage, a .db file."),
    ] = None,
) -> None:
    """Write a study's results as a file for other tools: every column, one row per cell.

    Parquet needs the extra `parquet`.

    Example: sweepctl export quickstart -o results.csv
    """
    from sweepctl.ledger import matching

    if optuna is not None:
        _export_optuna(study, optuna, given=out is not None or where is not None or long)
        return
    if out is None:
        raise UsageError("export needs a file", hint=f"-o results.csv ({', '.join(EXPORTS)})")
    if out.suffix not in EXPORTS:
        raise UsageError(
            f"{out} names no format to export", hint=f"let it end in {', '.join(EXPORTS)}"
        )
    with open_for_reading() as ledger:
        table = ledger.cells.results(
            study, columns=["*"], where=None if long else where, sort="cell"
        )
        names, rows = list(table.columns), [list(row) for row in table.rows]
        if long:
            frame = ledger.cells.frame(study)
            names = [str(name) for name in frame.columns]
            values = frame.astype("object").where(frame.notna(), None)
            rows = [list(row) for row in values.itertuples(index=False)]
            if where:
                rows = [rows[place] for place in matching(names, rows, where)]
    _write(out, names, rows)
    say(f"{many(len(rows), 'row')}, {many(len(names), 'column')}")
    give(str(out))


def _export_optuna(study: str, out: Path, *, given: bool) -> None:
    from sweepctl.cli._trials import export_optuna

    if given:
        raise UsageError("--optuna writes whole searches", hint="give it alone")
    with open_for_reading() as ledger:
        count = export_optuna(ledger, study, out)
    say(f"{many(count, 'trial')}; look at them with: optuna-dashboard sqlite:///{out}")
    give(str(out))


def _write(out: Path, names: list[str], rows: list[list[object]]) -> None:
    from sweepctl.runs import write_chosen

    write_chosen(out, {".csv": _csv, ".json": _json, ".parquet": _parquet}[out.suffix](names, rows))


def _csv(names: list[str], rows: list[list[object]]) -> bytes:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode()


def _json(names: list[str], rows: list[list[object]]) -> bytes:
    from sweepctl.plain import finite, to_json

    records = [dict(zip(names, row, strict=True)) for row in rows]
    lost = sum(isinstance(v, float) and not math.isfinite(v) for row in rows for v in row)
    if lost:
        say(f"note: {many(lost, 'value')} not finite: null in JSON; .csv and .parquet keep them")
    return (to_json(finite(records), indent=1) + "\n").encode()


def _parquet(names: list[str], rows: list[list[object]]) -> bytes:
    import io

    import pandas as pd

    frame = pd.DataFrame(rows, columns=names)
    for name in names:
        if frame[name].dtype == "object" and frame[name].map(type).nunique() > 1:
            # A column of numbers and words (an axis with null or "all") has one type in Parquet.
            present = frame[name].notna()
            if not frame.loc[present, name].map(lambda value: isinstance(value, int | float)).all():
                frame[name] = frame[name].map(lambda value: None if value is None else str(value))
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False, engine="pyarrow")
    except ImportError as error:
        raise UsageError(
            "Parquet needs the package pyarrow, which is not installed",
            hint="pip install 'sweepctl[parquet]', or export .csv or .json",
        ) from error
    return buffer.getvalue()
