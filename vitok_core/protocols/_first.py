"""Protocols as the first results were recorded under them: frozen data, never to be edited.

Until record version 2 a protocol's record was prose, without the fields that the program reads.
Those records are in the fingerprints of people's results. Each is kept here word for word, next to
the typed fields it stood for: while a task's fields are exactly those, the old record is still its
identity, and nothing is computed twice. A rule that `Protocol` gets later is added to `rules` here,
with the value that it always had.
"""

# ruff: noqa: E501  # word for word

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """A protocol at record version 1.

    Attributes:
        record: the record, word for word.
        rules: every typed field that it stood for.
        networks: features -> the record of the network behind them.
    """

    record: Mapping[str, str | int]
    rules: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Any]]


_LATER = ("clip", "videomae")
"""Networks that came when results existed: only the records of tasks that use them name them."""


def first_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of version 1 that stood for the same fields as one of version 2, or None."""
    first = _FIRST.get(record["name"])
    if first is None:
        return None
    networks = record["backbones"]
    rules = {name: record[name] for name in record if name not in ("record", "name", "backbones")}
    same = all(first.rules.get(name) == value for name, value in rules.items()) and all(
        first.networks.get(name) == value for name, value in networks.items()
    )
    if not same:
        return None
    unused = {name for name in _LATER if name not in networks}
    return {name: value for name, value in first.record.items() if name not in unused}


_NETWORKS: dict[str, dict[str, Any]] = {
    "alex": {
        "name": "alex",
        "width": 0,
        "sees": "pairs",
        "size": None,
        "resize": None,
        "weights": {
            "lpips-alex-trunk": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            "lpips-alex-heads": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        },
    },
    "lite0": {
        "name": "lite0",
        "width": 1280,
        "sees": "images",
        "size": 64,
        "resize": "bilinear-antialias",
        "weights": {"lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
    },
    "inception-tf1": {
        "name": "inception-tf1",
        "width": 2048,
        "sees": "images",
        "size": 299,
        "resize": "bilinear-tf1",
        "weights": {
            "inception-fid": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
        },
    },
    "inception-bicubic": {
        "name": "inception-bicubic",
        "width": 2048,
        "sees": "images",
        "size": 299,
        "resize": "bicubic-antialias",
        "weights": {
            "inception-fid": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
        },
    },
    "inception-torchvision": {
        "name": "inception-torchvision",
        "width": 2048,
        "sees": "images",
        "size": 299,
        "resize": "bilinear-corners",
        "weights": {
            "inception-torchvision": "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef"
        },
    },
    "dinov2": {
        "name": "dinov2",
        "width": 1024,
        "sees": "images",
        "size": 224,
        "resize": "bicubic-antialias",
        "weights": {
            "dinov2-l14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
        },
    },
    "i3d": {
        "name": "i3d",
        "width": 400,
        "sees": "clips",
        "size": 224,
        "resize": "trilinear",
        "weights": {"i3d": "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"},
    },
    "clip": {
        "name": "clip",
        "width": 768,
        "sees": "images",
        "size": 336,
        "resize": "bicubic-antialias",
        "weights": {
            "clip-l14-336": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
        },
    },
    "videomae": {
        "name": "videomae",
        "width": 1408,
        "sees": "clips",
        "size": 224,
        "resize": "bilinear",
        "weights": {"videomae-g-ssv2": ""},
    },
}

_FURTHER = {name: _NETWORKS[name] for name in ("alex", "dinov2", "i3d", "clip", "videomae")}

_RULES = {
    "version": 1,
    "rounding": "nearest",
    "ssim_border": "mirrored",
    "psnr_over": "image",
    "frames_apart": False,
    "inception_splits": 10,
    "inception_shuffled": False,
    "inception_seed": 2020,
    "inception_bias": False,
    "kid_subsets": 100,
    "kid_subset": 1000,
    "kid_seed": 2020,
    "precision_neighbours": 3,
    "density_neighbours": 5,
}

_SHARED: dict[str, str | int] = {
    "perceptual": "lpips 0.1 alex, trunk 443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "kid": "100 subsets of min(n, 1000), seed 2020, cubic polynomial",
    "neighbours": "precision and recall 3, density and coverage 5, Euclidean",
    "reference": "the originals of the same samples, in 8 bits",
    "dino": "DINOv2 ViT-L/14, class token of 1024, 224 px bicubic with antialias, mean and deviation of ImageNet, weights d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "video": "I3D of StyleGAN-V, 400 logits, 224 px trilinear without antialias, [-1, 1], weights bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    "clip": "CLIP ViT-L/14 of OpenAI, projected embedding of 768, 336 px bicubic with antialias, CLIP's mean and deviation, weights 3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    "videomae": "VideoMAE v2 ViT-g/14 fine-tuned on Something-Something v2, 1408 normed mean features before the head, first 16 frames, 224 px bilinear without antialias, [0, 1]; no hash is published: the weights are those that were added first",
}

_FIRST: dict[str, _First] = {
    "lite0": _First(
        record={
            "name": "lite0",
            "version": 1,
            "backbone": "efficientnet-lite0, 1280 pooled features",
            "weights_sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "resize": "64 px, bilinear with antialias, align_corners false",
            "values": "reconstructions clamped to [-1, 1], rounded to uint8; both sides uint8",
            "perceptual": "lpips 0.1 alex, trunk 443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            "kid": "100 subsets of min(n, 256), seed 2020, cubic polynomial",
        },
        rules={**_RULES, "kid_subset": 256},
        networks={"lite0": _NETWORKS["lite0"], "alex": _NETWORKS["alex"]},
    ),
    "torch-fidelity": _First(
        record={
            **_SHARED,
            "name": "torch-fidelity",
            "version": 1,
            "backbone": "Inception-v3 of the TensorFlow graph 2015-12-05, 2048 pooled features",
            "weights_sha256": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "resize": "299 px, bilinear as in TensorFlow 1, no antialias",
            "values": "reconstructions clamped to [-1, 1], to uint8 by 127.5 x + 127.5, rounded to nearest; both sides uint8",
            "psnr": "mean squared error per image, floor 1e-10 of the squared range, range 255",
            "ssim": "Gaussian 11x11 window, sigma 1.5, k 0.01 and 0.03, range 255, windows inside the image",
            "inception_score": "1008 logits without bias, 10 splits after shuffling by seed 2020",
            "frames": "per-image scores averaged within a clip; features of all frames of all clips pooled",
            "library": "resize of torch-fidelity 0.4",
        },
        rules={**_RULES, "ssim_border": "inside", "inception_shuffled": True},
        networks={"inception": _NETWORKS["inception-tf1"], **_FURTHER},
    ),
    "adm": _First(
        record={
            **_SHARED,
            "name": "adm",
            "version": 1,
            "backbone": "Inception-v3 of the TensorFlow graph 2015-12-05, 2048 pooled features",
            "weights_sha256": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "resize": "299 px, bilinear as in TensorFlow 1, no antialias",
            "values": "reconstructions clamped to [-1, 1], to uint8 by 127.5 x + 128, truncated and clipped; both sides uint8",
            "psnr": "mean squared error per image, floor 1e-10 of the squared range, range 255",
            "ssim": "Gaussian 11x11 window, sigma 1.5, k 0.01 and 0.03, range 255, windows inside the image",
            "inception_score": "1008 logits without bias, splits of 5000 in the order of the samples",
            "frames": "per-image scores averaged within a clip; features of all frames of all clips pooled",
            "differs": "precision and recall on all samples in float32, where ADM's script has float16 and 10,000 reference images",
            "library": "resize of torch-fidelity 0.4",
        },
        rules={**_RULES, "rounding": "half-up", "ssim_border": "inside", "inception_splits": -5000},
        networks={"inception": _NETWORKS["inception-tf1"], **_FURTHER},
    ),
    "clean": _First(
        record={
            **_SHARED,
            "name": "clean",
            "version": 1,
            "backbone": "Inception-v3 of the TensorFlow graph 2015-12-05, 2048 pooled features",
            "weights_sha256": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "resize": "299 px, bicubic (a = -0.5) with antialias, in float32, neither clipped nor rounded",
            "values": "reconstructions clamped to [-1, 1], to uint8 by 127.5 x + 127.5, rounded to nearest; both sides uint8",
            "psnr": "mean squared error per image, floor 1e-10 of the squared range, range 255",
            "ssim": "Gaussian 11x11 window, sigma 1.5, k 0.01 and 0.03, range 255, windows inside the image",
            "inception_score": "1008 logits without bias, 10 splits after shuffling by seed 2020",
            "frames": "per-image scores averaged within a clip; features of all frames of all clips pooled",
        },
        rules={**_RULES, "ssim_border": "inside", "inception_shuffled": True},
        networks={"inception": _NETWORKS["inception-bicubic"], **_FURTHER},
    ),
    "vitok": _First(
        record={
            **_SHARED,
            "name": "vitok",
            "version": 1,
            "backbone": "torchvision Inception-v3 IMAGENET1K_V1, 2048 pooled features",
            "weights_sha256": "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
            "resize": "299 px, bilinear, align_corners true, no antialias",
            "values": "reconstructions clamped to [-1, 1], to uint8 by 127.5 x + 127.5, truncated; both sides uint8",
            "psnr": "mean squared error pooled over all images, range 255",
            "ssim": "Gaussian 11x11 window, sigma 1.5, k 0.01 and 0.03, range 255, mirrored beyond the border",
            "inception_score": "1000 logits with bias, one split",
            "frames": "per-image scores averaged within a clip; distributions compared frame index by frame index and averaged",
            "differs": "the authors pool squared errors over the batch of a device and take the range from the data; here over all samples, range 255",
        },
        rules={
            **_RULES,
            "rounding": "truncate",
            "psnr_over": "all",
            "frames_apart": True,
            "inception_splits": 1,
            "inception_bias": True,
        },
        networks={"inception": _NETWORKS["inception-torchvision"], **_FURTHER},
    ),
}
