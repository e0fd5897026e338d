"""Are power laws found at their optimum, whatever the start, the units and the order of rows?"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweepctl.analyse import FitResult, bands, bootstrap, compare
from sweepctl.analyse._families import Family
from sweepctl.analyse._points import NotFitted
from sweepctl.analyse._power_fit import fit_power
from sweepctl.analyse._projection import Bend, _derivatives, _objective, bend_of, fit_family
from sweepctl.claims import fit_study
from sweepctl.errors import UsageError
from sweepctl.study import Fit, Loss, parse_loss

SQUARES = Loss(kind="squares")


def frame_of(columns: dict[str, Any], values: Any) -> pd.DataFrame:
    frame = pd.DataFrame({name: list(column) for name, column in columns.items()})
    return frame.assign(
        cell=range(len(frame)),
        task=[f"t{i}" for i in range(len(frame))],
        seed=0,
        metric="rfid",
        dataset="set",
        protocol="lite0",
        n=1024,
        value=list(values),
    )


def fitted(frame: pd.DataFrame, form: str = "power", **more: Any) -> FitResult:
    fit = Fit.model_validate({"metric": "rfid", "on": "set", "form": form, **more})
    return fit_study(frame, {"law": fit}, []).fits[0]


def falling(sigma: float = 0.05, n: int = 15, seed: int = 0, floor: float = 0.5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = 2.0 ** np.linspace(8, 18, n)
    y = (floor + 3000 * x**-0.9) * np.exp(sigma * rng.normal(size=n))
    return frame_of({"E": x}, y)


def two_variables(
    n: int = 250, seed: int = 0
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Losses over parameters and data as in language models, with heavy-tailed noise."""
    rng = np.random.default_rng(seed)
    xs = np.stack([10 ** rng.uniform(7, 10, n), 10 ** rng.uniform(9, 12, n)], axis=1)
    y = 1.7 + 400 * xs[:, 0] ** -0.34 + 410 * xs[:, 1] ** -0.28
    return xs, y * np.exp(0.02 * rng.standard_t(3, size=n))


# --------------------------------------------------------------------------------- the optimum


@pytest.mark.parametrize(
    ("form", "variables"),
    [("power", 1), ("power", 3), ("power-shifted", 1), ("power-bounded", 1), ("power-break", 1)],
)
def test_derivatives_are_those_of_the_objective(form: str, variables: int) -> None:
    rng = np.random.default_rng(1)
    family = Family(form=form, v_NM=rng.normal(size=(20, variables)))
    theta = np.abs(rng.normal(size=(3, family.parameters))) + 0.3
    log_y, weights = 0.3 * rng.normal(size=(1, 20)), rng.uniform(0.5, 1.5, size=20)
    for bend in (Bend(delta=math.inf), Bend(delta=0.5)):
        gradient, hessian, _ = _derivatives(family, theta, log_y, weights, bend)
        for k in range(family.parameters):
            step = np.zeros(family.parameters)
            step[k] = 1e-6
            up, down = theta + step, theta - step
            rise = _objective(family, up, log_y[0], weights, bend)
            rise = (rise - _objective(family, down, log_y[0], weights, bend)) / 2e-6
            assert rise == pytest.approx(gradient[:, k], abs=1e-5, rel=1e-5)
            bent = _derivatives(family, up, log_y, weights, bend)[0]
            bent = (bent - _derivatives(family, down, log_y, weights, bend)[0]) / 2e-6
            assert bent == pytest.approx(hessian[:, k], abs=1e-4, rel=1e-4)


@pytest.mark.parametrize(
    ("form", "truth"),
    [
        ("power", [0.1, 1.2, 0.7]),
        ("power-shifted", [0.1, 1.0, 0.8, 0.3]),
        ("power-bounded", [0.1, 2.0, 0.9, 0.2]),
        ("power-break", [0.05, 1.0, 0.4, 0.8, 0.3, -1.0]),
    ],
)
def test_a_law_without_noise_is_found_to_the_digit(form: str, truth: list[float]) -> None:
    v = np.linspace(-3, 3, 16)[:, None]
    family = Family(form=form, v_NM=v)
    log_y = np.log(family.values(np.asarray([truth]))[0])
    found = fit_family(family, log_y, np.ones(16), Bend(delta=math.inf))
    assert found.converged_B[0]
    assert found.theta_BK[0] == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("loss", ["squares", "huber:1e-3", "lad"])
def test_no_other_start_ends_lower(loss: str) -> None:
    """Many random starts of a quasi-Newton method never beat the grid by 1e-8."""
    from scipy.optimize import minimize

    xs, y = two_variables(n=80)
    chosen = parse_loss(loss)
    fit, _, _ = fit_power("power", xs, y, np.ones(len(y)), chosen)
    bend = bend_of(chosen.kind, chosen.delta)
    weights, rng = np.ones(len(y)), np.random.default_rng(2)

    def value(theta: Any) -> float:
        return float(_objective(fit.family, theta[None], fit.log_y, weights, bend)[0])

    low, high = fit.family.bounds()
    limits = [(max(a, 1e-9), min(b, 50.0)) for a, b in zip(low, high, strict=True)]
    for _ in range(6):
        start = rng.uniform([0.1, 0.1, 0.1, 0.1, 0.1], [1, 1, 1, 1, 1])
        other = minimize(value, start, method="L-BFGS-B", bounds=limits)
        assert fit.objective <= other.fun * (1 + 1e-8) + 1e-15


@given(seed=st.integers(0, 1000), factor=st.floats(1e-6, 1e6), share=st.floats(1e-6, 1e6))
@settings(max_examples=5, deadline=None)
def test_units_change_no_exponent_and_order_changes_no_bit(
    seed: int, factor: float, share: float
) -> None:
    xs, y = two_variables(n=60, seed=seed)
    weights, loss = np.ones(60), Loss(kind="huber", delta=1e-3)
    try:
        one, _, _ = fit_power("power", xs, y, weights, loss)
    except NotFitted:
        return  # by chance a variable explains nothing; the rest of the law is another test's
    rows = np.random.default_rng(seed).permutation(60)
    shuffled, _, _ = fit_power("power", xs[rows], y[rows], weights, loss)
    assert (shuffled.theta == one.theta).all()
    other, _, _ = fit_power("power", xs * [factor, share], y * share, weights, loss)
    assert other.theta[3:] == pytest.approx(one.theta[3:], abs=1e-9)


def test_one_noisy_point_with_a_small_weight_moves_nothing() -> None:
    """Weights are inverse variances; a library that takes them for deviations fails here."""
    x = 2.0 ** np.arange(6.0, 18.0)
    y = 0.2 + 500 * x**-0.8
    y[4] *= 30
    weights = np.ones(12)
    weights[4] = 1e-9
    fit, centers, center = fit_power("power", x[:, None], y, weights / weights.mean(), SQUARES)
    assert fit.theta[2] == pytest.approx(0.8, abs=1e-4)
    assert fit.theta[0] * math.exp(center) == pytest.approx(0.2, abs=1e-3)
    assert centers == pytest.approx(np.log(x).mean())


@pytest.mark.slow
def test_a_two_variable_law_with_huber_loss_is_always_at_its_optimum() -> None:
    """250 points, heavy tails: the gradient vanishes and polishing again changes nothing."""
    loss = Loss(kind="huber", delta=1e-3)
    for seed in range(20):
        xs, y = two_variables(seed=seed)
        fit, _, _ = fit_power("power", xs, y, np.ones(250), loss)
        gradient, _, sizes = _derivatives(
            fit.family, fit.theta[None], fit.log_y[None], np.ones(250), fit.bend
        )
        assert (np.abs(gradient) / sizes).max() < 1e-8
        rows = np.random.default_rng(seed).permutation(250)
        again, _, _ = fit_power("power", xs[rows], y[rows], np.ones(250), loss)
        assert again.objective == pytest.approx(fit.objective, rel=1e-8)
        assert again.theta == pytest.approx(fit.theta, rel=1e-8)


# ------------------------------------------------------------------------------ what a law says


def test_a_floor_is_found_with_its_interval_and_a_missing_one_is_not() -> None:
    law = fitted(falling(seed=1))
    floor = law.coefficients["floor"]
    assert floor.method == "profile" and floor.low < 0.5 < floor.high
    assert floor.low > 0.3 and law.meaning.count("floor") == 1
    assert law.coefficients["exponent"].low < 0.9 < law.coefficients["exponent"].high
    assert law.coefficients["amplitude"].low < 3000 < law.coefficients["amplitude"].high
    none = fitted(falling(floor=0.0, sigma=0.2))
    assert none.coefficients["floor"].low == 0
    assert "asymptote_not_identified" in {warning.code for warning in none.warnings}
    assert "not identified" in none.meaning


def test_the_profile_is_that_of_refitting_with_each_floor() -> None:
    """At both ends of the interval, the best law with that floor is worse by exactly the limit."""
    from scipy.optimize import minimize
    from scipy.stats import t

    frame = falling()
    floor = fitted(frame).coefficients["floor"]
    x, y = frame["E"].to_numpy(float), frame["value"].to_numpy(float)

    def rest(at: float) -> float:
        def ssr(theta: Any) -> float:
            law = at + np.exp(theta[0]) * (x / 5000) ** -theta[1]
            return float(((np.log(y) - np.log(law)) ** 2).sum())

        found = minimize(
            ssr, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}
        )
        return float(found.fun)

    best = rest(floor.estimate)
    limit = best * (1 + float(t.ppf(0.975, 12)) ** 2 / 12 * uneven(x, y, fitted(frame)))
    assert rest(floor.low) == pytest.approx(limit, rel=1e-3)
    assert rest(floor.high) == pytest.approx(limit, rel=1e-3)


def uneven(x: Any, y: Any, law: FitResult) -> float:
    """HC3 over plain variance of the floor, 1 at least, from derivatives written out."""
    e0, a, b = (law.coefficients[name].estimate for name in ("floor", "amplitude", "exponent"))
    term = a * x**-b
    rows = np.stack([np.ones_like(x), term, -term * np.log(x / 5000)], axis=1)
    rows /= (e0 + term)[:, None]
    inverse = np.linalg.inv(rows.T @ rows)
    errors = np.log(y / (e0 + term))
    left = 1 - np.einsum("ij,jk,ik->i", rows, inverse, rows)
    robust = float((((inverse @ rows.T)[0] * errors / left) ** 2).sum())
    plain = float(inverse[0, 0] * (errors**2).sum() / (len(x) - 3))
    return max(robust / plain, 1.0)


def test_floors_are_less_sure_where_their_points_scatter_more() -> None:
    """The same residuals, the larger ones at the far end or at the near end."""
    rng = np.random.default_rng(4)
    x = 2.0 ** np.linspace(8, 18, 15)
    sizes = 0.02 * 8 ** np.linspace(0, 1, 15)
    noise = rng.normal(size=15)
    floors = []
    for spread in (sizes, sizes[::-1]):
        y = (0.5 + 3000 * x**-0.9) * np.exp(spread * noise)
        law = fitted(frame_of({"E": x}, y))
        floors.append((law.coefficients["floor"], uneven(x, y, law)))
    assert floors[0][1] > 1.5 > floors[1][1]
    assert floors[0][0].high - floors[0][0].low > 2 * (floors[1][0].high - floors[1][0].low)


def test_laws_of_several_variables_say_each_exponent() -> None:
    xs, y = two_variables(n=120)
    frame = frame_of({"N": xs[:, 0], "D": xs[:, 1]}, y)
    law = fitted(frame, x=["N", "D"], loss="huber:1e-2")
    assert law.coefficients["exponent N"].low < 0.34 < law.coefficients["exponent N"].high
    assert law.coefficients["exponent D"].low < 0.28 < law.coefficients["exponent D"].high
    assert "at equal D" in law.meaning
    band = bands(law, [1e8, 1e9], {"D": 1e11})
    truth = 1.7 + 400 * np.asarray([1e8, 1e9]) ** -0.34 + 410 * 1e11**-0.28
    assert (band.low < truth).all() and (truth < band.high).all()
    line = fitted(frame, form="loglog", x=["N", "D"])
    assert set(line.coefficients) == {"intercept", "slope N", "slope D"}
    fit = Fit(metric="rfid", on="set", form="power", x=("N", "D"))
    json.dumps(fit_study(frame, {"law": fit}, []).to_json(), allow_nan=False)


def test_what_no_power_law_can_follow_is_refused() -> None:
    x = 2.0 ** np.arange(6.0, 14.0)
    rising = fitted(frame_of({"E": x}, x**0.5))
    assert [warning.code for warning in rising.warnings] == ["wrong_direction"]
    few = fitted(frame_of({"E": x[:3]}, x[:3] ** -0.5))
    assert [warning.code for warning in few.warnings] == ["too_few_points"]
    equal = fitted(frame_of({"E": [64, 64, 64, 128, 128], "c": range(5)}, [3, 2.9, 3.1, 2, 2.1]))
    assert [warning.code for warning in equal.warnings] == ["few_levels"]
    twin = fitted(frame_of({"E": x, "twin": x}, x**-0.5), x=["E", "twin"])
    assert {warning.code for warning in twin.warnings} & {"collinear", "exponent_at_bound"}
    with pytest.raises(UsageError, match="no bands"):
        bands(rising, [64.0])


# ------------------------------------------------------------------------------ draws, scores


def test_draws_are_those_of_the_data_and_hold_the_law() -> None:
    frame = falling()
    for form in ("loglog", "power"):
        law = fitted(frame, form)
        one, two = (
            bootstrap(law, 300),
            bootstrap(fitted(frame.sample(frac=1, random_state=3), form), 300),
        )
        assert one.seed == two.seed and (one.values == two.values).all()
        assert one.values.shape == (300, len(law.centered)) and one.failed == 0
        slope = one.intervals["slope"]
        assert law.slope is not None and slope.low < law.slope.estimate < slope.high
        moved = fitted(frame.assign(value=frame["value"] * 1.01), form)
        assert bootstrap(moved, 300).seed != one.seed
    with pytest.raises(UsageError, match="take 100 or more"):
        bootstrap(law, 10)


def test_the_law_that_made_the_points_scores_best() -> None:
    frame = falling(sigma=0.03, n=24)
    laws = [fitted(frame, form) for form in ("loglog", "power", "quadratic")]
    line, power, _ = compare(laws)
    assert power.aicc is not None and line.aicc is not None and power.aicc < line.aicc - 10
    assert power.bic < line.bic
    assert power.press_rmse is not None and line.press_rmse is not None
    assert power.press_rmse < line.press_rmse
    assert power.holdout_rmse is not None and line.holdout_rmse is not None
    assert power.holdout_rmse < line.holdout_rmse and power.holdout_n == 8


def test_scores_of_different_scales_share_one_unit() -> None:
    """The likelihood prefers the scale on which the noise was added."""
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(4.0, 24.0)
    noise = rng.normal(size=20)
    multiplied = frame_of({"E": x}, np.exp2(6 - 0.2 * np.log2(x) + 0.4 * noise))
    added = frame_of({"E": x}, 40 - np.log2(x) + 0.4 * noise)
    for frame, better in ((multiplied, "loglog"), (added, "semilog")):
        scores = {
            form: compare([fitted(frame, form)])[0].log_likelihood for form in ("loglog", "semilog")
        }
        assert max(scores, key=lambda form: scores[form]) == better
    # Written out: normal density of log2 y times dlog2(y)/dy.
    law = fitted(multiplied, "loglog")
    y = multiplied["value"].to_numpy(float)
    residuals = np.asarray([point.y - point.fitted for point in law.points])
    sd = math.sqrt(float((residuals**2).mean()))
    density = (
        np.exp(-0.5 * (residuals / sd) ** 2) / (sd * math.sqrt(2 * math.pi)) / (y * math.log(2))
    )
    assert compare([law])[0].log_likelihood == pytest.approx(float(np.log(density).sum()))


def test_laws_of_different_things_are_not_compared() -> None:
    frame = falling()
    other = fitted(frame[frame["E"] < 2**14])
    with pytest.raises(UsageError, match="different configurations"):
        compare([fitted(frame), other])
    with pytest.raises(UsageError, match="no fitted law"):
        compare([fitted(frame.head(1))])
