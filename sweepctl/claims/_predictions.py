"""Do claims about two metrics, or about unseen cells, hold? Trade-offs and hold-outs.

A trade-off is a rank correlation of goodness: it asks nothing about the form of either metric. A
hold-out fits the law below a cut in x and predicts above it, which is what a scaling law is for;
errors are judged against a margin that the claim states beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import (
    FitResult,
    NotFitted,
    Point,
    bands,
    better_of,
    configurations,
    effect,
    fit_named,
    place_of,
    predicted_at,
    rank_interval,
    readable,
    refitted,
    scale_of,
)
from sweepctl.claims._results import ClaimResult, Verdict
from sweepctl.claims._slopes import not_made, warnings_of
from sweepctl.laws import exp2
from sweepctl.statistics import front_of
from sweepctl.study import HoldoutClaim, TradeoffClaim

if TYPE_CHECKING:
    import pandas as pd


def tradeoff_verdict(
    claim: TradeoffClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    """Judge that one metric gets worse where the other gets better.

    Spearman's rank correlation of the two goodnesses, with an interval by Fisher's transformation
    and Bonett and Wright's error. Supported when the 95 % interval lies below 0, contradicted when
    above. The Pareto front is in the details: configurations that no other one beats in both.
    """
    scale, other_scale = scale_of(claim.metric), scale_of(claim.against)
    try:
        points = configurations(
            frame,
            claim.metric,
            claim.on,
            (claim.against,),
            scale,
            where=claim.where,
            x_on=claim.against_on,
            x_scales=(other_scale,),
        ).points
    except NotFitted as refusal:
        return ClaimResult(name=claim.name, verdict="undecided", evidence=refusal.warning.message)
    sign = 1 if better_of(claim.metric) == "higher" else -1
    other = 1 if better_of(claim.against) == "higher" else -1
    good = np.asarray([[sign * point.y, other * point.x] for point in points])
    n = len(points)
    details: dict[str, Any] = {"n": n}
    if n < 5 or any(len(np.unique(column)) < 2 for column in good.T):
        reason = f"{n} configurations with both metrics; a rank correlation needs 5 that differ"
        return ClaimResult(name=claim.name, verdict="undecided", evidence=reason, details=details)
    rho, low, high = rank_interval(good)
    front = front_of((-good).tolist())
    least = _least_rho(n)
    details |= {
        "spearman": rho,
        "low": low,
        "high": high,
        "least_spearman": least,
        "front": [
            {
                "cells": list(points[i].cells),
                claim.metric: _value(points[i], scale),
                claim.against: points[i].x,
            }
            for i in front
        ],
        "front_share": len(front) / n,
    }
    text = (
        f"goodness in {claim.metric} and in {claim.against}: rank correlation {rho:.2f} "
        f"[{low:.2f}, {high:.2f}]; {len(front)} of {n} configurations are on the Pareto front"
    )
    if high < 0:
        return ClaimResult(name=claim.name, verdict="supported", evidence=text, details=details)
    if low > 0:
        text = f"both get better together: {text}"
        return ClaimResult(name=claim.name, verdict="contradicted", evidence=text, details=details)
    text += f"; this design could only have seen a correlation of {-least:.2f} (80 % power)"
    return ClaimResult(name=claim.name, verdict="undecided", evidence=text, details=details)


def _value(point: Point, scale: str) -> float:
    return exp2(point.y) if scale == "log2" else point.y


def _least_rho(n: int) -> float:
    """The smallest rank correlation that n configurations see with 80 % power."""
    from scipy.stats import norm

    needed = float(norm.ppf(0.975) + norm.ppf(0.8))
    low, high = 0.0, 1 - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        error = math.sqrt((1 + middle**2 / 2) / (n - 3))
        low, high = (middle, high) if math.atanh(middle) < needed * error else (low, middle)
    return high


def holdout_verdict(
    claim: HoldoutClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    """Judge that the law fitted below a cut in x predicts what lies above.

    The typical error is the root mean square over the held-out configurations, with a 90 % interval
    (chi-squared): supported when its upper end is inside the margin, contradicted when its lower
    end is outside. A percentage is a ratio under log2.
    """
    fit = fit_named(claim.fit, fits)
    if not fit.fitted:
        return not_made(claim.name, fit)
    held = [point for point in fit.points if claim.holdout.holds(point.x)]
    rest = refitted(fit, [point for point in fit.points if not claim.holdout.holds(point.x)])
    details: dict[str, Any] = {"held_out": len(held), "trained_on": rest.n}

    def done(verdict: Verdict, text: str) -> ClaimResult:
        text += warnings_of(rest)
        return ClaimResult(name=claim.name, verdict=verdict, evidence=text, details=details)

    if not held:
        return done("undecided", f"no configuration has {fit.x} {claim.holdout}")
    if not rest.fitted:
        text = f"without {fit.x} {claim.holdout} there is no law: {rest.reason}"
        return ClaimResult(name=claim.name, verdict="undecided", evidence=text, details=details)
    errors = np.asarray([point.y for point in held]) - predicted_at(rest, held)
    rms = math.sqrt(float(np.mean(errors**2)))
    low, high = _rms_interval(rms, len(held))
    margin = _margin(claim, fit, held)
    outside = _outside(rest, held)
    reach = max(point.x for point in held) / max(point.x for point in rest.points)
    details |= {
        "rms": rms,
        "rms_low": low,
        "rms_high": high,
        "bias": float(errors.mean()),
        "margin": margin,
        "scale": fit.scale,
        "outside_prediction_band": outside,
        "reach": reach,
        "errors": [
            {"cells": list(point.cells), "x": point.x, "error": float(error)}
            for point, error in zip(held, errors, strict=True)
        ],
    }
    worst = held[int(np.argmax(np.abs(errors)))]
    size = effect(rms, fit.metric, fit.scale)
    ends = f"[{effect(low, '', fit.scale)}, {effect(high, '', fit.scale)}]"
    text = (
        f"fitted on {rest.n} configurations, {len(held)} with {fit.x} {claim.holdout} predicted: "
        f"typical error {size} {ends} (90 %), mean error "
        f"{effect(float(errors.mean()), fit.metric, fit.scale)}, worst at {place_of(worst)}; "
        f"{outside} of {len(held)} outside the 95 % prediction band"
    )
    if reach > 10 and fit.x_scale == "log2":
        text += f"; {readable(reach)} times beyond the fitted range, over a decade"
    if high <= margin:
        return done("supported", f"{text}: within the margin of {claim.margin}")
    if low > margin:
        return done("contradicted", f"{text}: outside the margin of {claim.margin}")
    least = effect(high, fit.metric, fit.scale)
    return done(
        "undecided",
        f"{text}: may lie on either side of the margin of {claim.margin}; with these errors this "
        f"design could only have shown a margin of {least}",
    )


def _rms_interval(rms: float, n: int) -> tuple[float, float]:
    from scipy.special import chdtri

    return rms * math.sqrt(n / chdtri(n, 0.05)), rms * math.sqrt(n / chdtri(n, 0.95))


def _margin(claim: HoldoutClaim, fit: FitResult, held: Sequence[Point]) -> float:
    share = claim.margin.value
    center = float(np.mean([point.y for point in held]))
    if fit.scale == "log2":
        return math.log2(1 + (share if claim.margin.percent else share / exp2(center)))
    return share * abs(center) if claim.margin.percent else share


def _outside(rest: FitResult, held: Sequence[Point]) -> int:
    """How many held-out configurations lie outside the 95 % band of a new configuration."""
    count = 0
    for point in held:
        at = {factor: point.settings[factor] for factor in rest.factors}
        band = bands(rest, [point.x], at)
        value = exp2(point.y) if rest.scale == "log2" else point.y
        count += not float(band.low[0]) <= value <= float(band.high[0])
    return count
