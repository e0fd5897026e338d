"""A user-defined data set on disk: written in chunks with a hash each, so that it can resume.

Samples are taken in an order that is a permutation of the scan's list, the same for every number
asked for: the first thousand are a fair sample of all, and the first thousand of any larger set.
Threads decode, one writes in that order; chunk after chunk goes to the disk for good and into a
journal. After a kill the chunks whose hash still holds are kept and the rest is made again, so the
bytes are those of an undisturbed run. Memory holds one chunk and the pictures being decoded.

A broken file is passed over, the next one takes its place, and the report names it; more of them
than the data set's share is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._footage import need_av, read_clip
from vitok_core.data._listing import in_order
from vitok_core.data._own import ORDER
from vitok_core.data._pixels import MIDDLE, Square, Unusable, quiet_pillow, read_square
from vitok_core.data._prepare import BrokenFile, PreparedInfo, write_whole
from vitok_core.data._random_crops import Place, RandomBox
from vitok_core.data._scan import Reader, Scan
from vitok_core.data._walk import legible
from vitok_core.errors import DataError, Stopped
from vitok_core.files import sha256_of

CHUNK_BYTES = 16 << 20
CHUNK_SAMPLES = 1024
"""A chunk has as many files as give so many bytes, but at most so many."""

HEADER_BYTES = 128
"""Of samples.npy before the pixels; fixed, because the number of samples is known last."""

MOST_SHOWN = 5
"""Broken files that an error names."""

LOOK_S = 0.5
"""Seconds between two reports, and between two times a stop is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a sample is to be.

    Attributes:
        resolution: side in pixels.
        frames: of a sample, 1 for images.
        fps: frames per second of clips, or None for every frame.
    """

    resolution: int
    frames: int
    fps: float | None

    @property
    def of_array(self) -> tuple[int, ...]:
        """Of one sample as an array."""
        one = (self.resolution, self.resolution, 3)
        return one if self.frames == 1 else (self.frames, *one)

    @property
    def size_bytes(self) -> int:
        """Of one sample."""
        return 3 * self.frames * self.resolution**2

    def check(self, scan: Scan) -> None:
        """Refuse samples that a data set cannot give.

        Raises:
            DataError: numbers out of range, clips of pictures, or PyAV is missing.
        """
        name = scan.own.name
        if self.resolution < 8 or self.frames < 1:
            raise DataError(
                f"{name}: resolution = {self.resolution} and frames = {self.frames}; at least 8 px "
                "and 1 frame are needed"
            )
        if self.frames > 1 and not scan.own.video:
            raise DataError(
                f"{name} has single images, frames = {self.frames} cannot be had; give frames = 1, "
                "or take a set of videos"
            )
        if self.fps is not None and (self.frames == 1 or not 0.001 <= self.fps <= 1000):
            raise DataError(
                f"{name}: fps = {self.fps:g} with frames = {self.frames}; a rate from 0.001 to "
                "1000 is for clips of several frames"
            )
        if scan.own.video:
            need_av()


@dataclass(slots=True, kw_only=True)
class _Made:
    """What is on disk so far.

    Attributes:
        read: places of the order that were gone through, broken files included.
        labels: of the samples.
        notes: what was done to how many of them.
        broken: files that gave no sample.
        bad: where those stand in the order of a round.
    """

    read: int = 0
    labels: list[int] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    broken: list[BrokenFile] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)

    def add(self, other: _Made) -> None:
        self.read += other.read
        self.labels += other.labels
        self.notes += other.notes
        self.broken += other.broken
        self.bad += other.bad


def prepare_own(
    scan: Scan,
    *,
    resolution: int,
    images: int,
    frames: int = 1,
    fps: float | None = None,
    folder: Path,
    threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> PreparedInfo:
    """Decode, cut and write samples.npy, labels.npy and report.json, or resume that.

    samples.npy is uint8, N x H x W x 3; with several frames N x T x H x W x 3. The bytes follow
    from the content of the data set, its crop and the numbers asked for alone.

    Args:
        scan: of the data set.
        resolution: side of an image in pixels, at least 8.
        images: how many images or clips. Of pictures at most as many as there are; of videos any
            number: when each has given one clip, each gives another.
        frames: of a sample; more than 1 only for videos, of which 1 gives single frames.
        fps: frames per second of clips, each the nearest of the video; None takes every frame.
        folder: where the files go; what an earlier call left there is resumed from.
        threads: pictures or videos that are decoded at the same time.
        progress: called with (done, total) twice per second, and at the end.
        should_stop: asked as often.

    Raises:
        DataError: numbers out of range, more broken files than the data set allows, or a file that
            changed after the scan.
        Stopped: `should_stop` said so; a later call resumes.
        OSError: the disk is full or the folder cannot be written.
    """
    shape = Shape(resolution=resolution, frames=frames, fps=fps)
    _check(scan, shape, images)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {
        **scan.identity(),
        "images": images,
        "shape": [resolution, frames, fps],
        "chunk": max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // shape.size_bytes)),
        "allowed": int(scan.own.broken_share * scan.samples),
    }
    part, journal = folder / "samples.part", folder / "journal.jsonl"
    part.touch()
    with closing(Reader(scan)) as reader, part.open("r+b") as pixels, journal.open("a+b") as log:
        made = _resume(pixels, log, asked, shape)
        if made.read == 0:
            pixels.seek(0)
            pixels.write(b"\0" * HEADER_BYTES)
        reporter = _Reporter(images, progress, should_stop)
        for chunk, content in _chunks(reader, shape, asked, made, threads, reporter):
            pixels.write(content)
            pixels.flush()
            os.fsync(pixels.fileno())
            log.write(_line(chunk, content))
            log.flush()
            os.fsync(log.fileno())
            made.add(chunk)
        if not made.labels:
            raise DataError(_too_many(scan, made.broken, made.read, asked["allowed"]))
        _write_header(pixels, (len(made.labels), *shape.of_array))
    info = _finish(scan, shape, made, folder)
    reporter.report(len(made.labels))
    return info


def _check(scan: Scan, shape: Shape, images: int) -> None:
    shape.check(scan)
    name = scan.own.name
    if images < 1:
        raise DataError(f"{name}: images = {images}; at least 1 is needed")
    if images > scan.samples and not scan.own.video:
        raise DataError(
            f"{name} has {scan.samples:,} pictures, {images:,} cannot be had; give images = "
            f"{scan.samples}"
        )


def order_of(samples: int) -> NDArray[np.int64]:
    """The order in which samples are taken: one permutation for each size of a data set."""
    words = np.random.Philox(key=[ORDER, samples]).random_raw(samples)
    return np.argsort(words, kind="stable")


# --- decoding -----------------------------------------------------------------------------------


class _Reporter:
    def __init__(
        self,
        total: int,
        progress: Callable[[int, int], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.total, self.progress, self.should_stop = total, progress, should_stop
        self._last = 0.0

    def look(self, done: int) -> None:
        if time.monotonic() - self._last < LOOK_S:
            return
        if self.should_stop is not None and self.should_stop():
            raise Stopped(
                f"preparing stopped at sample {done:,} of {self.total:,}; it can resume from there"
            )
        self.report(done)

    def report(self, done: int) -> None:
        self._last = time.monotonic()
        if self.progress is not None:
            self.progress(done, self.total)


def _chunks(
    reader: Reader,
    shape: Shape,
    asked: dict[str, Any],
    made: _Made,
    threads: int,
    reporter: _Reporter,
) -> Iterator[tuple[_Made, bytes]]:
    """The chunks that are missing, with their pixels."""
    scan, chunk, content = reader.scan, _Made(), bytearray()
    images, order = asked["images"], order_of(scan.samples)
    # One round of pictures; of videos as many as it takes, each with another clip.
    last = scan.samples * (images if scan.own.video else 1)
    done, broken, bad = len(made.labels), list(made.broken), set(made.bad)

    def decode(place: int) -> Square | BrokenFile:
        turn, number = divmod(place, scan.samples)
        return decode_sample(reader, int(order[number]), shape, turn)

    with quiet_pillow(), ThreadPoolExecutor(threads, "decode") as executor:
        places = range(made.read, last) if done < images else range(0)
        for place, one in in_order(executor, decode, places, 4 * threads):
            number = place % scan.samples
            chunk.read += 1
            if isinstance(one, Square):
                chunk.labels.append(int(scan.entries["label"][order[number]]))
                chunk.notes.update(one.notes)
                content += one.pixels.tobytes()
                done += 1
            elif number not in bad:  # in a later round it is known
                bad.add(number)
                broken.append(one)
                chunk.bad.append(number)
                chunk.broken.append(one)
                if len(broken) > asked["allowed"]:
                    raise DataError(_too_many(scan, broken, place + 1, asked["allowed"]))
            over = done == images or place == last - 1 or len(bad) == scan.samples
            if over or chunk.read == asked["chunk"]:
                yield chunk, bytes(content)
                chunk, content = _Made(), bytearray()
            if over:
                return
            reporter.look(done)


def decode_sample(
    reader: Reader,
    index: int,
    shape: Shape,
    turn: int,
    place: Place | RandomBox = MIDDLE,
) -> Square | BrokenFile:
    """A sample of a data set, or what is wrong with its file.

    Args:
        reader: of the data set.
        index: of the sample in its scan.
        shape: what the sample is to be.
        turn: number of the clip among those of the video.
        place: of the square that is cut, see `_pixels.square`.

    Raises:
        DataError: the file cannot be read or is not the one that was scanned.
    """
    scan = reader.scan
    try:
        if scan.own.video:
            return read_clip(
                reader.path(index),
                key=scan.entries["sha256"][index].tobytes(),
                turn=turn,
                frames=shape.frames,
                fps=shape.fps,
                resolution=shape.resolution,
                crop=scan.own.crop,
                place=place,
            )
        content = reader.content(index)
        return read_square(content, resolution=shape.resolution, crop=scan.own.crop, place=place)
    except Unusable as error:
        return BrokenFile(name=legible(scan.name(index)), why=error.why, detail=error.detail)


def _too_many(scan: Scan, broken: list[BrokenFile], read: int, allowed: int) -> str:
    first = "; ".join(
        f"{one.name} ({one.why}{': ' if one.detail else ''}{one.detail})"
        for one in broken[:MOST_SHOWN]
    )
    return (
        f"{scan.own.name}: {len(broken):,} of the first {read:,} files in {scan.own.place} are "
        f"broken, {allowed:,} of {scan.samples:,} are allowed (broken: {scan.own.broken_share:g}); "
        f"fix or remove them and scan again, or allow more: {first}"
    )


# --- the files ----------------------------------------------------------------------------------


def _line(chunk: _Made, content: bytes) -> bytes:
    line = {
        "read": chunk.read,
        "labels": chunk.labels,
        "notes": dict(chunk.notes),
        "broken": [asdict(one) for one in chunk.broken],
        "bad": chunk.bad,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return json.dumps(line).encode() + b"\n"


def _resume(
    pixels: BufferedRandom, log: BufferedRandom, asked: dict[str, Any], shape: Shape
) -> _Made:
    """What an earlier call left whole; both files are cut off behind it."""
    made, good, end = _Made(), 0, HEADER_BYTES
    log.seek(0)
    pixels.seek(end)
    line = log.readline()
    if line == json.dumps(asked).encode() + b"\n":
        while line.endswith(b"\n"):
            good += len(line)
            line = log.readline()
            try:
                one = json.loads(line)
                chunk = _Made(
                    read=one["read"],
                    labels=one["labels"],
                    notes=Counter(one["notes"]),
                    broken=[BrokenFile(**broken) for broken in one["broken"]],
                    bad=one["bad"],
                )
            except (ValueError, KeyError, TypeError):
                break
            content = pixels.read(len(chunk.labels) * shape.size_bytes)
            if hashlib.sha256(content).hexdigest() != one["sha256"]:
                break
            end += len(content)
            made.add(chunk)
    log.truncate(good)
    log.seek(good)
    pixels.truncate(end if good else 0)
    pixels.seek(end)
    if good == 0:
        log.write(json.dumps(asked).encode() + b"\n")
    return made


def _write_header(pixels: BufferedRandom, shape: tuple[int, ...]) -> None:
    """The header of an .npy file, version 1.0, which allows any number of spaces at its end."""
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    text = repr(described).encode().ljust(HEADER_BYTES - 11) + b"\n"
    pixels.seek(0)
    pixels.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    pixels.flush()
    os.fsync(pixels.fileno())


def _finish(scan: Scan, shape: Shape, made: _Made, folder: Path) -> PreparedInfo:
    samples_sha256 = sha256_of(folder / "samples.part")
    size = (folder / "samples.part").stat().st_size
    labels = np.asarray(made.labels, np.int64)
    labels_sha256 = write_whole(folder / "labels.npy", lambda file: np.save(file, labels))
    info = PreparedInfo(
        name=scan.own.name,
        resolution=shape.resolution,
        images=len(labels),
        frames=shape.frames,
        fps=shape.fps,
        sources=(),
        samples_bytes=size,
        samples_sha256=samples_sha256,
        labels_sha256=labels_sha256,
        read=made.read,
        handled=dict(sorted(made.notes.items())),
        broken=tuple(made.broken),
    )
    report = json.dumps(asdict(info), indent=1).encode()
    write_whole(folder / "report.json", lambda file: file.write(report))
    # The samples last: where they are, the rest is. Only then is the journal of no more use.
    (folder / "samples.part").replace(folder / "samples.npy")
    (folder / "journal.jsonl").unlink()
    return info
