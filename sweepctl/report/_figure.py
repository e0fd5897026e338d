"""What does the law look like? One panel a fit, log2 x, points, line and both bands.

A marker says p, a colour says c (or the first settings that vary); one legend serves all panels.
The line is solid where there are points and dashed beyond. The dark band is the 95 % interval of
the law, the light one that of a new configuration. PNG for reading, SVG for papers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import Analysis, FitResult, Point, bands, readable, unit_of
from sweepctl.errors import UsageError
from sweepctl.report._text import equation
from sweepctl.study import DERIVED
from vitok_core.protocols import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_INK, _SOFT, _LINE = "#14181f", "#5b6472", "#30363f"
_DERIVED = frozenset(DERIVED)
_WIDTH_PX = 1600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """How points look in all panels.

    Attributes:
        marker_of: setting shown by the marker; empty when none varies.
        color_of: setting shown by the colour; empty when none varies.
        markers: marker by value.
        colors: colour by value, in order of the value.
    """

    marker_of: str
    color_of: str
    markers: Mapping[str, str]
    colors: Mapping[str, Any]


def figure(
    analysis: Analysis, out: Path, *, fit_name: str | None = None, title: str = ""
) -> list[Path]:
    """Draw one fit, or all fits of a study in one figure, as PNG (1600 px wide) and SVG.

    Args:
        analysis: what `fit_study` gave.
        out: path without suffix; `.png` and `.svg` are written.
        fit_name: the fit to draw; all of them when None.
        title: name of the study, shown above the panels.

    Returns:
        The two files.

    Raises:
        UsageError: there is no such fit, or no fit at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fits = analysis.fits if fit_name is None else (analysis.fit(fit_name),)
    if not fits:
        raise UsageError("the study has no fits, so there is nothing to draw")
    columns = min(len(fits), 3) if len(fits) != 4 else 2
    rows = math.ceil(len(fits) / columns)
    width = {1: 9.0, 2: 13.0, 3: 16.0}[columns]
    with _settings():
        drawn = Figure(figsize=(width, rows * {1: 6.4, 2: 5.6, 3: 5.2}[columns] + 1.2))
        FigureCanvasAgg(drawn)
        style = _style(fits)
        panels = drawn.subplots(rows, columns, squeeze=False).flat
        for index, axes in enumerate(panels):
            if index < len(fits):
                _panel(axes, fits[index], style)
            else:
                axes.set_axis_off()
        _around(drawn, fits, style, title)
        out.parent.mkdir(parents=True, exist_ok=True)
        png, svg = out.with_name(out.name + ".png"), out.with_name(out.name + ".svg")
        # Neither file may hold a date or a version: the same numbers give the same bytes.
        drawn.savefig(png, dpi=_WIDTH_PX / width, metadata={"Software": None})
        drawn.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def draw(analysis: Analysis, out: Path, *, title: str) -> tuple[Path, ...]:
    """Draw all fits of an analysis as `out`.png and `out`.svg.

    Raises:
        UsageError: the files cannot be written.
    """
    with writing(out.parent):
        return tuple(figure(analysis, out, title=title))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Files into a folder; UsageError when it cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write the figures into {folder}: {error.strerror}",
            hint="choose another folder with --out",
        ) from error


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a study's figures
        mpl.rcParams.update(
            {
                "svg.hashsalt": "sweepctl",
                "font.family": "DejaVu Sans",
                "text.parse_math": False,  # a data set may have a $ in its name
                "font.size": 10.5,
                "axes.edgecolor": "#9aa3b0",
                "axes.labelcolor": _INK,
                "axes.linewidth": 0.9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "text.color": _INK,
                "xtick.color": _SOFT,
                "ytick.color": _SOFT,
                "figure.facecolor": "white",
            }
        )
        yield


def _style(fits: Sequence[FitResult]) -> _Style:
    import matplotlib as mpl

    points = [point for fit in fits for point in fit.points]
    skipped = _DERIVED | {fit.x for fit in fits}
    names = dict.fromkeys(["p", "c", "q", "encoder", "decoder"])
    names |= dict.fromkeys(key for point in points for key in point.settings)
    varying = [
        name
        for name in names
        if name not in skipped and len({str(p.settings.get(name)) for p in points}) > 1
    ]
    marker_of = next((name for name in varying if name != "c"), "")
    color_of = next((name for name in varying if name != marker_of), "")

    def values(name: str) -> list[str]:
        found = {p.settings.get(name) for p in points} if name else set()
        return list(dict.fromkeys(_value(value) for value in sorted(found, key=_order)))

    # viridis is even and safe for colour-blind readers; its yellow end is too pale on white.
    colormap = mpl.colormaps["viridis"]
    shown = values(color_of)
    colors = {value: colormap(0.9 * i / max(len(shown) - 1, 1)) for i, value in enumerate(shown)}
    markers = {value: _MARKERS[i % len(_MARKERS)] for i, value in enumerate(values(marker_of))}
    return _Style(marker_of=marker_of, color_of=color_of, markers=markers, colors=colors)


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _look(point: Point, style: _Style) -> tuple[str, Any]:
    marker = style.markers.get(_value(point.settings.get(style.marker_of)), "o")
    return marker, style.colors.get(_value(point.settings.get(style.color_of)), "#31688e")


# --------------------------------------------------------------------------------------- a panel


def _panel(axes: Axes, fit: FitResult, style: _Style) -> None:
    axes.set_title(f"{fit.metric} on {fit.on}", loc="left", fontweight="bold", fontsize=13, pad=44)
    axes.set_ylabel(_y_label(fit))
    axes.set_xlabel("E  (floating points in the code)" if fit.x == "E" else fit.x)
    if not fit.points:
        axes.text(0.5, 0.5, _folded(fit), transform=axes.transAxes, ha="center", color=_SOFT)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    raw = fit.x_scale == "raw"
    if not raw:
        axes.set_xscale("log", base=2)
    if fit.scale == "log2":
        axes.set_yscale("log", base=2)
    axes.grid(color="#e6e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    xs = [point.x for point in fit.points]
    x_low, x_high = min(xs) / 2**0.5, max(xs) * 2**0.5
    if raw:
        room = 0.08 * (max(xs) - min(xs)) or 1.0
        x_low, x_high = min(xs) - room, max(xs) + room
    if fit.slope is not None:
        _law(axes, fit, x_low, x_high)
    for point, x in zip(fit.points, xs if raw else _side_by_side(fit.points), strict=True):
        marker, color = _look(point, style)
        if point.seeds > 1:
            ends = [_shown(point.low, fit), _shown(point.high, fit)]
            axes.plot([x, x], ends, color=color, linewidth=1.4, zorder=3)
        axes.plot(
            x,
            _shown(point.y, fit),
            marker=marker,
            color=color,
            markersize=9 if marker != "o" else 9.5,
            markeredgecolor="white",
            markeredgewidth=1.0,
            linestyle="none",
            zorder=4,
        )
    axes.set_xlim(x_low, x_high)
    _limits(axes, fit)
    _ticks(axes, fit)
    _words(axes, fit)


def _y_label(fit: FitResult) -> str:
    unit = unit_of(fit.metric).strip()
    better = f",  {METRICS[fit.metric].better} is better" if fit.metric in METRICS else ""
    return f"{fit.metric}{f' [{unit}]' if unit else ''}{better}"


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
    axes.fill_between(grid, band.low, band.high, color="#31688e", alpha=0.08, linewidth=0, zorder=1)
    axes.fill_between(
        grid, band.mean_low, band.mean_high, color="#31688e", alpha=0.22, linewidth=0, zorder=2
    )
    axes.plot(grid, band.mean, color=_LINE, linewidth=1.3, linestyle=(0, (4, 3)), zorder=2.5)
    inside = ~band.outside
    axes.plot(grid[inside], band.mean[inside], color=_LINE, linewidth=2.0, zorder=2.6)


def _grid(fit: FitResult, low: float, high: float, count: int) -> NDArray[np.float64]:
    return np.linspace(low, high, count) if fit.x_scale == "raw" else np.geomspace(low, high, count)


def _limits(axes: Axes, fit: FitResult) -> None:
    """Room for the points, the law and as much of the prediction band as leaves them readable."""
    ys = [end for point in fit.points for end in (point.low, point.high)]
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


def _ticks(axes: Axes, fit: FitResult) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    def powers(low: float, high: float) -> list[float]:
        first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / 9))
        return [2.0**e for e in range(first, last + 1, step)]

    if fit.x_scale == "log2":
        places = powers(*axes.get_xlim())
        axes.xaxis.set_major_locator(FixedLocator(places) if len(places) > 2 else MaxNLocator(6))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    if fit.scale != "log2":
        return
    ticks = powers(*axes.get_ylim())
    # Under two octaves powers of 2 leave an axis nearly bare; round decimal numbers serve better.
    axes.yaxis.set_major_locator(FixedLocator(ticks) if len(ticks) > 2 else MaxNLocator(6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: readable(value) if value < 1000 else f"{value:.0f}")
    )


def _short(value: float) -> str:
    """256, 1k, 64k, 1M as in the field: a k is 1024 there."""
    for size, letter in ((2.0**20, "M"), (2.0**10, "k")):
        if value >= size and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _words(axes: Axes, fit: FitResult) -> None:
    if fit.slope is None:
        text = _folded(fit)
    else:
        low, high = fit.slope_interval()
        r2 = "" if fit.r2 is None else f"R² {fit.r2:.3f}   "
        slope = f"slope {readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"
        text = f"{_pretty(equation(fit))}\n{r2}{slope}   n {fit.n}".replace("-", "−")
    axes.annotate(
        text,
        (0, 1),
        (0, 9),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=10,
        color=_SOFT,
        va="bottom",
        linespacing=1.35,
    )
    if fit.slope is not None and fit.warnings:
        codes = dict.fromkeys(warning.code.replace("_", " ") for warning in fit.warnings)
        falling = fit.slope.estimate < 0
        axes.annotate(
            "doubts: " + "\n".join(codes),
            (0.02 if falling else 0.98, 0.03),
            xycoords="axes fraction",
            fontsize=8.5,
            color="#a05a00",
            ha="left" if falling else "right",
            linespacing=1.3,
        )


def _pretty(text: str) -> str:
    return text.replace("log2", "log₂").replace(")^2", ")²")


def _folded(fit: FitResult) -> str:
    import textwrap

    return textwrap.fill(f"not fitted: {fit.warnings[0].message}", 52)


# ------------------------------------------------------------------------------ around the panels


def _around(drawn: Figure, fits: Sequence[FitResult], style: _Style, title: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def dot(marker: str, color: Any, label: str) -> Line2D:
        return Line2D(
            [], [], marker=marker, color=color, linestyle="none", markersize=8, label=label
        )

    points = [
        dot(marker, _SOFT, f"{style.marker_of} {value}") for value, marker in style.markers.items()
    ]
    points += [
        dot("o", color, f"{style.color_of} {value}") for value, color in style.colors.items()
    ]
    law: list[Any] = [
        Line2D([], [], color=_LINE, linewidth=2, label="law"),
        Patch(color="#31688e", alpha=0.28, label="95 % of the law"),
        Patch(color="#31688e", alpha=0.1, label="95 % of a new configuration"),
    ]
    width, inches = (float(side) for side in drawn.get_size_inches())
    lines = _lines([*points, *law], width)
    if len(lines) > 1:
        lines = [*_lines(points, width), law]
    for index, keys in enumerate(reversed(lines)):
        drawn.legend(
            handles=keys,
            loc="lower center",
            ncols=len(keys),
            frameon=False,
            fontsize=10,
            handletextpad=0.4,
            columnspacing=1.3,
            bbox_to_anchor=(0.5, (0.04 + 0.28 * index) / inches),
        )
    foot, room = 0.35 + 0.28 * len(lines), 0.72 if title else 0.12
    if title:
        drawn.text(
            0.012, 1 - 0.2 / inches, title, fontsize=17, fontweight="bold", va="top", ha="left"
        )
        drawn.text(
            0.988, 1 - 0.26 / inches, _basis(fits), fontsize=10, color=_SOFT, va="top", ha="right"
        )
    drawn.tight_layout(rect=(0.004, foot / inches, 0.996, 1 - room / inches), w_pad=2.4, h_pad=2.2)


def _lines(keys: Sequence[Any], width: float) -> list[list[Any]]:
    """Keys of a legend in lines of at most `width` inches."""
    lines: list[list[Any]] = [[]]
    used = 0.0
    for key in keys:
        needed = 0.58 + 0.088 * len(str(key.get_label()))
        if lines[-1] and used + needed > width:
            lines.append([])
            used = 0.0
        lines[-1].append(key)
        used += needed
    return lines


def _basis(fits: Sequence[FitResult]) -> str:
    """Whose numbers these are, where all panels agree on it."""
    counts = {fit.n for fit in fits if fit.n}
    seeds = {fit.seeds for fit in fits if fit.n}
    samples = {fit.n_samples for fit in fits if fit.n_samples}
    parts = []
    if len(counts) == 1:
        count = counts.pop()
        parts.append(f"{count} configuration{'s' if count > 1 else ''}")
    if len(seeds) == 1:
        low, high = seeds.pop()
        if high > 1:
            parts.append(
                f"means of {low if low == high else f'{low} to {high}'} seeds, bars span them"
            )
    if len(samples) == 1:
        parts.append(f"{samples.pop()} samples each")
    return "   ·   ".join(parts)
