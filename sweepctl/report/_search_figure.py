"""What has a search found? The front or the best so far, how it grew, slices, importances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import UsageError
from sweepctl.report import _style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SLICES = 9
"""Most settings that get a slice of their own; of more, the most important ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One measured trial.

    Attributes:
        number: its number in the search.
        values: of the objectives.
        settings: short name -> value; what is not searched at this point is missing.
        is_best: whether it is in the front, or the best one.
        is_given: whether the search started with it.
        is_kept: whether it meets every condition.
    """

    number: int
    values: tuple[float, ...]
    settings: Mapping[str, Any]
    is_best: bool
    is_given: bool
    is_kept: bool


def search_figure(
    trials: Sequence[Tried],
    objectives: Sequence[str],
    settings: Mapping[str, bool],
    growth: Sequence[tuple[int, float]],
    importances: Sequence[Mapping[str, float]],
    out: Path,
    *,
    title: str = "",
    basis: str = "",
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw a search: objectives against each other, growth, importances, a slice a setting.

    Args:
        trials: the measured trials, in their order.
        objectives: metrics, in the order of the values.
        settings: short name of what is searched -> whether on a logarithmic scale.
        growth: number of a trial and the best value, or the hypervolume, after it.
        importances: for each objective, short name -> share; empty for none.
        out: the files without their endings.
        title: of the figure.
        basis: whose numbers these are.
        formats: of the files.

    Raises:
        UsageError: there is no measured trial; the files cannot be written.
    """
    if not trials:
        raise UsageError("no trial of this search is measured yet; there is nothing to draw")
    named = list(settings)
    ranked = dict(importances[0]) if importances else {}
    sliced = sorted(named, key=lambda name: -ranked.get(name, 0.0))[:MOST_SLICES]
    sliced = [name for name in named if name in sliced]
    pairs = [(0, other) for other in range(1, len(objectives))]
    count = len(pairs) + 1 + bool(ranked) + len(sliced)
    rows, columns, width, height = style.panels_of(count)
    with style.settings():
        drawn = style.canvas(width, rows * height + 1.2)
        panels = list(drawn.subplots(rows, columns, squeeze=False).flat)
        free = iter(panels)
        for first, second in pairs:
            _front(next(free), trials, objectives, first, second)
        _growth(next(free), trials, growth, objectives)
        if ranked:
            _bars(next(free), named, objectives, importances)
        for name in sliced:
            _slice(next(free), trials, name, objectives[0], logged=settings[name])
        for axes in free:
            axes.set_axis_off()
        foot = style.legend(drawn, _keys(trials, several=len(objectives) > 1), [])
        style.heading(drawn, title, basis, foot)
        return style.write(drawn, out, formats)


def _keys(trials: Sequence[Tried], *, several: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    def key(marker: str, color: str, label: str, *, hollow: bool = False) -> Line2D:
        face = "none" if hollow else color
        return Line2D(
            *([], []),
            marker=marker,
            color=color,
            markerfacecolor=face,
            linestyle="none",
            markersize=8,
            label=label,
        )

    keys = [key("o", style.ORANGE, "in the front" if several else "the best")]
    keys.append(key("o", style.BLUE, "other trials", hollow=True))
    if any(one.is_given for one in trials):
        keys.append(key("s", style.BLUE, "given to start with (squares)", hollow=True))
    if any(not one.is_kept for one in trials):
        keys.append(key("x", style.SOFT, "misses a condition"))
    return keys


def _dot(axes: Axes, x: float, y: float, one: Tried) -> None:
    color = style.ORANGE if one.is_best else style.BLUE if one.is_kept else style.SOFT
    marker = "x" if not one.is_kept else "s" if one.is_given else "o"
    axes.plot(
        x,
        y,
        marker=marker,
        color=color,
        markersize=8,
        markerfacecolor=color if one.is_best else "none",
        markeredgecolor=color,
        markeredgewidth=1.5,
        linestyle="none",
        zorder=4 if one.is_best else 3,
    )


def _prepared(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=12, pad=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=style.PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.07)


def _front(
    axes: Axes, trials: Sequence[Tried], objectives: Sequence[str], first: int, second: int
) -> None:
    x, y = objectives[first], objectives[second]
    _prepared(axes, f"{y} and {x}", style.label_of(x), style.label_of(y))
    best = sorted((one for one in trials if one.is_best), key=lambda one: one.values[first])
    if len(objectives) == 2:  # of more, the front is no line in two of them
        axes.plot(
            [one.values[first] for one in best],
            [one.values[second] for one in best],
            color=style.ORANGE,
            linewidth=1.4,
            zorder=2,
        )
    for one in trials:
        _dot(axes, one.values[first], one.values[second], one)
    for one in best:
        axes.annotate(
            str(one.number),
            (one.values[first], one.values[second]),
            xytext=(7, 6),
            textcoords="offset points",
            fontsize=9,
            color=style.SOFT,
        )


def _growth(
    axes: Axes,
    trials: Sequence[Tried],
    growth: Sequence[tuple[int, float]],
    objectives: Sequence[str],
) -> None:
    from matplotlib.ticker import MaxNLocator

    several = len(objectives) > 1
    what = "hypervolume of the front so far" if several else f"best {objectives[0]} so far"
    _prepared(axes, what, "trial", "hypervolume" if several else style.label_of(objectives[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.step(
        [number for number, _ in growth],
        [value for _, value in growth],
        where="post",
        color=style.ORANGE,
        linewidth=1.8,
        zorder=2,
    )
    if several:
        return
    for one in trials:
        _dot(axes, one.number, one.values[0], one)


def _bars(
    axes: Axes,
    named: Sequence[str],
    objectives: Sequence[str],
    importances: Sequence[Mapping[str, float]],
) -> None:
    _prepared(axes, "importance of settings (PED-ANOVA)", "share", "")
    ranked = [name for name in named if any(name in found for found in importances)]
    ranked.sort(key=lambda name: importances[0].get(name, 0.0))
    tall = 0.8 / len(objectives)
    colors = (style.BLUE, style.ORANGE, style.SOFT, style.LINE)
    for index, metric in enumerate(objectives):
        places = [row + 0.4 - tall * (index + 0.5) for row in range(len(ranked))]
        shares = [importances[index].get(name, 0.0) for name in ranked]
        axes.barh(
            places, shares, height=tall * 0.9, color=colors[index % len(colors)], label=metric
        )
    axes.set_yticks(range(len(ranked)), ranked)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.margins(y=0.02)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _slice(axes: Axes, trials: Sequence[Tried], name: str, metric: str, *, logged: bool) -> None:
    _prepared(axes, name, name, style.label_of(metric))
    mine = [one for one in trials if name in one.settings]
    values = [one.settings[name] for one in mine]
    words = not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if words:
        levels = sorted({_word(value) for value in values})
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.5, len(levels) - 0.5)
    elif logged:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for one in mine:
        value = one.settings[name]
        x = float(levels.index(_word(value))) if words else float(value)
        if words:  # spread a little, so that equal ones are seen
            x += 0.24 * ((one.number * 0.618) % 1.0 - 0.5)
        _dot(axes, x, one.values[0], one)


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
