"""Prepared data sets: samples mapped from disk, and labels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitok_core.data._rows import RowFile, map_rows, row_reader
from vitok_core.data._sampler import Sampler
from vitok_core.errors import DataError

Read = Callable[[NDArray[np.int64], NDArray[np.float64] | None, NDArray[np.uint8]], None]
"""Samples of these indices, cut at these places, into a buffer (B, *sample_shape); not mirrored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """A prepared data set.

    Attributes:
        samples: uint8, images (N, H, W, 3) or clips (N, T, H, W, 3), H = W, T > 1; mapped from
            disk, read-only.
        labels: int64, (N,).
        file: where the samples are on disk; None for those in memory.
    """

    samples: NDArray[np.uint8]
    labels: NDArray[np.int64]
    file: RowFile | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def resolution(self) -> int:
        """Side of an image in pixels."""
        return int(self.samples.shape[-2])

    @property
    def frames(self) -> int:
        """Frames of a sample; 1 for images."""
        return int(self.samples.shape[1]) if self.samples.ndim == 5 else 1

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample as it is stored: (H, W, 3) or (T, H, W, 3)."""
        return self.samples.shape[1:]

    @property
    def sample_bytes(self) -> int:
        """Of one sample."""
        return math.prod(self.sample_shape)

    def sampler(self, seed: int) -> Sampler:
        """Which sample comes next."""
        return Sampler(len(self), seed)

    def first(self, count: int) -> SampleSet:
        """The first `count` samples, without copying.

        Raises:
            DataError: there are fewer.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"{count} samples were asked for, the set has {len(self)}")
        return replace(self, samples=self.samples[:count], labels=self.labels[:count])

    def batch(
        self,
        indices: NDArray[np.int64],
        flips: NDArray[np.bool_] | None = None,
        places: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint8]:
        """A copy of some samples, contiguous: images (B, 3, H, W) or clips (B, 3, T, H, W).

        Those with a True in `flips` are mirrored left-right, a clip in all its frames.

        Raises:
            DataError: there are `places`, but prepared samples are cut already.
        """
        _refuse(places)
        picked: NDArray[np.uint8] = self.samples[indices]
        return channels_first(picked, flips)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        """Reads samples into buffers, several at the same time, until the context ends."""
        with row_reader(self.samples, self.file) as fill:

            def read(
                indices: NDArray[np.int64],
                places: NDArray[np.float64] | None,
                out: NDArray[np.uint8],
            ) -> None:
                _refuse(places)
                fill(indices, out)

            yield read


def _refuse(places: NDArray[np.float64] | None) -> None:
    if places is not None:
        raise DataError("prepared samples are cut already; a stream can cut them at places")


def channels_first(
    samples: NDArray[np.uint8], flips: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """(B, ..., 3) as (B, 3, ...), contiguous; those with a True in `flips` mirrored."""
    made = np.empty((len(samples), 3, *samples.shape[1:-1]), np.uint8)
    # One by one, mirrored while they are copied: three times as fast as the whole batch at once.
    for row, sample in enumerate(samples):
        seen = sample[..., ::-1, :] if flips is not None and flips[row] else sample
        made[row] = np.moveaxis(seen, -1, 0)
    return made


def open_prepared(folder: Path) -> SampleSet:
    """Map what `prepare` wrote.

    Raises:
        DataError: a file is missing or does not hold what it should.
    """
    arrays = []
    for name in ("samples.npy", "labels.npy"):
        try:
            arrays.append(map_rows(folder / name))
        except FileNotFoundError as error:
            raise DataError(
                f"{folder / name} does not exist; prepare the data set first"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder / name} is damaged: {error}; prepare it again") from error
    (samples, file), (labels, _) = arrays
    shape = samples.shape
    square = len(shape) in (4, 5) and shape[-3] == shape[-2] and shape[-1] == 3
    if not square or samples.dtype != np.uint8 or labels.shape != shape[:1]:
        raise DataError(
            f"{folder} holds samples {samples.dtype} {shape} and labels {labels.shape}; expected "
            "uint8 (N, H, H, 3), or (N, T, H, H, 3) for clips, and (N,)"
        )
    return SampleSet(samples=samples, labels=labels, file=file)
