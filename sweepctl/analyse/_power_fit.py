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

from sweepctl.analyse._families import Family
from sweepctl.analyse._points import NotFitted
from sweepctl.analyse._projection import Bend, bend_of, fit_family
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
