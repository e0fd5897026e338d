"""User-defined data sets: their names, places and settings; no file is read.

A user-defined data set is a name and a place of one of the kinds in `vitok_core.sources`. The place
is this machine's business; what the data set is to a study follows from its content (`_scan`).
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Literal

from vitok_core.errors import DataError
from vitok_core.sources import SOURCES

Fit = Literal["adm", "center"]

FITS: tuple[Fit, ...] = ("adm", "center")
"""How a picture becomes a square, see `_pixels`."""

IDENTIFIED: dict[Fit, str] = {"adm": "adm", "center": "centre"}
"""How identities spell them: as the first version did, so that prepared data stays valid."""

ORDER = 1
"""Version of the order in which samples, and the clips of a video, are taken."""

BROKEN_SHARE = 0.01
"""Share of broken files that is skipped and listed; more is an error, unless one allows it."""

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
COMMIT = re.compile(r"[0-9a-f]{40}")
PICTURE_ENDINGS = (
    *("avif", "bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm"),
    *("tif", "tiff", "webp"),
)
"""Endings that make a file a picture, in any case of letters."""

VIDEO_ENDINGS = (
    *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts"),
    *("webm", "wmv"),
)
"""Endings that make a file a video, in any case of letters."""

_BRACES = re.compile(r"\{([^{}]*)\}")
MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnData:
    """A user-defined data set: where it is and how it is to be read.

    Attributes:
        name: as studies call it: lower case, digits, dot, dash, underscore; at most 64.
        kind: what `place` is, key into `SOURCES`.
        place: a folder; for webdataset a pattern of tar files, with {000..127} and * and ?; for
            huggingface a folder that `save_to_disk` wrote, or the name of a repository.
        crop: how a picture becomes a square: "adm" (halved by box averages, bicubic, cropped), or
            "center" (short side to the resolution, bilinear, cropped).
        labels: whether the first sub-folder (for webdataset the .cls file, for huggingface the
            label column) is the class; without, every label is 0.
        broken_share: share of the files, 0 to 1, that may be broken; those are skipped and listed.
        split: of a Hugging Face data set, else None.
        revision: commit of a Hugging Face repository, 40 hex digits, else None.
        picture_column: of a Hugging Face data set.
        label_column: of a Hugging Face data set.
    """

    name: str
    kind: str
    place: str
    crop: Fit = "adm"
    labels: bool = True
    broken_share: float = BROKEN_SHARE
    split: str | None = None
    revision: str | None = None
    picture_column: str = "image"
    label_column: str = "label"

    @property
    def video(self) -> bool:
        """Whether it has clips."""
        return SOURCES[self.kind].video

    @property
    def on_the_hub(self) -> bool:
        """Whether the place is a repository of a hub, not a folder."""
        return SOURCES[self.kind].on_a_hub and not self.place.startswith(("/", ".", "~"))

    def check(self) -> OwnData:
        """Itself, when it says something that can be read.

        Raises:
            DataError: it does not.
        """
        _check(self)
        return self

    def reading(self) -> dict[str, object]:
        """What a scan of it depends on, as plain data; another crop needs no other scan."""
        return {
            "kind": self.kind,
            "place": self.place,
            "labels": self.labels,
            "broken_share": self.broken_share,
            "split": self.split,
            "revision": self.revision,
            "picture_column": self.picture_column,
            "label_column": self.label_column,
        }


def _check(own: OwnData) -> None:
    name = own.name
    if not NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be the name of a data set; lower-case letters, digits, dots, dashes "
            "and underscores can, at most 64"
        )
    for what, given, allowed in (("kind", own.kind, tuple(SOURCES)), ("crop", own.crop, FITS)):
        if given not in allowed:
            raise DataError(f"{name}: {what} = {given!r}; there are {', '.join(allowed)}")
    if not own.place.strip() or "\0" in own.place:
        raise DataError(f"{name}: no place is given; name a folder, or a pattern of tar files")
    hub = SOURCES[own.kind].on_a_hub
    if not hub and re.match(r"[a-z0-9+.-]+://|pipe:", own.place):
        raise DataError(
            f"{name}: {own.place} is an address, and only local files are read; copy or mount it"
        )
    if not 0 <= own.broken_share <= 1 or math.isnan(own.broken_share):
        raise DataError(f"{name}: broken = {own.broken_share}; a share from 0 to 1 is needed")
    if not hub and (own.split is not None or own.revision is not None):
        raise DataError(f"{name}: split and revision are about huggingface; leave them out")
    if own.on_the_hub and not COMMIT.fullmatch(own.revision or ""):
        raise DataError(
            f"{name}: the repository {own.place} can change, so its commit is needed: give "
            f"revision as 40 hex digits, not {own.revision!r} (a local folder begins with / or ./)"
        )
    if hub and not own.on_the_hub and own.revision is not None:
        raise DataError(f"{name}: {own.place} is a folder and has no revision; leave it out")
    if own.on_the_hub and own.split is None:
        raise DataError(f"{name}: give split, for example train")


def expand_braces(pattern: str) -> list[str]:
    """Every text that a pattern with {a,b} and {000..127} stands for, in order.

    Numbers keep the zeros they are written with. Braces cannot be nested.

    Raises:
        DataError: a range runs backwards, is not of whole numbers, or there are over a million.
    """
    parts, end = [], 0
    for match in _BRACES.finditer(pattern):
        parts += [[pattern[end : match.start()]], _choices(match[1], pattern)]
        end = match.end()
    parts.append([pattern[end:]])
    if math.prod(len(part) for part in parts) > MOST_SHARDS:
        raise DataError(f"{pattern} stands for over {MOST_SHARDS:,} files")
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def _choices(inside: str, pattern: str) -> list[str]:
    if ".." not in inside:
        return inside.split(",")
    first, _, last = inside.partition("..")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise DataError(f"{pattern}: {{{inside}}} is not a range; write one like {{000..127}}")
    if int(last) - int(first) >= MOST_SHARDS:
        raise DataError(f"{pattern} stands for over {MOST_SHARDS:,} files")
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
