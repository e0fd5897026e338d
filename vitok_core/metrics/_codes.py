"""Metrics of codes: cheap numbers about how good they are to generate in.

Codes here are posterior means in float64, one array for all samples. None of these numbers looks at
a pixel; how codes answer to transformed images needs the tokenizer, see `vitok_core.evaluate`.

Shape suffixes: N samples, L tokens, C channels, T, H, W the grid of tokens, D numbers of a code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitok_core.errors import DataError, NonFiniteError

Array = NDArray[np.float64]

FOLDS = 10
RIDGE = 1e-3
"""Weight of the penalty, as a share of the mean eigenvalue of what it is added to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What the codes of all samples come to; the metrics of codes are functions of it.

    Attributes:
        kl_N: KL of each sample, mean over its numbers, nat.
        mean_C: mean of drawn codes over samples and tokens.
        variance_C: their variance.
        errors_N2: of a metric that moves codes: squared error of each sample, and the variance of
            its image; empty otherwise.
        codes_NLC: means of the codes of the first samples, where a metric keeps them.
        labels_N: of those.
        grid: tokens in time, height and width.
    """

    kl_N: Array
    mean_C: Array
    variance_C: Array
    errors_N2: Array
    codes_NLC: Array
    labels_N: NDArray[np.int64]
    grid: tuple[int, int, int]


Value = tuple[float, float | None]
"""A number and its standard error where that is known."""


def kl(codes: Codes) -> Value:
    """KL of the posteriors to a unit Gaussian in nat, mean over samples, tokens and channels."""
    n = len(codes.kl_N)
    mean = math.fsum(codes.kl_N.tolist()) / n
    return mean, float(codes.kl_N.std(ddof=1)) / math.sqrt(n) if n > 1 else None


def gaussianity_of(codes: Codes) -> Value:
    """`gaussianity` of drawn codes."""
    return gaussianity(codes.mean_C, codes.variance_C), None


def relative_error(codes: Codes) -> Value:
    """Squared error of moved codes over the variance of the images: the ratio of the means.

    A flat image has next to no variance of its own, so single ratios would mean little.
    """
    errors, variances = (math.fsum(codes.errors_N2[:, at].tolist()) for at in range(2))
    return errors / max(variances, 1e-12), None


def spectrum_of(codes: Codes) -> Value:
    """`spectrum_slope` of the codes that are kept."""
    return spectrum_slope(codes.codes_NLC.reshape(len(codes.codes_NLC), *codes.grid, -1)), None


def probe_of(codes: Codes) -> Value:
    """`linear_probe` on the codes that are kept, with its binomial standard error."""
    n = len(codes.codes_NLC)
    value = linear_probe(codes.codes_NLC.reshape(n, -1), codes.labels_N)
    return value, math.sqrt(value * (1 - value) / n)


def gaussianity(mean_C: Array, variance_C: Array) -> float:
    """KL in nats of a Gaussian with these moments to a unit one, mean over channels.

    Raises:
        DataError: a channel that does not vary.
        NonFiniteError: moments that are not finite.
    """
    _check_codes(np.stack([mean_C, variance_C], axis=1), "channels")
    if not (variance_C > 0).all():
        dead = int((variance_C <= 0).sum())
        raise DataError(f"{dead} of {len(variance_C)} channels never change; their KL is infinite")
    return float(0.5 * np.mean(mean_C**2 + variance_C - 1.0 - np.log(variance_C)))


def spectrum_slope(codes_NTHWC: Array) -> float:
    """Slope of log2 power against log2 frequency over the last two axes of the grid.

    Power is the squared magnitude of the discrete Fourier transform of each channel, the mean of
    the channel taken away, averaged over samples, steps in time and channels (each scaled to unit
    variance) and over rings of equal whole frequency, 1 to half the shorter side. The line is
    fitted by least squares, every ring counting alike. 0 for white noise, about -2 for images.

    Raises:
        DataError: a grid with fewer than 4 tokens per side has no two rings.
        NonFiniteError: codes that are not finite; says how many.
    """
    _check_codes(codes_NTHWC.reshape(len(codes_NTHWC), -1), "codes")
    height, width = codes_NTHWC.shape[2:4]
    highest = min(height, width) // 2
    if highest < 2:
        raise DataError(
            f"the spectrum of a code needs a grid of at least 4 x 4 tokens, not {height} x {width}"
        )
    centred = codes_NTHWC - codes_NTHWC.mean(axis=(0, 1, 2, 3))
    deviation = centred.std(axis=(0, 1, 2, 3))
    varying = deviation > 0
    if not varying.any():
        raise DataError("the codes never change; they have no spectrum")
    centred = centred[..., varying] / deviation[varying]
    power = np.zeros((height, width))
    for code in centred:
        power += (np.abs(np.fft.fft2(code, axes=(1, 2))) ** 2).sum(axis=(0, 3))
    rows, columns = np.fft.fftfreq(height) * height, np.fft.fftfreq(width) * width
    # Frequencies in cycles over the shorter side, so that grids that are not square have rings too.
    side = min(height, width)
    ring = np.rint(np.hypot(rows[:, None] * side / height, columns * side / width)).astype(int)
    rings = np.arange(1, highest + 1)
    mean_power = np.array([power[ring == one].mean() for one in rings])
    if not (mean_power > 0).all():
        raise DataError("a frequency of the codes has no power at all; there is no slope")
    return float(np.polyfit(np.log2(rings), np.log2(mean_power), 1)[0])


def linear_probe(codes_ND: Array, labels_N: NDArray[np.int64]) -> float:
    """Accuracy of a linear probe from codes to labels, on samples that it was not fitted to.

    Ridge regression to one-hot labels, in closed form, over ten folds: sample i is in fold i mod
    10, and each fold is predicted by a probe fitted to the others. Codes are standardised by the
    mean and deviation of the samples fitted to. With more numbers in a code than samples the dual
    form is solved. Deterministic.

    Raises:
        DataError: fewer than 20 samples, or only one label.
        NonFiniteError: codes that are not finite; says how many.
    """
    _check_codes(codes_ND, "codes")
    n = len(codes_ND)
    classes, targets = np.unique(labels_N, return_inverse=True)
    if n < 2 * FOLDS or len(classes) < 2:
        raise DataError(
            f"a linear probe needs at least {2 * FOLDS} samples of at least 2 labels, there are "
            f"{n} of {len(classes)}"
        )
    fold, right = np.arange(n) % FOLDS, 0
    one_hot = np.eye(len(classes))[targets]
    for one in range(FOLDS):
        fitted, held = codes_ND[fold != one], codes_ND[fold == one]
        mean, deviation = fitted.mean(axis=0), fitted.std(axis=0)
        deviation[deviation == 0] = 1.0
        x, held = (fitted - mean) / deviation, (held - mean) / deviation
        wanted = one_hot[fold != one]
        offset = wanted.mean(axis=0)
        predicted = held @ _ridge(x, wanted - offset) + offset
        right += int((predicted.argmax(axis=1) == targets[fold == one]).sum())
    return right / n


def _check_codes(rows: Array, what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"{len(bad):,} of {len(rows):,} {what} hold NaN or infinity (the first is number "
            f"{bad[0]}, counted from 0): check the samples and the tokenizer that made the codes"
        )


def _ridge(x_ND: Array, y_NK: Array) -> Array:
    samples, width = x_ND.shape
    if width <= samples:
        gram = x_ND.T @ x_ND
        penalty = RIDGE * np.trace(gram) / width
        return np.asarray(np.linalg.solve(gram + penalty * np.eye(width), x_ND.T @ y_NK))
    gram = x_ND @ x_ND.T
    penalty = RIDGE * np.trace(gram) / samples
    return np.asarray(x_ND.T @ np.linalg.solve(gram + penalty * np.eye(samples), y_NK))
