"""Figures as plain data in Plotly's JSON form, for the dashboard and the report in one file.

Colors of text, grid and background are not in here, and ink, soft and paper stand for those of the
page: one figure serves light and dark. Names come from studies, so nothing in them may become HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sweepctl.figures._model import BLUE, Axis, Band, Figure, Key, Line, Panel, Series
from sweepctl.figures._style import CROWD, limits_of, rgb, tick_text, ticks_at, typeset

_DASHES = {"": "solid", "dash": "4px,4px", "dot": "1.5px,3px"}
_GAPS = {"xgap": 0.2, "ygap": 0.38}
"""Room between panels for ticks, titles and notes, in shares of a panel."""

Trace = dict[str, Any]


def plotly(figure: Figure, name: str) -> dict[str, Any]:
    """A figure as {"data": [...], "layout": {...}}, its panels on a grid.

    A single panel has no heading: the page says what it shows. What is in several panels has one
    legend entry, which switches it in all of them.

    Args:
        figure: what is drawn.
        name: while it stays the same, a redrawn figure keeps its zoom.
    """
    several = len(figure.panels) > 1
    ranks = {_plain(key.label): rank for rank, key in enumerate(figure.keys, start=1)}
    named: set[str] = set()
    traces: list[Trace] = []
    layout: dict[str, Any] = {"uirevision": name}
    notes: list[dict[str, Any]] = []
    for place, panel in enumerate(figure.panels, start=1):
        number = "" if place == 1 else str(place)
        for trace in _traces(panel):
            if number:
                trace |= {"xaxis": f"x{number}", "yaxis": f"y{number}"}
            if label := trace.get("name"):
                trace |= {"legendgroup": label, "legendrank": ranks.get(label, 1000)}
                # Points of a color have several markers, so that their key speaks for them.
                if label in named or (label in ranks and "marker" in trace):
                    trace["showlegend"] = False
                else:
                    named.add(label)
            traces.append(trace)
        across, up = limits_of(panel)
        layout[f"xaxis{number}"] = _axis(panel.x, across) | {"anchor": f"y{number}"}
        layout[f"yaxis{number}"] = _axis(panel.y, up) | {"anchor": f"x{number}"}
        if panel.grid == "x":
            layout[f"yaxis{number}"]["showgrid"] = False
        notes += _words(panel, number, several=several)
    for key in figure.keys:
        if (label := _plain(key.label)) not in named:
            traces.append(_key(key) | {"legendgroup": label, "legendrank": ranks[label]})
            named.add(label)
    if several:
        rows, columns, *_ = figure.layout()
        layout["grid"] = {"rows": rows, "columns": columns, "pattern": "independent", **_GAPS}
    if notes:
        layout["annotations"] = notes
    return {"data": traces, "layout": layout | {"showlegend": len(named) > 1}}


def _traces(panel: Panel) -> list[Trace]:
    if panel.empty:
        return []
    crowded = sum(len(one.dots) for one in panel.series if not one.hidden) >= CROWD
    traces = [trace for band in panel.bands for trace in _band(band)]
    traces += [_line(line) for line in panel.lines]
    return traces + [_series(one, crowded=crowded) for one in panel.series]


def _axis(axis: Axis, limits: tuple[float, float]) -> dict[str, Any]:
    """An axis with the ticks of the model; Plotly counts its own in tens."""
    made: dict[str, Any] = {
        "title": {"text": _plain(axis.title)},
        "type": "log" if axis.log else "linear",
    }
    if axis.limits is not None:
        made["range"] = [math.log10(end) for end in limits] if axis.log else list(limits)
    if axis.names:
        made |= {"tickvals": [at for at, _ in axis.names]}
        made |= {"ticktext": [_plain(word) for _, word in axis.names]}
    elif axis.ticks == "whole":
        made |= {"tick0": 0, "dtick": max(1, math.ceil((limits[1] - limits[0]) / 8))}
    elif axis.log and axis.ticks != "decades":
        places = ticks_at(axis, limits)
        if len(places) >= 3 or axis.ticks == "tens":
            made |= {"tickvals": places, "ticktext": [tick_text(axis, at) for at in places]}
    return made


def _words(panel: Panel, number: str, *, several: bool) -> list[dict[str, Any]]:
    """The heading of a panel of several, why it is empty, and words next to its points."""
    at = {"xref": f"x{number} domain", "yref": f"y{number} domain", "showarrow": False}
    words: list[dict[str, Any]] = []
    if several:
        head = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "align": "left"}
        above = 4  # pixels
        if panel.note:
            note = _plain(typeset(panel.note))
            words.append(at | head | {"name": "note", "yshift": above, "text": note})
            above += 15 * len(panel.note.splitlines()) + 3
        if panel.title:
            words.append(
                at | head | {"name": "title", "yshift": above, "text": _plain(panel.title)}
            )
    if panel.empty:
        words.append(at | {"x": 0.5, "y": 0.5, "text": _plain(panel.empty)})
    for dot in (dot for series in panel.series if not series.hidden for dot in series.dots):
        if dot.label:
            x, y = (
                math.log10(value) if axis.log else value
                for value, axis in ((dot.x, panel.x), (dot.y, panel.y))
            )
            place = {"xref": f"x{number}", "yref": f"y{number}", "x": x, "y": y, "xshift": 8}
            place |= {"xanchor": "left", "showarrow": False}
            words.append(place | {"text": _plain(dot.label)})
    return words


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
    look: Trace = {"color": line.color, "width": line.width}
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
    marker: Trace = {"color": series.color, "size": size}
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
    trace: Trace = {"x": [None], "y": [None], "name": _plain(key.label), "hoverinfo": "skip"}
    if key.line:
        trace["line"] = {"color": key.color, "width": key.width, "dash": _DASHES[key.dash]}
    if key.marker:
        symbol = f"{key.marker}{'-open' if key.hollow else ''}"
        trace["marker"] = {"color": key.color, "size": 9, "symbol": symbol}
    mode = [word for word, shown in (("lines", key.line), ("markers", key.marker)) if shown]
    return trace | {"mode": "+".join(mode)}


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
