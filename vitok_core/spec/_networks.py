"""What do the networks beside the tokenizer cost? LPIPS, DINOv2, the discriminator, in closed form.

They hold no part of the code and yet most of a training's operations may be theirs: LPIPS with
VGG16 at 256 px takes 20 billion multiply-accumulates (MACs) an image, S-B/16 as a whole 35. Counted
are convolutions and matrix products, as everywhere (`_counts`); tests hold the counts against the
networks that are built.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from vitok_core.errors import SpecError

LpipsTrunk = Literal["alex", "vgg"]

DINO_PATCH = 14
"""Side of a patch of DINOv2 in pixels."""

DINO_S14 = (384, 12)
"""Width and depth of DINOv2 ViT-S/14, the network of the loss."""

DINO_POSITIONS = 1 + 37**2
"""Vectors in its table of positions: of the class token and of the grid it was trained on."""

DISCRIMINATOR_SMALLEST = 8
DISCRIMINATOR_LAST = 4
"""Sides in pixels: of the smallest image it can judge, and of its last feature map."""

_COLOURS = 3

_BLUR_TAPS = 16

# (kernel, stride, padding, outputs) of a convolution, (kernel, stride) of a pooling; () marks the
# outputs that are compared, by a 1 x 1 convolution onto one channel.
_Layers = tuple[tuple[int, ...], ...]
_VGG16: _Layers = (
    *[(3, 1, 1, 64)] * 2, (), (2, 2),
    *[(3, 1, 1, 128)] * 2, (), (2, 2),
    *[(3, 1, 1, 256)] * 3, (), (2, 2),
    *[(3, 1, 1, 512)] * 3, (), (2, 2),
    *[(3, 1, 1, 512)] * 3, (),
)  # fmt: skip
_ALEXNET: _Layers = (
    (11, 4, 2, 64), (), (3, 2),
    (5, 1, 2, 192), (), (3, 2),
    (3, 1, 1, 384), (),
    (3, 1, 1, 256), (),
    (3, 1, 1, 256), (),
)  # fmt: skip

LPIPS_LAYERS: dict[LpipsTrunk, _Layers] = {"vgg": _VGG16, "alex": _ALEXNET}
"""Trunk -> its layers as far as LPIPS looks."""


@lru_cache(maxsize=256)
def lpips_macs(net: LpipsTrunk, resolution: int) -> tuple[int, int]:
    """MACs of LPIPS at a resolution: of the trunk for one image, of the heads for one pair.

    Args:
        net: the trunk, "alex" or "vgg".
        resolution: image side in pixels.
    """
    trunk, heads, channels, side = 0, 0, _COLOURS, resolution
    for layer in LPIPS_LAYERS[net]:
        if not layer:
            heads += channels * side**2
        elif len(layer) == 2:
            kernel, stride = layer
            side = (side - kernel) // stride + 1
        else:
            kernel, stride, padding, outputs = layer
            side = (side + 2 * padding - kernel) // stride + 1
            trunk += kernel**2 * channels * outputs * side**2
            channels = outputs
    return trunk, heads


def dino_side(side: int) -> int:
    """Side at which DINOv2 sees images of `side` px: the nearest multiple of 14, at least 14."""
    return DINO_PATCH * max((side + DINO_PATCH // 2) // DINO_PATCH, 1)


@lru_cache(maxsize=256)
def dino_macs(resolution: int) -> tuple[int, int]:
    """MACs of DINOv2 ViT-S/14 for one image: of its linear layers, of its attention products.

    Apart, because a backward pass through frozen weights costs the first once and the second twice.
    """
    width, depth = DINO_S14
    patches = (dino_side(resolution) // DINO_PATCH) ** 2
    tokens = patches + 1
    embed = _COLOURS * DINO_PATCH**2 * width * patches
    linear = embed + depth * 12 * width**2 * tokens
    return linear, depth * 2 * tokens**2 * width


def discriminator_channels(side: int, width: float = 1.0) -> int:
    """Channels at a side in pixels: 512 up to 32, halved with every doubling above; times `width`.

    Rounded to a multiple of 4 and at least 4.
    """
    full = 512 if side <= 32 else max(512 * 32 // side, 1)
    return max(4 * round(full * width / 4), 4)


def check_discriminator(resolution: int, width: float = 1.0) -> None:
    """Refuse what no discriminator can be built for.

    Raises:
        SpecError: a side that is no power of two of at least 8, or a width that is not positive.
    """
    smallest = DISCRIMINATOR_SMALLEST
    if resolution < smallest or resolution & (resolution - 1):
        above = 1 << max(resolution - 1, smallest - 1).bit_length()
        below = max(above // 2, smallest)
        raise SpecError(
            "resolution",
            "the discriminator halves images down to 4 x 4 and needs a side that is a power of "
            f"two of at least {smallest} px, the resolution is {resolution}; use {below} or "
            f"{above} px, or set the adversarial weight to 0",
        )
    if not (math.isfinite(width) and 0 < width <= 4):
        raise SpecError(
            "discriminator_width",
            f"discriminator_width = {width!r}: must be above 0 and at most 4 (1 is the paper's)",
        )


def discriminator_parameters(resolution: int, width: float = 1.0) -> int:
    """Parameters in closed form; 26.1, 26.3 and 26.4 million at 128, 256 and 512 px of width 1.

    Raises:
        SpecError: see `check_discriminator`.
    """
    return _discriminator_counts(resolution, width)[0]


def discriminator_macs(resolution: int, width: float = 1.0) -> int:
    """Multiply-accumulates of judging one image: convolutions, Linears and blur-pools.

    Raises:
        SpecError: see `check_discriminator`.
    """
    return _discriminator_counts(resolution, width)[1]


@lru_cache(maxsize=256)
def _discriminator_counts(resolution: int, width: float) -> tuple[int, int]:
    check_discriminator(resolution, width)
    channels, side = discriminator_channels(resolution, width), resolution
    parameters = (9 * _COLOURS + 1) * channels
    macs = side**2 * 9 * _COLOURS * channels
    while side > DISCRIMINATOR_LAST:
        half = side // 2
        out = discriminator_channels(half, width)
        parameters += (9 * channels + 1) * out + (9 * out + 1) * out + channels * out
        # First convolution at the full side, the rest at half; two blur-pools of 16 taps.
        macs += side**2 * 9 * channels * out
        macs += half**2 * (9 * out * out + channels * out + _BLUR_TAPS * (out + channels))
        channels, side = out, half
    last = DISCRIMINATOR_LAST
    hidden, flat = discriminator_channels(last, width), channels * last**2
    parameters += (9 * channels + 1) * channels + (flat + 1) * hidden + hidden + 1
    macs += last**2 * 9 * channels * channels + flat * hidden + hidden
    return parameters, macs
