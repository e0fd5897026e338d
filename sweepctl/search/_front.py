"""How good the best trials are: hypervolume and stagnation of a few objectives; plain arithmetic.

Values stand here as costs: every objective is to be made small, those that are to be large with
their sign turned. A trial that misses a condition is in no front.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from sweepctl.statistics import dominates, front_of

Costs = tuple[float, ...]


def since_improved(costs: Sequence[Costs | None]) -> int:
    """How many trials at the end have added nothing to the front, with one objective to the best.

    Args:
        costs: of all ended trials in their order; None for those that failed or miss a condition.
    """
    held: list[Costs] = []
    flat = 0
    for one in costs:
        if one is None or one in held or any(dominates(other, one) for other in held):
            flat += 1
            continue
        held = [other for other in held if not dominates(one, other)]
        held.append(one)
        flat = 0
    return flat


def hypervolume(costs: Sequence[Costs], reference: Costs) -> float:
    """The volume between some trials and a reference that is worse in every objective.

    By slicing along the last objective; exact, and quick enough for up to four objectives and some
    hundred trials in the front.

    Args:
        costs: of the trials.
        reference: the far corner; a trial that is beyond it in some objective adds nothing.
    """
    inside = [one for one in costs if all(a < b for a, b in zip(one, reference, strict=True))]
    return _volume([inside[index] for index in front_of(inside)], reference)


def _volume(points: Sequence[Costs], reference: Costs) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(point[0] for point in points)
    levels = [*sorted({point[-1] for point in points}), reference[-1]]
    volume = 0.0
    for low, high in itertools.pairwise(levels):
        slab = [point[:-1] for point in points if point[-1] <= low]
        held = [slab[index] for index in front_of(slab)]
        volume += (high - low) * _volume(held, reference[:-1])
    return volume


def far_corner(costs: Sequence[Costs]) -> Costs:
    """The worst value of each objective, the reference that hypervolumes are measured from."""
    if not costs:
        return ()
    return tuple(max(one[index] for one in costs) for index in range(len(costs[0])))


def is_finite(values: Sequence[float]) -> bool:
    """Whether every value is a number that can be compared."""
    return all(math.isfinite(value) for value in values)
