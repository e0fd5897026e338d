"""Computes latents: every sample is encoded once, and written batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped
from vitok_core.latents._part import Part
from vitok_core.latents._posteriors import Posteriors
from vitok_core.latents._read import WEIGHTS_FILE
from vitok_core.latents._stored import DTYPES, rounded
from vitok_core.ranks import from_first, share_out
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

    Inside of `vitok_core.ranks.distributed` every process calls this with the same arguments and
    gets the result; they share the batches, and the first one writes the files, which are the same
    byte for byte for any number of processes.

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
        progress: called in the first process with (done, total) before every turn of batches, one
            for each process, and at the end; mirrored copies count.
        should_stop: called before every turn, in every process.

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
    names = ["mean.npy", *(["logvar.npy"] if spec.bottleneck in ("kl", "noise") else [])]
    batches = _batches(len(samples), 2 if flip else 1, batch)
    rows = batches[-1].stop
    part = Part(folder, made_by, (rows, spec.tokens, spec.c), dtype, batch)
    posteriors = Posteriors(folder, names, part, spec, dtype)

    def report(number: int) -> None:
        if progress is not None:
            progress(left[number].start if number < len(left) else rows, rows)

    with posteriors:
        done = from_first(posteriors.open)
        left = [one for one in batches if one.start >= done]
        finished = share_out(
            left,
            lambda one: _encoded(tokenizer, samples, one, dtype, device),
            posteriors.write,
            report=report,
            should_stop=should_stop,
        )
        if not finished:
            kept = "they are kept" if part.kept else "nothing was written"
            safe = from_first(lambda: posteriors.done)
            raise Stopped(f"computing latents stopped at {safe} of {rows}; {kept}")
        found, sha256 = from_first(
            lambda: posteriors.finish(samples.labels, normalisation, len(samples))
        )
    tokenizer.normalisation = found
    weights = folder / WEIGHTS_FILE
    from_first(lambda: save_tokenizer(tokenizer, weights, about))
    return LatentsInfo(
        weights=weights,
        samples=len(samples),
        mirrored=flip,
        tokens=spec.tokens,
        c=spec.c,
        normalisation=found,
        sha256=sha256,
        arrays_bytes=from_first(lambda: sum((folder / name).stat().st_size for name in sha256)),
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


def _batches(samples: int, copies: int, batch: int) -> list[range]:
    """Rows of the arrays that are computed together: of all samples, then of all mirrored ones."""
    return [
        range(copy * samples + first, copy * samples + min(first + batch, samples))
        for copy in range(copies)
        for first in range(0, samples, batch)
    ]


@torch.no_grad()
def _encoded(
    tokenizer: ViTok,
    samples: SampleSet,
    rows: range,
    dtype: StoredType,
    device: str | torch.device,
) -> Posterior:
    """The posteriors of a batch as they will be read again, on the CPU."""
    copy, first = divmod(rows.start, len(samples))
    indices = np.arange(first, first + len(rows))
    pixels = torch.from_numpy(samples.batch(indices, np.full(len(rows), copy == 1))).to(device)
    exact = rounded(tokenizer.encode(from_uint8(pixels)), dtype)
    posterior = Posterior(
        mean=exact.mean.cpu(), logvar=None if exact.logvar is None else exact.logvar.cpu()
    )
    for values in (posterior.mean, posterior.logvar):
        if values is not None and not torch.isfinite(values).all():
            raise NonFiniteError(
                f"codes of samples {rows.start} to {rows.stop - 1} are not all numbers; the "
                "tokenizer's weights are broken"
            )
    return posterior
