"""Units of a user-defined data set, which are hashed whole, and the samples in them.

A unit is what a change can be seen of without reading it: a picture or video file, a shard, a block
of rows. A scan asks for the units in order and indexes those it does not know yet; whoever wants a
sample later reads it from its unit by position. Each kind of data set is a class like `Units`.

Shards are read with tarfile of the standard library and not with the webdataset package: exact
resume and random access need the place of each picture in its shard, which that package does not
tell, and it would unpickle what a shard contains.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
import pkgutil
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

from vitok_core.data._own import PICTURE_ENDINGS, VIDEO_ENDINGS, OwnData, expand_braces
from vitok_core.data._walk import (
    SPECIAL,
    Found,
    LeftOut,
    legible,
    no_sample,
    subfolders,
    walk,
)
from vitok_core.errors import DataError
from vitok_core.sources import SOURCES

ROWS = 1000
"""Rows of a Hugging Face data set that are one unit."""

OPEN_SHARDS = 64
"""Shards that are kept open for reading."""

NO_LABEL = -1
"""Label of a sample that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What is hashed as a whole.

    Attributes:
        name: sorts the units; relative, never a path of this machine.
        size_bytes: of the file; for rows their number.
        mtime_ns: of the file; for rows a number that another version of them does not have.
    """

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sample in a unit.

    Attributes:
        name: of the sample, with its unit's; empty where it is the unit's own.
        label: its class, or `NO_LABEL`.
        offset: where it begins in its unit: a byte, or a row.
        size_bytes: of the picture or video.
        sha256: of it, 32 bytes.
    """

    name: str
    label: int
    offset: int
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """What a unit holds.

    Attributes:
        entries: its samples in order.
        left_out: what in it is not a sample; names begin with that of the unit.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...] = ()


class Units(Protocol):
    """A kind of data set, opened."""

    classes: tuple[str, ...]
    """Names of the classes, label k is classes[k]; empty where labels have no names."""

    def units(self) -> Iterator[Unit | LeftOut]:
        """All units in order, and what is none."""
        ...

    def index(self, unit: Unit) -> Indexed:
        """The samples of a unit in order; reads all of it. Called from several threads."""
        ...

    def label(self, unit: str, found: int) -> int:
        """A sample's label, from the name of its unit or as `index` found it."""
        ...

    def read(self, unit: str, offset: int, size_bytes: int) -> bytes:
        """A sample's bytes. Called from several threads."""
        ...

    def path(self, unit: str) -> Path:
        """The file of a unit."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def open_units(own: OwnData) -> Units:
    """Open a data set.

    Raises:
        DataError: what it says cannot be read, the place is missing, or a library is.
    """
    own.check()
    units: Units = pkgutil.resolve_name(SOURCES[own.kind].opener)(own)
    return units


class Files:
    """A folder in which every picture, or video, is a file."""

    def __init__(self, own: OwnData) -> None:
        self.root = Path(own.place).expanduser()
        self.name = own.name
        self.endings = VIDEO_ENDINGS if own.video else PICTURE_ENDINGS
        self.classes = tuple(subfolders(self.root)) if own.labels else ()
        self._label = {name: label for label, name in enumerate(self.classes)}

    def units(self) -> Iterator[Unit | LeftOut]:
        for one in walk(self.root, self.endings):
            if isinstance(one, Found):
                if self.classes and "/" not in one.name:
                    raise DataError(
                        f"{self.name}: {legible(one.name)} lies next to the folders that are the "
                        "classes; move it into one, or set labels: false"
                    )
                yield Unit(name=one.name, size_bytes=one.size_bytes, mtime_ns=one.mtime_ns)
            else:
                yield one

    def index(self, unit: Unit) -> Indexed:
        with _open(self.path(unit.name)) as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        one = Entry(name="", label=NO_LABEL, offset=0, size_bytes=unit.size_bytes, sha256=digest)
        return Indexed(entries=(one,))

    def label(self, unit: str, found: int) -> int:
        return self._label[unit.partition("/")[0]] if self.classes else NO_LABEL

    def read(self, unit: str, offset: int, size_bytes: int) -> bytes:
        with _open(self.path(unit)) as file:
            return file.read()

    def path(self, unit: str) -> Path:
        return self.root / unit

    def close(self) -> None:
        pass


SECOND_PICTURE, NO_PICTURE = "another picture of its sample", "label without a picture"
"""Why a member of a shard is not a sample, besides the reasons of a folder."""


@dataclass(slots=True)
class _Member:
    """A picture or a label of a shard: names as the WebDataset convention splits them.

    Attributes:
        name: in the shard.
        stem: the name without its last ending.
        key: the name up to the first dot of its last part; what a sample's members share.
        copy: how many members of the same name stand before it.
        value: a picture, or the number of a class.
    """

    name: str
    stem: str
    key: str
    copy: int
    value: Entry | int


class Shards:
    """Tar files in which the members of a sample share the name up to its first dot.

    Members may stand in any order. A name with more dots, as in `0001.left.png`, is a sample of its
    own with the label of `0001.left.cls`, else of `0001.cls`, unless there is a `0001.png` besides
    it and no label for it alone. A name that occurs twice, as `tar -r` leaves it, is two samples.
    """

    def __init__(self, own: OwnData) -> None:
        self.name, self.labels = own.name, own.labels
        self.classes: tuple[str, ...] = ()
        self._paths = _shard_paths(own)
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()

    def units(self) -> Iterator[Unit | LeftOut]:
        for name, path in self._paths.items():
            try:
                state = path.stat()
            except OSError as error:
                raise DataError(f"{legible(str(path))} cannot be read: {error.strerror}") from error
            yield Unit(name=name, size_bytes=state.st_size, mtime_ns=state.st_mtime_ns)

    def index(self, unit: Unit) -> Indexed:
        path = self.path(unit.name)
        try:
            with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                pictures, labels, left_out = self._members(unit.name, archive)
                # tarfile takes any header that it cannot read for the end.
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError(f"it is cut off or damaged at byte {archive.offset:,}")
        except tarfile.TarError as error:
            raise DataError(
                f"{legible(str(path))} cannot be read as a tar file: {error}; write it again (a "
                "compressed one has to be unpacked to .tar: samples are read from any place)"
            ) from error
        entries, unused = _samples(pictures, labels)
        left_out += [LeftOut(name=f"{unit.name}/{member.name}", why=why) for member, why in unused]
        return Indexed(entries=tuple(entries), left_out=tuple(left_out))

    def _members(
        self, shard: str, archive: tarfile.TarFile
    ) -> tuple[list[_Member], list[_Member], list[LeftOut]]:
        """The pictures and the labels of a shard in order, and what is neither."""
        pictures: list[_Member] = []
        labels: list[_Member] = []
        left_out: list[LeftOut] = []
        copies: Counter[str] = Counter()
        for member in archive:
            if member.isdir():
                continue
            why, ending = self._why_not(member)
            if why:
                left_out.append(LeftOut(name=f"{shard}/{member.name}", why=why))
                continue
            content = archive.extractfile(member) if not member.issparse() else None
            if content is None:
                raise DataError(f"{shard}: {legible(member.name)} is sparse; write it in full")
            folder, slash, base = member.name.rpartition("/")
            one = _Member(
                name=member.name,
                stem=member.name.rpartition(".")[0],
                key=folder + slash + base.partition(".")[0],
                copy=copies[member.name],
                value=NO_LABEL,
            )
            copies[member.name] += 1
            if ending == "cls":
                one.value = _class_number(shard, member.name, content.read(32))
                labels.append(one)
            else:
                one.value = Entry(
                    name=member.name,
                    label=NO_LABEL,
                    offset=member.offset_data,
                    size_bytes=member.size,
                    sha256=hashlib.sha256(content.read()).digest(),
                )
                pictures.append(one)
        return pictures, labels, left_out

    def _why_not(self, member: tarfile.TarInfo) -> tuple[str, str]:
        """Why a member is neither a picture nor a label that is read, or "", and its ending."""
        parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
        ending = parts[-1].rpartition(".")[2].lower() if parts and "." in parts[-1] else ""
        if not (member.isreg() or member.issparse()):
            return SPECIAL, ending
        for part in parts:
            if why := no_sample(part):
                return why, ending
        if ending in PICTURE_ENDINGS or (ending == "cls" and self.labels):
            return "", ending
        if ending == "cls":
            return "label, not read because of labels: false", ending
        return (f"not read: .{ending}" if ending else "not read: no ending"), ending

    def label(self, unit: str, found: int) -> int:
        return found

    def read(self, unit: str, offset: int, size_bytes: int) -> bytes:
        with self._lock:
            if unit not in self._files:
                if len(self._files) >= OPEN_SHARDS:
                    # The one that was opened first; a read that still uses it has its own copy.
                    os.close(self._files.pop(next(iter(self._files))))
                try:
                    self._files[unit] = os.open(self.path(unit), os.O_RDONLY)
                except OSError as error:
                    raise _unreadable(self.path(unit), error) from error
            own = os.dup(self._files[unit])
        try:
            return os.pread(own, size_bytes, offset)
        except OSError as error:
            raise _unreadable(self.path(unit), error) from error
        finally:
            os.close(own)

    def path(self, unit: str) -> Path:
        return self._paths[unit]

    def close(self) -> None:
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1])


class Rows:
    """A data set of the Hugging Face library, with one column of encoded pictures."""

    def __init__(self, own: OwnData) -> None:
        if importlib.util.find_spec("datasets") is None:
            raise DataError(
                f"{own.name} is read by the library datasets, which is not installed; run: "
                'pip install "sweepctl[huggingface]"'
            )
        self.own = own
        self._rows = _load_rows(own)
        self._labelled, self.classes = _label_column(own, self._rows)
        self._lock = threading.Lock()

    def units(self) -> Iterator[Unit | LeftOut]:
        version = hashlib.sha256(str(self._rows._fingerprint).encode()).digest()
        for first in range(0, len(self._rows), ROWS):
            yield Unit(
                name=f"rows-{first:012d}",
                size_bytes=min(ROWS, len(self._rows) - first),
                mtime_ns=int.from_bytes(version[:7], "little"),
            )

    def index(self, unit: Unit) -> Indexed:
        first = int(unit.name.removeprefix("rows-"))
        entries = []
        for row in range(first, first + unit.size_bytes):
            content, label = self._row(row)
            entries.append(
                Entry(
                    name=f"{row:012d}",
                    label=label,
                    offset=row,
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).digest(),
                )
            )
        return Indexed(entries=tuple(entries))

    def label(self, unit: str, found: int) -> int:
        return found

    def read(self, unit: str, offset: int, size_bytes: int) -> bytes:
        return self._row(offset)[0]

    def _row(self, row: int) -> tuple[bytes, int]:
        """The encoded picture of a row, empty where it has none, and its label."""
        with self._lock:
            found = self._rows[row]
        cell = found[self.own.picture_column] or {}
        content = cell.get("bytes")
        if content is None and cell.get("path"):
            with _open(Path(cell["path"])) as file:
                content = file.read()
        label = found[self.own.label_column] if self._labelled else None
        return content or b"", NO_LABEL if label is None else int(label)

    def path(self, unit: str) -> Path:
        return Path(self.own.place)

    def close(self) -> None:
        pass


def _samples(
    pictures: list[_Member], labels: list[_Member]
) -> tuple[list[Entry], list[tuple[_Member, str]]]:
    """The samples of a shard in the order of their pictures, and the members that are none."""
    by_stem = {(one.stem, one.copy): one for one in reversed(labels)}
    plain = {(one.key, one.copy): one for one in reversed(pictures) if one.stem == one.key}
    entries: list[Entry] = []
    unused: list[tuple[_Member, str]] = []
    used: set[int] = set()
    for one in pictures:
        own, shared = by_stem.get((one.stem, one.copy)), by_stem.get((one.key, one.copy))
        whole = plain.get((one.key, one.copy))
        if whole not in (None, one) and (own is None or own is shared):
            unused.append((one, SECOND_PICTURE))
            continue
        label = own or shared
        if label is not None:
            used.add(id(label))
        assert isinstance(one.value, Entry)
        number = label.value if label is not None else NO_LABEL
        assert isinstance(number, int)
        entries.append(replace(one.value, label=number))
    unused += [(one, NO_PICTURE) for one in labels if id(one) not in used]
    return entries, unused


def _load_rows(own: OwnData) -> Any:
    import datasets

    try:
        if own.on_the_hub:
            found = datasets.load_dataset(own.place, split=own.split, revision=own.revision)
        else:
            found = datasets.load_from_disk(str(Path(own.place).expanduser()))
    # The library raises errors of the hub's, of arrow's and of the file system's.
    except Exception as error:
        raise DataError(
            f"{own.name}: the library datasets cannot load {own.place}: {error}"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        if own.split not in found:
            raise DataError(
                f"{own.name}: split = {own.split!r}; {own.place} has {', '.join(found)}"
            )
        found = found[own.split]
    elif own.split is not None and not own.on_the_hub:
        raise DataError(f"{own.name}: {own.place} has no splits; leave split out")
    if own.picture_column not in found.features:
        raise DataError(
            f"{own.name} has no column {own.picture_column!r} of pictures; there are "
            f"{', '.join(found.features)}"
        )
    if not isinstance(found.features[own.picture_column], datasets.Image):
        raise DataError(
            f"{own.name}: the column {own.picture_column} holds no pictures but "
            f"{found.features[own.picture_column]}"
        )
    return found.cast_column(own.picture_column, datasets.Image(decode=False))


def _label_column(own: OwnData, rows: Any) -> tuple[bool, tuple[str, ...]]:
    """Whether labels are read, and the names of the classes where they have some."""
    if not own.labels:
        return False, ()
    feature = rows.features.get(own.label_column)
    if feature is None:
        raise DataError(
            f"{own.name} has no column {own.label_column!r} of labels; name the column, or set "
            f"labels: false (there are {', '.join(rows.features)})"
        )
    if "int" not in str(feature.dtype):
        raise DataError(
            f"{own.name}: the column {own.label_column} holds no whole numbers but {feature.dtype}"
        )
    return True, tuple(getattr(feature, "names", ()))


def _shard_paths(own: OwnData) -> dict[str, Path]:
    """Name -> path of every shard, in the order of the names."""
    paths: list[Path] = []
    for text in expand_braces(str(Path(own.place).expanduser())):
        if any(sign in text for sign in "*?["):
            paths += [Path(one) for one in glob.glob(text)]  # noqa: PTH207 - a pattern may be absolute
        else:
            paths.append(Path(text))
    if not paths:
        raise DataError(f"{own.name}: no file is called like {own.place}")
    # Relative to what they share, so that a move changes no name.
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    named = {path.relative_to(shared).as_posix(): path for path in paths}
    return {name: named[name] for name in sorted(named, key=os.fsencode)}


def _class_number(shard: str, member: str, content: bytes) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 9:
        raise DataError(
            f"{shard}: {legible(member)} holds {text!r}, a class is a whole number from 0; fix "
            "it, or set labels: false"
        )
    return int(text)


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{legible(str(path))} cannot be read: {error.strerror}")
