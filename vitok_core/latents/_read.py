"""What a generator is trained on: posteriors read from disk by rows, and their normalization."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitok_core.data import RowFile, map_rows, row_reader
from vitok_core.errors import DataError
from vitok_core.latents._stored import DTYPES, as_float32
from vitok_core.tokenizer import Normalisation, load_tokenizer

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """The posteriors of a few samples.

    Attributes:
        mean: float32, (B, L, c).
        logvar: float32, (B, L, c); None for a code that is not random.
        labels: int64, (B,).
    """

    mean: NDArray[np.float32]
    logvar: NDArray[np.float32] | None
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSet:
    """The posteriors of a data set, mapped from disk, read-only.

    Attributes:
        mean: as it is stored, float32 or bfloat16 (see `_stored`), (N or 2N, L, c); of 2N, the
            second half are the mirrored samples.
        logvar: the same; None for codes that are not random.
        labels: int64, (N,).
        normalisation: of drawn codes, see `vitok_core.tokenizer.Normalisation`.
        weights: path of the tokenizer whose codes these are.
        files: where mean and logvar are on disk; None for those in memory.
    """

    mean: NDArray[Any]
    logvar: NDArray[Any] | None
    labels: NDArray[np.int64]
    normalisation: Normalisation
    weights: Path
    files: tuple[RowFile | None, RowFile | None] = (None, None)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def mirrored(self) -> bool:
        """Whether the mirrored samples are there too."""
        return len(self.mean) == 2 * len(self.labels)

    @property
    def tokens(self) -> int:
        """L, tokens of a code."""
        return int(self.mean.shape[1])

    @property
    def c(self) -> int:
        """Channels of a token."""
        return int(self.mean.shape[2])

    def batch(self, indices: NDArray[np.int64], flips: NDArray[np.bool_] | None = None) -> Latents:
        """A copy of some posteriors; of samples with a True in `flips`, those of the mirrored one.

        Several rows are read at the same time.

        Raises:
            DataError: a mirrored sample was asked for and the set has none; or a file was cut off.
            OSError: a file cannot be read.
        """
        rows = indices
        if flips is not None and flips.any():
            if not self.mirrored:
                raise DataError(
                    "these latents have no mirrored copies; compute them with flip, or train "
                    "without"
                )
            rows = indices + flips * len(self)
        return Latents(
            mean=_rows(self.mean, self.files[0], rows),
            logvar=None if self.logvar is None else _rows(self.logvar, self.files[1], rows),
            labels=self.labels[indices],
        )


def open_latents(folder: Path) -> LatentSet:
    """Map what `compute_latents` wrote.

    Raises:
        DataError: a file is missing or does not hold what it should.
        WeightsError: the tokenizer's file is missing or cannot be read.
    """
    tokenizer = load_tokenizer(folder / WEIGHTS_FILE)
    spec, normalisation = tokenizer.spec, tokenizer.normalisation
    if normalisation is None:
        raise DataError(f"{folder / WEIGHTS_FILE} has no statistics; compute the latents again")
    random = spec.bottleneck in ("kl", "noise")
    (mean, mean_file), (labels, _) = _mapped(folder / "mean.npy"), _mapped(folder / "labels.npy")
    logvar, logvar_file = _mapped(folder / "logvar.npy") if random else (None, None)
    arrays = [mean] if logvar is None else [mean, logvar]
    fits = labels.ndim == 1 and labels.dtype == np.int64
    for array in arrays:
        fits = fits and array.dtype in DTYPES.values() and array.dtype == mean.dtype
        fits = fits and array.shape[1:] == (spec.tokens, spec.c)
        fits = fits and len(array) == len(mean) and len(array) in (len(labels), 2 * len(labels))
    if not fits:
        held = ", ".join(f"{array.dtype} {array.shape}" for array in (*arrays, labels))
        raise DataError(
            f"{folder} holds arrays {held}; expected float32 or bfloat16 (N or 2N, {spec.tokens}, "
            f"{spec.c}) and int64 (N,); compute the latents again"
        )
    return LatentSet(
        mean=mean,
        logvar=logvar,
        labels=labels,
        normalisation=normalisation,
        weights=folder / WEIGHTS_FILE,
        files=(mean_file, logvar_file),
    )


def _rows(
    array: NDArray[Any], file: RowFile | None, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    with row_reader(array, file) as fill:
        fill(rows, out)
    return as_float32(out)


def _mapped(path: Path) -> tuple[NDArray[Any], RowFile | None]:
    try:
        return map_rows(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; compute the latents first") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}; compute the latents again") from error
