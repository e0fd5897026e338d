"""Which plot of a study is shown, in a page or in the terminal: one per law and per metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweepctl.errors import UsageError
from sweepctl.ledger import Table
from sweepctl.ui._reading import Reader, is_number

if TYPE_CHECKING:
    from sweepctl.analyse import FitResult
    from sweepctl.claims import Analysis
    from sweepctl.figures import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One figure that a study offers.

    Attributes:
        name: what it is called in a link.
        label: what it is called in a list.
        column: column of the metric; empty for all laws.
        x: column of the x axis; empty for all laws.
        fit: name of the law that is drawn with it; empty for none.
    """

    name: str
    label: str
    column: str = ""
    x: str = ""
    fit: str = ""


ALL_LAWS = Choice(name="laws", label="all laws")


def choices(
    metrics: Sequence[str], columns: Sequence[str], analysis: Analysis | None
) -> list[Choice]:
    """The figures of a study: one per law, all of several laws, one per metric that has none.

    Args:
        metrics: columns of measured numbers.
        columns: all columns.
        analysis: the laws, or None.
    """
    found = []
    for fit in analysis.fits if analysis else ():
        column = column_of(fit, metrics)
        if column and fit.x in columns:
            label = f"{fit.metric} on {fit.on} over {fit.x}: {fit.name}"
            found.append(
                Choice(name=f"fit:{fit.name}", label=label, column=column, x=fit.x, fit=fit.name)
            )
    drawn = {choice.column for choice in found}
    if len(found) > 1:
        found.append(ALL_LAWS)
    found += [
        Choice(name=f"metric:{name}", label=f"{name} over E", column=name, x="E")
        for name in metrics
        if name not in drawn and "E" in columns
    ]
    return found


def column_of(fit: FitResult, metrics: Sequence[str]) -> str:
    """The column of the wide table that a law was fitted to; empty when there is none."""
    on, protocol = f"@{fit.on}", f"/{fit.protocol}"
    for name in ("", on, protocol, on + protocol):
        if fit.metric + name in metrics:
            return fit.metric + name
    return ""


def drawn(
    choice: Choice,
    table: Table,
    axes: Sequence[str],
    analysis: Analysis | None,
    *,
    resolution: int | None = None,
) -> Figure:
    """The figure of a choice: the configurations of its law, or every cell where there is none.

    Args:
        choice: which metric over what, with which law.
        table: the study's wide table, every column.
        axes: the study's axes.
        analysis: the laws, or None.
        resolution: side of the study's pictures, pixels: the paper's points are shown at once when
            theirs have the same.
    """
    from sweepctl.figures import laws, metric_of, paper_series, scatter

    if choice == ALL_LAWS and analysis is not None:
        return laws(analysis.fits)
    frames = table.columns.index("frames")
    video = any((row[frames] or 1) > 1 for row in table.rows)
    metric = metric_of(choice.column)
    paper = paper_series(metric, choice.x, video=video, resolution=resolution)
    fits = [fit for fit in analysis.fits if fit.name == choice.fit] if analysis else []
    if fits and fits[0].points:
        return laws(fits, paper=paper)
    rows = rows_of(table, choice.column, choice.x)
    return scatter(rows, axes, choice.column, choice.x, paper=paper)


def rows_of(table: Table, column: str, x: str) -> list[dict[str, Any]]:
    """The rows of a table that have a metric and a variable, by column."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in rows if is_number(row[column]) and is_number(row[x])]


def better(column: str) -> str:
    """Whether a lower or a higher value of a column is the better one; higher where unknown."""
    from sweepctl.analyse import better_of
    from sweepctl.figures import metric_of

    try:
        return better_of(metric_of(column))
    except UsageError:
        return "higher"


def terminal_plot(
    reader: Reader,
    study: str,
    *,
    show: str = "",
    columns: int = 100,
    lines: int = 30,
    color: bool = False,
) -> str:
    """A study's points with their laws, as text.

    Args:
        reader: where the numbers come from.
        study: name of the study.
        show: name of a fit or of a metric; when empty all laws, or the first metric without one.
        columns: width of the terminal.
        lines: height of a panel and the legend.
        color: whether escape codes may be used.

    Raises:
        UsageError: there is no such study or figure, or nothing was measured yet.
    """
    from sweepctl.figures import terminal

    table = reader.table(study, wait=True)
    analysis, _ = reader.analysis(study, wait=True)
    offered = choices(reader.metrics(table), table.columns, analysis)
    if not offered:
        raise UsageError(
            f"nothing of {study} was measured yet",
            hint=f"sweepctl status {study} says how far it is",
        )
    wanted = show or (ALL_LAWS.name if ALL_LAWS in offered else offered[0].name)
    chosen = [one for one in offered if wanted in (one.name, one.fit, one.column)]
    if not chosen:
        names = ", ".join(dict.fromkeys(one.fit or one.column or one.name for one in offered))
        raise UsageError(f"there is no fit or metric {show!r} to plot", hint=f"there are: {names}")
    first = chosen[0]
    if first != ALL_LAWS and not rows_of(table, first.column, first.x):
        raise UsageError(f"{study} has no value of {first.column} yet")
    axes = dict.fromkeys(axis for cell in reader.standing(study).cells for axis in cell.axes)
    figure = drawn(first, table, list(axes), analysis)
    return terminal(figure, columns=columns, lines=lines, color=color)
