"""Does `plan --power` predict what a design can say? Against closed forms and other simulations."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studies import SMALL, plan_of, write
from sweepctl import cli
from sweepctl.design import Stated, forecast
from sweepctl.errors import UsageError
from sweepctl.plan import Speed, cell_costs, design_rows
from sweepctl.study import FactorClaim, Fit, Margin, OptimumClaim, SlopeClaim

LAW = Fit(metric="psnr", on="set", form="semilog")
RISES = SlopeClaim(name="rises", fit="law", slope="positive")


def design(levels: int = 6, patches: tuple[int, ...] = (8, 16), seeds: int = 1) -> pd.DataFrame:
    """Every E at every patch size and seed, one run each."""
    rows = [
        {"E": 2**e, "p": p, "seed": seed}
        for e in range(8, 8 + levels)
        for p in patches
        for seed in range(seeds)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(
        cell=range(1, len(frame) + 1),
        task=[f"t{i}" for i in range(len(frame))],
        metric="psnr",
        dataset="set",
        protocol="lite0",
        n=512,
        value=None,
    )


def told(frame: pd.DataFrame, *claims: Any, draws: int = 100, **more: Any) -> Any:
    options: dict[str, Any] = {"noise": {"psnr": 0.5}, "stated": {"law": Stated(slope=0.1)}}
    return forecast(frame, {"law": LAW}, claims, draws=draws, **(options | more))


def test_the_interval_is_that_of_the_design() -> None:
    for seeds in (1, 3):
        frame = design(seeds=seeds)
        fit = told(frame).fits[0]
        u = np.log2(frame.groupby(["E", "p"]).size().reset_index()["E"])
        error = 0.5 / math.sqrt(seeds) / math.sqrt(((u - u.mean()) ** 2).sum())
        # The verdicts' interval is the hull of two, so a little wider than the t interval alone.
        plain = stats.t.ppf(0.975, len(u) - 2) * error
        assert plain * 0.9 < fit.half_width < plain * 1.4
        assert (fit.n, fit.seeds, fit.made, fit.quantity) == (12, seeds, 1.0, "slope")
        assert fit.one_seed_more == pytest.approx(fit.half_width * math.sqrt(seeds / (seeds + 1)))
        assert fit.expected == pytest.approx(0.1, abs=0.05)


def test_more_noise_decides_less_and_a_flat_law_nothing() -> None:
    sure = told(design(), RISES, noise={"": 0.05}).claims[0]
    unsure = told(design(), RISES, noise={"": 1.0}).claims[0]
    flat = told(design(), RISES, stated={"law": Stated(slope=0.0)}).claims[0]
    against = told(design(), RISES, stated={"law": Stated(slope=-1.0)}).claims[0]
    assert sure.supported == 1 and against.contradicted == 1
    assert unsure.undecided > 0.5 and "80 % power" in unsure.example
    assert flat.supported < 0.1 and flat.contradicted < 0.1
    for one in (sure, unsure, flat, against):
        assert one.supported + one.contradicted + one.undecided == pytest.approx(1)


def test_cells_that_share_a_run_share_its_noise() -> None:
    frame = design(patches=(8,))
    twice = pd.concat([frame, frame.assign(cell=frame["cell"] + 100)])
    one, two = told(frame).fits[0], told(twice).fits[0]
    assert (one.n, one.half_width) == (two.n, pytest.approx(two.half_width))


def test_law_and_noise_come_from_runs_that_are_done() -> None:
    rng = np.random.default_rng(0)
    pilot = design(levels=3, seeds=2)
    pilot["value"] = 20 + 1.5 * np.log2(pilot["E"]) + 0.2 * rng.normal(size=len(pilot))
    found = told(design(), RISES, noise=None, stated=None, pilot=pilot)
    assert found.fits[0].expected == pytest.approx(1.5, abs=0.2)
    assert "law of the runs that are done (fit law)" in found.assumed[0]
    assert "from the seeds of runs that are done" in found.assumed[0]
    stated = told(design(), RISES, noise=None, pilot=pilot)
    assert stated.fits[0].expected == pytest.approx(0.1, abs=0.1)


def test_the_paper_s_law_stands_in_where_nothing_is_known() -> None:
    found = told(design(), stated=None)
    assert found.fits[0].expected == pytest.approx(2.30146, abs=0.2)
    assert "the paper's law over E (figure 3), slope 2.3" in found.assumed[0]


def test_what_is_not_known_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"noise of psnr on set is not known") as raised:
        told(design(), noise={"ssim": 1.0})
    assert "--noise psnr=0.1" in str(raised.value)
    with pytest.raises(UsageError, match="no fit 'lw'"):
        told(design(), stated={"lw": Stated(slope=1)})
    with pytest.raises(UsageError, match="nothing to forecast"):
        forecast(design(), {}, [])
    with pytest.raises(UsageError, match="does not measure ssim on set"):
        claim = FactorClaim(
            name="p", metric="ssim", on="set", factor="p", margin=Margin(value=1.0, percent=False)
        )
        told(design(), claim, noise={"": 1.0})


def test_a_fit_that_the_design_does_not_allow_says_why() -> None:
    claim = OptimumClaim(name="best", fit="curve", optimum="maximum")
    fits = {"curve": Fit(metric="psnr", on="set", form="quadratic")}
    found = forecast(design(levels=2), fits, [claim], noise={"": 0.1}, draws=5)
    assert found.fits[0].made == 0 and "2 distinct values" in found.fits[0].reason
    assert found.claims[0].undecided == 1


def test_a_stated_optimum_is_predicted_and_its_claim_decided() -> None:
    """Parabolas: the optimum inside the design is found by enough points and little noise."""
    claim = OptimumClaim(name="best", fit="curve", optimum="maximum")
    fits = {"curve": Fit(metric="psnr", on="set", form="quadratic")}
    shares = {}
    for optimum, noise in ((2**10.5, 0.05), (2**10.5, 3.0), (2**20, 0.05)):
        stated = {"curve": Stated(bend=-0.2, optimum=optimum, level=30)}
        found = forecast(design(), fits, [claim], noise={"": noise}, stated=stated, draws=60)
        shares[optimum, noise] = found.claims[0]
        assert "bend -0.2 (stated for curve)" in found.assumed[0]
        assert f"maximum of 30 at {optimum:.4g}"[:15] in found.assumed[0]
    assert shares[2**10.5, 0.05].supported == 1
    assert shares[2**10.5, 3.0].undecided > 0.5
    assert shares[2**20, 0.05].contradicted == 1


def test_the_same_forecast_each_time() -> None:
    assert told(design(), RISES, draws=20) == told(design(), RISES, draws=20)


# ------------------------------------------------------------------------------ against the truth


def hull_power(u: Any, slope: float, noise: float, draws: int) -> float:
    """How often the hull of the t and the HC3 interval lies above 0, by another simulation."""
    rng = np.random.default_rng(99)
    X = np.column_stack([np.ones(len(u)), u - u.mean()])
    inverse = np.linalg.inv(X.T @ X)
    y = slope * u + noise * rng.normal(size=(draws, len(u)))
    beta = y @ X @ inverse
    e = y - beta @ X.T
    left = 1 - np.einsum("ij,jk,ik->i", X, inverse, X)
    plain = np.sqrt((e**2).sum(axis=1) / (len(u) - 2) * inverse[1, 1])
    robust = np.sqrt((e / left) ** 2 @ (X @ inverse[:, 1]) ** 2)
    half = stats.t.ppf(0.975, len(u) - 2) * np.maximum(plain, robust)
    return float((beta[:, 1] - half > 0).mean())


def tost_power(levels: int, margin: float, noise: float, draws: int) -> float:
    """How often the 90 % interval of a difference of two patch sizes at equal E is inside."""
    rng = np.random.default_rng(7)
    difference = noise * rng.normal(size=(draws, levels, 2)) @ np.array([1.0, -1.0])
    mean, sd = difference.mean(axis=1), difference.std(axis=1, ddof=1)
    half = stats.t.ppf(0.95, levels - 1) * sd / math.sqrt(levels)
    return float((np.abs(mean) + half <= margin).mean())


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.15, 0.3])
def test_shares_of_a_slope_claim_are_within_3_points(slope: float) -> None:
    frame = design()
    found = told(frame, RISES, draws=3000, stated={"law": Stated(slope=slope)}).claims[0]
    truth = hull_power(np.log2(frame["E"].to_numpy(float)), slope, 0.5, 100_000)
    assert 0.2 < truth < 0.97
    assert found.supported == pytest.approx(truth, abs=0.03)


@pytest.mark.slow
def test_shares_of_a_no_effect_claim_are_within_3_points() -> None:
    margin = Margin(value=0.8, percent=False)
    claim = FactorClaim(name="p", metric="psnr", on="set", factor="p", margin=margin)
    found = told(design(), claim, draws=3000).claims[0]
    truth = tost_power(6, 0.8, 0.5, 100_000)
    assert 0.3 < truth < 0.95
    assert found.supported == pytest.approx(truth, abs=0.03)


# -------------------------------------------------------------------------------- plans and words


def test_the_rows_of_a_plan_are_those_of_the_ledger(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SMALL)
    rows = design_rows(plan)
    assert len(rows) == 4 * 2 and {row["metric"] for row in rows} == {"psnr", "rfd_lite0"}
    first = rows[0]
    assert (first["p"], first["c"], first["E"], first["n"]) == (4, 4, 256, 32)
    assert first["task"] == plan.cells[0].tasks["reconstruct:photos-eval"]
    assert first["encoder_parameters"] + first["decoder_parameters"] == first["parameters"]


def test_a_cell_costs_what_only_it_needs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SMALL)
    costs = cell_costs(plan)
    assert [cost.cell for cost in costs] == [1, 2, 3, 4] and {c.hours for c in costs} == {None}
    cell = plan.cells[0]
    own = [plan.tasks[cell.tasks[stage]] for stage in ("stage1", "reconstruct:photos-eval")]
    assert costs[0].flops == sum(task.cost.flops for task in own) > 0
    speeds = [
        Speed(kind=kind, device="cpu", flops=1e9, seconds=2.0) for kind in ("stage1", "reconstruct")
    ]
    assert cell_costs(plan, speeds)[0].hours == pytest.approx(costs[0].flops * 2e-9 / 3600)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SMALL.replace("[psnr, rfd_lite0]", "[psnr]"), "small.yaml")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweepctl", "plan", "small.yaml", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return run


def test_the_command_tells_intervals_shares_and_costs(call: Any, tmp_path: Path) -> None:
    code, out, err = call("--power", "--noise", "psnr=0.3", "--assume", "law=2@20", "--draws", "20")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("fit\tquantity\tn\tseeds\texpected\tplus_minus")
    assert lines[1].startswith("law\tslope\t4\t1.0\t")
    assert lines[2] == "claim\tsupported_percent\tcontradicted_percent\tundecided_percent"
    assert "psnr on photos-eval: slope 2 around 20 (stated for law); noise of a run 0.3" in err
    assert "a cell costs" in err and "simulated studies" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
    code, out, _ = call("--power", "--noise", "0.3", "--draws", "10", "--json")
    said = json.loads(out)
    assert code == 0 and len(said["cells"]) == 4 and said["claims"][0]["name"] == "E helps"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--noise", "0.3"), "go with --power"),
        (("--power",), "noise of psnr on photos-eval is not known"),
        (("--power", "--noise", "psnr=-1"), "--noise takes a number above 0"),
        (("--power", "--noise", "psnr=nan"), "--noise takes a number above 0"),
        (("--power", "--noise", "1", "--assume", "law"), "--assume takes FIT=SLOPE"),
        (("--power", "--noise", "1", "--assume", "law=2@"), "--assume takes FIT=SLOPE"),
        (("--power", "--noise", "1", "--assume", "no=2"), "there is no fit 'no'"),
        (("--power", "--noise", "1", "--assume", "law=2~"), "--assume takes FIT=SLOPE"),
        (("--power", "--noise", "1", "--assume", "law=0~64"), "an optimum needs a bend"),
    ],
)
def test_what_cannot_be_forecast_is_exit_code_2(call: Any, words: Any, said: str) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "") and said in err
