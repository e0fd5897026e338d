"""`report`: write the report of a study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._options import Db, Name, Runs
from sweepctl.cli._output import give
from sweepctl.cli._session import open_for_reading, run_folder
from sweepctl.errors import UsageError


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
