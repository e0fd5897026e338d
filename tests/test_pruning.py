"""Does a search that prunes end poor trials early, and lose nothing of those that go on?"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_folders import attempt, freeze, kill_at, lasting, work_on
from test_execute import Collected, behave
from test_search import _Dies, go, say, sequence

from studies import SMALL, load
from sweepctl import runs
from sweepctl.datasets import data_identities
from sweepctl.errors import StudyError
from sweepctl.ledger import Ledger, open_ledger
from sweepctl.plan import Plan, make_plan, rung_steps, up_to
from sweepctl.search import TrialProgress, best_waiting, promoted
from sweepctl.study import Prune, load_study
from vitok_core.errors import Stopped

BLOCK = """\
search:
  sampler: random
  trials: 18
  space:
    stage1.loss.lpips: {low: 0.05, high: 2, log: true}
    stage1.optimiser.lr: {low: 1e-4, high: 1e-3}
  objectives: [{metric: psnr}]
  prune: {factor: 3, rungs: 2}
"""
PRUNED = (
    SMALL.replace("axes:\n  p: [4, 8]\n  c: [4, 16]\n", BLOCK)
    .replace("nano, decoder", "nano, p: 4, c: 4, decoder")
    .replace("steps: 10", "steps: 90")
    .replace("metrics: [psnr, rfd_lite0]", "metrics: [psnr]")
)


def written(*changes: tuple[str, str]) -> str:
    text = PRUNED
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


# --- what a file may say ------------------------------------------------------------------------

TWO = ("[{metric: psnr}]", "[{metric: psnr}, {metric: ssim}]")
BOTH = ("metrics: [psnr]", "metrics: [psnr, ssim]")


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ([TWO, BOTH], "10:3", "prune ranks trials by one objective, and here are 2 (psnr, ssim)"),
        ([("rungs: 2", "rungs: 0")], "10:29", "must be at least 1, not 0"),
        ([("factor: 3", "factor: 1")], "10:19", "must be at least 2, not 1"),
        ([("rungs: 2", "rule: best")], "10:28", "must be 'asha' or 'median'"),
        ([("rungs: 2", "startup: 5")], "10:31", "startup belongs to rule: median"),
        ([("rungs: 2", "stage: stage2")], "10:29", "allowed here: stage1"),
        ([("rungs: 2", "stage: dit")], "10:29", "allowed here: stage1"),
        ([("rungs: 2", "rungs: 5")], "10:3", "90 steps of stage1 are too few for 5 rungs"),
        (
            [("stage1.optimiser.lr: {low: 1e-4, high: 1e-3}", "stage1.steps: [90, 180]")],
            "8:5",
            "rungs are shares of stages.stage1.steps",
        ),
    ],
)
def test_a_mistake_in_prune_has_its_place(
    tmp_path: Path, changes: list[tuple[str, str]], place: str, said: str
) -> None:
    with pytest.raises(StudyError) as caught:
        load(tmp_path, written(*changes))
    places = {one.place.split(":", 1)[1]: one.message for one in caught.value.problems}
    assert place in places, str(caught.value)
    assert said in places[place]


def test_the_last_training_of_all_trials_is_cut(tmp_path: Path) -> None:
    always = ("loss: {lpips: 0}}", "loss: {lpips: 0}}\n  stage2: {steps: 18, batch: 8}")
    some = ("stage1.optimiser.lr: {low: 1e-4, high: 1e-3}", "stage2.steps: [null, 18]")
    for changes, stage in (((), "stage1"), ((always,), "stage2"), ((always, some), "stage1")):
        search = load(tmp_path, written(*changes)).search
        assert search is not None and search.prune is not None
        assert search.prune.stage == stage
    assert search.prune.steps(90) == (10, 30, 90)


# --- who goes on --------------------------------------------------------------------------------

ASHA = Prune(rule="asha", factor=3, rungs=2, startup=4, stage="stage1")
MEDIAN = Prune(rule="median", factor=3, rungs=2, startup=4, stage="stage1")


def climb(
    prune: Prune, costs: Sequence[Sequence[float]], draw: random.Random
) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """Trials that come and end in any order: how far each was let go, and of each that went on how
    many were better at its rung then, of how many."""
    asked: dict[int, int] = {}
    measured: dict[int, int] = {}
    went_on: list[tuple[int, int]] = []
    while True:
        progress = [
            TrialProgress(
                number=number, costs=tuple(costs[number][: measured[number]]), asked=rungs
            )
            for number, rungs in asked.items()
        ]
        draw.shuffle(progress)  # the answer depends on what was measured, not on an order
        open_ones = [one for one in progress if not one.waits and one.asked <= prune.rungs]
        number = promoted(prune, progress)
        if number is not None:
            rung = asked[number] - 1
            there = [costs[one][rung] for one in asked if measured[one] > rung]
            went_on.append((sum(cost < costs[number][rung] for cost in there), len(there)))
            asked[number] += 1
        elif len(asked) < len(costs) and (not open_ones or draw.random() < 0.5):
            measured[len(asked)] = 0
            asked[len(asked)] = 1
        elif open_ones:
            measured[open_ones[0].number] += 1
        else:
            return asked, went_on


numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30), st.integers(0, 999))
def test_asha_lets_a_third_go_on_and_the_best_in_the_end(
    costs: list[tuple[float, float]], seed: int
) -> None:
    asked, went_on = climb(ASHA, costs, random.Random(seed))
    at_first = sorted(range(len(costs)), key=lambda number: (costs[number][0], number))
    second = {number for number, rungs in asked.items() if rungs >= 2}
    third = {number for number, rungs in asked.items() if rungs >= 3}
    # Once all are measured, whoever is among the best third has gone on.
    assert set(at_first[: len(costs) // 3]) <= second
    there = sorted(second, key=lambda number: (costs[number][1], number))
    assert set(there[: len(second) // 3]) <= third
    # And nobody else: whoever went on was among the best third of those measured at that moment.
    assert all(better < there // 3 for better, there in went_on)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30), st.integers(0, 999))
def test_the_median_lets_the_better_half_go_on(costs: list[tuple[float, float]], seed: int) -> None:
    asked, went_on = climb(MEDIAN, costs, random.Random(seed))
    ranked = sorted(costs[number][0] for number in asked)
    middle = (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
    second = {number for number, rungs in asked.items() if rungs >= 2}
    assert {number for number in asked if costs[number][0] <= middle} <= second
    assert len(second) >= min(4, len(costs))
    assert all(there <= 4 or better <= there / 2 for better, there in went_on)


def test_nobody_goes_on_before_he_is_measured_and_the_furthest_goes_first() -> None:
    on_the_way = TrialProgress(number=0, costs=(1.0,), asked=2)
    first = [TrialProgress(number=n, costs=(float(n + 2),), asked=1) for n in range(1, 6)]
    assert promoted(ASHA, [on_the_way, *first]) == 1
    second = [TrialProgress(number=10 + n, costs=(0.0, float(n)), asked=2) for n in range(3)]
    assert promoted(ASHA, [*first, *second]) == 10
    assert promoted(ASHA, first[:2]) is None
    assert best_waiting([*first, on_the_way]) == 1
    assert best_waiting([on_the_way]) is None


# --- with the driver ----------------------------------------------------------------------------


def stages_run(ledger: Ledger) -> dict[str, int]:
    rows = ledger.query(
        "select stage, count(*) from v_cell_task where state = 'done' group by stage"
    ).rows
    return dict(rows)


def check_rungs(ledger: Ledger, trials: int) -> None:
    """What holds after any search of factor 3 with rungs at 10 and 30 of 90 steps."""
    stages = stages_run(ledger)
    assert stages["stage1@10"] == stages["reconstruct:photos-eval@10"] == trials
    assert stages["stage1@30"] >= trials // 3
    assert 1 <= stages["stage1"] <= stages["stage1@30"]
    states = dict(ledger.query("select state, count(*) from v_cell group by state").rows)
    assert states.pop("done") == stages["stage1"]
    assert sum(states.values()) == trials - stages["stage1"] and states.keys() <= {"pruned"}
    until = ledger.query("select cell, until from v_cell where state = 'pruned'").rows
    assert {step for _, step in until} <= {10, 30}
    # Fits see whole trainings only, the other numbers are there with their step.
    assert len(ledger.cells.frame("small")) == stages["stage1"]
    steps = ledger.query("select step, count(*) from v_metric group by step").rows
    assert dict(steps) == {
        None: stages["stage1"],
        10: trials,
        30: stages["stage1@30"],
    }


def test_poor_trials_end_early(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        watcher = Collected()
        summary = go(tmp_path, PRUNED, ledger, watcher)
        assert (summary.failed, summary.blocked, summary.tasks) == ((), 0, summary.finished)
        check_rungs(ledger, 18)
        assert sum("goes on" in said for said in watcher.notices) == (
            stages_run(ledger)["stage1@30"] + stages_run(ledger)["stage1"]
        )
        # Of those at a rung the best went on, as far as it could be known then.
        best = ledger.query("select value, cell from v_metric where step = 10 order by 1 desc").rows
        at_30 = {row[0] for row in ledger.query("select cell from v_metric where step = 30").rows}
        assert {cell for _, cell in best[:6]} <= at_30
        # A training is handed the ends of those before it, the furthest first.
        for row in ledger.query("select cell, task from v_cell_task where stage = 'stage1'").rows:
            task = runs.read_json(tmp_path / "runs" / row[1] / "task.json")
            earlier = [
                runs.read_json(tmp_path / "runs" / name / "task.json")["identity"]["config"]
                for name in task["continues"]
            ]
            assert [config["until"] for config in earlier] == [30, 10]
            assert "until" not in task["identity"]["config"]
        # Nothing is left to do; more trials go on with the same search.
        again = go(tmp_path, PRUNED, ledger)
        assert (again.finished, again.tasks) == (0, summary.tasks)
        before = sequence(ledger)
        go(tmp_path, written(("trials: 18", "trials: 27")), ledger)
        assert sequence(ledger)[:18] == before
        check_rungs(ledger, 27)


def test_a_whole_trial_has_the_tasks_it_would_have_without_rungs(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        go(tmp_path, PRUNED, ledger)
        done = "select task from v_cell_task where stage = 'stage1'"
        pruned = {row[0] for row in ledger.query(done).rows}
        plain = written(("  prune: {factor: 3, rungs: 2}\n", ""), ("study: small", "study: whole"))
        summary = go(tmp_path, plain, ledger)  # the same seed, the same points at first
        whole = f"{done} and study = 'whole'"
        assert pruned <= {row[0] for row in ledger.query(whole).rows}
        assert summary.finished == 2 * (18 - len(pruned))
        # What another study has finished is not cut again.
        third = written(("study: small", "study: third"), ("trials: 18", "trials: 6"))
        assert go(tmp_path, third, ledger).finished == 0
        states = ledger.query("select state, until from v_cell where study = 'third'").rows
        assert set(states) == {("done", None)}


@pytest.mark.parametrize("rule", ["asha", "median, startup: 3"])
def test_a_driver_that_dies_at_any_moment_lets_the_same_go_on(tmp_path: Path, rule: str) -> None:
    text = written(("factor: 3", f"rule: {rule}, factor: 3"))
    ways = "select cell, stage from v_cell_task where stage like 'stage1%' order by 1, 2"
    with open_ledger(str(tmp_path / "whole.db")) as ledger:
        go(tmp_path, text, ledger)
        whole, went = sequence(ledger), ledger.query(ways).rows
    draw = random.Random(5)
    with open_ledger(str(tmp_path / "torn.db")) as ledger:
        torn = tmp_path / "torn"
        for _ in range(12):
            try:
                go(torn, text, ledger, _Dies(draw.randint(1, 16)))
            except KeyboardInterrupt:
                continue
        go(torn, text, ledger)
        assert sequence(ledger) == whole
        assert ledger.query(ways).rows == went


def test_two_at_once_and_a_failure(tmp_path: Path) -> None:
    text = written(("trials: 18", "trials: 18\n  at_once: 2"))
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        assert go(tmp_path, text, ledger).failed == ()
        check_rungs(ledger, 18)
    behave(tmp_path / "broken", stage1="error")
    with open_ledger(str(tmp_path / "broken.db")) as ledger:
        summary = go(tmp_path / "broken", written(("trials: 18", "trials: 3")), ledger)
        assert len(summary.failed) == 3
        assert ledger.query("select distinct state from v_cell").rows == (("failed",),)


def test_a_search_too_small_for_its_rule_still_ends_with_a_whole_training(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        go(tmp_path, written(("trials: 18", "trials: 2")), ledger)
        check_rungs(ledger, 2)
        values = dict(ledger.query("select cell, value from v_metric where step = 10").rows)
        (row,) = ledger.query("select cell from v_cell where state = 'done'").rows
        assert values[row[0]] == max(values.values())
    # When its hours are spent nobody goes on, but the best one to the end.
    spent = written(("  prune", "  stop: {hours: 1e-9}\n  prune"))
    with open_ledger(str(tmp_path / "spent.db")) as ledger:
        go(tmp_path / "spent", spent, ledger)
        check_rungs(ledger, 1)
    # Also when they are spent after the last trial was asked.
    with open_ledger(str(tmp_path / "later.db")) as ledger:
        watcher = _Dies(40)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "later", PRUNED, ledger, watcher)
        before = stages_run(ledger)
        trials = len(sequence(ledger))
        go(tmp_path / "later", spent.replace("trials: 18", f"trials: {trials}"), ledger)
        after = stages_run(ledger)
        assert before.get("stage1@30", 0) <= after["stage1@30"] <= before.get("stage1@30", 0) + 1
        assert after["stage1"] == max(1, before.get("stage1", 0))


def test_trials_tell_how_far_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_ledger("results.db") as ledger:
        go(tmp_path, PRUNED, ledger)
        whole = stages_run(ledger)["stage1"]
    code, out, err = say(
        "search", "small", "--trials", "--format", "json", monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 0 and f"18 trials, {whole} measured, {18 - whole} pruned" in err
    for row in json.loads(out):
        assert row["rung"] in (10, 30) and row["psnr@rung"] is not None
        assert (row["psnr"] is None) == (row["state"] == "pruned")
    code, _, err = say("status", "small", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0 and f"18 cells ({18 - whole} pruned), " in err
    code, _, err = say("plan", "study.yaml", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0 and "trials wait at steps 10, 30 of 90 of stage1, where psnr decides" in err


# --- with real trainings ------------------------------------------------------------------------

REAL = """
format: 1
study: real
search:
  trials: 4
  space: {SPACE}
  objectives: [{metric: METRIC}]
  prune: {factor: 2, rungs: 2, stage: STAGE}
data: {train: photos-train, resolution: 16, images: 64}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 8, batch: 4, precision: fp32, loss: {lpips: 0}}
  stage2: {steps: 8, batch: 4, precision: fp32, discriminator_width: 0.03125, loss: {lpips: 0}}
  dit: {steps: 8, batch: 4, size: nano, ema: 0.5, precision: fp32}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr]}
  generation: {on: [photos-train], images: 9, steps: 2, metrics: [gkid_lite0]}
"""
WAYS = {
    "stage1": ("psnr", "{stage1.optimiser.lr: {low: 1e-4, high: 1e-3}}"),
    "stage2": ("psnr", "{stage2.optimiser.lr: {low: 1e-4, high: 1e-3}}"),
    "dit": ("gkid_lite0", "{dit.optimiser.lr: {low: 1e-4, high: 1e-3}}"),
}


def real_plans(folder: Path, stage: str) -> tuple[Plan, Plan]:
    """A trial as it is whole, and as it is when it has come to its end by two rungs."""
    metric, space = WAYS[stage]
    text = REAL.replace("METRIC", metric).replace("{SPACE}", space).replace("STAGE", stage)
    if stage == "stage1":  # stage 2 would be the last one of all trials
        text = text.replace("stage2: {steps: 8", "stage2: {steps: null")
    file = folder / "study.yaml"
    file.write_text(text)
    data = data_identities()
    study = load_study(file, datasets=data)
    assert study.search is not None
    whole = make_plan(study, data=data)
    (cell,) = whole.cells
    assert rung_steps(study.search, cell) == (2, 4, 8)
    return whole, up_to(whole, study.search, {cell.key: (2, 4, 8)})


@pytest.mark.slow  # real trainings of a few steps
@pytest.mark.parametrize("stage", WAYS)
def test_a_trial_that_goes_on_ends_with_the_same_bytes(tmp_path: Path, stage: str) -> None:
    whole, by_rungs = real_plans(tmp_path, stage)
    (cell,) = by_rungs.cells
    results = {}
    for plan, root in ((whole, tmp_path / "whole"), (by_rungs, tmp_path / "rungs")):
        for name, task in plan.tasks.items():
            if plan is by_rungs and name in whole.tasks and not task.continues:
                shutil.copytree(tmp_path / "whole" / task.id, root / task.id)
                continue
            folder = freeze(plan, task, root)
            if task.continues and task.fingerprint not in whole.tasks:
                # Stopped and killed between two rungs it goes on all the same.
                looks = iter(range(99))
                with pytest.raises(Stopped):
                    work_on(folder, lambda looks=looks: next(looks) == 1)  # type: ignore[misc]
                kill_at(folder, 0)
            results[root.name, name] = attempt(folder)
    name = cell.tasks[stage]
    alone, climbed = results["whole", name], results["rungs", name]
    assert climbed.values["continued_from"] == climbed.values["resumed_from"] == 4
    assert climbed.flops * 2 == alone.flops
    same = {"continued_from": 0}
    assert [file.sha256 for file in climbed.files] == [file.sha256 for file in alone.files]
    assert {**lasting(climbed)["values"], **same} == {**lasting(alone)["values"], **same}
    (earlier,) = (results["rungs", cell.tasks[f"{stage}@{step}"]] for step in (4,))
    assert earlier.values["continued_from"] == 2 and earlier.values["samples"] == 16
    for step in (2, 4):  # what went on needs them no more
        folder = tmp_path / "rungs" / by_rungs.tasks[cell.tasks[f"{stage}@{step}"]].id
        assert not list((folder / "checkpoints").glob("step-*"))
        assert (folder / "weights.safetensors").is_file()
    measured = [stage for stage in cell.tasks if stage.endswith("@4") and ":" in stage]
    (value, *_) = results["rungs", cell.tasks[measured[0]]].metrics
    assert value.step == 4
