"""Figures of a table of cells: a metric without a law, a Pareto front, curves of trainings.

The same panels as those of laws, from rows that need no analysis: this is what a page shows while
a study is young.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweepctl.figures._model import ORANGE, SOFT, Axis, Dash, Dot, Figure, Key, Line, Panel, Series
from sweepctl.figures._style import (
    MARKERS,
    Look,
    color_at,
    keys_of,
    look_of,
    metric_axis,
    roomy,
    side_by_side,
    variable_axis,
    written,
)
from sweepctl.paper import reference_points
from sweepctl.statistics import front_of

Row = Mapping[str, Any]
_DASHES: tuple[Dash, ...] = ("", "dash", "dot")


def scatter(
    rows: Sequence[Row], axes: Sequence[str], column: str, x: str, *, paper: Sequence[Series] = ()
) -> Figure:
    """A metric over a variable, one point per cell.

    Args:
        rows: cells by column; `cell`, `column` and `x` are numbers in each.
        axes: the study's axes.
        column: the metric, as the table calls it.
        x: the variable.
        paper: the paper's points; see `paper_series`.
    """
    look = _look(rows, axes, (x, column))
    log = spans([row[x] for row in rows])
    places = side_by_side([float(row[x]) for row in rows], logged=log)
    dots = _dots(rows, places, axes, column, x, look)
    ends = [float(row[column]) for row in rows]
    panel = Panel(
        title=column,
        sentence=f"{column} over {x}",
        x=variable_axis(x, log=log, limits=roomy(places, logged=log) if rows else None),
        y=metric_axis(
            metric_of(column),
            log=False,
            limits=roomy(ends, logged=False) if rows else None,
            column=column,
        ),
        series=(*paper, *look.series(dots)),
    )
    return Figure(panels=(panel,), points=look.keys(), others=keys_of(paper))


def _look(rows: Sequence[Row], axes: Sequence[str], skipped: Sequence[str]) -> Look:
    return look_of([{name: row.get(name) for name in axes} for row in rows], skipped)


def _dots(
    rows: Sequence[Row],
    places: Sequence[float],
    axes: Sequence[str],
    column: str,
    x: str,
    look: Look,
) -> list[tuple[Row, Dot]]:
    def text(row: Row) -> str:
        told = ", ".join(f"{name} {written(row[name])}" for name in axes if name in row)
        at = f"{x} {written(row[x])}"
        return f"cell {row['cell']}: {told}\n{at}\n{column} {row[column]:.6g}"

    return [
        (
            row,
            Dot(
                x=place,
                y=row[column],
                marker=look.marker(row),
                text=text(row),
                cells=(row["cell"],),
            ),
        )
        for row, place in zip(rows, places, strict=True)
    ]


def metric_of(column: str) -> str:
    """The metric of a column of the wide table: "rfd_lite0@photos/lite0" holds rfd_lite0."""
    return column.partition("@")[0].partition("/")[0]


def spans(values: Sequence[float]) -> bool:
    """Whether values range so far that a logarithmic axis shows them better."""
    every = [value for value in values if value > 0]
    return bool(every) and len(every) == len(values) and max(every) / min(every) > 8


def pareto(
    rows: Sequence[Row], axes: Sequence[str], column: str, cost: str, *, better: str
) -> Figure:
    """A metric over what it costs, with the line of the cells that none beats in both.

    Args:
        rows: cells by column; `cell`, `column` and `cost` are numbers in each.
        axes: the study's axes.
        column: the metric, as the table calls it.
        cost: the cost, lower is better.
        better: "lower" or "higher", of the metric.
    """
    look = _look(rows, axes, (cost, column))
    sign = 1 if better == "lower" else -1
    best = front_of([(row[cost], sign * row[column]) for row in rows])
    front = sorted((rows[i] for i in best), key=lambda row: row[cost])
    line = Line(
        x=tuple(float(row[cost]) for row in front),
        y=tuple(float(row[column]) for row in front),
        color=ORANGE,
        step=True,
        label="Pareto front",
    )
    panel = Panel(
        x=variable_axis(cost, log=spans([row[cost] for row in rows])),
        y=metric_axis(metric_of(column), log=False, column=column),
        lines=(line,),
        series=look.series(_dots(rows, [row[cost] for row in rows], axes, column, cost, look)),
    )
    key = Key(label=line.label, color=line.color, line=True)
    return Figure(panels=(panel,), points=look.keys(), others=(key,))


def curves(lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], measure: str) -> Figure:
    """One measure of trainings over their steps.

    Args:
        lines: (what the line is called, steps, values) of each training.
        measure: the measure.
    """
    every = [value for _, _, values in lines for value in values]
    log = spans(every) and min(every) > 0
    drawn = tuple(
        Line(
            x=tuple(steps),
            y=tuple(values),
            color=color_at(number, max(len(lines), 2)),
            width=1.6,
            dash=_DASHES[number % len(_DASHES)],
            label=label,
            hover=True,
        )
        for number, (label, steps, values) in enumerate(lines)
    )
    panel = Panel(
        x=Axis(title="step"),
        y=Axis(title=measure, log=log, ticks="decades" if log else "plain"),
        lines=drawn,
    )
    keys = (
        Key(label=one.label, color=one.color, line=True, width=one.width, dash=one.dash)
        for one in drawn
    )
    return Figure(panels=(panel,), others=tuple(keys))


def paper_series(
    metric: str, x: str, *, video: bool, resolution: int | None = None
) -> tuple[Series, ...]:
    """The ViTok paper's own points of a metric over a variable, hollow, a series per data set.

    They are switched off at first where the study's pictures are of another size, because they
    would only press the study's own points into a corner.

    Args:
        metric: as the paper calls it, too.
        x: the variable.
        video: whether the study is of clips.
        resolution: side of the study's pictures, pixels; None where it has several.
    """
    points = reference_points()
    if x not in points.columns:
        return ()
    chosen = points[
        ((points["frames"] > 1) == video)
        & (points["metric"] == metric)
        & points["kind"].isin(["reconstruction", "generation"])
        & points[x].notna()
        & points["value"].notna()
    ]
    return tuple(
        Series(
            label=f"paper: {dataset}",
            color=SOFT,
            hidden=not (resolution and (mine["resolution"] == resolution).any()),
            dots=tuple(
                Dot(
                    x=float(row[x]),
                    y=float(row["value"]),
                    marker=MARKERS[number % len(MARKERS)],
                    hollow=True,
                    text=f"ViTok paper: {row['variant'] or ''}, {row['figure_or_table']}\n"
                    f"{metric} {row['value']:.4g}",
                )
                for row in mine.to_dict("records")
            ),
        )
        for number, (dataset, mine) in enumerate(chosen.groupby("dataset", sort=True))
    )
