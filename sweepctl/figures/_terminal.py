"""Panels in characters, for people over ssh; in a pipe the same picture without color.

Braille dots draw the law and its 95 % band, letters the points, one letter per marker.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sweepctl.figures._model import BLUE, INK, SOFT, Axis, Figure, Key
from sweepctl.figures._style import MARKERS, rgb, roomy

_LETTERS = dict(zip(MARKERS, "ox+*#@%&<>h", strict=True))
LEAST_COLUMNS, LEAST_LINES = 40, 12


def terminal(figure: Figure, *, columns: int = 100, lines: int = 30, color: bool = False) -> str:
    """The first panel of a figure as text.

    Args:
        figure: what is drawn.
        columns: width of the terminal.
        lines: height of the picture and its legend.
        color: whether escape codes may be used.
    """
    import plotille

    panel = figure.panels[0]
    series = [one for one in panel.series if not one.hidden and one.dots]
    if panel.empty or not series:
        return f"{panel.sentence or panel.title}\n\n{panel.empty or 'nothing to draw'}\n"
    dots = [dot for one in series for dot in one.dots]
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
    x_limits = panel.x.limits or roomy([dot.x for dot in dots], logged=panel.x.log)
    y_limits = panel.y.limits or roomy([dot.y for dot in dots], logged=panel.y.log)
    drawing.set_x_limits(*map(across, x_limits))
    drawing.set_y_limits(*map(up, y_limits))

    def curve(xs: tuple[float, ...], ys: tuple[float, ...], shade: str) -> None:
        kept = [(across(x), up(y)) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        drawing.plot([x for x, _ in kept], [y for _, y in kept], lc=_color(shade, color))

    for band in panel.bands[-1:]:  # of several the innermost: more lines would hide the points
        curve(band.x, band.low, BLUE)
        curve(band.x, band.high, BLUE)
    for line in panel.lines:
        curve(line.x, line.y, line.color)
    for one in series:
        for marker in dict.fromkeys(dot.marker for dot in one.dots):
            mine = [dot for dot in one.dots if dot.marker == marker]
            drawing.scatter(
                [across(dot.x) for dot in mine],
                [up(dot.y) for dot in mine],
                lc=_color(one.color, color),
                marker=_LETTERS[marker],
            )
    inner = panel.bands[-1].label if panel.bands else ""
    keys = [_key(key, color) for key in figure.keys if _is_drawn(key, inner, color)]
    head = panel.sentence or panel.title
    return f"{head}\n\n{drawing.show(legend=False)}\n\n{'   '.join(keys)}\n"


def _is_drawn(key: Key, band: str, color: bool) -> bool:
    """Whether the picture shows what a legend entry is about."""
    if key.opacity:
        return key.label == band
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
