"""`plot`: draw a study's points and laws in the terminal."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from sweepctl.cli._options import Name
from sweepctl.cli._output import give, to_terminal, unicode, width
from sweepctl.cli._session import open_for_reading, run_folder
from sweepctl.errors import UsageError


def plot(
    study: Name,
    what: Annotated[
        str | None,
        typer.Option("--show", help="Name of a fit, or of a metric; all fits by default."),
    ] = None,
) -> None:
    """Draw a study's points and laws in the terminal.

    Example: sweepctl plot quickstart --show psnr
    """
    from sweepctl.ui import Reader, terminal_plot

    if to_terminal() and not unicode():
        raise UsageError(
            "this terminal cannot show the dots of a plot",
            hint=f"set LANG to a UTF-8 locale, or: sweepctl report {study} -o {study}.png",
        )
    color = to_terminal() and "NO_COLOR" not in os.environ
    with open_for_reading() as ledger:
        drawn = terminal_plot(
            Reader(ledger, run_folder()),
            study,
            show=what or "",
            columns=width(),
            lines=30,
            color=color,
        )
    give(drawn)
