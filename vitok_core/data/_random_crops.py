"""Crops that are drawn again in each pass over a stream: where, and of "random-resized" how large.

"random" cuts the square along the long side at a place that is drawn, after the picture was
scaled. "random-resized" is torchvision's `RandomResizedCrop` with a scale from 0.8 to 1, as in the
code that ViTok's authors published: a box of that share of the picture's area, of a width-to-height
ratio from 3/4 to 4/3, is cut out and resized by the bilinear filter. A box that does not fit the
picture is drawn again, ten times at most; then the largest middle box of an allowed ratio is taken.
So pictures of 16:9 are always cut in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE = (0.8, 1.0)
"""Share of the picture's area."""

RATIO = (3 / 4, 4 / 3)
"""Width to height; uniform in its logarithm."""

TRIES = 10
NUMBERS = 2 * TRIES + 2
"""Uniform numbers of one box: two of each try, and where it is."""

Place = tuple[float, float]
"""Across and down, from 0 (left, top) to 1 (right, bottom); the long side takes its own."""


@dataclass(frozen=True, slots=True)
class RandomBox:
    """A box of "random-resized" in any picture.

    Attributes:
        numbers: `NUMBERS` of them, uniform in [0, 1).
    """

    numbers: Sequence[float]

    def of(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels of such a picture, right and bottom outside."""
        low, high = (math.log(end) for end in RATIO)
        for number in range(TRIES):
            scale, ratio = self.numbers[2 * number : 2 * number + 2]
            area = width * height * (SCALE[0] + (SCALE[1] - SCALE[0]) * scale)
            aspect = math.exp(low + (high - low) * ratio)
            across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < across <= width and 0 < down <= height:
                left = int(self.numbers[-2] * (width - across + 1))
                top = int(self.numbers[-1] * (height - down + 1))
                return left, top, left + across, top + down
        across = min(width, round(height * RATIO[1]))
        down = min(height, round(width / RATIO[0]))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down


def box_numbers(seed: int, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """The numbers of the boxes of these samples in one pass, (B, `NUMBERS`)."""
    drawn = np.empty((len(indices), NUMBERS))
    for row, index in enumerate(indices.tolist()):
        words = np.random.Philox(key=[seed, epoch], counter=[0, index, 0, 3]).random_raw(NUMBERS)
        drawn[row] = (words >> np.uint64(11)) * 2.0**-53
    return drawn
