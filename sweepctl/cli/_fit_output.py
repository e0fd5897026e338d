"""What `fit` and `fit-table` print: laws, verdicts, the paper's points, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweepctl.cli._figures import say_figures
from sweepctl.cli._output import (
    give,
    give_json,
    give_table,
    say,
    to_terminal,
    unicode,
    width,
)

if TYPE_CHECKING:
    from sweepctl.report import Fitted

TABLES = (".csv", ".tsv")
"""Endings of files that are tables."""


def give_fitted(made: Fitted, facts: dict[str, Any], *, as_json: bool) -> None:
    """Print laws and verdicts, and name the files that were written."""
    from sweepctl.report import claims_text, fits_text, paper_table

    analysis, compared = made.analysis, paper_table(made.comparisons)
    if as_json:
        said = {
            "figures": made.files,
            "kept": dict(made.kept),
            "paper_comparison": [
                dict(zip(compared.columns, row, strict=True)) for row in compared.rows
            ],
        }
        give_json({"schema": 1, **facts, **analysis.to_json(), **said})
    else:
        give(fits_text(analysis, terminal=to_terminal(), width=width()))
        if analysis.claims or "study" in facts:
            if to_terminal():
                give("")
            text = claims_text(analysis, terminal=to_terminal(), width=width(), unicode=unicode())
            give(text)
        if compared.rows:
            if to_terminal():
                give("")
            give_table(compared.columns, compared.rows, "table")
    for one in made.comparisons:
        say(f"{one.fit} compared with {one.paper} ({one.law.on}): other data, protocol `paper`")
    say_figures(made.files)
    for folder in made.kept.values():
        say(f"kept: {folder}")
