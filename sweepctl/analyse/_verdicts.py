"""Do the claims hold? Intervals against thresholds, three answers.

A claim is decided only by an interval that lies wholly on one side. Whatever is left open is
`undecided` and says which effect this design could have seen, because "not significant" at ten
points means very little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._intervals import detectable, t_quantile
from sweepctl.analyse._points import NotFitted, column_of, configurations
from sweepctl.analyse._results import (
    ClaimResult,
    FitResult,
    Point,
    Scale,
    Verdict,
    exp2,
    readable,
    scale_of,
    unit_of,
)
from sweepctl.study import FactorClaim, Margin, SlopeClaim

if TYPE_CHECKING:
    import pandas as pd


def slope_verdict(claim: SlopeClaim, fit: FitResult) -> ClaimResult:
    """Judge the sign of a slope and an R2; a claim of both stands only if both do.

    Sign: supported when the 95 % interval lies on the claimed side of 0, contradicted when it lies
    on the other. R2: supported when its 90 % interval (noncentral F at the fit's x) lies wholly on
    the claimed side of the threshold, contradicted when wholly on the other. Both ends at 5 % make
    a wrong `supported` and a wrong `contradicted` equally rare; the point R2 alone would call a
    claim at the threshold right half of the time.
    """
    if fit.slope is None:
        reason = fit.warnings[0].message if fit.warnings else "no fit"
        return ClaimResult(
            name=claim.name, verdict="undecided", evidence=f"fit {fit.name} was not made: {reason}"
        )
    judged: list[tuple[Verdict, str]] = []
    details: dict[str, Any] = {"fit": fit.name, "n": fit.n, "df": fit.df}
    if claim.slope is not None:
        judged.append(_judge_sign(claim.slope, fit, details))
    if claim.r2 is not None:
        judged.append(_judge_r2(claim, fit, details))
    verdicts = {verdict for verdict, _ in judged}
    verdict: Verdict = (
        "contradicted"
        if "contradicted" in verdicts
        else "undecided"
        if "undecided" in verdicts
        else "supported"
    )
    evidence = "; ".join(text for _, text in judged) + f"; n {fit.n}"
    if fit.warnings:
        codes = sorted({warning.code for warning in fit.warnings})
        evidence += f"; to be read with the fit's warnings: {', '.join(codes)}"
    return ClaimResult(name=claim.name, verdict=verdict, evidence=evidence, details=details)


def _judge_sign(claimed: str, fit: FitResult, details: dict[str, Any]) -> tuple[Verdict, str]:
    assert fit.slope is not None and fit.least_slope is not None
    low, high = fit.slope_interval()
    details |= {
        "slope": fit.slope.estimate,
        "slope_low": low,
        "slope_high": high,
        "least_slope": fit.least_slope,
    }
    text = f"slope {readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"
    seen = "positive" if low > 0 else "negative" if high < 0 else None
    if seen == claimed:
        return "supported", fit.meaning
    if seen is not None:
        return "contradicted", f"the slope is {seen}: {fit.meaning}"
    return "undecided", (
        f"{text} includes 0: this design could only have seen a slope of "
        f"{readable(fit.least_slope)} or steeper (80 % power)"
    )


def _judge_r2(claim: SlopeClaim, fit: FitResult, details: dict[str, Any]) -> tuple[Verdict, str]:
    assert claim.r2 is not None
    details |= {"r2": fit.r2, "r2_low": fit.r2_low, "r2_high": fit.r2_high}
    if fit.r2 is None or fit.r2_low is None or fit.r2_high is None:
        return "undecided", f"{fit.metric} does not vary, so R2 is not defined"
    wanted = f"{claim.r2.operator} {claim.r2.value:g}"
    text = f"R2 {fit.r2:.3f} [{fit.r2_low:.3f}, {fit.r2_high:.3f}] (90 %)"
    ends = (fit.r2_low, fit.r2_high)
    if all(claim.r2.holds(end) for end in ends):
        return "supported", f"{text} is {wanted}"
    if not any(claim.r2.holds(end) for end in ends):
        return "contradicted", f"{text} is not {wanted}"
    return "undecided", f"{text} can be on either side of {wanted}"


def factor_verdict(claim: FactorClaim, frame: pd.DataFrame) -> ClaimResult:
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
        points, _, _ = configurations(frame, claim.metric, claim.on, claim.given, scale)
    except NotFitted as refusal:
        return undecided(refusal.warning.message)
    factor = column_of(frame.columns, claim.factor)
    if any(isinstance(p.settings[factor], str) and " | " in p.settings[factor] for p in points):
        return undecided(f"{claim.factor} does not reach {claim.metric}: cells share their value")
    levels = sorted({p.settings[factor] for p in points}, key=_order)
    if len(levels) < 2:
        return undecided(f"only one value of {claim.factor} was measured: {levels[0]}")
    reached = {p.x: {q.settings[factor] for q in points if q.x == p.x} for p in points}
    used = [p for p in points if len(reached[p.x]) > 1]
    if not used:
        return undecided(
            f"no value of {claim.given} is reached by two values of {claim.factor}, "
            "so their effects cannot be told apart"
        )
    return _judge_factor(claim, scale, used, levels, factor)


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
    claim: FactorClaim, scale: Scale, used: Sequence[Point], levels: Sequence[Any], factor: str
) -> ClaimResult:
    contrasts, missing, df = _contrasts(used, levels, factor)
    strata = len({p.x for p in used})
    basis = f"{len(used)} configurations at {strata} values of {claim.given}, df {df}"
    basis += _other_settings(used, factor)
    margin = _margin(claim.margin, scale, used)
    details: dict[str, Any] = {"n": len(used), "df": df, "margin": margin, "scale": scale}
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
            f"{claim.factor} {c.a} against {c.b}: {_effect(c.estimate, claim.metric, scale)} "
            f"[{_effect(low, '', scale)}, {_effect(high, '', scale)}] "
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
        seen = _effect(visible * worst.se, claim.metric, scale)
        text = (
            f"{said(worst)} does not lie inside {size}, and no pair lies wholly outside it "
            f"({100 * outside:.3g} %): this design could only have seen an effect of {seen} "
            f"(80 % power); {basis}"
        )
        return ClaimResult(name=claim.name, verdict="undecided", evidence=text, details=details)
    widest = max(contrasts, key=lambda c: max(map(abs, c.interval(df, 0.9))))
    text = f"all differences lie within {size}, the widest is {said(widest)}; {basis}"
    return ClaimResult(name=claim.name, verdict="supported", evidence=text, details=details)


def _contrasts(
    used: Sequence[Point], levels: Sequence[Any], factor: str
) -> tuple[list[_Contrast], str, int]:
    """All pairs of levels that the design connects, what is missing, and the residual df."""
    strata = sorted({p.x for p in used})
    design = np.zeros((len(used), len(strata) + len(levels)))
    for row, point in enumerate(used):
        design[row, strata.index(point.x)] = 1
        design[row, len(strata) + levels.index(point.settings[factor])] = 1
    y = np.asarray([point.y for point in used])
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


def _effect(difference: float, metric: str, scale: Scale) -> str:
    if scale == "log2":
        return f"x{readable(exp2(difference))}"
    return f"{'+' if difference >= 0 else ''}{readable(difference)}{unit_of(metric)}"


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))
