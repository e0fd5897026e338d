"""Computes latents: every sample is encoded once, and written batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped
from vitok_core.latents._part import Part, Unfinished
from vitok_core.latents._read import WEIGHTS_FILE
from vitok_core.latents._stored import DTYPES, as_stored, rounded
from vitok_core.settings import StoredType
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Mode, Normalisation, Posterior, ViTok, from_uint8, save_tokenizer


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
    dtype: StoredType = "float32",
    device: str | torch.device = "cpu",
    batch: int = 64,
    made_by: Mapping[str, Any] | None = None,
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
        dtype: how they are stored; "bfloat16" takes half the disk, and the statistics are then
            those of the rounded posteriors.
        device: where the tokenizer runs.
        batch: samples at a time.
        made_by: plain data that tells this tokenizer and these samples from others, such as hashes
            of their files: an interrupted call of the same is resumed. None starts over and
            leaves nothing behind when it is interrupted.
        about: plain data for the tokenizer's file, see `vitok_core.tokenizer.save_tokenizer`.
        progress: called with (done, total) before every batch and at the end; mirrored copies
            count.
        should_stop: called before every batch.

    Raises:
        DataError: samples of another shape than the tokenizer's.
        SpecError: an unknown normalisation or dtype, a batch below 1, or a constant code that the
            normalisation would divide by its deviation of 0.
        NonFiniteError: a code that is not a number.
        Stopped: `should_stop` said so.
        OSError: the disk is full or the folder cannot be written.
    """
    spec = tokenizer.spec
    _check(spec, samples, normalisation, dtype, batch)
    tokenizer.to(device).eval()
    copies = 2 if flip else 1
    shape = (copies * len(samples), spec.tokens, spec.c)
    random = spec.bottleneck in ("kl", "noise")
    names = ["mean.npy", *(["logvar.npy"] if random else []), "labels.npy"]
    folder.mkdir(parents=True, exist_ok=True)
    part = Part(folder, made_by, shape, dtype, batch)
    done, statistics = part.found(spec.c)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(Unfinished(folder / name, part=part.kept)) for name in names[:-1]
        ]
        for file in files:
            file.begin(
                _npy_header(shape, DTYPES[dtype]),
                done * DTYPES[dtype].itemsize * spec.tokens * spec.c,
            )
        stack.callback(lambda: part.save(done, statistics, files))
        for exact in _encoded(tokenizer, samples, copies, batch, device, done):
            _report(done, shape[0], part.kept, progress, should_stop)
            posterior = rounded(exact, dtype)
            _write_posterior(files, posterior, dtype, done)
            statistics.add(posterior)
            done += len(posterior.mean)
            if part.due():
                part.save(done, statistics, files)
        labels_file = stack.enter_context(Unfinished(folder / "labels.npy"))
        labels = np.ascontiguousarray(samples.labels, np.int64)
        labels_file.begin(_npy_header(labels.shape, labels.dtype), 0)
        labels_file.write(labels.data)
        found = statistics.normalisation(normalisation, samples=len(samples)).check(spec)
        # From here on the folder changes; until the tokenizer is there, it cannot be opened.
        part.forget()
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


def _check(
    spec: TokenizerSpec, samples: SampleSet, normalisation: Mode, dtype: StoredType, batch: int
) -> None:
    if normalisation not in get_args(Mode):
        modes = ", ".join(get_args(Mode))
        raise SpecError(
            "normalisation", f"normalisation = {normalisation!r}: choose one of {modes}"
        )
    if dtype not in DTYPES:
        raise SpecError("dtype", f"dtype = {dtype!r}: choose one of {', '.join(DTYPES)}")
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
    done: int,
) -> Iterator[Posterior]:
    """The posteriors of all samples and then, with two copies, of all mirrored ones.

    Those of the first `done` rows, which end with a batch, are left out.
    """
    for copy in range(copies):
        for first in range(0, len(samples), batch):
            if copy * len(samples) + first < done:
                continue
            indices = np.arange(first, min(first + batch, len(samples)))
            flips = np.full(len(indices), copy == 1)
            pixels = torch.from_numpy(samples.batch(indices, flips)).to(device)
            yield tokenizer.encode(from_uint8(pixels))


def _write_posterior(
    files: Sequence[Unfinished], posterior: Posterior, dtype: StoredType, done: int
) -> None:
    for file, values in zip(files, (posterior.mean, posterior.logvar), strict=False):
        assert values is not None  # the bottleneck decides how many files there are
        if not torch.isfinite(values).all():
            raise NonFiniteError(
                f"codes of samples {done} to {done + len(values) - 1} are not all numbers; the "
                "tokenizer's weights are broken"
            )
        file.write(as_stored(values, dtype).data)


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    from io import BytesIO

    header = BytesIO()
    np.lib.format.write_array_header_2_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
    return header.getvalue()


def _report(
    done: int,
    total: int,
    kept: bool,
    progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    if should_stop is not None and should_stop():
        left = "they are kept" if kept else "nothing was written"
        raise Stopped(f"computing latents stopped at {done} of {total}; {left}")
    if progress is not None:
        progress(done, total)
