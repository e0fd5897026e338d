"""How do metrics, costs and settings go together? Fronts, frontiers, level lines, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import (
    Estimate,
    Front,
    Relation,
    Surface,
    bands,
    in_unit,
    readable,
    scale_of,
)
from sweepctl.errors import UsageError
from sweepctl.report import _style as style
from sweepctl.report._text import equation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def front_figure(
    fronts: Sequence[Front],
    out: Path,
    *,
    title: str = "",
    basis: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Fronts of two metrics, or of a metric and a cost with the law along it, a panel each.

    Raises:
        UsageError: there is no front; the files cannot be written.
    """
    made = [one for one in fronts if one.members]
    if not made:
        raise UsageError(
            f"there is no front to draw: {fronts[0].reason if fronts else 'nothing to compare'}"
        )
    rows, columns, width, height = style.panels_of(len(made))
    with style.settings():
        drawn = style.canvas(width, rows * height + 1.2)
        points = [point for one in made for point in one.points]
        look = style.style_of(points, [one.against for one in made])
        panels = drawn.subplots(rows, columns, squeeze=False).flat
        for index, axes in enumerate(panels):
            if index < len(made):
                _front(axes, made[index], look)
            else:
                axes.set_axis_off()
        foot = style.legend(drawn, style.keys_of(look), _front_keys(made))
        style.heading(drawn, title, basis, foot)
        return style.write(drawn, out, formats)


def _front_keys(fronts: Sequence[Front]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    cost = any(not one.against_on for one in fronts)
    name = "best for the cost" if cost else "Pareto front"
    keys: list[Any] = [Line2D([], [], color=style.ORANGE, linewidth=1.6, label=name)]
    dots: dict[str, Any] = {"color": style.SOFT, "marker": "o", "linestyle": "none"}
    keys.append(Line2D([], [], markersize=8, markerfacecolor="none", label="beaten", **dots))
    if any(one.law for one in fronts):
        keys.append(Line2D([], [], color=style.LINE, linewidth=2, label="law along it"))
        keys.append(Patch(color=style.BLUE, alpha=0.22, label="95 % of the law"))
    return keys


def _front(axes: Axes, found: Front, look: style.Style) -> None:
    cost = not found.against_on
    what = f"{found.metric} for its cost" if cost else f"{found.metric} and {found.against}"
    where = found.on if cost or found.on == found.against_on else f"{found.on}, {found.against_on}"
    axes.set_title(f"{what} on {where}", loc="left", fontweight="bold", fontsize=13, pad=44)
    axes.set_ylabel(style.label_of(found.metric))
    axes.set_xlabel(style.name_of(found.against))
    logged = cost or scale_of(found.against) == "log2"
    tall = scale_of(found.metric) == "log2"
    if logged:
        axes.set_xscale("log", base=2)
    if tall:
        axes.set_yscale("log", base=2)
    axes.grid(color=style.PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    members = [found.points[i] for i in found.members]
    ys = [in_unit(point, found.metric) for point in members]
    steps: dict[str, Any] = {"color": style.ORANGE, "linewidth": 1.6, "zorder": 2.4}
    if cost:
        last = max(point.x for point in found.points)
        axes.step([*(p.x for p in members), last], [*ys, ys[-1]], where="post", **steps)
    else:
        axes.plot([point.x for point in members], ys, **steps)
    if found.law is not None:
        _along(axes, found)
    on_it = set(found.members)
    for index, point in enumerate(found.points):
        y = in_unit(point, found.metric)
        style.dot(axes, point.x, y, point, look, hollow=index not in on_it)
    _room(axes, [p.x for p in found.points], "x", logged=logged)
    _room(axes, [in_unit(p, found.metric) for p in found.points], "y", logged=tall)
    if logged:
        style.x_ticks(axes, found.against)
    if tall:
        style.log_ticks(axes, "y")
    style.note(axes, _front_words(found))


def _along(axes: Axes, found: Front) -> None:
    assert found.law is not None
    xs = [point.x for point in found.law.points]
    grid = np.geomspace(min(xs), max(xs), 121)
    band = bands(found.law, grid)
    shade: dict[str, Any] = {"color": style.BLUE, "alpha": 0.22, "linewidth": 0}
    axes.fill_between(grid, band.mean_low, band.mean_high, zorder=1, **shade)
    axes.plot(grid, band.mean, color=style.LINE, linewidth=2, zorder=2.5)


def _front_words(found: Front) -> str:
    count = f"{len(found.members)} of {len(found.points)} configurations are beaten by none"
    if found.law is None or found.law.slope is None:
        return count if found.against_on else f"{count}\n{found.reason}"[:150]
    low, high = found.law.slope_interval()
    slope = f"slope {readable(found.law.slope.estimate)} [{readable(low)}, {readable(high)}]"
    return f"{equation(found.law)}\n{count}   {slope}"


def _room(axes: Axes, values: Sequence[float], which: str, *, logged: bool) -> None:
    seen = np.log2(values) if logged else np.asarray(values)
    span = float(np.ptp(seen)) or 1.0
    low, high = float(seen.min()) - 0.08 * span, float(seen.max()) + 0.08 * span
    ends = (2.0**low, 2.0**high) if logged else (low, high)
    if which == "x":
        axes.set_xlim(*ends)
    else:
        axes.set_ylim(*ends)


# ---------------------------------------------------------------------------------------- surfaces


def contour_figure(
    found: Surface,
    out: Path,
    *,
    title: str = "",
    basis: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Level lines of a metric over two variables, with what was measured written beside the points.

    Raises:
        UsageError: the files cannot be written.
    """
    law = found.law
    with style.settings():
        drawn = style.canvas(9.0, 7.6)
        axes = drawn.subplots()
        axes.set_title(f"{style.title_of(law)}", loc="left", fontweight="bold", fontsize=13, pad=44)
        axes.set_xlabel(style.name_of(law.xs[0]))
        axes.set_ylabel(style.name_of(law.xs[1]))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        levels = _levels(found)
        seen = np.log2(found.values) if law.scale == "log2" else found.values
        # As pixels also in SVG and PDF: thousands of shaded triangles would be slow to look at.
        shading: dict[str, Any] = {"shading": "gouraud", "rasterized": True, "zorder": 0}
        axes.pcolormesh(found.x, found.y, seen, cmap=_pale_viridis(), **shading)
        lines = axes.contour(
            found.x, found.y, found.values, levels=levels, colors=style.LINE, linewidths=1.3
        )
        axes.clabel(lines, fmt=readable, fontsize=9)
        for point in law.points:
            dots: dict[str, Any] = {"markeredgecolor": "white", "markersize": 8, "zorder": 4}
            axes.plot(*point.xs[:2], marker="o", color=style.BLUE, clip_on=False, **dots)
            axes.annotate(
                readable(in_unit(point, law.metric)),
                (point.xs[0], point.xs[1]),
                (7, -3),
                textcoords="offset points",
                fontsize=9,
                color=style.INK,
                annotation_clip=False,
                zorder=5,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0},
            )
        for low, high, limit in (
            (float(found.x[0]), float(found.x[-1]), axes.set_xlim),
            (float(found.y[0]), float(found.y[-1]), axes.set_ylim),
        ):
            room = (high / low) ** 0.05
            limit(low / room, high * room)
        style.x_ticks(axes, law.xs[0])
        style.log_ticks(axes, "y", style.short)
        r2 = "" if law.r2 is None else f"R² {law.r2:.3f}   "
        doubts = ", ".join(dict.fromkeys(w.code.replace("_", " ") for w in law.warnings))
        style.note(
            axes,
            f"{equation(law)}\n{r2}n {law.n}   lines: the law, numbers at points: measured"
            + (f"   doubts: {doubts}" if doubts else ""),
        )
        style.heading(drawn, title, basis, 0.1)
        return style.write(drawn, out, formats)


def _pale_viridis() -> Any:
    """Viridis mixed with white: see-through colours would show the seams of the grid."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    whole = mpl.colormaps["viridis"](np.linspace(0, 1, 256))
    return ListedColormap(1 - 0.25 * (1 - whole))


def _levels(found: Surface) -> list[float]:
    """Round values that the surface passes: about seven of them."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(found.values.min()), float(found.values.max())
    if found.law.scale == "log2" and high / low > 6:
        return [
            value
            for power in range(-40, 40)
            for value in (float(f"{2.0**power:.3g}"),)
            if low < value < high
        ]
    return [float(value) for value in MaxNLocator(7).tick_values(low, high) if low < value < high]


# ------------------------------------------------------------------------------------ correlations


def correlation_figure(
    relations: Sequence[Relation],
    out: Path,
    *,
    title: str = "",
    basis: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Both correlations of every metric with their intervals, the closest one on top.

    Raises:
        UsageError: no metric has a correlation; the files cannot be written.
    """
    made = [one for one in relations if one.spearman and one.pearson]
    if not made:
        reasons = "; ".join(f"{one.metric} on {one.on}: {one.reason}" for one in relations)
        raise UsageError(f"no metric can be compared: {reasons or 'only one was measured'}")
    with style.settings():
        drawn = style.canvas(9.0, 0.48 * len(made) + 2.6)
        axes = drawn.subplots()
        axes.axvline(0, color=style.LINE, linewidth=1)
        axes.grid(axis="x", color=style.PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        for place, one in enumerate(reversed(made)):
            assert one.spearman is not None and one.pearson is not None
            _interval(axes, place + 0.13, one.spearman, style.BLUE, "o")
            _interval(axes, place - 0.13, one.pearson, style.ORANGE, "D")
        axes.set_yticks(
            range(len(made)), [f"{one.metric} on {one.on}  (n {one.n})" for one in reversed(made)]
        )
        axes.set_ylim(-0.6, len(made) - 0.4)
        axes.set_xlim(-1.03, 1.03)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"correlation with {made[0].against} on {made[0].against_on}")
        style.note(
            axes, "1: ranks configurations alike   0: says nothing   -1: the other way round"
        )
        foot = style.legend(drawn, [], _correlation_keys())
        style.heading(drawn, title, basis, foot)
        return style.write(drawn, out, formats)


def _interval(axes: Axes, place: float, found: Estimate, color: str, marker: str) -> None:
    line: dict[str, Any] = {"color": color, "linewidth": 2.2, "solid_capstyle": "butt"}
    axes.plot([found.low, found.high], [place, place], zorder=3, **line)
    edge: dict[str, Any] = {"markeredgecolor": "white", "markersize": 8, "linestyle": "none"}
    axes.plot(found.value, place, marker=marker, color=color, zorder=4, **edge)


def _correlation_keys() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=style.BLUE, marker="o", label="Spearman (ranks), 95 %"),
        Line2D([], [], color=style.ORANGE, marker="D", label="Pearson (own scales), 95 %"),
    ]
