"""How does it look? Figures, picture sheets and text of results, fits, claims and progress.

Everything here turns results into pixels or characters and decides nothing itself; `fit_and_draw`
joins ledger, analysis and drawing for the command line. Text comes in two kinds: laid out for a
terminal, or tab-separated with full numbers for a pipe; never with escape codes, so the command
line may colour it or not. Figures are drawn on matplotlib `Figure` objects without pyplot, and the
same analysis gives the same SVG bytes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sweepctl.report._tables import StageState, StatusCell, results_text, status_grid

if TYPE_CHECKING:
    from sweepctl.report._doubts_figure import hold_out_figure, optimum_figure, residuals_figure
    from sweepctl.report._figure import draw, figure
    from sweepctl.report._make import (
        FIGURES,
        Fitted,
        Wanted,
        draw_kinds,
        fit_and_draw,
        keep_fits,
        kinds_of,
        measured,
        paper_beside,
        published,
    )
    from sweepctl.report._relations_figure import (
        contour_figure,
        correlation_figure,
        front_figure,
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
    from sweepctl.report._search_figure import Tried, search_figure
    from sweepctl.report._sheet import SheetRow, sheet
    from sweepctl.report._style import FORMATS, formats_of
    from sweepctl.report._text import claims_text, equation, fits_text

_HOMES = {
    name: home
    for home, names in {
        "_doubts_figure": ("hold_out_figure", "optimum_figure", "residuals_figure"),
        "_figure": ("draw", "figure"),
        "_make": (
            *("FIGURES", "Fitted", "Wanted", "draw_kinds", "fit_and_draw", "keep_fits"),
            *("exported", "kinds_of", "measured", "paper_beside", "published"),
        ),
        "_relations_figure": ("contour_figure", "correlation_figure", "front_figure"),
        "_relations_text": (
            *("BESIDE", "FORESEEN", "RELATIONS", "beside_rows", "foreseen_rows", "front_columns"),
            *("front_facts", "front_rows", "relation_facts", "relation_rows"),
        ),
        "_save": ("save",),
        "_search_figure": ("Tried", "search_figure"),
        "_sheet": ("SheetRow", "sheet"),
        "_style": ("FORMATS", "formats_of"),
        "_text": ("claims_text", "equation", "fits_text"),
    }.items()
    for name in names
}
"""Where the names are that need numpy: loaded when they are asked for, not by `sweepctl status`."""

__all__ = [
    "BESIDE",
    "FIGURES",
    "FORESEEN",
    "FORMATS",
    "RELATIONS",
    "Fitted",
    "SheetRow",
    "StageState",
    "StatusCell",
    "Tried",
    "Wanted",
    "beside_rows",
    "claims_text",
    "contour_figure",
    "correlation_figure",
    "draw",
    "draw_kinds",
    "equation",
    "exported",
    "figure",
    "fit_and_draw",
    "fits_text",
    "foreseen_rows",
    "formats_of",
    "front_columns",
    "front_facts",
    "front_figure",
    "front_rows",
    "hold_out_figure",
    "keep_fits",
    "kinds_of",
    "measured",
    "optimum_figure",
    "paper_beside",
    "published",
    "relation_facts",
    "relation_rows",
    "residuals_figure",
    "results_text",
    "save",
    "search_figure",
    "sheet",
    "status_grid",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
