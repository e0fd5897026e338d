"""What a design can show: power before a run, predictions of unfinished cells, further cells.

Everything is simulated or computed with the fits and the tests that judge the results later.
"""

from __future__ import annotations

from sweepctl.design._forecast import (
    Forecast,
    Prediction,
    Stated,
    forecast,
    predict_cells,
    uses,
)
from sweepctl.design._suggest import Suggestion, suggest

__all__ = [
    "Forecast",
    "Prediction",
    "Stated",
    "Suggestion",
    "forecast",
    "predict_cells",
    "suggest",
    "uses",
]
