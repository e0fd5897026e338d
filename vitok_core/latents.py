"""What codes does a generator learn from? The posteriors of a data set, computed once, on disk.

Encoding a sample costs as much as a training step of a small generator, and a tokenizer does not
change any more; so the posterior of every sample is computed once and mapped into memory. Stored
are its parameters, mean and log-variance in float32, not a draw from it: every epoch draws anew.
With mirroring, the mirrored samples are encoded too and stand behind the others.

    mean.npy             float32 (N or 2N, L, c)
    logvar.npy           the same; not there for tokenizers whose code is not random
    labels.npy           int64 (N,)
    weights.safetensors  the tokenizer, with the statistics of exactly these codes inside

Generators are trained on normalised codes. The statistics that normalise them are those of DRAWN
codes, not of means: the variance of a channel is var(mean) + mean(posterior variance), over samples
and tokens, in float64. They live inside the tokenizer's file, where decoding finds them: codes that
are normalised for training and decoded as they are give noise.

Writing needs memory for one batch only, whatever the number of samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import (
    Mode,
    Normalisation,
    Posterior,
    ViTok,
    from_uint8,
    load_tokenizer,
    save_tokenizer,
)

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsInfo:
    """What `compute_latents` has written.

    Attributes:
        weights: path of the tokenizer with its normalisation.
        samples: N, number of samples, mirrored copies not counted.
        mirrored: whether every sample was encoded mirrored as well.
        tokens: L, tokens of a code.
        c: channels of a token.
        normalisation: the statistics of drawn codes, and how they are used.
        sha256: of each file of arrays, by its name.
        arrays_bytes: size of these files.
    """

    weights: Path
    samples: int
    mirrored: bool
    tokens: int
    c: int
    normalisation: Normalisation
    sha256: Mapping[str, str]
    arrays_bytes: int


def compute_latents(
    tokenizer: ViTok,
    samples: SampleSet,
    folder: Path,
    *,
    normalisation: Mode,
    flip: bool,
    device: str | torch.device = "cpu",
    batch: int = 64,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LatentsInfo:
    """Encode all samples and write posteriors, labels and the tokenizer with its statistics.

    Args:
        tokenizer: moved to `device`, set to evaluation, given the normalisation.
        samples: images or clips of the tokenizer's shape.
        folder: where the files go; made if missing. Each is written whole or not at all, the
            tokenizer last.
        normalisation: "none", "scalar" (one standard deviation) or "per-channel" (mean and standard
            deviation of every channel); the statistics are stored in each case.
        flip: whether every sample is encoded mirrored left-right too, for training with mirroring.
        device: where the tokenizer runs.
        batch: samples at a time.
        about: plain data for the tokenizer's file, see `vitok_core.tokenizer.save_tokenizer`.
        progress: told (done, total) before every batch and at the end; mirrored copies count.
        should_stop: asked before every batch.

    Raises:
        DataError: samples of another shape than the tokenizer's.
        SpecError: an unknown normalisation, a batch below 1, or a constant code that the
            normalisation would divide by its deviation of 0.
        NonFiniteError: a code that is not a number.
        Stopped: `should_stop` said so; nothing was written.
        OSError: the disk is full or the folder cannot be written.
    """
    spec = tokenizer.spec
    _check(spec, samples, normalisation, batch)
    tokenizer.to(device).eval()
    copies = 2 if flip else 1
    shape = (copies * len(samples), spec.tokens, spec.c)
    statistics = _Statistics(spec.c)
    names = ["mean.npy", "labels.npy"]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        mean_file = stack.enter_context(_Unfinished(folder / "mean.npy"))
        logvar_file = None
        if spec.bottleneck in ("kl", "noise"):
            logvar_file = stack.enter_context(_Unfinished(folder / "logvar.npy"))
            names.insert(1, "logvar.npy")
        files = [file for file in (mean_file, logvar_file) if file is not None]
        for file in files:
            file.write(_npy_header(shape, "<f4"))
        done = 0
        for posterior in _encoded(tokenizer, samples, copies, batch, device):
            _report(done, shape[0], progress, should_stop)
            _write_posterior(mean_file, logvar_file, posterior, done)
            statistics.add(posterior)
            done += len(posterior.mean)
        labels_file = stack.enter_context(_Unfinished(folder / "labels.npy"))
        labels = np.ascontiguousarray(samples.labels, np.int64)
        labels_file.write(_npy_header(labels.shape, "<i8"))
        labels_file.write(labels.data)
        found = statistics.normalisation(normalisation, samples=len(samples)).check(spec)
        # From here on the folder changes; until the tokenizer is there, it cannot be opened.
        for stale in ("logvar.npy", WEIGHTS_FILE):
            (folder / stale).unlink(missing_ok=True)
        sha256 = {file.path.name: file.finish() for file in (*files, labels_file)}
    tokenizer.normalisation = found
    weights = folder / WEIGHTS_FILE
    save_tokenizer(tokenizer, weights, about)
    if progress is not None:
        progress(shape[0], shape[0])
    return LatentsInfo(
        weights=weights,
        samples=len(samples),
        mirrored=flip,
        tokens=spec.tokens,
        c=spec.c,
        normalisation=found,
        sha256=sha256,
        arrays_bytes=sum((folder / name).stat().st_size for name in names),
    )


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
        mean: float32, (N or 2N, L, c); of 2N, the second half are the mirrored samples.
        logvar: float32, the same shape; None for codes that are not random.
        labels: int64, (N,).
        normalisation: of drawn codes, see `vitok_core.tokenizer.Normalisation`.
        weights: path of the tokenizer whose codes these are.
    """

    mean: NDArray[np.float32]
    logvar: NDArray[np.float32] | None
    labels: NDArray[np.int64]
    normalisation: Normalisation
    weights: Path

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

        Raises:
            DataError: a mirrored sample was asked for and the set has none.
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
            mean=self.mean[rows],
            logvar=None if self.logvar is None else self.logvar[rows],
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
    mean, labels = _mapped(folder / "mean.npy"), _mapped(folder / "labels.npy")
    logvar = _mapped(folder / "logvar.npy") if random else None
    arrays = [mean] if logvar is None else [mean, logvar]
    fits = labels.ndim == 1 and labels.dtype == np.int64
    for array in arrays:
        fits = fits and array.dtype == np.float32 and array.shape[1:] == (spec.tokens, spec.c)
        fits = fits and len(array) == len(mean) and len(array) in (len(labels), 2 * len(labels))
    if not fits:
        held = ", ".join(f"{array.dtype} {array.shape}" for array in (*arrays, labels))
        raise DataError(
            f"{folder} holds arrays {held}; expected float32 (N or 2N, {spec.tokens}, {spec.c}) "
            "and int64 (N,); compute the latents again"
        )
    return LatentSet(
        mean=mean,
        logvar=logvar,
        labels=labels,
        normalisation=normalisation,
        weights=folder / WEIGHTS_FILE,
    )


class _Statistics:
    """Mean and variance of drawn codes a channel, merged batch by batch (Chan et al. 1983)."""

    def __init__(self, c: int) -> None:
        self.count = 0
        self.mean_C = torch.zeros(c, dtype=torch.float64)
        self.squares_C = torch.zeros(c, dtype=torch.float64)  # of means around their mean
        self.variances_C = torch.zeros(c, dtype=torch.float64)  # sum of posterior variances

    def add(self, posterior: Posterior) -> None:
        values_NC = posterior.mean.flatten(0, 1).double().cpu()
        count, mean_C = len(values_NC), values_NC.mean(dim=0)
        apart_C, total = mean_C - self.mean_C, self.count + count
        self.squares_C += (values_NC - mean_C).square().sum(dim=0)
        self.squares_C += apart_C.square() * self.count * count / total
        self.mean_C += apart_C * count / total
        self.count = total
        if posterior.logvar is not None:
            self.variances_C += posterior.logvar.flatten(0, 1).double().exp().sum(dim=0).cpu()

    def normalisation(self, mode: Mode, *, samples: int) -> Normalisation:
        variance_C = (self.squares_C + self.variances_C) / self.count
        mean = float(self.mean_C.mean())
        # Over all values: the channels' own variance, and that between their means.
        std = math.sqrt(float((variance_C + (self.mean_C - mean).square()).mean()))
        return Normalisation(
            mode=mode,
            mean_C=self.mean_C.float(),
            std_C=variance_C.sqrt().float(),
            mean=mean,
            std=std,
            samples=samples,
        )


class _Unfinished:
    """A file under a temporary name until `finish`; deleted if that never comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._hash = hashlib.sha256()
        self._file: IO[bytes]

    def __enter__(self) -> _Unfinished:
        self._file = self._temporary.open("wb")
        return self

    def write(self, data: bytes | memoryview) -> None:
        # Written, not memory-mapped: a full disk is then an error and not a bus error.
        self._file.write(data)
        self._hash.update(data)

    def finish(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.replace(self.path)
        return self._hash.hexdigest()

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def _check(spec: TokenizerSpec, samples: SampleSet, normalisation: Mode, batch: int) -> None:
    if normalisation not in get_args(Mode):
        modes = ", ".join(get_args(Mode))
        raise SpecError(
            "normalisation", f"normalisation = {normalisation!r}: choose one of {modes}"
        )
    if batch < 1:
        raise SpecError("batch", f"batch = {batch}: must be at least 1")
    if (samples.frames, samples.resolution) != (spec.frames, spec.resolution):
        raise DataError(
            f"the samples have {samples.frames} frames of {samples.resolution} px, the tokenizer "
            f"takes {spec.frames} of {spec.resolution} px; prepare the data set in that shape"
        )


@torch.no_grad()
def _encoded(
    tokenizer: ViTok,
    samples: SampleSet,
    copies: int,
    batch: int,
    device: str | torch.device,
) -> Iterator[Posterior]:
    """The posteriors of all samples and then, with two copies, of all mirrored ones."""
    for copy in range(copies):
        for first in range(0, len(samples), batch):
            indices = np.arange(first, min(first + batch, len(samples)))
            flips = np.full(len(indices), copy == 1)
            pixels = torch.from_numpy(samples.batch(indices, flips)).to(device)
            yield tokenizer.encode(from_uint8(pixels))


def _write_posterior(
    mean_file: _Unfinished, logvar_file: _Unfinished | None, posterior: Posterior, done: int
) -> None:
    parts: list[tuple[_Unfinished | None, Tensor | None]] = [
        (mean_file, posterior.mean),
        (logvar_file, posterior.logvar),
    ]
    for file, values in parts:
        if file is None or values is None:
            continue
        array = np.ascontiguousarray(values.float().cpu().numpy(), "<f4")
        if not np.isfinite(array).all():
            raise NonFiniteError(
                f"codes of samples {done} to {done + len(array) - 1} are not all numbers; the "
                "tokenizer's weights are broken"
            )
        file.write(array.data)


def _npy_header(shape: tuple[int, ...], descr: str) -> bytes:
    from io import BytesIO

    header = BytesIO()
    np.lib.format.write_array_header_2_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def _report(
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    if should_stop is not None and should_stop():
        raise Stopped(f"computing latents stopped at {done} of {total}; nothing was written")
    if progress is not None:
        progress(done, total)


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; compute the latents first") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}; compute the latents again") from error
    return array
