"""What do stage 1 and stage 2 minimise? Pixel, KL, perceptual and adversarial terms, all means.

    stage 1: pixel_weight * pixel + kl_weight * kl + lpips_weight * lpips
             + ssim_weight * ssim + dino_weight * dino
    stage 2: the same + weight(step) * -mean(D(x_hat)), and the discriminator's own hinge loss

- pixel: mean over all values of images in [-1, 1] of d^2 (l2), |d| (l1) or sqrt(d^2 + 1e-6)
  (charbonnier: quadratic near zero, linear far from it; Charbonnier et al. 1994, eps 1e-3).
- kl: 0.5 * mean(mean^2 + var - 1 - logvar) over all values of the code. A mean, so that 1e-3 means
  the same at every E; summed, the same weight would be E times as strong and collapse the code.
- lpips: the learned perceptual distance of images in [-1, 1] (Zhang et al. 2018), mean over images.
- ssim: 1 - structural similarity by the rules of the metric `ssim`, unrounded, mean over images.
- dino: 1 - cosine of DINOv2's patch tokens, mean over tokens and images. Its patches can leave a
  grid in what the decoder draws when they coincide with the tokenizer's; look at the pictures.

Of videos the last three are means over frames. Weights 1, 1e-3 and 1 (and 0, 0) are the paper's
stage 1, 0.05 its adversarial weight. Losses are computed in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.errors import SpecError
from vitok_core.features import feature_network
from vitok_core.protocols import BACKBONES
from vitok_core.spec import LpipsTrunk, TokenizerSpec
from vitok_core.tokenizer import Posterior

Pixel = Literal["l2", "l1", "charbonnier"]

CHARBONNIER_EPS = 1e-3
SSIM_SMALLEST = 11
DETERMINISTIC = ("none", "layernorm")
"""Bottlenecks whose code has no distribution, hence no KL."""
LECAM_DECAY = 0.999
ADAPTIVE_MOST = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1Loss:
    """Which terms, and how much of each.

    Attributes:
        pixel: "l2" (squared), "l1" (absolute) or "charbonnier" (smoothed absolute) difference.
        pixel_weight: of the pixel term, at least 0.
        kl_weight: of the mean KL (beta of the paper), at least 0.
        lpips_weight: of the perceptual term (eta of the paper), at least 0; with 0 no pretrained
            network is loaded.
        lpips_net: trunk of the perceptual term, "alex" or "vgg" (the paper's).
        ssim_weight: of 1 - SSIM, at least 0.
        dino_weight: of the distance of DINOv2 features, at least 0; with 0 the network, which has
            to be downloaded, is not needed.
    """

    pixel: Pixel = "l2"
    pixel_weight: float = 1.0
    kl_weight: float = 1e-3
    lpips_weight: float = 1.0
    lpips_net: LpipsTrunk = "alex"
    ssim_weight: float = 0.0
    dino_weight: float = 0.0

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the parts that `stage1_loss` returns, in its order."""
        optional = (
            ("lpips", self.lpips_weight),
            ("ssim", self.ssim_weight),
            ("dino", self.dino_weight),
        )
        return ("pixel", "kl", *(name for name, weight in optional if weight > 0))

    def check(self, spec: TokenizerSpec) -> Stage1Loss:
        """Return the loss itself if it can be used for `spec`.

        Raises:
            SpecError: an unknown name, a weight out of range, images too small for a term, a KL
                that the bottleneck does not have.
        """
        for field, value, allowed in (
            ("pixel", self.pixel, get_args(Pixel)),
            ("lpips_net", self.lpips_net, get_args(LpipsTrunk)),
        ):
            if value not in allowed:
                raise SpecError(field, f"{field} = {value!r}: must be {' or '.join(allowed)}")
        weights = ("pixel_weight", "lpips_weight", "ssim_weight", "dino_weight")
        for field in (*weights, "kl_weight"):
            _check_weight(field, getattr(self, field))
        if not any(getattr(self, field) for field in weights):
            raise SpecError(
                "pixel_weight",
                f"{', '.join(weights)} are all 0: nothing would ask for a reconstruction",
            )
        if self.kl_weight > 0 and spec.bottleneck in DETERMINISTIC:
            raise SpecError(
                "kl_weight",
                f"the bottleneck {spec.bottleneck} has no distribution and no KL, but kl_weight is "
                f"{self.kl_weight}; set stage1 loss kl to 0 for these cells, for example with "
                "`when:`",
            )
        for term, weight, smallest in (
            (f"lpips ({self.lpips_net})", self.lpips_weight, BACKBONES[self.lpips_net].smallest),
            ("ssim", self.ssim_weight, SSIM_SMALLEST),
        ):
            if weight > 0 and spec.resolution < smallest:
                raise SpecError(
                    "resolution",
                    f"the loss term {term} needs images of at least {smallest} px, the resolution "
                    f"is {spec.resolution}; set its weight to 0 or use larger images",
                )
        return self


def _check_weight(field: str, weight: float) -> None:
    if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
        raise SpecError(field, f"{field} = {weight!r}: must be a number of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Perceptual:
    """The frozen networks that a loss needs.

    Attributes:
        lpips: a network of `BACKBONES` that sees pairs; None when the term has no weight.
        dino: the network of `BACKBONES` that gives patch tokens; None when the term has no weight.
    """

    lpips: nn.Module | None = None
    dino: nn.Module | None = None


def perceptual_networks(loss: Stage1Loss, device: str | torch.device = "cpu") -> Perceptual:
    """Load what `loss` needs and nothing else.

    Raises:
        WeightsError: a pretrained file is missing or not the pinned one.
    """
    return Perceptual(
        lpips=feature_network(loss.lpips_net).to(device) if loss.lpips_weight > 0 else None,
        dino=feature_network("dinov2-s14").to(device) if loss.dino_weight > 0 else None,
    )


def stage1_loss(
    loss: Stage1Loss, x: Tensor, x_hat: Tensor, posterior: Posterior, networks: Perceptual
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted total and its unweighted parts.

    Args:
        loss: the weights.
        x: originals, (B, 3, H, W) or (B, 3, T, H, W), in [-1, 1].
        x_hat: reconstructions, same shape.
        posterior: of the originals.
        networks: see `perceptual_networks`.

    Returns:
        The scalar total (float32, with gradient) and detached scalars named `loss.terms`. A term
        without weight adds nothing to the total; "pixel" and "kl" are measured even so.
    """
    x, x_hat = x.float(), x_hat.float()
    terms = {"pixel": _pixel(loss.pixel, x, x_hat), "kl": posterior.kl().mean()}
    weights = {"pixel": loss.pixel_weight, "kl": loss.kl_weight}
    frames, frames_hat = _frames(x), _frames(x_hat)
    if loss.lpips_weight > 0:
        lpips = _given(networks.lpips, "lpips")
        terms["lpips"], weights["lpips"] = lpips(frames_hat, frames).mean(), loss.lpips_weight
    if loss.ssim_weight > 0:
        terms["ssim"], weights["ssim"] = 1.0 - _ssim(frames_hat, frames), loss.ssim_weight
    if loss.dino_weight > 0:
        dino = _given(networks.dino, "dino")
        with torch.no_grad():
            wanted = dino(frames)
        cosine = functional.cosine_similarity(dino(frames_hat), wanted, dim=-1)
        terms["dino"], weights["dino"] = 1.0 - cosine.mean(), loss.dino_weight
    # Without weight a term must not touch the total: 0 times infinity is not a number.
    weighted = [weights[name] * term for name, term in terms.items() if weights[name] > 0]
    return torch.stack(weighted).sum(), {name: term.detach() for name, term in terms.items()}


def _pixel(pixel: Pixel, x: Tensor, x_hat: Tensor) -> Tensor:
    if pixel == "l2":
        return functional.mse_loss(x_hat, x)
    if pixel == "l1":
        return functional.l1_loss(x_hat, x)
    return ((x_hat - x).square() + CHARBONNIER_EPS**2).sqrt().mean()


def _ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean structural similarity of images (B, 3, H, W) in [-1, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    # Its luminance term asks for values from 0 on; [0, 2] of range 2 is the metric's [0, 255].
    value: Any = structural_similarity_index_measure(
        x_hat + 1.0, x + 1.0, sigma=1.5, kernel_size=SSIM_SMALLEST, data_range=2.0
    )
    similarity: Tensor = value
    return similarity


def _given(network: nn.Module | None, name: str) -> nn.Module:
    if network is None:
        raise ValueError(f"{name}_weight is not 0, so networks.{name} must be given")
    return network


def _frames(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialLoss:
    """How the discriminator is trained and how strongly it pulls on the decoder.

    The defaults are the paper's: hinge loss, fixed weight, 25,000 steps of linear ramp, nothing
    else. (Its section 2.3 prints a weight of 1.0; its appendix A.3 and figure 13 have 0.05.)

    Attributes:
        weight: of the decoder's term -mean(D(x_hat)) after the ramp, at least 0. With 0 there is
            no discriminator at all: the ablation that trains on with the losses of stage 1.
        start: steps during which only the discriminator learns, at least 0.
        ramp: steps over which the weight then rises linearly, at least 0.
        r1: gamma of the penalty gamma / 2 * mean |grad D(x)|^2 on real images (Mescheder et al.
            2018), every step; 0 for none.
        lecam: weight of the LeCam regulariser (Tseng et al. 2021); 1e-3 is usual, 0 for none.
        adaptive: multiply the weight by the ratio of the norms of the gradients of the other
            losses and of the decoder's term at the last layer (Esser et al. 2021), within
            [0, 1e4]. It is the ratio of the step before, which is known for the whole batch
            whatever the micro-batches; the very first step has 0.
    """

    weight: float = 0.05
    start: int = 0
    ramp: int = 25_000
    r1: float = 0.0
    lecam: float = 0.0
    adaptive: bool = False

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the parts that `discriminator_loss` returns, in its order."""
        optional = (("r1", self.r1), ("lecam", self.lecam))
        used = tuple(name for name, weight in optional if weight > 0)
        return ("hinge", "real_logit", "fake_logit", *used)

    def check(self) -> AdversarialLoss:
        """Return the loss itself if its values are possible.

        Raises:
            SpecError: a value out of range; `field` names it.
        """
        for field in ("weight", "r1", "lecam"):
            _check_weight(field, getattr(self, field))
        for field in ("start", "ramp"):
            steps = getattr(self, field)
            if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
                raise SpecError(field, f"{field} = {steps!r}: must be a number of steps, 0 or more")
        if not isinstance(self.adaptive, bool):
            raise SpecError("adaptive", f"adaptive = {self.adaptive!r}: must be true or false")
        return self


def adversarial_weight(loss: AdversarialLoss, step: int) -> float:
    """Weight of the decoder's term at one step, from 0: nothing, a linear rise, then `weight`."""
    if step < loss.start:
        return 0.0
    return loss.weight * min((step - loss.start + 1) / max(loss.ramp, 1), 1.0)


def adaptive_factor(others: float, adversarial: float) -> float:
    """Ratio of two gradient norms at the last layer, within [0, 1e4] also when one is 0."""
    return min(others / (adversarial + 1e-4), ADAPTIVE_MOST)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The decoder's term, -mean(D(x_hat)), without weight."""
    return -fake_logits.mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitMeans:
    """Moving averages of the mean logits, decay 0.999; they begin as the first batch's means.

    Attributes:
        real: of real images.
        fake: of reconstructions.
    """

    real: float
    fake: float


def moved(means: LogitMeans | None, real: float, fake: float) -> LogitMeans:
    """The averages after one more batch, whose mean logits are `real` and `fake`."""
    if means is None:
        return LogitMeans(real=real, fake=fake)
    keep = LECAM_DECAY
    return LogitMeans(
        real=keep * means.real + (1 - keep) * real, fake=keep * means.fake + (1 - keep) * fake
    )


def discriminator_loss(
    loss: AdversarialLoss,
    real: Tensor,
    real_logits: Tensor,
    fake_logits: Tensor,
    means: LogitMeans | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the discriminator minimises, and its unweighted parts.

    Args:
        loss: which regularisers.
        real: the real images that gave `real_logits`; for `r1` they must require a gradient.
        real_logits: (N,), one an image or frame.
        fake_logits: (N,), of reconstructions.
        means: averages of the logits over the steps before, for `lecam`; None at the first step,
            which has no such term.

    Returns:
        The scalar total, hinge + r1 / 2 * r1 term + lecam * lecam term, and detached scalars named
        `loss.terms`. hinge is 0.5 * (mean relu(1 - real) + mean relu(1 + fake)): 1 for one that
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
        parts["lecam"] = torch.zeros_like(hinge)
        if means is not None:
            above = functional.relu(real_logits - means.fake).square().mean()
            below = functional.relu(means.real - fake_logits).square().mean()
            parts["lecam"] = above + below
        total = total + loss.lecam * parts["lecam"]
    return total, {name: part.detach() for name, part in parts.items()}
