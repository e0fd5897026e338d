"""Do claims about shape hold? An optimum inside a range, a metric that only rises or only falls.

An optimum is judged by its Fieller interval, which may be unbounded; a direction by the steps from
each value of x to the next, each with its interval. One clear step back contradicts a direction,
however strong the trend over the whole range is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import (
    Configurations,
    FitResult,
    NotFitted,
    Point,
    column_of,
    configurations,
    detectable,
    effect,
    exactly,
    fit_named,
    order,
    readable,
    scale_of,
)
from sweepctl.claims._results import ClaimResult, Verdict
from sweepctl.claims._slopes import not_made, warnings_of
from sweepctl.laws import Scale, exp2
from sweepctl.statistics import t_quantile
from sweepctl.study import MonotoneClaim, OptimumClaim

if TYPE_CHECKING:
    import pandas as pd


def optimum_verdict(
    claim: OptimumClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    """Judge that a law has its minimum or maximum inside a range.

    Supported when it is of that kind and its 95 % Fieller interval lies inside the range;
    contradicted when the interval is bounded and lies wholly outside, or when a bounded interval
    belongs to the other kind of extremum. An unbounded interval decides nothing.
    """
    fit = fit_named(claim.fit, fits)
    if not fit.fitted:
        return not_made(claim.name, fit)
    found = fit.optimum
    start, end = claim.between or (fit.points[0].x, fit.points[-1].x)
    place = f"[{exactly(start)}, {exactly(end)}]"
    details: dict[str, Any] = {"range": [start, end], "n": fit.n, "df": fit.df}

    def done(verdict: Verdict, text: str) -> ClaimResult:
        text += f"; n {fit.n}" + warnings_of(fit)
        return ClaimResult(name=claim.name, verdict=verdict, evidence=text, details=details)

    if found is None:
        return done("undecided", f"fit {fit.name} has no extremum")
    details |= {
        "kind": found.kind,
        "x": found.x,
        "low": found.low,
        "high": found.high,
        "delta_low": found.delta_low,
        "delta_high": found.delta_high,
        "cubic": found.cubic,
    }
    if found.low is None or found.high is None:
        delta = f"[{readable(found.delta_low)}, {readable(found.delta_high)}]"
        least = detectable(fit.df) * fit.coefficients["quadratic"].se
        details["least_curvature"] = least
        return done(
            "undecided",
            f"the {found.kind} at {fit.x} = {readable(found.x)} is not pinned down: its 95 % "
            f"Fieller interval is unbounded (the delta rule would claim {delta}); this design "
            f"could only have seen a curvature of {readable(least)} or more (80 % power), and "
            f"{readable(fit.coefficients['quadratic'].estimate)} is estimated",
        )
    inner = f"[{readable(found.low)}, {readable(found.high)}]"
    text = f"{found.kind} at {fit.x} = {readable(found.x)} {inner} (95 %, Fieller)"
    details["width_octaves"] = math.log2(found.high / found.low)
    if found.kind != claim.optimum:
        return done("contradicted", f"the law has a {text}, no {claim.optimum}")
    if start <= found.low and found.high <= end:
        return done("supported", f"{text} lies inside {place}")
    if found.high < start or found.low > end:
        return done("contradicted", f"{text} lies outside {place}")
    octaves = math.log2(found.high / found.low)
    return done(
        "undecided",
        f"{text} lies only partly inside {place}: this design places an optimum within "
        f"{octaves:.1f} octaves at best",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """From one value of x to the next, on the metric's scale; positive is upwards.

    Attributes:
        group: value of the claim's `within`; empty without one.
        start: x before.
        end: x after.
        change: difference of the means of y.
        se: its standard error.
    """

    group: str
    start: float
    end: float
    change: float
    se: float


def monotone_verdict(
    claim: MonotoneClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    """Judge that a metric only rises or only falls with x, step by step.

    The noise of a step comes from configurations at equal x, else from seeds. Supported when no
    step can go back by more than the margin (one-sided 95 %, all must pass) and the whole way goes
    in the claimed direction; contradicted when a step goes back by more than the margin at 95 %
    after Bonferroni.
    """
    scale = scale_of(claim.metric)
    try:
        found = configurations(frame, claim.metric, claim.on, (claim.x,), scale, where=claim.where)
        within = column_of(frame.columns, claim.within) if claim.within else ""
        steps, df, basis = _steps(found, within)
    except NotFitted as refusal:
        return ClaimResult(name=claim.name, verdict="undecided", evidence=refusal.warning.message)
    sign = 1 if claim.monotone == "rising" else -1
    margin = _margin(claim, scale, found.points)
    details: dict[str, Any] = {
        "n": len(found.points),
        "df": df,
        "margin": margin,
        "scale": scale,
        "steps": [
            {
                "within": step.group,
                "from": step.start,
                "to": step.end,
                "change": step.change,
                "se": step.se,
            }
            for step in steps
        ],
    }

    def done(verdict: Verdict, text: str) -> ClaimResult:
        return ClaimResult(
            name=claim.name, verdict=verdict, evidence=f"{text}; {basis}", details=details
        )

    if not steps:
        return done("undecided", f"{claim.x} has one value only, so there is no step")
    worst = min(steps, key=lambda step: sign * step.change)
    words = (
        f"from {claim.x} = {exactly(worst.start)} to {exactly(worst.end)} {claim.metric} changes "
        f"by {effect(worst.change, claim.metric, scale)}"
        + (f" ({claim.within} {worst.group})" if worst.group else "")
    )
    if df < 1:
        backwards = sign * worst.change < -margin
        return done(
            "undecided",
            f"{'the worst step goes back' if backwards else 'every step goes the claimed way'} "
            f"({words}), but nothing tells a step from noise; add seeds or configurations at equal "
            f"{claim.x}",
        )
    strict = t_quantile(df, 1 - 0.1 / len(steps))
    clear = [s for s in steps if sign * s.change + strict * s.se < -margin]
    if clear:
        return done("contradicted", f"not {claim.monotone}: {words}, more than noise explains")
    one_sided = t_quantile(df, 0.9)
    open_ = [s for s in steps if sign * s.change - one_sided * s.se < -margin]
    if not open_:
        return done(
            "supported", f"{len(steps)} of {len(steps)} steps are {claim.monotone}: {words}"
        )
    widest = max(step.se for step in open_)
    least = effect(sign * detectable(df) * widest, claim.metric, scale)
    return done(
        "undecided",
        f"{len(open_)} of {len(steps)} steps may go back: {words}; this design could only have "
        f"seen a step of {least} (80 % power)",
    )


def _steps(found: Configurations, within: str) -> tuple[list[_Step], int, str]:
    """The steps, the degrees of freedom of their noise, and where the noise comes from."""
    groups: dict[str, dict[float, list[Point]]] = {}
    for point in found.points:
        name = str(point.settings.get(within)) if within else ""
        groups.setdefault(name, {}).setdefault(point.x, []).append(point)
    scatter, df = 0.0, 0
    for levels in groups.values():
        for same in levels.values():
            ys = np.asarray([point.y for point in same])
            scatter += float(((ys - ys.mean()) ** 2).sum())
            df += len(same) - 1
    basis = f"noise from {df + 1} or more configurations at equal x"
    variance = scatter / df if df else 0.0
    per_seed = False
    if not df and found.noise is not None:
        df = sum(point.seeds - 1 for point in found.points)
        variance, per_seed = found.noise**2, True
        basis = "noise from seeds"
    steps = []
    for name, levels in sorted(groups.items(), key=lambda item: order(item[0])):
        ordered = sorted(levels)
        for before, after in itertools.pairwise(ordered):
            one, two = levels[before], levels[after]
            change = float(np.mean([p.y for p in two]) - np.mean([p.y for p in one]))
            share = _share(one, per_seed) + _share(two, per_seed)
            steps.append(
                _Step(
                    group=name,
                    start=before,
                    end=after,
                    change=change,
                    se=math.sqrt(variance * share),
                )
            )
    return steps, df, basis if df else "no noise is known"


def _share(points: Sequence[Point], per_seed: bool) -> float:
    """Variance of a level's mean as a share of the variance of one measurement."""
    if not per_seed:
        return 1 / len(points)
    return sum(1 / point.seeds for point in points) / len(points) ** 2


def _margin(claim: MonotoneClaim, scale: Scale, points: Sequence[Point]) -> float:
    if claim.margin is None:
        return 0.0
    center = float(np.mean([point.y for point in points]))
    share = claim.margin.value
    if scale == "log2":
        return math.log2(1 + (share if claim.margin.percent else share / exp2(center)))
    return share * abs(center) if claim.margin.percent else share
