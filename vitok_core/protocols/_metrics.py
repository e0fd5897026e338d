"""What can be measured? Every metric by name, with its direction and what it needs; no torch here.

A metric says what is measured and how it is read (direction, scale for fits). Everything else that
changes the number is a protocol's, see `vitok_core.protocols`. Names that begin with r compare
reconstructions with their originals; every one that looks at sets of features has a twin that
begins with g and looks at generated samples by the same rules. `rfid`, `ris` and the other plain
names are of Inception features, whichever Inception the protocol names; what is measured on other
features says so in its name, because the two must never be read as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Features = Literal["alex", "lite0", "inception", "dinov2", "clip", "i3d", "videomae"]
MetricGroup = Literal["reconstruction", "generation"]

FEATURE_WIDTHS: dict[str, int] = {
    "lite0": 1280,
    "inception": 2048,
    "dinov2": 1024,
    "clip": 768,
    "i3d": 400,
    "videomae": 1408,
}
"""Features of one image, or of one clip for those of `SEE_CLIPS`, by backbone."""

SEE_CLIPS: tuple[str, ...] = ("i3d", "videomae")
"""Backbones that see whole clips; all others see images, or the frames of clips."""


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
        group: which group of `evaluate` measures it: "reconstruction" (metrics of codes too) or
            "generation".
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
    group: MetricGroup = "reconstruction"
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
        name="rfd_lite0_infinity",
        better="lower",
        scale="log2",
        features="lite0",
        needs=100,
        about="rfd_lite0 extrapolated to infinitely many images: linear in 1/n over 15 sizes.",
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

_CLIP = (
    Metric(
        name="rcmmd",
        better="lower",
        scale="log2",
        features="clip",
        about="CMMD of Jayasumana et al. 2024: MMD (Gaussian kernel, sigma 10, unit vectors, times "
        "1000) on embeddings of CLIP ViT-L/14 at 336 px.",
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
    Metric(
        name="rfvd_videomae",
        better="lower",
        scale="log2",
        features="videomae",
        frames=16,
        about="Content-debiased FVD of Ge et al. 2024: Frechet distance of clips, features of "
        "VideoMAE v2 ViT-g fine-tuned on Something-Something v2.",
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


def _of_samples(metric: Metric) -> Metric:
    """The twin of a metric of reconstructions that looks at generated samples."""
    about = metric.about
    for said, instead in (
        ("reconstructions", "samples"),
        ("a reconstruction", "a sample"),
        ("original and reconstructed", "original and generated"),
    ):
        about = about.replace(said, instead)
    return replace(
        metric,
        name=f"g{metric.name[1:]}",
        group="generation",
        # A metric that is explained by another one has that one's twin.
        about=_SAMPLES_ABOUT.get(metric.name, re.sub(r"\brf(id|d|vd)", r"gf\1", about)),
    )


_SAMPLES_ABOUT = {"ris": "Inception score of samples: sure of a class each, and all classes."}
"""What twins say where "samples" in the place of "reconstructions" is not enough."""

_SAMPLES = tuple(
    _of_samples(one) for group in (_LITE0, _INCEPTION, _DINO, _CLIP, _VIDEO) for one in group
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for group in (_PAIRS, _LITE0, _INCEPTION, _DINO, _CLIP, _VIDEO, _CODES, _SAMPLES)
    for metric in group
}
"""Every metric by name."""
