"""How sure is a number, and what could have been seen? Quantiles, power and the interval of R2.

All of it holds at ten points: t instead of z, noncentral t and F instead of normal approximations.
scipy is imported inside the functions, so that planning and `--help` never load it, and from
`scipy.special`: `scipy.stats` takes half a second to import.
"""

from __future__ import annotations

from functools import cache

from sweepctl.statistics import t_quantile


@cache
def detectable(df: int) -> float:
    """Effect in standard errors that a two-sided 5 % t test sees with 80 % power."""
    from scipy.optimize import brentq
    from scipy.special import nctdtr

    critical = t_quantile(df)

    def lacking(effect: float) -> float:
        # The far tail adds less than 1e-3 at 80 % power.
        return 0.2 - float(nctdtr(df, effect, critical))

    return float(brentq(lacking, critical / 4, 4 * critical + 4))


def r2_interval(r2: float, df1: int, df2: int) -> tuple[float, float]:
    """90 % interval of R2 at fixed x: invert the noncentral F, with R2 = L / (L + n) for its L."""
    from scipy.optimize import brentq
    from scipy.special import chdtri, ncfdtr

    n = df1 + df2 + 1
    if r2 >= 1 - 1e-14:
        return 1.0, 1.0
    statistic = max(r2, 0.0) / (1 - r2) * df2 / df1

    def noncentrality(p: float) -> float:
        if (
            statistic > 1e5
        ):  # there the numerator is all noncentrality, and ncfdtr runs out of terms
            return float(df1 * statistic * chdtri(df2, p) / df2)
        if float(ncfdtr(df1, df2, 0.0, statistic)) <= p:
            return 0.0
        high = 1.0
        while float(ncfdtr(df1, df2, high, statistic)) > p:
            high *= 2
        return float(brentq(lambda value: float(ncfdtr(df1, df2, value, statistic)) - p, 0, high))

    low, high = noncentrality(0.95), noncentrality(0.05)
    return low / (low + n), high / (high + n)
