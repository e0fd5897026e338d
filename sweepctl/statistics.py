"""Statistics and Pareto fronts that several floors share, without scipy: a plan must not wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

CONFIDENCE = 0.95
"""Of intervals of coefficients and of bands. R2 and equivalence use 90 %: 5 % on each side."""


@cache
def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """Half the width of a two-sided interval in standard errors: a quantile of Student's t.

    Args:
        df: degrees of freedom, above 0; need not be whole.
        confidence: of the interval, in (0, 1); 0.95 gives the 97.5 % quantile.

    Returns:
        The quantile, to about 12 digits up to a thousand degrees of freedom and 8 beyond.
    """
    outside = (1 - confidence) / 2
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    # The normal quantile lies below. The tail is convex there, so each step of Newton's method
    # comes closer from below and none goes too far.
    t = NormalDist().inv_cdf(1 - outside)
    for _ in range(200):
        density = math.exp(log_scale - (df + 1) / 2 * math.log1p(t * t / df))
        step = (_tail(t, df) - outside) / density
        t += step
        if abs(step) <= 1e-15 * t:
            break
    return t


def _tail(t: float, df: float) -> float:
    """The chance that Student's t exceeds a t above 0: half of an incomplete beta function."""
    a, b, x = df / 2, 0.5, df / (df + t * t)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log(t * t / (df + t * t)))
    # Its continued fraction converges fast below this x only; above, that of the other tail does.
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a / 2
    return (1 - front * _beta_fraction(b, a, 1 - x) / b) / 2


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 1000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one is nowhere above the other and somewhere below it: costs are to be small."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def front_of(costs: Sequence[Sequence[float]]) -> list[int]:
    """The Pareto front: places, in order, of what nothing else dominates; equals are all in it.

    Args:
        costs: the values of each; those that are to be large with their sign turned.
    """
    best: list[int] = []
    for index, one in enumerate(costs):
        if any(dominates(costs[held], one) for held in best):
            continue
        best = [held for held in best if not dominates(one, costs[held])]
        best.append(index)
    return best
