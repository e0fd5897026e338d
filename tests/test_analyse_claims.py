"""Do rows become the right points with the right weights, and claims the right verdicts?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from sweepctl.analyse import FitResult, bands, equation
from sweepctl.claims import ClaimResult, fit_study
from sweepctl.errors import UsageError
from sweepctl.study import (
    AnyClaim,
    Comparison,
    EqualSlopesClaim,
    FactorClaim,
    Fit,
    HoldoutClaim,
    Margin,
    MonotoneClaim,
    OptimumClaim,
    SlopeClaim,
    TradeoffClaim,
)

LEVELS = tuple(range(6, 16))


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    shared = {"seed": 0, "metric": "rfid", "dataset": "set", "protocol": "lite0", "n": 1024}
    return pd.DataFrame(
        [shared | {"cell": i, "task": f"t{i}", "c": i} | row for i, row in enumerate(rows)]
    )


def line(slope: float = -0.7, sigma: float = 0.1, seed: int = 0, **more: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return frame_of(
        [{"E": 2.0**k, "value": 2 ** (9 + slope * k + sigma * rng.normal())} | more for k in LEVELS]
    )


def fitted(frame: pd.DataFrame, form: str = "loglog", **more: Any) -> FitResult:
    fit = Fit.model_validate({"metric": "rfid", "on": "set", "form": form} | more)
    return fit_study(frame, {"law": fit}, []).fits[0]


def judge(frame: pd.DataFrame, claim: AnyClaim, **fits: Fit) -> ClaimResult:
    law = Fit(metric="rfid", on="set", form="loglog")
    return fit_study(frame, {"law": law, **fits}, [claim]).claims[0]


def codes(fit: FitResult) -> list[str]:
    return [warning.code for warning in fit.warnings]


# ----------------------------------------------------------------------------------- the points


def test_where_chooses_rows_by_value_list_and_comparison() -> None:
    frame = line()
    assert fitted(frame, where={"E": ">= 1024"}).n == 6
    assert fitted(frame, where={"c": [0, 1, 2, 3]}).n == 4
    assert fitted(frame, where={"c": 3}).reason.startswith("1 of the 3 configurations")
    nothing = fitted(frame, where={"c": 99})
    assert codes(nothing) == ["too_few_points"] and "has c 99" in nothing.reason
    with pytest.raises(UsageError, match="'cc' is not a column"):
        fitted(frame, where={"cc": 1})


def test_weights_are_those_of_seeds_and_evaluation_noise() -> None:
    """One configuration with many seeds counts more; a very noisy one hardly at all."""
    rng = np.random.default_rng(0)
    rows = []
    for k in LEVELS:
        for seed in range(9 if k == 6 else 2):
            value = 2 ** (9 - 0.7 * k + 0.1 * rng.normal())
            rows.append({"E": 2.0**k, "c": k, "seed": seed, "value": value, "se": 0.001 * value})
    frame = frame_of(rows)
    law = fitted(frame)
    assert law.n == 10 and law.weighting == "seeds and evaluation noise"
    assert law.noise == pytest.approx(0.1, rel=0.4)
    weights = [point.weight for point in law.points]
    assert np.mean(weights) == pytest.approx(1.0)
    assert weights[0] / weights[1] == pytest.approx(4.5, rel=1e-2)
    noisy = frame.assign(se=[v * (50 if c == 10 else 0.001) for v, c in zip(frame.value, frame.c)])  # noqa: B905
    noisy.loc[noisy["c"] == 10, "value"] *= 100
    moved, plain = fitted(noisy), fitted(frame[frame["c"] != 10])
    assert moved.slope is not None and plain.slope is not None
    assert moved.slope.estimate == pytest.approx(plain.slope.estimate, abs=1e-3)
    assert fitted(line()).weighting == ""  # one seed each: nothing is known, nothing is weighted


def test_repeated_rows_are_seen() -> None:
    frame = line()
    twice = pd.concat([frame, frame.assign(task=frame["task"] + "again")], ignore_index=True)
    law = fitted(twice)
    assert law.n == 10 and "duplicate_rows" in codes(law)
    assert law.slope == fitted(frame).slope
    runs = [frame.assign(run=run, task=frame["task"] + f"r{run}") for run in range(3)]
    runs = [one.assign(value=one["value"] * (1 + 0.01 * i)) for i, one in enumerate(runs)]
    pretending = fitted(pd.concat(runs, ignore_index=True))
    assert pretending.n == 30 and "seeds_as_rows" in codes(pretending)
    assert "call run seed" in pretending.warnings[0].message
    named = fitted(pd.concat(runs, ignore_index=True).rename(columns={"run": "x.seed"}))
    assert named.n == 10 and "seeds_as_rows" not in codes(named)


def test_a_metric_can_be_the_variable_of_another() -> None:
    frame = line(sigma=0.0)
    decibels = frame.assign(
        metric="psnr", value=10 + 2 * np.log2(frame["E"]), task=frame["task"] + "p"
    )
    both = pd.concat([frame, decibels], ignore_index=True)
    law = fitted(both, "linear", x="psnr")
    assert law.x_scale == "raw" and law.slope is not None
    assert law.slope.estimate == pytest.approx(-0.35)  # -0.7 an octave of E, 2 dB an octave
    assert law.meaning.startswith("each further dB of psnr multiplies rfid by 0.785")
    other = fitted(both, "linear", x="psnr", metric="psnr")
    assert other.slope is not None and other.slope.estimate == pytest.approx(1.0)
    apart = fitted(both[both["metric"].eq("rfid") | both["c"].ne(3)], "linear", x="psnr")
    assert codes(apart) == ["nonfinite_value"] and "psnr is not known" in apart.reason
    far = both.assign(dataset=["set"] * 10 + ["other"] * 10)
    assert fitted(far, "linear", x="psnr", x_on="other").slope == law.slope


# --------------------------------------------------------------------------- factors and curves


def grid(
    effect: float = 0.0, tilt: float = 0.0, sigma: float = 0.03, seed: int = 0
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for p in (8, 16, 32):
        for c in (4, 8, 16, 32, 64):
            e = 16384 // p**2 * c
            y = 9 - 0.7 * math.log2(e) + (effect + tilt * (math.log2(e) - 10)) * (p == 32)
            rows.append({"p": p, "c": c, "E": e, "value": 2 ** (y + sigma * rng.normal())})
    return frame_of(rows)


def test_factors_have_effects_and_with_interaction_slopes() -> None:
    law = fitted(grid(effect=0.5), factors=["p"])
    assert law.coefficients["p 32"].estimate == pytest.approx(0.5, abs=0.1)
    assert law.coefficients["p 16"].low < 0 < law.coefficients["p 16"].high
    tests = {test.name: test.p for test in law.tests}
    assert tests["factor p"] < 1e-4
    assert "[p 32]" in equation(law)
    tilted = fitted(grid(tilt=0.4), factors=["p"], interaction=True)
    assert tilted.coefficients["slope p 32"].estimate == pytest.approx(0.4, abs=0.1)
    assert {test.name: test.p for test in tilted.tests}["interaction"] < 1e-4
    assert tilted.slope is not None  # the mean of the three slopes
    assert tilted.slope.estimate == pytest.approx(-0.7 + 0.4 / 3, abs=0.05)
    band = bands(law, [1024.0], {"p": 32})
    without = bands(law, [1024.0], {"p": 8})
    assert math.log2(band.mean[0] / without.mean[0]) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(UsageError, match="is no level of fit"):
        bands(law, [1024.0], {"p": 5})


def test_designs_that_cannot_tell_effects_apart_are_refused() -> None:
    frame = line()
    alone = fitted(frame.assign(p=8), factors=["p"])
    assert codes(alone) == ["few_levels"] and "one value only" in alone.reason
    tied = fitted(
        frame.assign(p=[2 if e < 500 else 4 for e in frame["E"]], q=frame["E"] * 2), x=["E", "q"]
    )
    assert codes(tied) == ["collinear"]


def test_a_cubic_follows_an_unsymmetric_valley_and_the_quadratic_says_so() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for k in np.linspace(6, 16, 21):
        y = 3 + 0.10 * (k - 9) ** 2 - 0.006 * (k - 9) ** 3 + 0.02 * rng.normal()
        rows.append({"E": 2.0**k, "value": 2**y})
    frame = frame_of(rows)
    quadratic, cubic = fitted(frame, "quadratic"), fitted(frame, "cubic")
    assert "optimum_shifts" in codes(quadratic) or "curvature" in codes(quadratic)
    assert cubic.optimum is not None and cubic.optimum.low is not None
    assert cubic.optimum.low < 2**9 < (cubic.optimum.high or 0)
    assert cubic.optimum.delta_low < 2**9 < cubic.optimum.delta_high


def test_raw_variables_of_any_size_are_fitted_alike() -> None:
    frame = line()
    frame = frame.assign(small=np.arange(10.0), large=np.arange(10.0) * 1e21)
    one, two = fitted(frame, "linear", x="small"), fitted(frame, "linear", x="large")
    assert one.slope is not None and two.slope is not None
    assert two.slope.estimate * 1e21 == pytest.approx(one.slope.estimate, rel=1e-9)
    assert two.slope.se * 1e21 == pytest.approx(one.slope.se, rel=1e-9)
    assert codes(one) == codes(two) and two.r2 == pytest.approx(one.r2)
    assert [test.p for test in two.tests] == pytest.approx([test.p for test in one.tests])


def test_beyond_a_decade_bands_say_so() -> None:
    band = bands(fitted(line()), [64.0 / 20, 64.0 / 5, 64.0, 2.0**15 * 20])
    assert list(band.outside) == [True, True, False, True]
    assert list(band.far) == [True, False, False, True]


# --------------------------------------------------------------------------------------- claims


def test_the_size_of_a_slope() -> None:
    frame = line()

    def verdict(operator: str, value: float) -> str:
        size = Comparison.model_validate({"operator": operator, "value": value})
        return judge(frame, SlopeClaim(name="s", fit="law", slope=size)).verdict

    assert verdict("<", -0.5) == "supported"
    assert verdict("<", -1.0) == "contradicted"
    assert verdict("<=", -0.7) == "undecided"
    read = SlopeClaim.model_validate({"name": "s", "fit": "law", "slope": "<= -0.5"})
    assert isinstance(read.slope, Comparison) and read.model_dump()["slope"] == "<= -0.5"


def test_equal_slopes_of_two_data_sets_are_compared_pair_by_pair() -> None:
    """Shared noise cancels: the difference is known far better than either slope."""
    rng = np.random.default_rng(1)
    common = 0.3 * rng.normal(size=10)
    rows = []
    for name, slope in (("set", -0.70), ("other", -0.72)):
        for i, k in enumerate(LEVELS):
            y = 9 + slope * k + common[i] + 0.005 * rng.normal()
            rows.append({"E": 2.0**k, "c": i, "dataset": name, "value": 2**y})
    frame = frame_of(rows)
    other = Fit(metric="rfid", on="other", form="loglog")
    for margin, verdict in ((0.05, "supported"), (0.02, "undecided"), (0.005, "contradicted")):
        claim = EqualSlopesClaim(name="e", fits=("law", "other"), margin=margin)
        result = judge(frame, claim, other=other)
        assert result.verdict == verdict, result.evidence
        assert result.details["pairs"][0]["paired"]
    apart = frame[frame["dataset"].eq("set") | frame["c"].ne(0)]
    loose = judge(
        apart, EqualSlopesClaim(name="e", fits=("law", "other"), margin=0.05), other=other
    )
    assert loose.verdict == "undecided" and not loose.details["pairs"][0]["paired"]
    assert "could only have seen" in loose.evidence


def test_the_factor_claim_gives_the_nested_test_beside_the_saturated_one() -> None:
    claim = FactorClaim(
        name="p", metric="rfid", on="set", factor="p", margin=Margin(value=0.2, percent=True)
    )
    same, worse = judge(grid(), claim), judge(grid(effect=1.0), claim)
    assert (same.verdict, worse.verdict) == ("supported", "contradicted")
    assert same.details["nested"]["p"] > 0.01 > worse.details["nested"]["p"]
    assert "inside a line" in worse.evidence
    chosen = claim.model_copy(update={"where": {"p": [8, 16]}})
    assert judge(grid(effect=1.0), chosen).verdict == "supported"


def valley(sigma: float, place: float = 10.5, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return frame_of(
        [
            {"E": 2.0**k, "value": 2 ** (3 + 0.1 * (k - place) ** 2 + sigma * rng.normal())}
            for k in LEVELS
        ]
    )


def test_an_optimum_inside_a_range() -> None:
    quadratic = Fit(metric="rfid", on="set", form="quadratic")

    def result(frame: pd.DataFrame, **claim: Any) -> ClaimResult:
        made = OptimumClaim.model_validate({"name": "o", "fit": "q", "optimum": "minimum"} | claim)
        return judge(frame, made, q=quadratic)

    assert result(valley(0.05)).verdict == "supported"
    assert result(valley(0.05), between=(1024, 2048)).verdict == "supported"
    assert result(valley(0.05), between=(64, 256)).verdict == "contradicted"
    assert result(valley(0.05), optimum="maximum").verdict == "contradicted"
    assert result(valley(0.3), between=(1200, 1700)).verdict == "undecided"
    flat = result(line(slope=0.0, sigma=0.3))
    assert flat.verdict == "undecided" and "unbounded" in flat.evidence
    assert "could only have seen a curvature" in flat.evidence


def test_a_direction_needs_every_step() -> None:
    def frame(sigma: float, back: float = 0.0, seeds: int = 3) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        rows = []
        for k in range(6, 12):
            for seed in range(seeds):
                y = 9 - 0.7 * k + (back if k == 9 else 0.0) + sigma * rng.normal()
                rows.append({"E": 2.0**k, "c": k, "seed": seed, "value": 2**y})
        return frame_of(rows)

    claim = MonotoneClaim(name="m", metric="rfid", on="set", monotone="falling")
    assert judge(frame(0.05), claim).verdict == "supported"
    assert judge(frame(0.05), claim.model_copy(update={"monotone": "rising"})).verdict == (
        "contradicted"
    )
    bump = judge(frame(0.05, back=2.0), claim)
    assert bump.verdict == "contradicted" and "from E = 256 to 512" in bump.evidence
    vague = judge(frame(0.6), claim)
    assert vague.verdict == "undecided" and "could only have seen a step" in vague.evidence
    single = judge(frame(0.05, seeds=1), claim)
    assert single.verdict == "undecided" and "nothing tells a step from noise" in single.evidence
    allowed = claim.model_copy(update={"margin": Margin(value=9.0, percent=True)})
    assert judge(frame(0.05, back=2.0), allowed).verdict == "supported"


def test_a_trade_off_is_a_matter_of_ranks() -> None:
    frame = line()
    claim = TradeoffClaim(name="t", metric="rfid", on="set", against="psnr")

    def with_decibels(values: Any) -> pd.DataFrame:
        decibels = frame.assign(metric="psnr", value=values, task=frame["task"] + "p")
        return pd.concat([frame, decibels], ignore_index=True)

    # rfid falls with E: psnr that rises gets better together with it.
    together = judge(with_decibels(np.linspace(20, 30, 10)), claim)
    assert together.verdict == "contradicted" and len(together.details["front"]) == 1
    against = judge(with_decibels(np.linspace(30, 20, 10)), claim)
    assert against.verdict == "supported" and against.details["front_share"] == 1.0
    mixed = judge(with_decibels([25, 21, 27, 23, 29, 22, 26, 20, 28, 24]), claim)
    assert mixed.verdict == "undecided" and "could only have seen" in mixed.evidence


def test_a_law_that_holds_out_of_sample_and_one_that_does_not() -> None:
    claim = HoldoutClaim.model_validate(
        {"name": "h", "fit": "law", "holdout": "> 4096", "margin": "30%"}
    )
    straight = judge(line(sigma=0.05), claim)
    assert straight.verdict == "supported" and straight.details["trained_on"] == 7
    bent = line(sigma=0.02)
    bent["value"] *= np.where(bent["E"] > 4096, 3.0, 1.0)
    broken = judge(bent, claim)
    assert broken.verdict == "contradicted" and broken.details["outside_prediction_band"] == 3
    vague = judge(line(sigma=0.2), claim)
    assert vague.verdict == "undecided" and "could only have shown a margin" in vague.evidence
    alone = judge(line(), claim.model_copy(update={"holdout": Comparison(operator=">", value=1e9)}))
    assert alone.verdict == "undecided" and "no configuration has E" in alone.evidence
    everything = claim.model_copy(update={"holdout": Comparison(operator=">", value=0)})
    assert "no configuration is left" in judge(line(), everything).evidence


# ------------------------------------------------------------------------------------ the words


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"form": "quadratic", "x": ["E", "c"]}, "takes one variable"),
        ({"form": "power", "factors": ["p"]}, "takes no factors"),
        ({"form": "loglog", "interaction": True}, "needs factors"),
        ({"form": "loglog", "scale": "raw"}, "states its scale"),
        ({"form": "loglog", "loss": "lad"}, "goes with power laws"),
        ({"form": "power", "loss": "huber:-1"}, "a loss is"),
        ({"form": "power", "x": ["E", "E"]}, "twice"),
    ],
)
def test_fits_that_contradict_themselves_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Fit.model_validate({"metric": "rfid", "on": "set"} | wrong)


def test_equations_of_all_forms_are_written_out() -> None:
    frame = line(sigma=0.01)
    assert equation(fitted(frame)).startswith("log2 rfid = 9")
    assert "(log2 E)^3" in equation(fitted(frame, "cubic"))
    x = 2.0 ** np.arange(4.0, 20.0)
    falls = frame_of([{"E": e, "value": 0.1 + 100 * e**-0.8} for e in x])
    assert equation(fitted(falls, "power")) == "rfid = 0.1 + 100 E^-0.8"
    shifted = frame_of([{"E": e, "value": 0.1 + 100 * (e + 50) ** -0.8} for e in x])
    assert equation(fitted(shifted, "power-shifted")) == "rfid = 0.1 + 100 (E + 50)^-0.8"
    bounded = frame_of([{"E": e, "value": 0.5 + 20 / (1 + (e / 500) ** 1.5)} for e in x])
    assert equation(fitted(bounded, "power-bounded")) == "rfid = 0.5 + 20 / (1 + (E / 500)^1.5)"
    broken = [0.01 + 10 * e**-0.3 * (1 + (e / 1000) ** 2) ** (-0.6 * 0.5) for e in x]
    rows = [{"E": e, "value": y} for e, y in zip(x, broken, strict=True)]
    law = fitted(frame_of(rows), "power-break")
    assert equation(law) == "rfid = 0.01 + 10 E^-0.3 (1 + (E / 1000)^2)^-0.3"
    assert law.coefficients["exponent after"].estimate == pytest.approx(0.9, abs=1e-4)
