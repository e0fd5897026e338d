"""Whether two sets of features cover each other: precision, recall, density and coverage.

Manifolds are unions of balls around the members of a set that reach to their k-th nearest
neighbour: k = 3 for precision and recall (Kynkaanniemi et al. 2019), k = 5 for density and coverage
(Naeem et al. 2020). All four come out of one walk over the distances between the sets, in float64
and in blocks, so that no matrix of all pairs is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitok_core.errors import DataError
from vitok_core.metrics._distances import check_pair

Array = NDArray[np.float64]
Given = NDArray[np.floating]

ROWS = 512
"""Rows of distances at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """How two sets cover each other.

    Attributes:
        precision: share of the second set inside the manifold of the first.
        recall: share of the first set inside the manifold of the second.
        density: mean number of the first set's balls around a member of the second, over k; 1 for
            equal distributions, above where the second keeps to dense regions.
        coverage: share of the first set's balls with a member of the second inside.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def cover(originals_NF: Given, others_MF: Given, *, near: int = 3, wide: int = 5) -> Cover:
    """How a set of reconstructions or samples covers the originals, and the other way round.

    Args:
        originals_NF: features of the originals.
        others_MF: features of reconstructions or generated samples.
        near: neighbours that a ball of precision and recall reaches to.
        wide: neighbours that a ball of density and coverage reaches to.

    Raises:
        DataError: no more rows on a side than the neighbours that are looked for, or sides of
            different widths.
        NonFiniteError: features that are not finite; names the side and the count.
    """
    least = min(len(originals_NF), len(others_MF))
    if least <= max(near, wide):
        raise DataError(
            f"precision, recall, density and coverage need more than {max(near, wide)} images "
            f"on each side, there are {least}"
        )
    check_pair(originals_NF, others_MF)
    originals, others = (np.asarray(side, np.float64) for side in (originals_NF, others_MF))
    near_radii, wide_radii = _radii(originals, (near, wide))
    (others_near,) = _radii(others, (near,))
    inside = np.zeros(len(others), bool)
    balls = 0
    recalled = covered = 0
    for first, distances in _distances(originals, others):
        rows = slice(first, first + len(distances))
        inside |= (distances <= near_radii[rows, None]).any(axis=0)
        recalled += int((distances <= others_near).any(axis=1).sum())
        within = distances < wide_radii[rows, None]
        balls += int(within.sum())
        covered += int(within.any(axis=1).sum())
    return Cover(
        precision=float(inside.mean()),
        recall=recalled / len(originals),
        density=balls / (wide * len(others)),
        coverage=covered / len(originals),
    )


def _radii(rows: Array, neighbours: tuple[int, ...]) -> list[Array]:
    """Squared distance of every row to its k-th neighbour among the others, for each k."""
    found: list[list[Array]] = [[] for _ in neighbours]
    for first, distances in _distances(rows, rows):
        # A row is not a neighbour of itself.
        distances[np.arange(len(distances)), first + np.arange(len(distances))] = np.inf
        ordered = np.partition(distances, [k - 1 for k in neighbours], axis=1)
        for radii, k in zip(found, neighbours, strict=True):
            radii.append(ordered[:, k - 1].copy())
    return [np.concatenate(radii) for radii in found]


def _distances(a: Array, b: Array) -> Iterator[tuple[int, Array]]:
    """Squared Euclidean distances of blocks of rows of `a` to all rows of `b`, with their place."""
    lengths = np.einsum("nf,nf->n", b, b)
    for first in range(0, len(a), ROWS):
        block = a[first : first + ROWS]
        squares = np.einsum("nf,nf->n", block, block)[:, None] + lengths - 2 * block @ b.T
        yield first, squares.clip(0)
