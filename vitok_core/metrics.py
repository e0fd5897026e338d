"""How good are reconstructions? Accumulators: update with pairs of uint8 images, then compute.

Per-image metrics (psnr, ssim, lpips) are means over images of functions of one pair. Distribution
metrics (rfd_lite0, rkid_lite0) collect features of all images and compare the two collections once,
in float64, through torch-fidelity. Nothing depends on how images are grouped into batches, beyond
the rounding of the feature networks.

All metrics see uint8 images on both sides: what is measured is what a viewer of the saved picture
would get. What else decides a number is in `vitok_core.protocols`.

Shape suffixes: B images of a batch, N all images, F features.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitok_core.errors import DataError, NonFiniteError, SpecError
from vitok_core.features import Lite0, lpips_network
from vitok_core.protocols import METRICS, PROTOCOLS, Protocol
from vitok_core.tokenizer import from_uint8
from vitok_core.weights import LPIPS_SMALLEST

PEAK = 255.0

MSE_FLOOR = 1e-10 * PEAK**2
"""Smallest mean squared error that counts: equal images have a PSNR of 100 dB, not infinity."""

SSIM_WINDOW = 11
KID_SUBSETS, KID_SUBSET, KID_SEED = 100, 256, 2020


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measured number.

    Attributes:
        name: key into `vitok_core.protocols.METRICS`.
        value: the number in the metric's unit; always finite.
        n: number of images behind it.
    """

    name: str
    value: float
    n: int


def protocol(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise SpecError("protocol", f"{name!r} is no protocol; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def psnr(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of every pair of uint8 images (B, 3, H, W): (B,) float64.

    Range 255; a mean squared error below `MSE_FLOOR` counts as that, so the largest value is 100.
    """
    difference = originals.double() - reconstructions.double()
    mse = difference.square().mean(dim=(1, 2, 3)).clamp_min(MSE_FLOOR)
    return 10.0 * torch.log10(PEAK**2 / mse)


def ssim(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarity of every pair of uint8 images (B, 3, H, W): (B,) float64.

    Gaussian window 11 x 11, sigma 1.5, k 0.01 and 0.03, fixed range 255 (Wang et al. 2004); the
    mean over all pixels, mirrored beyond the border.

    Raises:
        SpecError: images smaller than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(originals.shape[-2:]) < SSIM_WINDOW:
        raise SpecError(
            "resolution",
            f"ssim needs images of at least {SSIM_WINDOW} px, not {tuple(originals.shape[-2:])}",
        )
    # float32: in float64 the mean changes by 2e-6 and the CPU takes 25 times as long.
    values: Any = structural_similarity_index_measure(
        reconstructions.float(),
        originals.float(),
        gaussian_kernel=True,
        sigma=1.5,
        kernel_size=SSIM_WINDOW,
        reduction="none",
        data_range=PEAK,
    )
    scores: Tensor = values.reshape(-1).double()
    return scores


def frechet_distance(a_NF: NDArray[np.floating], b_NF: NDArray[np.floating]) -> float:
    """Frechet distance of two collections of features, each seen as a Gaussian; float64.

    Biased upwards for few images; below F images the covariances are singular, which is allowed.

    Raises:
        DataError: fewer than two images on a side.
    """
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    _at_least_two(a_NF, b_NF)
    left, right = (
        fid_features_to_statistics(torch.from_numpy(np.ascontiguousarray(side, np.float64)))
        for side in (a_NF, b_NF)
    )
    distance: float = fid_statistics_to_metric(left, right, verbose=False)[KEY_METRIC_FID]
    # Rounding can leave a distance of equal collections a hair below zero.
    return max(float(distance), 0.0)


def kernel_distance(a_NF: NDArray[np.floating], b_NF: NDArray[np.floating]) -> float:
    """Kernel distance (squared MMD, cubic polynomial) of two collections of features; unbiased.

    The mean over 100 random subsets of min(n, 256) images, seed 2020. Being unbiased it can be
    slightly negative for collections that do not differ.

    Raises:
        DataError: fewer than two images on a side.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    _at_least_two(a_NF, b_NF)
    result = kid_features_to_metric(
        *(torch.from_numpy(np.ascontiguousarray(side, np.float64)) for side in (a_NF, b_NF)),
        kid_subsets=KID_SUBSETS,
        kid_subset_size=min(len(a_NF), len(b_NF), KID_SUBSET),
        kid_kernel="poly",
        rng_seed=KID_SEED,
        verbose=False,
    )
    return float(result[KEY_METRIC_KID_MEAN])


def _at_least_two(*sides: NDArray[np.floating]) -> None:
    if min(len(side) for side in sides) < 2:
        raise DataError("a distance of distributions needs at least 2 images on each side")


class MetricSet:
    """All metrics of one evaluation, fed by the same batches; shares what they share.

    Args:
        names: keys into `vitok_core.protocols.METRICS`, each once.
        protocol_name: key into `vitok_core.protocols.PROTOCOLS`.
        resolution: side of the images in pixels.
        reference_NF: features of the originals if they are known already, in any order.
        device: where the feature networks run.

    Raises:
        SpecError: an unknown metric or protocol, a metric named twice, or images too small for one.
        WeightsError: a pretrained network that a metric needs is missing.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        protocol_name: str = "lite0",
        resolution: int,
        reference_NF: NDArray[np.float32] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        protocol(protocol_name)
        _check_names(names, resolution)
        self.names, self.device = tuple(names), torch.device(device)
        needed = {METRICS[name].features for name in names}
        self._lpips: nn.Module | None = None
        if "alex" in needed:
            self._lpips = lpips_network("alex").to(self.device)
        self._lite0 = Lite0().to(self.device) if "lite0" in needed else None
        self._reference_NF = reference_NF
        self._originals: list[NDArray[np.float32]] = []
        self._reconstructions: list[NDArray[np.float32]] = []
        self._per_image: dict[str, list[float]] = {
            name: [] for name in names if METRICS[name].features != "lite0"
        }
        self.n = 0

    def update(self, originals: Tensor, reconstructions: Tensor) -> None:
        """Add pairs of uint8 images, (B, 3, H, W) each."""
        if originals.dtype != torch.uint8 or reconstructions.dtype != torch.uint8:
            raise ValueError("metrics are measured on uint8 images; see tokenizer.to_uint8")
        x, y = originals.to(self.device), reconstructions.to(self.device)
        for name, values in self._per_image.items():
            values.extend(self._scores(name, x, y).tolist())
        if self._lite0 is not None:
            self._reconstructions.append(self._lite0(y).cpu().numpy())
            if self._reference_NF is None:
                self._originals.append(self._lite0(x).cpu().numpy())
        self.n += len(x)

    def compute(self) -> list[Measured]:
        """Every metric over all pairs so far, in the order of the names.

        Raises:
            DataError: too few pairs, or as many reference features as pairs are not there.
            NonFiniteError: a value is not a finite number.
        """
        for name in self.names:
            if self.n < METRICS[name].needs:
                raise DataError(f"{name} needs {METRICS[name].needs} images, there are {self.n}")
        known = self.n if self._reference_NF is None else len(self._reference_NF)
        if known != self.n:
            raise DataError(
                f"the reference holds features of {known} images, but {self.n} were "
                "reconstructed; compute the reference on the same images"
            )
        return [Measured(name=name, value=self._value(name), n=self.n) for name in self.names]

    def _scores(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        if name == "psnr":
            return psnr(x, y)
        if name == "ssim":
            return ssim(x, y)
        assert self._lpips is not None
        with torch.no_grad():
            scores: Tensor = self._lpips(from_uint8(y), from_uint8(x)).reshape(-1)
        return scores

    def _value(self, name: str) -> float:
        if name in self._per_image:
            value = math.fsum(self._per_image[name]) / self.n
        else:
            originals = self._reference_NF
            if originals is None:
                originals = np.concatenate(self._originals)
            distance = frechet_distance if name == "rfd_lite0" else kernel_distance
            value = distance(originals, np.concatenate(self._reconstructions))
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} over {self.n} images is {value}")
        return value


def _check_names(names: Sequence[str], resolution: int) -> None:
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SpecError(
                "metrics", f"{name!r} is no metric; there are {', '.join(METRICS)}{hint}"
            )
    if len(set(names)) != len(names):
        raise SpecError("metrics", f"a metric is named twice in {', '.join(names)}")
    for name, smallest in (("ssim", SSIM_WINDOW), ("lpips", LPIPS_SMALLEST["alex"])):
        if name in names and resolution < smallest:
            raise SpecError(
                "metrics",
                f"{name} needs images of at least {smallest} px, the resolution is {resolution}",
            )
