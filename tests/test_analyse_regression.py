"""Is least squares what statsmodels makes of it? Estimates, errors, leverages, any weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sweepctl.analyse._regression import Design, regress
from sweepctl.analyse._results import Point
from sweepctl.laws import Powers


@pytest.mark.slow
@given(
    n=st.integers(6, 20),
    seed=st.integers(0, 10_000),
    degree=st.integers(1, 3),
    unit=st.sampled_from([1e-6, 1.0, 1e9]),
)
@settings(max_examples=25, deadline=None)
def test_regression_is_that_of_statsmodels(n: int, seed: int, degree: int, unit: float) -> None:
    with warnings.catch_warnings():
        # Importing statsmodels pulls in modules that warn about their own futures.
        warnings.simplefilter("ignore", DeprecationWarning)
        from statsmodels.regression.linear_model import WLS
    rng = np.random.default_rng(seed)
    x = unit * 2.0 ** rng.uniform(0, 10, n)
    y, weights = 3 + rng.normal(size=n), rng.uniform(0.2, 3, n)
    points = [
        Point(settings={}, cells=(i,), seeds=1, x=x[i], xs=(x[i],), y=y[i], low=y[i], high=y[i])
        for i in range(n)
    ]
    weighted = [
        Point(**{name: getattr(point, name) for name in Point.__slots__} | {"weight": float(w)})
        for point, w in zip(points, weights, strict=True)
    ]
    design = Design(
        xs=("E",),
        powers=Powers(degree=degree),
        scales=("log2",),
        centers=(float(np.log2(x).mean()),),
        levels={},
        interaction=False,
    )
    ours = regress(weighted, design)
    theirs = WLS(y, ours.rows, weights=weights).fit()
    assert ours.params == pytest.approx(theirs.params, rel=1e-8, abs=1e-9)
    assert ours.covariance == pytest.approx(theirs.cov_params(), rel=1e-7, abs=1e-12)
    robust = theirs.get_robustcov_results("HC3", use_t=True)
    # HC3 divides by (1 - leverage)^2: a point that the law goes through leaves no digits of it.
    basis, _ = np.linalg.qr(ours.rows * np.sqrt(weights)[:, None])
    assume((basis**2).sum(axis=1).max() < 0.99)
    assert ours.hc3 == pytest.approx(robust.cov_params(), rel=1e-6, abs=1e-12)
    assert ours.ssr == pytest.approx(theirs.ssr, rel=1e-9)
    assert ours.leverage == pytest.approx(
        np.einsum(
            "ij,jk,ik->i",
            np.sqrt(weights)[:, None] * ours.rows,
            np.asarray(theirs.normalized_cov_params),
            np.sqrt(weights)[:, None] * ours.rows,
        ),
        abs=1e-8,
    )
    slope = ours.interval(design.slope())
    low, high = np.asarray(theirs.conf_int())[1]
    assert (slope.low, slope.high) == pytest.approx((low, high), rel=1e-7, abs=1e-9)
