"""Where do pretrained networks come from? Published weights, checked, frozen, ready to be called.

Files come from `vitok_core.weights`, checked by SHA-256 before a byte of them is interpreted; no
network ever starts with random weights in place of pretrained ones. State dicts are read with
`weights_only`. Networks are built on torch's meta device and then given the file's tensors.

`feature_network` makes what metrics on distributions are measured with: a module that maps uint8
images (B, 3, H, W) to features (B, F), float32. I3D and VideoMAE take uint8 clips
(B, 3, T, H, W) instead.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from vitok_core.features._clip import ClipFeatures, ClipTrunk
from vitok_core.features._dino import (
    DINO_GRID,
    DinoFeatures,
    DinoV2,
    DinoV2Trunk,
)
from vitok_core.features._i3d import I3D, I3D_FEATURES, I3D_FRAMES
from vitok_core.features._inception import INCEPTION_FEATURES, FidInception, TorchvisionInception
from vitok_core.features._lite0 import LITE0_FEATURES, LITE0_SIZE, Lite0
from vitok_core.features._lpips import lpips_network
from vitok_core.features._videomae import VideoMae, VideoMaeTrunk
from vitok_core.protocols import Network

__all__ = [
    "DINO_GRID",
    "I3D",
    "I3D_FEATURES",
    "I3D_FRAMES",
    "INCEPTION_FEATURES",
    "LITE0_FEATURES",
    "LITE0_SIZE",
    "ClipFeatures",
    "ClipTrunk",
    "DinoFeatures",
    "DinoV2",
    "DinoV2Trunk",
    "FidInception",
    "Lite0",
    "TorchvisionInception",
    "VideoMae",
    "VideoMaeTrunk",
    "feature_network",
    "lpips_network",
]


def feature_network(
    name: Network | Literal["dinov2", "clip", "i3d", "videomae"],
) -> nn.Module:
    """A network that turns samples into the features of distribution metrics.

    Raises:
        WeightsError: its weights are not there, see `vitok_core.weights.weights_path`.
    """
    if name == "lite0":
        return Lite0()
    if name == "inception-tf1":
        return FidInception("tf1")
    if name == "inception-bicubic":
        return FidInception("bicubic")
    if name == "inception-torchvision":
        return TorchvisionInception()
    if name == "dinov2":
        return DinoFeatures()
    if name == "clip":
        return ClipFeatures()
    if name == "videomae":
        return VideoMae()
    return I3D()
