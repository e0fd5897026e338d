"""Does one `sweepctl run` go from pictures to measured samples, sharing what can be shared?"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studies import write

STUDY = """\
format: 1
study: whole
question: What do a second stage and guidance change?
axes:
  stage2.steps: [null, 4]
  generation.cfg: [1.0, 2.0, 4.0]
data: {train: photos-train, resolution: 16, images: 36}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 5, batch: 8, precision: fp32, optimiser: {lr: 0.003}, loss: {lpips: 0}}
  stage2: {batch: 8, precision: fp32, discriminator_width: 0.03125, loss: {lpips: 0}}
  latents: {normalisation: scalar}
  dit: {steps: 5, batch: 16, size: nano, target: flow, learn_sigma: false, precision: fp32,
        ema: null, optimiser: {lr: 0.01}}
evaluate:
  reconstruction: {on: [photos-eval], images: 20, metrics: [psnr]}
  generation: {on: [photos-eval], images: 27, originals: 20, metrics: [gkid_lite0], steps: 3}
run: {micro_batch: {stage1: 3, dit: all}, recompute: {stage2: true}}
fits:
  guidance: {metric: gkid_lite0, on: photos-eval, x: generation.cfg, form: linear}
"""

SHARED = {
    "prepare": 2,  # training and evaluation
    "reference": 1,
    "stage1": 1,  # with and without stage 2
    "stage2": 1,
    "latents": 2,  # of both final tokenizers
    "dit": 2,
    "reconstruct": 2,
    "generate": 6,  # both, at three scales
}
"""Tasks a kind; without sharing there were six of each, but twelve of prepare."""


def sweepctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("sweepctl")), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def query(folder: Path, sql: str) -> list[dict[str, Any]]:
    done = sweepctl(folder, "query", sql, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write(folder, STUDY, "whole.yaml")
    done = sweepctl(folder, "run", "whole.yaml", "--cluster", "inline", "-q")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_one_tokenizer_serves_all_that_comes_after_it(ran: Path) -> None:
    rows = query(ran, "select kind, state, count(*) as tasks from v_task group by kind, state")
    assert {(row["kind"], row["state"]): row["tasks"] for row in rows} == {
        (kind, "done"): count for kind, count in SHARED.items()
    }
    folders = [path for path in (ran / "runs").iterdir() if (path / "task.json").exists()]
    attempts = [path for folder in folders for path in (folder / "attempts").iterdir()]
    assert len(folders) == len(attempts) == sum(SHARED.values())


@pytest.mark.slow
def test_trainings_take_the_samples_together_that_the_study_says(ran: Path) -> None:
    found = {}
    for path in (ran / "runs").glob("*/result.json"):
        kind = path.parent.name.partition("-")[0]
        values = json.loads(path.read_text())["values"]
        if "micro_batch" in values:
            found[kind] = (values["micro_batch"], values["recompute_activations"])
    assert found == {"stage1": (3, False), "stage2": (None, True), "dit": (None, False)}


@pytest.mark.slow
def test_every_cell_has_its_own_samples_and_its_final_tokenizers_numbers(ran: Path) -> None:
    rows = query(
        ran,
        "select cell, name, value, n from v_metric where study = 'whole' order by cell",
    )
    of: dict[str, dict[int, float]] = {}
    for row in rows:
        of.setdefault(row["name"], {})[row["cell"]] = row["value"]
        assert row["n"] == (27 if row["name"] == "gkid_lite0" else 20)
    assert of.keys() == {"psnr", "gkid_lite0"}
    assert all(len(values) == 6 for values in of.values())
    # Three cells without stage 2 and three with it; each with samples of its own.
    assert sorted(collections.Counter(of["psnr"].values()).values()) == [3, 3]
    assert len(set(of["gkid_lite0"].values())) == 6


@pytest.mark.slow
def test_a_fourth_scale_costs_its_samples_only(ran: Path) -> None:
    write(ran, STUDY.replace("[1.0, 2.0, 4.0]", "[1.0, 2.0, 3.0, 4.0]"), "more.yaml")
    for file, said in (("whole.yaml", "17 tasks, 0 to run"), ("more.yaml", "19 tasks, 2 to run")):
        done = sweepctl(ran, "plan", file)
        assert said in done.stderr, done.stderr
