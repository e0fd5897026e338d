"""Where does a curved law have its best value, and how sure is that? Fieller, delta, cubic.

The optimum of a quadratic is a ratio of two estimates, so its interval is the set of places at
which the slope does not differ from 0 (Fieller's): it may be unbounded, which is then the honest
answer. The delta interval is given beside it because others print it; it is tidy at any noise. For
a cubic the same set is found by following the slope and its error along x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._results import FitWarning, Optimum, Point
from sweepctl.analyse._scales import readable
from sweepctl.laws import exp2
from sweepctl.statistics import t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_REACH = 10.0
"""Octaves beyond the points in which a cubic's optimum and its interval are looked for."""


def optimum_of(
    u: Array, y: Array, params: Array, covariance: Array, df: int, center: float
) -> Optimum | None:
    """The extremum of a law in powers of u = log2 x - center; None when it has none.

    Args:
        u: the points.
        y: their values.
        params: coefficients of u^0 to u^2 or u^3, averaged over the levels of factors.
        covariance: of `params`.
        df: degrees of freedom of the covariance.
        center: mean of log2 x.
    """
    place = _place(params, u)
    if place is None:
        return None
    curvature = _curvature(params, place)
    gradient = _slope_weights(np.asarray([place]), len(params))[0]
    se = math.sqrt(max(float(gradient @ covariance @ gradient), 0.0)) / abs(curvature)
    half = t_quantile(df) * se
    if len(params) == 3:
        low, high = _fieller(params, covariance, df)
    else:
        low, high = _flat_region(u, params, covariance, df, place)
    return Optimum(
        kind="minimum" if curvature > 0 else "maximum",
        x=exp2(place + center),
        low=None if low is None else exp2(low + center),
        high=None if high is None else exp2(high + center),
        cubic=_cubic_place(u, y, place, center) if len(params) == 3 else None,
        delta_low=exp2(place - half + center),
        delta_high=exp2(place + half + center),
    )


def _place(params: Array, u: Array) -> float | None:
    """Where the slope is 0: the extremum nearest to the points of those there are."""
    roots = np.roots([k * params[k] for k in range(len(params) - 1, 0, -1)])
    real = [float(root.real) for root in roots if abs(root.imag) < 1e-12]
    middle = float(u.min() + u.max()) / 2
    real = [root for root in real if _curvature(params, root) != 0]
    return min(real, key=lambda root: abs(root - middle)) if real else None


def _curvature(params: Array, at: float) -> float:
    return float(sum(k * (k - 1) * params[k] * at ** (k - 2) for k in range(2, len(params))))


def _slope_weights(at: Array, count: int) -> Array:
    """Weights of the coefficients in the slope at each place, shape (len(at), count)."""
    return np.stack([k * at ** max(k - 1, 0) for k in range(count)], axis=1)


def _fieller(params: Array, v: Array, df: int) -> tuple[float | None, float | None]:
    b1, b2 = float(params[1]), float(params[2])
    q = t_quantile(df) ** 2
    a = 4 * (b2 * b2 - q * float(v[2, 2]))
    b = 4 * (b1 * b2 - q * float(v[1, 2]))
    c = b1 * b1 - q * float(v[1, 1])
    if a <= 0:
        return None, None
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _flat_region(
    u: Array, params: Array, v: Array, df: int, place: float
) -> tuple[float | None, float | None]:
    """The places around the optimum at which a cubic's slope does not differ from 0."""
    grid = np.linspace(u.min() - _REACH, u.max() + _REACH, 8001)
    weights = _slope_weights(grid, len(params))
    slope = weights @ params
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", weights, v, weights), 0))
    flat = np.abs(slope) <= t_quantile(df) * error
    if not grid[0] <= place <= grid[-1]:
        return None, None
    middle = int(np.argmin(np.abs(grid - place)))
    below = np.flatnonzero(~flat[: middle + 1])
    above = np.flatnonzero(~flat[middle:])
    if not len(below) or not len(above):
        return None, None
    return float(grid[min(below[-1], middle)]), float(grid[middle + above[0]])


def _cubic_place(u: Array, y: Array, place: float, center: float) -> float | None:
    if len(np.unique(u)) < 4:
        return None
    c1, c2, c3 = np.polynomial.polynomial.polyfit(u, y, 3)[1:]
    if abs(c3) <= 1e-12 * abs(c2):
        return exp2(place + center)
    root = c2 * c2 - 3 * c3 * c1
    if root < 0:
        return None
    both = [(-c2 + sign * math.sqrt(root)) / (3 * c3) for sign in (1, -1)]
    return exp2(float(min(both, key=lambda t: abs(t - place))) + center)


def optimum_warnings(optimum: Optimum, points: Sequence[Point], x: str) -> list[FitWarning]:
    """Reasons not to believe an optimum."""
    warnings = []
    kind, first, last = optimum.kind, points[0].x, points[-1].x
    if optimum.low is None or optimum.high is None:
        text = f"the curvature may be 0, so no {kind} of the law is pinned down"
        warnings.append(FitWarning(code="optimum_unbounded", message=text))
    if not first <= optimum.x <= last:
        text = f"the {kind} at {x} = {readable(optimum.x)} lies outside the measured points"
        warnings.append(FitWarning(code="optimum_outside_data", message=text))
    if optimum.x > 10 * last or optimum.x < first / 10:
        text = f"the {kind} at {x} = {readable(optimum.x)} is over a decade outside the points"
        warnings.append(FitWarning(code="extrapolation", message=text))
    if optimum.cubic is not None and 0 < optimum.cubic < math.inf and optimum.x < math.inf:
        shift = math.log2(optimum.cubic / optimum.x)
        if optimum.low is not None and optimum.high is not None and abs(shift) > 0.5:
            text = (
                f"a cubic has its {kind} at {x} = {readable(optimum.cubic)}, {abs(shift):.1f} "
                f"octaves {'above' if shift > 0 else 'below'}: the valley is not symmetric, "
                "and a quadratic's optimum is biased"
            )
            warnings.append(FitWarning(code="optimum_shifts", message=text))
    return warnings
