"""What does the law look like? One panel a fit, log2 x, points, line and both bands.

A marker says p, a colour says c (or the first settings that vary); one legend serves all panels.
The line is solid where there are points and dashed beyond. The dark band is the 95 % interval of
the law, the light one that of a new configuration. PNG for reading, SVG for papers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import Analysis, Beside, FitResult, Point, bands, readable
from sweepctl.errors import UsageError
from sweepctl.report import _style as style
from sweepctl.report._text import equation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def figure(
    analysis: Analysis,
    out: Path,
    *,
    fit_name: str | None = None,
    title: str = "",
    condition: str = "",
    beside: Sequence[Beside] = (),
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw one fit, or all fits of a study in one figure.

    Args:
        analysis: what `fit_study` gave.
        out: path without suffix; `.png` (1600 px wide), `.svg` and so on are added.
        fit_name: the fit to draw; all of them when None.
        title: name of the study, shown above the panels.
        condition: which cells were fitted; empty for all.
        beside: the paper's points, drawn hollow in the panel of their fit.
        formats: png, svg, pdf.

    Returns:
        The files.

    Raises:
        UsageError: there is no such fit, or no fit at all; the files cannot be written.
    """
    fits = analysis.fits if fit_name is None else (analysis.fit(fit_name),)
    if not fits:
        raise UsageError("the study has no fits, so there is nothing to draw")
    theirs = {one.fit: one for one in beside}
    rows, columns, width, height = style.panels_of(len(fits))
    with style.settings():
        drawn = style.canvas(width, rows * height + 1.2)
        look = style.style_of([p for fit in fits for p in fit.points], [fit.x for fit in fits])
        panels = drawn.subplots(rows, columns, squeeze=False).flat
        for index, axes in enumerate(panels):
            if index < len(fits):
                _panel(axes, fits[index], look, theirs.get(fits[index].name))
            else:
                axes.set_axis_off()
        keys = style.keys_of(look)
        foot = style.legend(drawn, keys, _law_keys(bool(theirs)))
        style.heading(drawn, title, style.basis_of(fits, condition), foot)
        return style.write(drawn, out, formats)


def draw(
    analysis: Analysis,
    out: Path,
    *,
    title: str,
    condition: str = "",
    beside: Sequence[Beside] = (),
    formats: Sequence[str] = ("png", "svg"),
) -> tuple[Path, ...]:
    """Draw all fits of an analysis as `out`.png, `out`.svg and so on.

    Raises:
        UsageError: the files cannot be written.
    """
    files = figure(analysis, out, title=title, condition=condition, beside=beside, formats=formats)
    return tuple(files)


def _law_keys(beside: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    keys: list[Any] = [
        Line2D([], [], color=style.LINE, linewidth=2, label="law"),
        Patch(color=style.BLUE, alpha=0.28, label="95 % of the law"),
        Patch(color=style.BLUE, alpha=0.1, label="95 % of a new configuration"),
    ]
    if beside:
        hollow: dict[str, Any] = {
            "markerfacecolor": "none",
            "markeredgecolor": style.ORANGE,
            "markersize": 8,
        }
        keys.append(
            Line2D(
                *([], []),
                marker="o",
                color=style.ORANGE,
                linewidth=1.2,
                linestyle=(0, (1, 1.5)),
                label="the paper's points and law",
                **hollow,
            )
        )
    return keys


# --------------------------------------------------------------------------------------- a panel


def _panel(axes: Axes, fit: FitResult, look: style.Style, beside: Beside | None) -> None:
    axes.set_title(style.title_of(fit), loc="left", fontweight="bold", fontsize=13, pad=44)
    axes.set_ylabel(style.label_of(fit.metric))
    axes.set_xlabel(style.name_of(fit.x))
    if not fit.points:
        style.empty(axes, f"not fitted: {fit.reason}")
        return
    raw = fit.x_scale == "raw"
    if not raw:
        axes.set_xscale("log", base=2)
    if fit.scale == "log2":
        axes.set_yscale("log", base=2)
    axes.grid(color=style.PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    xs = [point.x for point in (*fit.points, *(beside.law.points if beside else ()))]
    x_low, x_high = min(xs) / 2**0.5, max(xs) * 2**0.5
    if raw:
        room = 0.08 * (max(xs) - min(xs)) or 1.0
        x_low, x_high = min(xs) - room, max(xs) + room
    if beside is not None:
        _paper(axes, beside.law)
    if fit.slope is not None:
        own = [point.x for point in fit.points]
        reach = (min(own) / 2**0.5, max(own) * 2**0.5)
        _law(axes, fit, *((x_low, x_high) if beside is None or raw else reach))
    places = [point.x for point in fit.points] if raw else _side_by_side(fit.points)
    for point, x in zip(fit.points, places, strict=True):
        if point.seeds > 1:
            ends = [_shown(point.low, fit), _shown(point.high, fit)]
            color = style.look(point, look)[1]
            axes.plot([x, x], ends, color=color, linewidth=1.4, zorder=3)
        style.dot(axes, x, _shown(point.y, fit), point, look)
    axes.set_xlim(x_low, x_high)
    _limits(axes, fit, beside)
    if fit.x_scale == "log2":
        style.x_ticks(axes, fit.x)
    if fit.scale == "log2":
        style.log_ticks(axes, "y")
    _words(axes, fit, beside)


def _paper(axes: Axes, law: FitResult) -> None:
    """The paper's points, hollow, with its law as far as they reach."""
    marks: dict[str, Any] = {
        "color": style.ORANGE,
        "markerfacecolor": "none",
        "markeredgewidth": 1.3,
    }
    ys = [_shown(point.y, law) for point in law.points]
    xs = [point.x for point in law.points]
    axes.plot(xs, ys, marker="o", markersize=7, linestyle="none", zorder=2.8, **marks)
    if law.slope is not None:
        grid = _grid(law, min(xs), max(xs), 121)
        dots: dict[str, Any] = {"color": style.ORANGE, "linewidth": 1.4, "linestyle": (0, (1, 1.5))}
        axes.plot(grid, bands(law, grid).mean, zorder=2.7, **dots)


def _side_by_side(points: Sequence[Point]) -> list[float]:
    """Places on the x axis: points at equal x step aside, or they would hide each other."""
    equal: dict[float, list[int]] = {}
    for index, point in enumerate(points):
        equal.setdefault(point.x, []).append(index)
    octaves = math.log2(points[-1].x / points[0].x) + 1
    places = [0.0] * len(points)
    for x, indices in equal.items():
        for rank, index in enumerate(indices):
            places[index] = x * 2 ** (0.014 * octaves * (rank - (len(indices) - 1) / 2))
    return places


def _law(axes: Axes, fit: FitResult, x_low: float, x_high: float) -> None:
    grid = _grid(fit, x_low, x_high, 241)
    band = bands(fit, grid)
    light: dict[str, Any] = {"color": style.BLUE, "alpha": 0.08, "linewidth": 0, "zorder": 1}
    axes.fill_between(grid, band.low, band.high, **light)
    axes.fill_between(
        grid, band.mean_low, band.mean_high, color=style.BLUE, alpha=0.22, linewidth=0, zorder=2
    )
    axes.plot(grid, band.mean, color=style.LINE, linewidth=1.3, linestyle=(0, (4, 3)), zorder=2.5)
    inside = ~band.outside
    axes.plot(grid[inside], band.mean[inside], color=style.LINE, linewidth=2.0, zorder=2.6)


def _grid(fit: FitResult, low: float, high: float, count: int) -> NDArray[np.float64]:
    return np.linspace(low, high, count) if fit.x_scale == "raw" else np.geomspace(low, high, count)


def _limits(axes: Axes, fit: FitResult, beside: Beside | None) -> None:
    """Room for the points, the law and as much of the prediction band as leaves them readable."""
    points = (*fit.points, *(beside.law.points if beside else ()))
    ys = [end for point in points for end in (point.low, point.high)]
    span = max(ys) - min(ys) or 1.0
    low, high = min(ys) - 0.08 * span, max(ys) + 0.08 * span
    if fit.slope is not None:
        xs = [point.x for point in fit.points]
        band = bands(fit, _grid(fit, min(xs), max(xs), 61))
        around = np.concatenate([band.low, band.high])
        if fit.scale == "log2":
            around = np.log2(np.clip(around, 2.0**-1000, 2.0**1000))
        low = max(min(low, float(around.min())), low - 0.5 * span)
        high = min(max(high, float(around.max())), high + 0.5 * span)
    axes.set_ylim(_shown(low, fit), _shown(high, fit))


def _shown(y: float, fit: FitResult) -> float:
    return float(2.0**y) if fit.scale == "log2" else y


def _words(axes: Axes, fit: FitResult, beside: Beside | None) -> None:
    if fit.slope is None:
        style.note(axes, f"not fitted: {fit.reason}"[:90])
        return
    low, high = fit.slope_interval()
    r2 = "" if fit.r2 is None else f"R² {fit.r2:.3f}   "
    slope = f"slope {readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"
    style.note(axes, f"{equation(fit)}\n{r2}{slope}   n {fit.n}")
    said = []
    if beside is not None:
        said.append(f"hollow: {beside.paper}, {beside.law.on}")
    if fit.warnings:
        codes = dict.fromkeys(warning.code.replace("_", " ") for warning in fit.warnings)
        said.append("doubts: " + "\n".join(codes))
    if said:
        falling = fit.slope.estimate < 0
        axes.annotate(
            "\n".join(said),
            (0.02 if falling else 0.98, 0.03),
            xycoords="axes fraction",
            fontsize=8.5,
            color="#a05a00",
            ha="left" if falling else "right",
            linespacing=1.3,
        )
