"""What is drawn? Figures as plain data in Plotly's JSON form, for the pages and for the report.

The law, its mean band and its prediction band stand behind the points; a colour says one setting
and a marker another, as in the figures of `sweepctl fit`. Colours of text, grid and background are
not in here: the page adds them, so that one figure serves light and dark. The numbers that the
ViTok paper published are hollow; they are switched off at first where the study's pictures are of
another size, because they would only press the study's own points into a corner.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweepctl.ledger import Table
from sweepctl.ui._folders import Curve
from sweepctl.ui._reading import is_number

if TYPE_CHECKING:
    from sweepctl.analyse import Analysis, FitResult

Figure = dict[str, Any]
"""{"data": [...], "layout": {...}} as Plotly reads it."""

COLORS = ("#4f5bd5", "#1684c2", "#10998a", "#58962f", "#b98412", "#d5573b", "#b8448f")
"""From few to many; each has enough contrast on white and on near-black."""

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
LAW = "#7b8494"
_GRID = 121
_POWERS = ("E", "tokens", "p", "c", "q", "resolution", "frames")
"""Variables whose axis has its ticks at powers of two."""

_CROWD = 200
"""Points from which on they are drawn smaller and no longer beside each other."""

_SKIPPED = ("seed", "cell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One scatter that a study offers.

    Attributes:
        name: what it is called in a link.
        label: what it is called in a list.
        column: column of the metric.
        x: column of the x axis.
        fit: name of the law that is drawn with it; empty for none.
    """

    name: str
    label: str
    column: str
    x: str
    fit: str = ""


def choices(
    metrics: Sequence[str], columns: Sequence[str], analysis: Analysis | None
) -> list[Choice]:
    """The scatters of a study: one a law first, then one a metric that has none.

    Args:
        metrics: columns of measured numbers.
        columns: all columns.
        analysis: the laws, or None.
    """
    found = []
    for fit in analysis.fits if analysis else ():
        column = column_of(fit, metrics)
        x = fit.x if fit.x in columns else ""
        if column and x:
            label = f"{fit.metric} on {fit.on} over {fit.x}: {fit.name}"
            found.append(
                Choice(name=f"fit:{fit.name}", label=label, column=column, x=x, fit=fit.name)
            )
    drawn = {choice.column for choice in found}
    found += [
        Choice(name=f"metric:{name}", label=f"{name} over E", column=name, x="E")
        for name in metrics
        if name not in drawn and "E" in columns
    ]
    return found


def column_of(fit: FitResult, metrics: Sequence[str]) -> str:
    """The column of the wide table that a law was fitted to; empty when there is none."""
    parts = (fit.metric, f"@{fit.on}", f"/{fit.protocol}")
    for name in (
        parts[0],
        parts[0] + parts[1],
        parts[0] + parts[2],
        parts[0] + parts[1] + parts[2],
    ):
        if name in metrics:
            return name
    return ""


def scatter(
    table: Table,
    axes: Sequence[str],
    choice: Choice,
    analysis: Analysis | None,
    *,
    resolution: int | None = None,
) -> Figure:
    """Points of all cells that have the metric, with the law behind them.

    Args:
        table: the study's wide table, every column.
        axes: the study's axes.
        choice: which metric over what, with which law.
        analysis: the laws, or None.
        resolution: side of the study's pictures, pixels: the paper's points are shown at once when
            theirs have the same.
    """
    rows = points_of(table, choice)
    fit = None
    if analysis is not None and choice.fit:
        fit = next((one for one in analysis.fits if one.name == choice.fit), None)
    logged = (fit.x_scale == "log2") if fit else _spans(row[choice.x] for row in rows)
    data: list[Figure] = []
    if fit is not None and fit.fitted and fit.points:
        data += _law(fit)
    data += _markers(rows, axes, choice, logged=logged)
    data += _paper(choice, table, resolution)
    metric = choice.column.partition("@")[0].partition("/")[0]
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": _x_title(choice.x)}, **_axis(logged, choice.x)},
            "yaxis": {
                "title": {"text": _y_title(metric, choice.column)},
                **_axis(fit is not None and fit.scale == "log2"),
            },
            "uirevision": f"{choice.name}|{choice.x}",
            "showlegend": True,
        },
    }


def points_of(table: Table, choice: Choice) -> list[dict[str, Any]]:
    """The rows of a table that have the metric and the variable, by column."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in rows if is_number(row[choice.column]) and is_number(row[choice.x])]


def _spans(values: Iterable[float]) -> bool:
    """Whether values range so far that a logarithmic axis shows them better."""
    every = [value for value in values if value > 0]
    return bool(every) and max(every) / min(every) > 8


def _axis(logged: bool, name: str = "") -> Figure:
    # Powers of two are what E is made of; Plotly counts its own ticks in tens.
    if not logged:
        return {"type": "linear"}
    return {"type": "log", "dtick": "log2"} if name in _POWERS else {"type": "log", "dtick": 1}


def _x_title(x: str) -> str:
    return {"E": "E, floating points of the code"}.get(x, x.replace("_", " "))


def _y_title(metric: str, column: str) -> str:
    from sweepctl.analyse import better_of, unit_of
    from sweepctl.errors import UsageError

    try:
        better = f", {better_of(metric)} is better"
    except UsageError:
        better = ""
    unit = unit_of(metric).strip()
    return f"{column}{f' [{unit}]' if unit else ''}{better}"


def _law(fit: FitResult) -> list[Figure]:
    import numpy as np

    from sweepctl.analyse import bands
    from sweepctl.errors import UsageError

    low, high = fit.points[0].x, fit.points[-1].x
    if fit.x_scale == "log2":
        grid = np.geomspace(low / 2**0.5, high * 2**0.5, _GRID)
    else:
        room = 0.08 * (high - low) or 1.0
        grid = np.linspace(low - room, high + room, _GRID)
    try:
        band = bands(fit, grid)
    except UsageError:
        return []
    x = _numbers(grid)
    none = {"hoverinfo": "skip", "mode": "lines"}
    edge = {"width": 0, "color": LAW}

    def area(low_y: Any, high_y: Any, name: str, opacity: float) -> list[Figure]:
        group = {"legendgroup": name, **none, "x": x}
        return [
            {**group, "y": _numbers(low_y), "line": edge, "showlegend": False},
            {
                **group,
                "y": _numbers(high_y),
                "line": edge,
                "fill": "tonexty",
                "fillcolor": f"rgba(79, 91, 213, {opacity})",
                "name": name,
            },
        ]

    inside = ~band.outside
    return [
        *area(band.low, band.high, "new configuration, 95 %", 0.09),
        *area(band.mean_low, band.mean_high, "law, 95 %", 0.20),
        {
            **none,
            "x": x,
            "y": _numbers(band.mean),
            "line": {"color": LAW, "width": 1.4, "dash": "4px,4px"},
            "legendgroup": "law",
            "showlegend": False,
        },
        {
            **none,
            "x": _numbers(grid[inside]),
            "y": _numbers(band.mean[inside]),
            "line": {"color": LAW, "width": 2.4},
            "legendgroup": "law",
            "name": "law",
        },
    ]


def _numbers(values: Any) -> list[float | None]:
    """Plain floats with six digits; what is not finite is a gap."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def _markers(
    rows: Sequence[dict[str, Any]], axes: Sequence[str], choice: Choice, *, logged: bool
) -> list[Figure]:
    places = _side_by_side([float(row[choice.x]) for row in rows], logged=logged)
    marker_of, color_of = _shown_settings(rows, axes, choice)
    colors = {
        value: _color(i, len(_levels(rows, color_of)))
        for i, value in enumerate(_levels(rows, color_of))
    }
    symbols = {value: SYMBOLS[i % len(SYMBOLS)] for i, value in enumerate(_levels(rows, marker_of))}
    data: list[Figure] = []
    for value in colors or {"": COLORS[1]}:
        kept = [
            (row, x)
            for row, x in zip(rows, places, strict=True)
            if not color_of or _said(row.get(color_of)) == value
        ]
        mine = [row for row, _ in kept]
        data.append(
            {
                "mode": "markers",
                "x": [x for _, x in kept],
                "y": [row[choice.column] for row in mine],
                "customdata": [row["cell"] for row in mine],
                "text": [_hover(row, axes, choice) for row in mine],
                "hovertemplate": "%{text}<extra></extra>",
                "name": _plain_text(f"{color_of} {value}") if color_of else "cells",
                "marker": {
                    "color": colors.get(value, COLORS[1]),
                    "size": 11 if len(rows) < _CROWD else 6,
                    "opacity": 1 if len(rows) < _CROWD else 0.75,
                    "symbol": [symbols.get(_said(row.get(marker_of)), "circle") for row in mine],
                    "line": {"width": 1.2, "color": "paper"},
                },
            }
        )
    if len(symbols) > 1:
        data += [
            {
                "mode": "markers",
                "x": [None],
                "y": [None],
                "name": _plain_text(f"{marker_of} {value}"),
                "hoverinfo": "skip",
                "marker": {"color": LAW, "size": 9, "symbol": symbol},
            }
            for value, symbol in symbols.items()
        ]
    return data


def _shown_settings(
    rows: Sequence[Mapping[str, Any]], axes: Sequence[str], choice: Choice
) -> tuple[str, str]:
    """The settings that the marker and the colour say; empty where nothing varies."""
    varying = [
        name
        for name in dict.fromkeys(["p", "c", *axes])
        if name not in (*_SKIPPED, choice.x, choice.column)
        and len({_said(row.get(name)) for row in rows}) > 1
    ]
    marker_of = next((name for name in varying if name != "c"), "")
    return marker_of, next((name for name in varying if name != marker_of), "")


def marked(
    rows: Sequence[dict[str, Any]], axes: Sequence[str], choice: Choice
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows by the setting that the marker says: (what it is called, its rows)."""
    marker_of, _ = _shown_settings(rows, axes, choice)
    if not marker_of:
        return [("cells", list(rows))]
    return [
        (f"{marker_of} {value}", [row for row in rows if _said(row.get(marker_of)) == value])
        for value in _levels(rows, marker_of)
    ]


def _side_by_side(xs: Sequence[float], *, logged: bool) -> list[float]:
    """Places on the x axis: points at equal x step aside, or they would hide each other."""
    if not logged or not xs or len(xs) >= _CROWD:
        return list(xs)
    equal: dict[float, list[int]] = {}
    for index, x in enumerate(xs):
        equal.setdefault(x, []).append(index)
    octaves = math.log2(max(xs) / min(xs)) + 1
    places = list(xs)
    for x, indices in equal.items():
        for rank, index in enumerate(indices):
            places[index] = x * 2 ** (0.017 * octaves * (rank - (len(indices) - 1) / 2))
    return places


def _levels(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    if not name:
        return []
    numbers = {row.get(name) for row in rows}

    def order(value: Any) -> tuple[bool, float, str]:
        return (not is_number(value), float(value) if is_number(value) else 0.0, str(value))

    return [_said(value) for value in sorted(numbers, key=order)]


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _color(index: int, count: int) -> str:
    if count <= 1:
        return COLORS[1]
    return COLORS[round(index * (len(COLORS) - 1) / (count - 1))]


def _hover(row: Mapping[str, Any], axes: Sequence[str], choice: Choice) -> str:
    settings = ", ".join(f"{name} {_said(row.get(name))}" for name in axes if name in row)
    lines = [
        f"cell {row['cell']}: {settings}",
        f"{choice.x} {_said(row[choice.x])}",
        f"{choice.column} {row[choice.column]:.6g}",
    ]
    return "<br>".join(_plain_text(line) for line in lines)


def _plain_text(text: str) -> str:
    """Plotly reads a little HTML in its texts: names of people's axes must not become any."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:300]


def _paper(choice: Choice, table: Table, resolution: int | None) -> list[Figure]:
    """The paper's own points of the same metric over the same variable, hollow."""
    from sweepctl.analyse import reference_points

    metric = choice.column.partition("@")[0].partition("/")[0]
    points = reference_points()
    if choice.x not in points.columns:
        return []
    frames = table.columns.index("frames")
    video = any((row[frames] or 1) > 1 for row in table.rows)
    chosen = points[
        ((points["frames"] > 1) == video)
        & (points["metric"] == metric)
        & points["kind"].isin(["reconstruction", "generation"])
        & points[choice.x].notna()
        & points["value"].notna()
    ]
    data = []
    for number, (dataset, mine) in enumerate(chosen.groupby("dataset", sort=True)):
        same = bool(resolution and (mine["resolution"] == resolution).any())
        data.append(
            {
                "mode": "markers",
                "x": [float(value) for value in mine[choice.x]],
                "y": [float(value) for value in mine["value"]],
                "text": [
                    f"{row.variant or ''}, {row.figure_or_table}" for row in mine.itertuples()
                ],
                "hovertemplate": "%{text}<br>%{y:.4g}<extra>ViTok paper</extra>",
                "name": f"paper: {dataset}",
                "visible": True if same else "legendonly",
                "legendgroup": "paper",
                "marker": {
                    "color": LAW,
                    "size": 7,
                    "symbol": f"{SYMBOLS[number % len(SYMBOLS)]}-open",
                },
            }
        )
    return data


# --- other pictures ---------------------------------------------------------------------------


def curve(curves: Sequence[tuple[str, Curve]], name: str) -> Figure:
    """One measure of trainings over their steps.

    Args:
        curves: (what the line is called, the curve).
        name: the measure.
    """
    every = [value for _, one in curves for value in one.values]
    logged = bool(every) and min(every) > 0 and max(every) / min(every) > 8
    return {
        "data": [
            {
                "mode": "lines",
                "x": list(one.steps),
                "y": _numbers(one.values),
                "name": _plain_text(label),
                "line": {"width": 1.6, "color": COLORS[(1 + 2 * number) % len(COLORS)]},
                "hovertemplate": "step %{x}<br>%{y:.4g}<extra></extra>",
            }
            for number, (label, one) in enumerate(curves)
        ],
        "layout": {
            "xaxis": {"title": {"text": "step"}, "type": "linear"},
            "yaxis": {"title": {"text": name}, "type": "log" if logged else "linear"},
            "showlegend": len(curves) > 1,
            "uirevision": name,
        },
    }


def residuals(fit: FitResult) -> Figure:
    """What the law leaves over, on the scale of the fit, over its variable."""
    unit = "log2" if fit.scale == "log2" else "own unit"
    points = [point for point in fit.points if math.isfinite(point.fitted)]
    return {
        "data": [
            {
                "mode": "markers",
                "x": [point.x for point in points],
                "y": _numbers(point.y - point.fitted for point in points),
                "text": [
                    _plain_text(f"cell {', '.join(map(str, point.cells))}") for point in points
                ],
                "customdata": [point.cells[0] for point in points],
                "hovertemplate": "%{text}<br>%{y:+.3g}<extra></extra>",
                "marker": {"color": COLORS[1], "size": 8, "line": {"width": 1, "color": "paper"}},
                "name": "residual",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": _x_title(fit.x)}, **_axis(fit.x_scale == "log2", fit.x)},
            "yaxis": {"title": {"text": f"residual, {unit}"}, "zeroline": True},
            "showlegend": False,
            "uirevision": f"residuals {fit.name}",
        },
    }


def pareto(table: Table, axes: Sequence[str], metric: str, cost: str) -> Figure:
    """A metric over what it costs, with the line of those that nothing beats in both.

    Args:
        table: the study's wide table.
        axes: the study's axes.
        metric: column of the metric.
        cost: column of the cost, lower is better.
    """
    choice = Choice(name=f"pareto {metric}", label="", column=metric, x=cost)
    rows = points_of(table, choice)
    front = pareto_front([(row[cost], row[metric]) for row in rows], better=better(metric))
    chosen = [rows[place] for place in front]
    data: list[Figure] = [
        {
            "mode": "lines",
            "x": [row[cost] for row in chosen],
            "y": [row[metric] for row in chosen],
            "line": {"shape": "hv", "color": LAW, "width": 2},
            "name": "front",
            "hoverinfo": "skip",
        },
        *_markers(rows, axes, choice, logged=False),
    ]
    return {
        "data": data,
        "layout": {
            "xaxis": {
                "title": {"text": cost.replace("_", " ")},
                **_axis(_spans(row[cost] for row in rows), cost),
            },
            "yaxis": {"title": {"text": _y_title(_metric(metric), metric)}, "type": "linear"},
            "showlegend": True,
            "uirevision": f"pareto {metric} {cost}",
        },
    }


def pareto_front(points: Sequence[tuple[float, float]], *, better: str) -> list[int]:
    """Places of the points (cost, metric) that no other beats in both, by rising cost.

    Args:
        points: cost and metric of each.
        better: "lower" or "higher", of the metric.
    """
    sign = 1 if better == "lower" else -1
    best = math.inf
    front = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        if sign * points[place][1] < best:
            best = sign * points[place][1]
            front.append(place)
    return front


def _metric(column: str) -> str:
    return column.partition("@")[0].partition("/")[0]


def better(column: str) -> str:
    """Whether a lower or a higher value of a column is the better one; higher where unknown."""
    from sweepctl.analyse import better_of
    from sweepctl.errors import UsageError

    try:
        return better_of(_metric(column))
    except UsageError:
        return "higher"
