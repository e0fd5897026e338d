"""What can be measured? Every metric by name, with its direction and what it needs; no torch here.

A metric says what is measured and how it is read (direction, scale for fits). Everything else that
changes the number is a protocol's, see `vitok_core.protocols`. Names that begin with r compare
reconstructions with their originals. `rfid`, `ris` and the other plain names are of Inception
features, whichever Inception the protocol names; what is measured on other features says so in its
name, because the two must never be read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Features = Literal["alex", "lite0", "inception", "dinov2", "i3d"]

FEATURE_WIDTHS: dict[str, int] = {"lite0": 1280, "inception": 2048, "dinov2": 1024, "i3d": 400}
"""Features of one image, or of one clip for i3d, by backbone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is measured.

    Attributes:
        name: key in studies, results and columns.
        better: whether a lower or a higher value is the better one.
        scale: how fits see it: "log2" for ratio-scaled distances (FID and its kin, LPIPS), "raw"
            for decibels and bounded scores (fitting practice of the ViTok paper, figures 3 to 12).
        unit: unit of the value; empty for a pure number.
        of: what it is a function of: "pairs" of an original and its reconstruction, "features" of
            whole sets, or "codes".
        features: backbone whose features the metric needs, or None.
        reference: whether it compares with features of the originals.
        needs: smallest number of images, or clips, that gives a value.
        smallest: smallest image side in pixels that gives a value.
        frames: smallest number of frames of a sample that gives a value.
        about: one sentence for people.
    """

    name: str
    better: Literal["lower", "higher"]
    scale: Literal["log2", "raw"]
    unit: str = ""
    of: Literal["pairs", "features", "codes"] = "features"
    features: Features | None = None
    reference: bool = True
    needs: int = 2
    smallest: int = 1
    frames: int = 1
    about: str


_PAIRS = (
    Metric(
        name="psnr",
        better="higher",
        scale="raw",
        unit="dB",
        of="pairs",
        reference=False,
        needs=1,
        about="Peak signal-to-noise ratio on 8-bit images: range 255, mean over images.",
    ),
    Metric(
        name="ssim",
        better="higher",
        scale="raw",
        of="pairs",
        reference=False,
        needs=1,
        smallest=11,
        about="Structural similarity: Gaussian 11x11 window, sigma 1.5, range 255, the mean.",
    ),
    Metric(
        name="ms_ssim",
        better="higher",
        scale="raw",
        of="pairs",
        reference=False,
        needs=1,
        smallest=161,
        about="Structural similarity over five scales, window and range as for ssim, the mean.",
    ),
    Metric(
        name="lpips",
        better="lower",
        scale="log2",
        of="pairs",
        features="alex",
        reference=False,
        needs=1,
        smallest=31,
        about="Learned perceptual distance, AlexNet trunk with the v0.1 heads, the mean.",
    ),
)

_LITE0 = (
    Metric(
        name="rfd_lite0",
        better="lower",
        scale="log2",
        features="lite0",
        about="Frechet distance of originals and reconstructions, EfficientNet-Lite0 features.",
    ),
    Metric(
        name="rkid_lite0",
        better="lower",
        scale="raw",
        features="lite0",
        about="Kernel distance of originals and reconstructions, EfficientNet-Lite0 features.",
    ),
)

_INCEPTION = (
    Metric(
        name="rfid",
        better="lower",
        scale="log2",
        features="inception",
        about="Frechet distance of originals and reconstructions, Inception features.",
    ),
    Metric(
        name="rfid_infinity",
        better="lower",
        scale="log2",
        features="inception",
        needs=100,
        about="rfid extrapolated to infinitely many images: linear in 1/n over 15 sizes.",
    ),
    Metric(
        name="ris",
        better="higher",
        scale="raw",
        features="inception",
        reference=False,
        needs=10,
        about="Inception score of reconstructions; near the originals' own score at best.",
    ),
    Metric(
        name="rkid",
        better="lower",
        scale="raw",
        features="inception",
        about="Kernel distance (squared MMD, cubic polynomial), Inception features; unbiased.",
    ),
    Metric(
        name="rprecision",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        about="Share of reconstructions inside the originals' manifold of 3 nearest neighbours.",
    ),
    Metric(
        name="rrecall",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        about="Share of originals inside the reconstructions' manifold of 3 nearest neighbours.",
    ),
    Metric(
        name="rdensity",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        about="Mean number of originals' balls of 5 neighbours around a reconstruction, over 5.",
    ),
    Metric(
        name="rcoverage",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        about="Share of originals with a reconstruction in their ball of 5 neighbours.",
    ),
)

_DINO = (
    Metric(
        name="rfdd",
        better="lower",
        scale="log2",
        features="dinov2",
        about="Frechet distance of originals and reconstructions, DINOv2 ViT-L/14 features.",
    ),
    Metric(
        name="rmmd_dino",
        better="lower",
        scale="log2",
        features="dinov2",
        about="MMD with the kernel of CMMD (Gaussian, sigma 10, unit vectors, times 1000), on "
        "DINOv2 features instead of CLIP's.",
    ),
)

_VIDEO = (
    Metric(
        name="rfvd",
        better="lower",
        scale="log2",
        features="i3d",
        frames=10,
        about="Frechet distance of original and reconstructed clips, I3D logits (Kinetics-400).",
    ),
    Metric(
        name="rkvd",
        better="lower",
        scale="raw",
        features="i3d",
        frames=10,
        about="Kernel distance (cubic polynomial) of clips, I3D logits (Kinetics-400); unbiased.",
    ),
)

_CODES = (
    Metric(
        name="code_kl",
        better="lower",
        scale="raw",
        unit="nat",
        of="codes",
        reference=False,
        needs=1,
        about="KL of the posteriors to a unit Gaussian, mean over tokens and channels.",
    ),
    Metric(
        name="code_gaussianity",
        better="lower",
        scale="raw",
        unit="nat",
        of="codes",
        reference=False,
        about="KL of a Gaussian with a channel's mean and variance to a unit one, mean over "
        "channels: how far the codes as a whole are from what a generator starts from.",
    ),
    Metric(
        name="code_spectrum_slope",
        better="lower",
        scale="raw",
        of="codes",
        reference=False,
        about="Slope of log power against log frequency of the codes over the token grid; 0 is "
        "white, images are near -2.",
    ),
    Metric(
        name="code_scale_error",
        better="lower",
        scale="raw",
        of="codes",
        reference=False,
        needs=1,
        about="Decoding the code averaged to half the grid against the image at half the size: "
        "mean squared error over the image's variance.",
    ),
    Metric(
        name="code_rotation_error",
        better="lower",
        scale="raw",
        of="codes",
        reference=False,
        needs=1,
        about="Decoding the code turned by 90 degrees against the image turned: mean squared "
        "error over the image's variance.",
    ),
    Metric(
        name="code_probe",
        better="higher",
        scale="raw",
        of="codes",
        reference=False,
        needs=20,
        about="Accuracy of a linear probe (ridge) from the mean code to the label, on the tenth "
        "of the samples it was not fitted to, over ten folds.",
    ),
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for group in (_PAIRS, _LITE0, _INCEPTION, _DINO, _VIDEO, _CODES)
    for metric in group
}
"""Every metric by name."""
