"""Do all kinds of the pipeline do what their tasks say, and the same after a stop and a kill?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from task_folders import attempt, freeze, kill_at, lasting, plan_of, work_on

from sweepctl.plan import Plan, Task
from sweepctl.runs import TaskResult
from vitok_core.dit import load_dit, read_dit_about
from vitok_core.errors import Stopped
from vitok_core.generate import sample
from vitok_core.latents import open_latents
from vitok_core.settings import Sampling
from vitok_core.tokenizer import load_tokenizer, read_about

PHOTOS = """\
format: 1
study: pipeline
axes:
  generation.cfg: [1.0, 3.0]
data: {train: photos-train, resolution: 32, images: 90}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 40, batch: 16, precision: fp32, optimiser: {lr: 0.003}, loss: {lpips: 0}}
  stage2:
    {steps: 12, batch: 8, precision: fp32, ema: 0.9, discriminator_width: 0.03125,
     optimiser: {lr: 0.001}, discriminator: {lr: 0.001}, loss: {lpips: 0}, adversarial: {ramp: 5}}
  latents: {normalisation: per-channel}
  dit: {steps: 40, batch: 32, size: nano, target: flow, learn_sigma: false, precision: fp32,
        ema: 0.9, optimiser: {lr: 0.003}}
evaluate:
  reconstruction: {on: [photos-eval], images: 70, metrics: [psnr, rkid_lite0]}
  generation:
    {on: [photos-eval], images: 75, originals: 70, metrics: [gkid_lite0], steps: 6}
"""

CLIPS = """\
format: 1
study: clips
axes:
  tokenizer.latent_tokens: [null, 6]
data: {train: clips-train, resolution: 16, images: 12, frames: 4}
tokenizer: {encoder: nano, decoder: nano, q: 2, p: 8, c: 4, lengths: [2, 6]}
stages:
  stage1: {steps: 6, batch: 4, precision: fp32, optimiser: {lr: 0.003}, loss: {lpips: 0}}
  stage2:
    {steps: 3, batch: 4, precision: fp32, discriminator_width: 0.03125, loss: {lpips: 0}}
  dit: {steps: 6, batch: 8, size: nano, precision: fp32}
evaluate:
  reconstruction: {on: [clips-eval], images: 9, metrics: [psnr]}
  generation: {on: [clips-eval], images: 9, metrics: [gkid_lite0], steps: 3}
"""


@pytest.fixture(scope="module", autouse=True)
def _settings_of_the_process() -> Iterator[None]:
    """Attempts in this process set threads and determinism; other tests come after."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


class Done:
    """Every task of a plan, worked on once and in order."""

    def __init__(self, root: Path, text: str) -> None:
        self.root = root
        self.plan: Plan = plan_of(root, text)
        self.results: dict[str, TaskResult] = {}
        for name, task in self.plan.tasks.items():
            self.results[name] = attempt(freeze(self.plan, task, root))

    def tasks(self, kind: str) -> list[Task]:
        return [task for task in self.plan.tasks.values() if task.kind == kind]

    def one(self, kind: str) -> tuple[Path, TaskResult]:
        (task,) = self.tasks(kind)
        return self.root / task.id, self.results[task.fingerprint]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("photos"), PHOTOS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.mark.slow
def test_one_dit_serves_all_scales(photos: Done) -> None:
    counts = {kind: len(photos.tasks(kind)) for kind in ("stage1", "stage2", "latents", "dit")}
    assert counts == dict.fromkeys(counts, 1)
    folders = [photos.root / task.id for task in photos.tasks("generate")]
    plain, guided = (np.load(folder / "samples.npy") for folder in folders)
    assert plain.shape == guided.shape == (64, 32, 32, 3) and plain.dtype == np.uint8
    assert not np.array_equal(plain, guided)
    for task, folder in zip(photos.tasks("generate"), folders, strict=True):
        result = photos.results[task.fingerprint]
        (value,) = result.metrics
        assert (value.name, value.dataset, value.n) == ("gkid_lite0", "photos-eval", 75)
        assert [file.name for file in result.files] == ["samples.npy", "sheet.png"]
        # Nine classes, eight samples of each.
        with Image.open(folder / "sheet.png") as sheet:
            assert sheet.size == (8 * 32, 9 * 32)
        # All samples are gone once they are measured and recorded.
        assert not list(folder.glob("generated.*"))


@pytest.mark.slow
def test_samples_are_what_the_recorded_models_draw(photos: Done) -> None:
    """From the files alone, by the library: sample i has class i mod 9."""
    (dit_folder, _), (latents, _) = photos.one("dit"), photos.one("latents")
    guided = photos.tasks("generate")[1]
    assert json.loads(guided.identity)["config"]["sampling"]["cfg"] == 3.0
    made = sample(
        load_dit(dit_folder / "weights.safetensors"),
        load_tokenizer(latents / "weights.safetensors"),
        np.arange(64) % 9,
        sampling=Sampling(steps=6, cfg=3.0),
        seed=0,
    )
    assert np.array_equal(made, np.load(photos.root / guided.id / "samples.npy"))


@pytest.mark.slow
def test_stage_2_goes_on_from_stage_1_and_is_what_is_measured(photos: Done) -> None:
    (before, _), (after, result) = photos.one("stage1"), photos.one("stage2")
    first, second = (load_tokenizer(folder / "weights.safetensors") for folder in (before, after))
    left, right = first.state_dict(), second.state_dict()
    changed = {name.partition(".")[0] for name in left if not torch.equal(left[name], right[name])}
    assert "decoder" in changed and not changed & {"encoder", "to_moments", "embed"}
    assert result.values["discriminator_parameters"] > 0
    assert {"hinge", "adversarial"} <= result.values["parts_recent"].keys()
    (measured,) = photos.tasks("reconstruct")
    parents = {role: photos.plan.tasks[name].kind for role, name in measured.parents}
    assert parents["tokenizer"] == "stage2"
    for folder in (before, after):
        assert not list((folder / "checkpoints").glob("step-*"))
        assert list((folder / "sheets").glob("*.png"))


@pytest.mark.slow
def test_files_of_weights_say_all_that_led_to_them(photos: Done) -> None:
    for kind, knows in (
        ("stage1", {"tokenizer", "stage1"}),
        ("stage2", {"tokenizer", "stage1", "stage2"}),
        ("latents", {"tokenizer", "stage1", "stage2", "latents"}),
        ("dit", {"tokenizer", "stage1", "stage2", "latents", "dit", "classes"}),
    ):
        folder, _ = photos.one(kind)
        read = read_dit_about if kind == "dit" else read_about
        about = read(folder / "weights.safetensors")
        assert (about["kind"], about["task"], about["study"]) == (kind, folder.name, "pipeline")
        assert knows <= about["config"].keys()
        # Settings that identities leave out while they have their default are there too.
        assert about["config"]["stage1"]["loss"]["dino"] == 0.0
    # The numbers are those of the training that made the weights.
    latents, _ = photos.one("latents")
    assert read_about(latents / "weights.safetensors")["metrics"]["steps"] == 12


@pytest.mark.slow
def test_latents_are_normalised_by_what_is_recorded(photos: Done) -> None:
    folder, result = photos.one("latents")
    latents = open_latents(folder)
    assert (len(latents), latents.mirrored, latents.tokens, latents.c) == (90, True, 16, 4)
    assert latents.normalisation.mode == "per-channel"
    assert result.values["std_per_channel"] == latents.normalisation.std_C.tolist()
    assert [file.name for file in result.files] == [
        *("mean.npy", "logvar.npy", "labels.npy", "weights.safetensors"),
    ]
    _, trained = photos.one("dit")
    assert trained.values["latent_std"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_the_dit_learns(photos: Done) -> None:
    _, result = photos.one("dit")
    curve = [point["loss"] for point in result.values["curve"]]
    assert np.mean(curve[-10:]) < 0.8 * np.mean(curve[:5])
    assert result.values["events"] == []


LOOKS = {
    "prepare": (0, 0),
    "reference": (1, 1),
    "stage1": (5, 4),
    "stage2": (3, 3),
    "latents": (2, 1),
    "dit": (4, 5),
    "reconstruct": (1, 1),
    "generate": (1, 1),
}
"""Kind -> the look at which it is stopped, and then that at which what goes on is killed."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOOKS)
def test_stopped_and_killed_it_ends_with_the_same_bytes(
    photos: Done, kind: str, tmp_path: Path
) -> None:
    task = photos.tasks(kind)[-1]
    for parent in {photos.plan.tasks[name].id for _, name in task.parents}:
        (tmp_path / parent).symlink_to(photos.root / parent)
    folder = freeze(photos.plan, task, tmp_path)
    stop, kill = LOOKS[kind]
    left = iter(range(stop))
    with pytest.raises(Stopped):
        work_on(folder, lambda: next(left, None) is None)
    kill_at(folder, kill)
    assert not (folder / "result.json").exists()
    result = attempt(folder, 3)
    assert lasting(result) == lasting(photos.results[task.fingerprint])
    if kind in ("stage1", "stage2", "dit"):
        # A kill loses the checkpoint that was on its way, and no more.
        assert result.values["resumed_from"] in (stop + kill - 1, stop + kill)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_clips_by_grid_and_by_latent_tokens(clips: Done) -> None:
    for task, grid, positions in zip(
        clips.tasks("dit"), ((2, 2, 2), (6, 1, 1)), ("axial", "1d"), strict=True
    ):
        spec = load_dit(clips.root / task.id / "weights.safetensors").spec
        assert (spec.grid, spec.positions, spec.learn_sigma) == (grid, positions, True)
        assert spec.classes == 6
    for task in clips.tasks("generate"):
        made = np.load(clips.root / task.id / "samples.npy")
        assert made.shape == (9, 4, 16, 16, 3)
        (value,) = clips.results[task.fingerprint].metrics
        assert (value.name, value.n) == ("gkid_lite0", 9)
