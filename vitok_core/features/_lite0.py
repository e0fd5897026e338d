"""Features small enough for CPUs: EfficientNet-Lite0 out of a pip package."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from vitok_core.errors import WeightsError
from vitok_core.features._resize import resized
from vitok_core.protocols import Backbone
from vitok_core.weights import weights_path


class Lite0(nn.Module):
    """EfficientNet-Lite0 trained on ImageNet, down to its 1280 pooled features; frozen.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        (file,) = backbone.weights
        path = weights_path(file)
        if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
            raise WeightsError(
                "the network of the weights lite0 comes with the package "
                "efficientnet_lite_pytorch, which is not installed; "
                "run: pip install --no-deps efficientnet_lite_pytorch==0.1.0"
            )
        from efficientnet_lite_pytorch import EfficientNet

        with torch.device("meta"):
            self.network: Any = EfficientNet.from_name("efficientnet-lite0")
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.network.load_state_dict(state, assign=True)
        # A third quicker on CPUs, where most of its time goes into depthwise convolutions.
        self.network.to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 1280), float32, of uint8 images (B, 3, H, W).

        Images are resized without rounding and normalized as this network was trained,
        (x - 127) / 128.
        """
        x = resized(images.float().contiguous(memory_format=torch.channels_last), self.backbone)
        features: Tensor = self.network.extract_features((x - 127.0) / 128.0)
        return features.mean(dim=(2, 3))
