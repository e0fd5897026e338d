"""What stands in for packages and pretrained files that a borrowed GPU machine does not have.

Import it before vitok_core. `annotated_types` is four names of bounds, which are given here where
the package is absent; without `platformdirs` the folder of weights has a fixed place. Pretrained
networks become networks of the same shapes with random weights: they take the same time and memory,
and every number that comes out of them means nothing. Nothing of this is reachable from a study.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def _bounds() -> types.ModuleType:
    """The four names of annotated_types that `vitok_core.settings` reads."""
    module = types.ModuleType("annotated_types")
    for name in ("Ge", "Gt", "Le", "Lt"):
        made = dataclasses.make_dataclass(name, [(name.lower(), Any)], frozen=True, slots=True)
        setattr(module, name, made)
    return module


ABSENT: list[str] = []
"""What was stood in for so far, for people."""

if importlib.util.find_spec("annotated_types") is None:
    sys.modules["annotated_types"] = _bounds()
    ABSENT.append("annotated_types is absent: bounds of settings come from bench/stand_ins.py")

if importlib.util.find_spec("platformdirs") is None:
    os.environ.setdefault("VITOK_WEIGHTS", str(Path(tempfile.gettempdir()) / "vitok-weights"))
    ABSENT.append(
        f"platformdirs is absent: weights are looked for in {os.environ['VITOK_WEIGHTS']}"
    )


def stand_in_networks() -> list[str]:
    """Give every perceptual and feature network whose file is missing random weights.

    Returns:
        What was replaced, one line each.
    """
    from vitok_core.protocols import BACKBONES
    from vitok_core.weights import weights_missing

    said = []
    for name, maker in (("vgg", "RandomVgg"), ("inception-torchvision", "RandomInception")):
        backbone = BACKBONES[name]
        needs = {"vgg": "lpips", "inception-torchvision": "torchvision"}[name]
        absent = [file for file in backbone.weights if weights_missing(file)]
        if importlib.util.find_spec(needs) is None or absent:
            BACKBONES[name] = dataclasses.replace(backbone, maker=f"{__name__}:{maker}")
            said.append(f"{name} has random weights: {', '.join(absent) or needs} is missing")
    ABSENT.extend(said)
    return said


class RandomVgg(nn.Module):
    """LPIPS of the shapes of VGG-16: (B, 3, H, W) twice to distances (B, 1, 1, 1)."""

    def __init__(self, backbone: Any) -> None:
        from vitok_core.spec._networks import LPIPS_LAYERS

        super().__init__()
        torch.manual_seed(0)
        self.convolutions, self.layers, channels = nn.ModuleList(), LPIPS_LAYERS["vgg"], 3
        self.heads = nn.ParameterList()
        for layer in self.layers:
            if not layer:
                self.heads.append(nn.Parameter(torch.rand(1, channels, 1, 1) / channels))
            elif len(layer) == 4:
                kernel, stride, padding, out = layer
                one = nn.Conv2d(channels, out, kernel, stride, padding)
                self.convolutions.append(one)
                channels = out
        self.eval().requires_grad_(False)

    def _features(self, x: Tensor) -> list[Tensor]:
        found, convolutions = [], iter(self.convolutions)
        for layer in self.layers:
            if not layer:
                found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
            elif len(layer) == 2:
                x = functional.max_pool2d(x, *layer)
            else:
                x = functional.relu(next(convolutions)(x))
        return found

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Weighted squared differences of normalised features, mean over places, summed."""
        total: Any = 0.0
        for head, left, right in zip(
            self.heads, self._features(x_hat), self._features(x), strict=True
        ):
            total = total + ((left - right).square() * head).sum(1, True).mean((2, 3), True)
        return total


class _Convolution(nn.Sequential):
    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], stride: int = 1, pad: Any = 0
    ) -> None:
        convolution = nn.Conv2d(channels, out, kernel, stride, pad, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(out, eps=1e-3), nn.ReLU(inplace=True))


class _Branches(nn.Module):
    """The outputs of several branches, one after the other along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def _pooled(channels: int, out: int) -> nn.Sequential:
    return _chain(nn.AvgPool2d(3, 1, 1), _Convolution(channels, out, 1))


def _seven(channels: int, inner: int, out: int, *, times: int) -> nn.Sequential:
    """1 x 1, then pairs of 1 x 7 and 7 x 1."""
    layers = [_Convolution(channels, inner, 1)]
    for index in range(2 * times):
        wide = index % 2 == (0 if times == 1 else 1)
        kernel, pad = ((1, 7), (0, 3)) if wide else ((7, 1), (3, 0))
        layers.append(_Convolution(inner, out if index == 2 * times - 1 else inner, kernel, 1, pad))
    return _chain(*layers)


def _block_a(channels: int, pooled: int) -> nn.Module:
    c = _Convolution
    return _Branches(
        c(channels, 64, 1),
        _chain(c(channels, 48, 1), c(48, 64, 5, 1, 2)),
        _chain(c(channels, 64, 1), c(64, 96, 3, 1, 1), c(96, 96, 3, 1, 1)),
        _pooled(channels, pooled),
    )


def _block_c(inner: int) -> nn.Module:
    return _Branches(
        _Convolution(768, 192, 1),
        _seven(768, inner, 192, times=1),
        _seven(768, inner, 192, times=2),
        _pooled(768, 192),
    )


def _block_e(channels: int) -> nn.Module:
    c = _Convolution

    def split() -> nn.Module:
        return _Branches(c(384, 384, (1, 3), 1, (0, 1)), c(384, 384, (3, 1), 1, (1, 0)))

    return _Branches(
        c(channels, 320, 1),
        _chain(c(channels, 384, 1), split()),
        _chain(c(channels, 448, 1), c(448, 384, 3, 1, 1), split()),
        _pooled(channels, 192),
    )


class RandomInception(nn.Module):
    """Inception-v3 of the shapes of torchvision's: uint8 (B, 3, H, W) to features (B, 2048)."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone, c = backbone, _Convolution
        self.trunk = _chain(
            *(c(3, 32, 3, 2), c(32, 32, 3), c(32, 64, 3, 1, 1), nn.MaxPool2d(3, 2)),
            *(c(64, 80, 1), c(80, 192, 3), nn.MaxPool2d(3, 2)),
            *(_block_a(192, 32), _block_a(256, 64), _block_a(288, 64)),
            _Branches(
                c(288, 384, 3, 2),
                _chain(c(288, 64, 1), c(64, 96, 3, 1, 1), c(96, 96, 3, 2)),
                nn.MaxPool2d(3, 2),
            ),
            *(_block_c(inner) for inner in (128, 160, 160, 192)),
            _Branches(
                _chain(c(768, 192, 1), c(192, 320, 3, 2)),
                _chain(_seven(768, 192, 192, times=1), c(192, 192, 3, 2)),
                nn.MaxPool2d(3, 2),
            ),
            *(_block_e(1280), _block_e(2048), nn.AdaptiveAvgPool2d(1)),
        )
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 2048), float32."""
        side = self.backbone.size
        x = functional.interpolate(
            images.float(), (side, side), mode="bilinear", align_corners=True
        )
        pooled: Tensor = self.trunk(x / 127.5 - 1.0)
        return pooled.flatten(1).float()


def quiet() -> None:
    """Leave out warnings that say nothing about what is measured."""
    warnings.filterwarnings("ignore", message=".*deterministic.*")
    warnings.filterwarnings("ignore", message=".*TensorFloat32.*")
    warnings.filterwarnings("ignore", message=".*Online softmax.*")
