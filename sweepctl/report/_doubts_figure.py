"""Should the law be believed? Residuals, the part it did not see, and its optimum, a row a fit.

Residuals are drawn in standard errors of the prediction without the point, so that one look says
what is unusual; the hold-out is ordered by x; the optimum is the place with its Fieller interval,
which may have no end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import (
    FitResult,
    HoldOut,
    bands,
    hold_out,
    left_out,
    readable,
    unit_of,
)
from sweepctl.errors import UsageError
from sweepctl.report import _style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def residuals_figure(
    fits: Sequence[FitResult],
    out: Path,
    *,
    title: str = "",
    condition: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Residuals of each fit against what the law says, against x, and as normal quantiles.

    Raises:
        UsageError: no fit has residuals; the files cannot be written.
    """
    made = [fit for fit in fits if fit.fitted and left_out(fit)]
    if not made:
        raise UsageError("no fit has residuals: none was made, or each goes through every point")
    with style.settings():
        drawn = style.canvas(15.0, 4.1 * len(made) + 1.2)
        look = style.style_of([p for fit in made for p in fit.points], [fit.x for fit in made])
        grid = drawn.subplots(len(made), 3, squeeze=False)
        for row, fit in zip(grid, made, strict=True):
            _residuals(row, fit, look)
        foot = style.legend(drawn, style.keys_of(look), [])
        style.heading(drawn, title, style.basis_of(made, condition), foot)
        return style.write(drawn, out, formats)


def _residuals(row: Sequence[Axes], fit: FitResult, look: style.Style) -> None:
    found = left_out(fit)
    sizes = [(one.point.y - one.predicted) / one.se for one in found]
    limit = max(3.2, 1.15 * max(map(abs, sizes)))
    by_law, by_x, quantiles = row
    for axes in row:
        axes.axhline(0, color=style.LINE, linewidth=1)
        for t in (-2, 2):
            axes.axhline(t, color=style.SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.grid(color=style.PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_ylim(-limit, limit)
    by_law.set_title(style.title_of(fit), loc="left", fontweight="bold", fontsize=12.5, pad=12)
    by_law.set_ylabel("error without the point  [its standard errors]")
    by_law.set_xlabel(f"{fit.metric}{_unit(fit)} by the law")
    by_x.set_xlabel(style.name_of(fit.x))
    quantiles.set_xlabel("normal quantile")
    if fit.scale == "log2":
        by_law.set_xscale("log", base=2)
    if fit.x_scale == "log2":
        by_x.set_xscale("log", base=2)
    for one, size in zip(found, sizes, strict=True):
        said = 2.0**one.predicted if fit.scale == "log2" else one.predicted
        style.dot(by_law, said, size, one.point, look)
        style.dot(by_x, one.point.x, size, one.point, look)
        if one.surprising:
            at: dict[str, Any] = {"fontsize": 9, "color": "#a05a00", "ha": "center"}
            down = size > 0.75 * limit
            by_x.annotate(
                "surprise",
                (one.point.x, size),
                (0, -17 if down else 10),
                textcoords="offset points",
                **at,
            )
    order = sorted(range(len(found)), key=lambda i: sizes[i])
    for rank, index in enumerate(order):
        place = _normal_quantile((rank + 0.5) / len(order))
        style.dot(quantiles, place, sizes[index], found[index].point, look)
    reach = _normal_quantile(1 - 0.5 / len(order)) * 1.15
    quantiles.plot([-reach, reach], [-reach, reach], color=style.LINE, linewidth=1)
    if fit.scale == "log2":
        style.log_ticks(by_law, "x", style.plain)
    if fit.x_scale == "log2":
        style.x_ticks(by_x, fit.x)


def _unit(fit: FitResult) -> str:
    unit = unit_of(fit.metric).strip()
    return f" [{unit}]" if unit else ""


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


# ---------------------------------------------------------------------------------------- hold-out


def hold_out_figure(
    fits: Sequence[FitResult],
    out: Path,
    *,
    title: str = "",
    condition: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Each law fitted to the smaller x, with its prediction band, and what was measured beyond.

    Raises:
        UsageError: no fit has enough x for it; the files cannot be written.
    """
    tried = [(fit, hold_out(fit)) for fit in fits if fit.fitted and len(fit.xs) == 1]
    tested = [(fit, test) for fit, test in tried if not test.reason]
    if not tested:
        reasons = "; ".join(f"{fit.name}: {test.reason}" for fit, test in tried)
        raise UsageError(f"no fit can be tested on held-out x: {reasons or 'none was made'}")
    rows, columns, width, height = style.panels_of(len(tested))
    with style.settings():
        drawn = style.canvas(width, rows * height + 1.2)
        panels = drawn.subplots(rows, columns, squeeze=False).flat
        points = [p for fit, _ in tested for p in fit.points]
        look = style.style_of(points, [fit.x for fit, _ in tested])
        for index, axes in enumerate(panels):
            if index < len(tested):
                _hold_out(axes, *tested[index], look)
            else:
                axes.set_axis_off()
        foot = style.legend(drawn, style.keys_of(look), _hold_out_keys())
        style.heading(drawn, title, style.basis_of([f for f, _ in tested], condition), foot)
        return style.write(drawn, out, formats)


def _hold_out_keys() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dots: dict[str, Any] = {"color": style.SOFT, "marker": "o", "linestyle": "none"}
    return [
        Line2D([], [], markersize=8, label="fitted", **dots),
        Line2D([], [], markersize=8, markerfacecolor="none", label="predicted", **dots),
        Line2D([], [], color=style.LINE, linewidth=2, label="law without them"),
        Patch(color=style.BLUE, alpha=0.15, label="95 % of a new configuration"),
    ]


def _hold_out(axes: Axes, fit: FitResult, test: HoldOut, look: style.Style) -> None:
    axes.set_title(style.title_of(fit), loc="left", fontweight="bold", fontsize=13, pad=44)
    axes.set_ylabel(style.label_of(fit.metric))
    axes.set_xlabel(style.name_of(fit.x))
    raw = fit.x_scale == "raw"
    if not raw:
        axes.set_xscale("log", base=2)
    if fit.scale == "log2":
        axes.set_yscale("log", base=2)
    axes.grid(color=style.PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    xs = [point.x for point in fit.points]
    low, high = min(xs), max(xs)
    grid = np.linspace(low, high, 241) if raw else np.geomspace(low, high, 241)
    band = bands(test.rest, grid)
    shade: dict[str, Any] = {"color": style.BLUE, "alpha": 0.13, "linewidth": 0}
    axes.fill_between(grid, band.low, band.high, zorder=1, **shade)
    axes.plot(grid, band.mean, color=style.LINE, linewidth=1.3, linestyle=(0, (4, 3)), zorder=2.5)
    inside = ~band.outside
    axes.plot(grid[inside], band.mean[inside], color=style.LINE, linewidth=2, zorder=2.6)
    held = {id(one.point) for one in test.held}
    for point in fit.points:
        y = 2.0**point.y if fit.scale == "log2" else point.y
        style.dot(axes, point.x, y, point, look, hollow=id(point) in held)
    edge = min(one.point.x for one in test.held)
    below = max((x for x in xs if x < edge), default=edge)
    axes.axvline(
        (edge + below) / 2 if raw else math.sqrt(edge * below),
        color=style.SOFT,
        linewidth=0.9,
        linestyle=(0, (1, 2)),
    )
    outside = sum(not one.inside for one in test.held)
    assert test.rms is not None
    size = (
        f"x{2**test.rms:.3g}"
        if test.scale == "log2"
        else f"{readable(test.rms)}{unit_of(fit.metric)}"
    )
    style.note(
        axes,
        f"{len(test.held)} with {fit.x} {test.cut} predicted from {test.rest.n} others\n"
        f"typical error {size}   {outside} of {len(test.held)} outside the band",
    )
    _limit(axes, fit, test)
    if fit.x_scale == "log2":
        style.x_ticks(axes, fit.x)
    if fit.scale == "log2":
        style.log_ticks(axes, "y")


def _limit(axes: Axes, fit: FitResult, test: HoldOut) -> None:
    """Room for the points and the law; a band that runs away is cut."""
    ys = [point.y for point in fit.points]
    for one in test.held:
        ys.append(math.log2(one.predicted) if fit.scale == "log2" else one.predicted)
    span = max(ys) - min(ys) or 1.0
    ends = (min(ys) - 0.25 * span, max(ys) + 0.25 * span)
    low, high = (2.0**end if fit.scale == "log2" else end for end in ends)
    axes.set_ylim(low, high)


# ----------------------------------------------------------------------------------------- optimum


def optimum_figure(
    fits: Sequence[FitResult],
    out: Path,
    *,
    title: str = "",
    condition: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Each bent law with the place of its optimum and the interval of that place.

    Raises:
        UsageError: no fit has an optimum; the files cannot be written.
    """
    bent = [fit for fit in fits if fit.optimum is not None]
    if not bent:
        raise UsageError("no fit has an optimum", hint="form: quadratic or cubic may have one")
    rows, columns, width, height = style.panels_of(len(bent))
    with style.settings():
        drawn = style.canvas(width, rows * height + 1.2)
        look = style.style_of([p for fit in bent for p in fit.points], [fit.x for fit in bent])
        panels = drawn.subplots(rows, columns, squeeze=False).flat
        for index, axes in enumerate(panels):
            if index < len(bent):
                _optimum(axes, bent[index], look)
            else:
                axes.set_axis_off()
        foot = style.legend(drawn, style.keys_of(look), _optimum_keys())
        style.heading(drawn, title, style.basis_of(bent, condition), foot)
        return style.write(drawn, out, formats)


def _optimum_keys() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Line2D([], [], color=style.LINE, linewidth=2, label="law"),
        Patch(color=style.BLUE, alpha=0.22, label="95 % of the law"),
        Line2D([], [], color=style.ORANGE, linewidth=4, label="95 % of the optimum (Fieller)"),
    ]


def _optimum(axes: Axes, fit: FitResult, look: style.Style) -> None:
    assert fit.optimum is not None
    best = fit.optimum
    axes.set_title(style.title_of(fit), loc="left", fontweight="bold", fontsize=13, pad=44)
    axes.set_ylabel(style.label_of(fit.metric))
    axes.set_xlabel(style.name_of(fit.x))
    axes.set_xscale("log", base=2)
    if fit.scale == "log2":
        axes.set_yscale("log", base=2)
    axes.grid(color=style.PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    xs = [point.x for point in fit.points]
    low, high = min(xs) / 2**0.7, max(xs) * 2**0.7
    grid = np.geomspace(low, high, 241)
    band = bands(fit, grid)
    shade: dict[str, Any] = {"color": style.BLUE, "alpha": 0.22, "linewidth": 0}
    axes.fill_between(grid, band.mean_low, band.mean_high, zorder=1, **shade)
    axes.plot(grid, band.mean, color=style.LINE, linewidth=2, zorder=2.5)
    for point in fit.points:
        style.dot(axes, point.x, 2.0**point.y if fit.scale == "log2" else point.y, point, look)
    axes.set_xlim(low, high)
    _room(axes, fit)
    bottom = 0.045
    blended = axes.get_xaxis_transform()
    bar: dict[str, Any] = {"color": style.ORANGE, "linewidth": 4, "solid_capstyle": "butt"}
    whole = best.low is None or best.high is None
    left, right = (
        (low, high) if whole else (max(best.low or low, low), min(best.high or high, high))
    )
    axes.plot([left, right], [bottom, bottom], transform=blended, zorder=5, **bar)
    ends = (
        (left, "<", whole or (best.low or 0) < low),
        (right, ">", whole or (best.high or 0) > high),
    )
    for x, marker, beyond in ends:
        if beyond:
            axes.plot(
                x,
                bottom,
                marker=marker,
                color=style.ORANGE,
                markersize=11,
                transform=blended,
                zorder=6,
                clip_on=False,
                linestyle="none",
            )
    if low <= best.x <= high:
        axes.axvline(best.x, color=style.ORANGE, linewidth=1.4, zorder=2)
    where = (
        "may be anywhere (the curvature may be 0)"
        if whole
        else f"[{readable(best.low or 0)}, {readable(best.high or 0)}]"
    )
    cubic = "" if best.cubic is None else f"   a cubic's at {readable(best.cubic)}"
    style.note(axes, f"{best.kind} at {fit.x} = {readable(best.x)}{cubic}\n{where}   n {fit.n}")
    style.x_ticks(axes, fit.x)
    if fit.scale == "log2":
        style.log_ticks(axes, "y")


def _room(axes: Axes, fit: FitResult) -> None:
    """Room for the points, and below them for the bar."""
    ys = [point.y for point in fit.points] + [point.fitted for point in fit.points]
    span = max(ys) - min(ys) or 1.0
    ends = (min(ys) - 0.3 * span, max(ys) + 0.2 * span)
    low, high = (2.0**end if fit.scale == "log2" else end for end in ends)
    axes.set_ylim(low, high)
