"""Which coefficients do the points give, by least squares? Estimates, covariances, leverages.

statsmodels solves. HC3 is computed here, because a point of leverage 1 would have it divide 0 by 0;
a test holds the two against each other. Weights are known up to a factor, so the scatter is
estimated from the residuals and every interval uses t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._design import Design
from sweepctl.analyse._results import Coefficient, Point
from sweepctl.statistics import t_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
