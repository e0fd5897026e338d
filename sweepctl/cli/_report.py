"""`report`: write the report of a study."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._options import Name
from sweepctl.cli._output import give
from sweepctl.cli._session import open_for_reading, run_folder
from sweepctl.errors import UsageError


def report(
    study: Name,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file: .html, .pdf, .png, .svg or .md; STUDY.html by default."
        ),
    ] = None,
) -> None:
    """Write a study's report: one HTML file that opens offline, or what a paper takes.

    pdf, png and svg are the figure of the laws with a caption; md is tables.

    Example: sweepctl report quickstart -o quickstart.html
    """
    from sweepctl.ui import FORMATS, write_report

    file = out or Path(f"{study}.html")
    if not file.suffix:
        file = file.with_name(f"{file.name}.html")
    form = file.suffix.removeprefix(".")
    if form not in FORMATS:
        raise UsageError(
            f"a report cannot be written as {form!r}",
            hint=f"let the file end in {', '.join(f'.{name}' for name in FORMATS)}",
        )
    command = shlex.join(["sweepctl", "report", study, "-o", file.name])
    with open_for_reading() as ledger:
        files = write_report(ledger, run_folder(), study, file, form=form, command=command)
    for made in files:
        give(str(made))
