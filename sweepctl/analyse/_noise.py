"""How much of the scatter around a law is the evaluation's own? Weights of cells with one seed.

Without a second seed nothing says how far a measurement would have fallen elsewhere, except the law
itself: var(y) = t^2 + se^2, where se is what the evaluation says of its own error and t^2, which is
the same everywhere, is all the rest. This is the random-effects model of meta-regression. t^2 is
the value at which the weighted squared residuals sum to the degrees of freedom they are drawn with
(Paule and Mandel 1982; a method of moments), and weights are 1 / (t^2 + se^2). Intervals keep their
t quantiles and take their scale from the weighted residuals (Knapp and Hartung 2003), so a wrong
t^2 costs precision, not coverage.

Two cases give no weights. Errors that hardly differ beside t^2 would buy nothing. And errors that
are larger than the scatter itself cannot be independent of each other: the cells were measured on
the same images, and what those have in common moves all cells alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._regression import sizes
from sweepctl.analyse._results import FitWarning, Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

EVALUATION = "evaluation noise"
"""How a result names weights that come from the evaluation alone."""

UNEVEN = 1.5
"""Largest over smallest variance from which on weights are used. Below, unweighted least squares
loses at most 4 % of the precision (Kantorovich's inequality)."""

ROUNDS = 4
"""Times that a law which is not linear is linearised anew."""

_SHARED = 0.01
"""Probability of residuals this small, were the errors independent."""


def one_seed_weights(
    points: Sequence[Point], around: Callable[[Sequence[Point]], tuple[Array, Array]]
) -> tuple[list[Point], str, list[FitWarning]]:
    """The points with weights, what these come from ("" for none), and why there are none.

    Args:
        points: configurations of one seed each, whose `noise` is the evaluation's standard error.
        around: a law on weighted points: their rows, shape (n, k), linearised where the law is
            not linear, and residuals, shape (n,), on the fit's scale.
    """
    from scipy.stats import chi2

    errors = np.square([point.noise for point in points])
    rows, residuals = around(points)
    weighted, between = list(points), 0.0
    for _ in range(ROUNDS):
        # The rows and the residuals say what y is up to the law itself, which is projected out.
        before, between = between, scatter(rows, residuals, errors)
        variance = between + errors
        if float(variance.max()) < UNEVEN * float(variance.min()):
            return list(points), "", []
        if between == 0 and _misfit(rows, residuals, errors, 0.0) < chi2.ppf(_SHARED, _free(rows)):
            message = (
                "the standard errors of the values are larger than their scatter around the law, "
                "so they are errors that all cells share (the same images), and give no weights"
            )
            warning = FitWarning(code="evaluation_error_shared", message=message)
            return list(points), "", [warning]
        weights = 1 / variance
        weights /= weights.mean()
        weighted = [
            replace(point, weight=float(weight))
            for point, weight in zip(points, weights, strict=True)
        ]
        if math.isclose(before, between, rel_tol=1e-3):
            break
        rows, residuals = around(weighted)
    return weighted, EVALUATION, []


def scatter(rows: Array, y: Array, errors: Array) -> float:
    """The variance beyond the errors' own, t^2 >= 0, that the residuals of a law speak for.

    Args:
        rows: the law's matrix, shape (n, k), of rank k < n.
        y: values, or residuals of any fit of the same law, shape (n,).
        errors: known variances of the values, shape (n,), above 0.
    """
    df = _free(rows)
    if _misfit(rows, y, errors, 0.0) <= df:
        return 0.0
    # The misfit falls as t^2 rises; at this upper end it is below df.
    low, high = 0.0, float(y @ y) / df + float(errors.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _misfit(rows, y, errors, middle) > df else (low, middle)
    return (low + high) / 2


def _misfit(rows: Array, y: Array, errors: Array, between: float) -> float:
    """Squared residuals over their variances, at the law that makes them least."""
    root = 1 / np.sqrt(between + errors)
    white, target = rows / sizes(rows) * root[:, None], y * root
    solution = np.linalg.lstsq(white, target, rcond=1e-10)[0]
    return float(np.square(target - white @ solution).sum())


def _free(rows: Array) -> int:
    return len(rows) - int(np.linalg.matrix_rank(rows / sizes(rows)))
