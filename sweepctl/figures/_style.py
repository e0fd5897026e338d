"""What all figures share: markers and colors by setting, axes with their ticks and titles.

A marker shows one setting and a color another, the same in every panel of a figure and in every
renderer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import FitResult, better_of, readable, unit_of
from sweepctl.columns import DERIVED
from sweepctl.errors import UsageError
from sweepctl.figures._model import BLUE, SOFT, Axis, Dash, Dot, Key, Line, Panel, Series, Ticks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PALETTE = ("#355f8d", "#2b748e", "#23888e", "#1e9c89", "#2ab07f", "#4cc26c", "#7ad151")
"""From few to many: the part of viridis that has contrast on white and on near-black. Its lightness
rises evenly, so that it also reads in grayscale and to colorblind readers."""

MARKERS = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("cross", "x", "star", "triangle-left", "triangle-right", "hexagon"),
)
CROWD = 200
"""Number of points from which on they are drawn smaller and no longer side by side."""

GRID = 241
"""Points of a drawn law."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What markers and colors mean: one setting each, empty where none is left to show.

    Attributes:
        marker_of: setting shown by the marker.
        color_of: setting shown by the color.
        markers: marker by value, in the order of the values.
        colors: color by value.
        varying: all settings that differ between the points.
    """

    marker_of: str = ""
    color_of: str = ""
    markers: Mapping[str, str] = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    varying: tuple[str, ...] = ()

    def marker(self, settings: Mapping[str, Any]) -> str:
        """The marker of a point."""
        return self.markers.get(written(settings.get(self.marker_of)), "circle")

    def told(self, settings: Mapping[str, Any]) -> str:
        """What tells a point from the others: "p 8, c 16"."""
        names = [name for name in self.varying if name in settings]
        return ", ".join(f"{name} {written(settings[name])}" for name in names)

    def keys(self) -> tuple[Key, ...]:
        """The legend entries of markers and colors."""
        marks = [(f"{self.marker_of} {v}", SOFT, mark) for v, mark in self.markers.items()]
        colors = [(f"{self.color_of} {v}", color, "circle") for v, color in self.colors.items()]
        return tuple(Key(label=a, color=b, marker=c) for a, b, c in (*marks, *colors))

    def series(self, dots: Iterable[tuple[Mapping[str, Any], Dot]]) -> tuple[Series, ...]:
        """Points by the color of their settings; a single series where no color means anything."""
        every = [(written(settings.get(self.color_of)), dot) for settings, dot in dots]
        if not self.colors:
            mine = tuple(dot for _, dot in every)
            return (Series(label="", color=BLUE, dots=mine),) if mine else ()
        made = []
        for value, color in self.colors.items():
            mine = tuple(dot for of, dot in every if of == value)
            made.append(Series(label=f"{self.color_of} {value}", color=color, dots=mine))
        return tuple(one for one in made if one.dots)


_UNSHOWN = frozenset(DERIVED) | {"training_flops", "seed", "cell"}


def look_of(every: Sequence[Mapping[str, Any]], skipped: Iterable[str] = ()) -> Look:
    """Markers and colors for the first settings that vary.

    Args:
        every: the settings of all points.
        skipped: variables that the axes already show.
    """
    hidden = _UNSHOWN | set(skipped)
    names = dict.fromkeys(["p", "c", "q", "encoder", "decoder"])
    names |= dict.fromkeys(name for settings in every for name in settings)
    levels = {name: {written(one.get(name)) for one in every} for name in names}
    varying = tuple(n for n in names if n not in hidden and len(levels[n]) > 1)
    marker_of = next((name for name in varying if name != "c"), "")
    color_of = next((name for name in varying if name != marker_of), "")

    def values(name: str) -> list[str]:
        found = {written(one.get(name)): one.get(name) for one in every} if name else {}
        return sorted(found, key=lambda text: _order(found[text]))

    shown = values(color_of)
    return Look(
        marker_of=marker_of,
        color_of=color_of,
        markers={v: MARKERS[i % len(MARKERS)] for i, v in enumerate(values(marker_of))},
        colors={value: color_at(i, len(shown)) for i, value in enumerate(shown)},
        varying=varying,
    )


def keys_of(series: Sequence[Series]) -> tuple[Key, ...]:
    """Legend entries of named series with a marker of their own, as far as they are shown."""
    return tuple(
        Key(label=one.label, color=one.color, marker=dot.marker, hollow=dot.hollow)
        for one in series
        if one.label and not one.hidden
        for dot in one.dots[:1]
    )


def color_at(index: int, count: int) -> str:
    """The color of one of `count` ordered values, mixed from its neighbors in `PALETTE`."""
    place = index * (len(PALETTE) - 1) / max(count - 1, 1)
    low, high = PALETTE[math.floor(place)], PALETTE[math.ceil(place)]
    share = place - math.floor(place)
    parts = zip(rgb(low), rgb(high), strict=True)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in parts)


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a hex code."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def written(value: Any) -> str:
    """A setting as a legend writes it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (not number, float(value) if number else 0.0, str(value))


def typeset(note: str) -> str:
    """A note as print has it: minus signs, a small 2 under a log and above a bracket."""
    return note.replace("-", "−").replace("log2", "log₂").replace(")^2", ")²")


def floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    """An array as the model keeps it."""
    return tuple(values.tolist())


def side_by_side(xs: Sequence[float], *, logged: bool) -> list[float]:
    """Places on the x axis: points at equal x step aside, or they would hide each other."""
    places = list(xs)
    if not logged or not places or min(places) <= 0 or len(places) >= CROWD:
        return places
    equal: dict[float, list[int]] = {}
    for index, x in enumerate(xs):
        equal.setdefault(x, []).append(index)
    octaves = math.log2(max(xs) / min(xs)) + 1
    for x, indices in equal.items():
        for rank, index in enumerate(indices):
            places[index] = x * 2 ** (0.014 * octaves * (rank - (len(indices) - 1) / 2))
    return places


# -------------------------------------------------------------------------------------------- axes


def roomy(values: Sequence[float], *, logged: bool, room: float = 0.08) -> tuple[float, float]:
    """Limits around values with a share of their span as room at both ends."""
    seen = [math.log2(value) for value in values] if logged else list(values)
    span = max(seen) - min(seen) or 1.0
    low, high = min(seen) - room * span, max(seen) + room * span
    return (2.0**low, 2.0**high) if logged else (low, high)


def limits_of(panel: Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of both axes; where the model leaves them open, around what is seen."""
    dots = [dot for series in panel.series if not series.hidden for dot in series.dots]
    xs = [*(dot.x for dot in dots), *(x for line in panel.lines for x in line.x)]
    ys = [*(dot.y for dot in dots), *(y for line in panel.lines for y in line.y)]

    def around(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
        if axis.limits is not None:
            return axis.limits
        seen = [one for one in values if math.isfinite(one) and (one > 0 or not axis.log)]
        return roomy(seen or [1.0], logged=axis.log)

    return around(panel.x, xs), around(panel.y, ys)


def level(axis: Axis, share: float) -> float:
    """The value at a share of the height (or width) of an axis with limits."""
    low, high = axis.limits or (0.0, 1.0)
    return low * (high / low) ** share if axis.log else low + share * (high - low)


def upright(at: float, y: Axis, color: str, width: float, dash: Dash = "") -> Line:
    """A line across a panel at an x."""
    return Line(x=(at, at), y=y.limits or (0.0, 1.0), color=color, width=width, dash=dash)


def ticks_at(axis: Axis, limits: tuple[float, float]) -> list[float]:
    """Places of the ticks of a logarithmic axis: at most nine; few where round numbers do better.

    Args:
        axis: counts in sizes, values or tens.
        limits: smallest and largest value shown, both above 0.
    """
    low, high = limits
    if axis.ticks != "tens":
        first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
        return [2.0**e for e in range(first, last + 1, max(1, math.ceil((last - first + 1) / 9)))]
    span = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**power for power in span if low <= 10.0**power <= high]
    if len(ticks) < 3:
        ticks = [n * 10.0**k for k in span for n in (1, 2, 5) if low <= n * 10.0**k <= high]
    return ticks[:: math.ceil(len(ticks) / 9) or 1]


def tick_text(axis: Axis, value: float) -> str:
    """A tick as people write the variable: 256, 1k, 64k, 1M (a k is 1024), 1e18, 21.3."""
    if axis.ticks == "tens":
        return f"{value:.0e}".replace("e+", "e")
    if axis.ticks == "decades":
        return f"{value:g}"
    if axis.ticks != "sizes":
        return readable(value) if value < 1000 else f"{value:.0f}"
    for size, letter in ((2.0**20, "M"), (2.0**10, "k")):
        if value >= size and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value:g}" if value < 1e6 else f"{value:.3g}"


def variable_axis(column: str, *, log: bool, limits: tuple[float, float] | None = None) -> Axis:
    """The axis of a variable, with ticks as people count it."""
    titles = {
        "E": "E, floating-point numbers in the code",
        "training_flops": "training compute [FLOPs]",
        "encoder_parameters": "encoder parameters",
        "decoder_parameters": "decoder parameters",
    }
    ticks: Ticks = "tens" if column.endswith("flops") else "sizes"
    title = titles[column] if column in titles else labeled(column)
    return Axis(title=title, log=log, limits=limits, ticks=ticks if log else "plain")


def metric_axis(
    metric: str, *, log: bool, limits: tuple[float, float] | None = None, column: str = ""
) -> Axis:
    """The axis of a metric, named after its column where that says more."""
    title = labeled(metric, column)
    return Axis(title=title, log=log, limits=limits, ticks="values" if log else "plain")


def labeled(metric: str, column: str = "") -> str:
    """A metric with its unit and its direction; the name of any other column as words."""
    try:
        better = better_of(metric)
    except UsageError:
        return (column or metric).replace("_", " ")
    unit = unit_of(metric).strip()
    return f"{column or metric}{f' [{unit}]' if unit else ''}, {better} is better"


def title_of(fit: FitResult) -> str:
    """What a panel shows: the metric, its data set, and which of its values."""
    where = "".join(f", {name} {value}" for name, value in fit.where.items())
    return f"{fit.metric} on {fit.on}{where}"


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
            many = low if low == high else f"{low} to {high}"
            parts.append(f"means of {many} seeds, bars span them")
    if len(samples) == 1:
        parts.append(f"{samples.pop()} samples each")
    return "   ·   ".join(parts)
