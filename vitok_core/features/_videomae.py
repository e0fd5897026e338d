"""VideoMAE: features of clips that answer to motion, for content-debiased FVD.

Ge et al. 2024 show that I3D logits hardly see whether frames go together; features of VideoMAE v2
(ViT-g, self-supervised, fine-tuned on Something-Something v2) do. The publisher gives no hash of
the file, so the one that was added first is recorded and held to, see `vitok_core.weights`.

Shape suffixes: B clips, L tokens, D width, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.errors import WeightsError
from vitok_core.features._resize import resized
from vitok_core.protocols import Backbone
from vitok_core.weights import weights_path

VIDEOMAE_PATCH, VIDEOMAE_TUBELET = 14, 2
VIDEOMAE_FRAMES = 16
VIDEOMAE_G = (1408, 40, 16, 6144)
"""Width, depth, heads and width of the MLP of ViT-g."""


class VideoMae(nn.Module):
    """VideoMAE v2 ViT-g, down to the 1408 features before its classifier; frozen.

    Raises:
        WeightsError: see `weights_path`, or the file holds another network.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        assert backbone.size is not None
        self.backbone = backbone
        (file,) = backbone.weights
        path = weights_path(file)
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        with torch.device("meta"):
            self.trunk = VideoMaeTrunk(*VIDEOMAE_G, size=backbone.size)
        try:
            self.trunk.load_state_dict(without_head(state), assign=True)
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise WeightsError(f"{path} is not a ViT-g of VideoMAE v2: {why}") from error
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Features (B, 1408), float32, of uint8 clips (B, 3, T, H, W), T >= 16.

        The first 16 frames are resized and scaled to [0, 1].
        """
        x = resized(clips[:, :, :VIDEOMAE_FRAMES].float() / 255.0, self.backbone)
        features: Tensor = self.trunk(x)
        return features


def without_head(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file of weights, in single precision, less those of its classifier."""
    for wrapper in ("model", "module"):
        if wrapper in state:
            state = state[wrapper]
            break
    return {name: tensor.float() for name, tensor in state.items() if not name.startswith("head.")}


class VideoMaeTrunk(nn.Module):
    """The network of `VideoMae`, named as in the publisher's file.

    Args:
        width: of a token.
        depth: number of blocks.
        heads: of each block.
        hidden: width of the MLP.
        size: side of a frame in pixels.
    """

    def __init__(self, width: int, depth: int, heads: int, hidden: int, size: int = 224) -> None:
        super().__init__()
        kernel = (VIDEOMAE_TUBELET, VIDEOMAE_PATCH, VIDEOMAE_PATCH)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, kernel, stride=kernel)})
        self.blocks = nn.ModuleList(_VideoMaeBlock(width, heads, hidden) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.tokens = (VIDEOMAE_FRAMES // VIDEOMAE_TUBELET) * (size // VIDEOMAE_PATCH) ** 2
        self.width = width

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Features (B, width) of clips of 16 frames in [0, 1]: the mean over tokens, normed."""
        x_BLD = self.patch_embed["proj"](x_BCTHW).flatten(2).transpose(1, 2)
        x_BLD = x_BLD + torch.from_numpy(sinusoids(self.tokens, self.width)).to(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        features: Tensor = self.fc_norm(x_BLD.mean(dim=1))
        return features


class _VideoMaeBlock(nn.Module):
    """Pre-norm block with GELU; queries and values have a bias, keys have none."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)}
        )
        for bias in ("q_bias", "v_bias"):
            self.attn.register_parameter(bias, nn.Parameter(torch.zeros(width)))
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x_BLD: Tensor) -> Tensor:
        clips, tokens, width = x_BLD.shape
        q_bias, v_bias = self.attn.q_bias, self.attn.v_bias
        bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])  # type: ignore[arg-type,list-item]  # nn.Module types every attribute as Tensor | Module
        qkv = (self.attn["qkv"](self.norm1(x_BLD)) + bias).view(clips, tokens, 3, self.heads, -1)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x_BLD = x_BLD + self.attn["proj"](mixed.transpose(1, 2).reshape(clips, tokens, width))
        hidden = functional.gelu(self.mlp["fc1"](self.norm2(x_BLD)))
        out: Tensor = x_BLD + self.mlp["fc2"](hidden)
        return out


def sinusoids(tokens: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Fixed positions (tokens, width) by the token's number, sine and cosine in turn, float32."""
    channel = np.arange(width)
    angle = np.arange(tokens)[:, None] / 10_000.0 ** (2 * (channel // 2) / width)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
