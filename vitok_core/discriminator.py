"""The discriminator of stage 2: StyleGAN-type, of single frames.

    x (B, 3, S, S) in [-1, 1], S a power of two of at least 8
       3x3 convolution, LeakyReLU -> ch(S) channels
       log2(S) - 2 residual blocks, each halving the side, down to 4 x 4
       3x3 convolution, LeakyReLU, flatten, Linear, LeakyReLU, Linear -> one logit a sample

A block is two 3x3 convolutions with a blur-pool between them (Zhang 2019: [1, 3, 3, 1] each way,
stride 2); its shortcut is the blur-pool and a 1x1 convolution without bias; their sum is divided
by sqrt 2. Channels follow from the side: 512 up to 32 px, then 256, 128, 64, 32, and so on.
Convolutions and Linears start Xavier-uniform with zero bias; there is no normalisation of any kind
and no minibatch statistic, so a sample's logit depends on that sample alone.

It is the discriminator of the paper's stage 2 (26.3 million parameters at 256 px). `width` scales
all its channels for smaller machines and is not in the paper. Frames of a video are judged one by
one, as (B * T) images. It computes in float32, or in bfloat16 with float32 weights and logits,
whatever the tokenizer uses.

Shape suffixes: B images (or frames), C channels, H, W height and width, F flattened features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.errors import SpecError
from vitok_core.layers import XavierLinear
from vitok_core.spec import (
    DISCRIMINATOR_LAST,
    IMAGE_CHANNELS,
    check_discriminator,
    discriminator_channels,
)

SLOPE = 0.2
BLUR = (1.0, 3.0, 3.0, 1.0)


class XavierConv(nn.Conv2d):
    """A convolution that keeps the side and starts with Xavier-uniform weights and zero bias."""

    def __init__(self, channels: int, out: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__(channels, out, kernel, padding=kernel // 2, bias=bias)

    def reset_parameters(self) -> None:
        """Initialise from torch's global generator; whoever builds a model seeds it."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class BlurPool(nn.Module):
    """Half the side without aliasing: (B, C, H, W) to (B, C, H / 2, W / 2).

    Beyond the border there are zeros, as for the convolutions.
    """

    kernel_11HW: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(BLUR)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        # Not a weight: it is a constant of the architecture.
        self.register_buffer("kernel_11HW", kernel[None, None], persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Filter every channel alone."""
        channels = x_BCHW.shape[1]
        kernel_C1HW = self.kernel_11HW.expand(channels, -1, -1, -1)
        return functional.conv2d(x_BCHW, kernel_C1HW, stride=2, padding=1, groups=channels)


class DownBlock(nn.Module):
    """A residual block that halves the side: (B, C, H, W) to (B, C', H / 2, W / 2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = XavierConv(channels, out, 3)
        self.pool = BlurPool()
        self.second = XavierConv(out, out, 3)
        self.shortcut = XavierConv(channels, out, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve, pool, convolve; add the shortcut."""
        y_BCHW = self.pool(functional.leaky_relu(self.first(x_BCHW), SLOPE))
        y_BCHW = functional.leaky_relu(self.second(y_BCHW), SLOPE)
        summed_BCHW: Tensor = y_BCHW + self.shortcut(self.pool(x_BCHW))
        return summed_BCHW / math.sqrt(2.0)


class Discriminator(nn.Module):
    """One logit an image, high for real ones; weights start from torch's global generator.

    Args:
        resolution: side of the images in pixels, a power of two of at least 8.
        width: factor of all channels; 1 is the paper's.
        bf16: whether its passes compute in bfloat16.

    Raises:
        SpecError: see `check_discriminator`.
    """

    def __init__(self, resolution: int, width: float = 1.0, *, bf16: bool = False) -> None:
        super().__init__()
        check_discriminator(resolution, width)
        self.resolution, self.bf16 = resolution, bf16
        channels = [discriminator_channels(resolution, width)]
        self.stem = XavierConv(IMAGE_CHANNELS, channels[0], 3)
        self.blocks = nn.Sequential()
        side = resolution
        while side > DISCRIMINATOR_LAST:
            side //= 2
            channels.append(discriminator_channels(side, width))
            self.blocks.append(DownBlock(*channels[-2:]))
        self.last = XavierConv(channels[-1], channels[-1], 3)
        hidden = discriminator_channels(DISCRIMINATOR_LAST, width)
        self.hidden = XavierLinear(channels[-1] * DISCRIMINATOR_LAST**2, hidden)
        self.logit = XavierLinear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images (B, 3, S, S): (B,); of videos (B, 3, T, S, S): (B * T,); float32.

        Raises:
            SpecError: images of another side or number of channels.
        """
        x_BCHW = x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x
        expected = (IMAGE_CHANNELS, self.resolution, self.resolution)
        if x_BCHW.ndim != 4 or tuple(x_BCHW.shape[1:]) != expected:
            raise SpecError(
                "resolution",
                f"images of shape {tuple(x.shape)} do not fit a discriminator of "
                f"{self.resolution} px, which takes (batch, {', '.join(map(str, expected))})",
            )
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            y_BCHW = functional.leaky_relu(self.stem(x_BCHW.float()), SLOPE)
            y_BCHW = functional.leaky_relu(self.last(self.blocks(y_BCHW)), SLOPE)
            y_BF = functional.leaky_relu(self.hidden(y_BCHW.flatten(1)), SLOPE)
            logits_B: Tensor = self.logit(y_BF).squeeze(-1)
        return logits_B.float()
