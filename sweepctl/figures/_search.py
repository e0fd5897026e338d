"""Figures of searches: the front or the best so far, how it grew, importances, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.errors import UsageError
from sweepctl.figures._model import (
    BLUE,
    INK,
    ORANGE,
    SOFT,
    Axis,
    Dot,
    Figure,
    Key,
    Line,
    Panel,
    Series,
)
from sweepctl.figures._style import labeled

_OBJECTIVES = (BLUE, ORANGE, SOFT, INK)
"""Colors of the first objectives where they are compared."""

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


def searched(
    trials: Sequence[Tried],
    objectives: Sequence[str],
    settings: Mapping[str, bool],
    growth: Sequence[tuple[int, float]],
    importances: Sequence[Mapping[str, float]],
    *,
    title: str = "",
    basis: str = "",
) -> Figure:
    """A search: objectives against each other, growth, importances, a slice per setting.

    Args:
        trials: the measured trials, in their order.
        objectives: metrics, in the order of the values.
        settings: short name of what is searched -> whether on a logarithmic scale.
        growth: number of a trial and the best value, or the hypervolume, after it.
        importances: for each objective, short name -> share; empty for none.
        title: of the figure.
        basis: whose numbers these are.

    Raises:
        UsageError: there is no measured trial.
    """
    if not trials:
        raise UsageError("no trial of this search is measured yet; there is nothing to draw")
    ranked = dict(importances[0]) if importances else {}
    sliced = sorted(settings, key=lambda name: -ranked.get(name, 0.0))[:MOST_SLICES]
    panels = [_front(trials, objectives, other) for other in range(1, len(objectives))]
    panels.append(_growth(trials, growth, objectives))
    if ranked:
        panels.append(_importances(list(settings), objectives, importances))
    panels += [
        _slice(trials, name, objectives[0], log=log)
        for name, log in settings.items()
        if name in sliced
    ]
    keys = [
        Key(
            label="in the front" if len(objectives) > 1 else "the best",
            color=ORANGE,
            marker="circle",
        ),
        Key(label="other trials", color=BLUE, marker="circle", hollow=True),
    ]
    if any(one.is_given for one in trials):
        keys.append(
            Key(label="given to start with (squares)", color=BLUE, marker="square", hollow=True)
        )
    if any(not one.is_kept for one in trials):
        keys.append(Key(label="misses a condition", color=SOFT, marker="x", hollow=True))
    others = [
        Key(label=f"importance for {metric}", color=color, line=True, width=5.0)
        for metric, color in zip(objectives, _OBJECTIVES, strict=False)
        if ranked
    ]
    return Figure(
        panels=tuple(panels), points=tuple(keys), others=tuple(others), title=title, basis=basis
    )


def _series(
    trials: Sequence[Tried], at: Mapping[int, float], objective: int, *, numbered: bool = False
) -> tuple[Series, ...]:
    """The trials that have a place, those in the front last and so on top."""
    groups = (
        (SOFT, [one for one in trials if not one.is_kept and not one.is_best]),
        (BLUE, [one for one in trials if one.is_kept and not one.is_best]),
        (ORANGE, [one for one in trials if one.is_best]),
    )
    return tuple(
        Series(
            label="",
            color=color,
            dots=tuple(
                Dot(
                    x=at[one.number],
                    y=one.values[objective],
                    marker="x" if not one.is_kept else "square" if one.is_given else "circle",
                    hollow=not one.is_best,
                    label=str(one.number) if numbered and one.is_best else "",
                )
                for one in mine
                if one.number in at
            ),
        )
        for color, mine in groups
    )


def _front(trials: Sequence[Tried], objectives: Sequence[str], other: int) -> Panel:
    x, y = objectives[0], objectives[other]
    best = sorted((one.values[0], one.values[other]) for one in trials if one.is_best)
    line = Line(x=tuple(a for a, _ in best), y=tuple(b for _, b in best), color=ORANGE, width=1.4)
    return Panel(
        title=f"{y} and {x}",
        x=Axis(title=labeled(x)),
        y=Axis(title=labeled(y)),
        lines=(line,) if len(objectives) == 2 else (),  # of more, the front is not a line here
        series=_series(trials, {one.number: one.values[0] for one in trials}, other, numbered=True),
    )


def _growth(
    trials: Sequence[Tried], growth: Sequence[tuple[int, float]], objectives: Sequence[str]
) -> Panel:
    several = len(objectives) > 1
    line = Line(
        x=tuple(float(number) for number, _ in growth),
        y=tuple(value for _, value in growth),
        color=ORANGE,
        width=1.8,
        step=True,
    )
    return Panel(
        title="hypervolume of the front so far" if several else f"best {objectives[0]} so far",
        x=Axis(title="trial", ticks="whole"),
        y=Axis(title="hypervolume" if several else labeled(objectives[0])),
        lines=(line,),
        series=()
        if several
        else _series(trials, {one.number: float(one.number) for one in trials}, 0),
    )


def _importances(
    named: Sequence[str], objectives: Sequence[str], importances: Sequence[Mapping[str, float]]
) -> Panel:
    ranked = [name for name in named if any(name in found for found in importances)]
    ranked.sort(key=lambda name: importances[0].get(name, 0.0))
    apart = 0.6 / len(objectives)
    ends = [
        (color, shares.get(name, 0.0), row + 0.3 - apart * (index + 0.5))
        for index, (shares, color) in enumerate(zip(importances, _OBJECTIVES, strict=False))
        for row, name in enumerate(ranked)
    ]
    return Panel(
        title="importance of settings (PED-ANOVA)",
        x=Axis(title="share", limits=(0.0, 1.07 * max(share for _, share, _ in ends) or 1.0)),
        y=Axis(
            limits=(-0.6, len(ranked) - 0.4),
            names=tuple((float(row), name) for row, name in enumerate(ranked)),
        ),
        grid="x",
        lines=tuple(Line(x=(0, x), y=(y, y), color=color, width=5.0) for color, x, y in ends),
        series=tuple(Series(label="", color=color, dots=(Dot(x=x, y=y),)) for color, x, y in ends),
    )


def _slice(trials: Sequence[Tried], name: str, metric: str, *, log: bool) -> Panel:
    mine = {one.number: one.settings[name] for one in trials if name in one.settings}
    y = Axis(title=labeled(metric))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in mine.values()):
        at = {number: float(value) for number, value in mine.items()}
        x = Axis(title=name, log=log, ticks="decades" if log else "plain")
        return Panel(title=name, x=x, y=y, series=_series(trials, at, 0))
    levels = sorted({_word(value) for value in mine.values()})
    at = {  # spread a little, so that equal ones are seen
        number: levels.index(_word(value)) + 0.24 * ((number * 0.618) % 1.0 - 0.5)
        for number, value in mine.items()
    }
    x = Axis(
        title=name,
        limits=(-0.5, len(levels) - 0.5),
        names=tuple((float(place), level) for place, level in enumerate(levels)),
    )
    return Panel(title=name, x=x, y=y, series=_series(trials, at, 0))


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
