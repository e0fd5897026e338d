"""Panels in characters, for people over ssh; in a pipe the same picture without color.

Braille dots draw the law and its 95 % band, letters the points, one letter per marker. Panels are
side by side as far as the terminal is wide, and below each other after that.
"""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Callable, Sequence

from sweepctl.figures._model import BLUE, INK, SOFT, Axis, Figure, Key, Panel
from sweepctl.figures._style import MARKERS, limits_of, rgb

_LETTERS = dict(zip(MARKERS, "ox+*#@%&<>h", strict=True))
LEAST_COLUMNS, LEAST_LINES = 40, 12

SIDE_BY_SIDE = 64
"""Columns that a panel needs to stand next to another one."""

_GAP = 4
_ESCAPES = re.compile(r"\x1b\[[\d;]*m")


def terminal(figure: Figure, *, columns: int = 100, lines: int = 30, color: bool = False) -> str:
    """A figure as text: its panels, each under what it says, and one legend.

    Args:
        figure: what is drawn.
        columns: width of the terminal.
        lines: height of a panel and the legend.
        color: whether escape codes may be used.
    """
    if len(figure.panels) == 1:
        (panel,) = figure.panels
        body = f"{_head(panel)}\n\n{_panel(panel, columns, lines, color=color)}"
        bare = not _shown(panel)
    else:
        row = min(figure.layout()[1], max(1, columns // SIDE_BY_SIDE))
        wide = max(LEAST_COLUMNS, (columns - _GAP * (row - 1)) // row)
        drawn = [_block(panel, wide, lines, color=color) for panel in figure.panels]
        rows = [drawn[at : at + row] for at in range(0, len(drawn), row)]
        title = [f"{figure.title}   {figure.basis}".strip()] if figure.title else []
        body = "\n\n".join([*title, *("\n".join(_beside(row, wide)) for row in rows)])
        bare = not any(map(_shown, figure.panels))
    if bare:
        return f"{body}\n"
    inner = {panel.bands[-1].label for panel in figure.panels if panel.bands}
    keys = [_key(key, color) for key in figure.keys if _is_drawn(key, inner, color)]
    return f"{body}\n\n{_wrapped(keys, columns)}\n"


def _head(panel: Panel) -> str:
    return panel.sentence or panel.title or panel.y.title


def _shown(panel: Panel) -> bool:
    """Whether there is anything to draw."""
    dots = any(one.dots for one in panel.series if not one.hidden)
    return not panel.empty and (dots or bool(panel.lines))


def _block(panel: Panel, columns: int, lines: int, *, color: bool) -> list[str]:
    """A panel of several: its heading in at most three lines, then the picture."""
    head = textwrap.wrap(_head(panel), columns, max_lines=3, placeholder=" ...")
    drawn = _panel(panel, columns, lines, color=color).splitlines()
    return [*head, *[""] * (4 - len(head)), *drawn]


def _beside(blocks: Sequence[Sequence[str]], wide: int) -> list[str]:
    """Blocks of lines next to each other; escape codes have no width."""

    def padded(line: str) -> str:
        return line + " " * (wide + _GAP - len(_ESCAPES.sub("", line)))

    rows = itertools.zip_longest(*blocks, fillvalue="")
    return ["".join(map(padded, row)).rstrip() for row in rows]


def _wrapped(keys: Sequence[str], columns: int) -> str:
    """The legend, in as many lines as it needs."""
    made = [""]
    for key in keys:
        longer = f"{made[-1]}   {key}" if made[-1] else key
        if made[-1] and len(_ESCAPES.sub("", longer)) > columns:
            made.append(key)
        else:
            made[-1] = longer
    return "\n".join(made)


def _panel(panel: Panel, columns: int, lines: int, *, color: bool) -> str:
    """The picture of one panel; why there is none where nothing can be drawn."""
    import plotille

    if not _shown(panel):
        return panel.empty or "nothing to draw"
    drawing = plotille.Figure()
    drawing.color_mode = "byte"
    drawing.with_colors = color
    drawing.origin = False
    x_label, y_label = _short(panel.x), _short(panel.y)
    drawing.width = max(LEAST_COLUMNS, columns) - max(10, len(y_label) + 3, len(x_label) + 3) - 12
    drawing.height = max(LEAST_LINES, lines) - 9
    drawing.x_label, drawing.y_label = x_label, y_label
    drawing.x_ticks_fkt, drawing.y_ticks_fkt = _ticks(panel.x), _ticks(panel.y)
    across, up = _places(panel.x), _places(panel.y)
    x_limits, y_limits = limits_of(panel)
    drawing.set_x_limits(*map(across, x_limits))
    drawing.set_y_limits(*map(up, y_limits))

    def curve(xs: Sequence[float], ys: Sequence[float], shade: str) -> None:
        kept = [(across(x), up(y)) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        drawing.plot([x for x, _ in kept], [y for _, y in kept], lc=_color(shade, color))

    for band in panel.bands[-1:]:  # of several the innermost: more lines would hide the points
        curve(band.x, band.low, BLUE)
        curve(band.x, band.high, BLUE)
    for line in panel.lines:
        xs, ys = _corners(line.x, line.y) if line.step else (line.x, line.y)
        curve(xs, ys, line.color)
    for one in (one for one in panel.series if not one.hidden):
        for marker in dict.fromkeys(dot.marker for dot in one.dots):
            mine = [dot for dot in one.dots if dot.marker == marker]
            drawing.scatter(
                [across(dot.x) for dot in mine],
                [up(dot.y) for dot in mine],
                lc=_color(one.color, color),
                marker=_LETTERS[marker],
            )
        for dot in (dot for dot in one.dots if dot.label):
            words = f" {dot.label}"  # the point itself comes first
            drawing.text([across(dot.x)], [up(dot.y)], [_LETTERS[dot.marker] + words])
    return str(drawing.show(legend=False))


def _corners(xs: Sequence[float], ys: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """A line of steps with its corners: each y is kept until the next x."""
    pairs = list(zip(xs, ys, strict=True))
    between = [[(x, y), (after, y)] for (x, y), (after, _) in itertools.pairwise(pairs)]
    every = [*itertools.chain.from_iterable(between), *pairs[-1:]]
    return [x for x, _ in every], [y for _, y in every]


def _is_drawn(key: Key, bands: set[str], color: bool) -> bool:
    """Whether the picture shows what a legend entry is about."""
    if key.opacity:
        return key.label in bands
    return color or key.line or key.color == SOFT


def _key(key: Key, color: bool) -> str:
    import plotille

    sign = _LETTERS[key.marker] if key.marker else "─"
    return f"{plotille.color(sign, fg=_color(key.color, color), mode='byte')} {key.label}"


def _color(code: str, color: bool) -> int | None:
    """One of a terminal's 256 colors; the lines of laws keep the terminal's own."""
    from plotille._colors import rgb2byte

    return rgb2byte(*rgb(code)) if color and code not in (INK, SOFT) else None


def _short(axis: Axis) -> str:
    return axis.title.partition(",")[0].partition(" [")[0]


def _places(axis: Axis) -> Callable[[float], float]:
    return (lambda value: math.log2(max(value, 5e-324))) if axis.log else float


def _ticks(axis: Axis) -> Callable[[float, float], str]:
    def text(low: float, high: float) -> str:
        value, after = (2.0**low, 2.0**high) if axis.log else (low, high)
        step = abs(after - value) or 1.0
        # As many digits as two neighbors need to differ.
        return f"{value:.{max(0, math.ceil(-math.log10(step)))}f}"

    return text
