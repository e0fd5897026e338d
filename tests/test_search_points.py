"""Do the points of a search become the cells that the study means, each once?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_execute import Collected
from test_search import go, say

from studies import DATA, load
from sweepctl.errors import StudyError
from sweepctl.ledger import SearchRecord, TrialRecord, open_ledger
from sweepctl.plan import Cell, Plan, Trial, make_plan

HEAD = """\
format: 1
study: small
data: {train: photos-train, resolution: 16, images: 16}
tokenizer: {encoder: pico, decoder: pico, p: 8, c: 8}
stages:
  stage1: {steps: 2, batch: 4, precision: fp32, optimiser: {warmup: 0}, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [photos-eval], images: 8, metrics: [psnr]}
"""


def text_of(space: str, *changes: tuple[str, str], more: str = "", trials: int = 4) -> str:
    block = "".join(f"    {line}\n" for line in space.strip().splitlines())
    text = (
        f"{HEAD}search:\n  sampler: random\n  trials: {trials}\n  objectives: [{{metric: psnr}}]\n"
        f"  space:\n{block}{more}"
    )
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def problems(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(StudyError) as caught:
        make_plan(load(folder, text), data=DATA)
    return {one.place.split(":", 1)[1]: one.message for one in caught.value.problems}


def of_points(folder: Path, text: str, *points: Mapping[str, Any], **axes: Any) -> Plan:
    trials = [Trial(axes=axes.get("axes", {}), values=point) for point in points]
    return make_plan(load(folder, text), data=DATA, trials=trials)


def cell_of(folder: Path, text: str, *overrides: str) -> Cell:
    """The only cell of a grid."""
    (cell,) = make_plan(load(folder, text, *overrides), data=DATA).cells
    return cell


# --- a setting whose condition does not hold ------------------------------------------------------

PIXEL, SSIM, KL = "stages.stage1.loss.pixel", "stages.stage1.loss.ssim", "stages.stage1.loss.kl"
BOTTLENECK = "tokenizer.bottleneck"
STAGE2 = ("evaluate:", "  stage2: {steps: 4, batch: 4, loss: {lpips: 0}}\nevaluate:")
DIT = ("evaluate:", "  dit: {steps: 4, batch: 4, size: nano, class_dropout: 0}\nevaluate:")

# What is searched, what the study says, the point where the condition does not hold, how a study
# without a search says the same, and the column with the value that results then show.
UNSEARCHED = {
    "number, from the study": (
        "pixel: [l1, l2]\nssim: {low: 0.25, high: 1, if: {pixel: l2}}",
        [("lpips: 0", "lpips: 0, ssim: 0.7")],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"loss.ssim": 0.7},
    ),
    "number, the default": (
        "pixel: [l1, l2]\nssim: {low: 0.25, high: 1, if: {pixel: l2}}",
        [],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"loss.ssim": 0.0},
    ),
    "whole number": (
        "pixel: [l1, l2]\nstage1.steps: {low: 7, high: 9, if: {pixel: l2}}",
        [],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"steps": 2},
    ),
    "choice": (
        "pixel: [l1, l2]\nnorm: {choice: [rmsnorm, layernorm], if: {pixel: l2}}",
        [],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"norm": "layernorm"},
    ),
    "true or false": (
        "pixel: [l1, l2]\nstage1.flip: {choice: [true, false], if: {pixel: l2}}",
        [("precision", "flip: false, precision")],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"flip": False},
    ),
    "needed by every study": (
        "pixel: [l1, l2]\nc: {choice: [2, 4], if: {pixel: l2}}",
        [],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"c": 8},
    ),
    "condition on true or false": (
        "stage1.flip: [true, false]\nssim: {low: 0.25, high: 1, if: {stage1.flip: true}}",
        [("lpips: 0", "lpips: 0, ssim: 0.7")],
        {"stages.stage1.flip": False},
        ["stage1.flip=false"],
        {"loss.ssim": 0.7},
    ),
    "below another that is not searched": (
        "pixel: [l1, l2]\nnorm: {choice: [rmsnorm, layernorm], if: {pixel: l2}}\n"
        "ssim: {low: 0.25, high: 1, if: {norm: layernorm}}",
        [("lpips: 0", "lpips: 0, ssim: 0.7")],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"loss.ssim": 0.7, "norm": "layernorm"},
    ),
    "setting of stage 2": (
        "pixel: [l1, l2]\nstage2.optimiser.lr: {low: 1e-5, high: 1e-3, if: {pixel: l2}}",
        [STAGE2],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"stage2.optimiser.lr": 1e-4},
    ),
    "stage 2 as a whole": (
        "pixel: [l1, l2]\nstage2.steps: {low: 5, high: 9, if: {pixel: l2}}",
        [STAGE2],
        {PIXEL: "l1"},
        ["pixel=l1"],
        {"stage2.steps": 4},
    ),
    "DiT that needs another value": (
        "target: [eps, flow]\nlearn_sigma: {choice: [true, false], if: {target: eps}}",
        [DIT],
        {"stages.dit.target": "flow"},
        ["target=flow", "learn_sigma=false"],
        {"learn_sigma": False},
    ),
    "KL that the code has not": (
        "bottleneck: [kl, layernorm]\nkl: {low: 1e-6, high: 1e-2, log: true, if: {bottleneck: kl}}",
        [],
        {BOTTLENECK: "layernorm"},
        ["bottleneck=layernorm", "kl=0"],
        {"kl": 0.0},
    ),
    "KL that the study gives to the other code": (
        "bottleneck: [kl, layernorm]\nkl: {low: 1e-6, high: 1e-2, log: true, if: {bottleneck: kl}}",
        [("lpips: 0", "lpips: 0, kl: 1e-4")],
        {BOTTLENECK: "layernorm"},
        ["bottleneck=layernorm", "kl=0"],
        {"kl": 0.0},
    ),
    "noise that the code has not": (
        "bottleneck: [noise, kl]\nnoise_std: {low: 0.1, high: 1, if: {bottleneck: noise}}",
        [("c: 8", "c: 8, noise_std: 0.5")],
        {BOTTLENECK: "kl"},
        ["bottleneck=kl", "noise_std=null"],
        {"noise_std": None},
    ),
    "rate that a constant schedule has not": (
        "schedule: [cosine, constant]\nfinal_lr: {low: 1e-6, high: 1e-4, if: {schedule: cosine}}",
        [("warmup: 0", "warmup: 0, final_lr: 5e-5")],
        {"stages.stage1.optimiser.schedule": "constant"},
        ["schedule=constant", "final_lr=1e-5"],
        {"final_lr": 1e-5},
    ),
    "said by `when`": (
        "pixel: [l1, l2]\nssim: {low: 0.25, high: 1, if: {pixel: l2}}",
        [("lpips: 0", "lpips: 0, ssim: 0.7")],
        {PIXEL: "l1"},
        ["pixel=l1", "ssim=0.1"],
        {"loss.ssim": 0.1},
    ),
}


@pytest.mark.parametrize("case", UNSEARCHED)
def test_where_a_condition_does_not_hold_the_cell_is_that_of_the_study(
    tmp_path: Path, case: str
) -> None:
    space, changes, point, said, shown = UNSEARCHED[case]
    when = "when: [{if: {pixel: l1}, set: {ssim: 0.1}}]\n" if "`when`" in case else ""
    text = text_of(space, *changes, more=when)
    plan = of_points(tmp_path, text, point)
    assert plan.dropped == ()
    (cell,) = plan.cells
    grid = HEAD
    for old, new in changes:
        grid = grid.replace(old, new)
    assert cell.key == cell_of(tmp_path, grid, *said).key
    assert {name: cell.axes[name] for name in shown} == shown


def test_a_setting_of_a_stage_that_a_trial_has_not_is_empty_as_in_a_grid(tmp_path: Path) -> None:
    space = (
        "stage2.steps: [null, 4]\nadversarial.weight: {low: 0.01, high: 1, if: {stage2.steps: 4}}"
    )
    text = text_of(space, ("evaluate:", "  stage2: {batch: 4, loss: {lpips: 0}}\nevaluate:"))
    off, on = "stages.stage2.steps", "stages.stage2.adversarial.weight"
    plan = of_points(tmp_path, text, {off: None}, {off: 4, on: 0.5})
    weights = [cell.axes["weight"] for cell in plan.cells]
    assert weights == [None, 0.5]


def test_a_setting_without_a_value_where_its_condition_does_not_hold(tmp_path: Path) -> None:
    text = text_of("pixel: [l1, l2]\nc: {choice: [2, 4], if: {pixel: l2}}", (", c: 8", ""))
    assert "c has no value where its condition does not hold" in problems(tmp_path, text)["15:25"]


def test_the_value_outside_of_the_search_is_checked(tmp_path: Path) -> None:
    space = "pixel: [l1, l2]\nencoder: {choice: [pico, nano], if: {pixel: l2}}"
    found = problems(tmp_path, text_of(space, ("encoder: pico, d", "encoder: pikko, d")))
    assert "did you mean 'pico'" in found["4:22"]
    found = problems(tmp_path, text_of(space.replace("nano", "nanno")))
    assert "did you mean 'nano'" in found["15:30"]


def test_a_condition_on_an_axis_says_what_to_write(tmp_path: Path) -> None:
    text = text_of(
        "ssim: {low: 0.25, high: 1, if: {pixel: l2}}",
        ("search:", "axes: {pixel: [l1, l2]}\nsearch:"),
    )
    (said,) = problems(tmp_path, text).values()
    assert "search pixel as well, or write a study for each of its values" in said


CONDITIONAL = text_of(
    "pixel: [l1, l2]\nssim: {low: 0.25, high: 1, if: {pixel: l2}}",
    ("lpips: 0", "lpips: 0, ssim: 0.7"),
    trials=3,
)


def test_every_table_shows_the_value_that_a_trial_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_ledger("results.db") as ledger:
        go(tmp_path, CONDITIONAL, ledger)
        trials = ledger.searches.trials("small")
        off = [trial for trial in trials if trial.point[PIXEL] == "l1"]
        assert off and all(trial.point[SSIM] == 0.7 for trial in off)
        for trial in off:
            assert (
                ledger.cells.config("small", trial.cell)["stages"]["stage1"]["loss"]["ssim"] == 0.7
            )
        again = go(tmp_path, CONDITIONAL, ledger)
        assert again.finished == 0 and len(ledger.searches.trials("small")) == len(trials)
    for words in (("results", "small"), ("search", "small", "--trials")):
        code, out, _ = say(*words, "--format", "json", monkeypatch=monkeypatch, capsys=capsys)
        shown = [row["loss.ssim"] for row in json.loads(out) if row["pixel"] == "l1"]
        assert code == 0 and set(shown) == {0.7}
    code, out, _ = say(
        *("query", "-f", "json", "select point from v_trial"),
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    points = [row["point"] for row in json.loads(out)]
    points = [json.loads(one) if isinstance(one, str) else one for one in points]
    assert {one[SSIM] for one in points if one[PIXEL] == "l1"} == {0.7}


def test_trials_of_stand_ins_are_made_again_and_said_so(tmp_path: Path) -> None:
    from sweepctl.execute._searching import _identities
    from sweepctl.plan import canonical, fingerprint

    study = load(tmp_path, CONDITIONAL)
    shown = make_plan(study, data=DATA)
    assert study.search is not None
    (identity,) = _identities(shown, study.search)
    assert identity.pop("unsearched") == {SSIM: 0.7}
    former = fingerprint(canonical(identity))
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        go(tmp_path, CONDITIONAL.replace("trials: 3", "trials: 1"), ledger)
        ledger.searches.begin("small", [SearchRecord(key=former, position=0, axes={})])
        ledger.searches.add_trial(
            of_points(tmp_path, CONDITIONAL), TrialRecord(search=former, number=0, point={})
        )
        watcher = Collected()
        # The study's own value decides what is trained, so another one is another search.
        other = CONDITIONAL.replace("ssim: 0.7", "ssim: 0.6")
        go(tmp_path, other, ledger, watcher)
        assert [said for said in watcher.notices if "an earlier version made 1 trials" in said]
        assert "loss.ssim 0.6" in watcher.notices[0]
        watcher = Collected()
        go(tmp_path, other, ledger, watcher)
        assert not [said for said in watcher.notices if "an earlier version" in said]
