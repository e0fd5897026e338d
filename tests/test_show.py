"""Does a point tell where it comes from, in both directions, by whatever name it is asked for?"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_plans import finish, metric, outcome, result, submission

from studies import SMALL
from sweepctl import cli
from sweepctl.cli._session import plan_file
from sweepctl.ledger import Ledger, open_ledger
from sweepctl.plan import Plan

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Plan, Plan]]:
    """Two recorded studies that share two cells; the first cell of both is done."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("one.yaml").write_text(SMALL)
        Path("two.yaml").write_text(
            SMALL.replace("study: small", "study: other").replace("c: [4, 16]", "c: [4, 32]")
        )
        made = plan_file(Path("one.yaml"), ()), plan_file(Path("two.yaml"), ())
        with open_ledger("results.db") as ledger:
            for plan, file in zip(made, ("one.yaml", "two.yaml"), strict=True):
                asked = submission(argv=("sweepctl", "run", file, "-q"), git_commit="abcdef01")
                ledger.studies.record(plan, asked)
            for name in made[0].cells[0].tasks.values():
                task = made[0].tasks[name]
                measures = task.kind == "reconstruct"
                finish(ledger, task, *([metric(21.5, dataset="photos-eval")] * measures))
    return folder, made


@pytest.fixture
def plans(
    recorded: tuple[Path, tuple[Plan, Plan]], monkeypatch: pytest.MonkeyPatch
) -> tuple[Plan, Plan]:
    """The two studies, whose database and files are where we stand; only to be read."""
    monkeypatch.chdir(recorded[0])
    return recorded[1]


@pytest.fixture
def own(
    recorded: tuple[Path, tuple[Plan, Plan]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Plan, Plan]:
    """The same, to be changed."""
    shutil.copytree(recorded[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return recorded[1]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return run


def told(call: Call, *words: str) -> dict[str, Any]:
    code, out, err = call("show", *words, "--json")
    assert code == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


@pytest.mark.usefixtures("plans")
def test_a_cell_is_found_by_number_by_values_and_by_option(call: Call) -> None:
    by_number = told(call, "small/2")
    assert by_number["axes"] == {"p": 4, "c": 16} and by_number["point"] == "cell"
    assert told(call, "small", "p=4", "c=16") == by_number == told(call, "small", "--cell", "2")
    assert told(call, "small", "E=1024") == by_number  # derived values are known too


def test_a_point_tells_what_it_was_made_from_and_who_else_uses_that(
    call: Call, plans: tuple[Plan, Plan]
) -> None:
    point = told(call, "small/1")
    assert point["state"] == "done"
    training = point["stages"]["stage1"]
    assert training["task"] == point["tasks"]["stage1"]
    assert {use["study"] for use in training["used_by"]} == {"small", "other"}
    assert [need["role"] for need in training["needs"]] == ["images"]
    assert [kin["kind"] for kin in training["down"]] == ["reconstruct"]
    (value,) = point["measured"]
    assert (value["metric"], value["value"], value["stage"]) == (
        "psnr",
        21.5,
        "reconstruct:photos-eval",
    )
    (file,) = training["files"]
    assert file["sha256"] == "0" * 64 and not file["there"]
    assert training["attempts"][0]["host"] == "node1"
    images = point["stages"]["prepare:photos-train"]
    assert len({(use["study"], use["cell"]) for use in images["used_by"]}) == 8
    code, out, _ = call("show", "small/1")
    assert code == 0 and "also in" in out and "other/1" in out and "(gone)" in out
    assert "psnr 21.5" in out and "tokenizer.c\t4\trecorded" in out
    assert "stages.dit.size" not in out  # nothing of a group that is off


def test_a_cell_lists_no_settings_of_what_it_is_without(call: Call, tmp_path: Path) -> None:
    text = SMALL.replace("c: [4, 16]", "stages.dit.steps: [null, 10]").replace(
        "p: [4, 8]", "c: [4]"
    )
    for old, new in {
        "{encoder: nano,": "{p: 4, encoder: nano,",
        "lpips: 0}}": "lpips: 0}}\n  dit: {size: nano, batch: 4, ema: 0.5}",
        "rfd_lite0]}": "rfd_lite0]}\n  generation: "
        "{on: [photos-eval], images: 32, metrics: [gfd_lite0], steps: 10}",
    }.items():
        text = text.replace(old, new)
    (tmp_path / "more.yaml").write_text(text)
    without, having = (
        call("show", str(tmp_path / "more.yaml"), "--cell", number)[1] for number in "12"
    )
    assert "evaluate.generation." not in without and "stages.dit.size" not in without
    assert "stages.dit.steps\tnull" in without and "stages.stage2.steps\tnull" in without
    assert "evaluate.generation.images\t32" in having and "evaluate.generation.cfg\t" in having


def test_the_command_of_a_cell_makes_just_that_cell(call: Call, own: tuple[Plan, Plan]) -> None:
    point = told(call, "small/3")
    assert point["command"] == "sweepctl run one.yaml -q"
    words = shlex.split(point["command_of_this_cell"])
    assert words[:3] == ["sweepctl", "run", "one.yaml"]
    made = plan_file(Path(words[2]), [one for one in words[3:] if one != "--set"])
    assert [dict(cell.tasks) for cell in made.cells] == [dict(own[0].cells[2].tasks)]
    # A file that has changed would make something else; then there is no such command.
    Path("one.yaml").write_text(SMALL.replace("steps: 10", "steps: 11"))
    assert told(call, "small/3")["command_of_this_cell"] is None


@pytest.mark.usefixtures("plans")
def test_a_metric_tells_only_what_its_value_was_made_from(call: Call) -> None:
    whole, value = told(call, "small/1"), told(call, "small/1", "psnr@photos-eval")
    assert value["point"] == "metric" and value["measured"] == whole["measured"]
    assert set(value["tasks"].values()) == set(whole["tasks"].values())
    code, _, err = call("show", "small/1", "lpips")
    assert code == 2 and "psnr@photos-eval" in err


def test_a_task_goes_both_ways(call: Call, plans: tuple[Plan, Plan]) -> None:
    plan = plans[0]
    name = plan.cells[0].tasks["stage1"]
    task = told(call, plan.tasks[name].id[:12])
    assert task["point"] == "task" and [kin["kind"] for kin in task["up"]] == ["prepare"]
    assert task["identity"]["config"]["seed"] == 0
    assert task["commands"] == {
        "small": "sweepctl run one.yaml -q",
        "other": "sweepctl run two.yaml -q",
    }
    code, out, _ = call("show", plan.tasks[name].id)
    assert code == 0 and "made from" in out and "made into" in out and "two.yaml" in out


def test_lineage_is_that_of_the_view(plans: tuple[Plan, Plan]) -> None:
    with open_ledger("results.db", read_only=True) as ledger:
        rows = ledger.query("select task, ancestor, depth from v_lineage").rows
        every = set(rows)
        for plan in plans:
            for name, task in plan.tasks.items():
                up, down = ledger.tasks.lineage(name)
                assert {(task.id, kin.id, kin.depth) for kin in up} == {
                    row for row in every if row[0] == task.id
                }
                assert {(kin.id, task.id, kin.depth) for kin in down} == {
                    row for row in every if row[1] == task.id
                }


@pytest.mark.usefixtures("plans")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("small",), "which of the 4 cells?"),
        (("small", "p=4"), "2 cells have p=4: 1, 2"),
        (("small", "p=5"), "no cell has p=5"),
        (("small", "q=1", "nix"), "4 cells have q=1"),
        (("small/9",), "there is no cell 9; the study has 4 cells"),
        (("small/1", "p=4"), "not both"),
        (("small/1", "--cell", "2"), "small/1 and --cell do not go together"),
        (("small", "p=4", "p=8", "c=4"), "p is stated twice: p=4 and p=8"),
        (("one.yaml", "p=8", "c=16", "nonsense"), "'nonsense' is not axis=value"),
        (("nothing", "p=4"), "no study 'nothing'"),
        (("smal", "p=4"), "no study 'smal' to find p=4 in; did you mean 'small'?"),
        (("smal/1",), "no study 'smal'; did you mean 'small'?"),
        (("smal/1", "psnr"), "no study 'smal'; did you mean 'small'?"),
        (("stage1-ffffffff",), "no task begins with"),
        (("small/1", "psnr", "ssim"), "neither axis=value nor a metric"),
        (("small/1", "--set", "seed=3"), "--set applies only to study files"),
    ],
)
def test_a_point_that_is_not_there_says_what_is(
    call: Call, words: tuple[str, ...], said: str
) -> None:
    code, _, err = call("show", *words)
    assert code == 2 and said in err


@pytest.mark.usefixtures("plans")
def test_a_file_is_asked_in_the_same_words(call: Call) -> None:
    code, out, err = call("show", "one.yaml", "p=8", "c=16")
    assert code == 0 and "tokenizer.p\t8\tone.yaml:" in out and "stage1: stage1-" in err
    code, _, err = call("show", "one.yaml", "p=8")
    assert code == 2 and "2 cells have p=8" in err


def test_predictions_are_compared_with_what_was_taken(call: Call, own: tuple[Plan, Plan]) -> None:
    plan = own[0]
    with open_ledger("results.db") as ledger:
        for cell, predicted in zip(plan.cells[1:], (1.0, 4.0, 2.0), strict=True):
            _finish(ledger, plan, cell.tasks["stage1"], predicted)
    code, _, err = call("status", "small")
    assert code == 0
    assert "median actual/predicted time: 1.00x (0.50x to 2.00x, n = 3)" in err
    code, out, _ = call("status", "small", "--json")
    assert json.loads(out)["predictions"] == {"tasks": 3, "ratio": 1.0, "low": 0.5, "high": 2.0}
    code, out, _ = call(
        "query",
        "select seconds_predicted, seconds_taken from v_cost "
        "where study = 'small' and kind = 'stage1'",
    )
    assert [float(value) for value in out.splitlines()[1].split("\t")] == [7.0, 6.0]


def _finish(ledger: Ledger, plan: Plan, name: str, predicted: float) -> None:
    task = plan.tasks[name]
    attempt = ledger.attempts.start(name, predicted_s=predicted)
    assert attempt == 1
    assert ledger.attempts.finish(outcome(task), result(task))
