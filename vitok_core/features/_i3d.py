"""What does I3D see in a clip? The network behind published FVD values, as StyleGAN-V packed it.

The file is a TorchScript archive: loading it runs the code inside it, in torch's interpreter. That
is why no other file than the one with the pinned SHA-256 is ever opened.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vitok_core.weights import weights_path

I3D_SIZE = 224
I3D_FEATURES = 400
I3D_FRAMES = 10
"""Fewest frames that survive the strides in time."""


class I3D(nn.Module):
    """I3D trained on Kinetics-400, down to its 400 logits; frozen.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self) -> None:
        super().__init__()
        load: Any = torch.jit.load
        self.network: Any = load(str(weights_path("i3d")), map_location="cpu")
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Features (B, 400), float32, of uint8 clips (B, 3, T, H, W), T >= 10.

        Frames are resized to 224 px (trilinear with time unchanged, no antialiasing) and scaled to
        [-1, 1].
        """
        x, size = clips.float(), (clips.shape[2], I3D_SIZE, I3D_SIZE)
        if x.shape[2:] != size:
            x = functional.interpolate(x, size=size, mode="trilinear", align_corners=False)
        x = 2.0 * (x / 255.0) - 1.0
        features: Tensor = self.network(x, rescale=False, resize=False, return_features=True)
        return features
