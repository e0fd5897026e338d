"""Are the operations of whole trainings those that the networks count when they are run?"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Literal

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitok_core.errors import SpecError
from vitok_core.settings import Adversarial, Loss, Stage1, Stage2
from vitok_core.spec import (
    DEVICES,
    Flops,
    TokenizerSpec,
    dino_macs,
    known_device,
    least_seconds,
    lpips_macs,
    training_flops,
)

S_B_16 = TokenizerSpec(encoder="S", decoder="B", p=16, c=16, resolution=256)


def counted(run: Any) -> int:
    """Operations that torch counts while `run` runs."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return int(counter.get_total_flops())


def lpips_on_meta(net: str) -> torch.nn.Module:
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        import lpips

        network = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, lpips=True, verbose=False)
    frozen: torch.nn.Module = network.to("meta").eval().requires_grad_(False)
    return frozen


@pytest.mark.slow  # imports of lpips
@pytest.mark.parametrize("net", ["alex", "vgg"])
@pytest.mark.parametrize("resolution", [64, 129])
def test_lpips_is_counted_as_it_runs(net: Literal["alex", "vgg"], resolution: int) -> None:
    network = lpips_on_meta(net)
    x = torch.empty(2, 3, resolution, resolution, device="meta")
    x_hat = torch.empty_like(x, requires_grad=True)

    def run() -> None:
        network(x_hat, x).mean().backward()

    spec = TokenizerSpec(encoder="S", decoder="S", p=resolution, c=4, resolution=resolution)
    closed = Loss(lpips_net=net).flops(spec, 2)
    assert closed == Flops(tf32=counted(run))


@pytest.mark.slow  # torch's meta kernels
@pytest.mark.parametrize("resolution", [32, 128])
def test_dino_is_counted_as_it_runs(resolution: int) -> None:
    from vitok_core.features import DinoV2Trunk
    from vitok_core.spec import dino_side

    with torch.device("meta"):
        trunk = DinoV2Trunk().requires_grad_(False)
    side = dino_side(resolution)
    x = torch.empty(2, 3, side, side, device="meta")
    x_hat = torch.empty_like(x, requires_grad=True)
    linear, products = dino_macs(resolution)
    assert counted(lambda: trunk(x)) == 2 * 2 * (linear + products)

    def both() -> None:
        trunk(x)
        trunk(x_hat).sum().backward()

    spec = TokenizerSpec(encoder="S", decoder="S", p=resolution, c=4, resolution=resolution)
    closed = Loss(lpips=0.0, dino=1.0).flops(spec, 2)
    assert closed == Flops(fp32=counted(both))


def test_vgg_s_convolutions_are_those_of_the_published_network() -> None:
    # Simonyan & Zisserman 2015 at 224 px: 15.35 billion MACs in the convolutions of VGG16.
    assert lpips_macs("vgg", 224)[0] == pytest.approx(15.35e9, rel=1e-3)
    assert lpips_macs("alex", 224)[0] == pytest.approx(0.656e9, rel=1e-2)


def test_a_training_counts_what_its_loss_asks_for() -> None:
    first = Stage1(steps=5, batch=2, loss=Loss(lpips=0.0))
    alone = first.flops(S_B_16)
    assert alone == Flops(bf16=training_flops(S_B_16, 10)) == Flops(bf16=60 * S_B_16.macs)
    trunk, heads = lpips_macs("vgg", 256)
    whole = dataclasses.replace(first, loss=Loss(lpips_net="vgg")).flops(S_B_16)
    assert whole == alone + Flops(tf32=20 * (3 * trunk + 2 * heads))
    # The first stage's losses stay on in the second.
    second = Stage2(
        steps=5,
        batch=2,
        train="all",
        loss=Loss(lpips_net="vgg"),
        adversarial=Adversarial(weight=0.0),
    )
    assert second.flops(S_B_16) == whole


def test_frames_of_a_clip_are_judged_one_by_one() -> None:
    clip = TokenizerSpec(encoder="S", decoder="B", p=16, q=2, c=16, resolution=256, frames=8)
    one, many = (Loss(lpips_net="vgg", dino=1.0).flops(spec, 3).total for spec in (S_B_16, clip))
    assert many == 8 * one


def test_the_least_time_is_that_of_each_precision_at_its_peak() -> None:
    peaks = DEVICES["NVIDIA H100 80GB HBM3"].peaks
    flops = Flops(bf16=int(989.4e12), tf32=int(2 * 494.7e12), fp32=int(67e12))
    assert least_seconds(flops, peaks) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("h100-pcie", "NVIDIA H100 PCIe"),
        ("a100-sxm4-40gb", "NVIDIA A100-SXM4-40GB"),
        ("NVIDIA L4", "NVIDIA L4"),
        ("L40S", "NVIDIA L40S"),
        ("A100", "NVIDIA A100-SXM4-40GB"),
        ("A100 80GB", "NVIDIA A100-SXM4-80GB"),
        ("a100-40g", "NVIDIA A100-SXM4-40GB"),
        ("H100 SXM5", "NVIDIA H100 80GB HBM3"),
        ("H100 NVL", "NVIDIA H100 NVL"),
        ("H200", "NVIDIA H200"),
        ("b200", "NVIDIA B200"),
        ("RTX3090", "NVIDIA GeForce RTX 3090"),
        ("3090 ti", "NVIDIA GeForce RTX 3090 Ti"),
        ("GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("rtx-5090", "NVIDIA GeForce RTX 5090"),
        ("A6000", "NVIDIA RTX A6000"),
        ("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation"),
        ("A10", "NVIDIA A10"),
        ("T4", "Tesla T4"),
        ("V100", "Tesla V100-SXM2-16GB"),
        ("v100-pcie-32gb", "Tesla V100-PCIE-32GB"),
        ("MI250", "AMD Instinct MI250"),
        ("mi300x", "AMD Instinct MI300X"),
        ("CPU", "cpu"),
    ],
)
def test_a_device_is_known_by_a_word_of_its_name(text: str, name: str) -> None:
    assert known_device(text) == name


@pytest.mark.parametrize("text", ["", "H", "TPUv4", "NVIDIA"])
def test_a_device_without_a_data_sheet_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="H100"):
        known_device(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("H101", "H100"), ("RTX 4091", "RTX 4090"), ("rtx5091", "RTX 5090")]
)
def test_a_device_that_is_unknown_gets_the_nearest(text: str, meant: str) -> None:
    with pytest.raises(SpecError, match=f"did you mean {meant}"):
        known_device(text)


@pytest.mark.parametrize("text", ["A4", "RTX 4090 Laptop", "A100 20GB", "M2"])
def test_a_part_of_a_name_is_no_other_device(text: str) -> None:
    with pytest.raises(SpecError):
        known_device(text)
