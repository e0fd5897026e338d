"""The scan of a user-defined data set: listed and hashed once, then known without reading it.

A scan reads every byte once and keeps, in a cache folder, the name, label and SHA-256 of each
sample. The content of a data set is the SHA-256 over that list: a copy at another place is the same
data set, and one changed byte makes another. Later scans read only units whose size or time of
change is new; an interrupted scan resumes. Whoever reads a sample compares its hash, so a
file that changed after the scan is found and not used.

Lists are files that are mapped into memory: ten million samples take no more of it than ten.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._listing import LeftOutNames, Reporter, ScanProgress, from_line, list_units
from vitok_core.data._own import IDENTIFIED, Fit, OwnData
from vitok_core.data._units import NO_LABEL, Units, open_units
from vitok_core.data._walk import legible, no_sample
from vitok_core.errors import DataError
from vitok_core.files import remove_unfinished, user_folder, write_json
from vitok_core.sources import SOURCES

ENTRY = np.dtype(
    [
        ("name_end", "<i8"),
        ("unit", "<i8"),
        ("label", "<i8"),
        ("offset", "<i8"),
        ("size_bytes", "<i8"),
        ("sha256", "u1", 32),
    ]
)
"""One sample on disk."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a data set holds.

    Attributes:
        own: the data set.
        content: SHA-256 over the names, labels and hashes of all samples, 64 hex digits.
        samples: number of pictures or videos.
        classes: number of labels.
        class_names: name of label k, or empty where labels have no names.
        empty_classes: names of classes without a sample.
        size_bytes: of all pictures or videos.
        left_out: reason -> (count, the first names) of what is not a sample.
        seconds: what the scan took.
        entries: all samples in order, an array of `ENTRY`, mapped from disk.
        unit_ends: where the name of each unit ends in `unit_names`.
        unit_names: all names of units, one after the other, as bytes.
        entry_names: the same of the samples in them.
    """

    own: OwnData
    content: str
    samples: int
    classes: int
    class_names: tuple[str, ...]
    empty_classes: tuple[str, ...]
    size_bytes: int
    left_out: Mapping[str, tuple[int, tuple[str, ...]]]
    seconds: float
    entries: NDArray[np.void] = field(repr=False)
    unit_ends: NDArray[np.int64] = field(repr=False)
    unit_names: NDArray[np.uint8] = field(repr=False)
    entry_names: NDArray[np.uint8] = field(repr=False)

    def identity(self) -> dict[str, Any]:
        """What decides the pixels of the data set, as plain data; no path is in it."""
        return {
            "data": self.own.kind,
            "recipe": SOURCES[self.own.kind].recipe,
            "content": self.content,
            "samples": self.samples,
            "crop": IDENTIFIED[self.own.crop],
        }

    def shared(self, other: Scan) -> int:
        """How many samples of another scan are in this one, by the SHA-256 of their bytes.

        Whatever they are called, and whether they are files or members of shards. Reads no data.
        """
        # The first 8 of 32 bytes: two of 10^7 samples are the same by accident once in 10^5 sets.
        mine, theirs = (
            np.ascontiguousarray(one.entries["sha256"][:, :8]).view("<u8").ravel()
            for one in (self, other)
        )
        return int(np.isin(theirs, mine).sum())

    def unit(self, index: int) -> str:
        """Name of the unit that holds a sample."""
        unit = int(self.entries["unit"][index])
        first = int(self.unit_ends[unit - 1]) if unit else 0
        return os.fsdecode(self.unit_names[first : int(self.unit_ends[unit])].tobytes())

    def name(self, index: int) -> str:
        """Name of a sample, relative to its data set."""
        first = int(self.entries["name_end"][index - 1]) if index else 0
        own = self.entry_names[first : int(self.entries["name_end"][index])].tobytes()
        return self.unit(index) + (f"/{os.fsdecode(own)}" if own else "")


class Reader:
    """Reads samples of a scanned data set, each compared with the hash of its scan."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self._units: Units = open_units(scan.own)

    def content(self, index: int) -> bytes:
        """A sample as it is stored.

        Raises:
            DataError: it cannot be read, or is not what was scanned.
        """
        one = self.scan.entries[index]
        content = self._units.read(
            self.scan.unit(index), int(one["offset"]), int(one["size_bytes"])
        )
        return self._same(index, content, hashlib.sha256(content).digest())

    def path(self, index: int) -> Path:
        """The file of a sample that is one, compared but not loaded.

        Raises:
            DataError: it cannot be read, or is not what was scanned.
        """
        path = self._units.path(self.scan.unit(index))
        try:
            with path.open("rb") as file:
                return self._same(index, path, hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{legible(str(path))} cannot be read: {error.strerror}") from error

    def _same(self, index: int, found: Result, digest: bytes) -> Result:
        if digest != self.scan.entries["sha256"][index].tobytes():
            raise DataError(
                f"{self.scan.own.name}: {legible(self.scan.name(index))} is not the file that was "
                "scanned; scan the data set again, and what it holds now will be another data set"
            )
        return found

    def close(self) -> None:
        """Close what is open."""
        self._units.close()


def scans_folder() -> Path:
    """Where scans are kept: $VITOK_SCANS, else the user's cache folder.

    Raises:
        DataError: the variable is not set, and this user has no home folder.
    """
    folder = _kept_in()
    if folder is None:
        raise DataError(
            "scans of data sets are kept in a folder, and this user has no home folder: set "
            "VITOK_SCANS to one, or XDG_CACHE_HOME, or HOME"
        )
    return folder


def _kept_in() -> Path | None:
    if given := os.environ.get("VITOK_SCANS"):
        return Path(given)
    cache = user_folder("cache", "vitok_core")
    return None if cache is None else cache / "scans"


def open_scan(own: OwnData, *, cache: Path | None = None) -> Scan | None:
    """The finished scan of a data set, or None where there is none; reads nothing of the set.

    Args:
        own: the data set; a scan under another name or of other settings is not taken.
        cache: folder of the scans, by default `scans_folder()`.

    Raises:
        DataError: `own` says something that cannot be read.
    """
    own.check()
    cache = cache or _kept_in()
    return None if cache is None else _opened(_folder(own, cache), own)


def find_scan(identity: Mapping[str, Any], *, cache: Path | None = None) -> Scan:
    """The scan that a data set's identity speaks of, wherever the data set is on this machine.

    Args:
        identity: as `Scan.identity` gave it.
        cache: folder of the scans, by default `scans_folder()`.

    Raises:
        DataError: no scan has that content, or this version cuts samples in another way.
    """
    cache = cache or scans_folder()
    content = identity["content"]
    crop = next(fit for fit, said in IDENTIFIED.items() if said == identity["crop"])
    recipe = SOURCES[identity["data"]].recipe
    if identity["recipe"] != recipe:
        raise DataError(
            f"the samples were planned by recipe {identity['recipe']}, this version has recipe "
            f"{recipe}; plan again"
        )
    # The newest first: a data set that was moved was scanned again at its new place.
    found_here = cache.glob("*/summary.json")
    for summary in sorted(found_here, key=lambda one: one.stat().st_mtime_ns, reverse=True):
        found = _opened(summary.parent, None, crop=crop)
        if found is not None and found.content == content:
            return found
    raise DataError(
        f"no scan of the data set with content {content[:16]} is in {cache}; scan it on this "
        "machine, or name the folder of its scan in VITOK_SCANS"
    )


def scan(
    own: OwnData,
    *,
    cache: Path | None = None,
    threads: int = 4,
    progress: Callable[[ScanProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Scan:
    """List and hash a data set, or what has changed of it since its last scan.

    Args:
        own: the data set.
        cache: folder of the scans, by default `scans_folder()`.
        threads: files that are read at the same time.
        progress: called twice per second, and at the end.
        should_stop: asked as often.

    Raises:
        DataError: the data set is missing, empty, or holds what cannot be read.
        Stopped: `should_stop` said so; the next scan resumes from there.
        OSError: the cache folder cannot be written.
    """
    folder = _folder(own.check(), cache or scans_folder())
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with _alone(folder, own.name):
        remove_unfinished(folder)
        units = open_units(own)
        try:
            reporter = Reporter(began, progress, should_stop, own.name)
            left_out = list_units(units, folder, threads, reporter)
            return _finish(own, units, folder, left_out, time.monotonic() - began)
        finally:
            units.close()


# --- the finished scan --------------------------------------------------------------------------


def _folder(own: OwnData, cache: Path) -> Path:
    """Where a data set's scan is: by its name and by what the scan depends on."""
    key = json.dumps([SOURCES[own.kind].format, own.reading()], sort_keys=True)
    return cache / f"{own.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Keep a second scan of the same data set out."""
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{name} is being scanned by another process; wait for it") from None
        yield


def _finish(
    own: OwnData, units: Units, folder: Path, left_out: LeftOutNames, seconds: float
) -> Scan:
    """Turn the list of units into arrays and a summary; the summary makes them count."""
    fresh = folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    facts = _write_arrays(own, units, folder / "units.part", fresh)
    if facts["samples"] == 0:
        kinds = "; ".join(f"{count} {why}" for why, (count, _) in left_out.items())
        raise DataError(
            f"{own.name}: there is no {'video' if own.video else 'picture'} in {own.place}"
            + (f" (left out: {kinds})" if kinds else "")
        )
    kept = folder / f"arrays-{facts['content'][:16]}"
    shutil.rmtree(kept, ignore_errors=True)
    fresh.rename(kept)
    summary = {
        "format": SOURCES[own.kind].format,
        "name": own.name,
        "reading": own.reading(),
        **facts,
        "left_out": left_out,
        "seconds": seconds,
    }
    write_json(folder / "summary.json", summary)
    (folder / "units.part").replace(folder / "units.jsonl")
    for old in folder.glob("arrays-*"):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)
    opened = _opened(folder, own)
    if opened is None:
        raise DataError(f"{folder} was removed while {own.name} was scanned; scan it again")
    return opened


def _write_arrays(own: OwnData, units: Units, listed: Path, folder: Path) -> dict[str, Any]:
    """Write the arrays of a scan; its content and counts."""
    digest = hashlib.sha256(json.dumps(["own data", 1, list(units.classes)]).encode() + b"\n")
    with contextlib.ExitStack() as files:
        entries, ends, unit_names, entry_names = (
            files.enter_context((folder / f"{name}.bin").open("wb"))
            for name in ("entries", "unit_ends", "unit_names", "entry_names")
        )
        number = samples = size_bytes = unit_end = name_end = 0
        unlabelled = ""
        counts: dict[int, int] = {}
        for line in files.enter_context(listed.open("rb")):
            one = from_line(line)
            if one is None:
                raise DataError(f"{listed} is damaged; remove it and scan again")
            unit, held = one.unit, one.entries
            unit_name = os.fsencode(unit.name)
            unit_end += unit_names.write(unit_name)
            ends.write(unit_end.to_bytes(8, "little"))
            records = np.zeros(len(held), ENTRY)
            for record, entry in zip(records, held, strict=True):
                name = os.fsencode(entry.name)
                found = units.label(unit.name, entry.label)
                label = max(found, 0)
                if found == NO_LABEL and not unlabelled:
                    unlabelled = f"{unit.name}/{entry.name}"
                counts[found] = counts.get(found, 0) + 1
                name_end += entry_names.write(name)
                record["name_end"], record["unit"], record["label"] = name_end, number, label
                record["offset"], record["size_bytes"] = entry.offset, entry.size_bytes
                record["sha256"] = np.frombuffer(entry.sha256, np.uint8)
                full = unit_name + (b"/" + name if name else b"")
                digest.update(b"%s\0%d\0%s\n" % (full, label, entry.sha256.hex().encode()))
                size_bytes += entry.size_bytes
            entries.write(records.tobytes())
            number, samples = number + 1, samples + len(held)
    if NO_LABEL in counts and len(counts) > 1:
        raise DataError(
            f"{own.name}: {counts[NO_LABEL]:,} of {samples:,} samples have no label, the first is "
            f"{legible(unlabelled)}; give each one, or set labels: false"
        )
    names = units.classes
    return {
        "content": digest.hexdigest(),
        "samples": samples,
        "classes": max(len(names), max(counts, default=0) + 1, 1),
        "class_names": [legible(name) for name in names],
        "empty_classes": [legible(name) for k, name in enumerate(names) if k not in counts],
        "size_bytes": size_bytes,
    }


def _opened(folder: Path, own: OwnData | None, *, crop: Fit = "adm") -> Scan | None:
    """The scan in a folder, or None; `own` None takes the data set from the summary."""
    try:
        found = json.loads((folder / "summary.json").read_bytes())
        if found["format"] != SOURCES[found["reading"]["kind"]].format:
            return None
        if any(no_sample(name) for name in found["class_names"]):
            return None  # of a version that took what an archive program left for a class
        arrays = folder / f"arrays-{found['content'][:16]}"
        entries = _mapped(arrays / "entries.bin", ENTRY)
        if own is None:
            own = OwnData(name=found["name"], **found["reading"], crop=crop)
        scanned = Scan(
            own=own,
            **{name: found[name] for name in ("content", "samples", "classes", "size_bytes")},
            class_names=tuple(found["class_names"]),
            empty_classes=tuple(found["empty_classes"]),
            left_out={why: (n, tuple(names)) for why, (n, names) in found["left_out"].items()},
            seconds=found["seconds"],
            entries=entries,
            unit_ends=_mapped(arrays / "unit_ends.bin", np.dtype("<i8")),
            unit_names=_mapped(arrays / "unit_names.bin", np.dtype("u1")),
            entry_names=_mapped(arrays / "entry_names.bin", np.dtype("u1")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never finished, or damaged: to be scanned again
    return scanned if len(entries) == scanned.samples else None


def _mapped(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    # An empty file cannot be mapped.
    if path.stat().st_size == 0:
        return np.empty(0, kind)
    # As a plain array: indexing the subclass costs more than reading the sample's record.
    return np.asarray(np.memmap(path, kind, "r"))
