"""Is there a floor, and where? The profile-likelihood interval of a power law's constant.

The usual symmetric interval is wrong where a floor is small: it may end below 0, and 0 is where the
question begins. The profile asks each floor how much worse the best law with it is. What counts as
too much is F's quantile for even scatter, more where the points that carry the floor scatter more
than the others: by the ratio of the floor's HC3 variance to its plain one. Without that, points
sixteen times noisier at the far end leave an interval that covers 70 % instead of 95 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._power_fit import PowerFit
from sweepctl.analyse._projection import polish
from sweepctl.analyse._results import Coefficient
from sweepctl.analyse._robust import unevenness
from sweepctl.statistics import t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


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
