"""DINOv2: patch tokens for a loss, the class token for distances.

The files are the publisher's and have to be downloaded, see `vitok_core.weights`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.features._resize import resized
from vitok_core.protocols import Backbone
from vitok_core.spec import DINO_PATCH, dino_side
from vitok_core.weights import weights_path

DINO_GRID = 37
"""Patches per side at which DINOv2's positions were learned (518 px)."""
DINO_L14 = (1024, 24, 16)
"""Width, depth and heads of ViT-L/14; the defaults of `DinoV2Trunk` are those of ViT-S/14."""


class DinoV2(nn.Module):
    """DINOv2 ViT-S/14 without registers (Oquab et al. 2023), down to its patch tokens; frozen.

    Its positions are resized as the publisher does it: bicubic, scale (n + 0.1) / 37, no
    antialiasing.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        (file,) = backbone.weights
        state = torch.load(weights_path(file), weights_only=True, map_location="cpu")
        with torch.device("meta"):
            self.trunk = DinoV2Trunk()
        self.trunk.load_state_dict(state, assign=True)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Patch tokens (B, n * n, 384) after the final norm, of images (B, 3, S, S) in [-1, 1].

        Images are resized (bilinear, antialiased) to the multiple of 14 px that is nearest to S,
        at least 14, and normalised by the mean and deviation of ImageNet. Gradients flow to them.
        The trunk computes in the precision of its weights.
        """
        side = dino_side(x.shape[-1])
        if x.shape[-2:] != (side, side):
            x = functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        seen = _normalised((x + 1.0) / 2.0).to(self.trunk.cls_token.dtype)
        tokens: Tensor = self.trunk(seen)
        return tokens.float()


class DinoFeatures(nn.Module):
    """DINOv2 ViT-L/14 without registers, down to its class token of 1024; frozen.

    What Stein et al. 2023 compare distributions with, at 224 px.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        (file,) = backbone.weights
        state = torch.load(weights_path(file), weights_only=True, map_location="cpu")
        with torch.device("meta"):
            self.trunk = DinoV2Trunk(*DINO_L14)
        self.trunk.load_state_dict(state, assign=True)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 1024), float32, of uint8 images (B, 3, H, W).

        Images are resized, clipped and normalized by the mean and deviation of ImageNet.
        """
        x = resized(images.float() / 255.0, self.backbone).clamp(0, 1)
        return self.trunk.tokens(_normalised(x))[:, 0]


def _normalised(x: Tensor) -> Tensor:
    """Images in [0, 1] by the mean and deviation of ImageNet."""
    mean = x.new_tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    std = x.new_tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    return (x - mean) / std


class DinoV2Trunk(nn.Module):
    """The network of `DinoV2`, named as in the publisher's file: images to patch tokens."""

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + DINO_GRID**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # in the file, unused here
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, width, DINO_PATCH, stride=DINO_PATCH)}
        )
        self.blocks = nn.ModuleList(_DinoBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Patch tokens (B, n * n, width) of normalised images whose side is n * 14 px."""
        return self.tokens(x_BCHW)[:, 1:]

    def tokens(self, x_BCHW: Tensor) -> Tensor:
        """The class token and the patch tokens, (B, 1 + n * n, width)."""
        patches = self.patch_embed["proj"](x_BCHW)
        tokens = patches.flatten(2).transpose(1, 2) + self._positions(patches.shape[-1])
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def _positions(self, side: int) -> Tensor:
        """Positions of a grid of side x side patches, (1, side^2, 384)."""
        if side == DINO_GRID:
            return self.pos_embed[:, 1:]
        table = self.pos_embed[:, 1:].float().reshape(1, DINO_GRID, DINO_GRID, -1)
        scale = (side + 0.1) / DINO_GRID
        table = functional.interpolate(
            table.permute(0, 3, 1, 2), scale_factor=(scale, scale), mode="bicubic"
        )
        return table.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)


class _DinoBlock(nn.Module):
    """Pre-norm block with biased qkv, GELU and a learned scale of each branch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.ls1, self.ls2 = (
            nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        samples, tokens, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(samples, tokens, 3, self.heads, -1)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        mixed = self.attn["proj"](mixed.transpose(1, 2).reshape(samples, tokens, width))
        x = x + self.ls1["gamma"] * mixed
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(x)))
        scaled: Tensor = self.ls2["gamma"] * self.mlp["fc2"](hidden)
        return x + scaled
