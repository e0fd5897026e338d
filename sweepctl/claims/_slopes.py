"""Do claims about slopes hold? Intervals against thresholds, three answers.

A claim is decided only by an interval that lies wholly on one side. Whatever is left open is
`undecided` and says which effect this design could have seen, because "not significant" at ten
points means very little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import FitResult, detectable, fit_named, readable, refitted
from sweepctl.claims._results import ClaimResult, Verdict
from sweepctl.statistics import t_quantile
from sweepctl.study import Comparison, EqualSlopesClaim, SlopeClaim

if TYPE_CHECKING:
    import pandas as pd


def slope_verdict(claim: SlopeClaim, frame: pd.DataFrame, fits: Sequence[FitResult]) -> ClaimResult:
    """Judge the sign of a slope and an R2; a claim of both stands only if both do.

    Sign: supported when the 95 % interval lies on the claimed side of 0, contradicted when it lies
    on the other. R2: supported when its 90 % interval (noncentral F at the fit's x) lies wholly on
    the claimed side of the threshold, contradicted when wholly on the other. Both ends at 5 % make
    a wrong `supported` and a wrong `contradicted` equally rare; the point R2 alone would call a
    claim at the threshold right half of the time.
    """
    fit = fit_named(claim.fit, fits)
    if fit.slope is None:
        return not_made(claim.name, fit)
    judged: list[tuple[Verdict, str]] = []
    details: dict[str, Any] = {"fit": fit.name, "n": fit.n, "df": fit.df}
    if claim.slope is not None:
        judge = _judge_size if isinstance(claim.slope, Comparison) else _judge_sign
        judged.append(judge(claim.slope, fit, details))  # type: ignore[arg-type]  # told apart above
    if claim.r2 is not None:
        judged.append(_judge_r2(claim, fit, details))
    evidence = "; ".join(text for _, text in judged) + f"; n {fit.n}" + warnings_of(fit)
    return ClaimResult(
        name=claim.name,
        verdict=weakest([verdict for verdict, _ in judged]),
        evidence=evidence,
        details=details,
    )


def weakest(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a claim that needs all its parts."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "undecided" if "undecided" in verdicts else "supported"


def warnings_of(*fits: FitResult) -> str:
    """The end of a sentence that names the warnings of the fits behind it; empty without any."""
    codes = sorted({warning.code for fit in fits for warning in fit.warnings})
    return f"; to be read with the fit's warnings: {', '.join(codes)}" if codes else ""


def not_made(name: str, fit: FitResult) -> ClaimResult:
    """The verdict on a claim whose fit does not exist."""
    reason = f"fit {fit.name} was not made: {fit.reason}"
    return ClaimResult(name=name, verdict="undecided", evidence=reason)


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


def _judge_size(
    claimed: Comparison, fit: FitResult, details: dict[str, Any]
) -> tuple[Verdict, str]:
    """Supported when both ends of the 95 % interval meet the comparison; contradicted: none."""
    assert fit.slope is not None and fit.least_slope is not None
    low, high = fit.slope_interval()
    details |= {
        "slope": fit.slope.estimate,
        "slope_low": low,
        "slope_high": high,
        "least_difference": fit.least_slope,
    }
    text = f"slope {readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"
    if all(claimed.holds(end) for end in (low, high)):
        return "supported", f"{text} is {claimed}"
    if not any(claimed.holds(end) for end in (low, high)):
        return "contradicted", f"{text} is not {claimed}"
    return "undecided", (
        f"{text} can be on either side of {claimed}: this design could only have seen a difference "
        f"of {readable(fit.least_slope)} (80 % power)"
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


def equal_slopes_verdict(
    claim: EqualSlopesClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    """Judge that fits have one slope: every difference inside the margin, by two one-sided tests.

    Supported when the 90 % interval of every pair lies inside the margin (no correction is due, all
    must pass); contradicted when one, widened for the number of pairs (Bonferroni), lies wholly
    outside. Fits on the same configurations share their noise: there the slope of the differences
    is taken, else the two errors are added (Welch).
    """
    laws = [fit_named(name, fits) for name in claim.fits]
    for fit in laws:
        if fit.slope is None:
            return not_made(claim.name, fit)
    if len({(fit.scale, fit.x, fit.x_scale) for fit in laws}) > 1:
        reason = "the fits differ in their scales or variables, so their slopes have no common unit"
        return ClaimResult(name=claim.name, verdict="undecided", evidence=reason)
    pairs = [_difference(a, b) for a, b in itertools.combinations(laws, 2)]
    margin, outside = claim.margin, 1 - 0.1 / len(pairs)
    details: dict[str, Any] = {
        "margin": margin,
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "difference": pair.estimate,
                "low": pair.interval(0.9)[0],
                "high": pair.interval(0.9)[1],
                "detectable": detectable(max(1, int(pair.df))) * pair.se,
                "paired": pair.paired,
            }
            for pair in pairs
        ],
    }

    def said(pair: _Difference, confidence: float = 0.9) -> str:
        low, high = pair.interval(confidence)
        return (
            f"slope of {pair.a} less that of {pair.b}: {readable(pair.estimate)} "
            f"[{readable(low)}, {readable(high)}] ({100 * confidence:.3g} %)"
        )

    def done(verdict: Verdict, text: str) -> ClaimResult:
        text += warnings_of(*laws)
        return ClaimResult(name=claim.name, verdict=verdict, evidence=text, details=details)

    against = [
        p for p in pairs if p.interval(outside)[0] > margin or p.interval(outside)[1] < -margin
    ]
    if against:
        worst = max(against, key=lambda pair: abs(pair.estimate))
        return done("contradicted", f"{said(worst, outside)} lies outside the margin of {margin:g}")
    widest = max(pairs, key=lambda pair: max(map(abs, pair.interval(0.9))))
    if max(map(abs, widest.interval(0.9))) <= margin:
        return done("supported", f"all lie within {margin:g}, the widest: {said(widest)}")
    seen = detectable(max(1, int(widest.df))) * widest.se
    return done(
        "undecided",
        f"{said(widest)} does not lie inside the margin of {margin:g}, and no pair lies wholly "
        f"outside it: this design could only have seen a difference of {readable(seen)} "
        "(80 % power)",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """One slope less another.

    Attributes:
        a: name of the first fit.
        b: name of the second fit.
        estimate: difference of the slopes.
        se: its standard error.
        df: degrees of freedom (Welch's when the fits are independent).
        paired: whether the fits share their configurations.
    """

    a: str
    b: str
    estimate: float
    se: float
    df: float
    paired: bool

    def interval(self, confidence: float) -> tuple[float, float]:
        half = t_quantile(self.df, confidence) * self.se
        return self.estimate - half, self.estimate + half


def _difference(a: FitResult, b: FitResult) -> _Difference:
    assert a.slope is not None and b.slope is not None
    shared = _shared(a, b)
    if shared is not None:
        return shared
    va, vb = a.slope.se**2, b.slope.se**2
    df = (va + vb) ** 2 / (va**2 / a.df + vb**2 / b.df) if va + vb > 0 else a.df + b.df
    return _Difference(
        a=a.name,
        b=b.name,
        estimate=a.slope.estimate - b.slope.estimate,
        se=math.sqrt(va + vb),
        df=df,
        paired=False,
    )


def _shared(a: FitResult, b: FitResult) -> _Difference | None:
    """The slope of the differences, where two lines stand on the same configurations."""
    if not (a.law.is_line and b.law.is_line) or a.factors or b.factors:
        return None
    there = {repr(sorted(_settings(point).items())): point for point in b.points}
    pairs = [(point, there.get(repr(sorted(_settings(point).items())))) for point in a.points]
    if len(there) != len(b.points) or len(a.points) != len(b.points):
        return None
    if any(other is None or other.xs != point.xs for point, other in pairs):
        return None
    points = [replace(p, y=p.y - other.y, weight=1.0) for p, other in pairs if other is not None]
    law = refitted(a, points)
    if law.slope is None:
        return None
    return _Difference(
        a=a.name,
        b=b.name,
        estimate=law.slope.estimate,
        se=law.slope.se,
        df=law.df,
        paired=True,
    )


def _settings(point: Any) -> dict[str, str]:
    return {str(key): repr(value) for key, value in point.settings.items()}
