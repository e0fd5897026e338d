"""Samples of a generator and a tokenizer: noise, sampler, codes, decoder, uint8.

    noise (N, L, c) -> sampler with guidance -> normalised codes -> codes -> samples, uint8

Everything random is a function of (seed, index of the sample): which noise it starts from and, for
samplers that add more, which noise each step adds. How many samples are made together, on which
device and in which call changes results by float rounding only. `sample_to_file` relies on that: it
resumes where an interrupted call ended, in the same batches, so that the file is the same byte for
byte.

Shape suffixes: N all samples, B of a batch, L tokens, C channels of the code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.diffusion import (
    ddim,
    ddpm,
    euler,
    guided,
    respaced,
    spaced_times,
)
from vitok_core.dit import DiT
from vitok_core.errors import NonFiniteError, SpecError, Stopped
from vitok_core.files import write_json
from vitok_core.ranks import from_first, share_out
from vitok_core.settings import Sampling
from vitok_core.spec import DiTSpec
from vitok_core.tokenizer import ViTok, to_uint8

SYNC_S = 1.0
"""Least seconds between two times that a file of samples is made safe on disk."""


def sample(
    dit: DiT,
    tokenizer: ViTok,
    labels: Sequence[int] | NDArray[np.int64],
    *,
    sampling: Sampling,
    seed: int,
    first: int = 0,
    batch: int = 64,
    device: str | torch.device = "cpu",
    to_bytes: Callable[[Tensor], Tensor] = to_uint8,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.uint8]:
    """Make one image or clip for every label.

    Args:
        dit: the generator; moved to `device`.
        tokenizer: whose codes it generates, with its normalisation; moved to `device`.
        labels: one for each sample, 0 to `classes`; `classes` itself means none, and is the only
            one of an unconditional generator (0).
        sampling: sampler, steps, guidance.
        seed: from 0 to 2^63 - 1.
        first: index of the first sample, whose noise follows from (seed, first): several calls can
            make parts of one set.
        batch: samples at a time.
        device: where both run.
        to_bytes: how decoded samples in [-1, 1] and beyond become uint8.
        progress: called with (done, total) after every batch.
        should_stop: asked before every batch.

    Returns:
        uint8, (N, H, W, 3), or (N, T, H, W, 3) from a video tokenizer, as `SampleSet` holds them.

    Raises:
        SpecError: settings or labels out of range, a generator of other codes than the
            tokenizer's, or a tokenizer without normalisation.
        NonFiniteError: codes or pixels that are not numbers.
        Stopped: `should_stop` said so.
    """
    spec = tokenizer.spec
    if (dit.spec.tokens, dit.spec.c) != (spec.tokens, spec.c):
        raise SpecError(
            "grid",
            f"this DiT makes codes of {dit.spec.tokens} tokens and {dit.spec.c} channels, the "
            f"tokenizer {spec.variant} decodes {spec.tokens} tokens of {spec.c}",
        )
    if tokenizer.normalisation is None:
        raise SpecError(
            "normalisation",
            "the tokenizer has no statistics of its codes; use the weights.safetensors that "
            "compute_latents wrote next to the latents this generator was trained on",
        )
    tokenizer.to(device).eval()
    time = () if spec.frames == 1 else (spec.frames,)
    made = np.empty((len(labels), *time, spec.resolution, spec.resolution, 3), np.uint8)
    for rows, z_BLC in _codes(
        dit, labels, sampling, seed, first, batch, device, progress, should_stop
    ):
        with torch.no_grad():
            x = tokenizer.decode(tokenizer.denormalise(z_BLC))
        # Before rounding: as bytes, what is not a number would look like black.
        if not bool(x.isfinite().all()):
            raise NonFiniteError(
                f"decoded samples {first + rows.start} to {first + rows.stop - 1} are not all "
                "numbers; lower cfg, or train again with a lower lr"
            )
        made[rows] = to_bytes(x).movedim(1, -1).cpu().numpy()
    return made


def sample_to_file(
    path: Path,
    dit: DiT,
    tokenizer: ViTok,
    labels: Sequence[int] | NDArray[np.int64],
    *,
    sampling: Sampling,
    seed: int,
    made_by: Mapping[str, Any],
    batch: int = 64,
    device: str | torch.device = "cpu",
    to_bytes: Callable[[Tensor], Tensor] = to_uint8,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.uint8]:
    """As `sample`, batch by batch into a .npy file; resumes where an interrupted call ended.

    Inside of `vitok_core.ranks.distributed` every process calls this with the same arguments and
    gets the result; they share the batches, and the first one writes the file, which is the same
    byte for byte for any number of processes.

    Beside the file, `progress_of(path)` says how many samples are safe on disk and what they were
    made by. Samples of anything else are made again. Memory is needed for one batch only.

    Args:
        path: of the .npy; its folder is made if missing.
        dit: see `sample`, as for all that is not named here.
        tokenizer: see `sample`.
        labels: see `sample`.
        sampling: see `sample`.
        seed: see `sample`.
        made_by: plain data that tells these models from others, such as hashes of their files.
        batch: samples at a time; with another one the samples are made again.
        device: where both run.
        to_bytes: how decoded samples become uint8; `made_by` has to tell which.
        progress: called in the first process with (done, total) after every turn of batches, one
            for each process.
        should_stop: asked before every turn, in every process.

    Returns:
        What `sample` returns, mapped from the file, read-only.

    Raises:
        SpecError: see `sample`.
        NonFiniteError: see `sample`; what was made before stays.
        Stopped: `should_stop` said so; what was made stays.
        OSError: the disk is full or the folder cannot be written.
    """
    spec, labels = tokenizer.spec, np.asarray(labels)
    clip = () if spec.frames == 1 else (spec.frames,)
    shape = (len(labels), *clip, spec.resolution, spec.resolution, 3)
    identity = {
        "made_by": dict(made_by),
        "sampling": json.loads(json.dumps(dataclasses.asdict(sampling))),
        "seed": seed,
        "batch": batch,
        "labels": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
        "shape": list(shape),
    }
    file = _SampleFile(path, identity)

    def compute(rows: range) -> NDArray[np.uint8]:
        return sample(
            dit,
            tokenizer,
            labels[rows.start : rows.stop],
            sampling=sampling,
            seed=seed,
            first=rows.start,
            batch=batch,
            device=device,
            to_bytes=to_bytes,
        )

    def report(number: int) -> None:
        if progress is not None and number:
            progress(left[number - 1].stop, len(labels))

    with file:
        done = from_first(file.open)
        starts = range(done, len(labels), max(batch, 1))
        left = [range(start, min(start + batch, len(labels))) for start in starts]
        finished = share_out(left, compute, file.write, report=report, should_stop=should_stop)
        safe = from_first(file.close)
    if not finished:
        raise Stopped(f"sampling stopped at {safe} of {len(labels)}; they are kept")
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


class _SampleFile:
    """The .npy file of the first process; nothing is touched before `open`.

    Attributes:
        done: samples that are written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._identity = path, identity
        self._file: IO[bytes] | None = None
        self.done = self._safe = 0
        self._synced = 0.0

    def __enter__(self) -> _SampleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> int:
        """Open it behind the samples that are known to be safe and of this identity; how many."""
        shape = self._identity["shape"]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.done = self._safe = _made_before(self._path, self._identity)
        self._file = self._path.open("r+b" if self.done else "w+b")
        np.lib.format.write_array_header_2_0(
            self._file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        )
        # What follows the samples that are known to be safe is written again.
        self._file.seek(self.done * math.prod(shape[1:]), os.SEEK_CUR)
        self._file.truncate()
        self._synced = time.monotonic()
        return self.done

    def write(self, made: NDArray[np.uint8]) -> None:
        """Add the next batch; about once a second what was written is made safe."""
        assert self._file is not None
        self._file.write(made.data)
        self.done += len(made)
        if time.monotonic() - self._synced >= SYNC_S:
            self._sync()

    def close(self) -> int:
        """Make safe what was written; how many samples that is."""
        if self._file is not None:
            try:
                if self.done > self._safe:
                    self._sync()
            finally:
                self._file.close()
                self._file = None
        return self.done

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        # Only now: what it says has to be there.
        write_json(progress_of(self._path), {"identity": self._identity, "done": self.done})
        self._safe, self._synced = self.done, time.monotonic()


def balanced_labels(count: int, classes: int) -> NDArray[np.int64]:
    """Labels for `count` samples, (N,): every class in turn, or 0 (none) without classes."""
    return np.arange(count, dtype=np.int64) % max(classes, 1)


def progress_of(path: Path) -> Path:
    """The file next to a file of samples that says how far it is."""
    return path.with_suffix(".json")


def _made_before(path: Path, identity: Mapping[str, Any]) -> int:
    """How many samples of the file are safe and of this identity."""
    try:
        state = json.loads(progress_of(path).read_text())
    except (OSError, ValueError):
        return 0  # none, or damaged: made again
    if not isinstance(state, dict) or state.get("identity") != identity or not path.is_file():
        return 0
    done: int = state["done"]
    held = path.stat().st_size // math.prod(identity["shape"][1:])
    return done if held >= done else 0


def sample_codes(
    dit: DiT,
    labels: Sequence[int] | NDArray[np.int64],
    *,
    sampling: Sampling,
    seed: int,
    first: int = 0,
    batch: int = 64,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """As `sample`, but the normalised codes themselves: float32, (N, L, c)."""
    made = np.empty((len(labels), dit.spec.tokens, dit.spec.c), np.float32)
    for rows, z_BLC in _codes(
        dit, labels, sampling, seed, first, batch, device, progress, should_stop
    ):
        made[rows] = z_BLC.cpu().numpy()
    return made


@torch.no_grad()
def _codes(
    dit: DiT,
    labels: Sequence[int] | NDArray[np.int64],
    sampling: Sampling,
    seed: int,
    first: int,
    batch: int,
    device: str | torch.device,
    progress: Callable[[int, int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Iterator[tuple[slice, Tensor]]:
    """Normalised codes (B, L, C) on the device, batch by batch, and which samples they are."""
    spec = dit.spec
    sampling.check(spec.target, spec.classes)
    labels_N = torch.as_tensor(np.asarray(labels))
    _check_labels(labels_N, spec)
    if batch < 1 or first < 0 or not 0 <= seed < 2**63:
        raise SpecError(
            "batch",
            f"batch = {batch}, first = {first} and seed = {seed}: needed are at least 1, at least "
            "0, and a seed from 0 to 2^63 - 1",
        )
    dit.to(device).eval()
    for start in range(0, len(labels_N), batch):
        if should_stop is not None and should_stop():
            raise Stopped(f"sampling stopped at {start} of {len(labels_N)}")
        rows = slice(start, min(start + batch, len(labels_N)))
        source = _NoiseSource(seed, range(first + rows.start, first + rows.stop), spec, device)
        z_BLC = _sampled(dit, labels_N[rows].to(device), sampling, source)
        if not bool(z_BLC.isfinite().all()):
            raise NonFiniteError(
                f"codes of samples {rows.start} to {rows.stop - 1} are not all numbers; lower cfg "
                "or use precision fp32"
            )
        yield rows, z_BLC
        if progress is not None:
            progress(rows.stop, len(labels_N))


def _sampled(dit: DiT, labels_B: Tensor, sampling: Sampling, source: _NoiseSource) -> Tensor:
    """Codes of one batch; the first draw of the noise is where they start."""
    spec = dit.spec

    def network(x_BLC: Tensor, time_B: Tensor, labels_B: Tensor | None) -> Tensor:
        with torch.autocast(x_BLC.device.type, torch.bfloat16, sampling.precision == "bf16"):
            predicted: Tensor = dit(x_BLC, time_B, labels_B)
        return predicted

    predict = guided(
        network,
        labels_B if spec.classes else None,
        null=dit.null,
        scale=sampling.cfg,
        interval=sampling.cfg_interval,
    )
    sampler = sampling.sampler_for(spec.target)
    start_BLC = source.draw(0)
    if sampler == "euler":
        return euler(predict, start_BLC, steps=sampling.steps)
    schedule = respaced(spaced_times(sampling.steps, sampling.spacing))

    def noise(index: int) -> Tensor:
        return source.draw(1 + index)

    if sampler == "ddpm":
        return ddpm(predict, start_BLC, target=spec.target, schedule=schedule, noise=noise)
    return ddim(
        predict, start_BLC, target=spec.target, schedule=schedule, eta=sampling.eta, noise=noise
    )


class _NoiseSource:
    """Standard normal noise that follows from (seed, index of the sample, draw) alone."""

    def __init__(
        self, seed: int, indices: range, spec: DiTSpec, device: str | torch.device
    ) -> None:
        self._seed, self._indices, self._device = seed, indices, device
        self._shape = (spec.tokens, spec.c)
        # On the CPU, so that every device starts from the same noise.
        self._generator = torch.Generator()

    def draw(self, number: int) -> Tensor:
        """(B, L, C) float32 on the device."""
        noise = []
        for index in self._indices:
            bits = np.random.Philox(key=[self._seed, index], counter=[0, 0, 0, number])
            self._generator.manual_seed(int(bits.random_raw()) >> 1)
            noise.append(torch.randn(self._shape, generator=self._generator))
        return torch.stack(noise).to(self._device)


def _check_labels(labels_N: Tensor, spec: DiTSpec) -> None:
    whole = not labels_N.is_floating_point() and labels_N.dtype != torch.bool
    if labels_N.ndim != 1 or not len(labels_N) or not whole:
        raise SpecError("labels", "labels must be a row of at least one whole number")
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 0 or high > spec.classes:
        raise SpecError(
            "labels",
            f"labels from {low} to {high}: this DiT has {spec.classes} classes, so labels go from "
            f"0 to {spec.classes}, the last of which means none",
        )
