"""Does a factor matter once another variable is known? Intervals of its effects, two ways.

The verdict rests on the saturated model: one level a value of the given variable, so that no curve
in it can pass for an effect of the factor. The nested test inside a line in log2 of that variable
stands beside it, because papers print it: where the line bends, the two disagree.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import (
    FitResult,
    NotFitted,
    Point,
    column_of,
    configurations,
    detectable,
    effect,
    linear_result,
    order,
    scale_of,
)
from sweepctl.claims._results import ClaimResult
from sweepctl.laws import Scale, exp2
from sweepctl.statistics import t_quantile
from sweepctl.study import FactorClaim, Margin

if TYPE_CHECKING:
    import pandas as pd


def factor_verdict(
    claim: FactorClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    """Judge that a factor changes nothing once another variable is known.

    Model: one level a value of `given` plus one effect a level of the factor, on the metric's
    scale, so that no curve in `given` can pass for an effect of the factor. Supported by two
    one-sided tests: the 90 % interval of every pair of levels lies inside the margin (no correction
    is due, all must pass). Contradicted when one interval lies wholly outside; one of many pairs
    suffices there, so those intervals are Bonferroni's. A percentage is a ratio under log2 and a
    share of the mean of y else; a number under log2 is taken at the geometric mean.
    """
    scale = scale_of(claim.metric)

    def undecided(reason: str, **details: Any) -> ClaimResult:
        return ClaimResult(name=claim.name, verdict="undecided", evidence=reason, details=details)

    try:
        found = configurations(
            frame, claim.metric, claim.on, (claim.given,), scale, where=claim.where
        )
    except NotFitted as refusal:
        return undecided(refusal.warning.message)
    points = found.points
    factor = column_of(frame.columns, claim.factor)
    if any(isinstance(p.settings[factor], str) and " | " in p.settings[factor] for p in points):
        return undecided(f"{claim.factor} does not reach {claim.metric}: cells share their value")
    levels = sorted({p.settings[factor] for p in points}, key=order)
    if len(levels) < 2:
        return undecided(f"only one value of {claim.factor} was measured: {levels[0]}")
    reached = {p.x: {q.settings[factor] for q in points if q.x == p.x} for p in points}
    used = [p for p in points if len(reached[p.x]) > 1]
    if not used:
        return undecided(
            f"no value of {claim.given} is reached by two values of {claim.factor}, "
            "so their effects cannot be told apart"
        )
    nested = _nested(claim, points, factor, levels, scale)
    return _judge_factor(claim, scale, used, levels, factor, nested)


def _nested(
    claim: FactorClaim, points: Sequence[Point], factor: str, levels: Sequence[Any], scale: Scale
) -> dict[str, Any]:
    """The F test of the factor inside a line in log2 of the given variable; empty if impossible."""
    named = {
        "name": claim.name,
        "metric": claim.metric,
        "on": claim.on,
        "x": claim.given,
        "form": "loglog" if scale == "log2" else "semilog",
        "scale": scale,
        "xs": (claim.given,),
        "x_scales": ("log2",),
        "factors": {factor: tuple(levels)},
        "interaction": False,
        "n": len(points),
    }
    try:
        law = linear_result(named, points, ())
    except NotFitted as refusal:
        return {"not_tested": refusal.warning.message}
    test = next((one for one in law.tests if one.name.startswith("factor ")), None)
    if test is None:
        return {"not_tested": "the law goes through every point"}
    bent = [
        warning.code for warning in law.warnings if warning.code in ("curvature", "lack_of_fit")
    ]
    return {"f": test.statistic, "df1": test.df1, "df2": test.df2, "p": test.p, "warnings": bent}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contrast:
    """Level a against level b at equal `given`, on the metric's scale.

    Attributes:
        a: the level named first.
        b: the level it is compared with.
        estimate: difference of the two.
        se: its standard error.
    """

    a: Any
    b: Any
    estimate: float
    se: float

    def interval(self, df: int, confidence: float) -> tuple[float, float]:
        half = t_quantile(df, confidence) * self.se
        return self.estimate - half, self.estimate + half


def _judge_factor(
    claim: FactorClaim,
    scale: Scale,
    used: Sequence[Point],
    levels: Sequence[Any],
    factor: str,
    nested: dict[str, Any],
) -> ClaimResult:
    contrasts, missing, df = _contrasts(used, levels, factor)
    strata = len({p.x for p in used})
    basis = f"{len(used)} configurations at {strata} values of {claim.given}, df {df}"
    basis += _other_settings(used, factor)
    margin = _margin(claim.margin, scale, used)
    details: dict[str, Any] = {"n": len(used), "df": df, "margin": margin, "scale": scale}
    details["nested"] = nested
    basis += _beside(nested)
    if df < 1:
        reason = f"{basis}: nothing is left to estimate the scatter from; add seeds or cells"
        return ClaimResult(name=claim.name, verdict="undecided", evidence=reason, details=details)
    outside = 1 - 0.1 / max(len(contrasts), 1)
    visible = detectable(df)
    details["contrasts"] = [
        {
            "a": c.a,
            "b": c.b,
            "difference": c.estimate,
            "low": c.interval(df, 0.9)[0],
            "high": c.interval(df, 0.9)[1],
            "detectable": visible * c.se,
        }
        for c in contrasts
    ]

    def said(c: _Contrast, confidence: float = 0.9) -> str:
        low, high = c.interval(df, confidence)
        return (
            f"{claim.factor} {c.a} against {c.b}: {effect(c.estimate, claim.metric, scale)} "
            f"[{effect(low, '', scale)}, {effect(high, '', scale)}] "
            f"({100 * confidence:.3g} %) at equal {claim.given}"
        )

    size = f"the margin of {claim.margin}"
    against = [c for c in contrasts if _apart(c.interval(df, outside), margin)]
    if against:
        worst = max(against, key=lambda c: abs(c.estimate))
        text = f"{said(worst, outside)} lies outside {size}; {basis}"
        return ClaimResult(name=claim.name, verdict="contradicted", evidence=text, details=details)
    open_ = [c for c in contrasts if max(map(abs, c.interval(df, 0.9))) > margin]
    if missing:
        text = f"{missing}; {basis}"
        return ClaimResult(name=claim.name, verdict="undecided", evidence=text, details=details)
    if open_:
        worst = max(open_, key=lambda c: max(map(abs, c.interval(df, 0.9))))
        seen = effect(visible * worst.se, claim.metric, scale)
        text = (
            f"{said(worst)} does not lie inside {size}, and no pair lies wholly outside it "
            f"({100 * outside:.3g} %): this design could only have seen an effect of {seen} "
            f"(80 % power); {basis}"
        )
        return ClaimResult(name=claim.name, verdict="undecided", evidence=text, details=details)
    widest = max(contrasts, key=lambda c: max(map(abs, c.interval(df, 0.9))))
    text = f"all differences lie within {size}, the widest is {said(widest)}; {basis}"
    return ClaimResult(name=claim.name, verdict="supported", evidence=text, details=details)


def _beside(nested: dict[str, Any]) -> str:
    if "p" not in nested:
        return ""
    text = f"; inside a line F({nested['df1']}, {nested['df2']}) = {nested['f']:.3g}, p "
    text += "< 0.001" if nested["p"] < 0.001 else f"= {nested['p']:.2g}"
    return text + (" (the line itself is in doubt)" if nested["warnings"] else "")


def _contrasts(
    used: Sequence[Point], levels: Sequence[Any], factor: str
) -> tuple[list[_Contrast], str, int]:
    """All pairs of levels that the design connects, what is missing, and the residual df."""
    strata = sorted({p.x for p in used})
    design = np.zeros((len(used), len(strata) + len(levels)))
    for row, point in enumerate(used):
        design[row, strata.index(point.x)] = 1
        design[row, len(strata) + levels.index(point.settings[factor])] = 1
    root = np.sqrt([point.weight for point in used])
    y = root * np.asarray([point.y for point in used])
    design = root[:, None] * design
    inverse = np.linalg.pinv(design)
    rank = int(np.linalg.matrix_rank(design))
    df = len(used) - rank
    residuals = y - design @ (inverse @ y)
    variance = float(residuals @ residuals) / df if df else 0.0
    contrasts, unconnected = [], []
    for j, i in itertools.combinations(range(len(levels)), 2):
        contrast = np.zeros(design.shape[1])
        contrast[len(strata) + i], contrast[len(strata) + j] = 1, -1
        # A contrast outside the row space has no estimate: no chain of equal x joins the levels.
        if np.abs(contrast @ inverse @ design - contrast).max() > 1e-8:
            unconnected.append(f"{levels[j]} and {levels[i]}")
            continue
        weights = contrast @ inverse
        contrasts.append(
            _Contrast(
                a=levels[i],
                b=levels[j],
                estimate=float(weights @ y),
                se=math.sqrt(variance * float(weights @ weights)),
            )
        )
    missing = ""
    if unconnected:
        missing = f"{factor} {', '.join(unconnected)} are never measured at an equal or linked x"
    return contrasts, missing, df


def _other_settings(used: Sequence[Point], factor: str) -> str:
    """Names settings that differ at equal x and factor: their effects widen the intervals."""
    derived = {"tokens", "E", "compression", "parameters", "macs", factor}
    groups: dict[tuple[float, Any], list[Point]] = {}
    for point in used:
        groups.setdefault((point.x, point.settings[factor]), []).append(point)
    names = sorted(
        {
            key
            for group in groups.values()
            for key in group[0].settings
            if key not in derived and len({repr(p.settings[key]) for p in group}) > 1
        }
    )
    return f" ({', '.join(names)} differ too and count as scatter)" if names else ""


def _margin(margin: Margin, scale: Scale, used: Sequence[Point]) -> float:
    """The margin on the metric's scale."""
    center = float(np.mean([point.y for point in used]))
    if scale == "log2":
        return math.log2(1 + (margin.value if margin.percent else margin.value / exp2(center)))
    return margin.value * abs(center) if margin.percent else margin.value


def _apart(interval: tuple[float, float], margin: float) -> bool:
    return interval[0] > margin or interval[1] < -margin
