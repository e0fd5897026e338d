"""How well does a law predict what it was not shown? Left out, held out, and scores of laws.

A finished configuration far outside what the law fitted without it predicts is more often a broken
run than a discovery, so it is named while the sweep still runs. The error of such a prediction,
divided by its standard error, follows t with one degree of freedom less than the fit (the
externally studentized residual). As every point is looked at, the threshold is divided by their
number (Bonferroni): of sound sweeps one in twenty has an outlier at all. Lines and polynomials need
no second fit for this; a curve is refitted without the points that its tangent finds suspicious.

Hold-outs are ordered by x, because a scaling law is used beyond its largest run; a random split
would ask it to interpolate, which every curve can. The claim `holdout` judges the same errors
against a margin. Scores put likelihoods on the metric's own unit (with the Jacobian of the
logarithm) and errors on the metric's own scale, so that the numbers of different forms can stand in
one column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._bands import bands, law_at
from sweepctl.analyse._laws import refitted
from sweepctl.analyse._points import cells_of, place_of
from sweepctl.analyse._results import FitResult, FitWarning, Point, Score
from sweepctl.analyse._scales import is_metric, readable, scale_of, unit_of
from sweepctl.errors import UsageError
from sweepctl.laws import Scale, exp2
from sweepctl.statistics import CONFIDENCE, t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sweepctl.study import Comparison

    Array = NDArray[np.float64]

OUTLIER = 0.05
"""Chance that a sound fit has any outlier; each of n points is held against OUTLIER / n."""

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
    def is_outlier(self) -> bool:
        """Whether it lies outside what the other configurations let expect."""
        return self.p < OUTLIER

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
        if one is not None and fit.law.curve is not None and one.p < _SUSPICIOUS:
            one = _refitted_without(fit, point)
        if one is not None:
            found.append(one)
    return tuple(found)


def outlier_warnings(fit: FitResult) -> list[FitWarning]:
    """A warning for each outlier."""
    return [_warning(fit, one) for one in left_out(fit) if one.is_outlier]


def with_outliers(fit: FitResult) -> FitResult:
    """The same result with its outliers among the warnings."""
    found = outlier_warnings(fit)
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
    # All scatter was this point's: rounding must not make it an infinite outlier.
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
    low, high = one.interval(1 - OUTLIER / len(fit.points))
    ends = [_shown(end, fit) for end in (one.point.y, low, high)]
    return FitWarning(
        code="outlier",
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


def outlier_cells(fits: Sequence[FitResult]) -> dict[int, tuple[str, ...]]:
    """Cell -> names of the fits of which it is an outlier."""
    found: dict[int, tuple[str, ...]] = {}
    for fit in fits:
        for one in left_out(fit):
            for cell in one.point.cells if one.is_outlier else ():
                found[cell] = (*found.get(cell, ()), fit.name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A held-out configuration.

    Attributes:
        point: the configuration.
        measured: its value, in the metric's unit.
        predicted: the law fitted on the rest.
        low: lower end of the 95 % interval of one new configuration there.
        high: upper end.
    """

    point: Point
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the value lies inside the interval."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOut:
    """A law tested on what it did not see.

    Attributes:
        rest: the law without the held-out configurations.
        held: the held-out configurations, in the order of x.
        cut: smallest (or largest) x that was held out, in words: ">= 8192".
        rms: root mean square error on `scale`.
        bias: mean error (measured - predicted) on `scale`.
        scale: scale of both errors.
        reason: why there is no test; empty when there is one.
    """

    rest: FitResult
    held: tuple[Predicted, ...]
    cut: str
    rms: float | None
    bias: float | None
    scale: Scale
    reason: str = ""


def hold_out(fit: FitResult, cut: Comparison | None = None) -> HoldOut:
    """Fit a law without some x and predict them.

    Args:
        fit: the law.
        cut: which x are held out; the upper third of its distinct values when None.
    """
    values = sorted({point.x for point in fit.points})
    edge = values[len(values) - max(1, len(values) // 3)] if values else 0.0

    def is_held(point: Point) -> bool:
        return point.x >= edge if cut is None else cut.holds(point.x)

    said = f">= {edge:.10g}" if cut is None else str(cut)
    rest = refitted(fit, [point for point in fit.points if not is_held(point)])
    held = [point for point in fit.points if is_held(point)]
    reason = ""
    if not fit.fitted:
        reason = fit.reason
    elif not held:
        reason = f"no configuration has {fit.x} {said}"
    elif not rest.fitted:
        reason = f"without {fit.x} {said} there is no law: {rest.reason}"
    elif any(p.settings.get(name) not in rest.factors[name] for p in held for name in rest.factors):
        reason = f"with {fit.x} {said} go all configurations of a level of a factor"
    if reason:
        return HoldOut(
            rest=rest, held=(), cut=said, rms=None, bias=None, scale=fit.scale, reason=reason
        )
    found = tuple(_predicted(rest, point) for point in held)
    ends = np.asarray([(one.measured, one.predicted) for one in found])
    if fit.scale == "log2":
        ends = np.log2(ends)
    errors = ends[:, 0] - ends[:, 1]
    return HoldOut(
        rest=rest,
        held=found,
        cut=said,
        rms=float(np.sqrt(np.mean(errors**2))),
        bias=float(errors.mean()),
        scale=fit.scale,
    )


def _predicted(rest: FitResult, point: Point) -> Predicted:
    at = dict(zip(rest.xs[1:], point.xs[1:], strict=True))
    at |= {factor: point.settings[factor] for factor in rest.factors}
    band = bands(rest, [point.x], at)
    return Predicted(
        point=point,
        measured=exp2(point.y) if rest.scale == "log2" else point.y,
        predicted=float(band.mean[0]),
        low=float(band.low[0]),
        high=float(band.high[0]),
    )


def compare(fits: Sequence[FitResult]) -> tuple[Score, ...]:
    """Score laws of one metric on the same configurations.

    Raises:
        UsageError: the laws are of different metrics, data sets or configurations; none was made.
    """
    made = [fit for fit in fits if fit.fitted]
    if not made:
        raise UsageError("there is no fitted law to compare")
    first = made[0]
    for fit in made[1:]:
        if (fit.metric, fit.on, fit.protocol) != (first.metric, first.on, first.protocol):
            raise UsageError(
                f"{fit.name} is of {fit.metric} on {fit.on}, {first.name} of {first.metric} on "
                f"{first.on}: only laws of one quantity can be compared"
            )
        if {point.cells for point in fit.points} != {point.cells for point in first.points}:
            raise UsageError(
                f"{fit.name} and {first.name} are fitted on different configurations; "
                "give them the same where"
            )
    scale = scale_of(first.metric) if is_metric(first.metric) else first.scale
    return tuple(_score(fit, scale) for fit in made)


def _score(fit: FitResult, scale: Scale) -> Score:
    n = fit.n
    parameters = len(fit.centered) + 1
    weights = np.asarray([point.weight for point in fit.points])
    residuals = np.asarray([point.y - point.fitted for point in fit.points])
    # Maximum likelihood divides by n; points of weight w have variance sigma^2 / w.
    variance = max(float(weights @ residuals**2) / n, 1e-300)
    likelihood = -0.5 * n * (math.log(2 * math.pi * variance) + 1) + 0.5 * float(
        np.log(weights).sum()
    )
    if fit.scale == "log2":
        # dlog2(y)/dy = 1 / (y ln 2)
        likelihood -= sum(point.y * _LN2 + math.log(_LN2) for point in fit.points)
    left = n - parameters - 1
    held, error = _holdout(fit, scale)
    return Score(
        fit=fit.name,
        parameters=parameters,
        log_likelihood=likelihood,
        aicc=2 * parameters * (1 + (parameters + 1) / left) - 2 * likelihood if left > 0 else None,
        bic=parameters * math.log(n) - 2 * likelihood,
        press_rmse=_press(fit, scale),
        holdout_rmse=error,
        holdout_n=held,
        scale=scale,
    )


def _press(fit: FitResult, scale: Scale) -> float | None:
    """Each configuration from all others; None when one cannot be left out."""
    errors = []
    for index, point in enumerate(fit.points):
        if math.isnan(point.leverage) or point.leverage > 1 - 1e-9:
            return None
        if fit.law.curve is not None:
            rest = refitted(fit, [p for i, p in enumerate(fit.points) if i != index])
            if not rest.fitted:
                return None
            predicted = float(predicted_at(rest, [point])[0])
        else:
            predicted = point.y - (point.y - point.fitted) / (1 - point.leverage)
        errors.append(_on(point.y, fit.scale, scale) - _on(predicted, fit.scale, scale))
    return _rms(errors)


def _holdout(fit: FitResult, scale: Scale) -> tuple[int, float | None]:
    """The upper third of the values of x, predicted from the rest."""
    values = sorted({point.x for point in fit.points})
    if len(values) < 3:
        return 0, None
    cut = values[len(values) - max(1, len(values) // 3)]
    held = [point for point in fit.points if point.x >= cut]
    rest = refitted(fit, [point for point in fit.points if point.x < cut])
    if not rest.fitted or any(
        point.settings.get(factor) not in levels
        for factor, levels in rest.factors.items()
        for point in held
    ):
        return len(held), None
    predicted = predicted_at(rest, held)
    return len(held), _rms(
        [
            _on(point.y, fit.scale, scale) - _on(float(guess), fit.scale, scale)
            for point, guess in zip(held, predicted, strict=True)
        ]
    )


def predicted_at(fit: FitResult, points: Sequence[Point]) -> Array:
    """The law at configurations, on the fit's scale."""
    xs = np.asarray([point.xs for point in points], dtype=np.float64)
    return law_at(fit, xs, [point.settings for point in points])[0]


def _on(value: float, scale: Scale, wanted: Scale) -> float:
    if scale == wanted:
        return value
    if wanted == "raw":
        return exp2(value)
    return math.log2(value) if value > 0 else math.nan


def _rms(errors: Sequence[float]) -> float | None:
    value = math.sqrt(float(np.mean(np.square(errors))))
    # A raw law may predict a negative distance, which has no logarithm: no error can be stated.
    return value if math.isfinite(value) else None
