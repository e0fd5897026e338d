"""Which coefficients do the points give, by least squares? Estimates, covariances, leverages.

statsmodels solves. HC3 is computed here, because a point of leverage 1 would have it divide 0 by 0;
a test holds the two against each other. Weights are known up to a factor, so the scatter is
estimated from the residuals and every interval uses t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._results import Coefficient, FitResult, Point
from sweepctl.laws import Powers, Scale
from sweepctl.statistics import t_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Least squares on a design.

    Attributes:
        design: how points become rows.
        rows: the matrix, shape (n, k).
        y: shape (n,), on the fit's scale.
        weights: shape (n,), 1 on average.
        params: shape (k,), of centred variables.
        covariance: shape (k, k).
        hc3: the same, robust against uneven scatter.
        inverse: inverse of the weighted normal matrix, shape (k, k).
        residuals: y - fitted, shape (n,).
        leverage: shape (n,).
        ssr: weighted sum of squared residuals.
        df: residual degrees of freedom.
        exact: the law goes through every point, so nothing is left to test with.
    """

    design: Design
    rows: Array
    y: Array
    weights: Array
    params: Array
    covariance: Array
    hc3: Array
    inverse: Array
    residuals: Array
    leverage: Array
    ssr: float
    df: int
    exact: bool

    @property
    def u(self) -> Array:
        """The first variable on its scale, centred."""
        first: Array = self.rows[:, 1]
        return first

    @property
    def total(self) -> float:
        """Weighted sum of squares of y around its weighted mean."""
        mean = float(np.average(self.y, weights=self.weights))
        return float((self.weights * (self.y - mean) ** 2).sum())

    def interval(self, weights: Array, *, robust: bool = False) -> Coefficient:
        """A linear combination of the coefficients with its t interval."""
        covariance = self.hc3 if robust else self.covariance
        variance = float(weights @ covariance @ weights)
        return coefficient(float(weights @ self.params), variance, self.df, robust=robust)


def regress(points: Sequence[Point], design: Design) -> Regression:
    """Fit a design to points; the design must be of full rank."""
    from statsmodels.regression.linear_model import WLS

    rows = design.rows([point.xs for point in points], [point.settings for point in points])
    y = np.asarray([point.y for point in points])
    weights = np.asarray([point.weight for point in points])
    # Columns of a raw variable may be 1e21 (FLOPs) beside the intercept's 1.
    size = sizes(rows)
    model = WLS(y, rows / size, weights=weights)
    fitted = model.fit()
    params, inverse = fitted.params, fitted.normalized_cov_params
    root, white = np.sqrt(weights), model.wexog
    leverage = np.clip(np.einsum("ij,ji->i", white, model.pinv_wexog), 0, 1)
    residuals = y - (rows / size) @ params
    ssr, df = float((weights * residuals**2).sum()), len(y) - rows.shape[1]
    mean = float(np.average(y, weights=weights))
    total = float((weights * (y - mean) ** 2).sum())
    noise = 1e-24 * max(total, float((weights * y**2).sum()))
    # A point of leverage 1 has no residual; HC3 divides by the 0 that is left.
    left = np.where(leverage > 1 - 1e-9, np.inf, 1 - leverage)
    pulled = white * (root * residuals / left)[:, None]
    unit = np.outer(size, size)
    return Regression(
        design=design,
        rows=rows,
        y=y,
        weights=weights,
        params=params / size,
        covariance=inverse * (ssr / df) / unit if df else np.full(inverse.shape, np.nan),
        hc3=inverse @ (pulled.T @ pulled) @ inverse / unit,
        inverse=inverse / unit,
        residuals=residuals,
        leverage=leverage,
        ssr=ssr,
        df=df,
        exact=ssr <= max(noise, 1e-300),
    )


def sizes(rows: Array) -> Array:
    """The largest absolute value of each column; 1 for columns of zeros."""
    largest = np.abs(rows).max(axis=0)
    found: Array = np.where(largest > 0, largest, 1.0)
    return found


def coefficient(estimate: float, variance: float, df: int, *, robust: bool = False) -> Coefficient:
    """An estimate with its t interval."""
    se = float(np.sqrt(max(variance, 0.0)))
    half = t_quantile(df) * se
    return Coefficient(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        se=se,
        method="hc3" if robust else "t",
    )


def least_squares(rows: Array, y: Array, weights: Array) -> tuple[float, int]:
    """Weighted sum of squared residuals on a matrix of any rank, and that rank."""
    white = np.sqrt(weights)[:, None] * rows / sizes(rows)
    target = np.sqrt(weights) * y
    solution, _, rank, _ = np.linalg.lstsq(white, target, rcond=1e-10)
    return float(((target - white @ solution) ** 2).sum()), int(rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How configurations become rows of numbers.

    Attributes:
        xs: names of the variables.
        powers: what the law's record makes of the first variable.
        scales: how each variable is seen.
        centers: mean of each variable on its scale.
        levels: values of each factor by its column, the base first.
        interaction: whether the powers of the first variable differ by level.
    """

    xs: tuple[str, ...]
    powers: Powers
    scales: tuple[Scale, ...]
    centers: tuple[float, ...]
    levels: Mapping[str, tuple[Any, ...]]
    interaction: bool

    @property
    def degree(self) -> int:
        """Highest power of the first variable."""
        return self.powers.degree

    @property
    def base(self) -> int:
        """Number of columns without the factors'."""
        return self.degree + len(self.xs)

    @property
    def block(self) -> int:
        """Number of columns of one level of a factor."""
        return 1 + (self.degree if self.interaction else 0)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.base + self.block * sum(len(values) - 1 for values in self.levels.values())

    def seen(self, xs: ArrayLike) -> Array:
        """Variables, shape (n, len(xs)), on their scales and centred."""
        values = np.asarray(xs, dtype=np.float64).reshape(-1, len(self.xs)).copy()
        for column, scale in enumerate(self.scales):
            if scale == "log2":
                values[:, column] = np.log2(values[:, column])
        centred: Array = values - np.asarray(self.centers)
        return centred

    def rows(self, xs: ArrayLike, settings: Sequence[Mapping[str, Any]] | None) -> Array:
        """The matrix, shape (n, columns); without settings every factor is at its average level."""
        u = self.seen(xs)
        powers = self.powers.rows(u[:, 0])
        parts = [powers, u[:, 1:]]
        for name, values in self.levels.items():
            for level in values[1:]:
                if settings is None:
                    member = np.full(len(u), 1 / len(values))
                else:
                    member = np.asarray([float(one[name] == level) for one in settings])
                parts.append(member[:, None] * powers[:, : self.block])
        return np.hstack(parts)

    def names(self) -> tuple[str, ...]:
        """Names of the columns; the first variable's need none when it is the only one."""
        powers = list(self.powers.names)
        if len(self.xs) > 1:
            powers[1] = f"slope {self.xs[0]}"
        names = [*powers, *(f"slope {x}" for x in self.xs[1:])]
        for factor, values in self.levels.items():
            for level in values[1:]:
                label = f"{factor.rsplit('.', 1)[-1]} {level}"
                names += [label, *(f"{name} {label}" for name in powers[1 : self.block])]
        return tuple(names)

    def terms(self) -> dict[str, list[int]]:
        """Columns of each term that can be left out: every factor, and all interactions."""
        found: dict[str, list[int]] = {}
        column = self.base
        for factor, values in self.levels.items():
            name = factor.rsplit(".", 1)[-1]
            for _ in values[1:]:
                found.setdefault(f"factor {name}", []).append(column)
                for power in range(1, self.block):
                    found.setdefault("interaction", []).append(column + power)
                column += self.block
        return found

    def from_zero(self) -> Array:
        """The matrix that turns centred coefficients into those of variables from 0."""
        shift = self.powers.from_zero(self.centers[0])
        matrix = np.zeros((self.columns, self.columns))
        top = self.degree + 1
        matrix[:top, :top] = shift
        for offset, center in enumerate(self.centers[1:]):
            matrix[top + offset, top + offset] = 1
            matrix[0, top + offset] = -center
        for start in range(self.base, self.columns, self.block):
            end = start + self.block
            matrix[start:end, start:end] = shift[: self.block, : self.block]
        return matrix

    def slope(self) -> Array:
        """Weights of the coefficients in dy/dx of the first variable at its center.

        With interaction it is the mean over the levels of every factor.
        """
        weights = np.zeros(self.columns)
        weights[1] = 1
        if self.interaction:
            column = self.base
            for values in self.levels.values():
                for _ in values[1:]:
                    weights[column + 1] = 1 / len(values)
                    column += self.block
        return weights


def design_of(fit: FitResult) -> Design:
    """The design of a fitted law."""
    return Design(
        xs=fit.xs,
        powers=fit.law.powers,
        scales=fit.x_scales,
        centers=fit.centers,
        levels=fit.factors,
        interaction=fit.interaction,
    )


def order(value: Any) -> tuple[int, float, str]:
    """Sorts levels: numbers by size, then everything else by its text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))


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
