"""Diffusion of codes: noise schedules, training targets and losses, samplers.

Everything here is a function of tensors and of a callable `predict(x_BLC, time_B)`; it knows no
network. All three targets are one process, x_t = signal(t) * x0 + noise(t) * noise, and differ in
the rates and in what the network is asked for:

    eps   linear betas, 1000 steps (Ho et al. 2020)      the noise
    v     the same rates (Salimans and Ho 2022)          signal(t) * noise - noise(t) * x0
    flow  signal = 1 - t, noise = t (Liu et al. 2022)    noise - x0, the straight path's velocity

Times are on one scale everywhere, for networks too, from 0 (clean) to 1000 (noise):
whole steps 0 to 999 for eps and v, real numbers for flow. Tables are float64; x0 is never clipped.

Shape suffixes: B samples, L tokens, C channels of the code, S steps of a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor

from vitok_core.errors import SpecError
from vitok_core.settings import DIFFUSION_STEPS, Spacing, stride_of
from vitok_core.spec import Target

STEPS = DIFFUSION_STEPS
"""Steps of the training process of eps and v, and the upper end of the time scale."""

BETAS = (1e-4, 0.02)

Predict = Callable[[Tensor, Tensor], Tensor]
"""x (B, L, C) and times (B,) to the network's output, (B, L, C) or (B, L, 2C)."""

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""As `Predict`, with labels (B,) int64 or None as third argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A process of S steps with Gaussian noise; float64 tables, index 0 is the cleanest step.

    Attributes:
        times_S: int64, rising; steps of the 1000-step training process, as networks get them.
        betas_S: variance that a step adds.
        kept_S: product of 1 - beta up to each step ("alpha bar"), the variance left of the signal.
        log_variances_S2: log-variance of one step back, the smallest and the largest reasonable
            one: that of q(x_before | x_t, x0), and beta. At the first step the smallest would be
            minus infinity; the second step's stands in (Nichol & Dhariwal 2021).
        mean_weights_S2: weights of x0 and of x_t in the mean of q(x_before | x_t, x0).
    """

    times_S: Tensor
    betas_S: Tensor
    kept_S: Tensor
    log_variances_S2: Tensor
    mean_weights_S2: Tensor

    def __len__(self) -> int:
        return len(self.times_S)


def _schedule(times_S: Tensor, kept_S: Tensor) -> Schedule:
    before_S = torch.cat([kept_S.new_ones(1), kept_S[:-1]])
    betas_S = 1.0 - kept_S / before_S
    smallest_S = betas_S * (1.0 - before_S) / (1.0 - kept_S)
    first = smallest_S[1:2] if len(kept_S) > 1 else betas_S[:1]
    of_x0_S = betas_S * before_S.sqrt() / (1.0 - kept_S)
    of_xt_S = (1.0 - before_S) * (1.0 - betas_S).sqrt() / (1.0 - kept_S)
    return Schedule(
        times_S=times_S,
        betas_S=betas_S,
        kept_S=kept_S,
        log_variances_S2=torch.stack([torch.cat([first, smallest_S[1:]]), betas_S], dim=1).log(),
        mean_weights_S2=torch.stack([of_x0_S, of_xt_S], dim=1),
    )


@lru_cache(maxsize=16)
def linear_schedule(device: torch.device = torch.device("cpu")) -> Schedule:  # noqa: B008
    """The training process: 1000 steps, betas rising linearly from 1e-4 to 0.02."""
    kept_S = (1.0 - torch.linspace(*BETAS, STEPS, dtype=torch.float64)).cumprod(dim=0)
    return _schedule(torch.arange(STEPS, device=device), kept_S.to(device))


def spaced_times(steps: int, spacing: Spacing = "sections") -> list[int]:
    """Which steps of the training process a sampler of `steps` steps visits; rising.

    "sections" is what ADM and DiT write as "250": the first and the last step and even distances,
    rounded, between. "stride" is ADM's "ddim250": every k-th step from 0, for the first whole k
    that gives as many steps.

    Raises:
        SpecError: no such spacing, or a number of steps that it cannot give.
    """
    if spacing not in get_args(Spacing):
        raise SpecError("spacing", f"spacing = {spacing!r}: must be sections or stride")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= STEPS:
        raise SpecError("steps", f"steps = {steps!r}: must be a whole number from 1 to {STEPS}")
    if spacing == "stride":
        stride = stride_of(steps)
        if stride is None:
            raise SpecError("steps", f"steps = {steps}: no whole stride visits that many steps")
        return list(range(0, STEPS, stride))
    distance = (STEPS - 1) / (steps - 1) if steps > 1 else 1.0
    return [round(distance * number) for number in range(steps)]


def respaced(times: list[int]) -> Schedule:
    """The training process seen only at some rising `times`; `kept_S` is the original's there."""
    times_S = torch.tensor(times)
    return _schedule(times_S, linear_schedule().kept_S[times_S])


def rates(target: Target, time_B: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise rate of every sample, each (B, 1, 1) float32."""
    if target == "flow":
        noise_B = time_B.float() / STEPS
        signal_B = 1.0 - noise_B
    else:
        kept_B = linear_schedule(time_B.device).kept_S[time_B.long()]
        signal_B, noise_B = kept_B.sqrt().float(), (1.0 - kept_B).sqrt().float()
    return signal_B.reshape(-1, 1, 1), noise_B.reshape(-1, 1, 1)


def draw_times(target: Target, count: int, generator: torch.Generator) -> Tensor:
    """Uniform times of training, (count,) float32 on the generator's device.

    Whole steps 0 to 999 for eps and v, the half-open interval from 0 to 1000 for flow.
    """
    uniform_B = torch.rand(count, generator=generator, device=generator.device) * STEPS
    # Rounding may reach 1000 itself, which is not a step.
    return uniform_B if target == "flow" else uniform_B.floor().clamp_max(STEPS - 1)


def add_noise(target: Target, x0_BLC: Tensor, noise_BLC: Tensor, time_B: Tensor) -> Tensor:
    """x_t, (B, L, C)."""
    signal_B11, noise_B11 = rates(target, time_B)
    return signal_B11 * x0_BLC + noise_B11 * noise_BLC


def wanted(target: Target, x0_BLC: Tensor, noise_BLC: Tensor, time_B: Tensor) -> Tensor:
    """What the network should predict, (B, L, C)."""
    if target == "eps":
        return noise_BLC
    if target == "flow":
        return noise_BLC - x0_BLC
    signal_B11, noise_B11 = rates(target, time_B)
    return signal_B11 * noise_BLC - noise_B11 * x0_BLC


def x0_and_noise(
    target: Target, prediction_BLC: Tensor, xt_BLC: Tensor, time_B: Tensor
) -> tuple[Tensor, Tensor]:
    """The clean code and the noise that a prediction means, each (B, L, C); nothing is clipped."""
    signal_B11, noise_B11 = rates(target, time_B)
    if target == "eps":
        return (xt_BLC - noise_B11 * prediction_BLC) / signal_B11, prediction_BLC
    if target == "v":
        x0_BLC = signal_B11 * xt_BLC - noise_B11 * prediction_BLC
        return x0_BLC, noise_B11 * xt_BLC + signal_B11 * prediction_BLC
    return xt_BLC - noise_B11 * prediction_BLC, xt_BLC + signal_B11 * prediction_BLC


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Loss of every sample of a batch; the total is `mse_B`, plus `vlb_B` where there is one.

    Attributes:
        mse_B: mean squared error per value of the prediction, float32.
        vlb_B: this step's term of the variational bound in bits a value, float32; None unless the
            network predicts the variance. Its gradient reaches the variance only.
    """

    mse_B: Tensor
    vlb_B: Tensor | None


def diffusion_loss(
    target: Target,
    prediction: Tensor,
    x0_BLC: Tensor,
    noise_BLC: Tensor,
    xt_BLC: Tensor,
    time_B: Tensor,
) -> Loss:
    """Squared error of the prediction and, of a prediction of 2C channels, the bound's term.

    The second half of 2C channels places the log-variance between the two of
    `Schedule.log_variances_S2`, -1 and 1 being the ends. Adding the bound's term with weight 1 to
    the error is the hybrid loss of Nichol & Dhariwal 2021, whose weight 0.001 is on the sum over
    all 1000 steps. The first step's term is the likelihood of a continuous Gaussian, latents having
    no 8-bit bins.

    Args:
        target: "eps" when the variance is predicted.
        prediction: output of the network, (B, L, C) or (B, L, 2C).
        x0_BLC: clean codes.
        noise_BLC: the noise that was added.
        xt_BLC: `add_noise` of the two.
        time_B: on the scale from 0 to 1000.
    """
    channels = x0_BLC.shape[-1]
    prediction = prediction.float()
    predicted_BLC = prediction[..., :channels]
    error_BLC = predicted_BLC - wanted(target, x0_BLC, noise_BLC, time_B)
    mse_B = error_BLC.square().mean(dim=(1, 2))
    if prediction.shape[-1] == channels:
        return Loss(mse_B=mse_B, vlb_B=None)
    schedule, index_B = linear_schedule(time_B.device), time_B.long()
    believed_BLC, _ = x0_and_noise(target, predicted_BLC.detach(), xt_BLC, time_B)
    log_variance_BLC = _log_variance(schedule, prediction[..., channels:], index_B)
    true_log_B11 = _at(schedule.log_variances_S2[:, 0], index_B, like=x0_BLC)
    difference_BLC = _step_mean(schedule, x0_BLC, xt_BLC, index_B) - _step_mean(
        schedule, believed_BLC, xt_BLC, index_B
    )
    kl_BLC = 0.5 * (
        log_variance_BLC
        - true_log_B11
        + torch.exp(true_log_B11 - log_variance_BLC)
        + difference_BLC.square() * torch.exp(-log_variance_BLC)
        - 1.0
    )
    # The mean of the first step's posterior is x0 itself, so `difference` is the decoder's error.
    likelihood_BLC = 0.5 * (
        math.log(2 * math.pi)
        + log_variance_BLC
        + difference_BLC.square() * torch.exp(-log_variance_BLC)
    )
    first_B11 = (index_B == 0).reshape(-1, 1, 1)
    nats_BLC = torch.where(first_B11, likelihood_BLC, kl_BLC)
    return Loss(mse_B=mse_B, vlb_B=nats_BLC.mean(dim=(1, 2)) / math.log(2.0))


def guided(
    network: Network,
    labels_B: Tensor | None,
    *,
    null: int,
    scale: float,
    interval: tuple[float, float] | None = None,
) -> Predict:
    """A network with its labels bound, under classifier-free guidance (Ho & Salimans 2022).

    prediction = without + scale * (with - without) on ALL C channels of the target; a predicted
    variance stays that of the labelled half. With scale 1 the unlabelled half is not computed.

    Args:
        network: called with twice the batch where guidance is on.
        labels_B: int64, or None for an unconditional network, which cannot be guided.
        null: the label that means none.
        scale: 1 for no guidance.
        interval: smallest and largest time, as shares of the scale (0 clean, 1 noise), at which
            guidance is on (Kynkaanniemi et al. 2024); None for always.

    Raises:
        SpecError: guidance without labels, a scale or an interval out of range.
    """
    check_guidance(scale, interval)
    if labels_B is None and scale != 1.0:
        raise SpecError(
            "cfg", f"cfg = {scale}: a model without classes cannot be guided; set cfg to 1"
        )

    def on(time_B: Tensor) -> bool:
        return interval is None or interval[0] <= float(time_B[0]) / STEPS <= interval[1]

    def predict(x_BLC: Tensor, time_B: Tensor) -> Tensor:
        if labels_B is None or scale == 1.0 or not on(time_B):
            return network(x_BLC, time_B, labels_B)
        both = network(
            torch.cat([x_BLC, x_BLC]),
            torch.cat([time_B, time_B]),
            torch.cat([labels_B, torch.full_like(labels_B, null)]),
        ).float()
        channels = x_BLC.shape[-1]
        labelled, unlabelled = both.chunk(2)
        mixed_BLC = torch.lerp(unlabelled[..., :channels], labelled[..., :channels], scale)
        return torch.cat([mixed_BLC, labelled[..., channels:]], dim=-1)

    return predict


def check_guidance(scale: float, interval: tuple[float, float] | None) -> None:
    """Raise SpecError unless `guided` can be used with these."""
    if not (math.isfinite(scale) and scale >= 0):
        raise SpecError("cfg", f"cfg = {scale!r}: must be a number of at least 0; 1 is no guidance")
    if interval is None:
        return
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
        raise SpecError(
            "cfg_interval",
            f"cfg_interval = {interval!r}: must be two shares from 0 to 1, the smaller one first",
        )


def ddim(
    predict: Predict,
    x_BLC: Tensor,
    *,
    target: Target,
    schedule: Schedule,
    eta: float = 0.0,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """From noise (B, L, C) to clean codes by DDIM (Song et al. 2021), over all steps of a schedule.

    Args:
        predict: the network.
        x_BLC: standard normal noise.
        target: "eps" or "v".
        schedule: see `respaced`.
        eta: 0 for the deterministic path, 1 for as much noise as the posterior has.
        noise: fresh standard normal noise like `x_BLC` for each step of the schedule, by its index;
            needed when eta is not 0.
    """
    kept = [1.0, *schedule.kept_S.tolist()]
    for index in reversed(range(len(schedule))):
        now, before = kept[index + 1], kept[index]
        time_B = torch.full((len(x_BLC),), float(schedule.times_S[index]), device=x_BLC.device)
        prediction_BLC = predict(x_BLC, time_B)[..., : x_BLC.shape[-1]].float()
        x0_BLC, noise_BLC = x0_and_noise(target, prediction_BLC, x_BLC, time_B)
        spread = eta * math.sqrt((1 - before) / (1 - now) * (1 - now / before))
        x_BLC = math.sqrt(before) * x0_BLC + math.sqrt(1 - before - spread**2) * noise_BLC
        if spread > 0:
            x_BLC = x_BLC + spread * _drawn(noise, index)
    return x_BLC


def ddpm(
    predict: Predict,
    x_BLC: Tensor,
    *,
    target: Target,
    schedule: Schedule,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """From noise to clean codes by ancestral sampling (Ho et al. 2020); arguments as `ddim`.

    The variance of a step is the network's where it predicts one, else the posterior's.
    """
    channels = x_BLC.shape[-1]
    for index in reversed(range(len(schedule))):
        time_B = torch.full((len(x_BLC),), float(schedule.times_S[index]), device=x_BLC.device)
        prediction = predict(x_BLC, time_B).float()
        x0_BLC, _ = x0_and_noise(target, prediction[..., :channels], x_BLC, time_B)
        index_B = torch.full((len(x_BLC),), index, device=x_BLC.device)
        x_before_BLC = _step_mean(schedule, x0_BLC, x_BLC, index_B)
        if index > 0:
            log_variance = (
                _log_variance(schedule, prediction[..., channels:], index_B)
                if prediction.shape[-1] > channels
                else _at(schedule.log_variances_S2[:, 0], index_B, like=x_BLC)
            )
            x_before_BLC = x_before_BLC + torch.exp(0.5 * log_variance) * noise(index)
        x_BLC = x_before_BLC
    return x_BLC


def euler(predict: Predict, x_BLC: Tensor, *, steps: int) -> Tensor:
    """From noise to clean codes along the velocity of a flow: `steps` equal Euler steps, 1 to 0."""
    for step in range(steps):
        time_B = torch.full((len(x_BLC),), STEPS * (1.0 - step / steps), device=x_BLC.device)
        x_BLC = x_BLC - predict(x_BLC, time_B)[..., : x_BLC.shape[-1]].float() / steps
    return x_BLC


def _drawn(noise: Callable[[int], Tensor] | None, index: int) -> Tensor:
    if noise is None:
        raise SpecError("eta", "eta is not 0, so the sampler needs a source of noise")
    return noise(index)


def _at(table_S: Tensor, index_B: Tensor, *, like: Tensor) -> Tensor:
    """Rows of a float64 table as float32, (B, 1, 1)."""
    return table_S.to(like.device)[index_B].float().reshape(-1, 1, 1)


def _step_mean(schedule: Schedule, x0_BLC: Tensor, xt_BLC: Tensor, index_B: Tensor) -> Tensor:
    """Mean of q(x_before | x_t, x0)."""
    weights_S2 = schedule.mean_weights_S2
    of_x0, of_xt = (_at(weights_S2[:, column], index_B, like=x0_BLC) for column in (0, 1))
    return of_x0 * x0_BLC + of_xt * xt_BLC


def _log_variance(schedule: Schedule, share_BLC: Tensor, index_B: Tensor) -> Tensor:
    """Between the smallest (share -1) and the largest (share 1) log-variance of a step."""
    smallest, largest = (
        _at(schedule.log_variances_S2[:, column], index_B, like=share_BLC) for column in (0, 1)
    )
    upper_BLC = (share_BLC + 1.0) / 2.0
    return upper_BLC * largest + (1.0 - upper_BLC) * smallest
