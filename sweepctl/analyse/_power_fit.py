"""How is a power law found, and with what covariance? From arrays to an optimum with its errors.

The search is `_projection`'s; here points are sorted and centred for it, and the law at its optimum
is linearised. Robust losses take the scale of their own influence function instead of the residual
variance (M-estimation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._families import Family, unevenness
from sweepctl.analyse._points import NotFitted
from sweepctl.analyse._projection import Bend, bend_of, fit_family, polish
from sweepctl.analyse._results import Coefficient
from sweepctl.statistics import t_quantile
from sweepctl.study import Loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFit:
    """A power law at its optimum, with x and y divided by their geometric means.

    Attributes:
        family: the family at the points.
        bend: the loss.
        log_y: centred ln y, shape (n,).
        weights: shape (n,).
        theta: parameters, shape (k,).
        objective: the loss at the optimum.
        bound: which parameters lie on a bound, shape (k,).
        residuals: in ln y, shape (n,).
        slopes: derivatives of ln y in the parameters that are free, shape (n, k); 0 elsewhere.
        covariance: shape (k, k); 0 for parameters on a bound.
        variance: of the residuals, as the loss sees it.
        ratio: mean curvature of the loss over its mean squared slope, for profile intervals.
        df: residual degrees of freedom.
    """

    family: Family
    bend: Bend
    log_y: Array
    weights: Array
    theta: Array
    objective: float
    bound: NDArray[np.bool_]
    residuals: Array
    slopes: Array
    covariance: Array
    variance: float
    ratio: float
    df: int


def fit_power(
    form: str, xs: Array, y: Array, weights: Array, loss: Loss
) -> tuple[PowerFit, Array, float]:
    """Fit a power law to arrays; the order of the rows does not matter.

    Args:
        form: power, power-shifted, power-bounded or power-break.
        xs: positive variables, shape (n, m).
        y: positive values, shape (n,).
        weights: shape (n,), 1 on average.
        loss: squares, Huber's with its bend in ln y, or absolute values.

    Returns:
        the fit, and the centers of ln x, shape (m,), and of ln y.

    Raises:
        NotFitted: no law of this form can be found.
    """
    rows = np.lexsort((weights, y, *xs.T[::-1]))
    log_x, log_y = np.log(xs[rows]), np.log(y[rows])
    centers, center = log_x.mean(axis=0), float(log_y.mean())
    family = Family(form=form, v_NM=log_x - centers)
    bend = bend_of(loss.kind, loss.delta)
    found = fit_family(family, log_y - center, weights[rows], bend)
    if not bool(found.converged_B[0]):
        raise NotFitted("not_converged", f"the search for a {form} law did not end at an optimum")
    theta, bound = found.theta_BK[0], found.bound_BK[0]
    m = family.variables
    if not np.any(theta[1 : 1 + m] > 1e-12):
        raise NotFitted(
            "wrong_direction", f"y does not fall with x anywhere, so there is no {form} law"
        )
    fit = _at_optimum(family, bend, log_y - center, weights[rows], theta, bound)
    back = np.empty_like(rows)
    back[rows] = np.arange(len(rows))
    # The caller's order again, for fitted values; the numbers themselves are those of sorted rows.
    ordered = replace(
        fit,
        family=Family(form=form, v_NM=family.v_NM[back]),
        log_y=fit.log_y[back],
        weights=weights,
        residuals=fit.residuals[back],
        slopes=fit.slopes[back],
    )
    return ordered, centers, center


def _at_optimum(
    family: Family,
    bend: Bend,
    log_y: Array,
    weights: Array,
    theta: Array,
    bound: NDArray[np.bool_],
) -> PowerFit:
    y = family.values(theta[None])[0]
    residuals = log_y - np.log(y)
    # An amplitude of 0 leaves its shape without meaning, like a bound.
    m = family.variables
    idle = [bool(theta[1 + term] <= 1e-12) for term in family.owner]
    fixed = bound | np.asarray([False] * (1 + m) + idle)
    slopes = (family.gradient(theta[None])[0] / y).T
    slopes[:, fixed] = 0
    df = len(log_y) - family.parameters
    variance, ratio = _scale(residuals, weights, bend, df)
    gram = (slopes * weights[:, None]).T @ slopes
    free = np.flatnonzero(~fixed)
    inner = gram[np.ix_(free, free)]
    root = np.sqrt(np.diag(inner))
    if not np.all(root > 0) or np.linalg.matrix_rank(inner / np.outer(root, root), tol=1e-9) < len(
        free
    ):
        raise NotFitted(
            "collinear", "the variables do not vary independently enough to tell their terms apart"
        )
    covariance = np.zeros_like(gram)
    covariance[np.ix_(free, free)] = variance * np.linalg.inv(inner)
    objective = float(bend.of(residuals) @ weights)
    return PowerFit(
        family=family,
        bend=bend,
        log_y=log_y,
        weights=weights,
        theta=theta,
        objective=objective,
        bound=fixed,
        residuals=residuals,
        slopes=slopes,
        covariance=covariance,
        variance=variance,
        ratio=ratio,
        df=df,
    )


def _scale(residuals: Array, weights: Array, bend: Bend, df: int) -> tuple[float, float]:
    """Variance for the covariance, and the factor that makes a drop of the loss a statistic.

    For M-estimators the variance is E[psi^2] / E[psi']^2. The density in E[psi'] is seen through a
    window, because next to no residual lies inside the bend of a nearly absolute loss.
    """
    if not np.isfinite(bend.delta):
        variance = float(weights @ residuals**2) / df
        return variance, 1 / variance if variance > 0 else math.inf
    first, _ = bend.slopes(residuals)
    squared = float(weights @ first**2) / df
    spread = float(np.median(np.abs(residuals))) * 1.4826
    window = max(spread * len(residuals) ** -0.2, bend.delta, 1e-12)
    above, below = bend.slopes(residuals + window)[0], bend.slopes(residuals - window)[0]
    curvature = max(float(np.average((above - below) / (2 * window), weights=weights)), 1e-12)
    return squared / curvature**2, curvature / squared if squared > 0 else math.inf


def floor_of(fit: PowerFit, quantile: float | None = None) -> Coefficient:
    """The floor's profile-likelihood interval, with y divided by its geometric mean.

    All floors are in it at which the best law is not worse than the best of all by more than the
    95 % quantile of F, times the unevenness of the scatter. The profile is followed outwards from
    the estimate, each law started from its neighbour, and the crossing is then narrowed down by
    interpolation.

    Args:
        fit: the law at its optimum.
        quantile: of the statistic, where another one than F's is known (from a bootstrap).
    """
    estimate = float(fit.theta[0])
    se = math.sqrt(max(float(fit.covariance[0, 0]), 0.0)) if not fit.bound[0] else math.nan
    allowed = t_quantile(fit.df) ** 2 if quantile is None else quantile
    limit = allowed * _uneven(fit) / 2 / fit.ratio if math.isfinite(fit.ratio) else 0.0
    top = float(np.exp(fit.log_y.max()))
    low = 0.0
    if estimate > 0:
        low = _crossing(fit, np.linspace(estimate, 0, 9)[1:], limit, 0.0)
    steps = estimate + (top - estimate) * np.linspace(0, 1, 25)[1:] ** 2
    high = _crossing(fit, steps, limit, math.inf)
    return Coefficient(estimate=estimate, low=low, high=high, se=se, method="profile")


def _uneven(fit: PowerFit) -> float:
    """By how much the scatter where the floor is seen exceeds that elsewhere, as variances."""
    if np.isfinite(fit.bend.delta):
        return 1.0  # robust losses take their scale from their own influence function
    held = fit.bound.copy()
    held[0] = False  # a floor of 0 is still one that could be larger
    return float(
        unevenness(
            fit.family, fit.theta[None], fit.residuals[None], fit.weights, held[None], fit.df
        )[0]
    )


def _crossing(fit: PowerFit, floors: Array, limit: float, beyond: float) -> float:
    """Where the profile passes the limit on a way; `beyond` when it never does."""
    before, start, drop = float(fit.theta[0]), fit.theta, 0.0
    for floor in floors:
        theta, rise = _profiled(fit, start, float(floor))
        if rise > limit:
            return _narrowed(fit, (before, drop), (float(floor), rise), start, limit)
        before, start, drop = float(floor), theta, rise
    return beyond


def _profiled(fit: PowerFit, start: Array, floor: float) -> tuple[Array, float]:
    m = fit.family.variables
    at = start.copy()
    at[0] = floor
    # What the floor takes, the largest term gives, so that the start is near the law it came from.
    largest = 1 + int(np.argmax(start[1 : 1 + m]))
    at[largest] = max(at[largest] + float(start[0]) - floor, 0.1 * float(at[largest]), 1e-6)
    found = polish(
        fit.family, at[None], fit.log_y[None], fit.weights, fit.bend, fixed=(0,), steps=60
    )
    return found.theta_BK[0], float(found.objective_B[0]) - fit.objective


def _narrowed(
    fit: PowerFit,
    inside: tuple[float, float],
    outside: tuple[float, float],
    start: Array,
    limit: float,
) -> float:
    """Regula falsi on the square root of the rise, which is nearly straight; 1e-5 of the span."""
    span = abs(outside[0] - inside[0])
    for _ in range(30):
        a, b = math.sqrt(max(inside[1], 0.0)), math.sqrt(outside[1])
        share = (math.sqrt(limit) - a) / (b - a) if b > a else 0.5
        middle = inside[0] + min(max(share, 0.02), 0.98) * (outside[0] - inside[0])
        theta, rise = _profiled(fit, start, middle)
        if rise > limit:
            outside = (middle, rise)
        else:
            inside, start = (middle, rise), theta
        done = abs(rise - limit) <= 1e-6 * max(limit, 1e-300)
        if done or abs(outside[0] - inside[0]) <= 1e-6 * span:
            return middle
    return middle
