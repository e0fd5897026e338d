"""The list of the units of a data set and of what is in each, written as they are read.

One line of JSON per unit, in the order of the units, so that an interrupted scan resumes
where its list ends, and a later one takes over the lines of units that are as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from vitok_core.data._units import Entry, Indexed, Unit, Units
from vitok_core.data._walk import LeftOut, legible
from vitok_core.errors import Stopped

NAMES_SHOWN = 20
"""Names kept of what was left out, for each reason."""

REPORT_S = 0.5
"""Seconds between two reports, and between two times a stop is asked for."""

Job = TypeVar("Job")
Result = TypeVar("Result")
LeftOutNames = dict[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanProgress:
    """How far a scan is.

    Attributes:
        units: files, shards or blocks of rows that are done.
        samples: in them.
        size_bytes: of those samples.
        read_units: of the units, those that had to be read.
        seconds: since the scan began.
    """

    units: int
    samples: int
    size_bytes: int
    read_units: int
    seconds: float


def in_order(
    executor: ThreadPoolExecutor, work: Callable[[Job], Result], jobs: Iterable[Job], ahead: int
) -> Generator[tuple[Job, Result], None, None]:
    """Each job with its result, in order, while at most `ahead` of them are under way.

    An error of a job is raised where its result would have been. Closing it begins no more.
    """
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, executor.submit(work, job)))
            if len(waiting) >= ahead:
                done, result = waiting.popleft()
                yield done, result.result()
        while waiting:
            done, result = waiting.popleft()
            yield done, result.result()
    finally:
        for _, result in waiting:
            result.cancel()


class Reporter:
    """Counts what is done, tells it now and then, and asks then whether to stop."""

    def __init__(
        self,
        began: float,
        progress: Callable[[ScanProgress], None] | None,
        should_stop: Callable[[], bool] | None,
        name: str,
    ) -> None:
        self.began, self.progress, self.should_stop, self.name = began, progress, should_stop, name
        self.units = self.samples = self.size_bytes = self.read_units = 0
        self._last = began

    def count(self, entries: tuple[Entry, ...], *, was_read: bool) -> None:
        self.units += 1
        self.samples += len(entries)
        self.size_bytes += sum(entry.size_bytes for entry in entries)
        self.read_units += was_read
        if time.monotonic() - self._last >= REPORT_S:
            self.report()

    def report(self) -> None:
        self._last = time.monotonic()
        if self.progress is not None:
            self.progress(
                ScanProgress(
                    units=self.units,
                    samples=self.samples,
                    size_bytes=self.size_bytes,
                    read_units=self.read_units,
                    seconds=self._last - self.began,
                )
            )
        if self.should_stop is not None and self.should_stop():
            raise Stopped(f"the scan of {self.name} stopped after {self.units:,} files")


def list_units(units: Units, folder: Path, threads: int, reporter: Reporter) -> LeftOutNames:
    """Write a line for every unit into units.part, reading those that no line is known of.

    Args:
        units: the data set.
        folder: of the scan; units.jsonl of the last finished one is there, if there was one.
        threads: files that are read at the same time.
        reporter: counts.

    Returns:
        Reason -> (count, the first names) of what is not a unit.
    """
    left_out: LeftOutNames = {}

    def only_units() -> Iterator[Unit]:
        for one in units.units():
            if isinstance(one, Unit):
                yield one
            else:
                _add_left_out(left_out, _counted([one]))

    part = folder / "units.part"
    known = _Known(folder / "units.jsonl")

    with part.open("a+b") as file, ThreadPoolExecutor(threads, "scan") as executor:
        coming = only_units()
        first = _agreeing(file, coming, reporter, left_out)

        def jobs() -> Iterator[tuple[Unit, Line | None]]:
            for unit in [] if first is None else [first]:
                yield unit, known.line(unit)
            for unit in coming:
                yield unit, known.line(unit)

        def line_of(job: tuple[Unit, Line | None]) -> Line:
            unit, before = job
            return Line.of(unit, units.index(unit)) if before is None else before

        for (_, before), line in in_order(executor, line_of, jobs(), 4 * threads):
            file.write(line.encoded())
            _add_left_out(left_out, line.left_out)
            reporter.count(line.entries, was_read=before is None)
        file.flush()
        os.fsync(file.fileno())
    reporter.report()
    return left_out


def _counted(left_out: Iterable[LeftOut]) -> LeftOutNames:
    """What was left out, by reason."""
    found: LeftOutNames = {}
    for one in left_out:
        count, names = found.get(one.why, (0, ()))
        found[one.why] = (count + 1, names + ((legible(one.name),) if count < NAMES_SHOWN else ()))
    return found


def _add_left_out(to: LeftOutNames, more: LeftOutNames) -> None:
    for why, (count, names) in more.items():
        before, known = to.get(why, (0, ()))
        to[why] = (before + count, (known + names)[:NAMES_SHOWN])


def _agreeing(
    file: IO[bytes], coming: Iterator[Unit], reporter: Reporter, left_out: LeftOutNames
) -> Unit | None:
    """Pass over the units that an interrupted scan has listed already.

    At the first one that is not as it was then, the rest of the list is cut off.

    Returns:
        The first unit that the list does not have, or None when there is none.
    """
    file.seek(0)
    good = 0
    for unit in coming:
        line = file.readline()
        before = from_line(line)
        if before is None or before.unit != unit:
            file.truncate(good)
            file.seek(good)
            return unit
        good += len(line)
        _add_left_out(left_out, before.left_out)
        reporter.count(before.entries, was_read=False)
    file.truncate(good)
    file.seek(good)
    return None


class _Known:
    """The units of the last finished scan, asked for in the order of their names."""

    def __init__(self, path: Path) -> None:
        self._lines = self._read(path)
        self._next = next(self._lines, None)

    @staticmethod
    def _read(path: Path) -> Iterator[Line]:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                if (one := from_line(line)) is not None:
                    yield one

    def line(self, unit: Unit) -> Line | None:
        """What a unit held, if it is as it was then."""
        name = os.fsencode(unit.name)
        while self._next is not None and os.fsencode(self._next.unit.name) < name:
            self._next = next(self._lines, None)
        return self._next if self._next is not None and self._next.unit == unit else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What the list holds of a unit.

    Attributes:
        unit: the unit.
        entries: its samples in order.
        left_out: reason -> (count, the first names) of what in it is not a sample.
    """

    unit: Unit
    entries: tuple[Entry, ...]
    left_out: LeftOutNames

    @classmethod
    def of(cls, unit: Unit, held: Indexed) -> Line:
        """The line of a unit that was read."""
        return cls(unit=unit, entries=held.entries, left_out=_counted(held.left_out))

    def encoded(self) -> bytes:
        """The line as it is written."""
        unit = self.unit
        listed = [
            [one.name, one.label, one.offset, one.size_bytes, one.sha256.hex()]
            for one in self.entries
        ]
        fields = [unit.name, unit.size_bytes, unit.mtime_ns, listed, self.left_out]
        return json.dumps(fields if self.left_out else fields[:-1]).encode() + b"\n"


def from_line(line: bytes) -> Line | None:
    """A line of the list, or None for one that was not written to its end."""
    if not line.endswith(b"\n"):
        return None
    try:
        name, size_bytes, mtime_ns, listed, *more = json.loads(line)
        entries = tuple(
            Entry(name=own, label=label, offset=offset, size_bytes=size, sha256=bytes.fromhex(hash))
            for own, label, offset, size, hash in listed
        )
        left_out = {why: (int(n), tuple(names)) for why, (n, names) in (*more, {})[0].items()}
    except (ValueError, TypeError, AttributeError):
        return None
    unit = Unit(name=name, size_bytes=size_bytes, mtime_ns=mtime_ns)
    return Line(unit=unit, entries=entries, left_out=left_out)
