"""Figures as PNG, SVG and PDF files.

They are drawn without pyplot and under settings of our own, so that a user's matplotlibrc changes
nothing and the same numbers give the same bytes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import UsageError
from sweepctl.figures import _model as model
from sweepctl.figures._style import CROWD, MARKERS, tick_text, ticks_at, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
"""What a figure can be written as."""

_INK, _TEXT, _SOFT, _PALE, _WARNING = "#30363f", "#14181f", "#5b6472", "#e6e9ee", "#a05a00"
_WIDTH_PX = 1600
_DASHES: dict[str, Any] = {"": "-", "dash": (0, (4, 3)), "dot": (0, (1, 1.5))}
_MARKERS = dict(zip(MARKERS, "os^DvPX*<>h", strict=True))


def formats_of(text: str | None) -> tuple[str, ...]:
    """Formats of figures from a list with commas; PNG and SVG for None.

    Raises:
        UsageError: one of them is unknown.
    """
    names = ("png", "svg") if text is None else tuple(part.strip() for part in text.split(","))
    if unknown := [name for name in names if name not in FORMATS]:
        raise UsageError(
            f"a figure cannot be written as {unknown[0]!r}",
            hint=f"one or several of {', '.join(FORMATS)}, comma-separated",
        )
    return names


def write(figure: model.Figure, out: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a figure as `out`.png (1600 px wide) and so on.

    Raises:
        UsageError: the folder cannot be written.
    """
    # No file may hold a date or a version: the same numbers give the same bytes.
    unsaid: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    files = []
    with settings(), writing(out.parent):
        drawn = draw(figure)
        out.parent.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(formats):
            file = out.with_name(f"{out.name}.{name}")
            dpi = _WIDTH_PX / float(drawn.get_size_inches()[0])
            drawn.savefig(file, dpi=dpi, metadata=unsaid[name])
            files.append(file)
    return files


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
def settings() -> Iterator[None]:
    """Our own settings of matplotlib while a figure is drawn."""
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
                "axes.labelcolor": _TEXT,
                "axes.linewidth": 0.9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "text.color": _TEXT,
                "xtick.color": _SOFT,
                "ytick.color": _SOFT,
                "figure.facecolor": "white",
            }
        )
        yield


def draw(figure: model.Figure) -> Figure:
    """A figure of the model as one of matplotlib, on a canvas without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns, width, height = figure.layout()
    drawn = Figure(figsize=(width, rows * height + 1.2))
    FigureCanvasAgg(drawn)
    every = list(drawn.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(every, figure.panels, strict=False):
        _panel(axes, panel)
    for axes in every[len(figure.panels) :]:
        axes.set_axis_off()
    foot = _legend(drawn, figure)
    inches = rows * height + 1.2
    if figure.title:
        place: dict[str, Any] = {"fontsize": 17, "fontweight": "bold", "va": "top"}
        drawn.text(0.012, 1 - 0.2 / inches, figure.title, **place)
        place = {"fontsize": 10, "color": _SOFT, "va": "top", "ha": "right"}
        drawn.text(0.988, 1 - 0.26 / inches, figure.basis, **place)
    room = 0.72 if figure.title else 0.12
    drawn.tight_layout(rect=(0.004, foot / inches, 0.996, 1 - room / inches), w_pad=2.4, h_pad=2.2)
    return drawn


def _color(color: str) -> str:
    return {model.INK: _INK, model.SOFT: _SOFT}.get(color, color)


def _sign(marker: str, *, hollow: bool) -> str:
    # An x without its inside is two strokes.
    return "x" if marker == "x" and hollow else _MARKERS[marker]


# --------------------------------------------------------------------------------------- a panel


def _panel(axes: Axes, panel: model.Panel) -> None:
    pad = 44 if panel.note else 12
    axes.set_title(panel.title, loc="left", fontweight="bold", fontsize=13, pad=pad)
    axes.set_xlabel(panel.x.title)
    axes.set_ylabel(panel.y.title)
    if panel.empty:
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, textwrap.fill(panel.empty, 52), color=_SOFT, **place)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for name, axis in (("x", panel.x), ("y", panel.y)):
        if axis.log:
            base = 10 if axis.ticks == "decades" else 2
            getattr(axes, f"set_{name}scale")("log", base=base)
    axes.margins(0.07)
    if panel.x.limits is not None:
        axes.set_xlim(*panel.x.limits)
    if panel.y.limits is not None:
        axes.set_ylim(*panel.y.limits)
    if panel.shade is not None:
        _shade(axes, panel.shade)
    else:
        axes.grid(color=_PALE, linewidth=0.8, axis=panel.grid)
        axes.set_axisbelow(True)
    _areas(axes, panel)
    for series in panel.series:
        if not series.hidden:
            _series(axes, series, crowded=len(series.dots) >= CROWD, inside=panel.shade is None)
    _ticks(axes, "x", panel.x)
    _ticks(axes, "y", panel.y)
    _words(axes, panel)


def _areas(axes: Axes, panel: model.Panel) -> None:
    """What lies behind the points."""
    for order, band in enumerate(panel.bands):
        look: dict[str, Any] = {"color": model.BLUE, "alpha": band.opacity, "linewidth": 0}
        axes.fill_between(band.x, band.low, band.high, zorder=1 + 0.1 * order, **look)
    for order, line in enumerate(panel.lines):
        shape = {"drawstyle": "steps-post"} if line.step else {}
        look = {"color": _color(line.color), "linewidth": line.width, **shape}
        look |= {"linestyle": _DASHES[line.dash], "zorder": 2.4 + 0.01 * order}
        look |= {"solid_capstyle": "butt"}
        axes.plot(line.x, line.y, **look)


def _series(axes: Axes, series: model.Series, *, crowded: bool, inside: bool) -> None:
    color = _color(series.color)
    for dot in series.dots:
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.x, dot.x], [dot.low, dot.high], color=color, linewidth=1.4, zorder=3)
        axes.plot(
            dot.x,
            dot.y,
            marker=_sign(dot.marker, hollow=dot.hollow),
            color=color,
            markersize=4 if crowded else 9,
            markerfacecolor="none" if dot.hollow else color,
            markeredgecolor=color if dot.hollow else "white",
            markeredgewidth=1.4 if dot.hollow else 1.0,
            linestyle="none",
            clip_on=inside,
            zorder=4,
        )
        if dot.label:
            _label(axes, dot, inside=inside)


def _label(axes: Axes, dot: model.Dot, *, inside: bool) -> None:
    """Words next to a point: below it near the top of the panel; framed on a shaded surface."""
    look: dict[str, Any] = {"fontsize": 9, "textcoords": "offset points", "zorder": 5}
    offset = (7, -3)
    if inside:
        height = axes.transAxes.inverted().transform(axes.transData.transform((dot.x, dot.y)))[1]
        offset = (7, 5 if height < 0.85 else -13)
    else:
        look["bbox"] = {"boxstyle": "round,pad=0.15", "facecolor": "white", "linewidth": 0}
        look["annotation_clip"] = False
    axes.annotate(dot.label, (dot.x, dot.y), offset, **look)


def _shade(axes: Axes, shade: model.Shade) -> None:
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import ListedColormap

    values = np.asarray(shade.values)
    seen = np.log2(values) if shade.logged else values
    # Viridis mixed with white: see-through colors would show the seams of the grid.
    pale = ListedColormap(1 - 0.25 * (1 - mpl.colormaps["viridis"](np.linspace(0, 1, 256))))
    # As pixels also in SVG and PDF: thousands of shaded triangles would be slow to look at.
    look: dict[str, Any] = {"shading": "gouraud", "rasterized": True, "zorder": 0}
    axes.pcolormesh(shade.x, shade.y, seen, cmap=pale, **look)
    if shade.levels:
        look = {"levels": shade.levels, "colors": _INK, "linewidths": 1.3}
        lines = axes.contour(shade.x, shade.y, values, **look)
        axes.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize=9)


def _ticks(axes: Axes, name: str, axis: model.Axis) -> None:
    """Ticks of an axis; round numbers where powers of two leave it nearly bare."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    drawn = getattr(axes, f"{name}axis")
    if axis.names:
        drawn.set_ticks([at for at, _ in axis.names], [word for _, word in axis.names])
        drawn.set_tick_params(length=0)
    elif axis.ticks == "whole":
        drawn.set_major_locator(MaxNLocator(integer=True))
    elif axis.log:
        if axis.ticks != "decades":
            places = ticks_at(axis, getattr(axes, f"get_{name}lim")())
            few = len(places) < 3 and axis.ticks != "tens"
            drawn.set_major_locator(MaxNLocator(5) if few else FixedLocator(places))
        drawn.set_minor_locator(NullLocator())
        drawn.set_major_formatter(FuncFormatter(lambda value, _: tick_text(axis, value)))


def _words(axes: Axes, panel: model.Panel) -> None:
    if panel.note:
        look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        look |= {"fontsize": 10, "color": _SOFT, "va": "bottom", "linespacing": 1.35}
        axes.annotate(typeset(panel.note), (0, 1), (0, 9), **look)
    if panel.corner:
        look = {"xycoords": "axes fraction", "fontsize": 8.5, "color": _WARNING}
        look |= {"ha": "left" if panel.corner_left else "right", "linespacing": 1.3}
        axes.annotate(panel.corner, (0.02 if panel.corner_left else 0.98, 0.03), **look)


# ------------------------------------------------------------------------------------ the legend


def _handle(key: model.Key) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    color = _color(key.color)
    if key.opacity:
        return Patch(color=color, alpha=key.opacity, label=key.label)
    dots: dict[str, Any] = {"markersize": 8, "markerfacecolor": "none" if key.hollow else color}
    if key.marker:
        dots["marker"] = _sign(key.marker, hollow=key.hollow)
    dash: Any = _DASHES[key.dash] if key.line else "none"
    return Line2D([], [], color=color, linewidth=key.width, linestyle=dash, label=key.label, **dots)


def _legend(drawn: Figure, figure: model.Figure) -> float:
    """One legend under all panels; gives the room that it takes, in inches."""
    width, inches = map(float, drawn.get_size_inches())
    lines = _lines(figure.keys, width)
    if len(lines) > 1 and figure.points and figure.others:
        lines = [*_lines(figure.points, width), *_lines(figure.others, width)]
    for index, keys in enumerate(reversed(lines)):
        drawn.legend(
            handles=[_handle(key) for key in keys],
            loc="lower center",
            ncols=len(keys),
            frameon=False,
            fontsize=10,
            handletextpad=0.4,
            columnspacing=1.3,
            bbox_to_anchor=(0.5, (0.04 + 0.28 * index) / inches),
        )
    return 0.35 + 0.28 * len(lines) if lines else 0.1


def _lines(keys: Sequence[model.Key], width: float) -> list[list[model.Key]]:
    """Keys of a legend in lines of at most `width` inches."""
    lines: list[list[model.Key]] = []
    used = width
    for key in keys:
        needed = 0.58 + 0.088 * len(key.label)
        if used + needed > width:
            lines.append([])
            used = 0.0
        lines[-1].append(key)
        used += needed
    return lines
