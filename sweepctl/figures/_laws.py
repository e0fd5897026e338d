"""Figures of laws: the law with its points, its residuals, its hold-out and its optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse import (
    FitResult,
    HoldOut,
    Point,
    bands,
    equation,
    hold_out,
    left_out,
    readable,
    unit_of,
)
from sweepctl.errors import UsageError
from sweepctl.figures._model import (
    BLUE,
    INK,
    MEAN,
    NEW,
    ORANGE,
    SOFT,
    Axis,
    Band,
    Dot,
    Figure,
    Key,
    Line,
    Panel,
    Series,
)
from sweepctl.figures._style import (
    GRID,
    Look,
    basis_of,
    floats,
    keys_of,
    level,
    look_of,
    metric_axis,
    roomy,
    side_by_side,
    title_of,
    upright,
    variable_axis,
)
from sweepctl.paper import PaperComparison

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NEW_OPACITY, MEAN_OPACITY = 0.09, 0.22
_NEW_KEY = Key(label=NEW, color=BLUE, opacity=NEW_OPACITY)
MEAN_KEY = Key(label=MEAN, color=BLUE, opacity=MEAN_OPACITY)
_PLACE = "optimum, 95 % (Fieller)"
_REST = "law without them"
_PAPER = "the paper's points and law"
LAW_KEY = Key(label="law", color=INK, line=True)


def laws(
    fits: Sequence[FitResult],
    *,
    title: str = "",
    condition: str = "",
    comparisons: Sequence[PaperComparison] = (),
    paper: Sequence[Series] = (),
) -> Figure:
    """Each law with its points, its 95 % band and that of a new configuration, a panel per fit.

    Args:
        fits: the laws.
        title: name of the study.
        condition: which cells were fitted; empty for all.
        comparisons: the paper's laws, drawn hollow in the panel of their fit.
        paper: the paper's points without a law, for every panel; see `paper_series`.

    Raises:
        UsageError: there is no fit.
    """
    if not fits:
        raise UsageError("the study has no fits, so there is nothing to draw")
    look = _look(fits)
    theirs = {one.fit: one for one in comparisons}
    paper_key = Key(
        label=_PAPER, color=ORANGE, marker="circle", hollow=True, line=True, width=1.4, dash="dot"
    )
    others = (LAW_KEY, MEAN_KEY, _NEW_KEY, *((paper_key,) if theirs else ()), *keys_of(paper))
    return Figure(
        panels=tuple(_law(fit, look, theirs.get(fit.name), paper) for fit in fits),
        points=look.keys(),
        others=others,
        title=title,
        basis=basis_of(fits, condition),
    )


def _look(fits: Sequence[FitResult]) -> Look:
    return look_of([p.settings for fit in fits for p in fit.points], [fit.x for fit in fits])


def _law(
    fit: FitResult, look: Look, comparison: PaperComparison | None, paper: Sequence[Series] = ()
) -> Panel:
    if not fit.points:
        return Panel(
            title=title_of(fit),
            empty=f"not fitted: {fit.reason}",
            sentence=f"{fit.metric} on {fit.on}: {fit.reason}",
            x=variable_axis(fit.x, log=False),
            y=metric_axis(fit.metric, log=False),
        )
    own = [point.x for point in fit.points]
    every = [*own, *(point.x for point in (comparison.law.points if comparison else ()))]
    log = fit.x_scale == "log2"
    ends = (min(every) / 2**0.5, max(every) * 2**0.5) if log else roomy(every, logged=False)
    made: tuple[tuple[Band, ...], tuple[Line, ...]] = ((), ())
    if fit.slope is not None:
        made = drawn_law(fit, (min(own) / 2**0.5, max(own) * 2**0.5) if log else ends)
    series = [*paper, *look.series(_dots(fit, look))]
    lines = list(made[1])
    if comparison is not None:
        series.insert(0, _hollow(comparison))
        lines = [*_their_line(comparison.law), *lines]
    return Panel(
        title=title_of(fit),
        note=_note(fit),
        sentence=f"{fit.metric} on {fit.on}, n {fit.n}: {fit.meaning or fit.reason}",
        corner=_corner(fit, comparison),
        corner_left=fit.slope is not None and fit.slope.estimate < 0,
        x=variable_axis(fit.x, log=log, limits=ends),
        y=metric_axis(fit.metric, log=fit.scale == "log2", limits=_room(fit, comparison)),
        bands=made[0],
        lines=tuple(lines),
        series=tuple(series),
    )


def drawn_law(
    fit: FitResult, ends: tuple[float, float]
) -> tuple[tuple[Band, ...], tuple[Line, ...]]:
    """Both bands, and the law: solid where there are points and dashed beyond."""
    grid = _grid(fit, *ends)
    band, x = bands(fit, grid), floats(grid)
    inside = ~band.outside
    wide, narrow = (band.low, band.high), (band.mean_low, band.mean_high)
    areas = ((NEW, NEW_OPACITY, wide), (MEAN, MEAN_OPACITY, narrow))
    return (
        tuple(
            Band(x=x, low=floats(low), high=floats(high), opacity=opacity, label=label)
            for label, opacity, (low, high) in areas
        ),
        (
            Line(x=x, y=floats(band.mean), width=1.3, dash="dash"),
            Line(x=floats(grid[inside]), y=floats(band.mean[inside]), label="law"),
        ),
    )


def _grid(fit: FitResult, low: float, high: float) -> Array:
    return np.linspace(low, high, GRID) if fit.x_scale == "raw" else np.geomspace(low, high, GRID)


def _dots(fit: FitResult, look: Look) -> list[tuple[dict[str, object], Dot]]:
    """The configurations; where there are seeds, the mean with a bar over all of them."""
    places = side_by_side([point.x for point in fit.points], logged=fit.x_scale == "log2")
    return [
        (
            dict(point.settings),
            Dot(
                x=place,
                y=_shown(point.y, fit),
                marker=look.marker(point.settings),
                low=_shown(point.low, fit) if point.seeds > 1 else None,
                high=_shown(point.high, fit) if point.seeds > 1 else None,
                text=_text(point, fit, look),
                cells=point.cells,
            ),
        )
        for point, place in zip(fit.points, places, strict=True)
    ]


def _text(point: Point, fit: FitResult, look: Look) -> str:
    cells = f"cell{'s' if len(point.cells) > 1 else ''} {', '.join(map(str, point.cells))}"
    told = look.told(point.settings)
    seeds = f", mean of {point.seeds} seeds" if point.seeds > 1 else ""
    value = f"{fit.metric} {_shown(point.y, fit):.6g}{seeds}"
    return "\n".join([f"{cells}: {told}" if told else cells, f"{fit.x} {point.x:.6g}", value])


def _hollow(comparison: PaperComparison) -> Series:
    law = comparison.law
    dots = tuple(
        Dot(x=point.x, y=_shown(point.y, law), hollow=True, text=f"{comparison.paper}, {law.on}")
        for point in law.points
    )
    return Series(label=_PAPER, color=ORANGE, dots=dots)


def _their_line(law: FitResult) -> list[Line]:
    """The paper's law as far as its points reach."""
    if law.slope is None:
        return []
    xs = [point.x for point in law.points]
    grid = _grid(law, min(xs), max(xs))
    y = floats(bands(law, grid).mean)
    return [Line(x=floats(grid), y=y, color=ORANGE, width=1.4, dash="dot")]


def _room(fit: FitResult, comparison: PaperComparison | None) -> tuple[float, float]:
    """Room for the points, the law and as much of the wider band as leaves them readable."""
    points = (*fit.points, *(comparison.law.points if comparison else ()))
    ys = [end for point in points for end in (point.low, point.high)]
    span = max(ys) - min(ys) or 1.0
    low, high = min(ys) - 0.08 * span, max(ys) + 0.08 * span
    if fit.slope is not None:
        xs = [point.x for point in fit.points]
        band = bands(fit, _grid(fit, min(xs), max(xs)))
        around = np.concatenate([band.low, band.high])
        if fit.scale == "log2":
            around = np.log2(np.clip(around, 2.0**-1000, 2.0**1000))
        low = max(min(low, float(around.min())), low - 0.5 * span)
        high = min(max(high, float(around.max())), high + 0.5 * span)
    return _shown(low, fit), _shown(high, fit)


def _shown(y: float, fit: FitResult) -> float:
    return float(2.0**y) if fit.scale == "log2" else y


def _note(fit: FitResult) -> str:
    if fit.slope is None:
        return f"not fitted: {fit.reason}"[:90]
    low, high = fit.slope_interval()
    r2 = "" if fit.r2 is None else f"R² {fit.r2:.3f}   "
    slope = f"slope {readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"
    return f"{equation(fit)}\n{r2}{slope}   n {fit.n}"


def _corner(fit: FitResult, comparison: PaperComparison | None) -> str:
    lines = [] if comparison is None else [f"hollow: {comparison.paper}, {comparison.law.on}"]
    codes = dict.fromkeys(warning.code.replace("_", " ") for warning in fit.warnings)
    if codes and fit.slope is not None:
        lines.append("warnings: " + "\n".join(codes))
    return "\n".join(lines)


# --------------------------------------------------------------------------------------- residuals


def residuals(fits: Sequence[FitResult], *, title: str = "", condition: str = "") -> Figure:
    """Residuals of each fit against what the law says, against x, and as normal quantiles.

    They are studentized: in standard errors of the prediction without the point, so that a look
    shows what is unusual.

    Raises:
        UsageError: no fit has residuals.
    """
    made = [fit for fit in fits if fit.fitted and left_out(fit)]
    if not made:
        raise UsageError("no fit has residuals: none was made, or each goes through every point")
    look = _look(made)
    return Figure(
        panels=tuple(panel for fit in made for panel in _residuals(fit, look)),
        points=look.keys(),
        title=title,
        basis=basis_of(made, condition),
        columns=3,
        size=(15.0, 4.1),
    )


def _residuals(fit: FitResult, look: Look) -> tuple[Panel, Panel, Panel]:
    found = left_out(fit)
    sizes = [(one.point.y - one.predicted) / one.se for one in found]
    limit = max(3.2, 1.15 * max(map(abs, sizes)))
    order = sorted(range(len(found)), key=sizes.__getitem__)
    quantiles = [0.0] * len(found)
    for rank, index in enumerate(order):
        quantiles[index] = NormalDist().inv_cdf((rank + 0.5) / len(order))
    reach = NormalDist().inv_cdf(1 - 0.5 / len(order)) * 1.15
    said = [_shown(one.predicted, fit) for one in found]
    xs = [one.point.x for one in found]
    logged, log = fit.scale == "log2", fit.x_scale == "log2"
    unit = unit_of(fit.metric).strip()
    by_law = Axis(
        title=f"{fit.metric}{f' [{unit}]' if unit else ''} by the law",
        log=logged,
        limits=roomy(said, logged=logged),
        ticks="values" if logged else "plain",
    )
    by_x = variable_axis(fit.x, log=log, limits=roomy(xs, logged=log))
    quantile = Axis(title="normal quantile", limits=(-1.1 * reach, 1.1 * reach))
    y = Axis(limits=(-limit, limit))

    def placed(xs: Sequence[float], outlier: str = "") -> tuple[Series, ...]:
        return look.series(
            (
                one.point.settings,
                Dot(
                    x=x,
                    y=size,
                    marker=look.marker(one.point.settings),
                    label=outlier if one.is_outlier else "",
                    text=f"{_text(one.point, fit, look)}\n{size:+.3g} standard errors",
                    cells=one.point.cells,
                ),
            )
            for one, x, size in zip(found, xs, sizes, strict=True)
        )

    def panel(x: Axis, places: Sequence[float], *lines: Line, outlier: str = "") -> Panel:
        ends = x.limits or (0.0, 1.0)
        rules = [Line(x=ends, y=(0, 0), width=1.0)]
        rules += [Line(x=ends, y=(t, t), color=SOFT, width=0.8, dash="dash") for t in (-2, 2)]
        return Panel(x=x, y=y, lines=(*rules, *lines), series=placed(places, outlier))

    diagonal = Line(x=(-reach, reach), y=(-reach, reach), width=1.0)
    titled = replace(y, title="studentized residual")
    return (
        replace(panel(by_law, said), title=title_of(fit), y=titled),
        panel(by_x, xs, outlier="outlier"),
        panel(quantile, quantiles, diagonal),
    )


# ---------------------------------------------------------------------------------------- hold-out


def hold_outs(fits: Sequence[FitResult], *, title: str = "", condition: str = "") -> Figure:
    """Each law fitted to the smaller x, with its prediction band, and what was measured beyond.

    Raises:
        UsageError: no fit has enough x for it.
    """
    tried = [(fit, hold_out(fit)) for fit in fits if fit.fitted and len(fit.xs) == 1]
    tested = [(fit, test) for fit, test in tried if not test.reason]
    if not tested:
        reasons = "; ".join(f"{fit.name}: {test.reason}" for fit, test in tried)
        raise UsageError(f"no fit can be tested on held-out x: {reasons or 'none was made'}")
    made = [fit for fit, _ in tested]
    look = _look(made)
    return Figure(
        panels=tuple(_hold_out(fit, test, look) for fit, test in tested),
        points=look.keys(),
        others=(
            Key(label="fitted", color=SOFT, marker="circle"),
            Key(label="predicted", color=SOFT, marker="circle", hollow=True),
            Key(label=_REST, color=INK, line=True),
            _NEW_KEY,
        ),
        title=title,
        basis=basis_of(made, condition),
    )


def _hold_out(fit: FitResult, test: HoldOut, look: Look) -> Panel:
    assert test.rms is not None
    raw, logged = fit.x_scale == "raw", fit.scale == "log2"
    xs = [point.x for point in fit.points]
    (new, _), (beyond, law) = drawn_law(test.rest, (min(xs), max(xs)))
    held = {point.cells for point in (one.point for one in test.held)}
    edge = min(one.point.x for one in test.held)
    below = max((x for x in xs if x < edge), default=edge)
    cut = (edge + below) / 2 if raw else math.sqrt(edge * below)
    outside = sum(not one.inside for one in test.held)
    size = f"{readable(test.rms)}{unit_of(fit.metric)}"
    if test.scale == "log2":
        size = f"x{2**test.rms:.3g}"
    ys = [_shown(point.y, fit) for point in fit.points]
    ys += [one.predicted for one in test.held]
    dots = [
        (settings, replace(dot, hollow=dot.cells in held, low=None, high=None))
        for settings, dot in _dots(fit, look)
    ]
    x = variable_axis(fit.x, log=not raw, limits=roomy(xs, logged=not raw, room=0.05))
    # A band that runs away is cut.
    y = metric_axis(fit.metric, log=logged, limits=roomy(ys, logged=logged, room=0.25))
    return Panel(
        title=title_of(fit),
        note=f"{len(test.held)} with {fit.x} {test.cut} predicted from {test.rest.n} others\n"
        f"typical error {size}   {outside} of {len(test.held)} outside the band",
        x=x,
        y=y,
        bands=(replace(new, opacity=0.13),),
        lines=(beyond, replace(law, label=_REST), upright(cut, y, SOFT, 0.9, "dot")),
        series=look.series(dots),
    )


# ----------------------------------------------------------------------------------------- optimum


def optima(fits: Sequence[FitResult], *, title: str = "", condition: str = "") -> Figure:
    """Each bent law with the place of its optimum and the Fieller interval of that place.

    Raises:
        UsageError: no fit has an optimum.
    """
    bent = [fit for fit in fits if fit.optimum is not None]
    if not bent:
        raise UsageError("no fit has an optimum", hint="form: quadratic or cubic may have one")
    look = _look(bent)
    place = Key(label=_PLACE, color=ORANGE, line=True, width=4.0)
    return Figure(
        panels=tuple(_optimum(fit, look) for fit in bent),
        points=look.keys(),
        others=(LAW_KEY, MEAN_KEY, place),
        title=title,
        basis=basis_of(bent, condition),
    )


def _optimum(fit: FitResult, look: Look) -> Panel:
    assert fit.optimum is not None
    best = fit.optimum
    xs = [point.x for point in fit.points]
    low, high = min(xs) / 2**0.7, max(xs) * 2**0.7
    (_, mean), lines = drawn_law(fit, (low, high))
    if best.low is None or best.high is None:
        ends, where = (-math.inf, math.inf), "may be anywhere (the curvature may be 0)"
    else:
        ends = (best.low, best.high)
        where = f"[{readable(best.low)}, {readable(best.high)}]"
    cubic = "" if best.cubic is None else f"   a cubic's at {readable(best.cubic)}"
    logged = fit.scale == "log2"
    ys = [_shown(y, fit) for point in fit.points for y in (point.y, point.fitted)]
    y = metric_axis(fit.metric, log=logged, limits=roomy(ys, logged=logged, room=0.25))
    x = variable_axis(fit.x, log=True, limits=(low, high))
    foot, first, last = level(y, 0.045), level(x, 0.015), level(x, 0.985)
    shown = (min(max(ends[0], first), last), max(min(ends[1], last), first))
    reach = Line(x=shown, y=(foot, foot), color=ORANGE, width=4.0, label=_PLACE)
    # An end beyond the panel has an arrow.
    arrows = [
        Dot(x=end, y=foot, marker=f"triangle-{side}")
        for side, end, true in zip(("left", "right"), shown, ends, strict=True)
        if not low <= true <= high
    ]
    rules = (upright(best.x, y, ORANGE, 1.4),) if low <= best.x <= high else ()
    return Panel(
        title=title_of(fit),
        note=f"{best.kind} at {fit.x} = {readable(best.x)}{cubic}\n{where}   n {fit.n}",
        x=x,
        y=y,
        bands=(mean,),
        lines=(*rules, *lines, reach),
        series=(
            *look.series(_dots(fit, look)),
            *((Series(label="", color=ORANGE, dots=tuple(arrows)),) if arrows else ()),
        ),
    )
