"""Is the memory of a training what autograd really keeps, and does a training survive without it?

Counts of towers are of CUDA, without a GPU: fake tensors have shapes, types and a device and no
numbers, so autograd records what it would keep there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dit_entries import CONFIG as DIT_CONFIG
from dit_entries import SPEC as DIT_SPEC
from dit_entries import make_latents
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from vitok_core.data import SampleSet
from vitok_core.discriminator import Discriminator
from vitok_core.dit import DiT
from vitok_core.features import DinoV2Trunk
from vitok_core.latents import open_latents
from vitok_core.losses import TERMS, discriminator_loss, loss_networks, stage1_loss
from vitok_core.settings import Adversarial, DiTTraining, Loss, Optimiser, Run, Stage1, Stage2
from vitok_core.spec import (
    DiTSpec,
    Memory,
    TokenizerSpec,
    dino_memory,
    discriminator_memory,
    discriminator_parameters,
    lpips_memory,
)
from vitok_core.tokenizer import ViTok, save_tokenizer
from vitok_core.train import TrainingResult, train_dit, train_stage1, train_stage2


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


BATCH = 5  # no activation has the shape of a matrix of weights


class Kept:
    """Bytes that autograd keeps while this is entered, each storage once.

    Args:
        given: modules and tensors whose storages are there anyway.
    """

    def __init__(self, *given: nn.Module | Tensor) -> None:
        tensors = [
            tensor
            for one in given
            for tensor in (
                [one] if isinstance(one, Tensor) else [*one.parameters(), *one.buffers()]
            )
        ]
        self._given = {tensor.untyped_storage()._cdata for tensor in tensors}
        self._found: dict[int, Tensor] = {}

    def __enter__(self) -> Kept:
        def pack(tensor: Tensor) -> Tensor:
            place = tensor.untyped_storage()._cdata
            if place not in self._given:
                self._found[place] = tensor
            return tensor

        self._hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def bytes(self, matrices: set[tuple[int, ...]] = frozenset()) -> int:  # type: ignore[assignment]
        """What was kept, without bfloat16 copies of matrices of weights."""
        return sum(
            tensor.untyped_storage().nbytes()
            for tensor in self._found.values()
            if tensor.dtype != torch.bfloat16
            or (tuple(tensor.shape) not in matrices and tuple(tensor.shape)[::-1] not in matrices)
        )


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention is the kernel that a GPU would take."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14):
        pytest.skip("fake tensors of this torch ask for CUDA's driver")

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        assert attn_mask is None
        mixed: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        return mixed

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)


def counted(
    make: Callable[[], nn.Module], precision: str, run: Callable[[nn.Module], Tensor]
) -> tuple[Kept, set[tuple[int, ...]]]:
    """What a forward pass keeps on a GPU, by fake tensors, and the shapes of all matrices."""
    with torch.device("meta"):  # no random numbers, which fake GPUs do not have everywhere
        module = make()
    # By hand: torch.autocast turns itself off where there is no GPU.
    torch.set_autocast_enabled("cuda", precision == "bf16")
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(), torch.device("cuda"):
            for part in module.modules():
                for name, one in part.named_parameters(recurse=False):
                    setattr(part, name, nn.Parameter(torch.empty(one.shape)))
                for name, one in part.named_buffers(recurse=False):
                    setattr(part, name, torch.empty(one.shape, dtype=one.dtype))
            with Kept(module) as kept:
                run(module)
    finally:
        torch.set_autocast_enabled("cuda", False)
    return kept, {tuple(one.shape) for one in module.parameters() if one.ndim == 2}


TOKENIZERS = {
    "S-B/16": TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=128),
    "S-B/8": TokenizerSpec(encoder="S", decoder="B", p=8, c=4, resolution=64),
    "S-L/16, 64 channels": TokenizerSpec(encoder="S", decoder="L", p=16, c=64, resolution=64),
    "clips": TokenizerSpec(encoder="B", decoder="B", q=2, p=16, c=16, resolution=64, frames=8),
    "rmsnorm": TokenizerSpec(
        encoder="S", decoder="S", p=16, c=16, resolution=64, norm="rmsnorm", qk_norm=True
    ),
    "qk_norm": TokenizerSpec(encoder="S", decoder="S", p=16, c=16, resolution=64, qk_norm=True),
    "sincos": TokenizerSpec(
        encoder="S", decoder="S", p=16, c=16, resolution=64, positions="sincos"
    ),
    "1-D": TokenizerSpec(
        encoder="S", decoder="S", p=8, c=16, resolution=64, latent_tokens=32, bottleneck="none"
    ),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("train", ["all", "decoder"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_keeps_what_the_closed_form_says(
    name: str, train: str, precision: str, fused: None
) -> None:
    spec = TOKENIZERS[name]
    loss = Loss(lpips=0.0, kl=0.0 if spec.bottleneck == "none" else 1e-3)
    pixels = (BATCH, 3, *([spec.frames] if spec.frames > 1 else []), *2 * [spec.resolution])

    def run(model: nn.Module, recompute: bool = False) -> Tensor:
        assert isinstance(model, ViTok)
        model.recompute_activations(recompute)
        for key, parameter in model.named_parameters():
            decodes = key.partition(".")[0] in ("from_code", "patch_token_D", "decoder", "output")
            parameter.requires_grad_(train == "all" or decodes)
        x = torch.empty(pixels)
        x_hat, posterior = model(x, torch.empty(BATCH, spec.tokens, spec.c))
        torch.set_autocast_enabled("cuda", False)  # as in training, where only the model has it
        return stage1_loss(loss, x, x_hat, posterior, {})[0]

    settings = {"precision": precision, "loss": loss, "ema": None}
    config: Any = Stage1(**settings)  # type: ignore[arg-type]
    if train == "decoder":
        settings["adversarial"] = Adversarial(weight=0.0)
        config = Stage2(steps=1, **settings)  # type: ignore[arg-type]
    originals = 4 * math.prod(pixels)
    kept, matrices = counted(lambda: ViTok(spec), precision, run)
    wanted = BATCH * config.memory(spec).per_sample - originals
    assert kept.bytes(matrices) == pytest.approx(wanted, rel=0.01)

    # Recomputed, the inside of one block is there at a time, which no forward pass shows.
    again, _ = counted(lambda: ViTok(spec), precision, lambda model: run(model, recompute=True))
    wanted = BATCH * config.memory(spec, recompute=True).per_sample - originals
    assert again.bytes(matrices) < wanted < again.bytes(matrices) + kept.bytes(matrices) / 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "spec",
    [
        DiTSpec(size="L", grid=(1, 8, 8), c=16, classes=1000, learn_sigma=True),
        DiTSpec(size="B", grid=(1, 4, 4), c=64, classes=0, target="flow"),
        DiTSpec(size="B", grid=(4, 4, 4), c=8, classes=10, qk_norm=True),
    ],
    ids=lambda spec: f"{spec.size} of {spec.c} channels",
)
def test_a_dit_keeps_what_the_closed_form_says(spec: DiTSpec, precision: str, fused: None) -> None:
    def run(model: nn.Module) -> Tensor:
        assert isinstance(model, DiT)
        labels = torch.zeros(BATCH, dtype=torch.long) if spec.classes else None
        predicted = model(torch.empty(BATCH, spec.tokens, spec.c), torch.empty(BATCH), labels)
        return (predicted.float() - torch.empty_like(predicted)).square().mean()

    kept, matrices = counted(lambda: DiT(spec), precision, run)
    config: Any = DiTTraining(precision=precision)  # type: ignore[arg-type]
    assert kept.bytes(matrices) == pytest.approx(BATCH * config.memory(spec).per_sample, rel=0.02)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_keeps_what_the_closed_form_says(net: Any, precision: Any) -> None:
    loss = Loss(lpips_net=net, pixel_weight=0.0)
    network = loss_networks(loss, "cpu", precision)["lpips"]
    # Fake tensors: CPUs take minutes for convolutions of bfloat16.
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, x_hat = torch.rand(2, 1, 3, 64, 64)
        x_hat.requires_grad_()
        with Kept(network, x, x_hat) as kept:
            TERMS["lpips"](network, x_hat, x)
    memory = lpips_memory(net, 64, precision)
    assert kept.bytes() == memory.per_sample
    stored = sum(one.nbytes for one in network.net.parameters())  # type: ignore[union-attr]
    assert memory.fixed == pytest.approx(stored, rel=1e-3)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_dino_keeps_what_the_closed_form_says(precision: Any) -> None:
    number = torch.bfloat16 if precision == "bf16" else torch.float32
    trunk = DinoV2Trunk().eval().requires_grad_(False).to(number)
    x = torch.rand(1, 3, 56, 56, dtype=number, requires_grad=True)
    with Kept(trunk, x) as kept:
        trunk(x)
    memory = dino_memory(56, precision)
    assert kept.bytes() == pytest.approx(memory.per_sample, rel=0.05)
    stored = sum(one.nbytes for one in trunk.parameters())
    assert memory.fixed == pytest.approx(stored, rel=1e-3)


@pytest.mark.parametrize("r1", [0.0, 1.0])
@pytest.mark.parametrize("side", [32, 64])
def test_a_discriminator_in_bf16_keeps_what_the_closed_form_says(side: int, r1: float) -> None:
    with FakeTensorMode():
        network = Discriminator(side, 0.25, bf16=True)
        x, x_hat = torch.rand(2, 3, 3, side, side)
        x_hat.requires_grad_()
        with Kept(network, x, x_hat) as kept:
            fake = network(x_hat)
            torch.autograd.grad(fake.mean(), x_hat, retain_graph=True)
            real = x.detach().requires_grad_(r1 > 0)
            discriminator_loss(Adversarial(r1=r1), real, network(real), fake, None)
    weights = {tuple(one.shape) for one in network.parameters()}
    memory = discriminator_memory(side, 0.25, r1=r1 > 0, precision="bf16")
    assert kept.bytes(weights) == pytest.approx(3 * memory.per_sample, rel=0.1)
    assert memory.fixed == (16 + 2) * discriminator_parameters(side, 0.25)


def test_memory_and_operations_follow_the_precision_of_the_networks() -> None:
    spec = TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=256)
    loss = Loss(dino=1.0)
    found = {}
    for precision in ("fp32", "tf32", "bf16"):
        stage1 = Stage1(loss=loss, network_precision=precision)  # type: ignore[arg-type]
        stage2 = Stage2(
            steps=10,
            loss=loss,
            network_precision=precision,
            adversarial=Adversarial(r1=1.0),  # type: ignore[arg-type]
        )
        found[precision] = [
            (one.memory(spec), one.flops(spec)) for one in (stage1.check(spec), stage2.check(spec))
        ]
    for fp32, tf32, bf16 in zip(*found.values(), strict=True):
        assert fp32[0] == tf32[0]
        assert fp32[0].per_sample > 1.3 * bf16[0].per_sample
        assert fp32[1].total == tf32[1].total == bf16[1].total
        assert (fp32[1].tf32, bf16[1].tf32, bf16[1].fp32) == (0, 0, 0)
        assert tf32[1].tf32 > 0 and tf32[1].fp32 > 0  # DINOv2 multiplies without convolutions


@pytest.mark.parametrize("r1", [0.0, 1.0])
@pytest.mark.parametrize("side", [32, 64])
def test_the_discriminator_keeps_what_the_closed_form_says(side: int, r1: float) -> None:
    network = Discriminator(side, 0.25)
    x, x_hat = torch.rand(2, 2, 3, side, side)
    x_hat.requires_grad_()
    with Kept(network, x, x_hat) as kept:
        fake = network(x_hat)
        torch.autograd.grad(fake.mean(), x_hat, retain_graph=True)
        real = x.detach().requires_grad_(r1 > 0)
        discriminator_loss(Adversarial(r1=r1), real, network(real), fake, None)
    memory = discriminator_memory(side, 0.25, r1=r1 > 0)
    assert kept.bytes() == pytest.approx(2 * memory.per_sample, rel=0.02)
    assert memory.fixed == 16 * discriminator_parameters(side, 0.25)


def test_the_largest_micro_batch_that_fits() -> None:
    memory = Memory(fixed=10**9, per_row=10**6, per_sample=10**8)
    for rows in (1, 7, 96, 1000):
        for gigabytes in (2, 3, 10, 80, 200):
            found = memory.largest_micro_batch(rows, gigabytes * 10**9)
            if found is None:
                assert memory.bytes(rows, 1) > gigabytes * 10**9
                continue
            assert memory.bytes(rows, found) <= gigabytes * 10**9
            parts = -(-rows // found)
            # One part fewer would not fit, and these are as equal as they can be.
            assert found == -(-rows // parts)
            if parts > 1:
                assert memory.bytes(rows, -(-rows // (parts - 1))) > gigabytes * 10**9


# --- running out of it --------------------------------------------------------------------------

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)


def samples() -> SampleSet:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    return SampleSet(samples=pixels, labels=np.zeros(20, np.int64))


def stage1(folder: Path, run: Run) -> TrainingResult:
    config = Stage1(
        steps=5, batch=7, precision="fp32", optimiser=Optimiser(lr=1e-3), loss=Loss(lpips=0.0)
    )
    return train_stage1(SPEC, config, samples(), folder, run=run)


def stage2(folder: Path, run: Run) -> TrainingResult:
    """With everything that measures across micro-batches: R1, LeCam, the adaptive weight."""
    folder.mkdir()
    torch.manual_seed(0)
    save_tokenizer(ViTok(SPEC), folder / "first.safetensors")
    config = Stage2(
        steps=5,
        batch=7,
        precision="fp32",
        discriminator_width=1 / 64,
        loss=Loss(lpips=0.0),
        adversarial=Adversarial(ramp=2, r1=0.1, lecam=1e-3, adaptive=True),
    )
    return train_stage2(folder / "first.safetensors", config, samples(), folder, run=run)


def dit(folder: Path, run: Run) -> TrainingResult:
    latents = open_latents(make_latents(folder / "latents"))
    config = dataclasses.replace(DIT_CONFIG, steps=5)
    return train_dit(DIT_SPEC, config, latents, folder, run=run)


TRAININGS: dict[str, tuple[type[nn.Module], Callable[[Path, Run], TrainingResult]]] = {
    "stage1": (ViTok, stage1),
    "stage2": (ViTok, stage2),
    "dit": (DiT, dit),
}


def shrink(monkeypatch: pytest.MonkeyPatch, model: type[nn.Module], calls: int, most: int) -> None:
    """After some forward passes another process takes memory: then `most` samples fit at once."""
    whole, seen = model.forward, iter(range(10**6))

    def forward(self: Any, x: Tensor, *rest: Any) -> Any:
        if self.training and next(seen) >= calls and len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(self, x, *rest)

    monkeypatch.setattr(model, "forward", forward)


@pytest.mark.parametrize("name", TRAININGS)
def test_what_does_not_fit_is_halved_and_changes_no_number(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = TRAININGS[name]
    small = train(tmp_path / "small", Run(micro_batch=3))
    shrink(monkeypatch, model, calls=0, most=3)
    halved = train(tmp_path / "halved", Run())
    assert halved.micro_batch == small.micro_batch == 3
    assert halved.weights.read_bytes() == small.weights.read_bytes()
    assert [(event.kind, event.step) for event in halved.events] == [("out of memory", 0)]
    assert "7 samples at once do not fit" in halved.events[0].text


@pytest.mark.parametrize("name", TRAININGS)
def test_memory_that_goes_in_the_middle_of_a_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = TRAININGS[name]
    undisturbed = train(tmp_path / "undisturbed", Run(micro_batch=4))
    # Steps have micro-batches of 4 and 3; the sixth pass is the second of the third step.
    shrink(monkeypatch, model, calls=5, most=2)
    disturbed = train(tmp_path / "disturbed", Run(micro_batch=4))
    assert disturbed.micro_batch == 2
    assert [event.step for event in disturbed.events if event.kind == "out of memory"] == [2]
    assert disturbed.loss == pytest.approx(undisturbed.loss, rel=1e-5)


def test_one_sample_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, ViTok, calls=0, most=0)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        stage1(tmp_path, Run())


def test_auto_is_the_whole_batch_on_a_cpu(tmp_path: Path) -> None:
    plain = stage1(tmp_path / "plain", Run())
    auto = stage1(tmp_path / "auto", Run(micro_batch="auto", recompute_activations="auto"))
    assert auto.weights.read_bytes() == plain.weights.read_bytes()
    assert (auto.micro_batch, auto.recompute_activations) == (None, False)
