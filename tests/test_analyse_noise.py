"""Do the evaluation's errors weigh in fits without a second seed, and only where they should?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweepctl.analyse import FitResult
from sweepctl.analyse._noise import EVALUATION, scatter
from sweepctl.claims import fit_study
from sweepctl.study import Fit


def law(octaves: Any, values: Any, errors: Any, form: str = "loglog") -> FitResult:
    """A law on cells of one seed; `values` in the metric's unit, an error of None is unknown."""
    rows = [
        {
            "cell": i,
            "task": f"t{i}",
            "c": i,
            "seed": 0,
            "metric": "rfid" if form != "semilog" else "psnr",
            "dataset": "set",
            "protocol": "lite0",
            "n": 1024,
            "E": 2.0**k,
            "value": float(value),
            "se": error,
        }
        for i, (k, value, error) in enumerate(zip(octaves, values, errors, strict=True))
    ]
    metric = rows[0]["metric"]
    fit = Fit.model_validate({"metric": metric, "on": "set", "form": form})
    return fit_study(pd.DataFrame(rows), {"law": fit}, []).fits[0]


def test_weights_are_the_inverse_of_scatter_and_error() -> None:
    octaves = np.arange(8.0, 17.0)
    errors = np.array([0.1, 2.0, 0.1, 2.0, 0.1, 2.0, 0.1, 2.0, 0.1])
    rng = np.random.default_rng(3)
    values = 10 + 2 * octaves + np.sqrt(0.3**2 + errors**2) * rng.normal(size=9)
    found = law(octaves, values, errors.tolist(), "semilog")
    assert found.weighting == EVALUATION
    rows = np.column_stack([np.ones(9), octaves])
    between = scatter(rows, values, errors**2)
    wanted = 1 / (between + errors**2)
    weights = np.array([point.weight for point in found.points])
    assert weights == pytest.approx(wanted / wanted.mean(), rel=1e-6)
    assert [point.noise for point in found.points] == pytest.approx(errors.tolist())
    # By the normal equations, without the code that fits.
    normal = np.linalg.solve(rows.T @ (wanted[:, None] * rows), rows.T @ (wanted * values))
    assert found.slope is not None and found.slope.estimate == pytest.approx(normal[1])


def test_the_scatter_solves_its_moment_equation() -> None:
    """Equal errors: t^2 is the residual variance less the error's; no more scatter than that: 0."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.ones(30), np.arange(30.0)])
    y = rng.normal(size=30)
    left = y - rows @ np.linalg.lstsq(rows, y, rcond=None)[0]
    variance = float(left @ left) / 28
    assert scatter(rows, y, np.full(30, 0.25)) == pytest.approx(variance - 0.25)
    assert scatter(rows, y, np.full(30, 2 * variance)) == 0
    # What the law itself explains is not scatter, in whatever unit its variable is.
    assert scatter(rows * [1, 1e12], y + 5 * rows[:, 1], np.full(30, 0.25)) == pytest.approx(
        variance - 0.25
    )


def test_errors_on_a_log_scale_and_laws_that_are_not_lines_are_weighted_too() -> None:
    octaves = np.arange(8.0, 18.0)
    relative = np.where(octaves % 2 == 0, 0.01, 0.2)
    rng = np.random.default_rng(5)
    values = (0.3 + 2 ** (9 - 0.8 * octaves)) * np.exp(relative * rng.normal(size=10))
    errors = (relative * values).tolist()
    for form in ("power", "loglog"):
        found = law(octaves, values, errors, form)
        assert found.weighting == EVALUATION
        weights = np.array([point.weight for point in found.points])
        assert weights[relative < 0.1].min() > weights[relative > 0.1].max()
        assert found.points[0].noise == pytest.approx(relative[0] / math.log(2))
    power = law(octaves, values, errors, "power")
    plain = law(octaves, values, [None] * 10, "power")
    assert power.slope is not None and plain.slope is not None and plain.weighting == ""
    assert power.slope.high - power.slope.low < plain.slope.high - plain.slope.low


def test_where_there_are_no_weights_it_is_said_why() -> None:
    octaves = np.arange(8.0, 17.0)
    rng = np.random.default_rng(1)
    values = 10 + 2 * octaves + 0.3 * rng.normal(size=9)
    uneven = np.geomspace(0.02, 0.4, 9)
    some = law(octaves, values, [*uneven[:-1].tolist(), None], "semilog")
    assert some.weighting == "" and {point.weight for point in some.points} == {1.0}
    said = {warning.code: warning.message for warning in some.warnings}
    assert "1 of 9 configurations" in said["evaluation_error_missing"]
    assert "cells 8" in said["evaluation_error_missing"]
    # Larger than anything seen around the law: the images' error, which all cells have in common.
    shared = law(octaves, values, (40 * uneven).tolist(), "semilog")
    assert shared.weighting == "" and {point.weight for point in shared.points} == {1.0}
    assert "evaluation_error_shared" in {warning.code for warning in shared.warnings}
    # Hardly uneven beside the scatter: nothing to gain, nothing to say.
    even = law(octaves, values, np.linspace(0.01, 0.02, 9).tolist(), "semilog")
    assert even.weighting == ""
    assert not {w.code for w in even.warnings} & {
        "evaluation_error_missing",
        "evaluation_error_shared",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("n", "between"), [(9, 0.02), (15, 0.0), (30, 0.05)])
def test_weighted_intervals_cover_and_are_narrower(n: int, between: float) -> None:
    """Errors that differ tenfold, one seed a cell: as much coverage, less width."""
    octaves, repeats = np.linspace(8, 16, n), 120
    errors = np.random.default_rng(n).permutation(np.geomspace(0.02, 0.2, n))
    rng = np.random.default_rng(7)
    hits, widths = {"weighted": 0, "plain": 0}, {"weighted": [0.0], "plain": [0.0]}
    for _ in range(repeats):
        values = 30 - 0.7 * octaves + np.sqrt(between**2 + errors**2) * rng.normal(size=n)
        for how, given in (("weighted", errors.tolist()), ("plain", [None] * n)):
            low, high = law(octaves, values, given, "semilog").slope_interval()
            hits[how] += low <= -0.7 <= high
            widths[how].append(high - low)
    assert hits["weighted"] / repeats >= 0.92
    assert np.mean(widths["weighted"]) < 0.75 * np.mean(widths["plain"])
