"""Can a study train on a data set as it lies: planned without a copy, and the same after a stop?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from own_files import picture_folder, shards
from task_folders import attempt, freeze, kill_at, lasting, work_on

from studies import write
from sweepctl.datasets import data_identities
from sweepctl.errors import StudyError
from sweepctl.plan import Plan, make_plan
from sweepctl.study import OwnSet, load_study
from vitok_core.data import OwnData, scan
from vitok_core.errors import Stopped

STUDY = """
format: 1
study: streamed
data: {train: shards, resolution: 16, images: 24, stream: true, crop: random}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 9, batch: 5, precision: fp32, optimiser: {lr: 0.003}, loss: {lpips: 0}}
  stage2:
    {steps: 4, batch: 5, precision: fp32, discriminator_width: 0.03125, loss: {lpips: 0}}
evaluate:
  allow_overlap: true
  reconstruction: {on: [shards], images: 8, metrics: [psnr, rkid_lite0], bootstrap: 5}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, OwnSet]:
    """Tar shards of 24 pictures that are wider than high, and a folder of 6; both scanned."""
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    place = shards(tmp_path / "tars", 4, 6)
    folder = str(picture_folder(tmp_path / "pictures", {"a": 6}))
    scan(OwnData(name="shards", kind="webdataset", place=place))
    scan(OwnData(name="files", kind="folder", place=folder))
    return {"shards": OwnSet(webdataset=place), "files": OwnSet(folder=folder)}


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    """Attempts in this process set threads and determinism; other tests come after."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def plan_of(folder: Path, own: dict[str, OwnSet], text: str = STUDY, *overrides: str) -> Plan:
    data = data_identities(own)
    study = load_study(write(folder, text), overrides=overrides, datasets=data)
    return make_plan(study, data=data)


def kinds(plan: Plan) -> list[str]:
    return [task.kind for task in plan.tasks.values()]


def test_a_stream_is_no_task_but_part_of_what_is_trained(
    tmp_path: Path, own: dict[str, OwnSet]
) -> None:
    plan = plan_of(tmp_path, own)
    assert kinds(plan) == ["stage1", "stage2", "prepare", "reference", "reconstruct"]
    tasks = {task.kind: task for task in plan.tasks.values()}
    assert [role for role, _ in tasks["stage1"].parents] == []
    assert [role for role, _ in tasks["stage2"].parents] == ["tokenizer"]
    prepared = json.loads(tasks["prepare"].identity)
    for kind in ("stage1", "stage2"):
        identity = json.loads(tasks[kind].identity)
        assert identity["config"]["stream"] == {
            "dataset": "shards",
            "resolution": 16,
            "crop": "random",
        }
        assert identity["data"] == prepared["data"] and "content" in identity["data"]
    assert json.loads(tasks["reconstruct"].identity)["config"]["bootstrap"] == 5
    # Other crops are other weights; without a bootstrap it is another measurement, no more.
    other = plan_of(tmp_path, own, STUDY.replace(", crop: random", ""))
    assert {task.kind for task in plan.tasks.values() if task.fingerprint in other.tasks} == {
        "prepare",
        "reference",
    }
    resized = plan_of(tmp_path, own, STUDY.replace("crop: random", "crop: random-resized"))
    trained = {task.fingerprint for task in resized.tasks.values() if task.kind == "stage1"}
    assert not trained & (plan.tasks.keys() | other.tasks.keys())
    plain = plan_of(tmp_path, own, STUDY.replace(", bootstrap: 5", ""))
    assert {t.kind for t in plan.tasks.values() if t.fingerprint not in plain.tasks} == {
        "reconstruct"
    }
    # A prepared training on the same data keeps what it always was.
    text = STUDY.replace(", stream: true, crop: random", "")
    copied = plan_of(tmp_path, own, text)
    stage1 = next(task for task in copied.tasks.values() if task.kind == "stage1")
    assert [role for role, _ in stage1.parents] == ["images"]
    assert "stream" not in stage1.identity and "crop" not in json.loads(stage1.identity)["config"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": "photos-train"}, r"data.stream: photos-train is no data set of yours"),
        ({"images": "20"}, r"data.images: a stream shows all of shards, which are 24 samples"),
        ({"stream": "false"}, r"data.crop: crop = random: prepared samples are cut once"),
        (
            {"stream": "false", "crop": "random-resized"},
            r"data.crop: crop = random-resized: prepared samples are cut once, before training; "
            r"set data.stream to true, which cuts again in each pass, or leave crop out",
        ),
    ],
)
def test_what_cannot_be_streamed_is_said_before_anything_runs(
    tmp_path: Path, own: dict[str, OwnSet], change: dict[str, str], said: str
) -> None:
    overrides = [f"data.{name}={value}" for name, value in change.items()]
    with pytest.raises(StudyError, match=said):
        plan_of(tmp_path, own, STUDY, *overrides)


def test_a_generator_needs_prepared_data(tmp_path: Path, own: dict[str, OwnSet]) -> None:
    text = STUDY.replace("evaluate:", "  dit: {steps: 5, batch: 4, size: nano}\nevaluate:")
    with pytest.raises(StudyError, match=r"data\.stream: a DiT learns from the codes"):
        plan_of(tmp_path, own, text)


def test_folders_stream_too_and_unscanned_sets_say_so(
    tmp_path: Path, own: dict[str, OwnSet]
) -> None:
    text = STUDY.replace("train: shards", "train: files").replace("images: 24", "images: 6")
    assert "prepare" in kinds(plan_of(tmp_path, own, text))  # of the evaluation alone
    unscanned = own | {"shards": OwnSet(webdataset=str(tmp_path / "none-{0..1}.tar"))}
    (problem, *_) = plan_of(tmp_path, unscanned, STUDY).absent
    assert "was not scanned" in problem.message


def test_decoders_are_the_cores_of_a_slot_whatever_the_threads(
    tmp_path: Path,
    own: dict[str, OwnSet],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twelve cores that four slots share are three for each, unless the site says otherwise."""
    plan = plan_of(tmp_path, own)
    prepare = next(task for task in plan.tasks.values() if task.kind == "prepare")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    for how, expected in (
        ({"slots": 4}, 3),
        ({"slots": 24}, 1),
        ({"slots": 4, "threads": 2, "decoders": 7}, 7),
    ):
        attempt(freeze(plan, prepare, tmp_path / str(expected)), **how)
        assert f", {expected} decoder(s)" in capsys.readouterr().out


@pytest.mark.slow
def test_streamed_trainings_go_on_to_the_byte_after_a_stop_and_a_kill(
    tmp_path: Path, own: dict[str, OwnSet]
) -> None:
    plan = plan_of(tmp_path, own)
    tasks = {task.kind: task for task in plan.tasks.values()}
    whole = {
        kind: attempt(freeze(plan, tasks[kind], tmp_path / "whole"))
        for kind in ("stage1", "stage2")
    }
    again = {}
    for kind in ("stage1", "stage2"):
        folder = freeze(plan, tasks[kind], tmp_path / "again")
        asked = iter(range(100))
        with pytest.raises(Stopped):
            work_on(folder, lambda asked=asked: next(asked) == 2)  # type: ignore[misc]
        kill_at(folder, 1)
        again[kind] = attempt(folder)
        assert again[kind].values["resumed_from"]
        assert lasting(again[kind]) == lasting(whole[kind])
    # What was trained is then measured, with an error of the distance.
    for kind in ("prepare", "reference"):
        attempt(freeze(plan, tasks[kind], tmp_path / "again"))
    measured = attempt(freeze(plan, tasks["reconstruct"], tmp_path / "again"))
    errors = {metric.name: metric.se for metric in measured.metrics}
    assert errors["psnr"] and errors["rkid_lite0"]
