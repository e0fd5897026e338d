"""Which points does the law not expect? Each one predicted by the law fitted without it.

A finished configuration far outside the prediction of all others is more often a broken run than a
discovery, so it is named while the sweep still runs. The error of such a prediction, divided by its
standard error, follows t with one degree of freedom less than the fit (the externally studentised
residual). As every point is looked at, the threshold is divided by their number (Bonferroni): of
sound sweeps one in twenty has a surprise at all. Lines and curves need no second fit for this; a
power law is refitted without the points that its tangent finds suspicious.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._bands import law_at
from sweepctl.analyse._laws import refitted
from sweepctl.analyse._points import cells_of, place_of
from sweepctl.analyse._results import FitResult, FitWarning, Point
from sweepctl.analyse._scales import exp2, readable, unit_of
from sweepctl.statistics import CONFIDENCE, t_quantile
from sweepctl.study import POWERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SURPRISE = 0.05
"""Chance that a sound fit has any surprise; each of n points is held against SURPRISE / n."""

_SUSPICIOUS = 0.5
"""Chance below which a power law is refitted without the point, to know it exactly."""
_LN2 = math.log(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A configuration and what the law fitted without it says of it.

    Attributes:
        point: the configuration.
        predicted: the law without it, on the fit's scale.
        se: standard error of the prediction error, on the fit's scale.
        df: degrees of freedom of the law without it.
        p: chance of so large an error somewhere among the points of a sound fit, 0 to 1.
    """

    point: Point
    predicted: float
    se: float
    df: int
    p: float

    @property
    def surprising(self) -> bool:
        """Whether it lies outside what the other configurations let expect."""
        return self.p < SURPRISE

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The prediction interval on the fit's scale."""
        half = t_quantile(self.df, confidence) * self.se
        return self.predicted - half, self.predicted + half


def left_out(fit: FitResult) -> tuple[LeftOut, ...]:
    """Every configuration that can be left out, predicted from all others.

    Empty where the law goes through every point, or where fewer than one degree of freedom would
    be left.
    """
    if not fit.fitted or fit.sigma is None or fit.df < 2:
        return ()
    size = max(abs(point.y) for point in fit.points)
    if fit.sigma <= 1e-10 * max(size, 1e-300):
        return ()
    found = []
    for point in fit.points:
        one = _by_leverage(fit, point)
        if one is not None and fit.form in POWERS and one.p < _SUSPICIOUS:
            one = _refitted_without(fit, point)
        if one is not None:
            found.append(one)
    return tuple(found)


def surprise_warnings(fit: FitResult) -> list[FitWarning]:
    """A warning for each surprising configuration."""
    return [_warning(fit, one) for one in left_out(fit) if one.surprising]


def with_surprises(fit: FitResult) -> FitResult:
    """The same result with its surprises among the warnings."""
    found = surprise_warnings(fit)
    return replace(fit, warnings=(*fit.warnings, *found)) if found else fit


def _by_leverage(fit: FitResult, point: Point) -> LeftOut | None:
    """Without a second fit: exact for least squares, the tangent's answer for power laws."""
    h, e, w = point.leverage, point.y - point.fitted, point.weight
    if not h < 1 - 1e-9:
        return None
    assert fit.sigma is not None
    total = fit.sigma**2 * fit.df
    left = (total - w * e * e / (1 - h)) / (fit.df - 1)
    # A robust loss leaves more squares in one point than the mean of all: its scatter is kept.
    variance = left if left > 0 and fit.loss == "squares" else fit.sigma**2
    # All scatter was this point's: rounding must not make it infinitely surprising.
    variance = max(variance, 1e-20 * total)
    se = math.sqrt(variance / (w * (1 - h)))
    return _judged(fit, point, point.y - e / (1 - h), se, fit.df - 1)


def _refitted_without(fit: FitResult, point: Point) -> LeftOut | None:
    rest = refitted(fit, [other for other in fit.points if other is not point])
    if not rest.fitted or rest.sigma is None or rest.df < 1:
        return None
    mean, gradient = law_at(rest, np.asarray([point.xs], dtype=np.float64), None)
    variance = float(gradient[0] @ np.asarray(rest.covariance) @ gradient[0]) / _LN2**2
    se = math.sqrt(max(variance, 0.0) + rest.sigma**2 / point.weight)
    return _judged(fit, point, float(mean[0]), se, rest.df) if se > 0 else None


def _judged(fit: FitResult, point: Point, predicted: float, se: float, df: int) -> LeftOut:
    from scipy.special import stdtr

    p = 2 * float(stdtr(df, -abs(point.y - predicted) / se))
    return LeftOut(point=point, predicted=predicted, se=se, df=df, p=min(1.0, p * len(fit.points)))


def _warning(fit: FitResult, one: LeftOut) -> FitWarning:
    low, high = one.interval(1 - SURPRISE / len(fit.points))
    ends = [_shown(end, fit) for end in (one.point.y, low, high)]
    return FitWarning(
        code="surprise",
        message=(
            f"{place_of(one.point)} ({cells_of(one.point)}) has {fit.metric} "
            f"{ends[0]}{unit_of(fit.metric)}; the law without it expects {ends[1]} to {ends[2]} "
            f"(p {_p(one.p)} after {len(fit.points)} looks): a broken run, or a law "
            "that does not hold there"
        ),
    )


def _shown(y: float, fit: FitResult) -> str:
    return readable(exp2(y) if fit.scale == "log2" else y)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def surprising_cells(fits: Sequence[FitResult]) -> dict[int, tuple[str, ...]]:
    """Cell -> names of the fits that are surprised by it."""
    found: dict[int, tuple[str, ...]] = {}
    for fit in fits:
        for one in left_out(fit):
            for cell in one.point.cells if one.surprising else ():
                found[cell] = (*found.get(cell, ()), fit.name)
    return found
