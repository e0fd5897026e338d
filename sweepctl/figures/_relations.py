"""Figures of metrics, costs and settings together: fronts, level lines, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sweepctl.analyse import (
    Estimate,
    Front,
    Relation,
    Surface,
    equation,
    in_unit,
    readable,
    scale_of,
)
from sweepctl.errors import UsageError
from sweepctl.figures._laws import LAW_KEY, MEAN_KEY, drawn_law
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
    Shade,
)
from sweepctl.figures._style import (
    Look,
    basis_of,
    floats,
    look_of,
    metric_axis,
    roomy,
    title_of,
    upright,
    variable_axis,
)


def fronts(found: Sequence[Front], *, title: str = "", condition: str = "") -> Figure:
    """Fronts of two metrics, or of a metric and a cost with the law along it, a panel each.

    Raises:
        UsageError: there is no front.
    """
    made = [one for one in found if one.members]
    if not made:
        raise UsageError(
            f"there is no front to draw: {found[0].reason if found else 'nothing to compare'}"
        )
    points = [point.settings for one in made for point in one.points]
    look = look_of(points, [one.against for one in made])
    cost = any(not one.against_on for one in made)
    name = "best for the cost" if cost else "Pareto front"
    others = [
        Key(label=name, color=ORANGE, line=True, width=1.6),
        Key(label="beaten", color=SOFT, marker="circle", hollow=True),
    ]
    if any(one.law for one in made):
        others += [replace(LAW_KEY, label="law along it"), MEAN_KEY]
    return Figure(
        panels=tuple(_front(one, look) for one in made),
        points=look.keys(),
        others=tuple(others),
        title=title,
        basis=basis_of((), condition),
    )


def _front(found: Front, look: Look) -> Panel:
    cost = not found.against_on
    what = f"{found.metric} for its cost" if cost else f"{found.metric} and {found.against}"
    where = found.on if cost or found.on == found.against_on else f"{found.on}, {found.against_on}"
    xs = [point.x for point in found.points]
    ys = [in_unit(point, found.metric) for point in found.points]
    corners = [(xs[i], ys[i]) for i in found.members]
    if cost:
        corners.append((max(xs), corners[-1][1]))
    steps = Line(
        x=tuple(x for x, _ in corners),
        y=tuple(y for _, y in corners),
        color=ORANGE,
        width=1.6,
        step=cost,
        label="best for the cost" if cost else "Pareto front",
    )
    logged = cost or scale_of(found.against) == "log2"
    tall = scale_of(found.metric) == "log2"
    panel = Panel(
        title=f"{what} on {where}",
        note=_front_note(found),
        x=variable_axis(found.against, log=logged, limits=roomy(xs, logged=logged)),
        y=metric_axis(found.metric, log=tall, limits=roomy(ys, logged=tall)),
        lines=(steps,),
        series=look.series(
            (
                point.settings,
                Dot(
                    x=x,
                    y=y,
                    marker=look.marker(point.settings),
                    hollow=index not in found.members,
                    cells=point.cells,
                ),
            )
            for index, (point, x, y) in enumerate(zip(found.points, xs, ys, strict=True))
        ),
    )
    if found.law is None:
        return panel
    along = [point.x for point in found.law.points]
    (_, mean), (_, law) = drawn_law(found.law, (min(along), max(along)))
    return replace(panel, bands=(mean,), lines=(steps, replace(law, label="law along it")))


def _front_note(found: Front) -> str:
    count = f"{len(found.members)} of {len(found.points)} configurations are beaten by none"
    if found.law is None or found.law.slope is None:
        return count if found.against_on else f"{count}\n{found.reason}"[:150]
    low, high = found.law.slope_interval()
    slope = f"slope {readable(found.law.slope.estimate)} [{readable(low)}, {readable(high)}]"
    return f"{equation(found.law)}\n{count}   {slope}"


# ---------------------------------------------------------------------------------------- surfaces


def contours(found: Surface, *, title: str = "", condition: str = "") -> Figure:
    """A law over two variables, with what was measured written next to the points."""
    law = found.law
    r2 = "" if law.r2 is None else f"R² {law.r2:.3f}   "
    codes = ", ".join(dict.fromkeys(w.code.replace("_", " ") for w in law.warnings))
    dots = tuple(
        Dot(
            x=point.xs[0],
            y=point.xs[1],
            label=readable(in_unit(point, law.metric)),
            cells=point.cells,
        )
        for point in law.points
    )
    x, y = (
        variable_axis(name, log=True, limits=roomy(at[[0, -1]].tolist(), logged=True, room=0.05))
        for name, at in zip(law.xs, (found.x, found.y), strict=False)
    )
    panel = Panel(
        title=title_of(law),
        note=f"{equation(law)}\n{r2}n {law.n}   lines: the law, numbers at points: measured"
        + (f"   warnings: {codes}" if codes else ""),
        x=x,
        y=replace(y, ticks="sizes"),
        series=(Series(label="", color=BLUE, dots=dots),),
        shade=Shade(
            x=floats(found.x),
            y=floats(found.y),
            values=tuple(map(tuple, found.values.tolist())),
            logged=law.scale == "log2",
            levels=_levels(found),
        ),
    )
    return Figure(panels=(panel,), title=title, basis=basis_of((), condition), size=(9.0, 6.4))


def _levels(found: Surface) -> tuple[float, ...]:
    """Round values that the surface passes: about seven of them."""
    low, high = float(found.values.min()), float(found.values.max())
    if found.law.scale == "log2" and high / low > 6:
        every = [float(f"{2.0**power:.3g}") for power in range(-40, 40)]
    else:
        rough = (high - low) / 7 or 1.0
        power = 10.0 ** np.floor(np.log10(rough))
        step = float(power * next(n for n in (1, 2, 2.5, 5, 10) if n * power >= rough))
        every = [step * n for n in range(int(low // step), int(high // step) + 2)]
    return tuple(value for value in every if low < value < high)


# ------------------------------------------------------------------------------------ correlations


def correlations(found: Sequence[Relation], *, title: str = "", condition: str = "") -> Figure:
    """Both correlations of every metric with their intervals, the closest one on top.

    Raises:
        UsageError: no metric has a correlation.
    """
    made = [one for one in found if one.spearman and one.pearson]
    if not made:
        reasons = "; ".join(f"{one.metric} on {one.on}: {one.reason}" for one in found)
        raise UsageError(f"no metric can be compared: {reasons or 'only one was measured'}")
    places = range(len(made) - 1, -1, -1)
    ranks = [(one.spearman, at + 0.13) for one, at in zip(made, places, strict=True)]
    scales = [(one.pearson, at - 0.13) for one, at in zip(made, places, strict=True)]
    y = Axis(
        limits=(-0.6, len(made) - 0.4),
        names=tuple(
            (at, f"{one.metric} on {one.on}  (n {one.n})")
            for one, at in zip(made, places, strict=True)
        ),
    )
    panel = Panel(
        note="1: ranks configurations alike   0: says nothing   -1: the other way round",
        x=Axis(
            title=f"correlation with {made[0].against} on {made[0].against_on}",
            limits=(-1.03, 1.03),
        ),
        y=y,
        grid="x",
        lines=(upright(0, y, INK, 1.0), *_intervals(ranks, BLUE), *_intervals(scales, ORANGE)),
        series=(
            _values(ranks, BLUE, "circle", "Spearman (ranks), 95 %"),
            _values(scales, ORANGE, "diamond", "Pearson (own scales), 95 %"),
        ),
    )
    return Figure(
        panels=(panel,),
        others=tuple(
            Key(label=one.label, color=one.color, marker=one.dots[0].marker, line=True)
            for one in panel.series
        ),
        title=title,
        basis=basis_of((), condition),
        size=(9.0, 0.48 * len(made) + 1.4),
    )


def _intervals(found: Sequence[tuple[Estimate | None, float]], color: str) -> list[Line]:
    return [
        Line(x=(one.low, one.high), y=(at, at), color=color, width=2.2) for one, at in found if one
    ]


def _values(
    found: Sequence[tuple[Estimate | None, float]], color: str, marker: str, label: str
) -> Series:
    dots = tuple(Dot(x=one.value, y=at, marker=marker) for one, at in found if one)
    return Series(label=label, color=color, dots=dots)
