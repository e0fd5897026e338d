"""Is noise added and taken away as the papers say? Laws, and independent computations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitok_core.diffusion import (
    Predict,
    add_noise,
    ddim,
    ddpm,
    diffusion_loss,
    draw_times,
    euler,
    guided,
    linear_schedule,
    rates,
    respaced,
    spaced_times,
    wanted,
    x0_and_noise,
)
from vitok_core.errors import SpecError
from vitok_core.spec import Target

TARGETS: tuple[Target, ...] = ("eps", "v", "flow")


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the process ----------------------------------------------------------------------------------


def test_the_linear_schedule_is_ho_et_al() -> None:
    schedule = linear_schedule()
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    assert np.allclose(schedule.kept_S.numpy(), kept, rtol=1e-12)
    before = np.append(1.0, kept[:-1])
    posterior = betas * (1 - before) / (1 - kept)
    log_variances = schedule.log_variances_S2.numpy()
    assert np.allclose(log_variances[1:, 0], np.log(posterior[1:]), rtol=1e-12)
    assert log_variances[0, 0] == log_variances[1, 0]  # the first would be minus infinity
    assert np.allclose(log_variances[:, 1], np.log(betas), rtol=1e-12)


@pytest.mark.parametrize("time", [0, 1, 250, 999])
def test_the_forward_process_has_the_variance_of_its_steps(time: int) -> None:
    """Adding the noise of all steps one by one has the same variance as the closed form."""
    variance, scale = 0.0, 1.0
    for beta in linear_schedule().betas_S.tolist()[: time + 1]:
        variance, scale = (1 - beta) * variance + beta, scale * math.sqrt(1 - beta)
    signal, spread = (rate.item() for rate in rates("eps", torch.tensor([float(time)])))
    assert signal == pytest.approx(scale, rel=1e-5)
    assert spread**2 == pytest.approx(variance, rel=1e-5)
    x = add_noise("eps", torch.full((1, 40_000, 1), 3.0), noise(1, 40_000, 1), torch.tensor([time]))
    assert x.mean().item() == pytest.approx(3 * scale, abs=0.03)
    assert x.std().item() == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=20, deadline=None)
@given(time=st.integers(0, 999))
def test_a_target_means_the_code_and_the_noise_it_was_made_of(target: Target, time: int) -> None:
    x0, eps, time_B = noise(2, 3, 4), noise(2, 3, 4, seed=2), torch.full((2,), float(time))
    xt = add_noise(target, x0, eps, time_B)
    found_x0, found_eps = x0_and_noise(target, wanted(target, x0, eps, time_B), xt, time_B)
    # Near pure noise x0 is divided by a signal of 1/157.
    assert torch.allclose(found_x0, x0, atol=2e-4)
    assert torch.allclose(found_eps, eps, atol=2e-4)


def test_the_ends_of_a_flow_are_the_code_and_the_noise() -> None:
    x0, eps = noise(1, 3, 4), noise(1, 3, 4, seed=2)
    assert torch.equal(add_noise("flow", x0, eps, torch.tensor([0.0])), x0)
    assert torch.equal(add_noise("flow", x0, eps, torch.tensor([1000.0])), eps)


@pytest.mark.parametrize("target", TARGETS)
def test_times_are_uniform_and_whole_where_they_must_be(target: Target) -> None:
    times = draw_times(target, 20_000, torch.Generator().manual_seed(0))
    assert times.min() >= 0 and times.max() <= (1000 if target == "flow" else 999)
    assert times.mean().item() == pytest.approx(500, abs=10)
    assert bool((times == times.floor()).all()) is (target != "flow")


# --- respacing ------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1000))
def test_sections_go_from_the_first_to_the_last_step(steps: int) -> None:
    times = spaced_times(steps)
    assert len(times) == steps == len(set(times)) and times == sorted(times)
    assert times[0] == 0 and (steps == 1 or times[-1] == 999)
    gaps = np.diff(times)
    assert steps == 1 or gaps.max(initial=0) - gaps.min(initial=999) <= 1


def test_sections_are_what_dit_samples_with() -> None:
    assert spaced_times(250)[:6] == [0, 4, 8, 12, 16, 20]
    assert spaced_times(250)[-3:] == [991, 995, 999]


def test_strides_start_at_zero() -> None:
    assert spaced_times(250, "stride") == list(range(0, 1000, 4))
    assert spaced_times(334, "stride") == list(range(0, 1000, 3))
    with pytest.raises(SpecError, match="no whole stride"):
        spaced_times(300, "stride")


@pytest.mark.parametrize("steps", [0, 1001, 2.5, True])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(SpecError, match="from 1 to 1000"):
        spaced_times(steps)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1000))
def test_a_respaced_process_keeps_the_same_signal(steps: int) -> None:
    times = spaced_times(steps)
    schedule, whole = respaced(times), linear_schedule()
    assert torch.equal(schedule.kept_S, whole.kept_S[times])
    assert torch.allclose((1 - schedule.betas_S).cumprod(0), schedule.kept_S, rtol=1e-10)
    assert bool((schedule.betas_S > 0).all()) and bool((schedule.betas_S < 1).all())


def test_respacing_to_all_steps_changes_nothing() -> None:
    whole, again = linear_schedule(), respaced(spaced_times(1000))
    assert torch.allclose(whole.betas_S, again.betas_S, rtol=1e-9)


# --- losses ---------------------------------------------------------------------------------------


def bound(x0: float, xt: float, time: int, eps_hat: float, share: float) -> float:
    """The bound's term of one value in bits, from the definition, in plain float64."""
    betas = np.linspace(1e-4, 0.02, 1000)
    kept = np.cumprod(1 - betas)
    beta, now = betas[time], kept[time]
    before = kept[time - 1] if time else 1.0
    smallest = max(beta * (1 - before) / (1 - now), betas[1] * (1 - kept[0]) / (1 - kept[1]))

    def mean(clean: float) -> float:
        return (math.sqrt(before) * beta * clean + math.sqrt(1 - beta) * (1 - before) * xt) / (
            1 - now
        )

    guess = (xt - math.sqrt(1 - now) * eps_hat) / math.sqrt(now)
    log_variance = (1 + share) / 2 * math.log(beta) + (1 - share) / 2 * math.log(smallest)
    variance = math.exp(log_variance)
    if time == 0:
        density = math.exp(-((x0 - mean(guess)) ** 2) / (2 * variance))
        return -math.log2(density / math.sqrt(2 * math.pi * variance))
    true_variance = beta * (1 - before) / (1 - now)
    ratio = true_variance / variance
    apart = (mean(x0) - mean(guess)) ** 2 / variance
    return 0.5 * (ratio + apart - 1 - math.log(ratio)) / math.log(2)


@pytest.mark.parametrize("time", [0, 1, 7, 400, 999])
def test_the_bound_is_its_definition(time: int) -> None:
    x0, eps, share = noise(1, 2, 3), noise(1, 2, 3, seed=2), 0.3 * noise(1, 2, 3, seed=3)
    time_B = torch.tensor([float(time)])
    xt = add_noise("eps", x0, eps, time_B)
    eps_hat = eps + 0.05 * noise(1, 2, 3, seed=4)
    loss = diffusion_loss("eps", torch.cat([eps_hat, share], dim=-1), x0, eps, xt, time_B)
    columns = (tensor.double().flatten().tolist() for tensor in (x0, xt, eps_hat, share))
    expected = np.mean([bound(a, b, time, c, d) for a, b, c, d in zip(*columns, strict=True)])
    assert loss.vlb_B is not None
    assert loss.vlb_B.item() == pytest.approx(expected, rel=2e-3)
    assert loss.mse_B.item() == pytest.approx((eps_hat - eps).square().mean().item())


def test_the_bound_teaches_the_variance_only_and_the_error_the_mean_only() -> None:
    x0, eps, time_B = noise(4, 2, 3), noise(4, 2, 3, seed=2), torch.tensor([0.0, 5.0, 500.0, 999.0])
    xt = add_noise("eps", x0, eps, time_B)
    prediction = noise(4, 2, 6, seed=3).requires_grad_()
    loss = diffusion_loss("eps", prediction, x0, eps, xt, time_B)
    assert loss.vlb_B is not None
    (of_bound,) = torch.autograd.grad(loss.vlb_B.sum(), prediction, retain_graph=True)
    (of_error,) = torch.autograd.grad(loss.mse_B.sum(), prediction)
    assert of_bound[..., :3].abs().max() == 0 and bool((of_bound[..., 3:] != 0).all())
    assert bool((of_error[..., :3] != 0).all()) and of_error[..., 3:].abs().max() == 0


@pytest.mark.parametrize("target", TARGETS)
def test_the_wanted_prediction_has_no_error(target: Target) -> None:
    x0, eps, time_B = noise(2, 2, 3), noise(2, 2, 3, seed=2), torch.tensor([3.0, 700.0])
    perfect = wanted(target, x0, eps, time_B)
    loss = diffusion_loss(target, perfect, x0, eps, add_noise(target, x0, eps, time_B), time_B)
    assert loss.mse_B.tolist() == [0.0, 0.0] and loss.vlb_B is None


# --- samplers -------------------------------------------------------------------------------------


def knows(target: Target, x0: Tensor) -> Predict:
    """A network that knows the answer."""

    def predict(x: Tensor, time_B: Tensor) -> Tensor:
        signal, spread = rates(target, time_B)
        return wanted(target, x0, (x - signal * x0) / spread, time_B)

    return predict


@pytest.mark.parametrize("target", ["eps", "v"])
@pytest.mark.parametrize("spacing", ["sections", "stride"])
def test_samplers_find_the_code_a_perfect_network_knows(target: Target, spacing: str) -> None:
    x0, start = noise(2, 3, 4), noise(2, 3, 4, seed=2)
    schedule = respaced(spaced_times(20, spacing))  # type: ignore[arg-type]  # parametrised
    predict = knows(target, x0)

    def fresh(index: int) -> Tensor:
        return noise(2, 3, 4, seed=10 + index)

    found = ddim(predict, start, target=target, schedule=schedule)
    assert torch.allclose(found, x0, atol=1e-3)
    stochastic = ddim(predict, start, target=target, schedule=schedule, eta=1.0, noise=fresh)
    assert torch.allclose(stochastic, x0, atol=1e-3)
    ancestral = ddpm(predict, start, target=target, schedule=schedule, noise=fresh)
    assert torch.allclose(ancestral, x0, atol=1e-3)


def gaussian_predict(target: Target, mean: float, std: float) -> Predict:
    """The ideal network when codes are Gaussian: the conditional expectation of the target."""

    def predict(x: Tensor, time_B: Tensor) -> Tensor:
        signal, spread = rates(target, time_B)
        gain = signal * std**2 / (signal**2 * std**2 + spread**2)
        x0 = mean + gain * (x - signal * mean)
        return wanted(target, x0, (x - signal * x0) / spread, time_B)

    return predict


@pytest.mark.parametrize("target", ["eps", "v"])
def test_ddim_draws_from_the_distribution(target: Target) -> None:
    start, schedule = noise(1, 20_000, 1), respaced(spaced_times(100))
    found = ddim(gaussian_predict(target, 2.0, 0.5), start, target=target, schedule=schedule)
    assert found.mean().item() == pytest.approx(2.0, abs=0.02)
    assert found.std().item() == pytest.approx(0.5, rel=0.05)


def test_ddim_with_eta_one_is_ancestral_sampling() -> None:
    start, schedule = noise(2, 3, 4), respaced(spaced_times(30))

    def fresh(index: int) -> Tensor:
        return noise(2, 3, 4, seed=100 + index)

    predict = gaussian_predict("eps", 2.0, 0.5)
    found = ddim(predict, start, target="eps", schedule=schedule, eta=1.0, noise=fresh)
    ancestral = ddpm(predict, start, target="eps", schedule=schedule, noise=fresh)
    assert torch.allclose(found, ancestral, atol=1e-4)


def test_ddpm_draws_from_the_distribution_and_uses_a_predicted_variance() -> None:
    start, schedule = noise(1, 10_000, 1), respaced(spaced_times(200))

    def fresh(index: int) -> Tensor:
        return noise(1, 10_000, 1, seed=100 + index)

    mean = gaussian_predict("eps", 2.0, 0.5)
    fixed = ddpm(mean, start, target="eps", schedule=schedule, noise=fresh)
    assert fixed.mean().item() == pytest.approx(2.0, abs=0.02)
    assert fixed.std().item() == pytest.approx(0.5, rel=0.05)

    def with_variance(share: float) -> Predict:
        return lambda x, t: torch.cat([mean(x, t), torch.full_like(x, share)], dim=-1)

    smallest = ddpm(with_variance(-1.0), start, target="eps", schedule=schedule, noise=fresh)
    largest = ddpm(with_variance(1.0), start, target="eps", schedule=schedule, noise=fresh)
    assert torch.allclose(smallest, fixed, atol=1e-5)
    assert largest.std() > smallest.std()


def test_euler_follows_a_linear_equation() -> None:
    """dx/dt = x from t = 1 to 0 ends at x / e; one step is 1 - 1/n, so n of them have a power."""
    start = noise(2, 3, 4)
    for steps in (1, 10, 1000):
        found = euler(lambda x, time_B: x, start, steps=steps)
        assert torch.allclose(found, start * (1 - 1 / steps) ** steps, rtol=1e-4, atol=1e-6)
    assert torch.allclose(found, start / math.e, rtol=2e-3)


def test_euler_tells_the_network_the_times_of_training() -> None:
    seen: list[float] = []

    def predict(x: Tensor, time_B: Tensor) -> Tensor:
        seen.append(time_B[0].item())
        return x

    euler(predict, noise(1, 1, 1), steps=4)
    assert seen == [1000.0, 750.0, 500.0, 250.0]


def test_a_flow_of_gaussian_codes_ends_in_their_distribution() -> None:
    found = euler(gaussian_predict("flow", 2.0, 0.5), noise(1, 20_000, 1), steps=200)
    assert found.mean().item() == pytest.approx(2.0, abs=0.02)
    assert found.std().item() == pytest.approx(0.5, rel=0.05)


def test_eta_needs_noise() -> None:
    with pytest.raises(SpecError, match="source of noise"):
        ddim(
            knows("eps", noise(1, 1, 1)),
            noise(1, 1, 1),
            target="eps",
            schedule=respaced(spaced_times(5)),
            eta=0.5,
        )


# --- guidance -------------------------------------------------------------------------------------


def labelled(x: Tensor, time_B: Tensor, labels_B: Tensor | None) -> Tensor:
    """A network whose two channels are 10 times the label, and whose variance is the label."""
    assert labels_B is not None
    value = labels_B.float().reshape(-1, 1, 1).expand_as(x)
    return torch.cat([10 * value, value], dim=-1)


def test_guidance_moves_all_channels_and_leaves_the_variance() -> None:
    x, labels, time = torch.zeros(2, 3, 4), torch.tensor([1, 2]), torch.full((2,), 500.0)
    predicted = guided(labelled, labels, null=4, scale=3.0)(x, time)
    # 40 + 3 * (10 - 40) and 40 + 3 * (20 - 40)
    assert predicted[0, ..., :4].unique().tolist() == [-50.0]
    assert predicted[1, ..., :4].unique().tolist() == [-20.0]
    assert predicted[..., 4:].mean(dim=(1, 2)).tolist() == [1.0, 2.0]


def test_scale_one_is_no_guidance_and_computes_no_second_half() -> None:
    x, labels, time = torch.zeros(2, 3, 4), torch.tensor([1, 2]), torch.full((2,), 500.0)
    sizes: list[int] = []

    def counted(x: Tensor, time_B: Tensor, labels_B: Tensor | None) -> Tensor:
        sizes.append(len(x))
        return labelled(x, time_B, labels_B)

    same = guided(counted, labels, null=4, scale=1.0)(x, time)
    assert torch.equal(same, labelled(x, time, labels)) and sizes == [2]


@pytest.mark.parametrize(("time", "on"), [(0.0, False), (100, True), (500, True), (901, False)])
def test_an_interval_switches_guidance_off_outside(time: float, on: bool) -> None:
    x, labels, time_B = torch.zeros(1, 1, 1), torch.tensor([1]), torch.tensor([float(time)])
    predicted = guided(labelled, labels, null=4, scale=2.0, interval=(0.1, 0.9))(x, time_B)
    assert predicted[0, 0, 0].item() == (-20.0 if on else 10.0)


@pytest.mark.parametrize(
    ("scale", "interval", "field"),
    [(-1.0, None, "cfg"), (math.nan, None, "cfg"), (2.0, (0.9, 0.1), "cfg_interval")],
)
def test_impossible_guidance_is_refused(
    scale: float, interval: tuple[float, float] | None, field: str
) -> None:
    with pytest.raises(SpecError) as error:
        guided(labelled, torch.tensor([0]), null=1, scale=scale, interval=interval)
    assert error.value.field == field


def test_a_model_without_classes_cannot_be_guided() -> None:
    with pytest.raises(SpecError, match="without classes"):
        guided(labelled, None, null=0, scale=2.0)


# --- an independent implementation ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("target", "eta"), [("eps", 0.0), ("v", 0.0), ("eps", 0.7)])
def test_ddim_steps_are_those_of_diffusers(target: Target, eta: float) -> None:
    with warnings.catch_warnings():
        # Of packages that diffusers imports and this library does not.
        warnings.simplefilter("ignore")
        from diffusers import DDIMScheduler
    theirs = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="leading",
        prediction_type="epsilon" if target == "eps" else "v_prediction",
    )
    theirs.set_timesteps(50)
    times = spaced_times(50, "stride")
    assert theirs.timesteps.tolist() == times[::-1]
    weight = noise(4, 4, seed=3) / 4

    def predict(x: Tensor, time_B: Tensor) -> Tensor:
        return torch.tanh(x @ weight + time_B.reshape(-1, 1, 1) / 1000)

    def fresh(index: int) -> Tensor:
        return noise(2, 3, 4, seed=10 + index)

    x = start = noise(2, 3, 4)
    for index, time in zip(reversed(range(50)), theirs.timesteps.tolist(), strict=True):
        step = theirs.step(
            predict(x, torch.full((2,), float(time))),
            time,
            x,
            eta=eta,
            variance_noise=fresh(index) if eta else None,
        )
        x = step.prev_sample
    ours = ddim(predict, start, target=target, schedule=respaced(times), eta=eta, noise=fresh)
    # A sum over 50 steps whose first divides by a signal of 1/150.
    assert torch.allclose(ours, x, rtol=1e-4, atol=1e-5 * float(x.abs().max()))
