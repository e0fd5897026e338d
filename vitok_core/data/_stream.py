"""A data set too large to prepare: decoded on demand, shuffled by shards.

A `StreamSet` serves where a `SampleSet` does: a length, a shape and `batch(indices, flips)`, only
that a batch is read from its shards and decoded by threads. Which sample comes next is a function
of (seed, position), as with prepared sets, so a position is all that a checkpoint needs: it stands
for a pass, a place among that pass's shuffled shards and an offset there, and nothing is replayed
to find it. So is the place of a random crop: a function of (seed, pass, sample).

Shards are shuffled in each pass and taken a window at a time; within a window all samples are
shuffled. The window is the shuffle buffer of other loaders, with two differences: it is emptied
before the next one is begun, and it holds numbers of samples, not pixels. Disks see reads within
`window` shards and never elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._own_prepare import Shape, decode_sample
from vitok_core.data._pixels import MIDDLE, Square, quiet_pillow
from vitok_core.data._prepare import BrokenFile
from vitok_core.data._prepared import Read, channels_first
from vitok_core.data._random_crops import NUMBERS, Place, RandomBox, box_numbers
from vitok_core.data._sampler import Draw, Sampler
from vitok_core.data._scan import Reader, Scan
from vitok_core.errors import DataError
from vitok_core.sources import Crop

WINDOW = 16
"""Shards, or blocks of rows, whose samples are shuffled together."""


class StreamSampler:
    """The endless sequence of samples of a sharded set: every pass shows each sample once.

    Args:
        counts: samples of each shard, int64, (shards,); at least one in all.
        seed: 0 <= seed < 2^63.
        window: shards that are shuffled together, at least 1.

    Raises:
        DataError: a number out of range.
    """

    def __init__(self, counts: NDArray[np.int64], seed: int, *, window: int = WINDOW) -> None:
        self.size = int(counts.sum())
        if self.size < 1 or not 0 <= seed < 2**63 or window < 1:
            raise DataError(
                f"{self.size} samples, seed = {seed}, window = {window}: needed are at least 1 "
                "sample, a seed from 0 to 2^63 - 1 and a window of at least 1 shard"
            )
        self.seed, self.window = seed, window
        self._counts = counts.astype(np.int64)
        self._firsts = np.cumsum(self._counts) - self._counts
        # Two of each: a batch may reach from one window, or pass, into the next.
        self._pass = lru_cache(maxsize=2)(self._shuffled_shards)
        self._window = lru_cache(maxsize=2)(self._shuffled_window)

    def draw(self, position: int, count: int) -> Draw:
        """The samples at positions position, ..., position + count - 1."""
        indices, flips = np.empty(count, np.int64), np.empty(count, np.bool_)
        done = 0
        while done < count:
            epoch, offset = divmod(position + done, self.size)
            _, ends = self._pass(epoch)
            number = int(np.searchsorted(ends, offset, side="right"))
            order, mirrored = self._window(epoch, number)
            offset -= int(ends[number - 1]) if number else 0
            taken = order[offset : offset + count - done]
            indices[done : done + len(taken)] = taken
            flips[done : done + len(taken)] = mirrored[offset : offset + len(taken)]
            done += len(taken)
        return Draw(indices=indices, flips=flips)

    def _shuffled_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards of a pass in order, and how many samples there are up to each window's end."""
        words = np.random.Philox(key=[self.seed, epoch]).random_raw(len(self._counts))
        order = np.argsort(words, kind="stable")
        starts = np.arange(0, len(order), self.window)
        return order, np.cumsum(np.add.reduceat(self._counts[order], starts))

    def _shuffled_window(
        self, epoch: int, number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The samples of a window in order, and which of them are mirrored."""
        shards = self._pass(epoch)[0][number * self.window : (number + 1) * self.window]
        samples = np.concatenate(
            [np.arange(self._counts[one]) + self._firsts[one] for one in shards]
        )
        random = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, number, 1])
        words = random.random_raw(2 * len(samples))
        order = np.argsort(words[: len(samples)], kind="stable")
        return samples[order], words[len(samples) :] >> np.uint64(63) == 1


class PlaceSampler:
    """A sampler that also draws where each square is cut: uniformly, again in every pass.

    Args:
        sampler: that says which sample comes next.
        crop: "random", for places (B, 2), across and down; or "random-resized", for the numbers of
            a `RandomBox`.
    """

    def __init__(self, sampler: Sampler | StreamSampler, crop: Crop) -> None:
        self.sampler, self.size, self.seed = sampler, sampler.size, sampler.seed
        self._width = 2 if crop == "random" else NUMBERS
        self._pass = lru_cache(maxsize=2)(self._places)

    def draw(self, position: int, count: int) -> Draw:
        """The samples at positions position, ..., position + count - 1, and their places."""
        drawn = self.sampler.draw(position, count)
        epochs = (position + np.arange(count)) // self.size
        places = np.empty((count, self._width))
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            indices = drawn.indices[rows]
            if self._width == NUMBERS:
                places[rows] = box_numbers(self.seed, int(epoch), indices)
            else:
                places[rows] = self._pass(int(epoch))[indices]
        return Draw(indices=drawn.indices, flips=drawn.flips, places=places)

    def _places(self, epoch: int) -> NDArray[np.float64]:
        """Of every sample in one pass, (size, 2)."""
        words = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, 2])
        return np.random.Generator(words).random((self.size, 2))


class StreamSet:
    """A scanned data set whose samples are decoded when they are asked for.

    A broken file is replaced by the next whole one of the scan, always the same; when there are
    more of them than the data set allows, batches raise. Use it in a `with` statement, or close it.

    Args:
        scan: of the data set.
        resolution: side of a sample in pixels, at least 8.
        frames: of a sample; more than 1 only for videos, each of which gives one clip.
        fps: frames per second of clips, or None for every frame.
        threads: samples that are decoded at the same time.
        window: shards that are shuffled together.
        crop: "center" cuts the middle square, as in a prepared set; "random" another one along the
            long side of a picture in each pass, and "random-resized" a random box, see
            `_random_crops`; of a clip the same in all frames.

    Raises:
        DataError: numbers out of range, or a data set that cannot be opened.
    """

    def __init__(
        self,
        scan: Scan,
        *,
        resolution: int,
        frames: int = 1,
        fps: float | None = None,
        threads: int = 4,
        window: int = WINDOW,
        crop: Crop = "center",
    ) -> None:
        self.crop = crop
        self.scan, self.resolution, self.frames, self.window = scan, resolution, frames, window
        self._shape = Shape(resolution=resolution, frames=frames, fps=fps)
        self._shape.check(scan)
        self._broken: dict[int, BrokenFile] = {}
        self._lock = threading.Lock()
        self._reader = Reader(scan)
        with ExitStack() as open_now:
            open_now.callback(self._reader.close)
            open_now.enter_context(quiet_pillow())
            self._threads = open_now.enter_context(ThreadPoolExecutor(threads, "decode"))
            self._open = open_now.pop_all()

    def __enter__(self) -> StreamSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.scan.samples

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64, (N,), mapped from disk."""
        return self.scan.entries["label"]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one decoded sample: (H, W, 3) or (T, H, W, 3)."""
        return self._shape.of_array

    @property
    def sample_bytes(self) -> int:
        """Of one decoded sample."""
        return self._shape.size_bytes

    @property
    def broken(self) -> tuple[BrokenFile, ...]:
        """Files met so far that give no sample."""
        with self._lock:
            return tuple(self._broken[index] for index in sorted(self._broken))

    def sampler(self, seed: int) -> Sampler | StreamSampler | PlaceSampler:
        """Which sample comes next: by shards, or all shuffled where samples are files."""
        sampler: Sampler | StreamSampler
        if self.scan.own.kind in ("folder", "videos"):
            sampler = Sampler(len(self), seed)
        else:
            units = len(self.scan.unit_ends)
            counts = np.bincount(self.scan.entries["unit"], minlength=units).astype(np.int64)
            sampler = StreamSampler(counts, seed, window=self.window)
        return sampler if self.crop == "center" else PlaceSampler(sampler, self.crop)

    def batch(
        self,
        indices: NDArray[np.int64],
        flips: NDArray[np.bool_] | None = None,
        places: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint8]:
        """Some samples, contiguous: images (B, 3, H, W) or clips (B, 3, T, H, W).

        Those with a True in `flips` are mirrored left-right, a clip in all its frames. `places`,
        of the set's own sampler, say where each is cut; None from the middle.

        Raises:
            DataError: too many broken files, or one that changed after the scan.
        """
        samples = np.empty((len(indices), *self.sample_shape), np.uint8)
        self._read(indices, places, samples)
        return channels_first(samples, flips)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        """Decodes samples into buffers; raises what `batch` raises."""
        yield self._read

    def _read(
        self,
        indices: NDArray[np.int64],
        places: NDArray[np.float64] | None,
        out: NDArray[np.uint8],
    ) -> None:
        cut: Iterable[Place | RandomBox] = itertools.repeat(MIDDLE)
        if places is not None and self.crop == "random-resized":
            cut = [RandomBox(numbers) for numbers in places.tolist()]
        elif places is not None:
            cut = [(across, down) for across, down in places.tolist()]
        decoded = self._threads.map(self._whole, (int(index) for index in indices), cut)
        for row, one in enumerate(decoded):
            out[row] = one.pixels

    def close(self) -> None:
        """End the threads and close the files."""
        self._open.close()

    def _whole(self, index: int, place: Place | RandomBox) -> Square:
        """A sample, or the first whole one behind it."""
        for number in range(index, index + len(self)):
            number %= len(self)
            if number in self._broken:
                continue
            one = decode_sample(self._reader, number, self._shape, 0, place)
            if isinstance(one, Square):
                return one
            self._note(number, one)
        raise DataError(f"{self.scan.own.name} has not one whole file")

    def _note(self, index: int, one: BrokenFile) -> None:
        with self._lock:
            self._broken[index] = one
            met = len(self._broken)
        allowed = int(self.scan.own.broken_share * len(self))
        if met > allowed:
            raise DataError(
                f"{self.scan.own.name}: {met:,} files are broken, {allowed:,} of {len(self):,} are "
                f"allowed; fix or remove them and scan again, the last one met: {one.name} "
                f"({one.why}{': ' if one.detail else ''}{one.detail})"
            )
