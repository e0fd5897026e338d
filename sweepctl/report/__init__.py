"""Results in words and files: tables, laws, verdicts, picture sheets, folders of kept fits.

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
        FIGURES,
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
    from sweepctl.report._relations_text import (
        BESIDE,
        FORESEEN,
        RELATIONS,
        beside_rows,
        foreseen_rows,
        front_columns,
        front_facts,
        front_rows,
        relation_facts,
        relation_rows,
    )
    from sweepctl.report._save import save
    from sweepctl.report._sheet import SheetRow, sheet
    from sweepctl.report._text import claims_text, fits_text

_HOMES = {
    name: home
    for home, names in {
        "_make": (
            *("FIGURES", "Fitted", "Wanted", "draw_kinds", "exported", "fit_and_draw"),
            *("keep_fits", "kinds_of", "measured", "published"),
        ),
        "_relations_text": (
            *("BESIDE", "FORESEEN", "RELATIONS", "beside_rows", "foreseen_rows", "front_columns"),
            *("front_facts", "front_rows", "relation_facts", "relation_rows"),
        ),
        "_save": ("save",),
        "_sheet": ("SheetRow", "sheet"),
        "_text": ("claims_text", "fits_text"),
    }.items()
    for name in names
}
"""Where the names are that need numpy: loaded when they are asked for, not by `sweepctl status`."""

__all__ = [
    "BESIDE",
    "FIGURES",
    "FORESEEN",
    "RELATIONS",
    "Fitted",
    "SheetRow",
    "StageState",
    "StatusCell",
    "Wanted",
    "beside_rows",
    "claims_text",
    "draw_kinds",
    "exported",
    "fit_and_draw",
    "fits_text",
    "foreseen_rows",
    "front_columns",
    "front_facts",
    "front_rows",
    "keep_fits",
    "kinds_of",
    "measured",
    "published",
    "relation_facts",
    "relation_rows",
    "results_text",
    "save",
    "sheet",
    "status_grid",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
