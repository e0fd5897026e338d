"""All metrics of a tokenizer's reconstructions, in one pass over the samples.

Images or clips go through the tokenizer by the mean of the posterior, come back clamped and rounded
to uint8, and are compared with their own originals. The same crops serve as reference and as input:
a reference of other crops is the commonest error in published reconstruction scores.

Features of the originals can be computed once (`reference_features`) and shared by every tokenizer
that is measured on the same samples. Clips are judged frame by frame, see `vitok_core.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitok_core.data import SampleSet
from vitok_core.errors import NonFiniteError, SpecError
from vitok_core.evaluate._batches import EvaluateProgress, each_batch
from vitok_core.evaluate._codes import CodeSet
from vitok_core.evaluate._reference import read_features, save
from vitok_core.features import convolutions
from vitok_core.metrics import Measured, MetricSet, check_metrics, protocol, rounded
from vitok_core.protocols import METRICS
from vitok_core.ranks import collected, from_first
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok, from_uint8

SAMPLES = 16


@convolutions("fp32")
def reconstruct(
    tokenizer: ViTok,
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    protocol_name: str = "lite0",
    references: Mapping[str, Path] | None = None,
    length: int | None = None,
    bootstrap: int = 0,
    folder: Path,
    device: str | torch.device = "cpu",
    batch: int = 64,
    progress: Callable[[EvaluateProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Measured]:
    """Measure reconstructions of all samples; write a few pairs for a picture.

    Where torch.distributed is initialised, the processes share the samples, every one returns the
    values, and the first writes the files.

    Args:
        tokenizer: moved to `device`.
        samples: images or clips of the tokenizer's resolution and number of frames.
        metrics: keys into `vitok_core.protocols.METRICS`.
        protocol_name: key into `vitok_core.protocols.PROTOCOLS`.
        references: features -> features.npy of the same samples by `reference_features`; those that
            are missing are computed.
        length: first tokens of the code that are used, 1 to all of them, for a tokenizer trained
            with several lengths; None uses all.
        bootstrap: resamples for the standard error of distances between distributions, at least 2;
            0 for none. Each costs as much as the distance.
        folder: originals.npy and reconstructions.npy, uint8 (K, H, W, 3), of clips
            (K, T, H, W, 3), of at most 16 samples go there, one of each class among them; made if
            missing.
        device: where the networks run.
        batch: images, or frames of whole clips, at a time; changes no number beyond float rounding.
        progress: called after every batch.
        should_stop: called before every batch.

    Returns:
        One value per metric, in the order of `metrics`.

    Raises:
        SpecError: unknown metric or protocol, samples of another shape than the tokenizer's, or a
            length that its code cannot be cut to.
        WeightsError: a pretrained network is missing.
        DataError: too few samples, or a reference that does not belong to them.
        NonFiniteError: a reconstruction or a value is not a finite number.
        Stopped: `should_stop` said so; an evaluation starts from its beginning again.
    """
    _check(tokenizer.spec, samples, length)
    rules = protocol(protocol_name)
    check_metrics(metrics, protocol_name, samples.resolution, samples.frames)
    of_codes = [name for name in metrics if METRICS[name].of == "codes"]
    known = {name: read_features(path, name, rules) for name, path in (references or {}).items()}
    measures = MetricSet(
        [name for name in metrics if name not in of_codes],
        protocol_name=protocol_name,
        resolution=samples.resolution,
        frames=samples.frames,
        references=known,
        bootstrap=bootstrap,
        device=device,
    )
    tokenizer = tokenizer.to(device).eval()
    codes = CodeSet(tokenizer, of_codes, length=length) if of_codes else None
    shown = _distinct(samples, SAMPLES)
    kept: dict[int, NDArray[np.uint8]] = {}

    def look(indices: NDArray[np.int64]) -> None:
        originals = torch.from_numpy(samples.batch(indices)).to(device)
        x = from_uint8(originals)
        with torch.no_grad():
            x_hat, posterior = tokenizer(x, keep=length)
        # Before rounding: as bytes, what is not a number would look like black.
        if not torch.isfinite(x_hat).all():
            raise NonFiniteError(
                f"reconstructions of samples {indices[0]} to {indices[-1]} hold values that are "
                "not finite; the weights are unusable, train again with a lower lr"
            )
        reconstructions = rounded(x_hat, rules)
        measures.update(originals, reconstructions)
        if codes is not None:
            codes.update(x, posterior, samples.labels[indices])
        for index in shown[np.isin(shown, indices)]:
            picture = reconstructions[index - indices[0]].movedim(0, -1)
            kept[int(index)] = picture.cpu().numpy()

    each_batch(
        samples,
        look,
        batch=batch,
        progress=progress,
        should_stop=should_stop,
        what="the evaluation",
    )
    parts = collected((measures.seen(), codes.seen() if codes is not None else None, kept))

    def write() -> list[Measured]:
        pictures = {index: picture for part in parts for index, picture in part[2].items()}
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / "originals.npy", np.asarray(samples.samples[shown]))
        save(folder / "reconstructions.npy", np.stack([pictures[int(index)] for index in shown]))
        measures.replace([part[0] for part in parts])
        found = {one.name: one for one in measures.compute()}
        if codes is not None:
            codes.replace([part[1] for part in parts if part[1] is not None])
            found |= {one.name: one for one in codes.compute()}
        return [found[name] for name in metrics]

    return from_first(write)


def _check(spec: TokenizerSpec, samples: SampleSet, length: int | None) -> None:
    if (spec.frames, spec.resolution) != (samples.frames, samples.resolution):
        raise SpecError(
            "resolution",
            f"{spec.variant} takes {spec.frames} frame(s) of {spec.resolution} px, the data set "
            f"holds samples of {samples.frames} frame(s) of {samples.resolution} px",
        )
    if length is not None:
        spec.check_length(length)


def _distinct(samples: SampleSet, count: int) -> NDArray[np.int64]:
    """Up to `count` indices: one sample of every class, in their order, then the first others.

    Of a class it is the one with the most contrast among its first few: half of the crops of a
    photograph are sky or shadow, and show nothing of what a tokenizer loses.
    """
    firsts = []
    for label in np.unique(samples.labels)[:count]:
        some = np.flatnonzero(samples.labels == label)[:SAMPLES]
        contrast = [float(np.asarray(samples.samples[index]).std()) for index in some]
        firsts.append(int(some[int(np.argmax(contrast))]))
    others = np.setdiff1d(np.arange(min(len(samples), count + len(firsts))), firsts)
    return np.asarray([*firsts, *others[: count - len(firsts)]], np.int64)
