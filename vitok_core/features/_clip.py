"""The embedding of CLIP, which CMMD compares distributions with.

The publisher's file is a TorchScript archive of the whole model in half precision. Only its tensors
are taken, but opening it makes torch read the code inside; as with I3D, no other file than the one
with the pinned SHA-256 is ever opened.

Shape suffixes: B images, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitok_core.features._resize import resized
from vitok_core.protocols import Backbone
from vitok_core.weights import weights_path

CLIP_PATCH = 14
CLIP_L14 = (1024, 24, 16, 768)
"""Width, depth, heads and width of the embedding of ViT-L/14."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipFeatures(nn.Module):
    """The image tower of CLIP ViT-L/14 at 336 px, down to its projected embedding of 768; frozen.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        assert backbone.size is not None
        self.backbone = backbone
        (file,) = backbone.weights
        load: Any = torch.jit.load
        archive = load(str(weights_path(file)), map_location="cpu")
        with torch.device("meta"):
            self.trunk = ClipTrunk(*CLIP_L14, size=backbone.size)
        self.trunk.load_state_dict(tower(archive.state_dict()), assign=True)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 768), float32, not normalised, of uint8 images (B, 3, H, W).

        Images are resized, not clipped, and normalized by CLIP's mean and deviation.
        """
        x = resized(images.float() / 255.0, self.backbone)
        mean, std = (x.new_tensor(one).reshape(1, 3, 1, 1) for one in (CLIP_MEAN, CLIP_STD))
        embedding: Tensor = self.trunk((x - mean) / std)
        return embedding


def tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's tensors of a whole CLIP, in single precision."""
    return {
        name.removeprefix("visual."): tensor.float()
        for name, tensor in state.items()
        if name.startswith("visual.")
    }


class ClipTrunk(nn.Module):
    """The network of `ClipFeatures`, named as in the publisher's file.

    Args:
        width: of a token.
        depth: number of blocks.
        heads: of each block.
        embedding: width of what comes out.
        size: side of an image in pixels.
    """

    def __init__(self, width: int, depth: int, heads: int, embedding: int, size: int = 336) -> None:
        super().__init__()
        tokens = (size // CLIP_PATCH) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.proj = nn.Parameter(torch.zeros(width, embedding))
        self.conv1 = nn.Conv2d(3, width, CLIP_PATCH, stride=CLIP_PATCH, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList(_ClipBlock(width, heads) for _ in range(depth))}
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Embeddings (B, embedding) of normalised images."""
        patches_BLD = self.conv1(x_BCHW).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches_BLD), 1, -1)
        x_BLD = self.ln_pre(torch.cat([first, patches_BLD], dim=1) + self.positional_embedding)
        blocks: Any = self.transformer["resblocks"]
        for block in blocks:
            x_BLD = block(x_BLD)
        embedding: Tensor = self.ln_post(x_BLD[:, 0]) @ self.proj
        return embedding


class _ClipBlock(nn.Module):
    """Pre-norm block with x * sigmoid(1.702 x) between the layers of its MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x_BLD: Tensor) -> Tensor:
        seen = self.ln_1(x_BLD)
        x_BLD = x_BLD + self.attn(seen, seen, seen, need_weights=False)[0]
        hidden = self.mlp["c_fc"](self.ln_2(x_BLD))
        mixed: Tensor = x_BLD + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))
        return mixed
