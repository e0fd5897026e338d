"""Under which rules is a number measured? Metrics and protocols by name; no torch here.

A metric says what is measured and how it is read (direction, scale for fits). A protocol says
everything else that changes the number: backbone and weights, resize, range, rounding. Both are
part of a result's identity and stored beside every value, because values of different protocols
must never meet in one fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is measured.

    Attributes:
        name: key in studies, results and columns.
        better: whether a lower or a higher value is the better one.
        scale: how fits see it: "log2" for ratio-scaled distances (FID and its kin, LPIPS), "raw"
            for decibels and bounded scores (fitting practice of the ViTok paper, figures 3 to 12).
        unit: unit of the value; empty for a pure number.
        features: backbone whose features the metric needs, or None.
        needs: smallest number of images that gives a value.
        smallest: smallest image side in pixels that gives a value.
        about: one sentence for people.
    """

    name: str
    better: Literal["lower", "higher"]
    scale: Literal["log2", "raw"]
    unit: str
    features: Literal["lite0", "alex"] | None
    needs: int
    smallest: int
    about: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="psnr",
            better="higher",
            scale="raw",
            unit="dB",
            features=None,
            needs=1,
            smallest=1,
            about="Peak signal-to-noise ratio on 8-bit images: range 255, mean over images.",
        ),
        Metric(
            name="ssim",
            better="higher",
            scale="raw",
            unit="",
            features=None,
            needs=1,
            smallest=11,
            about="Structural similarity: Gaussian 11x11 window, sigma 1.5, range 255, the mean.",
        ),
        Metric(
            name="lpips",
            better="lower",
            scale="log2",
            unit="",
            features="alex",
            needs=1,
            smallest=31,
            about="Learned perceptual distance, AlexNet trunk with the v0.1 heads, the mean.",
        ),
        Metric(
            name="rfd_lite0",
            better="lower",
            scale="log2",
            unit="",
            features="lite0",
            needs=2,
            smallest=1,
            about="Frechet distance of originals and reconstructions, EfficientNet-Lite0 features.",
        ),
        Metric(
            name="rkid_lite0",
            better="lower",
            scale="raw",
            unit="",
            features="lite0",
            needs=2,
            smallest=1,
            about="Kernel distance of originals and reconstructions, EfficientNet-Lite0 features.",
        ),
    )
}
"""Every metric by name. `rfid` is not among them: that name is kept for Inception features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Everything besides model and data that changes a metric's value.

    Attributes:
        name: key in studies and results.
        version: bumped whenever a rule below changes; part of the identity.
        backbone: feature network, "" when the protocol has none.
        weights_sha256: hash of the backbone's weights file; "" when there is none.
        resize: how images reach the backbone's input size.
        values: range and rounding of the images that are compared.
        perceptual: network and SHA-256 of the LPIPS trunk; "" when there is none.
        kid: number and size of the subsets of the kernel distance.
        about: one sentence for people.
    """

    name: str
    version: int
    backbone: str
    weights_sha256: str
    resize: str
    values: str
    perceptual: str
    kid: str
    about: str

    def record(self) -> dict[str, str | int]:
        """The protocol as plain data, for identities and for the ledger; prose left out."""
        fields = asdict(self)
        del fields["about"]
        return fields


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="lite0",
            version=1,
            backbone="efficientnet-lite0, 1280 pooled features",
            weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            resize="64 px, bilinear with antialias, align_corners false",
            values="reconstructions clamped to [-1, 1], rounded to uint8; both sides uint8",
            perceptual="lpips 0.1 alex, trunk "
            "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            kid="100 subsets of min(n, 256), seed 2020, cubic polynomial",
            about="Features small enough for CPUs; every pretrained part comes with pip.",
        ),
    )
}
"""Every protocol by name."""
