"""One model of each figure, and three renderers of it: files, pages and the terminal.

Builders turn results into a `Figure`, which knows its points, laws, bands, axes and legend but no
drawing library. `write` draws it with matplotlib as PNG, SVG or PDF, `plotly` gives the JSON of the
dashboard and of the report in one file, `terminal` draws it in characters. The same points, law,
band, axis scales, colors and legend entries are in all three. Nothing is computed here that is not
already a result; drawing libraries are imported when they are used.

    _model     the records           _laws        laws, residuals, hold-outs, optima
    _style     markers, colors,      _relations   fronts, level lines, correlations
               axes and ticks        _search      what a search found
                                     _tables      cells without a law, curves of trainings
                                     _sheet       reconstructions, a PNG of pixels
    _matplotlib   _plotly   _terminal   the renderers
"""

from __future__ import annotations

from sweepctl.figures._laws import hold_outs, laws, optima, residuals
from sweepctl.figures._matplotlib import FORMATS, draw, formats_of, write
from sweepctl.figures._model import Figure
from sweepctl.figures._plotly import plotly
from sweepctl.figures._relations import contours, correlations, fronts
from sweepctl.figures._search import Tried, searched
from sweepctl.figures._sheet import SheetRow, sheet
from sweepctl.figures._tables import curves, metric_of, paper_series, pareto, scatter
from sweepctl.figures._terminal import terminal

__all__ = [
    "FORMATS",
    "Figure",
    "SheetRow",
    "Tried",
    "contours",
    "correlations",
    "curves",
    "draw",
    "formats_of",
    "fronts",
    "hold_outs",
    "laws",
    "metric_of",
    "optima",
    "paper_series",
    "pareto",
    "plotly",
    "residuals",
    "scatter",
    "searched",
    "sheet",
    "terminal",
    "write",
]
