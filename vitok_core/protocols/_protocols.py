"""Protocols: the rules besides model and data that change a measured number, as typed fields.

A record of a protocol is part of a task's identity, so that a changed rule is another task and
another value. It holds what the program reads and no prose: the name, the version, the fields that
the task's metrics read and the networks they look through. A field that no metric of a task reads
changes none of its numbers and is not in its record.

The first records were prose. They are kept in `_first.py` with the fields they stood for, and are
still the identity of every task whose fields are those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from vitok_core.errors import SpecError
from vitok_core.protocols._first import first_record
from vitok_core.protocols._metrics import METRICS
from vitok_core.protocols.backbones import BACKBONES, FILES, Backbone, Packaged

RECORD = 2
"""Version of the records that this module writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Everything besides model and data that changes a metric's value.

    Attributes:
        name: key in studies and results.
        version: bumped where code changes a number and no field below does.
        network: the main network, key into `BACKBONES`; its features are those of metrics that
            name no other.
        only_packaged: whether metrics may look through networks only whose files pip ships.
        rounding: how reconstructions and samples become bytes.
        ssim_border: which windows count.
        psnr_over: what the squared error is averaged over before the logarithm.
        frames_apart: whether distributions of clips are compared frame index by frame index, and
            the values averaged, instead of pooling all frames.
        inception_splits: parts of the Inception score; a size of parts when negative.
        inception_shuffled: whether samples are shuffled before they are split.
        inception_seed: of that shuffle.
        inception_bias: whether the classifier's bias is added.
        kid_subsets: number of subsets of the kernel distance.
        kid_subset: largest size of one of them.
        kid_seed: of their draw.
        precision_neighbours: neighbours that a ball of precision and recall reaches to.
        density_neighbours: neighbours that a ball of density and coverage reaches to.
        differs: where it differs from the code it is named after, for people.
        about: one sentence for people.
    """

    name: str
    version: int = 1
    network: str
    only_packaged: bool = False
    rounding: Literal["nearest", "half-up", "truncate"] = "nearest"
    ssim_border: Literal["mirrored", "inside"] = "mirrored"
    psnr_over: Literal["image", "all"] = "image"
    frames_apart: bool = False
    inception_splits: int = 10
    inception_shuffled: bool = False
    inception_seed: int = 2020
    inception_bias: bool = False
    kid_subsets: int = 100
    kid_subset: int = 1000
    kid_seed: int = 2020
    precision_neighbours: int = 3
    density_neighbours: int = 5
    differs: str = ""
    about: str

    @property
    def features(self) -> str:
        """The features of the main network, as metrics name them."""
        return BACKBONES[self.network].features

    def backbone(self, features: str) -> Backbone | None:
        """The network behind some features under this protocol, or None if it has no rule."""
        if features == self.features:
            return BACKBONES[self.network]
        found = [one for one in BACKBONES.values() if one.features == features]
        # Of several networks with these features a protocol would have to name one.
        if len(found) != 1 or found[0].main:
            return None
        shipped = all(isinstance(FILES[name], Packaged) for name in found[0].weights)
        return found[0] if shipped or not self.only_packaged else None

    def record(self, metrics: Iterable[str] = (), features: Iterable[str] = ()) -> dict[str, Any]:
        """What decides the numbers of a task as plain data, for identities and for the ledger.

        Args:
            metrics: what the task measures, keys into `METRICS`.
            features: what it extracts besides, as metrics name them.

        Raises:
            SpecError: features that the protocol has no rule for.
        """
        used = [METRICS[name] for name in metrics]
        networks = {}
        for name in sorted({*features, *(one.features for one in used if one.features)}):
            backbone = self.backbone(name)
            if backbone is None:
                raise SpecError("protocol", f"protocol {self.name} has no rule for {name}")
            networks[name] = backbone.record()
        record = {
            "record": RECORD,
            "name": self.name,
            "version": self.version,
            **{name: getattr(self, name) for name in sorted({n for m in used for n in m.reads})},
            "backbones": networks,
        }
        return first_record(record) or record


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="lite0",
            network="lite0",
            only_packaged=True,
            kid_subset=256,
            about="Features small enough for CPUs; every pretrained part comes with pip. Clips are "
            "judged frame by frame: per-image metrics averaged within a clip, then over clips; "
            "features of the frames of all clips pooled.",
        ),
        Protocol(
            name="torch-fidelity",
            network="inception-tf1",
            ssim_border="inside",
            inception_shuffled=True,
            about="The numbers of the library torch-fidelity 0.4, and of the FID of torchmetrics "
            "without its antialias; what most tokenizer papers report as rFID.",
        ),
        Protocol(
            name="adm",
            network="inception-tf1",
            rounding="half-up",
            ssim_border="inside",
            inception_splits=-5000,
            differs="precision and recall on all samples in float32, where ADM's script has "
            "float16 and 10,000 reference images",
            about="The evaluation suite of Dhariwal and Nichol 2021, which DiT and most diffusion "
            "papers use.",
        ),
        Protocol(
            name="clean",
            network="inception-bicubic",
            ssim_border="inside",
            inception_shuffled=True,
            about="The resize of clean-fid (Parmar et al. 2022), which does not alias when images "
            "are larger than 299 px.",
        ),
        Protocol(
            name="vitok",
            network="inception-torchvision",
            rounding="truncate",
            psnr_over="all",
            frames_apart=True,
            inception_splits=1,
            inception_bias=True,
            differs="the authors pool squared errors over the batch of a device and take the range "
            "from the data; here over all samples, range 255",
            about="The first PyTorch code of ViTok's authors. Its numbers are on no other scale: "
            "another Inception, and PSNR of the pooled error, which lies below the mean of PSNRs.",
        ),
    )
}
"""Every protocol by name."""

_SAID: dict[str, dict[Any, str] | str] = {
    "rounding": {
        "nearest": "nearest: clamped to [-1, 1], 127.5 x + 127.5 rounded to uint8",
        "half-up": "half-up: clamped to [-1, 1], 127.5 x + 128 truncated to uint8 and clipped",
        "truncate": "truncate: clamped to [-1, 1], 127.5 x + 127.5 truncated to uint8",
    },
    "ssim_border": {
        "mirrored": "mirrored: a window per pixel, the image mirrored beyond its border",
        "inside": "inside: windows inside the image",
    },
    "psnr_over": {
        "image": "image: PSNR of each image's squared error, floor 1e-10 of the squared range",
        "all": "all: PSNR of the squared error pooled over all images",
    },
    "frames_apart": {
        False: "false: features of all frames of all clips pooled",
        True: "true: distributions compared frame index by frame index, and the values averaged",
    },
    "inception_splits": "parts of the Inception score; a size of parts when negative",
    "inception_shuffled": "whether samples are shuffled before they are split",
    "inception_seed": "seed of that shuffle",
    "inception_bias": "whether the classifier's bias is added to the logits",
    "kid_subsets": "number of subsets of the kernel distance (cubic polynomial)",
    "kid_subset": "largest size of such a subset",
    "kid_seed": "seed of their draw",
    "precision_neighbours": "neighbors of precision and recall, Euclidean",
    "density_neighbours": "neighbors of density and coverage, Euclidean",
}


def explained(protocol: str) -> list[tuple[str, str, str, bool]]:
    """A protocol for people: name, value and meaning of every rule, and then of every network.

    Returns:
        (rule, value, meaning, False), and (features, network, what it is, True).

    Raises:
        KeyError: there is no such protocol.
    """
    one = PROTOCOLS[protocol]
    rows = [("version", str(one.version), "bumped when code changes a number", False)]
    for rule, said in _SAID.items():
        value = getattr(one, rule)
        meaning = said if isinstance(said, str) else said[value]
        rows.append((rule, str(value).lower(), meaning, False))
    asked = sorted({metric.features for metric in METRICS.values() if metric.features})
    for features in (one.features, *(name for name in asked if name != one.features)):
        if backbone := one.backbone(features):
            size = "" if backbone.size is None else f"; {backbone.size} px, {backbone.resize}"
            rows.append((features, backbone.name, f"{backbone.about}{size}", True))
    return rows
