"""The order of samples: a function of (seed, position), so nothing is replayed to resume.

Every pass has a permutation of its own, drawn from a counter-based generator; the number of workers
or processes cannot change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vitok_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Some consecutive samples of the endless sequence.

    Attributes:
        indices: int64, (B,), into the data set.
        flips: bool, (B,), which of them to mirror.
        places: float64, (B, 2) or more, numbers in [0, 1) that say where each square is cut; None
            where samples are cut already, or from the middle.
    """

    indices: NDArray[np.int64]
    flips: NDArray[np.bool_]
    places: NDArray[np.float64] | None = None


class Sampler:
    """The endless sequence of samples: every pass shows each of `size` samples once, shuffled.

    Sample and augmentation at a position follow from (seed, position) alone, so a position, an
    integer, is all that a checkpoint needs.

    Args:
        size: samples of the data set, at least 1.
        seed: 0 <= seed < 2^63.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1 or not 0 <= seed < 2**63:
            raise DataError(
                f"size = {size} and seed = {seed}: needed are at least 1 sample and a seed from 0 "
                "to 2^63 - 1"
            )
        self.size, self.seed = size, seed
        # Two passes: a batch may reach from one into the next.
        self._pass = lru_cache(maxsize=2)(self._shuffled)

    def draw(self, position: int, count: int) -> Draw:
        """The samples at positions position, ..., position + count - 1."""
        indices = np.empty(count, np.int64)
        flips = np.empty(count, np.bool_)
        done = 0
        while done < count:
            epoch, offset = divmod(position + done, self.size)
            order, mirrored = self._pass(epoch)
            taken = order[offset : offset + count - done]
            indices[done : done + len(taken)] = taken
            flips[done : done + len(taken)] = mirrored[taken]
            done += len(taken)
        return Draw(indices=indices, flips=flips)

    def _shuffled(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The order of one pass and, by index, which samples it mirrors."""
        words = np.random.Philox(key=[self.seed, epoch]).random_raw(2 * self.size)
        order = np.argsort(words[: self.size], kind="stable")
        return order, words[self.size :] >> np.uint64(63) == 1
