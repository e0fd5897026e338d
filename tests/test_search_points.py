"""Do the points of a search become the cells that the study means, each once?"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_execute import Collected
from test_search import _Dies, go, say

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


def test_what_is_measured_is_not_searched(tmp_path: Path) -> None:
    space = "c: [4, 8]\nevaluate.reconstruction.metrics: [[psnr], [ssim]]"
    found = problems(tmp_path, text_of(space))
    assert found == {
        "15:5": "a search needs the same numbers of every cell; this cannot be searched"
    }


def test_a_setting_without_a_value_where_its_condition_does_not_hold(tmp_path: Path) -> None:
    text = text_of("pixel: [l1, l2]\nc: {choice: [2, 4], if: {pixel: l2}}", (", c: 8", ""))
    assert "c has no value where its condition does not hold" in problems(tmp_path, text)["15:25"]


def test_the_value_outside_of_the_search_is_checked(tmp_path: Path) -> None:
    space = "pixel: [l1, l2]\nencoder: {choice: [pico, nano], if: {pixel: l2}}"
    found = problems(tmp_path, text_of(space, ("encoder: pico, d", "encoder: pikko, d")))
    assert "did you mean 'pico'" in found["4:22"]
    found = problems(tmp_path, text_of(space.replace("nano", "nanno")))
    assert "did you mean 'nano'" in found["15:30"]


AXIS = text_of(
    "kl: {low: 1e-6, high: 1e-2, log: true, if: {bottleneck: kl}}",
    ("search:", "axes: {bottleneck: [kl, layernorm]}\nsearch:"),
    trials=3,
)


def test_a_condition_on_an_axis_holds_in_some_cells_of_the_grid(tmp_path: Path) -> None:
    shown = make_plan(load(tmp_path, AXIS), data=DATA)
    assert [cell.axes["kl"] for cell in shown.cells] == [1e-4, 0.0]
    plan = of_points(tmp_path, AXIS, {KL: 1e-3}, axes={BOTTLENECK: "layernorm"})
    assert plan.cells[0].key == cell_of(tmp_path, HEAD, "bottleneck=layernorm", "kl=0").key
    trials, said = ran(tmp_path, AXIS)
    assert [trial.point[KL] for trial in trials if trial.point[KL] == 0] == [0.0]
    assert len(trials) == 4
    ends = "ends after 1 trial: the space has 1 possible point, and each was tried"
    assert f"the search at bottleneck layernorm {ends}" in said
    found = problems(tmp_path, AXIS.replace("if: {bottleneck: kl}", "if: {bottleneck: noise}"))
    assert "'noise' is not one of the values of the axis" in next(iter(found.values()))


def test_a_point_to_start_with_where_a_condition_on_an_axis_does_not_hold(tmp_path: Path) -> None:
    text = AXIS.replace("  space:", "  start_with: [{kl: 1e-3}]\n  space:")
    trials, _ = ran(tmp_path, text)
    first = [trial.point[KL] for trial in trials if trial.number == 0]
    assert sorted(first) == [0.0, 1e-3]


def test_a_grid_of_settings_with_conditions(tmp_path: Path) -> None:
    space = "pixel: [l1, l2]\nssim: {choice: [0.1, 0.2], if: {pixel: l2}}"
    trials, said = ran(tmp_path, text_of(space, ("random", "grid"), trials=6))
    assert [(trial.point[PIXEL], trial.point[SSIM]) for trial in trials] == [
        ("l1", 0.0),
        ("l2", 0.1),
        ("l2", 0.2),
    ]
    assert any("ends after 3 trials" in one for one in said)


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
    from sweepctl.execute._identity import identities
    from sweepctl.plan import canonical, fingerprint

    study = load(tmp_path, CONDITIONAL)
    shown = make_plan(study, data=DATA)
    assert study.search is not None
    (identity,) = identities(shown, study.search)
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


# --- points that are not possible, and points again -----------------------------------------------


def check(file: Path, text: str, **how: Any) -> tuple[int, str]:
    file.write_text(text)
    code, out, err = say("check", str(file), **how)
    return code, out + err


@pytest.mark.parametrize(
    ("space", "more", "said"),
    [
        ("p: {low: 4, high: 12}", "", ["2 of the 9 points of the space are possible", "after 2"]),
        ("c: [4, 8, 16, 64]", "exclude: [{E: '> 40'}]\n", ["2 of the 4 points", "(2)", "after 2"]),
        # The one in the middle, or the first of a list, may be one that is not possible.
        ("c: [64, 16, 8, 4]", "exclude: [{E: '> 40'}]\n", ["2 of the 4 points", "after 2"]),
        ("c: {low: 4, high: 64, log: true, step: 4}", "", ["all 16 points of the space"]),
        ("c: {low: 4, high: 6, log: true}", "", ["all 3 points", "ends after 3"]),
        ("pixel: [l1, l2]\nssim: {choice: [0.1, 0.2], if: {pixel: l2}}", "", ["all 3 points"]),
        # 0.0 is what the study has where the condition does not hold, and one of the choices.
        (
            "stage2.steps: [null, 4]\nadversarial.weight: [0.01, 0.1, 1]",
            "",
            ["all 4 points", "the same cell as another point (2)"],
        ),
        ("lr: {low: 1e-7, high: 1e-2, log: true}\np: [4, 5]", "", []),
        ("kl: {low: 1, high: 1e9, step: 1}", "", ["more than 5,000 points"]),
    ],
)
def test_check_counts_the_possible_points(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    space: str,
    more: str,
    said: list[str],
) -> None:
    text = text_of(space, more=more, trials=6)
    if "stage2" in space:
        text = text.replace("evaluate:", "  stage2: {batch: 4, loss: {lpips: 0}}\nevaluate:")
        said = ["4 of the 6 points", *said[1:]]
    code, out = check(tmp_path / "a.yaml", text, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, out
    for one in said:
        assert one in out
    if not said:
        assert "points of the space" not in out


@pytest.mark.parametrize(
    ("space", "more", "place", "said"),
    [
        ("c: [16, 8, 4]", "exclude: [{E: '> 1'}]\n", "15:1", "no point of the search is possible"),
        ("p: [5, 6]", "", "14:9", "does not divide the resolution 16"),
        (
            "lr: {low: 1e-5, high: 1e-2}\nc: [16, 8]",
            "exclude: [{E: '> 1'}]\n",
            "16:1",
            "no point of the search is possible",
        ),
    ],
)
def test_a_search_without_a_possible_point_is_a_mistake(
    tmp_path: Path, space: str, more: str, place: str, said: str
) -> None:
    found = problems(tmp_path, text_of(space, more=more))
    assert said in found[place]


def test_a_point_to_start_with_that_is_not_possible_has_its_place(tmp_path: Path) -> None:
    text = text_of("p: [4, 5, 8]").replace(
        "  space:", "  start_with:\n    - {p: 8}\n    - {p: 5}\n  space:"
    )
    assert "this point is not possible: p = 5 does not divide" in problems(tmp_path, text)["15:7"]
    # In another cell of the grid it may be.
    text = text.replace("search:", "axes: {resolution: [16, 20]}\nsearch:")
    assert len(make_plan(load(tmp_path, text), data=DATA).cells) == 2


def ran(folder: Path, text: str, **changes: Any) -> tuple[list[TrialRecord], list[str]]:
    """The trials of a study that was run, and what was said of it."""
    watcher = Collected()
    with open_ledger(str(folder / "results.db")) as ledger:
        go(folder, text, ledger, watcher, **changes)
        return ledger.searches.trials("small"), list(watcher.notices)


@pytest.mark.parametrize(
    "sampler",
    ["random", "grid", *(pytest.param(s, marks=pytest.mark.slow) for s in ("tpe", "qmc"))],
)
def test_a_search_of_few_points_ends_when_each_was_tried(tmp_path: Path, sampler: str) -> None:
    text = text_of("p: {low: 4, high: 12}", ("random", sampler), trials=6)
    trials, said = ran(tmp_path, text)
    assert {trial.point["tokenizer.p"] for trial in trials if trial.cell} == {4, 8}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    ends = "the search ends after 2 trials: the space has 2 possible points, and each was tried"
    assert ends in said
    assert ran(tmp_path, text)[0] == trials


def test_points_that_make_no_new_cell_do_not_count(tmp_path: Path) -> None:
    space = "p: {low: 1, high: 16}\nc: [4, 5, 6]"
    trials, said = ran(tmp_path, text_of(space, trials=12))
    cells = [trial.cell for trial in trials if trial.cell]
    assert len(set(cells)) == 12 < len(trials)
    assert not [one for one in said if "ends after" in one]
    # Of 15 possible points the last ones are found although most are not possible.
    trials, said = ran(tmp_path, text_of(space, trials=40))
    assert len({trial.cell for trial in trials if trial.cell}) == 15
    assert any("ends after 15 trials: the space has 15 possible points" in one for one in said)


@pytest.mark.slow  # the driver is begun six times
def test_a_search_that_dies_asks_the_same_points_again(tmp_path: Path) -> None:
    few = "exclude: [{c: '> 10'}]\n"
    text = text_of("p: {low: 1, high: 16}\nc: {low: 4, high: 40}", more=few, trials=6)
    whole, _ = ran(tmp_path, text)
    runs = [not one.cell for one in whole]
    assert any(all(runs[at : at + 5]) for at in range(len(runs)))  # five in a row were in vain
    draw, torn = random.Random(5), tmp_path / "torn"
    torn.mkdir()
    for _ in range(4):
        with (
            contextlib.suppress(KeyboardInterrupt),
            open_ledger(str(torn / "results.db")) as ledger,
        ):
            go(torn, text, ledger, _Dies(draw.randint(1, 20)))
    assert [one.point for one in ran(torn, text)[0]] == [one.point for one in whole]


def test_a_search_with_rungs_ranks_each_cell_once(tmp_path: Path) -> None:
    text = (
        text_of("c: [4, 8, 16]", trials=9)
        .replace("steps: 2", "steps: 90")
        .replace("  space:", "  prune: {factor: 3, rungs: 2}\n  space:")
    )
    trials, said = ran(tmp_path, text)
    assert len({trial.cell for trial in trials}) == 3
    whole = [trial for trial in trials if trial.until is None]
    assert len({trial.cell for trial in whole}) == 1
    assert any("3 possible points" in one for one in said)


def test_seeds_on_an_axis_have_a_search_each(tmp_path: Path) -> None:
    text = text_of("c: [4, 8]", ("search:", "axes: {seed: [0, 1]}\nsearch:"), trials=6)
    trials, said = ran(tmp_path, text)
    assert len({trial.cell for trial in trials}) == 4
    assert [one.partition(":")[0] for one in said if "ends after" in one] == [
        "the search at seed 0 ends after 2 trials",
        "the search at seed 1 ends after 2 trials",
    ]


# --- a value to stop at ---------------------------------------------------------------------------


def test_a_search_stops_at_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = text_of("lr: {low: 1e-4, high: 1e-2}", trials=8)
    ran(tmp_path, text)
    with open_ledger("results.db") as ledger:
        values = [row[0] for row in ledger.query("select psnr from v_cell order by cell").rows]
    best = max(range(8), key=lambda number: values[number])
    after = max(1, best)
    stop = sorted(values[: after + 1])[-1]
    first = next(number for number, value in enumerate(values) if value >= stop)
    stopped = text.replace("  space:", f"  stop: {{value: {stop!r}}}\n  space:")
    other = stopped.replace("study: small", "study: other")
    watcher = Collected()
    with open_ledger("results.db") as ledger:
        go(tmp_path, other, ledger, watcher)
        assert len(ledger.searches.trials("other")) == first + 1
        go(tmp_path, other, ledger, Collected())
        assert len(ledger.searches.trials("other")) == first + 1
    assert any(f"trial {first} reached the value to stop at" in one for one in watcher.notices)
    how: Any = {"monkeypatch": monkeypatch, "capsys": capsys}
    code, _, err = say("status", "other", **how)
    assert code == 0 and f"{first + 1} of 8 trials; value to stop at: psnr" in err
    assert f"reached by trial {first}" in err
    code, out, _ = say("search", "other", "--figures", "none", "--json", **how)
    (found,) = json.loads(out)["searches"]
    assert (found["stop_value"], found["reached_by"]) == (stop, first)


def test_the_direction_of_a_value_to_stop_at_is_that_of_the_metric(tmp_path: Path) -> None:
    from sweepctl.search import Ended

    for direction, reached in (
        ("maximize", [False, True, True]),
        ("minimize", [True, True, False]),
    ):
        text = text_of("lr: {low: 1e-4, high: 1e-2}").replace(
            "{metric: psnr}", f"{{metric: psnr, direction: {direction}}}"
        )
        search = load(tmp_path, text.replace("  space:", "  stop: {value: 30}\n  space:")).search
        assert search is not None
        outcomes = [Ended(values=(value,)).reaches(search) for value in (29.0, 30.0, 31.0)]
        assert outcomes == reached
        assert not Ended(values=(30.0,), violations=(1.0,)).reaches(search)
        assert not Ended(values=None).reaches(search)


def test_a_value_to_stop_at_is_that_of_one_objective(tmp_path: Path) -> None:
    text = text_of(
        "lr: {low: 1e-4, high: 1e-2}",
        ("[{metric: psnr}]", "[{metric: psnr}, {metric: ssim}]"),
        ("metrics: [psnr]", "metrics: [psnr, ssim]"),
    ).replace("  space:", "  stop: {value: 30}\n  space:")
    assert "here are 2 (psnr, ssim)" in problems(tmp_path, text)["13:17"]
    empty = text.replace("{value: 30}", "{}")
    assert "give flat, hours or value" in problems(tmp_path, empty)["13:9"]


# --- steps of a logarithmic draw, and what other tools write --------------------------------------


def test_steps_on_a_logarithmic_scale(tmp_path: Path) -> None:
    from sweepctl.search import Asker, Past

    text = text_of(
        "c: {low: 4, high: 64, log: true, step: 4}\n"
        "stage1.optimiser.warmup: {low: 10, high: 500, log: true, step: 10}",
        trials=40,
    )
    search = load(tmp_path, text).search
    assert search is not None
    asker, past = Asker(search), []
    for _ in range(40):
        one = asker.ask()
        again = Asker(search, (), past).ask()  # as after a restart
        assert again.point == one.point
        past.append(Past(point=one.point, sampler=one.sampler))
    drawn = [one.point["tokenizer.c"] for one in past]
    assert all(type(value) is int and value % 4 == 0 and 4 <= value <= 64 for value in drawn)
    assert sum(value <= 16 for value in drawn) > 15  # half of the logarithmic scale, a fifth of it
    warmups = [one.point["stages.stage1.optimiser.warmup"] for one in past]
    assert all(value % 10 == 0 and 10 <= value <= 500 for value in warmups)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("lr: {mean: -3, std: 1}", "there is no normal distribution; give the ends"),
        ("lr: {distribution: log_normal, mu: 0, sigma: 1}", "there is no normal distribution"),
        ("c: {min: 4, max: 64}", "write low and high"),
        (
            "c: {distribution: q_log_uniform_values, min: 4, max: 64, q: 4}",
            "{low: 4, high: 64, log: true, step: 4}",
        ),
        ("c: {low: 4, high: 64, q: 4}", "{low: 4, high: 64, step: 4}"),
        ("c: {value: 4}", "one value is not searched: give 4 outside of the search"),
        ("c: {values: [4, 8]}", "a choice is written as a list: [4, 8]"),
        ("kl: {low: 0, high: 1, log: true}", "give a smallest value above 0, or leave log out"),
    ],
)
def test_what_another_tool_writes_is_answered_with_what_to_write(
    tmp_path: Path, space: str, said: str
) -> None:
    changes = [(", c: 8", "")] if space.startswith("c:") else []
    (message,) = problems(tmp_path, text_of(space, *changes)).values()
    assert said.replace("write low and high", "written with low and high") in message


# --- warm-up in steps, the last learning rate -----------------------------------------------------

WARMUP = "stages.stage1.optimiser.warmup"
LONG = ("steps: 2, batch: 4, precision: fp32, optimiser: {warmup: 0}", "steps: 900, batch: 4")


def test_warm_up_in_steps(tmp_path: Path) -> None:
    head = HEAD.replace(*LONG)
    plan = make_plan(load(tmp_path, f"{head}axes: {{warmup: [0, 0.1, 100, 900]}}\n"), data=DATA)
    assert [cell.axes["warmup"] for cell in plan.cells] == [0.0, 0.1, 100.0, 900.0]
    found = problems(tmp_path, f"{head}axes: {{warmup: [0, 901]}}\n")
    (said,) = found.values()
    assert said.startswith("warmup = 901 steps are more than the 900 steps of the training")
    found = problems(tmp_path, f"{head}axes: {{warmup: [0, 1.5]}}\n")
    assert "must be a share below 1, or a whole number, not 1.5" in found["9:20"]
    # Searched from 1 on it is whole; below it is a share.
    text = text_of("warmup: {low: 0, high: 500}", LONG)
    search = load(tmp_path, text).search
    assert search is not None and search.space[0].step == 1
    search = load(tmp_path, text.replace("high: 500", "high: 0.3")).search
    assert search is not None and search.space[0].step is None
    found = problems(tmp_path, text.replace("low: 0,", "low: 0.1,"))
    assert "high is 500 steps, so low is a whole number of them, too" in found["14:19"]


def test_the_last_learning_rate_follows_a_small_one(tmp_path: Path) -> None:
    def ends(text: str, *overrides: str) -> list[float]:
        plan = make_plan(load(tmp_path, text, *overrides), data=DATA)
        return [cell.config["stages"]["stage1"]["optimiser"]["final_lr"] for cell in plan.cells]

    axis = f"{HEAD}axes: {{lr: [1e-7, 1e-6, 1e-5, 1e-4]}}\n"
    assert ends(axis) == [1e-7, 1e-6, 1e-5, 1e-5]
    assert ends(axis, "final_lr=null") == [1e-7, 1e-6, 1e-5, 1e-5]
    assert ends(axis, "final_lr=1e-8") == [1e-8] * 4
    assert ends(axis, "schedule=constant") == [1e-5] * 4
    with pytest.raises(StudyError, match="above the peak lr = 1e-07; leave it out"):
        ends(axis, "final_lr=1e-5")
    when = f"{HEAD}axes: {{pixel: [l1, l2]}}\nwhen: [{{if: {{pixel: l1}}, set: {{lr: 1e-6}}}}]\n"
    assert ends(when) == [1e-6, 1e-5]
    # A study that writes what was the default is the same study.
    assert cell_of(tmp_path, HEAD).key == cell_of(tmp_path, HEAD, "final_lr=1e-5").key
    text = text_of("lr: {low: 1e-7, high: 1e-2, log: true}")
    plan = of_points(tmp_path, text, {"stages.stage1.optimiser.lr": 1e-7})
    assert plan.cells[0].config["stages"]["stage1"]["optimiser"]["final_lr"] == 1e-7
