"""Metrics: one record per metric says what is measured, by which function, and how it is read.

Everything else that changes the number is a protocol's, see `vitok_core.protocols`. A new metric is
one record here and its function in `vitok_core.metrics`. Names that begin with r compare
reconstructions with their originals; every one that looks at sets of features has a twin that
begins with g and looks at generated samples by the same rules. `rfid`, `ris` and the other plain
names are of Inception features, whichever Inception the protocol names; what is measured on other
features says so in its name, because the two must never be read as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from vitok_core.protocols.backbones import of_features

MetricGroup = Literal["reconstruction", "generation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeNeeds:
    """What a metric of codes looks at besides means and variances.

    Attributes:
        random: whether the code has to be a distribution.
        grid: fewest tokens of a side of the grid; 0 when the grid does not matter.
        even: whether the grid is halved, so that its height has to be even.
        kept: whether it looks at whole codes, of which the first ones are kept.
        moved: import path "module:name" of what makes an error per sample from a transformed code
            and its decoding, see `vitok_core.evaluate`; "" for none.
    """

    random: bool = False
    grid: int = 0
    even: bool = False
    kept: bool = False
    moved: str = ""


ROUNDING = 1e-4
"""How far beyond a bound rounding may leave a value, as a share of the bound, at least of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is measured.

    Attributes:
        name: key in studies, results and columns.
        better: whether a lower or a higher value is the better one.
        scale: how fits see it: "log2" for ratio-scaled distances (FID, LPIPS), "raw" for decibels
            and bounded scores (fitting practice of the ViTok paper, figures 3 to 12).
        unit: unit of the value; empty for a pure number.
        bounds: smallest and largest value there can be; None where there is no end. What is
            measured beyond them, rounding aside, is an error.
        twin: its twin in the other group, "" without one.
        column_of: groups in which it is a column of the view `v_cell`; elsewhere it is a row of
            `v_metric`. A new column needs a new revision of the results database.
        of: what it is a function of: "pairs" of an original and its reconstruction, "features" of
            whole sets, or "codes".
        group: which group of `evaluate` measures it: "reconstruction" (metrics of codes too) or
            "generation".
        features: what the network gives that the metric looks through, see
            `vitok_core.protocols.Backbone`; None without one.
        reference: whether it compares with features of the originals.
        needs: smallest number of images, or clips, that gives a value.
        window: smallest image side in pixels that the function takes.
        function: import path "module:name" of what computes it. Of pairs: (originals,
            reconstructions) as uint8 images -> a score per image, with `network` where it has
            features. Of features: (originals', samples') rows, without `reference` only the
            samples' -> a number. Of codes: `vitok_core.metrics.Codes` -> a number and its
            standard error or None.
        summary: of pairs: import path of what makes scores per frame, or one number, of what
            `function` gave for all samples; "" for those scores themselves.
        rules: argument -> field of the protocol: all that the function (with a summary, that)
            knows of the protocol.
        part: attribute of the function's result that is the value; "" for the result itself.
        of_logits: whether the rows are outputs of the network's classifier, not its features.
        tells_pairs: whether the function has an argument `paired`: rows are pairs.
        covariances: whether it compares covariances, which are singular with fewer rows than
            features.
        resampled: whether a bootstrap gives its standard error.
        code: what a metric of codes needs of them.
        about: one sentence for people.
    """

    name: str
    better: Literal["lower", "higher"]
    scale: Literal["log2", "raw"]
    unit: str = ""
    bounds: tuple[float | None, float | None] = (None, None)
    twin: str = ""
    column_of: tuple[MetricGroup, ...] = ()
    of: Literal["pairs", "features", "codes"] = "features"
    group: MetricGroup = "reconstruction"
    features: str | None = None
    reference: bool = True
    needs: int = 2
    window: int = 1
    function: str
    summary: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)
    part: str = ""
    of_logits: bool = False
    tells_pairs: bool = False
    covariances: bool = False
    resampled: bool = True
    code: CodeNeeds = CodeNeeds()
    about: str

    def allows(self, value: float) -> bool:
        """Whether a value is inside the bounds, or beyond them by no more than rounding."""
        low, high = self.bounds
        slack = ROUNDING * max(1.0, abs(low or 0.0), abs(high or 0.0))
        return (low is None or value >= low - slack) and (high is None or value <= high + slack)

    @property
    def range(self) -> str:
        """The bounds in words: "0 to 100", "from 0", "any"."""
        low, high = self.bounds
        if low is None:
            return "any"
        return f"from {low:g}" if high is None else f"{low:g} to {high:g}"

    @property
    def smallest(self) -> int:
        """Smallest image side in pixels that gives a value."""
        return max([self.window, *(one.smallest for one in of_features(self.features))])

    @property
    def frames(self) -> int:
        """Smallest number of frames of a sample that gives a value."""
        return max([1, *(one.frames for one in of_features(self.features))])

    @property
    def reads(self) -> frozenset[str]:
        """Fields of a protocol that its value depends on, its network apart."""
        found = {*self.rules.values()}
        if self.of != "codes":
            found.add("rounding")
        if self.of_logits:
            found.add("inception_bias")
        if any(one.sees == "images" for one in of_features(self.features)):
            found.add("frames_apart")
        return frozenset(found)


_PAIRS = (
    Metric(
        name="psnr",
        column_of=("reconstruction",),
        better="higher",
        scale="raw",
        unit="dB",
        of="pairs",
        reference=False,
        needs=1,
        function="vitok_core.metrics._pairs:squared_error",
        summary="vitok_core.metrics._pairs:psnr_of_errors",
        rules={"over": "psnr_over"},
        bounds=(0, 100),
        about="Peak signal-to-noise ratio on 8-bit images: range 255, mean over images.",
    ),
    Metric(
        name="ssim",
        column_of=("reconstruction",),
        better="higher",
        scale="raw",
        of="pairs",
        reference=False,
        needs=1,
        window=11,
        function="vitok_core.metrics._pairs:ssim",
        rules={"border": "ssim_border"},
        bounds=(-1, 1),
        about="Structural similarity: Gaussian 11x11 window, sigma 1.5, range 255, the mean.",
    ),
    Metric(
        name="ms_ssim",
        better="higher",
        scale="raw",
        of="pairs",
        reference=False,
        needs=1,
        window=161,
        function="vitok_core.metrics._pairs:ms_ssim",
        bounds=(0, 1),
        about="Structural similarity over five scales, window and range as for ssim, the mean.",
    ),
    Metric(
        name="lpips",
        column_of=("reconstruction",),
        better="lower",
        scale="log2",
        of="pairs",
        features="alex",
        reference=False,
        needs=1,
        function="vitok_core.metrics._pairs:lpips",
        bounds=(0, None),
        about="Learned perceptual distance, AlexNet trunk with the v0.1 heads, the mean.",
    ),
)

_LITE0 = (
    Metric(
        name="rfd_lite0",
        column_of=("reconstruction", "generation"),
        better="lower",
        scale="log2",
        features="lite0",
        function="vitok_core.metrics._distances:frechet_distance",
        covariances=True,
        bounds=(0, None),
        about="Frechet distance of originals and reconstructions, EfficientNet-Lite0 features.",
    ),
    Metric(
        name="rfd_lite0_infinity",
        better="lower",
        scale="log2",
        features="lite0",
        needs=100,
        function="vitok_core.metrics._distances:frechet_infinity",
        covariances=True,
        tells_pairs=True,
        about="rfd_lite0 extrapolated to infinitely many images: linear in 1/n over 15 sizes.",
    ),
    Metric(
        name="rkid_lite0",
        column_of=("reconstruction",),
        better="lower",
        scale="raw",
        features="lite0",
        function="vitok_core.metrics._distances:kernel_distance",
        rules={"subset": "kid_subset", "subsets": "kid_subsets", "seed": "kid_seed"},
        about="Kernel distance of originals and reconstructions, EfficientNet-Lite0 features.",
    ),
)

_INCEPTION = (
    Metric(
        name="rfid",
        column_of=("reconstruction", "generation"),
        better="lower",
        scale="log2",
        features="inception",
        function="vitok_core.metrics._distances:frechet_distance",
        covariances=True,
        bounds=(0, None),
        about="Frechet distance of originals and reconstructions, Inception features.",
    ),
    Metric(
        name="rfid_infinity",
        better="lower",
        scale="log2",
        features="inception",
        needs=100,
        function="vitok_core.metrics._distances:frechet_infinity",
        covariances=True,
        tells_pairs=True,
        about="rfid extrapolated to infinitely many images: linear in 1/n over 15 sizes.",
    ),
    Metric(
        name="ris",
        column_of=("generation",),
        better="higher",
        scale="raw",
        features="inception",
        reference=False,
        needs=10,
        of_logits=True,
        function="vitok_core.metrics._distances:inception_score",
        rules={
            "splits": "inception_splits",
            "shuffled": "inception_shuffled",
            "seed": "inception_seed",
        },
        bounds=(1, None),
        about="Inception score of reconstructions; near the originals' own score at best.",
    ),
    Metric(
        name="rkid",
        better="lower",
        scale="raw",
        features="inception",
        function="vitok_core.metrics._distances:kernel_distance",
        rules={"subset": "kid_subset", "subsets": "kid_subsets", "seed": "kid_seed"},
        about="Kernel distance (squared MMD, cubic polynomial), Inception features; unbiased.",
    ),
    Metric(
        name="rprecision",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        function="vitok_core.metrics._neighbours:cover",
        part="precision",
        rules={"near": "precision_neighbours", "wide": "density_neighbours"},
        resampled=False,
        bounds=(0, 1),
        about="Share of reconstructions inside the originals' manifold of 3 nearest neighbours.",
    ),
    Metric(
        name="rrecall",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        function="vitok_core.metrics._neighbours:cover",
        part="recall",
        rules={"near": "precision_neighbours", "wide": "density_neighbours"},
        resampled=False,
        bounds=(0, 1),
        about="Share of originals inside the reconstructions' manifold of 3 nearest neighbours.",
    ),
    Metric(
        name="rdensity",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        function="vitok_core.metrics._neighbours:cover",
        part="density",
        rules={"near": "precision_neighbours", "wide": "density_neighbours"},
        resampled=False,
        bounds=(0, None),
        about="Mean number of originals' balls of 5 neighbours around a reconstruction, over 5.",
    ),
    Metric(
        name="rcoverage",
        better="higher",
        scale="raw",
        features="inception",
        needs=6,
        function="vitok_core.metrics._neighbours:cover",
        part="coverage",
        rules={"near": "precision_neighbours", "wide": "density_neighbours"},
        resampled=False,
        bounds=(0, 1),
        about="Share of originals with a reconstruction in their ball of 5 neighbours.",
    ),
)

_DINO = (
    Metric(
        name="rfdd",
        better="lower",
        scale="log2",
        features="dinov2",
        function="vitok_core.metrics._distances:frechet_distance",
        covariances=True,
        bounds=(0, None),
        about="Frechet distance of originals and reconstructions, DINOv2 ViT-L/14 features.",
    ),
    Metric(
        name="rmmd_dino",
        better="lower",
        scale="log2",
        features="dinov2",
        function="vitok_core.metrics._distances:gaussian_kernel_distance",
        bounds=(0, None),
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
        function="vitok_core.metrics._distances:gaussian_kernel_distance",
        bounds=(0, None),
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
        function="vitok_core.metrics._distances:frechet_distance",
        covariances=True,
        bounds=(0, None),
        about="Frechet distance of original and reconstructed clips, I3D logits (Kinetics-400).",
    ),
    Metric(
        name="rkvd",
        better="lower",
        scale="raw",
        features="i3d",
        function="vitok_core.metrics._distances:kernel_distance",
        rules={"subset": "kid_subset", "subsets": "kid_subsets", "seed": "kid_seed"},
        about="Kernel distance (cubic polynomial) of clips, I3D logits (Kinetics-400); unbiased.",
    ),
    Metric(
        name="rfvd_videomae",
        better="lower",
        scale="log2",
        features="videomae",
        function="vitok_core.metrics._distances:frechet_distance",
        covariances=True,
        bounds=(0, None),
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
        function="vitok_core.metrics._codes:kl",
        code=CodeNeeds(random=True),
        bounds=(0, None),
        about="KL of the posteriors to a unit Gaussian, mean over tokens and channels.",
    ),
    Metric(
        name="code_gaussianity",
        better="lower",
        scale="raw",
        unit="nat",
        of="codes",
        reference=False,
        function="vitok_core.metrics._codes:gaussianity_of",
        bounds=(0, None),
        about="KL of a Gaussian with a channel's mean and variance to a unit one, mean over "
        "channels: how far the codes as a whole are from what a generator starts from.",
    ),
    Metric(
        name="code_spectrum_slope",
        better="lower",
        scale="raw",
        of="codes",
        reference=False,
        function="vitok_core.metrics._codes:spectrum_of",
        code=CodeNeeds(grid=4, kept=True),
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
        function="vitok_core.metrics._codes:relative_error",
        code=CodeNeeds(grid=1, even=True, moved="vitok_core.evaluate._codes:Halved"),
        bounds=(0, None),
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
        function="vitok_core.metrics._codes:relative_error",
        code=CodeNeeds(grid=1, moved="vitok_core.evaluate._codes:Turned"),
        bounds=(0, None),
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
        function="vitok_core.metrics._codes:probe_of",
        code=CodeNeeds(kept=True),
        bounds=(0, 1),
        about="Accuracy of a linear probe (ridge) from the mean code to the label, on the tenth "
        "of the samples it was not fitted to, over ten folds.",
    ),
)


def _twin(name: str) -> str:
    """The name by which samples are measured as a metric of reconstructions measures those."""
    return f"g{name.removeprefix('r')}"


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
        name=_twin(metric.name),
        twin=metric.name,
        group="generation",
        # A metric that is explained by another one has that one's twin.
        about=_SAMPLES_ABOUT.get(metric.name, re.sub(r"\brf(id|d|vd)", r"gf\1", about)),
    )


_SAMPLES_ABOUT = {"ris": "Inception score of samples: sure of a class each, and all classes."}
"""What twins say where "samples" in the place of "reconstructions" is not enough."""

_SETS = (*_LITE0, *_INCEPTION, *_DINO, *_CLIP, *_VIDEO)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_PAIRS,
        *(replace(one, twin=_twin(one.name)) for one in _SETS),
        *_CODES,
        *(_of_samples(one) for one in _SETS),
    )
}
"""Every metric by name."""
