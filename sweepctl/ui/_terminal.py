"""What does the law look like without a browser? The scatter and the law in characters.

Braille dots draw the law and its 95 % band, letters the cells, one letter a value of the first
setting that varies. For people over ssh; in a pipe it is the same picture without colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import plotille

from sweepctl.errors import UsageError
from sweepctl.ui._figures import Choice, choices, marked, points_of
from sweepctl.ui._pages import axes_of
from sweepctl.ui._reading import Reader

if TYPE_CHECKING:
    from sweepctl.analyse import FitResult

_COLORS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_LETTERS = "ox+*#@%&"
_GRID = 61
LEAST_COLUMNS, LEAST_LINES = 40, 12


def terminal_plot(
    reader: Reader,
    study: str,
    *,
    show: str = "",
    columns: int = 100,
    lines: int = 30,
    color: bool = False,
) -> str:
    """A study's scatter with its law, as text.

    Args:
        reader: where the numbers come from.
        study: name of the study.
        show: name of a fit or of a metric; the first figure when empty.
        columns: width of the terminal.
        lines: height of the picture and its legend.
        color: whether escape codes may be used.

    Raises:
        UsageError: there is no such study or figure, or nothing was measured yet.
    """
    table = reader.table(study, wait=True)
    analysis, _ = reader.analysis(study, wait=True)
    offered = choices(reader.metrics(table), table.columns, analysis)
    if not offered:
        raise UsageError(
            f"nothing of {study} was measured yet",
            hint=f"sweepctl status {study} says how far it is",
        )
    choice = _chosen(offered, show)
    rows = points_of(table, choice)
    if not rows:
        raise UsageError(f"{study} has no value of {choice.column} yet")
    fit = next((one for one in analysis.fits if one.name == choice.fit), None) if analysis else None
    logged_x = fit.x_scale == "log2" if fit else min(row[choice.x] for row in rows) > 0
    logged_y = bool(fit and fit.scale == "log2")
    drawing: Any = plotille.Figure()
    drawing.with_colors = color
    drawing.origin = False
    drawing.width = max(LEAST_COLUMNS, columns) - max(10, len(choice.column) + 3) - 12
    drawing.height = max(LEAST_LINES, lines) - 9
    drawing.x_label, drawing.y_label = choice.x, choice.column
    drawing.x_ticks_fkt = _ticks(logged_x)
    drawing.y_ticks_fkt = _ticks(logged_y)
    drawing.set_x_limits(*_limits([_at(row[choice.x], logged_x) for row in rows]))
    heights = [_at(row[choice.column], logged_y) for row in rows]
    drawing.set_y_limits(*_limits(heights))
    if fit is not None and fit.fitted:
        _draw_law(drawing, fit, logged_x, logged_y)
    keys = []
    for number, (label, mine) in enumerate(
        marked(rows, list(axes_of(reader.standing(study))), choice)
    ):
        letter = _LETTERS[number % len(_LETTERS)]
        drawing.scatter(
            [_at(row[choice.x], logged_x) for row in mine],
            [_at(row[choice.column], logged_y) for row in mine],
            lc=_COLORS[number % len(_COLORS)] if color else None,
            marker=letter,
        )
        keys.append(f"{letter} {label}")
    head = choice.label
    if fit is not None:
        head = f"{fit.metric} on {fit.on}, n {fit.n}: {fit.meaning or fit.reason}"
    if fit is not None and fit.fitted:
        keys.append("lines: the law and its 95 % interval")
    return f"{head}\n\n{drawing.show(legend=False)}\n\n{'   '.join(keys)}\n"


def _chosen(offered: Sequence[Choice], show: str) -> Choice:
    if not show:
        return offered[0]
    for choice in offered:
        if show in (choice.name, choice.fit, choice.column):
            return choice
    names = ", ".join(dict.fromkeys(choice.fit or choice.column for choice in offered))
    raise UsageError(f"there is no fit or metric {show!r} to plot", hint=f"there are: {names}")


def _at(value: float, logged: bool) -> float:
    return math.log2(value) if logged and value > 0 else float(value)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def _ticks(logged: bool) -> Any:
    def text(low: float, high: float) -> str:
        value, after = (2.0**low, 2.0**high) if logged else (low, high)
        step = abs(after - value) or 1.0
        # As many digits as two neighbours need to differ.
        return f"{value:.{max(0, math.ceil(-math.log10(step)))}f}"

    return text


def _draw_law(drawing: Any, fit: FitResult, logged_x: bool, logged_y: bool) -> None:
    import numpy as np

    from sweepctl.analyse import bands

    low, high = fit.points[0].x, fit.points[-1].x
    grid = np.geomspace(low, high, _GRID) if logged_x else np.linspace(low, high, _GRID)
    band = bands(fit, grid)
    for values in (band.mean, band.mean_low, band.mean_high):
        places = [(_at(x, logged_x), _at(y, logged_y)) for x, y in zip(grid, values, strict=True)]
        drawing.plot([x for x, _ in places], [y for _, y in places])
