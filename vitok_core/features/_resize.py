"""How samples reach the size of a network's input, as the record of the network has it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from vitok_core.protocols import Backbone


def resized(x: Tensor, backbone: Backbone) -> Tensor:
    """Images (B, 3, H, W) or clips (B, 3, T, H, W) in float, at the size that a network takes.

    Raises:
        ValueError: a resize that there is not.
    """
    assert backbone.size is not None, f"{backbone.name} takes images as they are"
    how, size = backbone.resize, (backbone.size, backbone.size)
    if how not in _MODES and how not in ("bilinear-tf1", "trilinear"):
        raise ValueError(f"resize = {how!r}: {', '.join([*_MODES, 'bilinear-tf1', 'trilinear'])}")
    if x.shape[-2:] == size:
        return x
    if how == "trilinear":
        return functional.interpolate(
            x, size=(x.shape[2], *size), mode="trilinear", align_corners=False
        )
    if x.ndim == 5:
        frames = resized(x.transpose(1, 2).flatten(0, 1), backbone)
        return frames.reshape(len(x), -1, *frames.shape[1:]).transpose(1, 2)
    if how == "bilinear-tf1":
        from torch_fidelity.interpolate_compat_tensorflow import (
            interpolate_bilinear_2d_like_tensorflow1x,
        )

        found: Tensor = interpolate_bilinear_2d_like_tensorflow1x(x, size=size, align_corners=False)
        return found
    mode, antialias, corners = _MODES[how]
    return functional.interpolate(
        x, size=size, mode=mode, antialias=antialias, align_corners=corners
    )


_MODES = {
    "bilinear": ("bilinear", False, False),
    "bilinear-antialias": ("bilinear", True, False),
    "bilinear-corners": ("bilinear", False, True),
    "bicubic-antialias": ("bicubic", True, False),
}
"""Resize -> mode of torch, whether it antialiases, whether corners are aligned."""
