"""The losses of stage 1 and stage 2: pixel, KL, perceptual and adversarial terms, all means.

    stage 1: pixel_weight * pixel + w_kl * kl + w_lpips * lpips + w_ssim * ssim + w_dino * dino
    stage 2: the same + weight(step) * -mean(D(x_hat)), and the discriminator's own hinge loss

- pixel: mean over all values of images in [-1, 1] of d^2 (l2), |d| (l1) or sqrt(d^2 + 1e-6)
  (charbonnier: quadratic near zero, linear far from it; Charbonnier et al. 1994, eps 1e-3).
- kl: 0.5 * mean(mean^2 + var - 1 - logvar) over all values of the code. A mean, so that 1e-3 means
  the same at every E; summed, the same weight would be E times as strong and collapse the code.
- lpips: the learned perceptual distance of images in [-1, 1] (Zhang et al. 2018), mean over images.
- ssim: 1 - structural similarity by the rules of the metric `ssim`, unrounded, mean over images.
- dino: 1 - cosine of DINOv2's patch tokens, mean over tokens and images. Its patches can leave a
  grid in what the decoder draws when they coincide with the tokenizer's; look at the pictures.

Of videos the last three are means over frames. Weights are in `vitok_core.settings`. Losses are
computed in float32, the networks they look through in the stage's `network_precision`.

The discriminator's loss is the hinge loss, and where they have weight:

- r1: gamma / 2 * mean |grad D(x)|^2 on real images (Mescheder et al. 2018), every step.
- lecam: the LeCam regulariser (Tseng et al. 2021).

The adaptive weight of the decoder's term is multiplied by the ratio of the norms of the gradients
of the other losses and of that term at the last layer (Esser et al. 2021), within [0, 1e4]. It is
the ratio of the step before, which is known for the whole batch whatever the micro-batches; the
very first step has 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.features import compiled, feature_network, placed
from vitok_core.settings import SSIM_SMALLEST, Adversarial, Loss
from vitok_core.spec import NetworkPrecision
from vitok_core.tokenizer import Posterior

CHARBONNIER_EPS = 1e-3
LECAM_DECAY = 0.999
ADAPTIVE_MOST = 1e4


def _lpips(network: nn.Module, x_hat: Tensor, x: Tensor) -> Tensor:
    number = next((one.dtype for one in network.parameters()), torch.float32)
    distance: Tensor = network(x_hat.to(number), x.to(number))
    return distance.float().mean()


def _ssim(network: nn.Module, x_hat: Tensor, x: Tensor) -> Tensor:
    """1 - mean structural similarity."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    # Its luminance term asks for values from 0 on; [0, 2] of range 2 is the metric's [0, 255].
    similarity: Any = structural_similarity_index_measure(
        x_hat + 1.0, x + 1.0, sigma=1.5, kernel_size=SSIM_SMALLEST, data_range=2.0
    )
    distance: Tensor = 1.0 - similarity
    return distance


def _dino(network: nn.Module, x_hat: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = network(x)
    return 1.0 - functional.cosine_similarity(network(x_hat), wanted, dim=-1).mean()


TermFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, reconstructions, originals) to a scalar; both (B, 3, H, W) float32 in [-1, 1], frames
of clips in a row. The network is an identity where the term has none."""

TERMS: dict[str, TermFunction] = {"lpips": _lpips, "ssim": _ssim, "dino": _dino}
"""How each term of `settings.Loss` is computed that holds a `settings.Term`, by its name."""


def loss_networks(
    loss: Loss,
    device: str | torch.device = "cpu",
    precision: NetworkPrecision = "tf32",
    *,
    fast: bool = False,
) -> dict[str, nn.Module]:
    """Load the frozen networks that `loss` needs, by term, and nothing else.

    Args:
        loss: the weights of the terms.
        device: where the networks compute.
        precision: of their arithmetic. With bf16 weights and activations are bfloat16, and what
            comes out is float32; the others differ in `features.convolutions` only.
        fast: whether to compile them on a GPU.

    Raises:
        WeightsError: a pretrained file is missing or not the pinned one.
    """
    networks = {
        name: placed(feature_network(backbone.name), device)
        for name, backbone in loss.networks.items()
    }
    if precision == "bf16":
        networks = {name: network.to(torch.bfloat16) for name, network in networks.items()}
    if fast:
        return {name: compiled(network, device) for name, network in networks.items()}
    return networks


def stage1_loss(
    loss: Loss,
    x: Tensor,
    x_hat: Tensor,
    posterior: Posterior,
    networks: Mapping[str, nn.Module],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted total and its unweighted parts.

    Args:
        loss: the weights.
        x: originals, (B, 3, H, W) or (B, 3, T, H, W), in [-1, 1].
        x_hat: reconstructions, same shape.
        posterior: of the originals.
        networks: see `loss_networks`.

    Returns:
        The scalar total (float32, with gradient) and detached scalars named `loss.parts`. A term
        without weight adds nothing to the total; "pixel" and "kl" are measured even so.

    Raises:
        ValueError: the network of a term is not among `networks`.
    """
    x, x_hat = x.float(), x_hat.float()
    parts = {"pixel": _pixel(loss.pixel, x, x_hat), "kl": posterior.kl().mean()}
    weights = {"pixel": loss.pixel_weight, "kl": loss.kl}
    frames, frames_hat = _frames(x), _frames(x_hat)
    for name, term in loss.active.items():
        if loss.backbone(term) is not None and name not in networks:
            raise ValueError(f"the loss {name} has weight, so networks[{name!r}] must be given")
        parts[name] = TERMS[name](networks.get(name, _NONE), frames_hat, frames)
        weights[name] = getattr(loss, name)
    # Without weight a term must not touch the total: 0 times infinity is not a number.
    weighted = [weights[name] * part for name, part in parts.items() if weights[name] > 0]
    return torch.stack(weighted).sum(), {name: part.detach() for name, part in parts.items()}


_NONE = nn.Identity()


def _pixel(pixel: str, x: Tensor, x_hat: Tensor) -> Tensor:
    if pixel == "l2":
        return functional.mse_loss(x_hat, x)
    if pixel == "l1":
        return functional.l1_loss(x_hat, x)
    return ((x_hat - x).square() + CHARBONNIER_EPS**2).sqrt().mean()


def _frames(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x.transpose(1, 2).flatten(0, 1)


def adversarial_weight(loss: Adversarial, step: int) -> float:
    """Weight of the decoder's term at one step, from 0: nothing, a linear rise, then `weight`."""
    if step < loss.start:
        return 0.0
    return loss.weight * min((step - loss.start + 1) / max(loss.ramp, 1), 1.0)


def adaptive_factor(others: Tensor, adversarial: Tensor) -> Tensor:
    """Ratio of two gradient norms at the last layer, within [0, 1e4] also when one is 0."""
    return (others / (adversarial + 1e-4)).clamp_max(ADAPTIVE_MOST)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The decoder's term, -mean(D(x_hat)), without weight."""
    return -fake_logits.mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitMeans:
    """Moving averages of the mean logits, decay 0.999; they begin as the first batch's means.

    Scalars on the device, float64, so that nobody waits for them.

    Attributes:
        real: of real images.
        fake: of reconstructions.
        known: 1 from the first batch on, 0 before it.
    """

    real: Tensor
    fake: Tensor
    known: Tensor

    @staticmethod
    def none(device: torch.device | str = "cpu") -> LogitMeans:
        """The averages before the first batch."""
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return LogitMeans(real=zero, fake=zero, known=zero)


def moved(means: LogitMeans, real: Tensor, fake: Tensor, ok: Tensor) -> LogitMeans:
    """The averages after one more batch.

    Args:
        means: before it.
        real: its mean logit of real images, float64.
        fake: its mean logit of reconstructions, float64.
        ok: whether the batch counts; if not, the averages stay as they are.
    """

    def follow(mean: Tensor, now: Tensor) -> Tensor:
        average = LECAM_DECAY * mean + (1 - LECAM_DECAY) * now
        return torch.where(ok, torch.where(means.known > 0, average, now), mean)

    return LogitMeans(
        real=follow(means.real, real),
        fake=follow(means.fake, fake),
        known=torch.where(ok, torch.ones_like(means.known), means.known),
    )


def discriminator_loss(
    loss: Adversarial,
    real: Tensor,
    real_logits: Tensor,
    fake_logits: Tensor,
    means: LogitMeans,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the discriminator minimises, and its unweighted parts.

    Args:
        loss: which regularisers.
        real: the real images that gave `real_logits`; for `r1` they must require a gradient.
        real_logits: (N,), one an image or frame.
        fake_logits: (N,), of reconstructions.
        means: averages of the logits over the steps before, for `lecam`; before the first batch
            is known there is no such term.

    Returns:
        The scalar total, hinge + r1 / 2 * r1 term + lecam * lecam term, and detached scalars named
        `loss.parts`. hinge is 0.5 * (mean relu(1 - real) + mean relu(1 + fake)): 1 for one that
        knows nothing, 0 for one that always wins by a margin.
    """
    hinge = 0.5 * (
        functional.relu(1 - real_logits).mean() + functional.relu(1 + fake_logits).mean()
    )
    total = hinge
    parts = {"hinge": hinge, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    if loss.r1 > 0:
        # Logits of other images do not depend on an image, so the sum gives each its own gradient.
        (slope,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
        parts["r1"] = slope.square().sum() / len(real_logits)
        total = total + 0.5 * loss.r1 * parts["r1"]
    if loss.lecam > 0:
        above = functional.relu(real_logits - means.fake).square().mean()
        below = functional.relu(means.real - fake_logits).square().mean()
        parts["lecam"] = (above + below) * means.known.to(hinge.dtype)
        total = total + loss.lecam * parts["lecam"]
    return total, {name: part.detach() for name, part in parts.items()}
