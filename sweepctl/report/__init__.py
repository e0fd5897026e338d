"""Results in words and files: tables, laws, verdicts, folders of kept fits.

`fit_and_draw` joins ledger, analysis and figures for the command line. Text comes in two kinds:
laid out for a terminal, or tab-separated with full numbers for a pipe; never with escape codes, so
the command line may color it or not. Pictures of laws are made in `sweepctl.figures`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sweepctl.report._tables import StageState, StatusCell, results_text, status_grid

if TYPE_CHECKING:
    from sweepctl.report._make import (
        Fitted,
        Wanted,
        draw_kinds,
        exported,
        fit_and_draw,
        keep_fits,
        kinds_of,
        measured,
        published,
    )
    from sweepctl.report._save import save
    from sweepctl.report._text import (
        claims_text,
        fits_text,
        front_facts,
        front_table,
        paper_table,
        prediction_table,
        relation_facts,
        relation_table,
    )

_HOMES = {
    name: home
    for home, names in {
        "_make": (
            *("Fitted", "Wanted", "draw_kinds", "exported", "fit_and_draw", "keep_fits"),
            *("kinds_of", "measured", "published"),
        ),
        "_save": ("save",),
        "_text": (
            *("paper_table", "claims_text", "fits_text", "front_facts", "front_table"),
            *("prediction_table", "relation_facts", "relation_table"),
        ),
    }.items()
    for name in names
}
"""Where the names are that need numpy: loaded when they are asked for, not by `sweepctl status`."""

__all__ = [
    "Fitted",
    "StageState",
    "StatusCell",
    "Wanted",
    "claims_text",
    "draw_kinds",
    "exported",
    "fit_and_draw",
    "fits_text",
    "front_facts",
    "front_table",
    "keep_fits",
    "kinds_of",
    "measured",
    "paper_table",
    "prediction_table",
    "published",
    "relation_facts",
    "relation_table",
    "results_text",
    "save",
    "status_grid",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
