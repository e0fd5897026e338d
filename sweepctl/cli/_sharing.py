"""How are results looked at and handed on? `ui`, `report`, `plot` and `export`."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._options import Db, Name, Runs
from sweepctl.cli._session import (
    check_alone,
    give,
    many,
    open_for_reading,
    run_folder,
    say,
    to_terminal,
    unicode,
    width,
)
from sweepctl.errors import UsageError

HOST = "127.0.0.1"
PORT = 8799  # as sweepctl.ui.PORT, which is not imported for a help text
EXPORTS = (".csv", ".json", ".parquet")


def ui(
    host: Annotated[
        str | None,
        typer.Option(
            "--host", help=f"Address to listen on, {HOST}; others than loopback get a token."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help=f"Port, {PORT}; 0 takes a free one."),
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option("--socket", help="A unix socket instead: only you can reach it."),
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on loopback, too.")
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="A further host name it is asked for; can be repeated."),
    ] = None,
    root: Annotated[
        str, typer.Option("--root", help="Path before every address, behind a proxy.")
    ] = "",
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Look at studies in a browser, live; nothing can be changed there.

    Listens on this machine only. The address and the ssh command that brings it to
    another machine are printed. A token of your own stands in SWEEPCTL_UI_TOKEN.

    Example: sweepctl ui --port 8799
    """
    if socket is not None:
        check_alone("--socket", {"--host": host, "--port": port, "--name": name})
    at_host, at_port = host or HOST, PORT if port is None else port
    missing = [package for package in ("starlette", "uvicorn") if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"the dashboard needs {' and '.join(missing)}, which are not installed",
            hint="pip install 'sweepctl[ui]'; sweepctl report and sweepctl plot need nothing more",
        )
    from sweepctl.ui import address, application, listen, listen_at, names_of, new_token, serve

    base = root.strip("/")
    base = f"/{base}" if base else ""
    own = os.environ.get("SWEEPCTL_UI_TOKEN") or (new_token() if token else None)
    with open_for_reading(db) as ledger:
        listening = listen_at(socket) if socket else listen(at_host, at_port)
        bound = at_port if socket else listening.getsockname()[1]
        at = address(host=at_host, port=bound, path=socket, token=own, root=base)
        names = () if socket else names_of(at_host, name or ())
        app = application(
            ledger, run_folder(runs), hosts=names, token=at.token, root=base, warm=True
        )
        give(at.url)
        sys.stdout.flush()
        say(f"from your own machine: {at.tunnel}\n  and there open {at.there}")
        if not at.token and not socket:
            say("note: other users of this machine can look, too; --socket or --token forbids it")
        say("Ctrl-C ends it; studies go on")
        serve(app, listening)


def report(
    study: Name,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; STUDY.html here by default.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", "-f", help="html, pdf, png, svg or md; by default by the suffix."),
    ] = None,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Write a study's report: one HTML file that opens offline, or what a paper takes.

    pdf, png and svg are the figure of the laws with a caption beside it; md is tables.

    Example: sweepctl report quickstart -o quickstart.html
    """
    from sweepctl.ui import FORMATS, write_report

    suffix = out.suffix.removeprefix(".") if out else ""
    chosen = form or suffix or "html"
    if chosen not in FORMATS:
        raise UsageError(f"a report is no {chosen!r}", hint=f"--format takes {', '.join(FORMATS)}")
    if form and suffix and form != suffix:
        raise UsageError(f"{out} does not end in .{form}", hint="let the file end in its format")
    file = out or Path(f"{study}.{chosen}")
    if not file.suffix:
        file = file.with_name(f"{file.name}.{chosen}")
    command = shlex.join(["sweepctl", "report", study, "-o", file.name])
    with open_for_reading(db) as ledger:
        files = write_report(ledger, run_folder(runs), study, file, form=chosen, command=command)
    for made in files:
        give(str(made))


def plot(
    study: Name,
    what: Annotated[
        str | None,
        typer.Option("--show", help="Name of a fit, or of a metric; the first fit by default."),
    ] = None,
    columns: Annotated[
        int | None, typer.Option("--width", min=40, max=400, help="Columns; the terminal's.")
    ] = None,
    lines: Annotated[int, typer.Option("--height", min=12, max=200, help="Lines.")] = 30,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Draw a study's points and law in the terminal.

    Example: sweepctl plot quickstart --show psnr
    """
    from sweepctl.ui import Reader, terminal_plot

    if to_terminal() and not unicode():
        raise UsageError(
            "this terminal cannot show the dots of a plot",
            hint=f"set LANG to a UTF-8 locale, or: sweepctl report {study} -o {study}.png",
        )
    color = to_terminal() and "NO_COLOR" not in os.environ
    with open_for_reading(db) as ledger:
        drawn = terminal_plot(
            Reader(ledger, run_folder(runs)),
            study,
            show=what or "",
            columns=columns or width(),
            lines=lines,
            color=color,
        )
    give(drawn)


def export(
    study: Name,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file: results.csv, .json or .parquet.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="SQL condition over the columns.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="A row a measured value, with protocol, n and error.")
    ] = False,
    optuna: Annotated[
        Path | None,
        typer.Option("--optuna", help="Of a search: its trials as Optuna's storage, a .db file."),
    ] = None,
    db: Db = None,
) -> None:
    """Write a study's results as a file for other tools: every column, one row a cell.

    Parquet needs the extra `parquet`.

    Example: sweepctl export quickstart -o results.csv
    """
    from sweepctl.ledger import matching

    if optuna is not None:
        _export_optuna(study, optuna, db, given=out is not None or where is not None or long)
        return
    if out is None:
        raise UsageError("export needs a file", hint=f"-o results.csv ({', '.join(EXPORTS)})")
    if out.suffix not in EXPORTS:
        raise UsageError(
            f"{out} names no format to export", hint=f"let it end in {', '.join(EXPORTS)}"
        )
    with open_for_reading(db) as ledger:
        table = ledger.results(study, columns=["*"], where=None if long else where, sort="cell")
        names, rows = list(table.columns), [list(row) for row in table.rows]
        if long:
            frame = ledger.frame(study)
            names = [str(name) for name in frame.columns]
            values = frame.astype("object").where(frame.notna(), None)
            rows = [list(row) for row in values.itertuples(index=False)]
            if where:
                rows = [rows[place] for place in matching(names, rows, where)]
    _write(out, names, rows)
    say(f"{many(len(rows), 'row')}, {many(len(names), 'column')}")
    give(str(out))


def _export_optuna(study: str, out: Path, db: str | None, *, given: bool) -> None:
    from sweepctl.cli._trials import export_optuna

    if given:
        raise UsageError("--optuna writes whole searches", hint="give it alone")
    with open_for_reading(db) as ledger:
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
    import json

    records = [dict(zip(names, row, strict=True)) for row in rows]
    return (json.dumps(records, indent=1, allow_nan=False) + "\n").encode()


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
