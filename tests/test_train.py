"""Does training learn, refuse what it must, and resume to the byte?"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from vitok_core.data import Sampler, SampleSet, open_prepared, prepare
from vitok_core.errors import CheckpointError, DataError, NonFiniteError, SpecError, Stopped
from vitok_core.files import sha256_of
from vitok_core.settings import Loss, Mistake, Optimiser, Run, Stage1
from vitok_core.spec import TokenizerSpec, training_flops
from vitok_core.tokenizer import load_tokenizer, read_about
from vitok_core.train import Stage1Result, TrainingProgress, discard_checkpoints, train_stage1
from vitok_core.train._history import History, HistoryFile

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
CONFIG = Stage1(
    steps=6, batch=8, precision="fp32", optimiser=Optimiser(lr=1e-3), loss=Loss(lpips=0.0), seed=3
)


def with_optimiser(config: Stage1 = CONFIG, **changes: Any) -> Stage1:
    """The same settings, the optimiser's changed."""
    optimiser = dataclasses.replace(config.optimiser, **changes)
    return dataclasses.replace(config, optimiser=optimiser)


@pytest.fixture(autouse=True, scope="module")
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
    config: Stage1 = CONFIG,
    *,
    stop_at: int | None = None,
    crash_at: int | None = None,
    micro_batch: int | None = None,
    checkpoint_s: float = 0.0,
    progress: Callable[[TrainingProgress], None] | None = None,
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
        run=Run(checkpoint_s=checkpoint_s, micro_batch=micro_batch),
        progress=progress,
        should_stop=should_stop,
    )


@pytest.fixture(scope="module")
def whole(photos: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> Stage1Result:
    """What came of training without a stop."""
    return train(tmp_path_factory.mktemp("whole"), photos, checkpoint_s=1e9)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.sets(st.integers(0, CONFIG.steps - 1), max_size=3))
def test_stopped_at_any_steps_gives_the_same_bytes(
    stops: set[int],
    photos: SampleSet,
    whole: Stage1Result,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    done = 0
    for step in sorted(stops):
        with pytest.raises(Stopped, match=f"step {step} of 6"):
            train(folder, photos, stop_at=step - done, checkpoint_s=1e9)
        torch.manual_seed(step)  # nothing may depend on the global generator
        done = step
    resumed = train(folder, photos)
    assert resumed.resumed_from == done
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    for name in ("loss", "loss_recent", "curve", "kl_per_channel", "active_units", "flops"):
        assert getattr(resumed, name) == getattr(whole, name), name


VARIANTS: dict[str, tuple[TokenizerSpec, Stage1]] = {
    "bf16": (SPEC, dataclasses.replace(CONFIG, precision="bf16")),
    "ema": (SPEC, dataclasses.replace(CONFIG, ema=0.9)),
    "latent and masked": (dataclasses.replace(SPEC, latent_tokens=3, lengths=(1, 2, 3)), CONFIG),
    "masked": (dataclasses.replace(SPEC, lengths=(1, 4)), CONFIG),
    "video": (dataclasses.replace(SPEC, q=2, frames=4, causal=True), CONFIG),
    "plain code": (
        dataclasses.replace(SPEC, bottleneck="layernorm"),
        dataclasses.replace(CONFIG, loss=Loss(lpips=0.0, kl=0.0)),
    ),
}


def clips(frames: int, count: int = 12) -> SampleSet:
    """Clips of noise; what they show is not what these tests are about."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, frames, 16, 16, 3), np.uint8)
    return SampleSet(samples=pixels, labels=np.zeros(count, np.int64))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_and_resumes_to_the_byte(
    name: str, photos: SampleSet, tmp_path: Path
) -> None:
    spec, config = VARIANTS[name]
    samples = clips(spec.frames) if spec.frames > 1 else photos
    config = dataclasses.replace(config, steps=4)
    whole = train_stage1(spec, config, samples, tmp_path / "whole")
    steps = iter(range(9))
    with pytest.raises(Stopped):
        train_stage1(spec, config, samples, tmp_path / "run", should_stop=lambda: next(steps) == 2)
    resumed = train_stage1(spec, config, samples, tmp_path / "run")
    assert resumed.resumed_from == 2
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert load_tokenizer(whole.weights).spec == spec
    assert all(kl == 0 for kl in whole.kl_per_channel) == (spec.bottleneck == "layernorm")


def test_kept_lengths_are_drawn_and_change_what_is_learned(
    photos: SampleSet, tmp_path: Path
) -> None:
    def tensors(name: str, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
        spec = dataclasses.replace(SPEC, lengths=lengths)
        return load_tokenizer(
            train_stage1(spec, CONFIG, photos, tmp_path / name).weights
        ).state_dict()

    plain, always_all, drawn = tensors("plain", ()), tensors("all", (4,)), tensors("drawn", (1, 4))
    # Kept whole, the mask token is never seen, and the rest learns as without it.
    for name, value in plain.items():
        torch.testing.assert_close(always_all[name], value, rtol=1e-4, atol=1e-6)
    assert len(always_all) == len(drawn) == len(plain) + 1
    assert any(not torch.allclose(plain[name], drawn[name], rtol=0.01) for name in plain)


def test_the_average_is_what_is_written(photos: SampleSet, tmp_path: Path) -> None:
    """By hand: the weights after every step, averaged."""
    decay, steps = 0.75, 3
    average: dict[str, torch.Tensor] = {}
    config = dataclasses.replace(with_optimiser(warmup=0.0, schedule="constant"), steps=steps)
    for step in range(steps + 1):
        folder = tmp_path / str(step)
        with contextlib.suppress(Stopped):
            train(folder, photos, config, stop_at=step)
        state = torch.load(newest(folder), weights_only=True) if step < steps else None
        weights = (
            state["state"]["model"]
            if state
            else load_tokenizer(folder / "weights.safetensors").state_dict()
        )
        for name, value in weights.items():
            before = average.get(name, value)
            average[name] = decay * before + (1 - decay) * value
    config = dataclasses.replace(config, ema=decay)
    averaged = load_tokenizer(train(tmp_path / "ema", photos, config).weights).state_dict()
    for name, value in average.items():
        torch.testing.assert_close(averaged[name], value, rtol=1e-5, atol=1e-6)


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step-*.pt"))


def test_recomputed_activations_give_the_same_bytes(
    photos: SampleSet, whole: Stage1Result, tmp_path: Path
) -> None:
    again = train_stage1(SPEC, CONFIG, photos, tmp_path, run=Run(recompute_activations=True))
    assert again.weights.read_bytes() == whole.weights.read_bytes()


GOLDEN = (
    0.867656,
    0.805904,
    0.587057,
    0.50865,
    0.591518,
    0.44129,
    0.406348,
    0.371555,
    0.383584,
    0.360403,
    0.323604,
    0.333265,
    0.352472,
    0.277193,
    0.276761,
    0.306253,
    0.285892,
    0.271358,
    0.230122,
    0.335271,
)


def test_the_first_20_losses_are_the_known_ones(photos: SampleSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=20)
    result = train(tmp_path, photos, config, checkpoint_s=1e9)
    assert [point.loss for point in result.curve] == pytest.approx(GOLDEN, rel=1e-3)


def test_a_spike_is_an_event_and_training_goes_on(photos: SampleSet, tmp_path: Path) -> None:
    # Black pictures, and then one step of white ones: the sampler's order says when.
    config = dataclasses.replace(CONFIG, steps=45, batch=1, flip=False)
    config = with_optimiser(config, lr=3e-3, warmup=0.0)
    order = Sampler(45, config.seed).draw(0, 45).indices
    pixels = np.zeros((45, 16, 16, 3), np.uint8)
    pixels[order[40]] = 255
    samples = SampleSet(samples=pixels, labels=np.zeros(45, np.int64))
    told: list[TrainingProgress] = []
    with pytest.raises(Stopped):
        train(tmp_path, samples, config, stop_at=42, checkpoint_s=1e9)
    result = train(tmp_path, samples, config, progress=told.append)
    assert [(event.step, event.kind) for event in result.events] == [(41, "loss spike")]
    assert told[-1].notes == (result.events[0].text,)
    assert "step 41: loss" in told[-1].notes[0]


def test_the_weights_file_says_where_it_comes_from(photos: SampleSet, tmp_path: Path) -> None:
    about = {"study": "one", "task": "ab12", "metrics": {"psnr": 20.5}}
    result = train_stage1(SPEC, CONFIG, photos, tmp_path, about=about)
    said = read_about(result.weights)
    assert (said["study"], said["task"], said["metrics"]["psnr"]) == ("one", "ab12", 20.5)
    assert said["metrics"]["loss_recent"] == result.loss_recent
    assert json.loads(json.dumps(said)) == said
    assert about == {"study": "one", "task": "ab12", "metrics": {"psnr": 20.5}}


@pytest.mark.parametrize("frames", [1, 6])
def test_sheets_show_originals_above_reconstructions(
    frames: int, photos: SampleSet, tmp_path: Path
) -> None:
    from PIL import Image

    samples = photos if frames == 1 else clips(frames, count=3)
    spec = dataclasses.replace(SPEC, frames=frames)
    result = train_stage1(spec, CONFIG, samples, tmp_path / "with", run=Run(sheet_every=4))
    assert [path.name for path in (tmp_path / "with" / "sheets").iterdir()] == ["step-0000004.png"]
    with Image.open(tmp_path / "with" / "sheets" / "step-0000004.png") as image:
        sheet = np.asarray(image)
    shown, rows = (8, 2) if frames == 1 else (3, 8)
    assert sheet.shape == (rows * 16, shown * 16, 3)
    chosen = np.arange(shown) * len(samples) // shown
    first = samples.samples[chosen] if frames == 1 else samples.samples[chosen, 0]
    assert np.array_equal(sheet[:16], np.concatenate(list(first), axis=1))
    assert not np.array_equal(sheet[:16], sheet[16:32])
    without = train_stage1(spec, CONFIG, samples, tmp_path / "without")
    assert result.weights.read_bytes() == without.weights.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_training_rounds_otherwise_only(photos: SampleSet, tmp_path: Path) -> None:
    # One block a tower: compiling takes longer the more there are.
    spec = dataclasses.replace(SPEC, encoder="pico", decoder="pico", lengths=(1, 4))
    eager = train_stage1(spec, CONFIG, photos, tmp_path / "eager")
    config = dataclasses.replace(CONFIG, compile=True)
    compiled = train_stage1(spec, config, photos, tmp_path / "compiled")
    assert [point.loss for point in compiled.curve] == pytest.approx(
        [point.loss for point in eager.curve], rel=1e-4
    )
    left, right = (load_tokenizer(result.weights).state_dict() for result in (eager, compiled))
    for name, value in left.items():
        assert torch.allclose(value, right[name], atol=1e-3), name


def test_crashed_between_checkpoints_gives_the_same_bytes(
    photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", photos)
    folder = tmp_path / "crashed"
    with pytest.raises(Stopped):
        train(folder, photos, stop_at=2, checkpoint_s=1e9)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            train(folder, photos, crash_at=3, checkpoint_s=1e9)
    unfinished = folder / "checkpoints" / ".step-0000000003.pt.1.tmp"
    unfinished.touch()
    resumed = train(folder, photos)
    assert not unfinished.exists()
    assert resumed.resumed_from == 2
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_train import CONFIG, SPEC
from vitok_core.data import open_prepared
from vitok_core.settings import Run
from vitok_core.train import train_stage1
asked = iter(range(99))
def kill_at_step_4():
    if next(asked) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return False
train_stage1(SPEC, CONFIG, open_prepared(Path({data!r})), Path({folder!r}),
             run=Run(checkpoint_s=0.0), should_stop=kill_at_step_4)
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
    assert resumed.resumed_from in (3, 4)  # a kill loses the checkpoint that was on its way
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
    told: list[TrainingProgress] = []
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
        train(folder, photos, stop_at=3, checkpoint_s=1e9)
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
        "history.bin",
        "step-0000000004.pt",
        "step-0000000004.sha256",
        "step-0000000005.pt",
        "step-0000000005.sha256",
    ]
    assert discard_checkpoints(tmp_path) > 10_000
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_checkpoint_of_the_format_before_is_continued(photos: SampleSet, tmp_path: Path) -> None:
    """It holds the history itself."""
    whole = train(tmp_path / "whole", photos)
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        train(folder, photos, stop_at=4, checkpoint_s=1e9)
    path = folder / "checkpoints" / "step-0000000004.pt"
    contents = torch.load(path, weights_only=True)
    history, kept = History(CONFIG.steps), HistoryFile(path.parent)
    for head, values in kept.read(contents.pop("history")):
        history.load(head["first"], values)
    kept.path.unlink()
    events = [[1, "loss spike", "long ago"]]
    contents["state"]["history"] = {"values": history.part(0, 4), "events": events}
    torch.save(contents | {"format": 2}, path)
    path.with_suffix(".sha256").write_text(f"{sha256_of(path)}\n")

    with pytest.raises(Stopped):  # and is then written in the format of today
        train(folder, photos, stop_at=1, checkpoint_s=1e9)
    resumed = train(folder, photos)
    assert (resumed.resumed_from, resumed.notes) == (5, ())
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert resumed.curve == whole.curve
    assert [event.text for event in resumed.events] == ["long ago"]


def test_a_damaged_history_costs_the_curve_and_not_the_weights(
    photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", photos)
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        train(folder, photos, stop_at=4, checkpoint_s=1e9)
    with (folder / "checkpoints" / "history.bin").open("r+b") as file:
        file.truncate(99)
    resumed = train(folder, photos)
    assert load_file(resumed.weights).keys() == load_file(whole.weights).keys()
    for name, tensor in load_file(whole.weights).items():
        assert torch.equal(tensor, load_file(resumed.weights)[name]), name
    assert "history.bin is damaged; the loss curve begins at step 4" in resumed.notes[0]
    assert resumed.curve == whole.curve[4:]


def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    photos: SampleSet, tmp_path: Path
) -> None:
    def lose_the_folder(at: TrainingProgress) -> None:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)

    with pytest.raises(CheckpointError, match="cannot write"):
        train(tmp_path, photos, progress=lose_the_folder)
    assert not (tmp_path / "weights.safetensors").exists()


def test_checkpoints_of_other_settings_are_not_continued(photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, photos, stop_at=1)
    with pytest.raises(CheckpointError, match=r"lr: 0.001 there, 0.002 here"):
        train(tmp_path, photos, with_optimiser(lr=2e-3))
    with pytest.raises(CheckpointError, match="samples: 45 there, 44 here"):
        train(tmp_path, photos.first(44))


def test_a_checkpoint_from_before_a_setting_existed_is_continued(
    photos: SampleSet, whole: Stage1Result, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, photos, stop_at=3, checkpoint_s=1e9)
    (path,) = (tmp_path / "checkpoints").glob("*.pt")
    contents = torch.load(path, weights_only=True)
    del contents["identity"]["config"]["optimiser"]["decay"]
    with path.open("wb") as file:
        torch.save(contents, file)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match="decay: 'all' there, 'matrices' here"):
        train(tmp_path, photos, with_optimiser(decay="matrices"))
    assert train(tmp_path, photos).weights.read_bytes() == whole.weights.read_bytes()


def test_without_clip_gradients_stay_as_they_are_and_are_measured(
    photos: SampleSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=3)
    norms: dict[float | None, list[float]] = {}
    weights = {}
    for clip in (None, 1e6, 1e-3):
        norms[clip] = []
        result = train(
            tmp_path / str(clip),
            photos,
            with_optimiser(config, clip=clip),
            checkpoint_s=1e9,
            progress=lambda told, into=norms[clip]: into.append(told.grad_norm),
        )
        weights[clip] = result.weights.read_bytes()
    assert norms[None] and norms[None] == norms[1e6]
    assert weights[None] == weights[1e6] != weights[1e-3]


def test_everything_that_should_changes_the_weights(photos: SampleSet, tmp_path: Path) -> None:
    variants = {
        "as is": CONFIG,
        "seed": dataclasses.replace(CONFIG, seed=4),
        "flip": dataclasses.replace(CONFIG, flip=False),
        "warmup": with_optimiser(warmup=0.5),
        "weight_decay": with_optimiser(weight_decay=0.5),
        "betas": with_optimiser(betas=(0.5, 0.9)),
        "clip": with_optimiser(clip=1e-3),
        "decay": with_optimiser(weight_decay=0.5, decay="matrices"),
        "kl": dataclasses.replace(CONFIG, loss=Loss(lpips=0, kl=1.0)),
        "pixel": dataclasses.replace(CONFIG, loss=Loss(lpips=0, pixel="l1")),
    }
    weights = {
        name: train(
            tmp_path / name, photos, dataclasses.replace(config, steps=3), checkpoint_s=1e9
        ).weights.read_bytes()
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
    told: list[TrainingProgress] = []
    config = dataclasses.replace(with_optimiser(lr=3e-3, warmup=0.1), steps=120, batch=8)
    result = train(tmp_path, photos, config, checkpoint_s=1e9, progress=told.append)
    assert result.loss_recent < 0.5 * result.curve[0].loss
    assert (told[0].step, told[-1].step) == (1, 120)
    assert len(told) == len({progress.step for progress in told}) < 120
    assert told[-1].eta_s == 0
    assert set(told[-1].parts) == {"pixel", "kl"}
    assert told[-1].loss == pytest.approx(
        told[-1].parts["pixel"] + 1e-3 * told[-1].parts["kl"], rel=1e-5
    )
    assert [point.step for point in result.curve] == list(range(2, 121, 2))
    assert result.samples == 120 * 8
    assert result.flops == training_flops(SPEC, result.samples)
    assert len(result.kl_per_channel) == SPEC.c
    assert 1 <= result.active_units <= SPEC.c
    assert result.flops_per_s == pytest.approx(
        result.samples_per_s * training_flops(SPEC, 1), rel=1e-6
    )
    assert result.mfu is None  # no data sheet says what this CPU can do
    assert 10e6 < result.peak_memory_bytes < 50e9
    assert result.events == ()
    tokenizer = load_tokenizer(result.weights)
    assert tokenizer.spec == SPEC


def test_the_perceptual_loss_trains_too(tmp_path: Path) -> None:
    prepare("photos-train", resolution=32, images=18, folder=tmp_path / "data")
    images = open_prepared(tmp_path / "data")
    spec = dataclasses.replace(SPEC, resolution=32)
    config = dataclasses.replace(CONFIG, steps=3, batch=4, loss=Loss(lpips_net="alex"))
    result = train_stage1(spec, config, images, tmp_path / "run")
    assert 0 < result.parts_recent["lpips"] < 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exploding(Optimiser):
    """A rate far above what settings allow."""

    lr: float = 1e30
    warmup: float = 0.0
    clip: float = 1e30

    def mistakes(self, where: str, steps: int | None = None) -> Iterator[Mistake]:
        return iter(())


def test_a_loss_that_explodes_is_not_learned_from(photos: SampleSet, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optimiser=Exploding(final_lr=0.0))
    with pytest.raises(NonFiniteError, match=r"step 2: loss .*the update was not made"):
        train(tmp_path, photos, config)
    assert not (tmp_path / "weights.safetensors").exists()
    assert (tmp_path / "checkpoints" / "step-0000000001.pt").exists()
    assert not (tmp_path / "checkpoints" / "step-0000000002.pt").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch": 0},
        {"precision": "fp16"},
        {"ema": 1.0},
        {"seed": -1},
        {"optimiser": Optimiser(lr=0.0)},
    ],
)
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        dataclasses.replace(CONFIG, **changes).check(SPEC)
    assert caught.value.field == ("lr" if "optimiser" in changes else next(iter(changes)))


def test_samples_and_tokenizers_that_do_not_fit(photos: SampleSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="16 px, the tokenizer takes 32 px"):
        train_stage1(dataclasses.replace(SPEC, resolution=32), CONFIG, photos, tmp_path)
    with pytest.raises(DataError, match="frames of a sample: 1, frames the tokenizer takes: 2"):
        train_stage1(dataclasses.replace(SPEC, frames=2), CONFIG, photos, tmp_path)
    with pytest.raises(DataError, match="frames of a sample: 4, frames the tokenizer takes: 1"):
        train_stage1(SPEC, CONFIG, clips(4), tmp_path)
    with pytest.raises(SpecError, match="micro_batch"):
        train(tmp_path, photos, micro_batch=0)
    with pytest.raises(SpecError, match="sheet_every"):
        train_stage1(SPEC, CONFIG, photos, tmp_path, run=Run(sheet_every=0))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write to"):
        train(tmp_path / "file", photos)
