"""Panels as plain data in Plotly's JSON form, for the dashboard and the report in one file.

Colors of text, grid and background are not in here: the page adds them, so that one figure serves
light and dark. Names come from studies, so nothing in them may become HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sweepctl.figures._model import BLUE, INK, SOFT, Axis, Band, Figure, Key, Line, Series
from sweepctl.figures._style import CROWD, rgb

GRAY = "#7b8494"
"""Readable on white and on near-black; the page makes lines of it a little softer than its text."""

_DASHES = {"": "solid", "dash": "4px,4px", "dot": "1.5px,3px"}
Trace = dict[str, Any]


def plotly(figure: Figure, name: str) -> dict[str, Any]:
    """The first panel of a figure as {"data": [...], "layout": {...}}.

    Args:
        figure: what is drawn.
        name: while it stays the same, a redrawn figure keeps its zoom.
    """
    panel = figure.panels[0]
    crowded = sum(len(one.dots) for one in panel.series if not one.hidden) >= CROWD
    traces = [trace for band in panel.bands for trace in _band(band)]
    traces += [_line(line) for line in panel.lines]
    traces += [_series(one, crowded=crowded) for one in panel.series]
    # Colors have entries as series, lines and areas as traces: markers have only these.
    named = {trace.get("name") for trace in traces}
    traces += [_key(key) for key in figure.points if _plain(key.label) not in named]
    return {
        "data": traces,
        "layout": {
            "xaxis": _axis(panel.x),
            "yaxis": _axis(panel.y),
            "uirevision": name,
            "showlegend": len(named - {None}) > 1,
        },
    }


def _color(color: str) -> str:
    return GRAY if color in (INK, SOFT) else color


def _axis(axis: Axis) -> dict[str, Any]:
    # Plotly counts its own ticks in tens; the page makes powers of two of "log2".
    kind: dict[str, Any] = {"type": "log" if axis.log else "linear"}
    if axis.log:
        kind["dtick"] = "log2" if axis.ticks == "sizes" else 1
    return {"title": {"text": _plain(axis.title)}, **kind}


def _band(band: Band) -> list[Trace]:
    edge = {"width": 0, "color": BLUE}
    shared: Trace = {"legendgroup": band.label, "hoverinfo": "skip", "mode": "lines"}
    shared |= {"x": _numbers(band.x), "line": edge}
    fill = f"rgba({', '.join(map(str, rgb(BLUE)))}, {band.opacity})"
    return [
        {**shared, "y": _numbers(band.low), "showlegend": False},
        {
            **shared,
            "y": _numbers(band.high),
            "fill": "tonexty",
            "fillcolor": fill,
            "name": band.label,
        },
    ]


def _line(line: Line) -> Trace:
    look: Trace = {"color": _color(line.color), "width": line.width}
    look |= {"dash": _DASHES[line.dash]} if line.dash else {}
    look |= {"shape": "hv"} if line.step else {}
    trace: Trace = {"mode": "lines", "x": _numbers(line.x), "y": _numbers(line.y), "line": look}
    if line.hover:
        trace["hovertemplate"] = "step %{x}<br>%{y:.4g}<extra></extra>"
    else:
        trace["hoverinfo"] = "skip"
    return trace | ({"name": _plain(line.label)} if line.label else {"showlegend": False})


def _series(series: Series, *, crowded: bool) -> Trace:
    dots = series.dots
    symbols = [f"{dot.marker}{'-open' if dot.hollow else ''}" for dot in dots]
    size = 6 if crowded else 8 if all(dot.hollow for dot in dots) else 11
    marker: Trace = {"color": _color(series.color), "size": size}
    marker |= {"opacity": 0.75 if crowded else 1, "line": {"width": 1.2, "color": "paper"}}
    marker["symbol"] = symbols[0] if len(set(symbols)) == 1 else symbols
    trace: Trace = {
        "mode": "markers",
        "x": [dot.x for dot in dots],
        "y": [dot.y for dot in dots],
        "text": [_plain(dot.text) for dot in dots],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }
    if any(dot.cells for dot in dots):
        trace["customdata"] = [dot.cells[0] if dot.cells else None for dot in dots]
    bars = [
        (dot.y, dot.y if dot.low is None else dot.low, dot.y if dot.high is None else dot.high)
        for dot in dots
    ]
    if any(low != high for _, low, high in bars):
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [high - y for y, _, high in bars],
            "arrayminus": [y - low for y, low, _ in bars],
            "width": 0,
            "thickness": 1.4,
        }
    trace |= {"name": _plain(series.label)} if series.label else {"showlegend": False}
    return trace | ({"visible": "legendonly"} if series.hidden else {})


def _key(key: Key) -> Trace:
    """A legend entry without points: what a marker means."""
    symbol = f"{key.marker}{'-open' if key.hollow else ''}"
    return {
        "mode": "markers",
        "x": [None],
        "y": [None],
        "name": _plain(key.label),
        "hoverinfo": "skip",
        "marker": {"color": _color(key.color), "size": 9, "symbol": symbol},
    }


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Plain floats with six digits; what is not finite is a gap."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def _plain(text: str) -> str:
    """Plotly reads a little HTML in its texts: names of people's axes must not become any."""
    lines: Sequence[str] = text.split("\n")
    safe = [
        line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:300] for line in lines
    ]
    return "<br>".join(safe)
