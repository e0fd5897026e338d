"""The files of a folder, in one order everywhere; links are followed, loops are not.

The order is that of the relative names as bytes, as if the whole list had been sorted, though only
one folder's names (and those of the folders above it) are in memory. What is not a sample is not
lost silently: it is reported by kind, with its name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitok_core.errors import DataError

HIDDEN, LITTER, OTHER, DANGLING, LOOP, SPECIAL = (
    "hidden",
    "left by an operating system or a tool",
    "not such a file by its ending",
    "link to nothing",
    "link into a loop",
    "no regular file",
)
"""Why something in a folder is not a sample."""

LITTER_NAMES = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
        *("$recycle.bin", "system volume information", "lost+found"),
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__pycache__"),
    }
)
"""Names, in lower case, of what archive programs, Windows, macOS and network disks leave behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file.

    Attributes:
        name: relative to the folder that was walked, with slashes.
        size_bytes: of the file.
        mtime_ns: when its content was last changed.
    """

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something in a folder that is not a sample.

    Attributes:
        name: relative to the folder that was walked.
        why: one of the six reasons of this module, or that of a kind of data set.
    """

    name: str
    why: str


def no_sample(name: str) -> str:
    """Why nothing of that name, a file's or a folder's, is a sample or a class; "" where it may be.

    Args:
        name: the last part of a path.
    """
    if name.startswith("."):
        return HIDDEN
    return LITTER if name.casefold() in LITTER_NAMES else ""


def legible(name: str) -> str:
    """A file name that every terminal can show: bytes that are not UTF-8 become \\udc.. escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def walk(folder: Path, endings: tuple[str, ...]) -> Iterator[Found | LeftOut]:
    """Every file with one of some endings, and what was left out, in the order of the names.

    Args:
        folder: where to begin.
        endings: without the dot, lower case; a file's may be in any case.

    Raises:
        DataError: the folder or one below it is missing or cannot be read.
    """
    yield from _walk(folder, "", tuple(f".{ending}" for ending in endings), ())


def subfolders(folder: Path) -> list[str]:
    """Names of the folders right in a folder, in byte order, without loops and `no_sample` names.

    Raises:
        DataError: it cannot be read.
    """
    here = _identity(folder)
    return [
        one.name
        for one in _entries(folder)
        if one.folder is not None and one.folder != here and not no_sample(one.name)
    ]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One name in a folder; `folder` is (device, inode) of a folder, `size` None of no file."""

    name: str
    folder: tuple[int, int] | None
    size: int | None
    mtime_ns: int
    why: str


def _walk(
    folder: Path, lead: str, endings: tuple[str, ...], above: tuple[tuple[int, int], ...]
) -> Iterator[Found | LeftOut]:
    above = (*above, _identity(folder))
    for one in _entries(folder):
        name = lead + one.name
        if why := no_sample(one.name):
            yield LeftOut(name=name, why=why)
        elif one.folder is not None and one.folder in above:
            yield LeftOut(name=name, why=LOOP)
        elif one.folder is not None:
            yield from _walk(folder / one.name, f"{name}/", endings, above)
        elif one.size is None:
            yield LeftOut(name=name, why=one.why)
        elif not name.lower().endswith(endings):
            yield LeftOut(name=name, why=OTHER)
        else:
            yield Found(name=name, size_bytes=one.size, mtime_ns=one.mtime_ns)


def _entries(folder: Path) -> list[_Entry]:
    try:
        with os.scandir(folder) as listing:
            entries = [_looked_at(entry) for entry in listing]
    except FileNotFoundError:
        raise DataError(f"{legible(str(folder))} does not exist") from None
    except NotADirectoryError:
        raise DataError(f"{legible(str(folder))} is not a folder") from None
    except OSError as error:
        raise DataError(f"{legible(str(folder))} cannot be read: {error.strerror}") from error
    # A folder sorts as its content will: "a.jpg" before "a/b.jpg", though "a" comes before both.
    entries.sort(key=lambda one: os.fsencode(one.name) + b"/" * (one.folder is not None))
    return entries


def _looked_at(entry: os.DirEntry[str]) -> _Entry:
    try:
        state = entry.stat()
    except OSError as error:
        if entry.is_symlink() and not isinstance(error, PermissionError):
            why = DANGLING if isinstance(error, FileNotFoundError) else LOOP
            return _Entry(entry.name, None, None, 0, why)
        raise DataError(f"{legible(entry.path)} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(state.st_mode):
        return _Entry(entry.name, (state.st_dev, state.st_ino), None, 0, "")
    if not stat.S_ISREG(state.st_mode):
        return _Entry(entry.name, None, None, 0, SPECIAL)
    return _Entry(entry.name, None, state.st_size, state.st_mtime_ns, "")


def _identity(folder: Path) -> tuple[int, int]:
    try:
        state = folder.stat()
    except FileNotFoundError:
        raise DataError(f"{legible(str(folder))} does not exist") from None
    except OSError as error:
        raise DataError(f"{legible(str(folder))} cannot be read: {error.strerror}") from error
    return (state.st_dev, state.st_ino)
