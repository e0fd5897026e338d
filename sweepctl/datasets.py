"""Which data sets can a study name here? Built-in ones and the user's own, with what is known.

Own data sets are entries of the site file. What they are to a study is their content, which a scan
has read once; planning takes the scan and never reads the data. Light: nothing of torch is loaded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sweepctl.errors import SweepctlError, UsageError
from sweepctl.plan import DataSet
from sweepctl.secrets import hidden
from sweepctl.study import OwnSet
from vitok_core import data
from vitok_core.errors import DataError, Stopped

BUILT_IN = "built in"
"""Where a data set is that needs no entry."""

PAPERS: dict[str, DataSet] = {
    name: DataSet(
        identity={"absent": name},
        video=video,
        samples=samples,
        classes=classes,
        problem=f"{name} is not in the site file; put it under datasets:, then `sweepctl data scan "
        f"{name}` (studies/paper/sweepctl.site.example.yaml)",
    )
    for name, video, samples, classes in (
        ("imagenet-train", False, 1_281_167, 1000),
        ("imagenet-val", False, 50_000, 1000),
        ("coco-val", False, 5_000, 0),
        ("kinetics-700-train", True, None, 700),
        ("kinetics-700-val", True, None, 700),
        ("ucf101-train", True, None, 101),
    )
}
"""Data sets that the paper's studies name, with their public sizes. Where the site file has none of
the name, a study that names one can be checked and planned, and not run."""


def data_identities(own: Mapping[str, OwnSet] | None = None) -> dict[str, DataSet]:
    """Every data set that exists, with what decides its pixels and whether it holds clips.

    Those of the paper are there with their problem unless they are among the user's.

    Args:
        own: the user's data sets, by name. One that was not scanned is there with its problem.

    Raises:
        StudyError: one has the name of a built-in one, or says something that cannot be read;
            UsageError where it was not read from a file.
    """

    @functools.cache  # ten thousand cells ask the same
    def refuses(name: str, frames: int, fps: float | None) -> str | None:
        try:
            data.fitting_shots(name, frames=frames, fps=fps)
        except DataError as error:
            return str(error)
        return None

    built_in = {
        name: DataSet(
            identity=data.content_identity(name),
            video=one.video,
            refuses=functools.partial(refuses, name),
            classes=one.classes,
        )
        for name, one in data.DATASETS.items()
    }
    scans = {name: data.open_scan(_own(name, one)) for name, one in (own or {}).items()}

    @functools.cache
    def shares(name: str, other: str) -> int:
        here, there = scans.get(name), scans.get(other)
        return 0 if here is None or there is None else here.shared(there)

    return (
        PAPERS
        | built_in
        | {
            name: _known(name, one, scans[name], functools.partial(shares, name))
            for name, one in (own or {}).items()
        }
    )


def states(own: Mapping[str, OwnSet]) -> list[dict[str, Any]]:
    """How every data set stands, built-in ones first, as plain data.

    Raises:
        StudyError: an entry of the site file is wrong.
    """
    rows: list[dict[str, Any]] = [
        _row(name, "clips" if one.video else "photos", BUILT_IN, one.classes)
        for name, one in data.DATASETS.items()
    ]
    for name in own:
        asked = _own(name, own[name])
        scan = data.open_scan(asked)
        row = _row(name, asked.kind, asked.place, None if scan is None else scan.classes)
        if scan is not None:
            row |= {"samples": scan.samples, "bytes": scan.size_bytes, "content": scan.content}
        rows.append(row | {"scanned": scan is not None})
    return rows


def unreadable(identity: Mapping[str, Any], *, closely: bool) -> str | None:
    """Why a user-defined data set cannot be read on this machine, in one line; None if it can.

    Args:
        identity: what a task says of the data.
        closely: whether to read a sample, which is compared with the scan, besides looking for
            the scan.
    """
    try:
        found = data.find_scan(identity)
        if not closely:
            return None
        reader = data.Reader(found)
        try:
            if found.own.video:
                reader.path(0)
            else:
                reader.content(0)
        finally:
            reader.close()
    except (DataError, OSError) as error:
        return " ".join(str(error).split())
    return None


def scanned(name: str, own: Mapping[str, OwnSet]) -> dict[str, Any]:
    """What the last scan of a data set of the user's found, as plain data.

    Raises:
        UsageError: there is none of that name.
        StudyError: its entry in the site file is wrong.
        SweepctlError: it was not scanned.
    """
    asked = _named(name, own)
    scan = data.open_scan(asked)
    if scan is None:
        raise SweepctlError(f"{name} was not scanned", hint=f"sweepctl data scan {name}")
    return _facts(scan)


def scan(
    name: str,
    own: Mapping[str, OwnSet],
    *,
    threads: int,
    progress: Callable[[data.ScanProgress], None],
) -> dict[str, Any]:
    """List and hash a data set of the user's, or what changed of it; what was found, as plain data.

    Args:
        name: of the data set.
        own: the user's data sets.
        threads: files that are read at the same time.
        progress: told twice a second.

    Raises:
        UsageError: there is none of that name.
        StudyError: its entry in the site file is wrong.
        SweepctlError: it is missing, empty, or cannot be read.
    """
    asked = _named(name, own)
    with _explained():
        return _facts(data.scan(asked, threads=threads, progress=progress))


def _known(name: str, one: OwnSet, scan: data.Scan | None, shares: Callable[[str], int]) -> DataSet:
    asked = _own(name, one)
    if scan is None:
        problem = f"{name} was not scanned as it is declared now; run: sweepctl data scan {name}"
        # How large the paper's are is known before they are scanned.
        known = PAPERS.get(name)
        return DataSet(
            identity={"absent": name},
            video=asked.video,
            problem=problem,
            classes=0 if known is None else known.classes,
        )
    return DataSet(
        identity=scan.identity(),
        video=asked.video,
        samples=None if asked.video else scan.samples,
        streams=scan.samples,
        # One class says as little as none.
        classes=scan.classes if scan.classes > 1 else 0,
        shares=shares,
    )


def _named(name: str, own: Mapping[str, OwnSet]) -> data.OwnData:
    if name in own:
        return _own(name, own[name])
    if name in data.DATASETS:
        raise UsageError(f"{name} is built in and needs no scan")
    raise UsageError(
        f"there is no data set {name!r} of yours",
        hint=f"the site file has {', '.join(own) or 'none'}; add one under datasets:",
    )


def _own(name: str, one: OwnSet) -> data.OwnData:
    if name in data.DATASETS:
        raise one.mistake(
            f"the site file has a data set {name!r}, and that one is built in; give it another name"
        )
    try:
        return data.OwnData(
            name=name,
            kind=one.kind,
            place=one.place,
            crop=one.crop,
            labels=one.labels,
            broken_share=one.broken,
            split=one.split,
            revision=one.revision,
            picture_column=one.image,
            label_column=one.label,
        ).check()
    except DataError as error:
        raise one.mistake(str(error)) from None


def _row(name: str, kind: str, place: str, classes: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "samples": None,
        "classes": classes,
        "bytes": None,
        "scanned": True,
        "content": None,
        "place": hidden(place),
    }


def _facts(scan: data.Scan) -> dict[str, Any]:
    return {
        "name": scan.own.name,
        "kind": scan.own.kind,
        "place": str(Path(scan.own.place)),
        "crop": scan.own.crop,
        "samples": scan.samples,
        "classes": scan.classes,
        "empty_classes": list(scan.empty_classes),
        "bytes": scan.size_bytes,
        "content": scan.content,
        "seconds": scan.seconds,
        "left_out": {
            why: {"count": count, "first": list(names)}
            for why, (count, names) in scan.left_out.items()
        },
    }


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What vitok_core can explain, as an error that the command line can show."""
    try:
        yield
    except (DataError, Stopped) as error:
        raise SweepctlError(str(error)) from error
    except OSError as error:
        raise SweepctlError(
            f"the scan cannot be kept in {data.scans_folder()}: {error.strerror}",
            hint="name another folder in VITOK_SCANS",
        ) from error
