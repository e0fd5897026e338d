"""The two Inception-v3 networks behind published FID values.

The one of FID proper was converted from a TensorFlow graph of 2015. It is built here from
torch-fidelity's blocks, whose pooling follows that graph, and not by that library's own class: this
one would unpickle the file without restrictions. The other is torchvision's, trained independently;
values of the two have nothing in common but the name.

Layers are called one after the other by name; B images, F = 2048 features, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vitok_core.features._resize import resized
from vitok_core.protocols import Backbone
from vitok_core.weights import weights_path


class FidInception(nn.Module):
    """Inception-v3 of the TensorFlow graph 2015-12-05, down to 2048 pooled features; frozen.

    Its resize is the graph's own, or bicubic with antialias as clean-fid has it.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        with torch.device("meta"):
            self.trunk = _fid_trunk()
            self.fc = nn.Linear(backbone.width, 1008)
        (file,) = backbone.weights
        state = torch.load(weights_path(file), weights_only=True, map_location="cpu")
        fc = {name.removeprefix("fc."): state.pop(name) for name in ("fc.weight", "fc.bias")}
        self.fc.load_state_dict(fc, assign=True)
        self.trunk.load_state_dict(state, assign=True)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 2048), float32, of uint8 images (B, 3, H, W)."""
        x = resized(images.float(), self.backbone)
        pooled: Tensor = self.trunk((x - 128.0) / 128.0)
        return pooled.flatten(1)

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Weights (K, F) and biases (K,) of the classifier over the features."""
        return self.fc.weight, self.fc.bias


def _fid_trunk() -> nn.Sequential:
    from torch_fidelity.feature_extractor_inceptionv3 import (
        BasicConv2d,
        InceptionA,
        InceptionB,
        InceptionC,
        InceptionD,
        InceptionE_1,
        InceptionE_2,
    )

    trunk = nn.Sequential()
    layers: list[tuple[str, nn.Module]] = [
        ("Conv2d_1a_3x3", BasicConv2d(3, 32, kernel_size=3, stride=2)),
        ("Conv2d_2a_3x3", BasicConv2d(32, 32, kernel_size=3)),
        ("Conv2d_2b_3x3", BasicConv2d(32, 64, kernel_size=3, padding=1)),
        ("pool_2", nn.MaxPool2d(kernel_size=3, stride=2)),
        ("Conv2d_3b_1x1", BasicConv2d(64, 80, kernel_size=1)),
        ("Conv2d_4a_3x3", BasicConv2d(80, 192, kernel_size=3)),
        ("pool_4", nn.MaxPool2d(kernel_size=3, stride=2)),
        ("Mixed_5b", InceptionA(192, pool_features=32)),
        ("Mixed_5c", InceptionA(256, pool_features=64)),
        ("Mixed_5d", InceptionA(288, pool_features=64)),
        ("Mixed_6a", InceptionB(288)),
        ("Mixed_6b", InceptionC(768, channels_7x7=128)),
        ("Mixed_6c", InceptionC(768, channels_7x7=160)),
        ("Mixed_6d", InceptionC(768, channels_7x7=160)),
        ("Mixed_6e", InceptionC(768, channels_7x7=192)),
        ("Mixed_7a", InceptionD(768)),
        ("Mixed_7b", InceptionE_1(1280)),
        ("Mixed_7c", InceptionE_2(2048)),
        ("pool_7", nn.AdaptiveAvgPool2d((1, 1))),
    ]
    for name, layer in layers:
        trunk.add_module(name, layer)
    return trunk


class TorchvisionInception(nn.Module):
    """torchvision's Inception-v3 (IMAGENET1K_V1), down to 2048 pooled features; frozen.

    Raises:
        WeightsError: see `weights_path`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        from torchvision.models import inception_v3

        self.backbone = backbone
        (file,) = backbone.weights
        path = weights_path(file)
        with torch.device("meta"):
            network: Any = inception_v3(weights=None, init_weights=False, transform_input=False)
        state = torch.load(path, weights_only=True, map_location="cpu")
        network.load_state_dict(state, assign=True)
        network.AuxLogits = None
        self.fc = network.fc
        network.fc = nn.Identity()
        self.network = network
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 2048), float32, of uint8 images (B, 3, H, W)."""
        x = resized(2.0 * (images.float() / 255.0) - 1.0, self.backbone)
        features: Tensor = self.network(x)
        return features

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Weights (K, F) and biases (K,) of the classifier over the features."""
        return self.fc.weight, self.fc.bias
