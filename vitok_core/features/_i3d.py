"""I3D, the network behind published FVD values, as StyleGAN-V packed it.

The file is a TorchScript archive: loading it runs the code inside it, in torch's interpreter. That
is why no other file than the one with the pinned SHA-256 is ever opened.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitok_core.features._resize import resized
from vitok_core.protocols import Backbone
from vitok_core.weights import weights_path


class I3D(nn.Module):
    """I3D trained on Kinetics-400, down to its 400 logits; frozen.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        (file,) = backbone.weights
        load: Any = torch.jit.load
        self.network: Any = load(str(weights_path(file)), map_location="cpu")
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Features (B, 400), float32, of uint8 clips (B, 3, T, H, W).

        T is at least 10: fewer frames do not survive the strides in time. Frames are resized and
        scaled to [-1, 1].
        """
        x = 2.0 * (resized(clips.float(), self.backbone) / 255.0) - 1.0
        features: Tensor = self.network(x, rescale=False, resize=False, return_features=True)
        return features
