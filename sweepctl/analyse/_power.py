"""Curves fitted to configurations, with everything that such a law says about itself.

The law is fitted on ln y (`_projection`). Its floor gets a profile-likelihood interval, because the
usual symmetric one is wrong where the floor is small: when 0 lies inside, the floor is reported as
not identified. All other intervals are t intervals of the linearized law, on the logarithm for what
must be positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._checks import curve_warnings, lack_of_fit, uneven_scatter
from sweepctl.analyse._families import Family
from sweepctl.analyse._points import NotFitted, cells_of, place_of
from sweepctl.analyse._power_fit import PowerFit, fit_power, floor_of
from sweepctl.analyse._regression import detectable, r2_interval
from sweepctl.analyse._results import Coefficient, FitResult, FitWarning, FTest, Point, deciding
from sweepctl.analyse._scales import readable, unit_of
from sweepctl.analyse._words import floor_in_words, meaning
from sweepctl.laws import FORMS, Number
from sweepctl.statistics import t_quantile
from sweepctl.study import Loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LN2 = math.log(2)
_H = 1e-5


def power_result(
    named: Mapping[str, Any],
    points: Sequence[Point],
    loss: Loss,
    warnings: Sequence[FitWarning],
) -> FitResult:
    """A curve with everything it says about itself.

    Args:
        named: fields of the result that are known already; `form` and `xs` say what is fitted.
        points: the configurations.
        loss: what is made small.
        warnings: warnings that are known already.

    Raises:
        NotFitted: the points do not suffice, or follow no such law.
    """
    form, names = str(named["form"]), tuple(named["xs"])
    xs = np.asarray([point.xs for point in points], dtype=np.float64)
    y = np.exp2([point.y for point in points])
    weights = np.asarray([point.weight for point in points])
    parameters = _enough_points(form, names, xs)
    fit, centers, y_center = fit_power(form, xs, y, weights, loss)
    floor = _times(floor_of(fit), math.exp(y_center))
    # HC3 divides by what a point leaves of itself; a point of leverage 1 leaves nothing.
    leverage = _leverage(fit)
    cook = _cook(fit, leverage)
    slope, hc3 = _slope(fit, leverage)
    ssr = float(weights @ (fit.residuals / _LN2) ** 2)
    r2 = _r2(fit, ssr)
    low, high = (None, None) if r2 is None else r2_interval(r2, parameters - 1, fit.df)
    tests = _tests(fit, ssr)
    log2_centers = tuple(float(value) / _LN2 for value in centers)
    text = meaning(named, slope, deciding(form, slope, hc3), None, log2_centers[0])
    metric = str(named["metric"])
    return FitResult(
        **{**named, "points": _described(points, fit, cook, leverage)},
        df=fit.df,
        r2=r2,
        r2_low=low,
        r2_high=high,
        sigma=math.sqrt(fit.variance) / _LN2,
        coefficients={"floor": floor, **_coefficients(fit, names, centers, y_center)},
        slope=slope,
        hc3_slope=hc3,
        least_slope=detectable(fit.df) * slope.se,
        meaning=f"{text}; {floor_in_words(floor, metric)}",
        tests=tests,
        warnings=(
            *warnings,
            *_bound_warnings(fit, names),
            *_floor_warnings(floor, metric),
            *curve_warnings(tests),
            *_influential(points, cook),
        ),
        center=log2_centers[0],
        centers=log2_centers,
        centered=tuple(float(value) for value in fit.theta),
        covariance=tuple(tuple(float(v) for v in row) for row in fit.covariance),
        y_center=y_center,
        at_bound=tuple(bool(value) for value in fit.bound),
    )


def _enough_points(form: str, names: Sequence[str], xs: Array) -> int:
    """The number of parameters; NotFitted when the points do not suffice for them."""
    parameters = Family(form=form, v_NM=np.zeros((1, len(names)))).parameters
    if len(xs) < parameters + 1:
        what = f"{len(xs)} of the {parameters + 1} configurations that a {form} law needs"
        raise NotFitted("too_few_points", what)
    least = parameters if len(names) == 1 else 3
    for x, values in zip(names, xs.T, strict=True):
        if (count := len(np.unique(values))) < least:
            what = f"{x} has {count} distinct values; a {form} law needs {least}"
            raise NotFitted("few_levels", what)
    return parameters


def _tests(fit: PowerFit, ssr: float) -> tuple[FTest, ...]:
    if ssr <= 1e-24 * len(fit.log_y):
        return ()  # it goes through every point
    v, log2_y = fit.family.v_NM, fit.log_y / _LN2
    return (
        *lack_of_fit(v, log2_y, fit.weights, ssr, fit.family.parameters),
        *uneven_scatter(v[:, 0], fit.residuals, fit.weights),
    )


def _r2(fit: PowerFit, ssr: float) -> float | None:
    log2_y = fit.log_y / _LN2
    mean = float(np.average(log2_y, weights=fit.weights))
    total = float(fit.weights @ (log2_y - mean) ** 2)
    return None if total <= 1e-24 * len(log2_y) else 1 - ssr / total


def _described(
    points: Sequence[Point], fit: PowerFit, cook: Array, leverage: Array
) -> tuple[Point, ...]:
    return tuple(
        replace(
            point, fitted=float(point.y - residual / _LN2), cook=float(distance), leverage=float(h)
        )
        for point, residual, distance, h in zip(points, fit.residuals, cook, leverage, strict=True)
    )


def _floor_warnings(floor: Coefficient, metric: str) -> list[FitWarning]:
    if floor.low > 0:
        return []
    text = (
        "the floor is not identified: its 95 % interval reaches from 0 to "
        f"{readable(floor.high)}{unit_of(metric)}"
    )
    return [FitWarning(code="asymptote_not_identified", message=text)]


def _influential(points: Sequence[Point], cook: Array) -> list[FitWarning]:
    return [
        FitWarning(
            code="influential_point",
            message=f"{place_of(point)} ({cells_of(point)}) carries the law "
            f"(Cook's distance {distance:.2g})",
        )
        for point, distance in zip(points, cook, strict=True)
        if distance > 1
    ]


def _bound_warnings(fit: PowerFit, names: Sequence[str]) -> list[FitWarning]:
    m = fit.family.variables
    warnings = []
    for term, x in enumerate(names):
        if fit.theta[1 + term] <= 1e-12:
            text = f"the term of {x} is 0: y does not fall with {x} once the others are known"
            warnings.append(FitWarning(code="exponent_at_bound", message=text))
    several = FORMS[fit.family.form].several
    shapes = fit.family.curve.shapes * m
    for q, (term, shape) in enumerate(zip(fit.family.owner, shapes, strict=True)):
        if fit.bound[1 + m + q] and fit.theta[1 + term] > 1e-12:
            what = f"{shape} of {names[term]}" if several else shape
            text = f"the {what} lies on the edge of its range: the points do not pin it down"
            warnings.append(FitWarning(code="exponent_at_bound", message=text))
    return warnings


# --------------------------------------------------------------------------------------- intervals


def _coefficients(
    fit: PowerFit, names: Sequence[str], centers: Array, y_center: float
) -> dict[str, Coefficient]:
    """The numbers of the formula in the units of x and y."""
    m, count = fit.family.variables, len(fit.family.curve.shapes)
    found: dict[str, Coefficient] = {}
    for i, (x, center) in enumerate(zip(names, map(float, centers), strict=True)):
        end = f" {x}" if m > 1 else ""
        # The parameters of a term by themselves, as the form's record counts them.
        own = [0, 1 + i, *range(1 + m + i * count, 1 + m + (i + 1) * count)]
        for number in fit.family.curve.numbers:
            of = partial(_of_term, number, own, center, y_center)
            interval = _positive if number.positive else _linear
            one = interval(fit, of, own[number.owner])
            found[number.name + end] = _times(one, math.exp(center)) if number.in_x else one
    return found


def _of_term(
    number: Number, own: Sequence[int], center: float, y_center: float, theta: Array
) -> float:
    return number.of(theta[own], center, y_center)


def _linear(fit: PowerFit, function: Callable[..., float], owner: int) -> Coefficient:
    """A function of the parameters with its delta interval; none when its parameter is fixed."""
    estimate = float(function(fit.theta))
    if fit.bound[owner]:
        return Coefficient(
            estimate=estimate, low=-math.inf, high=math.inf, se=math.nan, method="bound"
        )
    gradient = _gradient(fit.theta, function, fit.bound)
    se = math.sqrt(max(float(gradient @ fit.covariance @ gradient), 0.0))
    half = t_quantile(fit.df) * se
    return Coefficient(
        estimate=estimate, low=estimate - half, high=estimate + half, se=se, method="delta"
    )


def _positive(fit: PowerFit, log_of: Callable[..., float], owner: int) -> Coefficient:
    """The same for a positive number, by the interval of its logarithm."""
    if fit.theta[owner] <= 0 and owner <= fit.family.variables:
        return Coefficient(estimate=0.0, low=0.0, high=math.inf, se=math.nan, method="bound")
    inner = _linear(fit, log_of, owner)
    value = _exp(inner.estimate)
    return Coefficient(
        estimate=value,
        low=_exp(inner.low),
        high=_exp(inner.high),
        se=value * inner.se,
        method=inner.method,
    )


def _exp(value: float) -> float:
    return math.inf if value > 709 else math.exp(value)


def _gradient(theta: Array, function: Callable[..., float], bound: NDArray[np.bool_]) -> Array:
    gradient = np.zeros(len(theta))
    for k in np.flatnonzero(~bound):
        step = _H * max(abs(float(theta[k])), 1e-2)
        up, down = theta.copy(), theta.copy()
        up[k] += step
        down[k] -= step
        if down[k] <= 0 < theta[k]:
            down[k] = theta[k]
        gradient[k] = (function(up) - function(down)) / (up[k] - down[k])
    return gradient


def local_slopes(family: Family, theta_BK: Array) -> Array:
    """d ln y / d ln x of the first variable at the geometric mean of all, shape (B,)."""
    m = family.variables
    ends = np.zeros((2, m))
    ends[:, 0] = (-1e-4, 1e-4)
    logs = np.log(Family(form=family.form, v_NM=ends).values(theta_BK))
    slopes: Array = (logs[:, 1] - logs[:, 0]) / 2e-4
    return slopes


def slope_gradient(family: Family, theta_BK: Array) -> Array:
    """Derivatives of `local_slopes` in the parameters, shape (B, K)."""
    steps = _H * np.maximum(np.abs(theta_BK), 1e-2)
    gradient = np.zeros_like(theta_BK)
    for k in range(theta_BK.shape[1]):
        up, down = theta_BK.copy(), theta_BK.copy()
        up[:, k] += steps[:, k]
        down[:, k] -= steps[:, k]
        # Floors and amplitudes below 0 are no laws.
        down[:, k] = np.where((down[:, k] < 0) & (theta_BK[:, k] >= 0), theta_BK[:, k], down[:, k])
        rise = local_slopes(family, up) - local_slopes(family, down)
        gradient[:, k] = rise / (up[:, k] - down[:, k])
    return gradient


def _slope(fit: PowerFit, leverage: Array) -> tuple[Coefficient, Coefficient | None]:
    def function(theta: Array) -> float:
        return float(local_slopes(fit.family, theta[None])[0])

    gradient = _gradient(fit.theta, function, fit.bound)
    estimate, t = function(fit.theta), t_quantile(fit.df)
    se = math.sqrt(max(float(gradient @ fit.covariance @ gradient), 0.0))
    plain = Coefficient(
        estimate=estimate, low=estimate - t * se, high=estimate + t * se, se=se, method="delta"
    )
    if float(leverage.max()) > 1 - 1e-9 or np.isfinite(fit.bend.delta) or fit.variance <= 0:
        return plain, None
    inverse = fit.covariance / fit.variance
    pulled = fit.slopes * (fit.weights * fit.residuals / (1 - leverage))[:, None]
    robust = inverse @ (pulled.T @ pulled) @ inverse
    se = math.sqrt(max(float(gradient @ robust @ gradient), 0.0))
    return plain, Coefficient(
        estimate=estimate, low=estimate - t * se, high=estimate + t * se, se=se, method="hc3"
    )


def _leverage(fit: PowerFit) -> Array:
    if fit.variance <= 0:
        return np.zeros(len(fit.log_y))
    inverse = fit.covariance / fit.variance
    own = fit.weights * np.einsum("nk,kj,nj->n", fit.slopes, inverse, fit.slopes)
    clipped: Array = np.clip(own, 0.0, 1.0)
    return clipped


def _cook(fit: PowerFit, leverage: Array) -> Array:
    free = int((~fit.bound).sum())
    if fit.variance <= 0 or free == 0:
        return np.zeros(len(fit.log_y))
    left = np.where(leverage > 1 - 1e-9, np.nan, 1 - leverage)
    cook: Array = fit.weights * fit.residuals**2 * leverage / (free * fit.variance * left**2)
    return cook


def _times(coefficient: Coefficient, factor: float) -> Coefficient:
    return replace(
        coefficient,
        estimate=coefficient.estimate * factor,
        low=coefficient.low * factor,
        high=coefficient.high * factor,
        se=coefficient.se * factor,
    )
