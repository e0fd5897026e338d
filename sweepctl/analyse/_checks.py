"""Should a law be believed? Checks that run by themselves, each with a code and a sentence.

Curvature, lack of fit at equal x, a slope that depends on the range, uneven scatter, factors and
their interactions as F tests; then the single points that carry the slope. Every check says with
numbers what it saw. A check that the points do not allow is left out, not passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._points import cells_of, place_of
from sweepctl.analyse._regression import Regression, least_squares, sizes
from sweepctl.analyse._results import Coefficient, FitWarning, FTest, Point
from sweepctl.analyse._scales import readable
from sweepctl.laws import exp2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

WARNING_TESTS = ("curvature", "lack_of_fit", "heteroscedastic", "range_dependent_slope")
"""Tests whose rejection is a reason to doubt the law; the others describe it."""


def tests_of(regression: Regression) -> tuple[FTest, ...]:
    """The F tests that the points allow."""
    if regression.exact or regression.df < 1:
        return ()
    u, df, ssr = regression.u, regression.df, regression.ssr
    rows, y, weights = regression.rows, regression.y, regression.weights
    degree = regression.design.degree
    tests = []

    def beside(name: str, column: Array) -> None:
        if df < 2:
            return
        more, rank = least_squares(np.column_stack([rows, column]), y, weights)
        if rank > rows.shape[1]:
            tests.append(_f_test(name, ssr - more, 1, more, df - 1))

    if len(np.unique(u)) >= degree + 2:
        beside("curvature", u ** (degree + 1))
    tests += lack_of_fit(rows, y, weights, ssr, rows.shape[1])
    if (bend := _bend(regression)) is not None:
        beside("range_dependent_slope", np.maximum(u - bend, 0))
    tests += uneven_scatter(u, regression.residuals, weights)
    for term, columns in regression.design.terms().items():
        kept = [column for column in range(rows.shape[1]) if column not in columns]
        less, _ = least_squares(rows[:, kept], y, weights)
        tests.append(_f_test(term, less - ssr, len(columns), ssr, df))
    return tuple(tests)


def lack_of_fit(rows: Array, y: Array, weights: Array, ssr: float, parameters: int) -> list[FTest]:
    """Misfit against the scatter of points with equal variables; empty without such points."""
    labels = np.unique(rows.round(12), axis=0, return_inverse=True)[1].ravel()
    levels = int(labels.max()) + 1
    if levels <= parameters or len(y) <= levels:
        return []
    pure, _ = least_squares(np.eye(levels)[labels], y, weights)
    between = levels - parameters
    return [_f_test("lack_of_fit", ssr - pure, between, pure, len(y) - levels)]


def uneven_scatter(u: Array, residuals: Array, weights: Array) -> list[FTest]:
    """Whether squared residuals have a trend in x; empty when that cannot be seen."""
    squared = weights * residuals**2
    linear = np.column_stack([np.ones(len(u)), u])
    scatter, rank = least_squares(linear, squared, np.ones(len(u)))
    if rank < 2 or len(u) < 3:
        return []
    explained = float(((squared - squared.mean()) ** 2).sum()) - scatter
    return [_f_test("heteroscedastic", explained, 1, scatter, len(u) - 2)]


def _bend(regression: Regression) -> float | None:
    """Where the range of a line is cut in two; None for curves and for fewer than 5 levels."""
    if regression.design.degree > 1:
        return None
    levels = np.unique(regression.u.round(9))
    return float(np.median(levels)) if len(levels) >= 5 else None


def _f_test(name: str, between: float, df1: int, within: float, df2: int) -> FTest:
    from scipy.special import fdtrc

    between = max(between, 0.0)
    if within <= 1e-24 * between or within <= 0:
        statistic = math.inf if between > 0 else 0.0
    else:
        statistic = (between / df1) / (within / df2)
    return FTest(
        name=name, statistic=statistic, df1=df1, df2=df2, p=float(fdtrc(df1, df2, statistic))
    )


def line_warnings(tests: Sequence[FTest], regression: Regression) -> list[FitWarning]:
    """A warning for each test that speaks against the law."""
    return [
        _failed(test, regression) for test in tests if test.name in WARNING_TESTS and test.p < 0.05
    ]


def curve_warnings(tests: Sequence[FTest]) -> list[FitWarning]:
    """The same for laws that are not linear in their parameters."""
    return [_plain(test) for test in tests if test.name in WARNING_TESTS and test.p < 0.05]


def _plain(test: FTest) -> FitWarning:
    against = f"F({test.df1}, {test.df2}) = {test.statistic:.3g}, p {_p(test.p)}"
    if test.name == "lack_of_fit":
        text = f"the misfit is larger than the scatter at equal x explains ({against})"
        return FitWarning(code="lack_of_fit", message=text)
    text = (
        f"the scatter changes with x ({against}): "
        "the HC3 interval holds, the t interval may be too narrow"
    )
    return FitWarning(code="heteroscedastic", message=text)


def _failed(test: FTest, regression: Regression) -> FitWarning:
    against = f"F({test.df1}, {test.df2}) = {test.statistic:.3g}, p {_p(test.p)}"
    design = regression.design
    if test.name == "curvature":
        term = design.powers.next
        text = f"a {term} term explains more ({against}): the law bends where this form does not"
        return FitWarning(code="curvature", message=text)
    if test.name == "range_dependent_slope":
        bend = _bend(regression)
        assert bend is not None
        hinge = np.column_stack([regression.rows, np.maximum(regression.u - bend, 0)])
        root = np.sqrt(regression.weights)
        size = sizes(hinge)
        white = root[:, None] * hinge / size
        params = np.linalg.lstsq(white, root * regression.y, rcond=None)[0] / size
        at = bend + design.centers[0]
        place = exp2(at) if design.scales[0] == "log2" else at
        text = (
            f"the slope is {readable(float(params[1]))} below {design.xs[0]} = {readable(place)} "
            f"and {readable(float(params[1] + params[-1]))} above ({against}): "
            "it holds for neither range, still less beyond"
        )
        return FitWarning(code="range_dependent_slope", message=text)
    return _plain(test)


def influence(
    regression: Regression, slope: Coefficient, points: Sequence[Point]
) -> tuple[list[float], list[FitWarning]]:
    """Cook's distances, and a warning for each configuration that carries the slope."""
    rows, weights = regression.rows, regression.weights
    variance = regression.ssr / regression.df if regression.df else 0.0
    towards = regression.inverse @ regression.design.slope()
    distances, warnings = [], []
    for point, row, h, e, w in zip(
        points, rows, regression.leverage, regression.residuals, weights, strict=True
    ):
        place = f"{place_of(point)} ({cells_of(point)})"
        if h > 1 - 1e-9:
            distances.append(math.nan)
            # The only point of a factor's level is passed by force and harms nothing else.
            if not regression.design.levels:
                text = f"without {place} there is no such law: it passes through it by force"
                warnings.append(FitWarning(code="influential_point", message=text))
            continue
        cook = 0.0
        if not regression.exact and variance > 0:
            cook = w * e * e * h / (len(row) * variance * (1 - h) ** 2)
        distances.append(float(cook))
        without = slope.estimate - float(towards @ row) * w * e / (1 - h)
        if not regression.exact and (cook > 1 or not slope.low <= without <= slope.high):
            text = (
                f"{place} carries the law: slope {readable(slope.estimate)}, "
                f"without it {readable(without)} (Cook's distance {cook:.2g})"
            )
            warnings.append(FitWarning(code="influential_point", message=text))
    return distances, warnings


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
