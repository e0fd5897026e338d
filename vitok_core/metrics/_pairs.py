"""Metrics of pairs of 8-bit images, one value per pair.

All of them see uint8 on both sides: what is measured is what a viewer of the saved picture would
get. The range is fixed at 255 and never taken from the data, so that a dark image is judged as any
other. Nothing depends on which images share a batch.

Shape suffixes: B images, C channels, H and W pixels, V windows along a side.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitok_core.errors import SpecError
from vitok_core.tokenizer import from_uint8

PEAK = 255.0

MSE_FLOOR = 1e-10 * PEAK**2
"""Smallest mean squared error that counts: equal images have a PSNR of 100 dB, not infinity."""

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
MS_SSIM_SMALLEST = (SSIM_WINDOW - 1) * 2**4 + 1


def _check_pairs(originals: Tensor, reconstructions: Tensor) -> None:
    """Whether both sides are bytes of one shape (B, C, H, W).

    As bytes, images in [0, 1] would all be black, and one image would be compared with every other.
    """
    given = [
        f"{str(one.dtype).removeprefix('torch.')} of shape {tuple(one.shape)}"
        if isinstance(one, Tensor)
        else f"a {type(one).__module__}.{type(one).__qualname__}"
        for one in (originals, reconstructions)
    ]
    if given[0] != given[1] or "uint8 of" not in given[0] or originals.ndim != 4:
        raise SpecError(
            "images",
            "metrics of pairs compare two uint8 tensors of one shape (batch, channels, height, "
            f"width) in 0 to 255, not {given[0]} with {given[1]}; vitok_core.tokenizer.to_uint8 "
            "makes bytes of images in [-1, 1]",
        )


def squared_error(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean squared error of every pair of uint8 images (B, C, H, W): (B,) float64.

    Raises:
        SpecError: another type, or two shapes.
    """
    _check_pairs(originals, reconstructions)
    # Differences of bytes fit 16 bits, and their squares 32: exact, in a fraction of the memory.
    difference = (originals.to(torch.int16) - reconstructions.to(torch.int16)).to(torch.int32)
    return difference.square().sum(dim=(1, 2, 3), dtype=torch.int64) / float(originals[0].numel())


def psnr_of(squared_errors: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, range 255, of mean squared errors in float64.

    An error below `MSE_FLOOR` counts as that, so the largest value is 100.
    """
    return 10.0 * torch.log10(PEAK**2 / squared_errors.double().clamp_min(MSE_FLOOR))


def psnr_of_errors(squared_errors: Tensor, over: Literal["image", "all"] = "image") -> Tensor:
    """PSNR in dB of the mean squared errors of all images: of each, or one number of their mean."""
    if over == "image":
        return psnr_of(squared_errors)
    # fsum: the order and number of the images must not show in the last digits.
    mean = math.fsum(squared_errors.flatten().tolist()) / squared_errors.numel()
    return psnr_of(torch.tensor(mean))


def psnr(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of every pair of uint8 images (B, C, H, W): (B,) float64.

    Raises:
        SpecError: another type, or two shapes.
    """
    return psnr_of(squared_error(originals, reconstructions))


def ssim(
    originals: Tensor,
    reconstructions: Tensor,
    border: Literal["mirrored", "inside"] = "mirrored",
) -> Tensor:
    """Structural similarity of every pair of uint8 images (B, C, H, W): (B,) float64.

    Gaussian window 11 x 11, sigma 1.5, k 0.01 and 0.03, range 255 (Wang et al. 2004), the mean over
    channels and windows.

    Args:
        originals: the images.
        reconstructions: of the same shape.
        border: "inside" counts the windows that lie inside the image, in float64, as the authors
            and scikit-image do; "mirrored" has one window per pixel and mirrors the image beyond
            its border, in float32, as torchmetrics does.

    Raises:
        SpecError: images smaller than the window, of another type, or of two shapes.
    """
    _check_pairs(originals, reconstructions)
    if min(originals.shape[-2:]) < SSIM_WINDOW:
        raise SpecError(
            "resolution",
            f"ssim needs images of at least {SSIM_WINDOW} px, not {tuple(originals.shape[-2:])}",
        )
    if border == "mirrored":
        return _mirrored_ssim(originals, reconstructions)
    # One pair at a time: a product of matrices may round otherwise when there are more of them.
    return torch.cat(
        [
            _inner_ssim(x, y)
            for x, y in zip(originals.unbind(), reconstructions.unbind(), strict=True)
        ]
    )


def _inner_ssim(x_CHW: Tensor, y_CHW: Tensor) -> Tensor:
    x, y = x_CHW.double(), y_CHW.double()
    rows, columns = _windows(x.shape[-2], x.device), _windows(x.shape[-1], x.device)

    def mean(image: Tensor) -> Tensor:
        """Weighted mean in every window: the window is separable, so two matrix products."""
        return rows @ image @ columns.T

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return similarity.mean().reshape(1)


@functools.lru_cache(maxsize=8)
def _windows(side: int, device: torch.device) -> Tensor:
    """(V, side) float64: row i holds the window's weights at its i-th place along a side."""
    middle = SSIM_WINDOW // 2
    weights = [math.exp(-((at - middle) ** 2) / (2 * SSIM_SIGMA**2)) for at in range(SSIM_WINDOW)]
    places = side - SSIM_WINDOW + 1
    matrix = torch.zeros(places, side, dtype=torch.float64)
    for at, weight in enumerate(weights):
        matrix.diagonal(at)[:places] = weight / math.fsum(weights)
    return matrix.to(device)


def _mirrored_ssim(originals: Tensor, reconstructions: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure

    # float32: in float64 the mean changes by 2e-6 and the CPU takes 25 times as long.
    values: Any = structural_similarity_index_measure(
        reconstructions.float(),
        originals.float(),
        gaussian_kernel=True,
        sigma=SSIM_SIGMA,
        kernel_size=SSIM_WINDOW,
        reduction="none",
        data_range=PEAK,
    )
    scores: Tensor = values.reshape(-1).double()
    return scores


def ms_ssim(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarity over five scales of every pair of uint8 images: (B,) float64.

    Window, constants and range as for `ssim`, weights of Wang et al. 2003, by torchmetrics.

    Raises:
        SpecError: images that are smaller than the window at the coarsest scale, of another type,
            or of two shapes.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    _check_pairs(originals, reconstructions)
    if min(originals.shape[-2:]) < MS_SSIM_SMALLEST:
        raise SpecError(
            "resolution",
            f"ms_ssim needs images of at least {MS_SSIM_SMALLEST} px, not "
            f"{tuple(originals.shape[-2:])}",
        )
    values: Any = multiscale_structural_similarity_index_measure(
        reconstructions.float(),
        originals.float(),
        gaussian_kernel=True,
        sigma=SSIM_SIGMA,
        kernel_size=SSIM_WINDOW,
        reduction="none",
        data_range=PEAK,
    )
    scores: Tensor = values.reshape(-1).double()
    return scores


@torch.no_grad()
def lpips(originals: Tensor, reconstructions: Tensor, *, network: nn.Module) -> Tensor:
    """LPIPS of every pair of uint8 images (B, C, H, W) through its network: (B,) float64.

    Raises:
        SpecError: another type, or two shapes.
    """
    _check_pairs(originals, reconstructions)
    scores: Tensor = network(from_uint8(reconstructions), from_uint8(originals)).reshape(-1)
    return scores.double()
