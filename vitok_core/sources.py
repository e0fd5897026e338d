"""Kinds of data sets that a user can bring, one record per kind; nothing is read here.

A kind is the key of the site file that says where such a data set is. A new one is a record here
and the class that reads it, see `vitok_core.data`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Crop = Literal["center", "random", "random-resized"]
"""Which square of a sample a training sees; those that are random need a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """One kind of data set.

    Attributes:
        name: key into `SOURCES` and key of the site file; stored in identities.
        recipe: version of everything that decides the pixels of its samples; part of the identity.
        format: version of the files and of the rules of a scan; what another one scanned is scanned
            again.
        opener: import path "module:name" of the class that reads it: called with an `OwnData`, it
            gives a `vitok_core.data.Units`.
        video: whether its samples are clips.
        on_a_hub: whether a place that does not begin like a path is the name of a repository.
        about: what the value of its key is, for people.
    """

    name: str
    recipe: int = 1
    format: int = 1
    opener: str
    video: bool = False
    on_a_hub: bool = False
    about: str


SOURCES: dict[str, SourceKind] = {
    source.name: source
    for source in (
        SourceKind(
            name="folder",
            opener="vitok_core.data._units:Files",
            about="folder of pictures; the first sub-folder is the class",
        ),
        SourceKind(
            name="videos",
            recipe=2,  # alpha is put on white, where 1 showed what lies under it
            opener="vitok_core.data._units:Files",
            video=True,
            about="folder of videos; the first sub-folder is the class",
        ),
        SourceKind(
            name="webdataset",
            format=2,  # labels of shards are found by key
            opener="vitok_core.data._units:Shards",
            about="tar files, for example /data/shards-{000..127}.tar; * and ? are understood too",
        ),
        SourceKind(
            name="huggingface",
            opener="vitok_core.data._units:Rows",
            on_a_hub=True,
            about="a folder that `save_to_disk` wrote, beginning with / or ./ or ~, or the name of "
            "a repository",
        ),
    )
}
"""Every kind of data set by name."""
