"""How do all figures look? Colours, markers, axes, and how a figure becomes files.

Markers and colours mean the same settings in every panel and every figure of an analysis; both say
enough alone in grey and to colour-blind readers. Figures are drawn without pyplot under settings of
our own, so that a user's matplotlibrc changes nothing and the same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import FitResult, Point, readable, unit_of
from sweepctl.errors import UsageError
from sweepctl.study import DERIVED
from vitok_core.protocols import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
"""What a figure can be written as."""

INK, SOFT, LINE, PALE = "#14181f", "#5b6472", "#30363f", "#e6e9ee"
BLUE, ORANGE = "#31688e", "#c4621c"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_UNSHOWN = frozenset(DERIVED) | {"training_flops"}
_WIDTH_PX = 1600


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
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


def style_of(points: Sequence[Point], xs: Sequence[str] = ()) -> Style:
    """Markers and colours for the first settings that vary; not for variables on the axes."""
    import matplotlib as mpl

    skipped = _UNSHOWN | set(xs)
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
    return Style(marker_of=marker_of, color_of=color_of, markers=markers, colors=colors)


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def look(point: Point, style: Style) -> tuple[str, Any]:
    """Marker and colour of a point."""
    marker = style.markers.get(_value(point.settings.get(style.marker_of)), "o")
    return marker, style.colors.get(_value(point.settings.get(style.color_of)), BLUE)


def dot(
    axes: Axes, x: float, y: float, point: Point, style: Style, *, hollow: bool = False
) -> None:
    """Draw one configuration."""
    marker, color = look(point, style)
    axes.plot(
        x,
        y,
        marker=marker,
        color=color,
        markersize=9 if marker != "o" else 9.5,
        markerfacecolor="none" if hollow else color,
        markeredgecolor=color if hollow else "white",
        markeredgewidth=1.5 if hollow else 1.0,
        linestyle="none",
        zorder=4,
    )


def keys_of(style: Style) -> list[Any]:
    """Legend entries that say what markers and colours mean."""
    from matplotlib.lines import Line2D

    def key(marker: str, color: Any, label: str) -> Line2D:
        return Line2D(
            [], [], marker=marker, color=color, linestyle="none", markersize=8, label=label
        )

    keys = [key(marker, SOFT, f"{style.marker_of} {v}") for v, marker in style.markers.items()]
    return keys + [key("o", color, f"{style.color_of} {v}") for v, color in style.colors.items()]


def legend(drawn: Figure, points: Sequence[Any], others: Sequence[Any]) -> float:
    """One legend under all panels; gives the room that it takes, in inches."""
    width = float(drawn.get_size_inches()[0])
    inches = float(drawn.get_size_inches()[1])
    lines = [line for line in _lines([*points, *others], width) if line]
    if len(lines) > 1 and others and points:
        lines = [*_lines(points, width), list(others)]
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
    return 0.35 + 0.28 * len(lines) if lines else 0.1


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


def heading(drawn: Figure, title: str, basis: str, foot: float) -> None:
    """Title and basis above the panels, and the panels into the room between."""
    inches = float(drawn.get_size_inches()[1])
    room = 0.72 if title else 0.12
    if title:
        drawn.text(0.012, 1 - 0.2 / inches, title, fontsize=17, fontweight="bold", va="top")
        at: dict[str, Any] = {"fontsize": 10, "color": SOFT, "va": "top", "ha": "right"}
        drawn.text(0.988, 1 - 0.26 / inches, basis, **at)
    drawn.tight_layout(rect=(0.004, foot / inches, 0.996, 1 - room / inches), w_pad=2.4, h_pad=2.2)


def basis_of(fits: Sequence[FitResult], condition: str = "") -> str:
    """Whose numbers these are, where all panels agree on it."""
    counts = {fit.n for fit in fits if fit.n}
    seeds = {fit.seeds for fit in fits if fit.n}
    samples = {fit.n_samples for fit in fits if fit.n_samples}
    parts = [f"only where {condition}"] if condition else []
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


# -------------------------------------------------------------------------------------------- axes


def name_of(column: str) -> str:
    """A variable as an axis calls it."""
    names = {
        "E": "E  (floating points in the code)",
        "training_flops": "training compute  [FLOPs]",
        "encoder_parameters": "encoder parameters",
        "decoder_parameters": "decoder parameters",
    }
    return names.get(column, label_of(column))


def title_of(fit: FitResult) -> str:
    """What a panel shows: the metric, its data set, and which of its values."""
    where = "".join(f", {name} {value}" for name, value in fit.where.items())
    return f"{fit.metric} on {fit.on}{where}"


def label_of(metric: str) -> str:
    """A metric with its unit and its direction."""
    unit = unit_of(metric).strip()
    better = f",  {METRICS[metric].better} is better" if metric in METRICS else ""
    return f"{metric}{f' [{unit}]' if unit else ''}{better}"


def powers_of_two(low: float, high: float) -> list[float]:
    """At most nine powers of two between two numbers."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 9))
    return [2.0**e for e in range(first, last + 1, step)]


def log_ticks(axes: Axes, which: str, shown: Any = None) -> None:
    """Powers of 2 on a logarithmic axis; powers of 10 where they span a lot, round ones for less.

    Args:
        axes: the panel; the limits of the axis are settled.
        which: "x" or "y".
        shown: how a tick is written.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ticks = powers_of_two(low, high)
    # Under two octaves powers of 2 leave an axis nearly bare; round decimal numbers serve better.
    axis.set_major_locator(FixedLocator(ticks) if len(ticks) > 2 else MaxNLocator(5))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: (shown or plain)(value)))


def x_ticks(axes: Axes, column: str) -> None:
    """Ticks of a logarithmic x axis as people count the variable."""
    if column.endswith("flops"):
        _powers_of_ten(axes)
    else:
        log_ticks(axes, "x", short)


def _powers_of_ten(axes: Axes) -> None:
    """1e18, 1e19, ... as people count operations; 1, 2, 5 of each where there are few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = axes.get_xlim()
    span = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**power for power in span if low <= 10.0**power <= high]
    if len(ticks) < 3:
        ticks = [n * 10.0**k for k in span for n in (1, 2, 5) if low <= n * 10.0**k <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / 9) or 1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0e}".replace("e+", "e"))
    )


def plain(value: float) -> str:
    """A tick of a metric."""
    return readable(value) if value < 1000 else f"{value:.0f}"


def short(value: float) -> str:
    """256, 1k, 64k, 1M as in the field: a k is 1024 there."""
    for size, letter in ((2.0**20, "M"), (2.0**10, "k")):
        if value >= size and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value:g}" if value < 1e6 else f"{value:.3g}"


def note(axes: Axes, text: str) -> None:
    """A line of words between a panel's title and its frame."""
    axes.annotate(
        text.replace("-", "−").replace("log2", "log₂").replace(")^2", ")²"),
        (0, 1),
        (0, 9),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=10,
        color=SOFT,
        va="bottom",
        linespacing=1.35,
    )


def empty(axes: Axes, text: str) -> None:
    """A panel that says why it shows nothing."""
    import textwrap

    folded = textwrap.fill(text, 52)
    axes.text(0.5, 0.5, folded, transform=axes.transAxes, ha="center", va="center", color=SOFT)
    axes.set_xticks([])
    axes.set_yticks([])


# ------------------------------------------------------------------------------------------- files


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
                "axes.labelcolor": INK,
                "axes.linewidth": 0.9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "text.color": INK,
                "xtick.color": SOFT,
                "ytick.color": SOFT,
                "figure.facecolor": "white",
            }
        )
        yield


def canvas(width: float, height: float) -> Figure:
    """A figure to draw on, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height))
    FigureCanvasAgg(drawn)
    return drawn


def panels_of(count: int) -> tuple[int, int, float, float]:
    """Rows, columns, width of the figure and height of a row, in inches, for a number of panels."""
    columns = min(count, 3) if count != 4 else 2
    width, height = {1: (9.0, 6.4), 2: (13.0, 5.6), 3: (16.0, 5.2)}[columns]
    return math.ceil(count / columns), columns, width, height


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


def write(drawn: Figure, out: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
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
    with writing(out.parent):
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
