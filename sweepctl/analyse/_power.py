"""Which power law do the points follow, and which of its numbers are known?

The law is fitted on ln y (`_projection`). Its floor gets a profile-likelihood interval, because the
usual symmetric one is wrong where the floor is small: when 0 lies inside, the floor is reported as
not identified. All other intervals are t intervals of the linearised law, on the logarithm for what
must be positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._checks import lack_of_fit, plain_doubts, uneven_scatter
from sweepctl.analyse._families import SHAPES, Family
from sweepctl.analyse._floor import floor_of
from sweepctl.analyse._intervals import detectable, r2_interval
from sweepctl.analyse._meaning import meaning
from sweepctl.analyse._points import NotFitted, cells_of, place_of
from sweepctl.analyse._power_fit import PowerFit, fit_power
from sweepctl.analyse._results import Coefficient, FitResult, FitWarning, Point, deciding
from sweepctl.analyse._scales import readable, unit_of
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
    """A power law with everything it says about itself.

    Raises:
        NotFitted: the points do not suffice, or follow no such law.
    """
    form, names = str(named["form"]), tuple(named["xs"])
    xs = np.asarray([point.xs for point in points], dtype=np.float64)
    y = np.exp2([point.y for point in points])
    weights = np.asarray([point.weight for point in points])
    parameters = Family(form=form, v_NM=np.zeros((1, len(names)))).parameters
    if len(points) < parameters + 1:
        what = f"{len(points)} of the {parameters + 1} configurations that a {form} law needs"
        raise NotFitted("too_few_points", what)
    least = parameters if len(names) == 1 else 3
    for x, values in zip(names, xs.T, strict=True):
        if (count := len(np.unique(values))) < least:
            what = f"{x} has {count} distinct values; a {form} law needs {least}"
            raise NotFitted("few_levels", what)
    fit, centers, y_center = fit_power(form, xs, y, weights, loss)
    doubted = [*warnings, *_bound_warnings(fit, names)]
    scale = math.exp(y_center)
    floor = floor_of(fit)
    if floor.low <= 0:
        unit = unit_of(str(named["metric"]))
        text = (
            "the floor is not identified: its 95 % interval reaches from 0 to "
            f"{readable(floor.high * scale)}{unit}"
        )
        doubted.append(FitWarning(code="asymptote_not_identified", message=text))
    coefficients = {"floor": _times(floor, scale), **_coefficients(fit, names, centers, y_center)}
    # HC3 divides by what a point leaves of itself; a point of leverage 1 leaves nothing.
    leverage = _leverage(fit)
    slope, hc3 = _slope(fit, leverage)
    u = fit.family.v_NM[:, 0]
    log2_y = fit.log_y / _LN2
    ssr = float(weights @ (fit.residuals / _LN2) ** 2)
    tests = (
        *lack_of_fit(fit.family.v_NM, log2_y, weights, ssr, parameters),
        *uneven_scatter(u, fit.residuals, weights),
    )
    if ssr <= 1e-24 * len(points):
        tests = ()
    doubted += plain_doubts(tests)
    mean = float(np.average(log2_y, weights=weights))
    total = float(weights @ (log2_y - mean) ** 2)
    r2 = None if total <= 1e-24 * len(points) else 1 - ssr / total
    low, high = (None, None) if r2 is None else r2_interval(r2, parameters - 1, fit.df)
    cook = _cook(fit, leverage)
    doubted += [
        FitWarning(
            code="influential_point",
            message=f"{place_of(point)} ({cells_of(point)}) carries the law "
            f"(Cook's distance {distance:.2g})",
        )
        for point, distance in zip(points, cook, strict=True)
        if distance > 1
    ]
    log2_centers = tuple(float(value) / _LN2 for value in centers)
    text = meaning(named, slope, deciding(form, slope, hc3), None, log2_centers[0])
    return FitResult(
        **{
            **named,
            "points": tuple(
                replace(
                    point,
                    fitted=float(point.y - residual / _LN2),
                    cook=float(distance),
                    leverage=float(h),
                )
                for point, residual, distance, h in zip(
                    points, fit.residuals, cook, leverage, strict=True
                )
            ),
        },
        df=fit.df,
        r2=r2,
        r2_low=low,
        r2_high=high,
        sigma=math.sqrt(fit.variance) / _LN2,
        coefficients=coefficients,
        slope=slope,
        hc3_slope=hc3,
        least_slope=detectable(fit.df) * slope.se,
        meaning=f"{text}; {_floor_words(coefficients['floor'], str(named['metric']))}",
        tests=tests,
        warnings=tuple(doubted),
        center=log2_centers[0],
        centers=log2_centers,
        centered=tuple(float(value) for value in fit.theta),
        covariance=tuple(tuple(float(v) for v in row) for row in fit.covariance),
        y_center=y_center,
        at_bound=tuple(bool(value) for value in fit.bound),
    )


def _floor_words(floor: Coefficient, metric: str) -> str:
    unit = unit_of(metric)
    if floor.low <= 0:
        return f"floor not identified, at most {readable(floor.high)}{unit}"
    return f"floor {readable(floor.estimate)} [{readable(floor.low)}, {readable(floor.high)}]{unit}"


def _bound_warnings(fit: PowerFit, names: Sequence[str]) -> list[FitWarning]:
    m = fit.family.variables
    warnings = []
    for term, x in enumerate(names):
        if fit.theta[1 + term] <= 1e-12:
            text = f"the term of {x} is 0: y does not fall with {x} once the others are known"
            warnings.append(FitWarning(code="exponent_at_bound", message=text))
    labels = names if fit.family.form == "power" else SHAPES[fit.family.form]
    for q, (term, label) in enumerate(zip(fit.family.owner, labels, strict=True)):
        if fit.bound[1 + m + q] and fit.theta[1 + term] > 1e-12:
            what = f"exponent of {label}" if fit.family.form == "power" else label
            text = f"the {what} lies on the edge of its range: the points do not pin it down"
            warnings.append(FitWarning(code="exponent_at_bound", message=text))
    return warnings


# --------------------------------------------------------------------------------------- intervals


def _coefficients(
    fit: PowerFit, names: Sequence[str], centers: Array, y_center: float
) -> dict[str, Coefficient]:
    """The numbers of the formula in the units of x and y."""
    m, form = fit.family.variables, fit.family.form
    first = float(centers[0])
    found: dict[str, Coefficient] = {}
    if form == "power":
        for i, x in enumerate(names):
            end = f" {x}" if m > 1 else ""
            amplitude, exponent, center = 1 + i, 1 + m + i, float(centers[i])
            found[f"amplitude{end}"] = _positive(
                fit,
                lambda t, a=amplitude, b=exponent, c=center: math.log(t[a]) + t[b] * c + y_center,
                amplitude,
            )
            found[f"exponent{end}"] = _linear(fit, lambda t, b=exponent: t[b], exponent)
        return found
    found["exponent"] = _linear(fit, lambda t: t[2], 2)
    if form == "power-shifted":
        found["amplitude"] = _positive(
            fit,
            lambda t: math.log(t[1]) + t[2] * (first + math.log1p(t[3])) + y_center,
            1,
        )
        found["shift"] = _times(_linear(fit, lambda t: t[3], 3), math.exp(first))
    elif form == "power-bounded":
        found["ceiling"] = _positive(fit, lambda t: math.log(t[0] + t[1]) + y_center, 1)
        found["midpoint"] = _positive(fit, lambda t: t[3] + first, 3)
    else:
        found["amplitude"] = _positive(fit, lambda t: math.log(t[1]) + t[2] * first + y_center, 1)
        found["exponent after"] = _linear(fit, lambda t: t[2] + t[3], 3)
        found["break"] = _positive(fit, lambda t: t[4] + first, 4)
        found["sharpness"] = _positive(fit, lambda t: t[5], 5)
    return found


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
    if fit.theta[owner] <= 0 and owner == 1:
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
