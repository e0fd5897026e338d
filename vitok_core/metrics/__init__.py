"""Metrics of reconstructions, samples and codes, as functions, and a set that runs many.

    _pairs        an original and its reconstruction: psnr, ssim, ms_ssim, lpips
    _distances    two sets of features: Frechet, kernel and Gaussian-kernel distances, their
                  extrapolation and standard error; the Inception score of one set
    _neighbours   two sets of features: precision, recall, density, coverage
    _codes        codes of a tokenizer: spectrum, Gaussianity, linear probe
    _measure      all metrics of an evaluation over one store of features

Metrics on features know nothing of where the features came from. What besides model and data
decides a number, and which function computes which metric, is in `vitok_core.protocols`.
"""

from __future__ import annotations

from vitok_core.metrics._codes import Codes, gaussianity, linear_probe, spectrum_slope
from vitok_core.metrics._distances import (
    bootstrap_error,
    frechet_distance,
    frechet_infinity,
    gaussian,
    gaussian_kernel_distance,
    inception_score,
    kernel_distance,
)
from vitok_core.metrics._measure import (
    Measured,
    MetricSet,
    backbone_of,
    check_metrics,
    frames_of,
    protocol,
    rounded,
)
from vitok_core.metrics._neighbours import cover
from vitok_core.metrics._pairs import ms_ssim, psnr, ssim

__all__ = [
    "Codes",
    "Measured",
    "MetricSet",
    "backbone_of",
    "bootstrap_error",
    "check_metrics",
    "cover",
    "frames_of",
    "frechet_distance",
    "frechet_infinity",
    "gaussian",
    "gaussian_kernel_distance",
    "gaussianity",
    "inception_score",
    "kernel_distance",
    "linear_probe",
    "ms_ssim",
    "protocol",
    "psnr",
    "rounded",
    "spectrum_slope",
    "ssim",
]
