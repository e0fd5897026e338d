"""Pretrained networks: published weights, checked, frozen, ready to be called.

`vitok_core.protocols.BACKBONES` says which networks there are and which function builds each; a new
one is a record there and a module here. Files come from `vitok_core.weights`, checked by SHA-256
before a byte of them is interpreted; no network ever starts with random weights in place of
pretrained ones. State dicts are read with `weights_only`. Networks are built on torch's meta device
and then given the file's tensors.
"""

from __future__ import annotations

import pkgutil

from torch import nn

from vitok_core.features._clip import ClipTrunk
from vitok_core.features._dino import DinoV2Trunk
from vitok_core.features._inception import FidInception
from vitok_core.features._placed import compiled, convolutions, placed
from vitok_core.features._videomae import VideoMaeTrunk
from vitok_core.protocols import BACKBONES

__all__ = [
    "ClipTrunk",
    "DinoV2Trunk",
    "FidInception",
    "VideoMaeTrunk",
    "compiled",
    "convolutions",
    "feature_network",
    "placed",
]


def feature_network(name: str) -> nn.Module:
    """The pretrained network of a name in `BACKBONES`, frozen.

    Returns:
        A module. One that sees images maps uint8 (B, 3, H, W) to features (B, F), float32; one that
        sees clips takes uint8 (B, 3, T, H, W); what losses and pairs look through says itself what
        it takes.

    Raises:
        WeightsError: its weights are not there, see `vitok_core.weights.weights_path`.
    """
    backbone = BACKBONES[name]
    network: nn.Module = pkgutil.resolve_name(backbone.maker)(backbone)
    return network
