"""Does training learn, refuse what it must, and resume to the byte?"""

from __future__ import annotations

import dataclasses
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vitok_core.data import SampleSet, open_prepared, prepare
from vitok_core.errors import CheckpointError, DataError, NonFiniteError, SpecError, Stopped
from vitok_core.losses import Stage1Loss
from vitok_core.spec import TokenizerSpec, training_flops
from vitok_core.tokenizer import load_tokenizer
from vitok_core.train import (
    Precision,
    Progress,
    Stage1Config,
    Stage1Result,
    discard_checkpoints,
    learning_rate,
    train_stage1,
)

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
CONFIG = Stage1Config(steps=6, batch=8, lr=1e-3, loss=Stage1Loss(lpips_weight=0.0), seed=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-train", resolution=16, images=45, folder=folder)
    return open_prepared(folder)


def train(
    folder: Path,
    images: SampleSet,
    config: Stage1Config = CONFIG,
    *,
    stop_at: int | None = None,
    crash_at: int | None = None,
    micro_batch: int | None = None,
    checkpoint_s: float = 0.0,
    progress: Callable[[Progress], None] | None = None,
) -> Stage1Result:
    """Train with a checkpoint after every step; stop or crash before a step of this call."""
    asked = iter(range(10**6))

    def should_stop() -> bool:
        step = next(asked)
        if step == crash_at:
            raise RuntimeError("crash")
        return step == stop_at

    return train_stage1(
        SPEC,
        config,
        images,
        folder,
        checkpoint_s=checkpoint_s,
        micro_batch=micro_batch,
        progress=progress,
        should_stop=should_stop,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_at_any_step_gives_the_same_bytes(
    precision: Precision, photos: SampleSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, precision=precision)
    whole = train(tmp_path / "whole", photos, config, checkpoint_s=math.inf)
    assert whole.resumed_from == 0
    for step in range(CONFIG.steps) if precision == "fp32" else [2]:
        folder = tmp_path / f"stopped-{step}"
        with pytest.raises(Stopped, match=f"step {step} of 6"):
            train(folder, photos, config, stop_at=step, checkpoint_s=math.inf)
        torch.manual_seed(step)  # nothing may depend on the global generator
        resumed = train(folder, photos, config)
        assert resumed.resumed_from == step
        assert resumed.weights.read_bytes() == whole.weights.read_bytes()
        for name in ("loss", "loss_recent", "curve", "kl_per_channel", "active_units", "flops"):
            assert getattr(resumed, name) == getattr(whole, name), name


def test_crashed_between_checkpoints_gives_the_same_bytes(
    photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", photos)
    folder = tmp_path / "crashed"
    with pytest.raises(Stopped):
        train(folder, photos, stop_at=2, checkpoint_s=math.inf)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            train(folder, photos, crash_at=3, checkpoint_s=math.inf)
    unfinished = folder / "checkpoints" / ".step-0000000003.pt.1.tmp"
    unfinished.touch()
    resumed = train(folder, photos)
    assert not unfinished.exists()
    assert resumed.resumed_from == 2
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_train import CONFIG, SPEC
from vitok_core.data import open_prepared
from vitok_core.train import train_stage1
asked = iter(range(99))
def kill_at_step_4():
    if next(asked) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return False
train_stage1(SPEC, CONFIG, open_prepared(Path({data!r})), Path({folder!r}), checkpoint_s=0.0,
             should_stop=kill_at_step_4)
"""


@pytest.mark.slow
def test_killed_process_gives_the_same_bytes(tmp_path: Path) -> None:
    prepare("photos-train", resolution=16, images=45, folder=tmp_path / "data")
    code = KILLED.format(
        tests=str(Path(__file__).parent), data=str(tmp_path / "data"), folder=str(tmp_path / "run")
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    images = open_prepared(tmp_path / "data")
    resumed = train(tmp_path / "run", images)
    assert resumed.resumed_from == 4
    whole = train(tmp_path / "whole", images)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", photos)
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError):
        train(folder, photos, crash_at=4)
    newest = folder / "checkpoints" / "step-0000000004.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    told: list[Progress] = []
    resumed = train(folder, photos, progress=told.append)
    assert resumed.resumed_from == 3
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert "step-0000000004.pt was damaged" in resumed.notes[0]
    assert told[0].notes == resumed.notes
    assert newest.with_suffix(".pt.damaged").exists()


def test_without_a_whole_checkpoint_training_starts_again(
    photos: SampleSet, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        train(folder, photos, stop_at=3, checkpoint_s=math.inf)
    (folder / "checkpoints" / "step-0000000003.sha256").unlink()
    again = train(folder, photos)
    assert again.resumed_from == 0
    assert len(again.notes) == 1
    assert again.weights.read_bytes() == train(tmp_path / "whole", photos).weights.read_bytes()


def test_two_checkpoints_are_kept_until_they_are_discarded(
    photos: SampleSet, tmp_path: Path
) -> None:
    train(tmp_path, photos)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [
        "step-0000000004.pt",
        "step-0000000004.sha256",
        "step-0000000005.pt",
        "step-0000000005.sha256",
    ]
    assert discard_checkpoints(tmp_path) > 10_000
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_checkpoints_of_other_settings_are_not_continued(photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, photos, stop_at=1)
    with pytest.raises(CheckpointError, match=r"lr: 0.001 there, 0.002 here"):
        train(tmp_path, photos, dataclasses.replace(CONFIG, lr=2e-3))
    with pytest.raises(CheckpointError, match="images: 45 there, 44 here"):
        train(tmp_path, photos.first(44))


def test_everything_that_should_changes_the_weights(photos: SampleSet, tmp_path: Path) -> None:
    variants = {
        "as is": CONFIG,
        "seed": dataclasses.replace(CONFIG, seed=4),
        "flip": dataclasses.replace(CONFIG, flip=False),
        "warmup": dataclasses.replace(CONFIG, warmup=0.5),
        "weight_decay": dataclasses.replace(CONFIG, weight_decay=0.5),
        "betas": dataclasses.replace(CONFIG, betas=(0.5, 0.9)),
        "clip": dataclasses.replace(CONFIG, clip=1e-3),
        "kl_weight": dataclasses.replace(CONFIG, loss=Stage1Loss(lpips_weight=0, kl_weight=1.0)),
        "pixel": dataclasses.replace(CONFIG, loss=Stage1Loss(lpips_weight=0, pixel="l1")),
    }
    weights = {
        name: train(tmp_path / name, photos, config).weights.read_bytes()
        for name, config in variants.items()
    }
    assert len(set(weights.values())) == len(variants)


def test_micro_batches_change_rounding_only(photos: SampleSet, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", photos)
    parts = train(tmp_path / "parts", photos, micro_batch=3)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    left, right = (load_tokenizer(result.weights).state_dict() for result in (whole, parts))
    for name, value in left.items():
        assert torch.allclose(value, right[name], atol=2e-4), name


def test_training_learns_and_says_how(photos: SampleSet, tmp_path: Path) -> None:
    told: list[Progress] = []
    config = dataclasses.replace(CONFIG, steps=120, batch=16, lr=3e-3, warmup=0.1)
    result = train(tmp_path, photos, config, checkpoint_s=math.inf, progress=told.append)
    assert result.loss_recent < 0.5 * result.curve[0].loss
    assert (told[0].step, told[-1].step) == (1, 120)
    assert len(told) == len({progress.step for progress in told}) < 120
    assert told[-1].eta_s == 0
    assert set(told[-1].parts) == {"pixel", "kl"}
    assert told[-1].loss == pytest.approx(
        told[-1].parts["pixel"] + 1e-3 * told[-1].parts["kl"], rel=1e-5
    )
    assert [point.step for point in result.curve] == list(range(2, 121, 2))
    assert result.images == 120 * 16
    assert result.flops == training_flops(SPEC, result.images)
    assert len(result.kl_per_channel) == SPEC.c
    assert 1 <= result.active_units <= SPEC.c
    assert result.images_per_s > 0
    tokenizer = load_tokenizer(result.weights)
    assert tokenizer.spec == SPEC


def test_the_perceptual_loss_trains_too(tmp_path: Path) -> None:
    prepare("photos-train", resolution=32, images=18, folder=tmp_path / "data")
    images = open_prepared(tmp_path / "data")
    spec = dataclasses.replace(SPEC, resolution=32)
    config = dataclasses.replace(CONFIG, steps=3, batch=4, loss=Stage1Loss())
    result = train_stage1(spec, config, images, tmp_path / "run")
    assert 0 < result.parts_recent["lpips"] < 2


def test_a_loss_that_explodes_is_not_learned_from(photos: SampleSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, lr=1e30, final_lr=0.0, warmup=0.0, clip=None)
    with pytest.raises(NonFiniteError, match=r"step 2: loss .*the update was not made"):
        train(tmp_path, photos, config)
    assert not (tmp_path / "weights.safetensors").exists()
    assert (tmp_path / "checkpoints" / "step-0000000001.pt").exists()
    assert not (tmp_path / "checkpoints" / "step-0000000002.pt").exists()


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    config = dataclasses.replace(CONFIG, steps=101, warmup=0.1, lr=1.0, final_lr=0.2)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2)
    assert all(np.diff(rates[10:]) < 0)
    assert learning_rate(dataclasses.replace(config, steps=1, warmup=0.0), 0) == 1.0
    assert learning_rate(dataclasses.replace(config, steps=10, warmup=1.0), 9) == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"betas": (0.9, 1.0)},
        {"weight_decay": -1.0},
        {"warmup": 1.5},
        {"final_lr": 1.0},
        {"clip": 0.0},
        {"precision": "fp16"},
        {"seed": -1},
    ],
)
def test_settings_out_of_range(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError) as caught:
        dataclasses.replace(CONFIG, **changes).check(SPEC)  # type: ignore[arg-type]
    assert caught.value.field == next(iter(changes))


def test_images_and_tokenizers_that_do_not_fit(photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="16 px, the tokenizer takes 32 px"):
        train_stage1(dataclasses.replace(SPEC, resolution=32), CONFIG, photos, tmp_path)
    with pytest.raises(SpecError, match="cannot train a video tokenizer"):
        train_stage1(dataclasses.replace(SPEC, frames=2), CONFIG, photos, tmp_path)
    with pytest.raises(SpecError, match="micro_batch"):
        train(tmp_path, photos, micro_batch=0)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write to"):
        train(tmp_path / "file", photos)
