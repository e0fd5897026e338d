"""Metrics of generated samples: distances between their distribution and that of originals.

Samples have no originals of their own. Their features, extracted batch by batch, are compared with
the features of originals that `reference_features` has computed once for all generators; there may
be more or fewer originals than samples. How samples become bytes is the protocol's rule, as for
reconstructions, and has happened before: samples are uint8 here, usually mapped from disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitok_core.data import SampleSet
from vitok_core.evaluate._batches import EvaluateProgress, each_batch
from vitok_core.evaluate._reference import read_features, save
from vitok_core.features import convolutions
from vitok_core.files import replacing
from vitok_core.metrics import Measured, MetricSet, protocol
from vitok_core.ranks import collected, from_first

KEPT = 64
"""Samples that stay as samples.npy; the first ones."""

ROWS, COLUMNS = 16, 8
"""Classes of a samples grid, and samples of each (or frames of one clip)."""


@convolutions("fp32")
def measure_generation(
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    protocol_name: str = "lite0",
    references: Mapping[str, Path] | None = None,
    bootstrap: int = 0,
    folder: Path,
    device: str | torch.device = "cpu",
    batch: int = 64,
    progress: Callable[[EvaluateProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Measured]:
    """Measure generated samples; keep the first ones and a samples grid by class.

    Where torch.distributed is initialised, the processes share the samples, every one returns the
    values, and the first writes the files.

    Args:
        samples: generated images or clips with the labels they were asked for.
        metrics: keys into `vitok_core.protocols.METRICS` that are of the group "generation".
        protocol_name: key into `vitok_core.protocols.PROTOCOLS`.
        references: features -> features.npy of originals by `reference_features`, for every
            set that the metrics compare with.
        bootstrap: resamples for the standard error of distances between distributions, at least 2;
            0 for none. Each costs as much as the distance.
        folder: samples.npy, uint8 (K, H, W, 3), of clips (K, T, H, W, 3), of at most 64 samples,
            and sheet.png go there; made if missing.
        device: where the networks run.
        batch: images, or frames of whole clips, at a time; changes no number beyond float rounding.
        progress: called after every batch.
        should_stop: called before every batch.

    Returns:
        One value per metric, in the order of `metrics`.

    Raises:
        SpecError: unknown metric or protocol, one of reconstructions, or a reference that is not
            given.
        WeightsError: a pretrained network is missing.
        DataError: too few samples, or a reference that does not belong to the protocol.
        NonFiniteError: a value is not a finite number.
        Stopped: `should_stop` said so; the measuring starts from its beginning again.
    """
    rules = protocol(protocol_name)
    measures = MetricSet(
        metrics,
        protocol_name=protocol_name,
        resolution=samples.resolution,
        frames=samples.frames,
        group="generation",
        references={
            name: read_features(path, name, rules) for name, path in (references or {}).items()
        },
        bootstrap=bootstrap,
        device=device,
    )

    def look(indices: NDArray[np.int64]) -> None:
        measures.add(torch.from_numpy(samples.batch(indices)).to(device))

    each_batch(
        samples,
        look,
        batch=batch,
        progress=progress,
        should_stop=should_stop,
        what="the evaluation",
    )
    parts = collected(measures.seen())

    def write() -> list[Measured]:
        measures.replace(parts)
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / "samples.npy", np.asarray(samples.samples[:KEPT]))
        write_class_sheet(folder / "sheet.png", samples)
        return measures.compute()

    return from_first(write)


def write_class_sheet(path: Path, samples: SampleSet) -> None:
    """A PNG grid of the first samples of each of up to 16 classes, one row per class.

    Of clips a row is one clip, by up to 8 frames spread over it. Samples without classes fill the
    rows in their order. Written whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    from PIL import Image

    columns = COLUMNS if samples.frames == 1 else 1
    shown = _by_class(samples.labels, columns)
    pictures = np.asarray(samples.samples[shown.clip(0)])
    pictures[shown < 0] = 0  # a class with fewer samples than columns
    if samples.frames > 1:
        count = min(samples.frames, COLUMNS)
        pictures = pictures[:, np.arange(count) * samples.frames // count]
    side = samples.resolution
    cells = pictures.reshape(len(shown) // columns, -1, side, side, 3)
    sheet = cells.transpose(0, 2, 1, 3, 4).reshape(len(cells) * side, -1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def _by_class(labels: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Indices of the samples of a grid, row by row; -1 where a class has no more."""
    classes = np.unique(labels)
    if len(classes) == 1:
        shown = np.arange(columns * min(ROWS, -(-len(labels) // columns)))
        return np.where(shown < len(labels), shown, -1)
    classes = classes[np.arange(min(len(classes), ROWS)) * len(classes) // min(len(classes), ROWS)]
    rows = np.full((len(classes), columns), -1)
    for row, label in enumerate(classes):
        own = np.flatnonzero(labels == label)[:columns]
        rows[row, : len(own)] = own
    return rows.reshape(-1)
