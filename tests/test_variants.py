"""Does every kind of tokenizer go from a study file through training to a row of results?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies import write
from sweepctl import cli, runs
from sweepctl.ledger import open_ledger

BASE = """\
format: 1
study: {name}
data: {{train: photos-train, resolution: 16, images: 16}}
tokenizer: {{encoder: nano, decoder: nano, p: 4, c: 4}}
stages:
  stage1:
    steps: 3
    batch: 4
    precision: fp32
    loss: {{lpips: 0}}
evaluate:
  reconstruction: {{on: [photos-eval], images: 8, metrics: [psnr, ssim]}}
"""

CLIPS = BASE.replace("photos", "clips").replace("images: 16", "images: 8, frames: 8, fps: 15")


def results(folder: Path, text: str) -> list[dict[str, Any]]:
    """Run a study in this process; the rows of its results."""
    write(folder, text, "study.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = ["run", "study.yaml", "--cluster", "inline", "--device", "cpu", "--quiet"]
        patch.setattr(sys, "argv", ["sweepctl", *command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (0, None)
        with open_ledger(create=False, read_only=True) as ledger:
            table = ledger.cells.results("variants")
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def made(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "runs").glob(f"{kind}-*"))


@pytest.mark.slow
def test_norms_positions_and_bottlenecks(tmp_path: Path) -> None:
    text = BASE.format(name="variants") + (
        "axes:\n"
        "  bottleneck: [kl, none, layernorm, noise]\n"
        "zip:\n"
        "  - {norm: [layernorm, rmsnorm, rmsnorm, layernorm],\n"
        "     positions: [axial, 1d, sincos, none], qk_norm: [false, true, false, true]}\n"
        "when:\n"
        "  - {if: {bottleneck: [none, layernorm]}, set: {kl: 0}}\n"
        "  - {if: {bottleneck: noise}, set: {noise_std: 0.1}}\n"
    )
    rows = results(tmp_path, text)
    assert len(rows) == 16 and len(made(tmp_path, "stage1")) == 16
    assert len({row["psnr"] for row in rows}) == 16
    assert all(np.isfinite(row["psnr"]) for row in rows)


@pytest.mark.slow
def test_latent_codes(tmp_path: Path) -> None:
    text = BASE.format(name="variants") + "axes: {latent_tokens: [null, 4, 16]}\n"
    rows = results(tmp_path, text)
    assert [(row["latent_tokens"], row["tokens"], row["E"]) for row in rows] == [
        (None, 16, 64),
        (4, 4, 16),
        (16, 16, 64),
    ]
    assert len({row["psnr"] for row in rows}) == 3


def test_a_masked_code_is_trained_once_and_measured_at_each_length(tmp_path: Path) -> None:
    text = BASE.format(name="variants").replace("c: 4", "c: 4, lengths: [2, 8]")
    rows = results(tmp_path, text + "axes: {length: [2, 8, null], latent_tokens: [null, 8]}\n")
    assert len(made(tmp_path, "stage1")) == 2 and len(made(tmp_path, "reconstruct")) == 6
    assert [row["E"] for row in rows] == [8, 8, 32, 32, 64, 32]
    # The whole code of 8 latent tokens and its beginning of 8 are the same.
    assert len({row["psnr"] for row in rows}) == 5


@pytest.mark.slow
def test_clips(tmp_path: Path) -> None:
    text = CLIPS.format(name="variants").replace("psnr, ssim", "psnr, rfd_lite0")
    rows = results(tmp_path, text + "axes: {q: [1, 4], causal: [false, true]}\n")
    assert [(row["q"], row["tokens"]) for row in rows] == [(1, 128), (1, 128), (4, 32), (4, 32)]
    assert len({row["psnr"] for row in rows}) == len({row["rfd_lite0"] for row in rows}) == 4
    samples = np.load(made(tmp_path, "prepare")[0] / "samples.npy", mmap_mode="r")
    assert samples.shape == (8, 8, 16, 16, 3)


def test_what_a_training_leaves_behind(tmp_path: Path) -> None:
    import vitok_core

    text = BASE.format(name="variants").replace("steps: 3", "steps: 10")
    text = text.replace(
        "    loss: {lpips: 0}",
        "    ema: 0.9\n"
        "    optimiser: {schedule: constant}\n"
        "    loss: {lpips: 0, pixel: charbonnier, ssim: 0.1}",
    )
    (row,) = results(tmp_path, text)
    assert np.isfinite(row["psnr"])
    (folder,) = made(tmp_path, "stage1")
    sheets = sorted(path.name for path in (folder / "sheets").iterdir())
    assert sheets == [f"step-{step:07d}.png" for step in (2, 4, 6, 8, 10)]
    result = runs.read_json(folder / "result.json")
    values = result["values"]
    assert [file["name"] for file in result["files"]] == ["weights.safetensors"]
    assert values["samples_per_s"] > 0 and values["flops_per_s"] > 0
    assert values["peak_memory_bytes"] > 0 and values["mfu"] is None
    assert values["events"] == [] and set(values["parts_recent"]) == {"pixel", "kl", "ssim"}
    from vitok_core.tokenizer import read_about

    about = read_about(folder / "weights.safetensors")
    task = runs.read_json(folder / "task.json")
    assert (about["task"], about["kind"], about["study"]) == (folder.name, "stage1", "variants")
    assert task["study"] == "variants"
    # The identity leaves out what has its old value, what the weights say about themselves not.
    assert "lengths" not in task["identity"]["config"]["tokenizer"]
    assert about["config"]["tokenizer"]["lengths"] == []
    assert about["config"]["stage1"]["ema"] == 0.9
    assert about["metrics"]["loss_recent"] == pytest.approx(values["loss_recent"])
    assert vitok_core.load(folder / "weights.safetensors").spec.plain() == {
        **about["config"]["tokenizer"],
        "resolution": 16,
        "frames": 1,
    }
    assert json.dumps(about)


def test_loss_spikes_are_notes_of_the_log_and_events_of_the_result(tmp_path: Path) -> None:
    text = BASE.format(name="variants").replace("steps: 3", "steps: 60")
    wild = "    optimiser: {lr: 1, warmup: 0.9}\n    loss: {lpips: 0, kl: 1}"
    results(tmp_path, text.replace("    loss: {lpips: 0}", wild))
    (folder,) = made(tmp_path, "stage1")
    events = runs.read_json(folder / "result.json")["values"]["events"]
    assert events and {event["kind"] for event in events} == {"loss spike"}
    log = (folder / "attempts" / "1" / "log.txt").read_text()
    for event in events:
        assert 20 < event["step"] <= 60
        assert log.count(f"note: {event['text']}\n") == 1
