"""Does stage 2 train what it says, by the losses it says, and resume to the byte?"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from stage2_entries import train as train_as_torchrun_does
from torch import Tensor, nn

from vitok_core.data import SampleSet, open_prepared, prepare
from vitok_core.errors import (
    CheckpointError,
    DataError,
    NonFiniteError,
    SpecError,
    Stopped,
    WeightsError,
)
from vitok_core.losses import LogitMeans, adaptive_factor, discriminator_loss, stage1_loss
from vitok_core.settings import Adversarial, Loss, Mistake, Optimiser, Run, Stage2
from vitok_core.spec import (
    TokenizerSpec,
    discriminator_macs,
    discriminator_parameters,
    training_flops,
)
from vitok_core.tokenizer import Normalisation, ViTok, load_tokenizer, read_about, save_tokenizer
from vitok_core.train import Stage2Result, TrainingProgress, train_stage2
from vitok_core.train._discriminator import CollapseWatch, DiscriminatorLearner
from vitok_core.train._history import History

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
WIDTH = 1 / 64
CONFIG = Stage2(
    precision="fp32",
    steps=5,
    batch=6,
    optimiser=Optimiser(lr=1e-3),
    discriminator=Optimiser(lr=1e-3, warmup=0.2, schedule="constant"),
    discriminator_width=WIDTH,
    loss=Loss(lpips=0.0),
    adversarial=Adversarial(ramp=2),
    ema=None,
    seed=3,
)
EVERYTHING = dataclasses.replace(
    CONFIG,
    adversarial=Adversarial(ramp=2, r1=0.5, lecam=0.1, adaptive=True),
    ema=0.9,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    prepare("photos-train", resolution=16, images=45, folder=folder)
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> SampleSet:
    return open_prepared(folder)


def save(path: Path, spec: TokenizerSpec = SPEC) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ViTok(spec)
    model.normalisation = Normalisation(
        mode="scalar",
        mean_C=torch.zeros(spec.c),
        std_C=torch.ones(spec.c),
        mean=0.0,
        std=2.0,
        samples=9,
    )
    save_tokenizer(model, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("stage1") / "weights.safetensors")


def train(
    folder: Path,
    tokenizer: Path,
    samples: SampleSet,
    config: Stage2 = CONFIG,
    *,
    stop_at: int | None = None,
    micro_batch: int | None = None,
    checkpoint_s: float = 1e9,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> Stage2Result:
    asked = iter(range(10**6))
    return train_stage2(
        tokenizer,
        config,
        samples,
        folder,
        run=Run(checkpoint_s=checkpoint_s, micro_batch=micro_batch),
        progress=progress,
        should_stop=lambda: next(asked) == stop_at,
    )


def tensors(path: Path) -> dict[str, Tensor]:
    return load_tokenizer(path).state_dict()


ENCODER = ("embed", "encoder", "to_moments", "cut_token_C")


def is_encoder(name: str) -> bool:
    return name.partition(".")[0] in ENCODER


# --- what is trained ----------------------------------------------------------------------------


def test_a_frozen_encoder_keeps_its_bytes_and_all_of_the_decoder_moves(
    photos: SampleSet, tmp_path: Path
) -> None:
    spec = dataclasses.replace(SPEC, latent_tokens=3, lengths=(1, 3))
    before = save(tmp_path / "before.safetensors", spec)
    result = train(tmp_path / "run", before, photos, EVERYTHING)
    old, new = tensors(before), tensors(result.weights)
    assert {name for name in old if torch.equal(old[name], new[name])} == {
        name for name in old if is_encoder(name)
    }
    found = load_tokenizer(result.weights).normalisation
    assert found is not None and found.std == 2.0  # its codes are what they were


def test_all_trains_everything_and_forgets_the_statistics_of_the_codes(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, train="all")
    result = train(tmp_path, tokenizer, photos, config)
    old, new = tensors(tokenizer), tensors(result.weights)
    assert [name for name in old if torch.equal(old[name], new[name])] == []
    assert load_tokenizer(result.weights).normalisation is None


@pytest.mark.parametrize(("r1", "compiled_passes"), [(0.0, 2), (0.5, 1)])
def test_passes_that_are_differentiated_twice_are_not_compiled(
    monkeypatch: pytest.MonkeyPatch, r1: float, compiled_passes: int
) -> None:
    passes: list[torch.Size] = []

    def spy(network: torch.nn.Module, device: object) -> torch.nn.Module:
        fast = torch.nn.Sequential(network)
        fast.register_forward_hook(lambda _, given, found: passes.append(given[0].shape))
        return fast

    monkeypatch.setattr("vitok_core.train._discriminator.compiled", spy)
    found = []
    for fast in (True, False):
        discriminator = DiscriminatorLearner(
            Adversarial(r1=r1),
            CONFIG.discriminator,
            resolution=16,
            width=WIDTH,
            seed=1,
            device=torch.device("cpu"),
            fast=fast,
        )
        torch.manual_seed(0)
        x, x_hat = torch.rand(2, 3, 3, 16, 16)
        discriminator.backward(x, x_hat.requires_grad_(), share=1.0, generator=True)
        found.append([one.grad for one in discriminator.network.parameters()])
    assert len(passes) == compiled_passes
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_gradients_are_those_of_the_written_losses(photos: SampleSet) -> None:
    """One joint pass gives what two separate ones with the other side held still would give."""
    loss = Adversarial(r1=0.5, lecam=0.1, adaptive=True)
    discriminator = DiscriminatorLearner(
        loss,
        CONFIG.discriminator,
        resolution=16,
        width=WIDTH,
        seed=1,
        device=torch.device("cpu"),
    )
    discriminator.optimiser = dataclasses.replace(CONFIG.discriminator, clip=1e30)
    model = ViTok(SPEC)
    last = model.output.project.weight
    x = torch.from_numpy(photos.batch(np.arange(6))).float() / 127.5 - 1
    noise = torch.randn(6, SPEC.tokens, SPEC.c)

    assert discriminator.factor == 0  # nothing measured yet
    discriminator.begin_step()
    found = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for rows in (slice(0, 4), slice(4, 6)):
        share = (rows.stop - rows.start) / 6
        x_hat, posterior = model(x[rows], noise[rows])
        total, _ = stage1_loss(CONFIG.loss, x[rows], x_hat, posterior, {})
        gradient, parts = discriminator.backward(x[rows], x_hat, share=share, generator=True)
        assert gradient is not None
        discriminator.compare(total, x_hat, gradient, last, share=share)
        torch.autograd.backward([share * total, x_hat], [None, share * 0.7 * gradient])
    norms = torch.stack(discriminator.finish_gradients()).double()
    discriminator.end_step(
        torch.tensor(True), parts["real_logit"].double(), parts["fake_logit"].double(), norms[1:]
    )
    found = [parameter.grad.clone() for parameter in model.parameters()]
    found_own = [parameter.grad.clone() for parameter in discriminator.network.parameters()]

    network = discriminator.network
    x_hat, posterior = model(x, noise)
    total, _ = stage1_loss(CONFIG.loss, x, x_hat, posterior, {})
    term = -network(x_hat).mean()
    by_total, by_term = (
        torch.autograd.grad(value, last, retain_graph=True)[0].norm() for value in (total, term)
    )
    assert float(discriminator.factor) == pytest.approx(
        float(adaptive_factor(by_total, by_term)), rel=1e-4
    )
    expected = torch.autograd.grad(total + 0.7 * term, list(model.parameters()))
    real = x.clone().requires_grad_()
    own, _ = discriminator_loss(
        loss, real, network(real), network(x_hat.detach()), LogitMeans.none()
    )
    expected_own = torch.autograd.grad(own, list(network.parameters()))
    for left, right in ((found, expected), (found_own, expected_own)):
        for a, b in zip(left, right, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert float(norms[0]) == pytest.approx(
        float(torch.stack([gradient.norm() for gradient in expected_own]).norm()), rel=1e-4
    )


def test_before_its_start_the_discriminator_only_learns(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    loss = CONFIG.loss
    silent = dataclasses.replace(CONFIG, adversarial=Adversarial(start=99))
    without = dataclasses.replace(CONFIG, adversarial=Adversarial(weight=0.0))
    one, other = (
        train(tmp_path / name, tokenizer, photos, config)
        for name, config in (("silent", silent), ("without", without))
    )
    assert one.weights.read_bytes() != other.weights.read_bytes()  # what is said of the training
    for name, tensor in tensors(one.weights).items():
        assert torch.equal(tensor, tensors(other.weights)[name]), name
    assert {"hinge", "real_logit", "fake_logit"} < set(one.parts_recent)
    assert set(other.parts_recent) == set(loss.parts)
    assert other.discriminator_parameters == 0
    assert one.discriminator_parameters == discriminator_parameters(16, WIDTH)


def test_the_weight_ramps_and_the_total_contains_it(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    told: list[TrainingProgress] = []
    adversarial = Adversarial(weight=0.5, start=1, ramp=3)
    config = dataclasses.replace(CONFIG, adversarial=adversarial)
    result = train(tmp_path, tokenizer, photos, config, progress=told.append)
    weights = [point.parts.get("adversarial_weight") for point in result.curve]
    assert weights == [None, *(pytest.approx(value) for value in (0.5 / 3, 1 / 3, 0.5, 0.5))]
    for point in result.curve[1:]:
        parts = point.parts
        expected = parts["pixel"] + parts["adversarial_weight"] * parts["adversarial"]
        assert point.loss == pytest.approx(expected, rel=1e-5)
        assert parts["adversarial"] == pytest.approx(-parts["fake_logit"])
    assert (told[-1].step, told[-1].parts["hinge"]) == (5, result.curve[-1].parts["hinge"])


def test_the_average_starts_from_the_weights_of_stage_1(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    def distance(ema: float | None) -> float:
        config = dataclasses.replace(CONFIG, ema=ema)
        new = tensors(train(tmp_path / str(ema), tokenizer, photos, config).weights)
        return max(float((new[name] - old).abs().max()) for name, old in before.items())

    before = tensors(tokenizer)
    moved = distance(None)
    assert 0 < distance(0.9999) < 1e-3 * moved < moved
    assert distance(1e-9) == pytest.approx(moved, rel=1e-6)  # nothing of the old is kept


@pytest.mark.slow
def test_everything_that_should_changes_the_weights(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    loss, adversarial = CONFIG.loss, CONFIG.adversarial
    changes = {
        "as is": {},
        "seed": {"seed": 4},
        "flip": {"flip": False},
        "lr": {"optimiser": Optimiser(lr=2e-3)},
        "discriminator lr": {"discriminator": dataclasses.replace(CONFIG.discriminator, lr=1e-2)},
        "width": {"discriminator_width": 1 / 32},
        "ema": {"ema": 0.5},
        "all": {"train": "all"},
        "bf16": {"precision": "bf16"},
        "pixel": {"loss": dataclasses.replace(loss, pixel="charbonnier")},
        "weight": {"adversarial": dataclasses.replace(adversarial, weight=0.1)},
        "ramp": {"adversarial": dataclasses.replace(adversarial, ramp=4)},
        "start": {"adversarial": dataclasses.replace(adversarial, start=1)},
        "r1": {"adversarial": dataclasses.replace(adversarial, r1=10.0)},
        "lecam": {"adversarial": dataclasses.replace(adversarial, lecam=1.0)},
        "adaptive": {"adversarial": dataclasses.replace(adversarial, adaptive=True)},
    }
    outputs = set()
    for name, change in changes.items():
        config = dataclasses.replace(CONFIG, steps=3, **change)  # type: ignore[arg-type]
        result = train(tmp_path / name, tokenizer, photos, config)
        outputs.add(tensors(result.weights)["output.project.weight"].numpy().tobytes())
    assert len(outputs) == len(changes)


def test_videos_are_judged_frame_by_frame(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, frames=4, q=2)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 16, 16, 3), np.uint8)
    clips = SampleSet(samples=pixels, labels=np.zeros(8, np.int64))
    before = save(tmp_path / "before.safetensors", spec)
    result = train(tmp_path / "run", before, clips, EVERYTHING)
    assert result.parts_recent["hinge"] > 0
    assert result.flops == EVERYTHING.flops(spec).total


def test_operations_are_counted_in_closed_form() -> None:
    count = CONFIG.steps * CONFIG.batch
    frozen = training_flops(SPEC, count, train="decoder")
    macs = discriminator_macs(16, WIDTH)
    assert CONFIG.flops(SPEC).total == frozen + 2 * macs * 7 * count
    late = dataclasses.replace(CONFIG, adversarial=Adversarial(start=4, r1=1.0))
    assert late.flops(SPEC).total == frozen + 2 * macs * (9 * 5 + 1) * CONFIG.batch
    none = dataclasses.replace(CONFIG, train="all", adversarial=Adversarial(weight=0.0))
    assert none.flops(SPEC).total == training_flops(SPEC, count)


# --- exactness ----------------------------------------------------------------------------------


def test_stopped_at_any_step_gives_the_same_bytes(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", tokenizer, photos, EVERYTHING)
    for step in range(EVERYTHING.steps):
        folder = tmp_path / f"stopped-{step}"
        with pytest.raises(Stopped, match=f"step {step} of 5"):
            train(folder, tokenizer, photos, EVERYTHING, stop_at=step)
        torch.manual_seed(step)  # nothing may depend on the global generator
        resumed = train(folder, tokenizer, photos, EVERYTHING)
        assert resumed.resumed_from == step
        assert resumed.weights.read_bytes() == whole.weights.read_bytes()
        # Among them the logits and the gradient norm of the discriminator after its last update.
        assert resumed.curve == whole.curve
        assert (resumed.loss, resumed.flops) == (whole.loss, whole.flops)


def test_micro_batches_change_rounding_only(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", tokenizer, photos, EVERYTHING)
    parts = train(tmp_path / "parts", tokenizer, photos, EVERYTHING, micro_batch=4)
    for left, right in zip(whole.curve, parts.curve, strict=True):
        assert dict(left.parts) == pytest.approx(dict(right.parts), rel=1e-3, abs=1e-6)
    new = tensors(parts.weights)
    for name, tensor in tensors(whole.weights).items():
        assert torch.allclose(tensor, new[name], atol=2e-4), name


def test_recomputing_and_sheets_change_nothing(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole", tokenizer, photos, EVERYTHING)
    again = train_stage2(
        tokenizer,
        EVERYTHING,
        photos,
        tmp_path / "again",
        run=Run(recompute_activations=True, sheet_every=2),
    )
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    sheets = sorted(path.name for path in (tmp_path / "again" / "sheets").iterdir())
    assert sheets == ["step-0000002.png", "step-0000004.png"]


def test_the_file_says_where_it_comes_from(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    result = train_stage2(tokenizer, CONFIG, photos, tmp_path, about={"metrics": {"psnr": 20.0}})
    said = read_about(result.weights)
    assert said["tokenizer_sha256"] == result.tokenizer_sha256
    assert result.tokenizer_sha256 == hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    assert said["metrics"]["psnr"] == 20.0
    assert said["metrics"]["hinge_recent"] == result.parts_recent["hinge"]


@pytest.mark.slow
def test_two_processes_train_as_one(tokenizer: Path, folder: Path, tmp_path: Path) -> None:
    """Under torchrun itself; 7 samples are rows 0-2 and 3-6, in micro-batches of at most 2."""

    def torchrun(run: Path, *stop_at: str) -> None:
        entry = Path(__file__).with_name("stage2_entries.py")
        module = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        arguments = [str(part) for part in (entry, tokenizer, folder, run, *stop_at)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(
            [sys.executable, *module, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr

    alone = train_as_torchrun_does(tokenizer, folder, tmp_path / "one")
    assert alone is not None
    torchrun(tmp_path / "two", "9")
    two = tmp_path / "two" / "weights.safetensors"
    assert not two.exists()
    torchrun(tmp_path / "two")
    said, said_alone = (read_about(path)["metrics"] for path in (two, alone.weights))
    assert said == pytest.approx(said_alone, rel=1e-5, abs=1e-7)
    new = tensors(two)
    for name, tensor in tensors(alone.weights).items():
        largest = tensor.abs().max().clamp_min(1e-3)
        assert (tensor - new[name]).abs().max() / largest < 1e-5, name


# fmt: off
GOLDEN = [
    0.85264, 0.76252, 0.78207, 0.5368, 0.47165, 0.60901, 0.53833, 0.49107, 0.40185, 0.37386,
    0.48273, 0.32329, 0.39556, 0.33584, 0.3967, 0.31777, 0.42237, 0.31841, 0.32822, 0.32484,
]
GOLDEN_HINGE = [
    0.95575, 0.99145, 0.97321, 0.96602, 0.96516, 0.94561, 0.93972, 0.96365, 0.92389, 0.93949,
    0.86383, 0.89177, 0.8822, 0.84762, 0.84432, 0.86456, 0.81336, 0.80693, 0.75475, 0.78343,
]
# fmt: on


def test_the_first_twenty_steps_are_as_they_were(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(EVERYTHING, steps=20)
    result = train(tmp_path, tokenizer, photos, config)
    assert [point.loss for point in result.curve] == pytest.approx(GOLDEN, rel=1e-3)
    hinges = [point.parts["hinge"] for point in result.curve]
    assert hinges == pytest.approx(GOLDEN_HINGE, rel=1e-3)


@pytest.mark.slow
def test_compiled_training_is_the_same_but_for_rounding(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    eager = train(tmp_path / "eager", tokenizer, photos, EVERYTHING)
    config = dataclasses.replace(EVERYTHING, compile=True)
    compiled = train(tmp_path / "compiled", tokenizer, photos, config)
    for left, right in zip(eager.curve, compiled.curve, strict=True):
        assert left.loss == pytest.approx(right.loss, rel=1e-3)


# --- what goes wrong ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exploding(Optimiser):
    """A rate far above what settings allow."""

    lr: float = 1e30
    warmup: float = 0.0
    clip: float = 1e30

    def mistakes(self, where: str, steps: int | None = None) -> Iterator[Mistake]:
        return iter(())


@pytest.mark.parametrize("side", ["optimiser", "discriminator"])
def test_neither_side_learns_from_what_is_not_finite(
    side: str, tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    optimiser = Exploding(schedule="constant")
    # The decoder is not pulled, so each side has to see for itself what is wrong with it.
    silent = Adversarial(start=99)
    config = dataclasses.replace(CONFIG, steps=9, adversarial=silent, **{side: optimiser})  # type: ignore[arg-type]
    said = "hinge .*the update was not made" if side == "discriminator" else "pixel .*was not made"
    with pytest.raises(NonFiniteError, match=said):
        train(tmp_path, tokenizer, photos, config, checkpoint_s=0.0)
    assert not (tmp_path / "weights.safetensors").exists()
    newest = max((tmp_path / "checkpoints").glob("step-*.pt"))
    state = torch.load(newest, weights_only=True)["state"]
    for network in (state["model"], state["adversary"]["network"]):
        assert all(tensor.isfinite().all() for tensor in network.values())


def history(
    steps: int, terms: Callable[[int], dict[str, float]], *, resume: int | None = None
) -> History:
    made = History(steps)
    watch = CollapseWatch(made, since=50)
    for step in range(steps):
        if step == resume:
            before, made = made, History(steps)
            made.load(0, before.part(0, step))
            made.events = before.events
            watch = CollapseWatch(made, since=50)
        made.add(step, {"loss": 1.0, **terms(step)})
        watch.look(step)
    return made


def test_a_collapse_is_one_event_when_it_begins() -> None:
    def collapsing(step: int) -> dict[str, float]:
        wins, blind = 200 <= step < 400, 500 <= step < 700
        return {
            "hinge": 0.001 if wins else 0.8,
            "real_logit": 0.3,
            "fake_logit": 0.3 if blind else -0.3,  # as high as real ones
        }

    events = history(900, collapsing).events
    assert [event.kind for event in events] == ["discriminator wins", "discriminator blind"]
    # Means over 100 steps: below 0.02 and 0.02 with the last 3 or 4 of the old kind in them.
    assert [event.step for event in events] == [298, 597]
    assert "mean hinge loss 0.017 over 100 steps" in events[0].text

    for resume in (1, 297, 298, 350):
        assert history(900, collapsing, resume=resume).events == events


def test_the_warm_up_and_a_stage_without_discriminator_have_no_collapse() -> None:
    blind = {"hinge": 1.0, "real_logit": 0.0, "fake_logit": 0.0}
    assert history(149, lambda step: blind).events == []
    assert [event.step for event in history(151, lambda step: blind).events] == [150]
    assert history(300, lambda step: {}).events == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "lr"), [("discriminator wins", 3e-3), ("discriminator blind", 1e-12)]
)
def test_real_discriminators_that_collapse_are_told(
    kind: str, lr: float, tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    told: list[TrainingProgress] = []
    wins = kind == "discriminator wins"
    config = dataclasses.replace(
        CONFIG,
        steps=400 if wins else 250,
        # One decoder draws noise to the end, the other learns from the losses of stage 1.
        optimiser=Optimiser(lr=1e-9 if wins else 2e-3, final_lr=0.0),
        discriminator=Optimiser(lr=lr, warmup=0.02, schedule="constant"),
    )
    result = train(tmp_path, tokenizer, photos, config, progress=told.append)
    assert kind in {event.kind for event in result.events}
    assert any(kind.removeprefix("discriminator ") in note for note in told[-1].notes)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("steps", {"steps": 0}),
        ("batch", {"batch": 0}),
        ("train", {"train": "encoder"}),
        ("precision", {"precision": "fp16"}),
        ("ema", {"ema": 1.0}),
        ("seed", {"seed": -1}),
        ("lr", {"discriminator": Optimiser(lr=0.0)}),
        ("weight", {"adversarial": Adversarial(weight=-1.0)}),
        ("discriminator_width", {"discriminator_width": 0.0}),
        ("bottleneck", {"train": "all", "spec": {"bottleneck": "none"}}),
        ("resolution", {"spec": {"resolution": 24}}),
    ],
)
def test_settings_that_cannot_be_used(field: str, changes: dict[str, object]) -> None:
    changes = dict(changes)
    spec = dataclasses.replace(SPEC, **changes.pop("spec", {}))  # type: ignore[arg-type]
    with pytest.raises(SpecError) as caught:
        dataclasses.replace(CONFIG, **changes).check(spec)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_settings_that_can() -> None:
    # Frozen, the KL has nothing to train; without discriminator any side will do.
    CONFIG.check(dataclasses.replace(SPEC, bottleneck="none"))
    without = dataclasses.replace(CONFIG, adversarial=Adversarial(weight=0.0))
    without.check(dataclasses.replace(SPEC, resolution=24))
    assert Stage2().discriminator.check().lr == 2e-5


def test_samples_and_files_that_do_not_fit(
    tokenizer: Path, photos: SampleSet, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        train(tmp_path / "run", tmp_path / "none.safetensors", photos)
    larger = save(tmp_path / "larger.safetensors", dataclasses.replace(SPEC, resolution=32))
    with pytest.raises(DataError, match="16 px"):
        train(tmp_path / "run", larger, photos)
    with pytest.raises(SpecError, match="micro_batch"):
        train(tmp_path / "run", tokenizer, photos, micro_batch=0)
    with pytest.raises(Stopped):
        train(tmp_path / "run", tokenizer, photos, stop_at=1)
    with pytest.raises(CheckpointError, match=r"weight: 0.05 there, 0.1 here"):
        other = dataclasses.replace(CONFIG, adversarial=Adversarial(weight=0.1, ramp=2))
        train(tmp_path / "run", tokenizer, photos, other)
    model = load_tokenizer(tokenizer)
    nn.init.zeros_(model.output.bias)
    nn.init.ones_(model.from_code.bias)
    save_tokenizer(model, tmp_path / "another.safetensors")
    with pytest.raises(CheckpointError, match="tokenizer: "):
        train(tmp_path / "run", tmp_path / "another.safetensors", photos)
