"""Does a generator learn its codes, refuse what it must, and resume to the byte?"""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dit_entries import CONFIG, SPEC, TOKENIZER, make_latents
from dit_entries import train as train_as_torchrun_does
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitok_core.dit import DiT, load_dit, read_dit_about
from vitok_core.errors import CheckpointError, DataError, NonFiniteError, SpecError, Stopped
from vitok_core.generate import sample_codes
from vitok_core.latents import LatentSet, open_latents
from vitok_core.settings import DiTTraining, Optimiser, Run, Sampling
from vitok_core.spec import DiTSpec, dit_training_flops
from vitok_core.tokenizer import Normalisation
from vitok_core.train import SKIPPED, DiTResult, TrainingProgress, train_dit

SHORT = dataclasses.replace(CONFIG, steps=6)
PLAIN = dataclasses.replace(SPEC, learn_sigma=False)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_latents(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def latents(folder: Path) -> LatentSet:
    return open_latents(folder)


def train(
    folder: Path,
    latents: LatentSet,
    config: DiTTraining = SHORT,
    spec: DiTSpec = SPEC,
    *,
    stop_at: int | None = None,
    until: int | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    about: dict[str, Any] | None = None,
    checkpoint_s: float = 0.0,
    **options: Any,
) -> DiTResult:
    """Train with a checkpoint after every step; stop before a step of this call."""
    asked = iter(range(10**6))
    return train_dit(
        spec,
        config,
        latents,
        folder,
        run=Run(checkpoint_s=checkpoint_s, **options),
        until=until,
        about=about,
        progress=progress,
        should_stop=lambda: next(asked) == stop_at,
    )


@pytest.fixture(scope="module")
def whole(latents: LatentSet, tmp_path_factory: pytest.TempPathFactory) -> DiTResult:
    """What came of training without a stop."""
    return train(tmp_path_factory.mktemp("whole"), latents, checkpoint_s=1e9)


# --- resuming -------------------------------------------------------------------------------------


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stops=st.sets(st.integers(0, SHORT.steps - 1), max_size=3))
def test_stopped_at_any_steps_gives_the_same_bytes(
    stops: set[int],
    latents: LatentSet,
    whole: DiTResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    done = 0
    for step in sorted(stops):
        with pytest.raises(Stopped, match=f"step {step} of 6"):
            train(folder, latents, stop_at=step - done, checkpoint_s=1e9)
        torch.manual_seed(step)  # nothing may depend on the global generator
        done = step
    resumed = train(folder, latents)
    assert resumed.resumed_from == done
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    for name in ("loss", "loss_recent", "parts_recent", "curve", "flops", "latent_std"):
        assert getattr(resumed, name) == getattr(whole, name), name


VARIANTS: dict[str, tuple[DiTSpec, DiTTraining]] = {
    "v": (dataclasses.replace(PLAIN, target="v"), SHORT),
    "flow, 1-D positions": (dataclasses.replace(PLAIN, target="flow", positions="1d"), SHORT),
    "no classes, no average": (
        dataclasses.replace(PLAIN, classes=0),
        dataclasses.replace(SHORT, class_dropout=0.0, ema=None),
    ),
    "bf16, qk norm": (
        dataclasses.replace(SPEC, qk_norm=True),
        dataclasses.replace(SHORT, precision="bf16"),
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_and_resumes_to_the_byte(
    name: str, latents: LatentSet, tmp_path: Path
) -> None:
    spec, config = VARIANTS[name]
    with pytest.raises(Stopped):
        train(tmp_path / "run", latents, config, spec, stop_at=3)
    resumed = train(tmp_path / "run", latents, config, spec)
    straight = train(tmp_path / "straight", latents, config, spec)
    assert resumed.weights.read_bytes() == straight.weights.read_bytes()
    assert load_dit(resumed.weights).spec == spec


def test_checkpoints_of_other_settings_or_latents_are_not_continued(
    latents: LatentSet, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, latents, stop_at=3)
    with pytest.raises(CheckpointError, match=r"class_dropout: 0\.3 there, 0\.2 here"):
        train(tmp_path, latents, dataclasses.replace(SHORT, class_dropout=0.2))
    other = dataclasses.replace(latents.normalisation, mode="scalar")
    with pytest.raises(CheckpointError, match="normalisation: 'per-channel' there"):
        train(tmp_path, dataclasses.replace(latents, normalisation=other))


def test_micro_batches_and_recomputation_change_rounding_only(
    latents: LatentSet, whole: DiTResult, tmp_path: Path
) -> None:
    small = train(tmp_path / "small", latents, micro_batch=3)
    assert small.loss == pytest.approx(whole.loss, rel=1e-4)
    assert small.parts_recent == pytest.approx(whole.parts_recent, rel=1e-4)
    recomputed = train(tmp_path / "again", latents, recompute_activations=True)
    assert recomputed.weights.read_bytes() == whole.weights.read_bytes()


@pytest.mark.slow
def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    """Under torchrun itself; 7 codes are rows 0-2 and 3-6, in micro-batches of at most 2."""

    def torchrun(run: Path, *stop_at: str) -> None:
        entry = Path(__file__).with_name("dit_entries.py")
        module = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [sys.executable, *module, *map(str, (entry, folder, run, *stop_at))],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr

    alone = train_as_torchrun_does(folder, tmp_path / "one")
    assert alone is not None
    torchrun(tmp_path / "two", "9")
    two = tmp_path / "two" / "weights.safetensors"
    assert not two.exists()
    torchrun(tmp_path / "two")
    said, said_alone = (read_dit_about(path)["metrics"] for path in (two, alone.weights))
    assert said == pytest.approx(said_alone, rel=1e-5, abs=1e-6)
    left, right = (load_dit(path).state_dict() for path in (alone.weights, two))
    for name, tensor in left.items():
        largest = tensor.abs().max().clamp_min(1e-3)
        assert (tensor - right[name]).abs().max() / largest < 1e-5, name


@pytest.mark.slow
def test_compiled_training_rounds_otherwise_only(
    latents: LatentSet, whole: DiTResult, tmp_path: Path
) -> None:
    compiled = train(tmp_path, latents, dataclasses.replace(SHORT, compile=True))
    assert compiled.loss == pytest.approx(whole.loss, rel=1e-4)


# --- what is learned ------------------------------------------------------------------------------


# fmt: off
GOLDEN = [
    0.9316, 1.0303, 1.1077, 0.81668, 0.88336, 0.80641, 0.81583, 1.219, 1.04, 0.78409,
    0.94956, 0.75626, 0.95217, 0.73121, 0.65435, 0.92026, 0.64608, 0.67214, 0.68184, 0.53065,
]
# fmt: on


def test_the_first_twenty_losses_are_the_known_ones(latents: LatentSet, tmp_path: Path) -> None:
    result = train(tmp_path, latents, CONFIG, checkpoint_s=1e9)
    assert [point.loss for point in result.curve] == pytest.approx(GOLDEN, rel=1e-3)


def toy_latents(folder: Path, **changes: Any) -> LatentSet:
    """Codes that are their class: the mean is 2, 0 or -2 by label, the deviation 0.3."""
    labels = np.arange(30) % 3
    mean = np.broadcast_to((2.0 - 2.0 * labels)[:, None, None], (30, 4, 4)).astype(np.float32)
    one = torch.ones(4)
    statistics = Normalisation(
        mode="none", mean_C=0 * one, std_C=one, mean=0.0, std=1.0, samples=30
    )
    given: dict[str, Any] = {
        "mean": mean,
        "logvar": np.full_like(mean, 2 * math.log(0.3)),
        "labels": labels,
        "normalisation": statistics,
        "weights": folder / "weights.safetensors",
        **changes,
    }
    return LatentSet(**given)


LEARN = DiTTraining(
    precision="fp32",
    steps=150,
    batch=32,
    optimiser=Optimiser(lr=3e-3, weight_decay=0.0),
    flip=False,
    ema=0.9,
    seed=1,
)


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("flow", 90),
        pytest.param("v", 150, marks=pytest.mark.slow),
        # Near pure noise an error of eps is 157 times as large an error of the code.
        pytest.param("eps", 800, marks=pytest.mark.slow),
    ],
)
def test_it_learns_codes_by_class(target: str, steps: int, tmp_path: Path) -> None:
    spec = dataclasses.replace(PLAIN, target=target)
    config = dataclasses.replace(LEARN, steps=steps)
    result = train(tmp_path, toy_latents(tmp_path), config, spec, checkpoint_s=1e9)
    assert result.curve[0].loss > 2 * result.loss_recent
    dit = load_dit(result.weights)
    codes = sample_codes(dit, [0, 1, 2] * 8, sampling=Sampling(steps=25, cfg=1.0), seed=0)
    means = codes.reshape(8, 3, -1).mean(axis=(0, 2))
    assert means == pytest.approx([2.0, 0.0, -2.0], abs=0.4)


def test_what_is_recorded(tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    latents = toy_latents(tmp_path)
    config = dataclasses.replace(LEARN, steps=50, batch=24)
    result = train(
        tmp_path, latents, config, checkpoint_s=1e9, progress=told.append, about={"task": "t"}
    )
    parts = result.parts_recent
    assert {"mse", "vlb", "mse_0_25", "mse_25_50", "mse_50_75", "mse_75_100"} < parts.keys()
    assert result.loss_recent == pytest.approx(parts["mse"] + parts["vlb"], rel=1e-6)
    # Little noise is harder to see than much.
    assert parts["mse_0_25"] > parts["mse_75_100"]
    # Means of 2, 0 and -2, deviation of 0.3: the codes are not normalised, and that is told.
    assert result.latent_std == pytest.approx(math.sqrt(8 / 3 + 0.09), rel=0.05)
    assert result.latent_mean == pytest.approx(0.0, abs=0.15)
    assert result.flops == dit_training_flops(SPEC, 50 * 24)
    assert result.samples == 50 * 24 and result.mfu is None and result.peak_memory_bytes > 0
    assert told[-1].step == 50 and told[-1].loss == result.loss
    about = read_dit_about(result.weights)
    assert about["task"] == "t" and about["metrics"]["mse_recent"] == parts["mse"]


def test_codes_are_drawn_anew_and_normalised(tmp_path: Path) -> None:
    """A posterior without means gives codes of its own deviation, other ones at every step."""
    flat = toy_latents(tmp_path, mean=np.zeros((30, 4, 4), np.float32))
    half = dataclasses.replace(flat.normalisation, mode="scalar", std=0.3)
    config = dataclasses.replace(LEARN, steps=2, batch=256)
    plain = train(tmp_path / "a", flat, config)
    assert plain.latent_std == pytest.approx(0.3, rel=0.03)
    scaled = train(tmp_path / "b", dataclasses.replace(flat, normalisation=half), config)
    assert scaled.latent_std == pytest.approx(1.0, rel=0.03)
    sure = train(tmp_path / "c", dataclasses.replace(flat, logvar=None), config)
    assert sure.latent_std == 0.0
    means = [point.parts["latent_mean"] for point in plain.curve]
    assert means[0] != means[1]


@pytest.mark.parametrize(
    "change",
    [{"flip": False}, {"class_dropout": 0.0}, {"ema": None}, {"seed": 6}, {"batch": 8}],
    ids=str,
)
def test_every_setting_changes_the_weights(
    change: dict[str, Any], latents: LatentSet, whole: DiTResult, tmp_path: Path
) -> None:
    other = train(tmp_path, latents, dataclasses.replace(SHORT, **change))
    assert other.weights.read_bytes() != whole.weights.read_bytes()


def test_all_labels_left_out_is_an_unconditional_generator(
    latents: LatentSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(SHORT, class_dropout=1.0, ema=None)
    dit = load_dit(train(tmp_path, latents, config).weights)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rows = DiT(SPEC).classes
    assert dit.classes is not None and rows is not None
    assert dit.classes.weight[3].std() > 0
    used = sample_codes(dit, [3, 3], sampling=Sampling(steps=3, cfg=1.0), seed=0)
    assert np.isfinite(used).all()


def test_an_average_of_untrained_weights_is_told(latents: LatentSet, tmp_path: Path) -> None:
    result = train(tmp_path, latents, dataclasses.replace(SHORT, ema=0.9999))
    assert len(result.notes) == 1
    assert "100 % of the average" in result.notes[0] and "untrained" in result.notes[0]
    lower = float(result.notes[0].split("lower ema to ")[1].split()[0])
    assert train(tmp_path / "b", latents, dataclasses.replace(SHORT, ema=lower)).notes == ()


def test_sheets_show_a_row_a_class(folder: Path, latents: LatentSet, tmp_path: Path) -> None:
    from PIL import Image

    config = dataclasses.replace(SHORT, steps=3)
    plain = train(tmp_path / "plain", latents, config)
    drawn = train(tmp_path / "drawn", latents, config, sheet_every=2)
    assert drawn.weights.read_bytes() == plain.weights.read_bytes()
    sheets = list((tmp_path / "drawn" / "sheets").iterdir())
    assert [path.name for path in sheets] == ["step-0000002.png"]
    with Image.open(sheets[0]) as image:
        assert image.size == (4 * 16, 3 * 16)


def test_clips_are_generated_too(tmp_path: Path) -> None:
    from PIL import Image

    spec = dataclasses.replace(TOKENIZER, q=2, frames=4)
    latents = open_latents(make_latents(tmp_path / "latents", spec, count=9))
    dit = DiTSpec.for_tokenizer(spec, size="nano", classes=3, target="flow")
    config = dataclasses.replace(SHORT, steps=2)
    train(tmp_path, latents, config, dit, sheet_every=2)
    with Image.open(tmp_path / "sheets" / "step-0000002.png") as image:
        assert image.size == (4 * 16, 3 * 16)


# --- what is refused ------------------------------------------------------------------------------


def test_a_loss_that_explodes_is_not_learned_from(tmp_path: Path) -> None:
    mean = toy_latents(tmp_path).mean.copy()
    mean[4, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="the update was not made"):
        train(tmp_path, toy_latents(tmp_path, mean=mean), LEARN)


def test_skipped_steps_change_nothing_and_are_counted(tmp_path: Path) -> None:
    """One code of infinity, in some of the steps."""
    mean = toy_latents(tmp_path).mean.copy()
    mean[4, 0, 0] = np.inf
    damaged, config = (
        toy_latents(tmp_path, mean=mean),
        dataclasses.replace(LEARN, steps=25, batch=5),
    )
    whole = train(tmp_path / "whole", damaged, config, skip_non_finite=24)
    skipped = [event.step for event in whole.events if event.kind == SKIPPED]
    assert 1 < len(skipped) < 24
    assert all("skipped step" in event.text for event in whole.events)
    assert all(tensor.isfinite().all() for tensor in load_dit(whole.weights).state_dict().values())
    assert [point.step for point in whole.curve] == sorted({*range(1, 26)} - {*skipped})

    # Stopped behind a skipped step, it ends with the same bytes and the same events.
    with pytest.raises(Stopped):
        train(tmp_path / "run", damaged, config, skip_non_finite=24, stop_at=skipped[0])
    resumed = train(tmp_path / "run", damaged, config, skip_non_finite=24)
    assert resumed.resumed_from == skipped[0]
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert resumed.events == whole.events

    budget = len(skipped) - 1
    with pytest.raises(
        NonFiniteError, match=rf"step {skipped[-1]}: .*\({budget} steps were skipped"
    ):
        train(tmp_path / "less", damaged, config, skip_non_finite=budget)


def test_a_training_whose_last_steps_are_all_skipped_has_no_result(tmp_path: Path) -> None:
    mean = np.full_like(toy_latents(tmp_path).mean, np.inf)
    with pytest.raises(NonFiniteError, match="none of the last 6 steps"):
        config = dataclasses.replace(LEARN, steps=6, batch=5)
        train(tmp_path, toy_latents(tmp_path, mean=mean), config, skip_non_finite=6)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"precision": "fp16"}, "precision"),
        ({"class_dropout": 1.5}, "class_dropout"),
        ({"class_dropout": math.nan}, "class_dropout"),
        ({"ema": 1.0}, "ema"),
        ({"seed": -1}, "seed"),
        ({"optimiser": dataclasses.replace(SHORT.optimiser, lr=0.0)}, "lr"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as error:
        dataclasses.replace(SHORT, **changes).check(SPEC)
    assert error.value.field == field


def test_defaults_are_dits() -> None:
    config = DiTTraining(steps=1, batch=256).check(SPEC)
    assert (config.class_dropout, config.ema) == (0.1, 0.9999)
    assert (config.optimiser.lr, config.optimiser.schedule) == (1e-4, "constant")
    assert (config.optimiser.weight_decay, config.optimiser.warmup) == (0.0, 0.0)
    with pytest.raises(SpecError, match="no labels"):
        config.check(dataclasses.replace(SPEC, classes=0))


def test_latents_that_do_not_fit_are_refused(latents: LatentSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 tokens of 4 channels"):
        train(tmp_path, latents, spec=dataclasses.replace(SPEC, c=5))
    with pytest.raises(DataError, match="2 classes"):
        train(tmp_path, latents, spec=dataclasses.replace(SPEC, classes=2))
    with pytest.raises(DataError, match="compute them with flip"):
        train(tmp_path, toy_latents(tmp_path))
    with pytest.raises(SpecError, match="sheet_every = 0"):
        train(tmp_path, latents, sheet_every=0)
    with pytest.raises(SpecError, match="micro_batch = 0"):
        train(tmp_path, latents, micro_batch=0)
    assert list(tmp_path.iterdir()) == []
