"""One model of a figure: panels with axes, points, lines, bands and a legend, free of any library.

Every figure of sweepctl is built as these records once; `_matplotlib`, `_plotly` and `_terminal`
only translate them. Colors are hex codes, or `INK` and `SOFT`, which each renderer takes from its
background: dark on paper, light on a dark page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

INK, SOFT = "ink", "soft"
BLUE, ORANGE = "#31688e", "#c4621c"
"""Blue marks what a law says, orange what stands out; gray is what belongs to neither."""

NEW, MEAN = "new configuration, 95 %", "law, 95 %"
"""Legend entries of the two bands."""

Dash = Literal["", "dash", "dot"]
Ticks = Literal["sizes", "values", "tens", "decades", "plain", "whole"]
"""sizes: powers of two as 64, 1k, 1M. values: powers of two of a metric. tens: 1e18, 1e19.
decades: powers of ten. plain: round numbers. whole: round integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One point of a figure.

    Attributes:
        x: where it is drawn, in the unit of the axis; points at equal x are set side by side.
        y: its value.
        marker: circle, square, triangle-up and so on; each renderer has its own sign for it.
        hollow: whether only its outline is drawn.
        low: lower end of its bar; None for no bar.
        high: upper end.
        label: words next to it.
        text: what a page shows when the mouse is over it; lines are separated by line breaks.
        cells: numbers of its cells; a click opens the first.
    """

    x: float
    y: float
    marker: str = "circle"
    hollow: bool = False
    low: float | None = None
    high: float | None = None
    label: str = ""
    text: str = ""
    cells: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one color, with one legend entry (none where `label` is empty).

    A `hidden` one is switched on by the reader where that is possible, and left out elsewhere.
    """

    label: str
    color: str
    dots: tuple[Dot, ...]
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line through points; what is not finite is a gap.

    Attributes:
        step: whether each y is kept until the next x.
        label: its legend entry; empty for none.
        hover: whether a page tells x and y where the mouse is.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    color: str = INK
    width: float = 2.0
    dash: Dash = ""
    step: bool = False
    label: str = ""
    hover: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The area between two curves over the same x; `BLUE`, mixed with the background."""

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    opacity: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shade:
    """A shaded surface with level lines: `values` has shape (len(y), len(x)), in plain floats."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    logged: bool
    levels: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis: its variable with unit and direction, its scale, and how values are counted.

    Without `limits` (smallest and largest value) the renderer chooses them; `names` are ticks with
    words: (place, word).
    """

    title: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None
    ticks: Ticks = "plain"
    names: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A legend entry: a marker, a line, or an area where `opacity` is above 0."""

    label: str
    color: str
    marker: str = ""
    hollow: bool = False
    line: bool = False
    width: float = 2.0
    dash: Dash = ""
    opacity: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot of a figure.

    Attributes:
        title: its heading.
        note: lines between heading and plot: the equation and its numbers.
        sentence: what it says, in one sentence; the heading of a plot in the terminal.
        corner: words in a lower corner: warnings.
        corner_left: in which of the two.
        empty: why nothing is drawn; empty when something is.
        x: the horizontal axis.
        y: the vertical axis.
        grid: along which axes grid lines are drawn.
    """

    title: str = ""
    note: str = ""
    sentence: str = ""
    corner: str = ""
    corner_left: bool = False
    empty: str = ""
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    grid: Literal["both", "x"] = "both"
    bands: tuple[Band, ...] = ()
    lines: tuple[Line, ...] = ()
    series: tuple[Series, ...] = ()
    shade: Shade | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels with a common legend.

    Attributes:
        panels: in reading order.
        points: legend entries that say what markers and colors mean.
        others: legend entries of lines and areas.
        title: heading of the whole figure.
        basis: whose numbers these are; next to the title.
        columns: panels per row; 0 lets their number decide.
        size: inches wide, inches per row; None lets the number of panels decide.
    """

    panels: tuple[Panel, ...]
    points: tuple[Key, ...] = ()
    others: tuple[Key, ...] = ()
    title: str = ""
    basis: str = ""
    columns: int = 0
    size: tuple[float, float] | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """The whole legend."""
        return (*self.points, *self.others)

    def layout(self) -> tuple[int, int, float, float]:
        """Rows, columns, width of the figure and height of a row, both in inches."""
        count = len(self.panels)
        columns = self.columns or (2 if count == 4 else min(count, 3))
        width, height = self.size or {1: (9.0, 6.4), 2: (13.0, 5.6), 3: (16.0, 5.2)}[columns]
        return math.ceil(count / columns), columns, width, height
