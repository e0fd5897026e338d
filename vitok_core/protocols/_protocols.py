"""Under which rules is a number measured? One frozen record for each set of rules in use.

A record is part of a task's identity, so that a changed rule is another task and another value. It
is written into the ledger as it stands here. Rules that a protocol has nothing to say about are
left out of its record; rules added to this class later must keep "" as their default, or results
that people have would lose their identity.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Literal

Network = Literal["lite0", "inception-tf1", "inception-bicubic", "inception-torchvision"]
"""A backbone together with how images reach its input size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Everything besides model and data that changes a metric's value.

    Attributes:
        name: key in studies and results.
        version: bumped whenever a rule below changes; part of the identity.
        network: what computes the features, see `Network`; said by backbone and resize below.
        rounding: how reconstructions become bytes; said by `values` below.
        ssim_border: which windows count; said by `ssim` below.
        psnr_over: what the squared error is averaged over before the logarithm; said by `psnr`.
        frames_apart: whether distributions of clips are compared frame index by frame index, and
            the values averaged, instead of pooling all frames; said by `frames` below.
        inception_splits: parts of the Inception score; a size of parts when negative.
        inception_shuffled: whether samples are shuffled before they are split.
        inception_bias: whether the classifier's bias is added.
        kid_subset: largest size of a subset of the kernel distance.
        backbone: feature network.
        weights_sha256: hash of the backbone's weights file.
        resize: how images reach the backbone's input size.
        values: range and rounding of the images that are compared.
        perceptual: network and SHA-256 of the LPIPS trunk.
        kid: number and size of the subsets of the kernel distance.
        psnr: pooling of the squared error and range.
        ssim: window, range and border.
        inception_score: classifier, splits and order of the Inception score.
        neighbours: neighbours and distances of precision, recall, density and coverage.
        frames: how frames of clips are judged.
        reference: what reconstructions are compared with.
        dino: further backbone for the metrics that name DINOv2.
        video: further backbone for the metrics that name clips.
        clip: further backbone for the metrics that name CLIP.
        videomae: further backbone for the metrics that name VideoMAE.
        differs: where it differs from the code it is named after.
        library: library that computes a part, with the versions it was checked against.
        about: one sentence for people.
    """

    name: str
    version: int
    network: Network
    rounding: Literal["nearest", "half-up", "truncate"] = "nearest"
    ssim_border: Literal["mirrored", "inside"] = "mirrored"
    psnr_over: Literal["image", "all"] = "image"
    frames_apart: bool = False
    inception_splits: int = 10
    inception_shuffled: bool = False
    inception_bias: bool = False
    kid_subset: int = 1000
    backbone: str
    weights_sha256: str
    resize: str
    values: str
    perceptual: str
    kid: str
    psnr: str = ""
    ssim: str = ""
    inception_score: str = ""
    neighbours: str = ""
    frames: str = ""
    reference: str = ""
    dino: str = ""
    video: str = ""
    clip: str = ""
    videomae: str = ""
    differs: str = ""
    library: str = ""
    about: str

    @property
    def features(self) -> Literal["lite0", "inception"]:
        """The backbone as metrics name it, see `vitok_core.protocols.Metric.features`."""
        return "lite0" if self.network == "lite0" else "inception"

    def record(self, backbones: Collection[str] = ()) -> dict[str, str | int]:
        """The protocol as plain data, for identities and for the ledger; prose left out.

        Args:
            backbones: those that a task looks through; a rule of `LATER_BACKBONES` that no value
                depends on is left out, so that giving the tool one more moves no identity.
        """
        unused = {name for name in LATER_BACKBONES if name not in backbones}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in _SAID_IN_WORDS and name not in unused and value != ""
        }


LATER_BACKBONES = ("clip", "videomae")
"""Further backbones that came after results existed; in the record of what uses them alone."""

_SAID_IN_WORDS = {
    "network", "rounding", "ssim_border", "psnr_over", "frames_apart", "inception_splits",
    "inception_shuffled", "inception_bias", "kid_subset", "about",
}  # fmt: skip
"""Fields that the program reads and the record says in words, and prose."""

_ALEX = "lpips 0.1 alex, trunk 443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
_FID_INCEPTION = "Inception-v3 of the TensorFlow graph 2015-12-05, 2048 pooled features"
_FID_INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_VALUES = "clamped to [-1, 1], to uint8 by 127.5 x + 127.5"
_SSIM = "Gaussian 11x11 window, sigma 1.5, k 0.01 and 0.03, range 255"
_PER_IMAGE = "mean squared error per image, floor 1e-10 of the squared range, range 255"
_NEIGHBOURS = "precision and recall 3, density and coverage 5, Euclidean"
_PAIRED = "the originals of the same samples, in 8 bits"
_POOLED = "per-image scores averaged within a clip; features of all frames of all clips pooled"
_DINO = (
    "DINOv2 ViT-L/14, class token of 1024, 224 px bicubic with antialias, mean and deviation of "
    "ImageNet, weights d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"
)
_VIDEO = (
    "I3D of StyleGAN-V, 400 logits, 224 px trilinear without antialias, [-1, 1], weights "
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"
)
_CLIP = (
    "CLIP ViT-L/14 of OpenAI, projected embedding of 768, 336 px bicubic with antialias, CLIP's "
    "mean and deviation, weights 3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
)
_VIDEOMAE = (
    "VideoMAE v2 ViT-g/14 fine-tuned on Something-Something v2, 1408 normed mean features before "
    "the head, first 16 frames, 224 px bilinear without antialias, [0, 1]; no hash is published: "
    "the weights are those that were added first"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="lite0",
            version=1,
            network="lite0",
            kid_subset=256,
            backbone="efficientnet-lite0, 1280 pooled features",
            weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            resize="64 px, bilinear with antialias, align_corners false",
            values="reconstructions clamped to [-1, 1], rounded to uint8; both sides uint8",
            perceptual=_ALEX,
            kid="100 subsets of min(n, 256), seed 2020, cubic polynomial",
            about="Features small enough for CPUs; every pretrained part comes with pip. Clips are "
            "judged frame by frame: per-image metrics averaged within a clip, then over clips; "
            "features of the frames of all clips pooled.",
        ),
        Protocol(
            name="torch-fidelity",
            version=1,
            network="inception-tf1",
            ssim_border="inside",
            inception_shuffled=True,
            backbone=_FID_INCEPTION,
            weights_sha256=_FID_INCEPTION_SHA256,
            resize="299 px, bilinear as in TensorFlow 1, no antialias",
            values=f"reconstructions {_VALUES}, rounded to nearest; both sides uint8",
            perceptual=_ALEX,
            kid="100 subsets of min(n, 1000), seed 2020, cubic polynomial",
            psnr=_PER_IMAGE,
            ssim=f"{_SSIM}, windows inside the image",
            inception_score="1008 logits without bias, 10 splits after shuffling by seed 2020",
            neighbours=_NEIGHBOURS,
            frames=_POOLED,
            reference=_PAIRED,
            dino=_DINO,
            video=_VIDEO,
            clip=_CLIP,
            videomae=_VIDEOMAE,
            library="resize of torch-fidelity 0.4",
            about="The numbers of the library torch-fidelity, and of the FID of torchmetrics "
            "without its antialias; what most tokenizer papers report as rFID.",
        ),
        Protocol(
            name="adm",
            version=1,
            network="inception-tf1",
            rounding="half-up",
            ssim_border="inside",
            inception_splits=-5000,
            backbone=_FID_INCEPTION,
            weights_sha256=_FID_INCEPTION_SHA256,
            resize="299 px, bilinear as in TensorFlow 1, no antialias",
            values="reconstructions clamped to [-1, 1], to uint8 by 127.5 x + 128, truncated and "
            "clipped; both sides uint8",
            perceptual=_ALEX,
            kid="100 subsets of min(n, 1000), seed 2020, cubic polynomial",
            psnr=_PER_IMAGE,
            ssim=f"{_SSIM}, windows inside the image",
            inception_score="1008 logits without bias, splits of 5000 in the order of the samples",
            neighbours=_NEIGHBOURS,
            frames=_POOLED,
            reference=_PAIRED,
            dino=_DINO,
            video=_VIDEO,
            clip=_CLIP,
            videomae=_VIDEOMAE,
            differs="precision and recall on all samples in float32, where ADM's script has "
            "float16 and 10,000 reference images",
            library="resize of torch-fidelity 0.4",
            about="The evaluation suite of Dhariwal and Nichol 2021, which DiT and most diffusion "
            "papers use.",
        ),
        Protocol(
            name="clean",
            version=1,
            network="inception-bicubic",
            ssim_border="inside",
            inception_shuffled=True,
            backbone=_FID_INCEPTION,
            weights_sha256=_FID_INCEPTION_SHA256,
            resize="299 px, bicubic (a = -0.5) with antialias, in float32, neither clipped nor "
            "rounded",
            values=f"reconstructions {_VALUES}, rounded to nearest; both sides uint8",
            perceptual=_ALEX,
            kid="100 subsets of min(n, 1000), seed 2020, cubic polynomial",
            psnr=_PER_IMAGE,
            ssim=f"{_SSIM}, windows inside the image",
            inception_score="1008 logits without bias, 10 splits after shuffling by seed 2020",
            neighbours=_NEIGHBOURS,
            frames=_POOLED,
            reference=_PAIRED,
            dino=_DINO,
            video=_VIDEO,
            clip=_CLIP,
            videomae=_VIDEOMAE,
            about="The resize of clean-fid (Parmar et al. 2022), which does not alias when images "
            "are larger than 299 px.",
        ),
        Protocol(
            name="vitok",
            version=1,
            network="inception-torchvision",
            rounding="truncate",
            psnr_over="all",
            frames_apart=True,
            inception_splits=1,
            inception_bias=True,
            backbone="torchvision Inception-v3 IMAGENET1K_V1, 2048 pooled features",
            weights_sha256="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
            resize="299 px, bilinear, align_corners true, no antialias",
            values="reconstructions clamped to [-1, 1], to uint8 by 127.5 x + 127.5, truncated; "
            "both sides uint8",
            perceptual=_ALEX,
            kid="100 subsets of min(n, 1000), seed 2020, cubic polynomial",
            psnr="mean squared error pooled over all images, range 255",
            ssim=f"{_SSIM}, mirrored beyond the border",
            inception_score="1000 logits with bias, one split",
            neighbours=_NEIGHBOURS,
            frames="per-image scores averaged within a clip; distributions compared frame index by "
            "frame index and averaged",
            reference=_PAIRED,
            dino=_DINO,
            video=_VIDEO,
            clip=_CLIP,
            videomae=_VIDEOMAE,
            differs="the authors pool squared errors over the batch of a device and take the range "
            "from the data; here over all samples, range 255",
            about="The first PyTorch code of ViTok's authors. Its numbers are on no other scale: "
            "another Inception, and PSNR of the pooled error, which lies below the mean of PSNRs.",
        ),
    )
}
"""Every protocol by name."""
