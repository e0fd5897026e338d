"""What does stage 1 minimise? Pixel, KL and perceptual terms, every one a mean per element.

    total = pixel_weight * pixel + kl_weight * kl + lpips_weight * lpips

- pixel: mean over all values of images in [-1, 1], squared (l2) or absolute (l1) difference.
- kl: 0.5 * mean(mean^2 + var - 1 - logvar) over all values of the code. A mean, so that 1e-3 means
  the same at every E; summed, the same weight would be E times as strong and collapse the code.
- lpips: the learned perceptual distance of images in [-1, 1] (Zhang et al. 2018), mean over images;
  of a video, over its frames.

Weights 1, 1e-3 and 1 are the paper's stage 1. Losses are computed in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from vitok_core.errors import SpecError
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Posterior
from vitok_core.weights import LPIPS_SMALLEST, LpipsNet

Pixel = Literal["l2", "l1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1Loss:
    """Which terms, and how much of each.

    Attributes:
        pixel: "l2" (squared) or "l1" (absolute) difference.
        pixel_weight: of the pixel term, at least 0.
        kl_weight: of the mean KL (beta of the paper), at least 0.
        lpips_weight: of the perceptual term (eta of the paper), at least 0; with 0 no pretrained
            network is loaded.
        lpips_net: trunk of the perceptual term, "alex" or "vgg" (the paper's).
    """

    pixel: Pixel = "l2"
    pixel_weight: float = 1.0
    kl_weight: float = 1e-3
    lpips_weight: float = 1.0
    lpips_net: LpipsNet = "alex"

    def check(self, spec: TokenizerSpec) -> Stage1Loss:
        """Return the loss itself if it can be used for `spec`.

        Raises:
            SpecError: an unknown name, a weight out of range, images too small for the network.
        """
        for field, value, allowed in (
            ("pixel", self.pixel, get_args(Pixel)),
            ("lpips_net", self.lpips_net, get_args(LpipsNet)),
        ):
            if value not in allowed:
                raise SpecError(field, f"{field} = {value!r}: must be {' or '.join(allowed)}")
        for field in ("pixel_weight", "kl_weight", "lpips_weight"):
            weight = getattr(self, field)
            if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
                raise SpecError(field, f"{field} = {weight!r}: must be a number of at least 0")
        if self.pixel_weight == 0 and self.lpips_weight == 0:
            raise SpecError(
                "pixel_weight",
                "pixel_weight and lpips_weight are both 0: nothing would ask for a reconstruction",
            )
        smallest = LPIPS_SMALLEST[self.lpips_net]
        if self.lpips_weight > 0 and spec.resolution < smallest:
            raise SpecError(
                "resolution",
                f"the perceptual loss ({self.lpips_net}) needs images of at least {smallest} px, "
                f"the resolution is {spec.resolution}; set lpips_weight to 0 or use larger images",
            )
        return self


def stage1_loss(
    loss: Stage1Loss, x: Tensor, x_hat: Tensor, posterior: Posterior, perceptual: nn.Module | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted total and its unweighted parts.

    Args:
        loss: the weights.
        x: originals, (B, 3, H, W) or (B, 3, T, H, W), in [-1, 1].
        x_hat: reconstructions, same shape.
        posterior: of the originals.
        perceptual: an LPIPS network, see `vitok_core.features.lpips_network`; may be None when
            `lpips_weight` is 0.

    Returns:
        The scalar total (float32, with gradient) and detached scalars "pixel", "kl" and, when it
        has weight, "lpips".
    """
    x, x_hat = x.float(), x_hat.float()
    pixel_loss = functional.mse_loss if loss.pixel == "l2" else functional.l1_loss
    pixel, kl = pixel_loss(x_hat, x), posterior.kl().mean()
    total = loss.pixel_weight * pixel + loss.kl_weight * kl
    parts = {"pixel": pixel.detach(), "kl": kl.detach()}
    if loss.lpips_weight > 0:
        if perceptual is None:
            raise ValueError("lpips_weight is not 0, so a perceptual network must be given")
        distance = perceptual(_frames(x_hat), _frames(x)).mean()
        total = total + loss.lpips_weight * distance
        parts["lpips"] = distance.detach()
    return total, parts


def _frames(x: Tensor) -> Tensor:
    return x if x.ndim == 4 else x.transpose(1, 2).flatten(0, 1)
