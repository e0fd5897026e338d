"""How well does a trained tokenizer reconstruct? Tokenizer and images in, measured numbers out.

Images go through the tokenizer by the mean of the posterior, come back clamped and rounded to
uint8, and are compared with their own originals. The same crops serve as reference and as input: a
reference of other crops is the commonest error in published reconstruction scores.

Features of the originals can be computed once (`reference_features`) and shared by every tokenizer
that is measured on the same images.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, NonFiniteError, SpecError, Stopped
from vitok_core.features import LITE0_FEATURES, Lite0
from vitok_core.metrics import Measured, MetricSet, protocol
from vitok_core.tokenizer import ViTok, from_uint8, to_uint8

SAMPLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateProgress:
    """How far an evaluation is.

    Attributes:
        done: images finished.
        total: images to do.
        images_per_s: since the start.
    """

    done: int
    total: int
    images_per_s: float


def reconstruct(
    tokenizer: ViTok,
    images: SampleSet,
    *,
    metrics: Sequence[str],
    protocol_name: str = "lite0",
    reference: Path | None = None,
    folder: Path,
    device: str | torch.device = "cpu",
    batch: int = 64,
    progress: Callable[[EvaluateProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Measured]:
    """Measure reconstructions of all images; write a few pairs for a picture.

    Args:
        tokenizer: moved to `device`.
        images: of the tokenizer's resolution.
        metrics: keys into `vitok_core.protocols.METRICS`.
        protocol_name: key into `vitok_core.protocols.PROTOCOLS`.
        reference: features.npy of the same images by `reference_features`, or None to compute them.
        folder: originals.npy and reconstructions.npy, uint8 (K, H, W, 3), of at most 16 images go
            there, one of each class among them; made if missing.
        device: where the networks run.
        batch: images at a time; changes no number beyond float rounding.
        progress: told after every batch.
        should_stop: asked before every batch.

    Returns:
        One value a metric, in the order of `metrics`.

    Raises:
        SpecError: unknown metric or protocol, a video tokenizer, or images of another resolution.
        WeightsError: a pretrained network is missing.
        DataError: too few images, or a reference that does not belong to them.
        NonFiniteError: a reconstruction or a value is not a finite number.
        Stopped: `should_stop` said so; an evaluation starts from its beginning again.
    """
    spec = tokenizer.spec
    if spec.frames != 1 or images.resolution != spec.resolution:
        raise SpecError(
            "resolution",
            f"{spec.variant} takes {spec.frames} frame(s) of {spec.resolution} px, the data set "
            f"holds single images of {images.resolution} px",
        )
    measures = MetricSet(
        metrics,
        protocol_name=protocol_name,
        resolution=images.resolution,
        reference_NF=None if reference is None else _read_features(reference),
        device=device,
    )
    tokenizer = tokenizer.to(device).eval()
    shown = _distinct(images, SAMPLES)
    kept: dict[int, NDArray[np.uint8]] = {}
    for indices in _batches(len(images), batch, progress, should_stop, "the evaluation"):
        originals = torch.from_numpy(images.batch(indices)).to(device)
        with torch.no_grad():
            x_hat = tokenizer(from_uint8(originals))
        # Before rounding: as bytes, what is not a number would look like black.
        if not torch.isfinite(x_hat).all():
            raise NonFiniteError(
                f"reconstructions of images {indices[0]} to {indices[-1]} hold values that are "
                "not finite; the weights are unusable, train again with a lower lr"
            )
        reconstructions = to_uint8(x_hat)
        measures.update(originals, reconstructions)
        for index in shown[np.isin(shown, indices)]:
            picture = reconstructions[index - indices[0]].permute(1, 2, 0)
            kept[int(index)] = picture.cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "originals.npy", np.asarray(images.samples[shown]))
    _save(folder / "reconstructions.npy", np.stack([kept[int(index)] for index in shown]))
    return measures.compute()


def reference_features(
    images: SampleSet,
    *,
    protocol_name: str = "lite0",
    folder: Path,
    device: str | torch.device = "cpu",
    batch: int = 64,
    progress: Callable[[EvaluateProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Write features.npy, float32 (N, 1280), of the originals under a protocol; return its path.

    Raises:
        SpecError: unknown protocol.
        WeightsError: the feature network is missing.
        Stopped: `should_stop` said so; nothing was written.
    """
    protocol(protocol_name)
    network = Lite0().to(device)
    features = np.empty((len(images), LITE0_FEATURES), np.float32)
    for indices in _batches(len(images), batch, progress, should_stop, "the features"):
        originals = torch.from_numpy(images.batch(indices)).to(device)
        features[indices] = network(originals).cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "features.npy"
    _save(path, features)
    return path


def _batches(
    total: int,
    batch: int,
    progress: Callable[[EvaluateProgress], None] | None,
    should_stop: Callable[[], bool] | None,
    what: str,
) -> Iterator[NDArray[np.int64]]:
    """Consecutive indices, asking before and telling after every batch."""
    if batch < 1:
        raise SpecError("batch", f"batch = {batch}: must be at least 1")
    start = time.perf_counter()
    for first in range(0, total, batch):
        if should_stop is not None and should_stop():
            raise Stopped(f"{what} stopped at image {first} of {total}; it starts again from 0")
        done = min(first + batch, total)
        yield np.arange(first, done)
        if progress is not None:
            speed = done / max(time.perf_counter() - start, 1e-9)
            progress(EvaluateProgress(done=done, total=total, images_per_s=speed))


def _distinct(images: SampleSet, count: int) -> NDArray[np.int64]:
    """Up to `count` indices: one image of every class, in their order, then the first others.

    Of a class it is the one with the most contrast among its first few: half of the crops of a
    photograph are sky or shadow, and show nothing of what a tokenizer loses.
    """
    firsts = []
    for label in np.unique(images.labels)[:count]:
        some = np.flatnonzero(images.labels == label)[:SAMPLES]
        contrast = [float(np.asarray(images.samples[index]).std()) for index in some]
        firsts.append(int(some[int(np.argmax(contrast))]))
    others = np.setdiff1d(np.arange(min(len(images), count + len(firsts))), firsts)
    return np.asarray([*firsts, *others[: count - len(firsts)]], np.int64)


def _read_features(path: Path) -> NDArray[np.float32]:
    try:
        features: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the reference {path} cannot be read: {error}") from error
    if features.dtype != np.float32 or features.shape[1:] != (LITE0_FEATURES,):
        raise DataError(
            f"the reference {path} holds {features.dtype} {features.shape}; expected float32 "
            f"(images, {LITE0_FEATURES})"
        )
    return features


def _save(path: Path, array: NDArray[np.uint8] | NDArray[np.float32]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
