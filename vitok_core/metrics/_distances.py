"""Distances of two sets of features, whoever made the features.

Everything is numpy in float64 and walks the sets in their order, in blocks of fixed size, so that a
value depends on the features alone. Whether a set holds reconstructions or generated samples is the
caller's business. n rows are n images (or frames, or clips), F is the width of the features.

The trace of the square root of a product of two covariances A A' and B B' is the sum of the
singular values of A' B. A is the set itself, centred, where it holds no more rows than features,
else a factor of its covariance. Eigenvalues of the product would be squares: those of the many
directions with little variance would drown in rounding, and their roots would be counted. No sqrtm:
it is not reliable on nearly singular products.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitok_core.errors import DataError, NonFiniteError

Array = NDArray[np.float64]
Given = NDArray[np.floating]

BLOCK = 4096
"""Rows at a time."""

LARGEST = 1e20
"""Largest size of a feature: the square of a cubic kernel, its twelfth power, is still a number."""

ORIGINALS, OTHERS = "the originals", "the reconstructions or samples"
"""The sides of a comparison in messages, in the order of the arguments."""

SIZES, SIZES_SEED = 15, 2020
MMD_SIGMA, MMD_SCALE = 10.0, 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """A set of features as a Gaussian.

    Attributes:
        mean_F: the mean.
        factor_XF: a factor of the unbiased covariance, which is factor' factor; X is the number of
            rows where there are no more of them than features, else F.
        n: number of rows.
    """

    mean_F: Array
    factor_XF: Array
    n: int


def gaussian(features_NF: Given, side: str = "the set") -> Gaussian:
    """Mean and covariance of a set of features, (N, F) with N >= 2.

    Args:
        features_NF: the features.
        side: what messages call the set.

    Raises:
        DataError: fewer than two rows.
        NonFiniteError: features that are not finite.
    """
    _at_least_two(features_NF)
    check_features({side: features_NF})
    n, width = features_NF.shape
    mean = sum((block.sum(axis=0) for block in _blocks(features_NF)), np.zeros(width)) / n
    if n <= width:
        centred = np.asarray(features_NF, np.float64) - mean
        return Gaussian(mean_F=mean, factor_XF=centred / np.sqrt(n - 1), n=n)
    covariance = np.zeros((width, width))
    for block in _blocks(features_NF):
        block -= mean
        covariance += block.T @ block
    return Gaussian(mean_F=mean, factor_XF=_factor(covariance / (n - 1)), n=n)


def _factor(covariance_FF: Array) -> Array:
    try:
        return np.asarray(np.linalg.cholesky(covariance_FF).T, np.float64)
    except np.linalg.LinAlgError:
        # Features that depend on each other, or never change.
        values, vectors = np.linalg.eigh(covariance_FF)
        return np.asarray((vectors * np.sqrt(values.clip(0))).T, np.float64)


def frechet_distance(a: Given | Gaussian, b: Given | Gaussian) -> float:
    """Frechet distance of two sets of features, each seen as a Gaussian.

    Biased upwards for few rows; with no more rows than features the covariances are singular, which
    is allowed and exact as an expression, but says little about the distributions.

    Args:
        a: features (N, F), or what `gaussian` made of them.
        b: the same.

    Raises:
        DataError: fewer than two rows on a side, or sides of different widths.
        NonFiniteError: features that are not finite; names the side and the count.
    """
    left, right = (
        one if isinstance(one, Gaussian) else gaussian(one, side)
        for side, one in ((ORIGINALS, a), (OTHERS, b))
    )
    _same_width(left.mean_F.shape, right.mean_F.shape)
    roots = np.linalg.svd(left.factor_XF @ right.factor_XF.T, compute_uv=False)
    difference = left.mean_F - right.mean_F
    # The trace of factor' factor is the sum of the factor's squares.
    trace = np.square(left.factor_XF).sum() + np.square(right.factor_XF).sum()
    # Rounding can leave a distance of equal sets a hair below zero.
    return max(float(difference @ difference + trace - 2 * roots.sum()), 0.0)


def frechet_infinity(a_NF: Given, b_NF: Given, *, paired: bool = True) -> float:
    """Frechet distance extrapolated to infinitely many rows (Chong and Forsyth 2020).

    The distance is measured on 15 numbers of rows, from a tenth of all (but at least twice the
    features, where half of all allows it) to all, drawn without replacement, seed 2020; its
    straight line over 1/n is read off at 0. Rows of paired sets (reconstructions and their
    originals) are taken from both sides at the same indices when there are as many of them.

    Raises:
        DataError: fewer than four rows on a side, or sides of different widths.
        NonFiniteError: features that are not finite; names the side and the count.
    """
    n = min(len(a_NF), len(b_NF))
    if n < 4:
        raise DataError(f"an extrapolation over the number of images needs at least 4, not {n}")
    check_pair(a_NF, b_NF)
    lowest = max(n // 10, min(2 * a_NF.shape[1], n // 2), 2)
    sizes = np.unique(np.linspace(lowest, n, SIZES).astype(int))
    rng = np.random.Generator(np.random.Philox(SIZES_SEED))
    values = []
    for size in sizes:
        left = rng.permutation(len(a_NF))[:size]
        same = paired and len(a_NF) == len(b_NF)
        right = left if same else rng.permutation(len(b_NF))[:size]
        values.append(frechet_distance(a_NF[np.sort(left)], b_NF[np.sort(right)]))
    inverse = 1.0 / sizes
    centred = inverse - inverse.mean()
    slope = float(centred @ np.asarray(values)) / float(centred @ centred)
    return float(np.mean(values) - slope * inverse.mean())


def kernel_distance(
    a_NF: Given, b_NF: Given, subset: int = 256, *, subsets: int = 100, seed: int = 2020
) -> float:
    """Kernel distance (squared MMD, cubic polynomial) of two sets of features; unbiased.

    The mean over random subsets of min(n, subset) rows, by torch-fidelity. Being unbiased it can be
    slightly negative for sets that do not differ.

    Args:
        a_NF: one set.
        b_NF: the other.
        subset: largest size of a subset.
        subsets: number of subsets.
        seed: of their draw.

    Raises:
        DataError: fewer than two rows on a side, or sides of different widths.
        NonFiniteError: features that are not finite; names the side and the count.
    """
    import torch
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    _at_least_two(a_NF, b_NF)
    check_pair(a_NF, b_NF)
    result = kid_features_to_metric(
        *(torch.from_numpy(np.array(side, np.float64)) for side in (a_NF, b_NF)),
        kid_subsets=subsets,
        kid_subset_size=min(len(a_NF), len(b_NF), subset),
        kid_kernel="poly",
        rng_seed=seed,
        verbose=False,
    )
    return float(result[KEY_METRIC_KID_MEAN])


def gaussian_kernel_distance(a_NF: Given, b_NF: Given) -> float:
    """Squared MMD with a Gaussian kernel over all pairs, as CMMD has it (Jayasumana et al. 2024).

    Rows are scaled to unit length; sigma 10; every pair counts, a row with itself too; times 1000.

    Raises:
        DataError: fewer than two rows on a side, sides of different widths, or a row of zeros.
        NonFiniteError: features that are not finite; names the side and the count.
    """
    _at_least_two(a_NF, b_NF)
    check_pair(a_NF, b_NF)
    a, b = _unit(a_NF), _unit(b_NF)
    within = _mean_kernel(a, a) + _mean_kernel(b, b)
    return MMD_SCALE * max(within - 2 * _mean_kernel(a, b), 0.0)


def _unit(features_NF: Given) -> Array:
    rows = np.asarray(features_NF, np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (length > 0).all():
        raise DataError("a feature vector is all zeros and has no direction")
    unit: Array = rows / length
    return unit


def _mean_kernel(a: Array, b: Array) -> float:
    # Unit vectors: their squared distance is 2 - 2 a.b.
    total = sum(
        float(np.exp((block @ b.T - 1.0) / MMD_SIGMA**2).sum()) for block in _blocks(a, 1024)
    )
    return total / (len(a) * len(b))


def bootstrap_error(
    distance: Callable[[Given, Given], float],
    a_NF: Given,
    b_NF: Given,
    *,
    resamples: int,
    rows: int = 1,
    paired: bool = True,
    seed: int = 2020,
) -> float:
    """Standard error of a distance: its deviation over resamples of samples with replacement.

    Args:
        distance: a function of two sets.
        a_NF: one set.
        b_NF: the other.
        resamples: number of resamples, at least 2; each costs as much as the distance.
        rows: consecutive rows that are one sample and are drawn together: the frames of a clip
            resemble each other, and drawn one by one they would pass for more than they are.
        paired: whether the rows are pairs, as reconstructions and their originals are, and are
            drawn together when there are as many of them.
        seed: of the draws.

    Raises:
        DataError: fewer than two resamples.
    """
    if resamples < 2:
        raise DataError(f"a bootstrap needs at least 2 resamples, not {resamples}")
    rng = np.random.Generator(np.random.Philox(seed))
    values = []
    for _ in range(resamples):
        left = _drawn(rng, len(a_NF), rows)
        same = paired and len(a_NF) == len(b_NF)
        right = left if same else _drawn(rng, len(b_NF), rows)
        values.append(distance(a_NF[left], b_NF[right]))
    return float(np.std(values, ddof=1))


def _drawn(rng: np.random.Generator, total: int, rows: int) -> NDArray[np.int64]:
    samples = rng.integers(total // rows, size=total // rows)
    drawn: NDArray[np.int64] = (samples[:, None] * rows + np.arange(rows)).reshape(-1)
    return drawn


def inception_score(
    logits_NK: Given, *, splits: int = 10, shuffled: bool = True, seed: int = 2020
) -> float:
    """Inception score: exp of the mean KL of p(class | image) to p(class), the mean over splits.

    Args:
        logits_NK: classifier outputs before the softmax.
        splits: number of splits of nearly equal size; when negative, the size of consecutive
            splits, the last of which may be smaller.
        shuffled: whether rows are shuffled first, as torch-fidelity does it.
        seed: of that shuffle.

    Raises:
        DataError: fewer rows than splits.
        NonFiniteError: outputs that are not finite; says how many.
    """
    n = len(logits_NK)
    if n < max(splits, 1):
        raise DataError(f"an Inception score over {splits} splits needs as many images, not {n}")
    check_features({f"{OTHERS} (outputs of the classifier)": logits_NK})
    order = np.random.RandomState(seed).permutation(n) if shuffled else np.arange(n)
    bounds = [*range(0, n, -splits), n] if splits < 0 else [i * n // splits for i in range(splits)]
    if splits > 0:
        bounds.append(n)
    scores = []
    for first, last in itertools.pairwise(bounds):
        logits = np.asarray(logits_NK[order[first:last]], np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        with np.errstate(divide="ignore"):
            log_mean = np.log(p.mean(axis=0))
        # Where no image has a class at all, 0 * (-inf - -inf) is 0.
        divergence = np.where(p > 0, p * (log_p - log_mean), 0.0).sum(axis=1)
        scores.append(float(np.exp(divergence.mean())))
    return float(np.mean(scores))


def _blocks(features_NF: Given, rows: int = BLOCK) -> Iterator[Array]:
    """Rows in float64 copies of a fixed size; the last may be smaller."""
    for first in range(0, len(features_NF), rows):
        yield np.array(features_NF[first : first + rows], np.float64)


def _at_least_two(*sides: Given) -> None:
    if min(len(side) for side in sides) < 2:
        raise DataError("a distance of distributions needs at least 2 images on each side")


def _same_width(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    if left != right:
        raise DataError(
            f"{ORIGINALS} have features of shape {left}, {OTHERS} of {right}: both sides need the "
            "same network"
        )


def check_pair(originals_NF: Given, others_MF: Given) -> None:
    """Whether two sets of features can be compared.

    Raises:
        DataError: their widths differ.
        NonFiniteError: as `check_features`.
    """
    _same_width(originals_NF.shape[1:], others_MF.shape[1:])
    check_features({ORIGINALS: originals_NF, OTHERS: others_MF})


def check_features(sides: Mapping[str, Given]) -> None:
    """Whether all features are finite numbers that can be squared.

    Args:
        sides: what messages call a set -> its features (N, F).

    Raises:
        NonFiniteError: some are not; names each such side, how many of its rows, and the first.
    """
    found = []
    for side, features in sides.items():
        # The negation of a comparison that is false for NaN, too.
        bad = np.concatenate(
            [~(np.abs(block) <= LARGEST).all(axis=1) for block in _blocks(features)]
        ).nonzero()[0]
        if len(bad):
            finite = np.isfinite(np.asarray(features[bad], np.float64)).all()
            what = f"numbers beyond {LARGEST:g}" if finite else "NaN or infinity"
            found.append(
                f"{len(bad):,} of {len(features):,} feature vectors of {side} hold {what} "
                f"(the first is number {bad[0]}, counted from 0)"
            )
    if found:
        raise NonFiniteError(
            "; ".join(found) + ": check these pictures, and the precision of the network that made "
            "the features (float16 overflows at 65504)"
        )
