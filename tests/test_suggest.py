"""Does `suggest` choose runs that help, within bounds and budget, and can its block be pasted?"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studies import DATA, SMALL, load, plan_of, write
from sweepctl import cli
from sweepctl.analyse import bands, fit_law
from sweepctl.design import suggest
from sweepctl.errors import UsageError
from sweepctl.plan import candidates, design_rows, make_plan
from sweepctl.study import Fit

LINE = Fit(metric="psnr", on="set", form="semilog")


def cells_of(octaves: list[float], ps: list[int] | None = None) -> pd.DataFrame:
    """Cells 1, 2, ... at 2 ** octaves, seed 0."""
    count = len(octaves)
    return pd.DataFrame(
        {
            "cell": range(1, count + 1),
            "task": [f"t{i}" for i in range(count)],
            "E": [2.0**octave for octave in octaves],
            "p": ps or list(range(count)),
            "seed": 0,
            "metric": "psnr",
            "dataset": "set",
            "protocol": "lite0",
            "n": 512,
            "value": None,
        }
    )


def chosen(frame: pd.DataFrame, own: int, budget: float, **more: Any) -> Any:
    options: dict[str, Any] = {
        "costs": {int(cell): 1.0 for cell in frame["cell"] if cell > own},
        "noise": 0.5,
    } | more
    fit = options.pop("fit", LINE)
    return suggest("law", fit, frame, own, options.pop("costs"), budget, **options)


# --- what is chosen ---------------------------------------------------------------------------


def test_a_line_is_measured_at_its_ends() -> None:
    frame = cells_of([10, 11, 12, *range(6, 17)])
    for criterion in ("V", "D"):
        told = chosen(frame, 3, 4.0, criterion=criterion)
        octaves = sorted(math.log2(run.xs[0]) for run in told.runs)
        assert octaves == [6, 7, 15, 16] and told.cost == 4
    assert told.considered == 11


def test_the_interval_predicted_is_that_of_least_squares() -> None:
    frame = cells_of([8, 9, 10, 11, 12, 14])
    told = chosen(frame, 5, 1.0)
    from scipy import stats

    for octaves, one in (
        ([8, 9, 10, 11, 12], told.before),
        ([8, 9, 10, 11, 12, 14], told.runs[-1].after),
    ):
        u = np.asarray(octaves, dtype=float)
        error = 0.5 / math.sqrt(((u - u.mean()) ** 2).sum())
        assert one.slope == pytest.approx(stats.t.ppf(0.975, len(u) - 2) * error, rel=1e-6)
        assert one.n == len(u)
    assert told.runs[-1].after.law < told.before.law


def test_no_set_of_that_cost_is_better(tmp_path: Path) -> None:
    """Against every subset, on a design small enough to try them all."""
    import itertools

    rng = np.random.default_rng(0)
    frame = cells_of([9, 10, 11, *rng.uniform(6, 16, 9)])
    costs = {cell: float(cost) for cell, cost in enumerate(rng.uniform(1, 4, 9), start=4)}
    told = chosen(frame, 3, 7.0, costs=costs)
    u = np.log2(frame["E"].to_numpy(float))
    u = np.stack([np.ones_like(u), u - 11], axis=1)

    def variance(cells: tuple[int, ...]) -> float:
        rows = u[[0, 1, 2, *(cell - 1 for cell in cells)]]
        return float(np.einsum("ij,jk,ik->i", u, np.linalg.inv(rows.T @ rows), u).mean())

    best = min(
        variance(cells)
        for size in range(8)
        for cells in itertools.combinations(costs, size)
        if sum(costs[cell] for cell in cells) <= 7
    )
    assert variance(tuple(run.cell for run in told.runs)) <= best * 1.02
    assert told.cost <= 7


def test_what_costs_more_must_tell_more() -> None:
    frame = cells_of([10, 11, 12, 6, 16])
    assert [run.cell for run in chosen(frame, 3, 1.0, costs={4: 1.0, 5: 1.0}).runs]
    cheap = chosen(frame, 3, 10.0, costs={4: 9.0, 5: 2.0})
    assert [run.cell for run in cheap.runs] == [5]
    assert chosen(frame, 3, 11.0, costs={4: 9.0, 5: 2.0}).cost == 11


def test_seeds_help_against_noise_but_not_against_scatter_between_cells() -> None:
    """Measured values: cells that lie off the line by more than the noise between their seeds."""
    base = cells_of([8, 9, 10, 11, 12, 13])
    twice = pd.concat([base, base.assign(cell=base["cell"] + 6, seed=1)], ignore_index=True)
    twice["task"] = [f"t{i}" for i in range(12)]
    new = cells_of([14.0]).assign(cell=19, task="t19", p=99)
    seeds = base.assign(cell=base["cell"] + 12, seed=2, task=[f"s{i}" for i in range(6)])
    frame = pd.concat([twice, seeds, new], ignore_index=True)
    costs = {cell: (1.0 if cell < 19 else 3.0) for cell in range(13, 20)}
    found = {}
    for name, between in (("noise", 0.0), ("scatter", 1.0)):
        off = between * np.asarray([1, -1, 1, 1, -1, 1] * 2)
        values = 20 + np.log2(twice["E"]) + off + np.repeat([0.2, -0.2], 6)
        found[name] = suggest(
            "law", LINE, frame, 12, costs, 3.0, measured=twice.assign(value=values)
        )
    assert found["scatter"].scatter > 0.8 and found["noise"].scatter == 0
    assert found["scatter"].noise == pytest.approx(0.2 * math.sqrt(2))
    assert [run.cell for run in found["scatter"].runs] == [19]
    assert found["noise"].noise_source.startswith("between seeds")
    assert len(found["noise"].runs) == 3 and all(run.runs == 3 for run in found["noise"].runs)


def test_power_laws_are_measured_where_they_bend() -> None:
    """Their derivatives need parameters; the floor is seen at large x only."""
    rng = np.random.default_rng(2)
    frame = cells_of([*np.linspace(6, 13, 12), 6.5, 10.0, 17.0]).assign(metric="rfid")
    known = frame[frame["cell"] <= 12]
    law = 0.3 + 500 * known["E"].to_numpy(float) ** -0.9
    fit = Fit(metric="rfid", on="set", form="power")
    with pytest.raises(UsageError, match="depends on the law"):
        chosen(frame, 12, 1.0, fit=fit)
    told = chosen(
        frame,
        12,
        1.0,
        fit=fit,
        noise=None,
        measured=known.assign(value=law * np.exp(0.1 * rng.normal(size=12))),
    )
    assert [run.cell for run in told.runs] == [15]
    assert "no configuration has a second seed" in told.noise_source


def test_what_cannot_be_chosen_is_said() -> None:
    frame = cells_of([8, 9, 10, 11, 12, 14])
    with pytest.raises(UsageError, match=r"the least of them costs 1, and 0\.5 may be spent"):
        chosen(frame, 5, 0.5)
    with pytest.raises(UsageError, match="no valid cell beside those"):
        chosen(frame, 6, 5.0)
    with pytest.raises(UsageError, match=r"noise of fit 'law' is not known.*"):
        chosen(frame, 5, 5.0, noise=None)
    with pytest.raises(UsageError, match="is against rfid, which is measured itself"):
        chosen(frame, 5, 5.0, fit=Fit(metric="psnr", on="set", x="rfid", form="semilog"))


# --- what could be chosen ---------------------------------------------------------------------


def test_candidates_of_a_study(tmp_path: Path) -> None:
    study = load(tmp_path, SMALL)
    found = candidates(study, data=DATA, within={"c": (2, 32)})
    plan = make_plan(found.study, data=DATA)
    values = [(cell.axes["p"], cell.axes["c"]) for cell in plan.cells]
    assert found.own == 4 and values[:4] == [(4, 4), (4, 16), (8, 4), (8, 16)]
    # 6 does not divide 32 pixels.
    assert set(values) == {(p, c) for p in (4, 8) for c in (2, 3, 4, 6, 8, 12, 16, 24, 32)}
    own = make_plan(study, data=DATA)
    assert [cell.key for cell in own.cells] == [cell.key for cell in plan.cells[:4]]
    seeds = candidates(study, data=DATA, within={}, seeds=2)
    offered = make_plan(seeds.study, data=DATA).cells
    assert {cell.derived.seed for cell in offered} == {0, 1, 2}
    assert [cell.key for cell in offered[:4]] == [cell.key for cell in own.cells]
    for bad in ("q", "seed", "nothing"):
        with pytest.raises(UsageError, match=rf"--within {bad}: it is no numeric axis.*: p, c"):
            candidates(study, data=DATA, within={bad: (1, 2)})


def test_a_value_that_no_study_may_have_is_not_chosen_from(tmp_path: Path) -> None:
    found = candidates(load(tmp_path, SMALL), data=DATA, within={"c": (4, 100_000)})
    values = {cell.axes["c"] for cell in make_plan(found.study, data=DATA).cells}
    assert max(values) == 4096
    pasted = re.sub(
        r"(?m)^axes:\n(  .*\n)+",
        found.block(range(found.own + 1, len(found.study.grid.factors[0].rows) + 1)),
        SMALL,
    )
    assert {cell.axes["c"] for cell in plan_of(tmp_path / "pasted", pasted).cells} == values


def test_the_block_gives_exactly_these_cells(tmp_path: Path) -> None:
    text = SMALL.replace("  c: [4, 16]\n", "  c: [4, 16]\n  encoder: [pico, nano]\n")
    study = load(tmp_path, text)
    found = candidates(study, data=DATA, within={}, seeds=1)
    cells = make_plan(found.study, data=DATA).cells
    block = found.block([9, 15, 30])
    pasted = re.sub(r"(?m)^axes:\n(  .*\n)+", block, text)
    again = plan_of(tmp_path / "pasted", pasted).cells
    assert [cell.key for cell in again] == [
        *(cell.key for cell in cells[:8]),
        *(cells[i - 1].key for i in (9, 15, 30)),
    ]


# --- the command ------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["sweepctl", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command_suggests_and_its_block_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SMALL)
    asked = ["suggest", "study.yaml", "--flops", "2e10", "--noise", "0.3", "--within", "c=2..64"]
    assert command(monkeypatch, *asked, "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["unit"] == "FLOPs" and told["cost"] <= 2e10
    first = told["runs"][0]
    assert set(first["axes"]) == {"p", "c"} and first["slope_plus_minus"] < 100
    assert command(monkeypatch, *asked, "--yaml") == 0
    out, err = capfd.readouterr()
    assert "fit law, criterion V" in err and out.startswith("# in place of `axes:`")
    pasted = re.sub(r"(?m)^axes:\n(  .*\n)+", out, SMALL)
    plan = plan_of(tmp_path / "pasted", pasted)
    assert len(plan.cells) == 4 + len(told["runs"])
    assert dict(plan.cells[4].axes) == first["axes"]
    assert command(monkeypatch, *asked) == 0
    assert capfd.readouterr().out.startswith("p\tc\trun\tFLOPs\tslope_plus_minus")


@pytest.mark.parametrize("noise", ["1e-50", "1e50"])
@pytest.mark.parametrize("criterion", ["V", "D"])
def test_any_noise_that_may_be_stated_can_be_reckoned_with(
    noise: str,
    criterion: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SMALL)
    words = ["--flops", "2e10", "--noise", noise, "--criterion", criterion]
    assert command(monkeypatch, "suggest", "study.yaml", *words, "--json") == 0
    assert json.loads(capfd.readouterr().out)["runs"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "0.3"], "either --hours or --flops"),
        (["--hours", "1", "--noise", "0.3"], "say where they will run"),
        (["--flops", "1e9"], "the noise of fit 'law' is not known"),
        (["--flops", "1e9", "--criterion", "A"], "there is no criterion 'A'"),
        (["--flops", "1e9", "--noise", "inf"], "a number from 1e-50 to 1e+50, not inf"),
        (["--flops", "1e9", "--noise", "nan"], "a number from 1e-50 to 1e+50, not nan"),
        (["--flops", "1e9", "--noise", "1e200"], "a number from 1e-50 to 1e+50, not 1e+200"),
        (["--flops", "1e9", "--noise", "1e-200"], "a number from 1e-50 to 1e+50, not 1e-200"),
        (["--flops", "1e9", "--noise", "0"], "a number from 1e-50 to 1e+50, not 0"),
        (["--flops", "1e9", "--within", "c=4"], "--within takes AXIS=LOW..HIGH"),
        (["--flops", "1e9", "--fit", "x"], "there is no fit 'x'"),
        (["--flops", "1e9", "--yaml", "--json"], "mutually exclusive"),
    ],
)
def test_mistakes_are_explained(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SMALL)
    assert command(monkeypatch, "suggest", "study.yaml", *words) == 2
    assert message in capfd.readouterr().err


# --- whether it helps -------------------------------------------------------------------------


@pytest.mark.slow
def test_it_beats_chance_and_the_plain_grid_at_equal_cost(tmp_path: Path) -> None:
    """`bench/suggest.py`, smaller: 30 laws on the small study, noise new in every run."""
    study = load(tmp_path, SMALL)
    found = candidates(study, data=DATA, within={"c": (1, 64)})
    own, offered = make_plan(study, data=DATA), make_plan(found.study, data=DATA)
    rows = pd.DataFrame.from_records(design_rows(offered))
    rows = rows[rows["metric"] == "rfd_lite0"].reset_index(drop=True)
    costs = {
        cell.index: float(
            sum(
                offered.tasks[name].cost.flops
                for name in set(cell.tasks.values())
                if name not in own.tasks
            )
        )
        for cell in offered.cells
    }
    further = [cell for cell in costs if cell > found.own]
    budget = 4 * float(np.median([costs[cell] for cell in further]))
    grid = [cell for cell in rows.sort_values(["c", "p"])["cell"] if cell > found.own]
    fit = Fit(metric="rfd_lite0", on="photos-eval", form="loglog")
    octaves = np.log2(rows["E"].to_numpy(float))
    rng = np.random.default_rng(0)
    widths: dict[str, list[tuple[float, float]]] = {"suggest": [], "random": [], "grid": []}
    for _ in range(30):
        y = rng.uniform(0.4, 1.2) * (8 - octaves) + rng.uniform(0.05, 0.25) * rng.normal(
            size=len(octaves)
        )
        frame = rows.assign(value=np.exp2(y))
        known = frame[frame["cell"] <= found.own]
        told = suggest("law", fit, rows, found.own, costs, budget, measured=known)
        for name, order in (
            ("suggest", [run.cell for run in told.runs]),
            ("random", list(rng.permutation(further))),
            ("grid", grid),
        ):
            cells, spent = list(range(1, found.own + 1)), 0.0
            for cell in order:
                if spent + costs[cell] <= budget:
                    cells.append(cell)
                    spent += costs[cell]
            law = fit_law("law", frame[frame["cell"].isin(cells)], fit)
            assert law.slope is not None
            band = bands(law, rows["E"].to_numpy(float))
            half = float(np.mean(np.log2(band.mean_high / band.mean_low)))
            widths[name].append((law.slope.high - law.slope.low, half))
    medians = {name: np.median(np.asarray(found), axis=0) for name, found in widths.items()}
    for other in ("random", "grid"):
        assert (medians["suggest"] < 0.95 * medians[other]).all(), medians
