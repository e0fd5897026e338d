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
    from sweepctl.report._figure import draw, figure
    from sweepctl.report._make import Fitted, fit_and_draw
    from sweepctl.report._save import save
    from sweepctl.report._sheet import SheetRow, sheet
    from sweepctl.report._text import claims_text, equation, fits_text

__all__ = [
    "Fitted",
    "SheetRow",
    "StageState",
    "StatusCell",
    "claims_text",
    "draw",
    "equation",
    "figure",
    "fit_and_draw",
    "fits_text",
    "results_text",
    "save",
    "sheet",
    "status_grid",
]

_HOMES = {
    "Fitted": "_make",
    "SheetRow": "_sheet",
    "claims_text": "_text",
    "draw": "_figure",
    "equation": "_text",
    "figure": "_figure",
    "fit_and_draw": "_make",
    "fits_text": "_text",
    "save": "_save",
    "sheet": "_sheet",
}
"""Where the names are that need numpy: loaded when they are asked for, not by `sweepctl status`."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
