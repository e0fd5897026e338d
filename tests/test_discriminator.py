"""Is the discriminator the paper's, and do its losses do what they are for?"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitok_core.discriminator import (
    BlurPool,
    Discriminator,
)
from vitok_core.errors import SpecError
from vitok_core.losses import (
    ADAPTIVE_MOST,
    LogitMeans,
    adaptive_factor,
    adversarial_weight,
    discriminator_loss,
    generator_loss,
    moved,
)
from vitok_core.settings import Adversarial, check_bounds
from vitok_core.spec import discriminator_macs, discriminator_parameters


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make(resolution: int = 16, width: float = 1 / 32, seed: int = 0) -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Discriminator(resolution, width)


@pytest.mark.parametrize(("side", "millions"), [(128, 26.1), (256, 26.3), (512, 26.4)])
def test_it_is_as_large_as_the_published_one(side: int, millions: float) -> None:
    assert round(discriminator_parameters(side) / 1e6, 1) == millions


@pytest.mark.parametrize("side", [8, 16, 64, 512])
@pytest.mark.parametrize("width", [1.0, 0.3, 1 / 64])
def test_the_closed_form_is_what_is_built(side: int, width: float) -> None:
    with torch.device("meta"):
        network = Discriminator(side, width)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert discriminator_parameters(side, width) == counted


@pytest.mark.parametrize(("side", "width"), [(8, 1.0), (32, 1 / 16), (64, 0.1)])
def test_the_macs_are_those_of_its_layers(side: int, width: float) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        make(side, width)(torch.zeros(1, 3, side, side))
    assert counter.get_total_flops() == 2 * discriminator_macs(side, width)


@pytest.mark.parametrize(
    ("side", "remedy"), [(4, "use 8"), (24, "use 16 or 32"), (100, "use 64 or 128")]
)
def test_sides_that_do_not_halve_to_four(side: int, remedy: str) -> None:
    with pytest.raises(SpecError, match=remedy) as caught:
        Discriminator(side)
    assert caught.value.field == "resolution"


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, 5.0])
def test_widths_out_of_range(width: float) -> None:
    with pytest.raises(SpecError) as caught:
        Discriminator(16, width)
    assert caught.value.field == "discriminator_width"


def test_images_of_another_side_are_refused() -> None:
    with pytest.raises(SpecError, match="do not fit a discriminator of 16 px"):
        make()(noise(2, 3, 32, 32))


def test_blur_pool_keeps_constants_and_halves() -> None:
    pooled = BlurPool()(torch.full((2, 5, 8, 8), 3.0))
    assert pooled.shape == (2, 5, 4, 4)
    assert torch.allclose(pooled[:, :, 1:-1, 1:-1], torch.tensor(3.0))
    # The highest frequency is gone, which is what a plain stride would have aliased.
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    assert BlurPool()(stripes)[:, :, 1:-1, 1:-1].abs().max() < 1e-6


def test_frames_of_a_video_are_judged_one_by_one() -> None:
    network, video = make(), noise(2, 3, 5, 16, 16)
    logits = network(video)
    frames = [network(video[:, :, frame]) for frame in range(5)]
    assert torch.allclose(logits.view(2, 5), torch.stack(frames, dim=1), atol=1e-6)


def test_an_image_is_judged_for_itself_and_in_float32() -> None:
    network, images = make(), noise(3, 3, 16, 16)
    alone = torch.cat([network(image[None]) for image in images])
    assert torch.allclose(network(images), alone, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(images), network(images.float()))
        assert network(images).dtype == torch.float32


YES = torch.tensor(True)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("side", [8, 32])
def test_every_parameter_gets_a_gradient(side: int) -> None:
    network = make(side)
    loss = Adversarial(r1=1.0, lecam=1e-3)
    real = noise(4, 3, side, side).requires_grad_()
    means = moved(LogitMeans.none(), scalar(1.0), scalar(-1.0), YES)
    fake_logits = network(noise(4, 3, side, side, seed=1))
    total, _ = discriminator_loss(loss, real, network(real), fake_logits, means)
    torch.autograd.backward(total)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_learns_to_tell_smooth_from_rough() -> None:
    network = make()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    smooth = functional.interpolate(noise(32, 3, 4, 4), size=16, mode="bilinear")
    rough = noise(32, 3, 16, 16, seed=1)
    hinges = []
    for _ in range(40):
        optimiser.zero_grad()
        total, parts = discriminator_loss(
            Adversarial(), smooth, network(smooth), network(rough), None
        )
        torch.autograd.backward(total)
        optimiser.step()
        hinges.append(parts["hinge"].item())
    assert hinges[0] > 0.5
    assert hinges[-1] < 0.1
    assert network(smooth).mean() > 1 > -1 > network(rough).mean()


def test_hinge_is_one_for_ignorance_and_zero_beyond_the_margin() -> None:
    def hinge(real: float, fake: float) -> float:
        logits = torch.tensor([[real], [fake]], dtype=torch.float32)
        total, parts = discriminator_loss(Adversarial(), torch.empty(0), *logits, None)
        assert total.item() == parts["hinge"].item()
        return total.item()

    assert hinge(0, 0) == 1
    assert hinge(1.5, -2) == 0
    assert hinge(0.5, -3) == 0.25
    assert hinge(-1, 1) == 2
    assert generator_loss(torch.tensor([1.0, 3.0])).item() == -2


def test_r1_is_the_mean_squared_gradient_on_real_images() -> None:
    slope = noise(3, 4, 4)
    for real in (noise(5, 3, 4, 4, seed=1), noise(5, 3, 2, 4, 4, seed=1)):
        images = real.requires_grad_()
        frames = images if real.ndim == 4 else images.transpose(1, 2).flatten(0, 1)
        logits = (frames * slope).sum(dim=(1, 2, 3))  # a linear judge has one gradient everywhere
        loss = Adversarial(r1=0.5)
        total, parts = discriminator_loss(loss, images, logits, logits.detach(), None)
        assert parts["r1"].item() == pytest.approx(slope.square().sum().item(), rel=1e-5)
        expected = parts["hinge"] + 0.25 * parts["r1"]
        assert total.item() == pytest.approx(expected.item(), rel=1e-6)
        assert tuple(parts) == loss.parts


def test_lecam_pulls_logits_towards_the_other_side_s_average() -> None:
    loss = Adversarial(lecam=0.1)
    real, fake = torch.tensor([2.0, -3.0]), torch.tensor([-4.0, 3.0])
    empty = torch.empty(0)
    _, first = discriminator_loss(loss, empty, real, fake, LogitMeans.none())
    assert first["lecam"].item() == 0
    means = moved(LogitMeans.none(), scalar(1.0), scalar(-1.0), YES)
    total, parts = discriminator_loss(loss, empty, real, fake, means)
    # relu(2 - -1)^2 and relu(-3 - -1)^2; relu(1 - -4)^2 and relu(1 - 3)^2.
    assert parts["lecam"].item() == pytest.approx((9 + 0) / 2 + (25 + 0) / 2)
    assert total.item() == pytest.approx(parts["hinge"].item() + 0.1 * parts["lecam"].item())
    assert tuple(parts) == loss.parts


def test_the_averages_begin_with_the_first_batch_and_move_slowly() -> None:
    means = moved(LogitMeans.none(), scalar(math.nan), scalar(-2.0), torch.tensor(False))
    assert means == LogitMeans.none()  # the first batch was skipped
    means = moved(means, scalar(3.0), scalar(-2.0), YES)
    assert means == LogitMeans(real=scalar(3.0), fake=scalar(-2.0), known=scalar(1.0))
    for _ in range(1000):
        means = moved(means, scalar(4.0), scalar(-2.0), YES)
    assert float(means.real) == pytest.approx(4 - math.exp(-1), abs=1e-3)
    assert float(means.fake) == pytest.approx(-2.0)
    assert moved(means, scalar(math.inf), scalar(9.0), torch.tensor(False)) == means


@given(weight=st.floats(0, 2), start=st.integers(0, 50), ramp=st.integers(0, 50))
def test_the_weight_is_zero_then_rises_in_a_line_then_stays(
    weight: float, start: int, ramp: int
) -> None:
    loss = Adversarial(weight=weight, start=start, ramp=ramp)
    weights = [adversarial_weight(loss, step) for step in range(start + ramp + 3)]
    assert all(value == 0 for value in weights[:start])
    assert weights[start + max(ramp, 1) - 1] == weight
    assert weights[-1] == weight
    rises = [b - a for a, b in itertools.pairwise(weights[start : start + ramp])]
    assert rises == pytest.approx([weight / max(ramp, 1)] * len(rises), abs=1e-12)


@given(others=st.floats(0, 1e30), adversarial=st.floats(0, 1e30))
def test_the_adaptive_factor_stays_within_its_bounds(others: float, adversarial: float) -> None:
    factor = float(adaptive_factor(scalar(others), scalar(adversarial)))
    assert 0 <= factor <= ADAPTIVE_MOST
    if adversarial >= 1 and others / adversarial < 1e3:
        assert factor == pytest.approx(others / adversarial, 1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": -0.1},
        {"weight": math.inf},
        {"r1": math.nan},
        {"lecam": -1.0},
        {"start": -1},
        {"ramp": 2.5},
        {"adaptive": 1},
    ],
)
def test_adversarial_settings_out_of_range(changes: dict[str, object]) -> None:
    with pytest.raises(SpecError) as caught:
        check_bounds(Adversarial(**changes))  # type: ignore[arg-type]
    assert caught.value.field == next(iter(changes))
