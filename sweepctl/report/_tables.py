"""Tables and progress: aligned columns for a terminal, tab-separated rows for a pipe.

Nothing heavy is imported here: `sweepctl status` and `results` answer at once. `unicode=False`
replaces symbols by ASCII for terminals that cannot show them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["done", "running", "failed", "blocked", "pending"]

_SYMBOLS: Mapping[State, tuple[str, str]] = {
    "done": ("✓", "ok"),
    "running": ("▶", ">"),
    "failed": ("✗", "FAILED"),
    "blocked": ("⊘", "blocked"),
    "pending": ("·", "."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusCell:
    """One row of the progress grid.

    Attributes:
        number: number of the cell in the study.
        axes: axis values by short name, in the order of the study.
        E: floating point numbers in the code; None where a cell has none.
    """

    number: int
    axes: Mapping[str, Any] = field(default_factory=dict)
    E: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """Where one stage of one cell stands.

    Attributes:
        state: done, running, failed, blocked (a task it needs failed) or pending.
        fraction: share of a running task that is done, 0 to 1; None where it is not known.
    """

    state: State
    fraction: float | None = None


# ------------------------------------------------------------------------------------- results


def results_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    terminal: bool,
    width: int = 100,
    unicode: bool = True,
) -> str:
    """A table of results.

    On a terminal that is too narrow, columns with one value throughout move to a line above the
    table; what is still too wide is left whole, for the pager to scroll. In a pipe every row is
    tab-separated, numbers have all their digits, and what is missing is empty.

    Args:
        columns: names of the columns.
        rows: values, one sequence of len(columns) per row.
        terminal: whether a person reads it.
        width: columns of the terminal.
        unicode: whether the terminal shows more than ASCII.
    """
    if not terminal:
        return tab_separated(columns, rows)
    if not rows:
        return "no rows\n"
    shown = [[_shown(value) for value in row] for row in rows]
    table = _table(columns, shown, unicode=unicode)
    if max(map(len, table.splitlines())) <= width or len(rows) < 2:
        return table
    constant = [i for i in range(len(columns)) if len({row[i] for row in shown}) == 1]
    varying = [i for i in range(len(columns)) if i not in constant]
    if not constant or not varying:
        return table
    said = ", ".join(f"{columns[i]} {shown[0][i] or '(empty)'}" for i in constant)
    caption = textwrap.fill(f"in every row: {said}", width=width, subsequent_indent="  ")
    names = [columns[i] for i in varying]
    return f"{caption}\n\n" + _table(
        names, [[row[i] for i in varying] for row in shown], unicode=unicode
    )


def tab_separated(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """One line per row under the names; values with all their digits, missing ones empty."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(_exact(value) for value in row) for row in rows]
    return "\n".join(lines) + "\n"


def _exact(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = repr(float(value)) if isinstance(value, float) else str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _shown(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return " ".join(str(value).split())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, unicode: bool) -> str:
    """Aligned columns under a rule; columns of numbers to the right."""
    from rich.cells import cell_len

    numbers = [all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    widths = [
        max(cell_len(columns[i]), *(cell_len(row[i]) for row in rows)) for i in range(len(columns))
    ]

    def line(cells: Sequence[str]) -> str:
        placed = []
        for cell, width, right in zip(cells, widths, numbers, strict=True):
            space = " " * (width - cell_len(cell))
            placed.append(space + cell if right else cell + space)
        return "  ".join(placed).rstrip()

    rule = "  ".join(("─" if unicode else "-") * width for width in widths)
    return "\n".join([line(columns), rule, *(line(row) for row in rows)]) + "\n"


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


# -------------------------------------------------------------------------------------- status


def status_grid(
    cells: Sequence[StatusCell],
    stages: Sequence[str],
    states: Mapping[tuple[int, str], StageState],
    *,
    unicode: bool = True,
) -> str:
    """Cells by stages: what is done, runs, failed, waits.

    Args:
        cells: rows, in the order to show.
        stages: columns, in the order of the flow.
        states: state by (cell number, stage); a stage without one is left empty.
        unicode: symbols (✓ ▶ ✗ ⊘ ·) or ASCII words (ok, >, FAILED, blocked, .).
    """
    if not cells:
        return "no cells\n"
    axes = list(dict.fromkeys(name for cell in cells for name in cell.axes))
    columns = ["cell", *axes, "E", *stages]
    rows = [
        [
            str(cell.number),
            *(_shown(cell.axes.get(name)) for name in axes),
            _shown(cell.E),
            *(_mark(states.get((cell.number, stage)), unicode) for stage in stages),
        ]
        for cell in cells
    ]
    counts = dict.fromkeys(_SYMBOLS, 0)
    for cell in cells:
        for stage in stages:
            if (found := states.get((cell.number, stage))) is not None:
                counts[found.state] += 1
    legend = "   ".join(
        f"{_SYMBOLS[state][0 if unicode else 1]} {state} {count}"
        for state, count in counts.items()
        if count
    )
    return _table(columns, rows, unicode=unicode) + (f"\n{legend}\n" if legend else "")


def _mark(state: StageState | None, unicode: bool) -> str:
    if state is None:
        return ""
    symbol = _SYMBOLS[state.state][0 if unicode else 1]
    if state.state != "running" or state.fraction is None:
        return symbol
    # Rounded down: 100 % would say that it is finished.
    return f"{symbol} {math.floor(100 * min(max(state.fraction, 0.0), 1.0))}%"
