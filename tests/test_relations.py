"""Are outliers, hold-outs, comparisons, correlations and frontiers what they say they are?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sweepctl.analyse import (
    FitResult,
    bands,
    correlate,
    fit_table,
    front,
    frontier,
    hold_out,
    left_out,
    outlier_cells,
    refitted,
    surface,
)
from sweepctl.claims import fit_study
from sweepctl.design import predict_cells
from sweepctl.errors import UsageError
from sweepctl.paper import compared_with_paper, paper_frame, paper_study
from sweepctl.study import Comparison, Fit


def law(y: Any, x: Any, form: str = "loglog", **more: Any) -> FitResult:
    columns = {"E": list(x), "loss": list(y)} | more.pop("columns", {})
    stated = {"metric": "loss", "on": "t", "x": "E", "form": form} | more
    return fit_table(columns, Fit.model_validate(stated))


def frame(metrics: dict[str, list[float]], **settings: list[Any]) -> pd.DataFrame:
    """Cells with their settings and metrics, all on one data set."""
    rows = []
    for metric, values in metrics.items():
        for cell, value in enumerate(values, start=1):
            row = {"cell": cell, "task": f"{metric}{cell}", "metric": metric, "value": value}
            row |= {"dataset": "photos", "protocol": "lite0", "n": 64, "seed": 0}
            rows.append(row | {name: column[cell - 1] for name, column in settings.items()})
    return pd.DataFrame(rows)


X = 2.0 ** np.arange(6, 15)


# --------------------------------------------------------------------------------------- outliers


@pytest.mark.parametrize(
    "more",
    [
        {"form": "loglog"},
        {"form": "quadratic", "scale": "log2"},
        {"form": "power"},
        {"form": "loglog", "factors": ["p"], "columns": {"p": [8, 16, 32] * 3}},
    ],
    ids=lambda more: more["form"],
)
def test_left_out_is_what_the_law_without_the_point_says(more: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    fit = law((0.5 + 40 * X**-0.6) * 2 ** (0.15 * rng.normal(size=9)), X, **more)
    checked = 0
    for one in left_out(fit):
        if fit.form == "power" and one.p >= 0.5:
            continue  # the tangent's answer: nothing is suspicious there
        others = [point for point in fit.points if point is not one.point]
        rest = refitted(fit, others)
        at = {name: one.point.settings[name] for name in rest.factors}
        band = bands(rest, [one.point.x], at)
        low, high = one.interval()
        said = (2**one.predicted, 2**low, 2**high)
        expected = (band.mean[0], band.low[0], band.high[0])
        assert said == pytest.approx([float(value) for value in expected], rel=1e-9)
        checked += 1
    assert checked or fit.form == "power"


def test_a_broken_run_is_an_outlier_of_the_law_of_the_others() -> None:
    rng = np.random.default_rng(1)
    for form, floor in (("loglog", 0.0), ("power", 0.3)):
        y = (floor + 40 * X**-0.6) * 2 ** (0.05 * rng.normal(size=9))
        sound = law(y, X, form)
        assert "outlier" not in [warning.code for warning in sound.warnings]
        y[4] *= 1.9
        broken = law(y, X, form)
        (said,) = [w.message for w in broken.warnings if w.code == "outlier"]
        assert "x = 1024 (row 5)" in said and "after 9 looks" in said
        assert outlier_cells([broken]) == {5: ("law",)}


def test_nothing_is_left_out_where_nothing_would_be_left() -> None:
    assert left_out(law([9.0, 5.0, 2.4], X[:3])) == ()  # one degree of freedom
    assert left_out(law(3 * X**-0.5, X)) == ()  # through every point
    assert left_out(law([1.0] * 8 + [0.0], X)) == ()  # not fitted


@pytest.mark.slow
def test_one_sound_sweep_in_twenty_has_an_outlier() -> None:
    rng = np.random.default_rng(0)
    template = law(40 * X**-0.6 * 2 ** rng.normal(size=9), X)
    from dataclasses import replace

    some = 0
    for _ in range(800):
        ys = -0.6 * np.log2(X) + rng.normal(size=9)
        points = [replace(p, y=float(y)) for p, y in zip(template.points, ys, strict=True)]
        some += any(one.is_outlier for one in left_out(refitted(template, points)))
    # Bonferroni is slightly careful; three standard errors of a share of 0.05 are 0.023.
    assert 0.025 < some / 800 < 0.074


# ---------------------------------------------------------------------------------------- hold-out


def test_a_hold_out_predicts_the_largest_x_from_the_rest() -> None:
    rng = np.random.default_rng(0)
    fit = law(40 * X**-0.6 * 2 ** (0.1 * rng.normal(size=9)), X)
    test = hold_out(fit)
    assert test.cut == ">= 4096" and len(test.held) == 3 and test.rest.n == 6
    errors = [math.log2(one.measured / one.predicted) for one in test.held]
    assert test.rms == pytest.approx(math.sqrt(np.mean(np.square(errors))))
    assert test.bias == pytest.approx(np.mean(errors))
    assert all(one.low < one.predicted < one.high for one in test.held)
    stated = hold_out(fit, Comparison(operator="<", value=100))
    assert [one.point.x for one in stated.held] == [64] and stated.cut == "< 100"
    assert (
        "no configuration has E > 99999"
        in hold_out(fit, Comparison(operator=">", value=99999)).reason
    )
    assert "there is no law" in hold_out(fit, Comparison(operator=">", value=100)).reason


# ------------------------------------------------------------------------------------ the paper


def test_ones_own_points_stand_beside_the_papers_law_where_it_has_points() -> None:
    E = [64, 1024, 4096]
    mine = frame({"psnr": [20.0, 24.0, 29.0]}, E=E, resolution=[256] * 3, frames=[1] * 3)
    fits = {"law": Fit(metric="psnr", on="photos", form="semilog")}
    (beside,) = compared_with_paper(fit_study(mine, fits, ()).fits)
    assert (beside.paper, beside.law.on) == ("paper/figure-3", "ImageNet-1K val")
    study = paper_study("figure-3")
    theirs = fit_study(paper_frame(study), {"psnr": study.fits["psnr-imagenet"]}, ()).fits[0]
    below, inside, other = beside.rows
    assert below.paper is None and below.distance is None  # the paper has nothing below E = 256
    assert inside.paper == pytest.approx(float(bands(theirs, [1024]).mean[0]))
    assert inside.distance == pytest.approx(24.0 - (inside.paper or 0))
    assert other.paper_low is not None and other.paper_low < (other.paper or 0)
    distances = frame({"rfid": [20.0, 9.0, 2.0]}, E=E, resolution=[256] * 3)
    fits = {"law": Fit(metric="rfid", on="photos", form="loglog")}
    (ratio,) = compared_with_paper(fit_study(distances, fits, ()).fits, "figure-3")
    assert ratio.scale == "log2"
    assert ratio.rows[1].distance == pytest.approx(9.0 / (ratio.rows[1].paper or 0))
    unknown = frame({"rfd_lite0": [20.0, 9.0, 2.0]}, E=E)
    fits = {"law": Fit(metric="rfd_lite0", on="photos", form="loglog")}
    assert compared_with_paper(fit_study(unknown, fits, ()).fits) == ()
    with pytest.raises(UsageError, match="figure-99"):
        compared_with_paper((), "figure-99")


def test_the_nearest_figure_of_the_paper_is_taken() -> None:
    def nearest(on: str, **settings: list[Any]) -> tuple[str, str]:
        mine = frame({"psnr": [20.0, 24.0, 29.0]}, E=[512, 1024, 4096], **settings)
        mine["dataset"] = on
        fits = {"law": Fit(metric="psnr", on=on, form="semilog")}
        (found,) = compared_with_paper(fit_study(mine, fits, ()).fits)
        return found.paper, found.law.on

    assert nearest("COCO-2017 val", resolution=[256] * 3) == ("paper/figure-3", "COCO-2017 val")
    assert nearest("x", resolution=[512] * 3)[0] == "paper/figure-12"
    assert nearest("clips", resolution=[128] * 3, frames=[16] * 3)[0] == "paper/figure-10"


# ------------------------------------------------------------------------------------ correlations


def test_correlations_are_of_goodness_and_agree_with_scipy() -> None:
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    gfid = (2.0 ** rng.normal(3, 1, 14)).tolist()
    psnr = [30 - math.log2(value) + rng.normal() for value in gfid]
    rfid = [value * 2 ** rng.normal(0, 0.2) for value in gfid]
    found = correlate(frame({"gfid": gfid, "psnr": psnr, "rfid": rfid}, p=list(range(14))), "gfid")
    assert [one.metric for one in found] == ["rfid", "psnr"]  # the closest first
    by = {one.metric: one for one in found}
    for name, values, sign in (("rfid", np.log2(rfid), -1.0), ("psnr", np.asarray(psnr), 1.0)):
        one = by[name]
        assert one.spearman is not None and one.pearson is not None and one.n == 14
        good = -np.log2(gfid)
        assert one.pearson.value == pytest.approx(pearsonr(good, sign * values).statistic)
        assert one.spearman.value == pytest.approx(spearmanr(good, sign * values).statistic)
        for part in (one.spearman, one.pearson):
            assert -1 <= part.low < part.value < part.high <= 1 and part.method == "bca"


def test_correlations_without_enough_points_say_so_and_perfect_ones_have_an_interval() -> None:
    settings: dict[str, list[Any]] = {"p": [1, 2, 3, 4, 5, 6]}
    gfid = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    measured = frame({"gfid": gfid, "psnr": [6.0, 5, 4, 3, 2, 1.5], "ssim": [0.5] * 6}, **settings)
    by = {one.metric: one for one in correlate(measured, "gfid")}
    perfect = by["psnr"].spearman
    assert perfect is not None and perfect.value == pytest.approx(1) and perfect.method == "fisher"
    assert perfect.low < 1
    assert "needs 5 that differ" in by["ssim"].reason
    # Cells without the dear metric yet are left out, not refused.
    unfinished = measured[(measured["metric"] != "gfid") | (measured["cell"] < 6)]
    assert {one.n for one in correlate(unfinished, "gfid")} == {5}
    with pytest.raises(UsageError, match="no 'rfid' was measured"):
        correlate(measured, "rfid")
    with pytest.raises(UsageError, match="not measured on 'clips'"):
        correlate(measured, "gfid", "clips")


@pytest.mark.slow
def test_the_bootstrap_of_a_correlation_covers() -> None:
    rng = np.random.default_rng(0)
    inside = {"pearson": 0, "spearman": 0}
    truth = {"pearson": 0.7, "spearman": 6 / math.pi * math.asin(0.35)}
    for _ in range(100):
        a = rng.normal(size=20)
        b = 0.7 * a + math.sqrt(1 - 0.49) * rng.normal(size=20)
        both = frame({"psnr": (30 + a).tolist(), "gis": b.tolist()}, p=list(range(20)))
        (found,) = correlate(both, "gis")
        for name, value in truth.items():
            part = getattr(found, name)
            inside[name] += part.low <= value <= part.high
    # 250 draws gave 0.952 and 0.968; the standard error of a share of 0.95 in 100 is 0.022.
    assert min(inside.values()) / 100 > 0.88


def test_one_tokenizer_with_several_guidance_scales_counts_each_of_them() -> None:
    study = paper_study("figure-4")
    both = pd.concat([paper_frame(paper_study("figure-3")), paper_frame(study)])
    by = {(one.metric, one.on): one for one in correlate(both, "gfid")}
    rfid = by["rfid", "ImageNet-1K val"]
    assert rfid.n == 28 and rfid.spearman is not None  # 14 tokenizers at two scales
    assert rfid.points[0].x == min(point.x for point in rfid.points)


def test_a_tokenizer_that_samples_share_goes_with_each_of_their_scales() -> None:
    """One's own study with an axis of generation: a reconstruction has both scales joined."""
    rfid, cfg = [8.0, 8.0, 4.0, 4.0, 2.0, 2.0], [1.0, 2.0] * 3
    gfid = [3 * value / scale for value, scale in zip(rfid, cfg, strict=True)]
    both = frame({"rfid": rfid, "gfid": gfid}, c=[4, 4, 8, 8, 16, 16], cfg=cfg)
    shared = (both["metric"] == "rfid") & (both["cell"] % 2 == 0)
    both.loc[shared, "task"] = [f"rfid{cell - 1}" for cell in both["cell"][shared]]
    (one,) = correlate(both, "rfid")
    assert one.n == 6 and one.spearman is not None and one.spearman.value > 0.5
    assert [point.x for point in one.points] == sorted(rfid)


# ---------------------------------------------------------------------------- fronts and surfaces


def test_the_front_is_what_none_beats() -> None:
    psnr, rfid = [20.0, 25.0, 24.0, 30.0, 19.0], [1.0, 2.0, 3.0, 8.0, 2.0]
    found = front(frame({"psnr": psnr, "rfid": rfid}, p=list(range(5))), "psnr", "photos", "rfid",
                  "photos")  # fmt: skip
    assert [found.points[i].cells[0] for i in found.members] == [1, 2, 4]


def test_the_frontier_of_a_cost_and_the_law_along_it() -> None:
    flops = [1e15, 2e15, 4e15, 8e15, 4e15, 8e15]
    rfid = [16.0, 8.0, 4.1, 2.0, 9.0, 5.0]
    measured = frame({"rfid": rfid}, p=list(range(6)), training_flops=flops)
    found = frontier(measured, "rfid")
    assert [found.points[i].x for i in found.members] == [1e15, 2e15, 4e15, 8e15]
    assert found.law is not None and found.law.slope is not None
    assert found.law.slope.estimate == pytest.approx(-1, abs=0.02)
    few = frontier(measured[measured["cell"] < 3], "rfid")
    assert few.law is None and "no law along the frontier" in few.reason and few.members
    with pytest.raises(UsageError, match="seconds"):
        frontier(measured, "rfid", cost="seconds")
    with pytest.raises(UsageError, match="'rfid' cannot explain itself"):
        frontier(measured, "rfid", cost="rfid")


def test_a_surface_is_the_law_of_two_variables() -> None:
    p, c = [4, 4, 4, 8, 8, 8, 16, 16, 16], [4, 16, 64] * 3
    rfid = [3.0 * a**2 / b for a, b in zip(p, c, strict=True)]
    found = surface(frame({"rfid": rfid}, p=p, c=c), "rfid", ("p", "c"))
    assert found.values.shape == (len(found.y), len(found.x)) == (81, 81)
    assert found.values == pytest.approx(3 * found.x[None] ** 2 / found.y[:, None])
    tied = frame({"rfid": rfid}, p=p, c=[4 * value for value in p], steps=list(range(9)))
    with pytest.raises(UsageError, match="collinear"):
        surface(tied, "rfid", ("p", "c"))
    with pytest.raises(UsageError, match="'rfid' cannot explain itself"):
        surface(tied, "rfid", ("p", "rfid"))


# ------------------------------------------------------------------------------------- predictions


def test_unfinished_cells_are_predicted_with_the_interval_of_one_run() -> None:
    rng = np.random.default_rng(0)
    E, p = [64, 128, 256, 512, 1024, 2048], [4, 8] * 3
    psnr = [10 + 1.6 * math.log2(e) + 0.3 * rng.normal() for e in E]
    measured = frame({"psnr": psnr, "rfd_lite0": [9.0] * 6}, E=E, p=p)
    stated = {
        "law": {"form": "semilog"},
        "p4": {"form": "semilog", "where": {"p": 4}},
        "each": {"form": "semilog", "factors": ["p"]},
        "other": {"form": "linear", "x": "rfd_lite0"},
    }
    fits = {
        name: Fit.model_validate({"metric": "psnr", "on": "photos", **law})
        for name, law in stated.items()
    }
    made = fit_study(measured, fits, ()).fits
    cells = [{"cell": 7, "E": 4096, "p": 8}, {"cell": 8, "E": 300, "p": 16}]
    found = {(one.cell, one.fit): one for one in predict_cells(made, cells)}
    assert set(found) == {(7, "law"), (8, "law"), (7, "each")}
    one = found[7, "law"]
    band = bands(made[0], [4096])
    assert (one.value, one.low, one.high) == (band.mean[0], band.low[0], band.high[0])
    assert one.outside and not found[8, "law"].outside
