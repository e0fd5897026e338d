"""All metrics of an evaluation: update with uint8 images, then compute.

Metrics on pairs keep one score per sample. Metrics on distributions share one store: the features
of a backbone are computed once for the reconstructions, and once for the originals unless they are
known, however many metrics read them. Everything is combined at the end, in float64 and in the
order of the samples, so that batches and processes change nothing beyond the rounding of networks.

Clips are judged frame by frame. A score of a clip is the mean over its frames, and the metric is
the mean over clips, so that n counts independent samples. Distribution metrics see the frames of
all clips, pooled or frame index by frame index as the protocol says; some networks see whole clips.

Which function computes a metric, and what of the protocol it is given, is in the metric's record.

Shape suffixes: B samples of a batch, N all images or frames, T frames of a clip, F features.
"""

from __future__ import annotations

import difflib
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.errors import DataError, MetricError, NonFiniteError, SpecError
from vitok_core.features import feature_network, placed
from vitok_core.metrics._distances import bootstrap_error
from vitok_core.protocols import (
    METRICS,
    PROTOCOLS,
    Backbone,
    Metric,
    MetricGroup,
    Protocol,
    not_in_group,
    not_under,
)
from vitok_core.tokenizer import to_uint8

Array = NDArray[np.float64]
Given = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measured number, as its metric can have it.

    Attributes:
        name: key into `vitok_core.protocols.METRICS`.
        value: the number in the metric's unit; finite, and inside the metric's bounds as far as
            rounding goes.
        n: number of images, or of clips, behind it.
        se: its standard error over samples, or None where none was asked for or is known.
        note: what a reader of the number has to know, or "".

    Raises:
        NonFiniteError: the value is NaN or infinite.
        MetricError: the value is outside of the metric's bounds.
    """

    name: str
    value: float
    n: int
    se: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise NonFiniteError(f"{self.name} over {self.n} samples is {self.value}")
        metric = METRICS[self.name]
        if not metric.allows(self.value):
            raise MetricError(
                f"{self.name} over {self.n} samples is {self.value:g}, but it is {metric.range}: "
                f"nothing was recorded; look at {metric.function} and the samples it was given"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a `MetricSet` has collected.

    Attributes:
        n: number of samples.
        scores: metric on pairs -> scores (B, T) of each batch.
        originals: features -> those of each batch's originals; empty where they are known.
        others: features -> those of each batch's reconstructions.
    """

    n: int
    scores: Mapping[str, list[Tensor]]
    originals: Mapping[str, list[NDArray[np.float32]]]
    others: Mapping[str, list[NDArray[np.float32]]]


def protocol(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise SpecError("protocol", f"{name!r} is not a protocol; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def frames_of(samples: Tensor) -> Tensor:
    """Frames of clips (B, 3, T, H, W), clip after clip: (B * T, 3, H, W); images as they are."""
    return samples if samples.ndim == 4 else samples.transpose(1, 2).flatten(0, 1)


def backbone_of(features: str, rules: Protocol) -> Backbone:
    """The network behind some features under a protocol.

    Raises:
        SpecError: the protocol has no rule for them.
    """
    found = rules.backbone(features)
    if found is None:
        raise SpecError("features", f"protocol {rules.name} has no rule for features ({features})")
    return found


def rounded(x_hat: Tensor, rules: Protocol) -> Tensor:
    """Reconstructions in [-1, 1], clamped, as uint8 under a protocol."""
    if rules.rounding == "nearest":
        return to_uint8(x_hat)
    scaled = x_hat.float().clamp(-1.0, 1.0) * 127.5
    # Both conversions to bytes cut the fraction off.
    scaled = scaled + 128.0 if rules.rounding == "half-up" else scaled + 127.5
    return scaled.clamp(0, 255).to(torch.uint8)


class MetricSet:
    """All metrics of one evaluation, fed by the same batches; shares what they share.

    Args:
        names: keys into `vitok_core.protocols.METRICS`, each once; those of codes are not for it.
        protocol_name: key into `vitok_core.protocols.PROTOCOLS`.
        resolution: side of the images in pixels.
        frames: frames of a sample, 1 for images.
        group: "reconstruction" for pairs of originals and reconstructions (`update`), "generation"
            for generated samples (`add`), whose originals are known as `references` only.
        references: backbone -> features of all originals, of clips of all their frames, clip after
            clip, where they are known already.
        bootstrap: resamples for the standard error of distances between distributions; 0 for none.
        device: where the networks run.

    Raises:
        SpecError: an unknown metric or protocol, one that does not go with the other or with the
            group, a metric named twice, samples too small or short for one, or no reference for
            generated ones.
        WeightsError: a pretrained network that a metric needs is missing.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        protocol_name: str = "lite0",
        resolution: int,
        frames: int = 1,
        group: MetricGroup = "reconstruction",
        references: Mapping[str, NDArray[np.float32]] | None = None,
        bootstrap: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.protocol = protocol(protocol_name)
        check_metrics(names, protocol_name, resolution, frames, group)
        if bootstrap == 1 or bootstrap < 0:
            raise SpecError("bootstrap", f"bootstrap = {bootstrap}: 0 for none, or at least 2")
        self.names, self.frames, self.group = tuple(names), frames, group
        self.bootstrap, self.device = bootstrap, torch.device(device)
        used = [METRICS[name] for name in names]
        self.backbones = {
            features: backbone_of(features, self.protocol)
            for features in dict.fromkeys(one.features for one in used)
            if features is not None
        }
        self._networks = {
            features: placed(feature_network(backbone.name), self.device)
            for features, backbone in self.backbones.items()
        }
        self._wanted = {one.features for one in used if one.reference and one.features}
        self._known = dict(references or {})
        absent = sorted(self._wanted - self._known.keys())
        if group == "generation" and absent:
            raise SpecError(
                "references",
                f"generated samples are compared with features of originals, and those of "
                f"{', '.join(absent)} are not given; see reference_features",
            )
        self._scores: dict[str, list[Tensor]] = {
            name: [] for name in names if METRICS[name].of == "pairs"
        }
        # Of networks that compare pairs only the scores are kept.
        sets = [name for name, one in self.backbones.items() if one.sees != "pairs"]
        self._originals: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sets}
        self._others: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sets}
        self.n = 0

    def update(self, originals: Tensor, reconstructions: Tensor) -> None:
        """Add pairs of uint8 images, (B, 3, H, W) each, or of clips, (B, 3, T, H, W) each."""
        if originals.dtype != torch.uint8 or reconstructions.dtype != torch.uint8:
            raise ValueError("metrics are measured on uint8 images; see `rounded`")
        if originals.shape != reconstructions.shape:
            raise ValueError(f"{originals.shape} cannot be compared with {reconstructions.shape}")
        if (originals.shape[2] if originals.ndim == 5 else 1) != self.frames:
            raise ValueError(f"{originals.shape} does not hold samples of {self.frames} frame(s)")
        clips = [side.to(self.device) for side in (originals, reconstructions)]
        x, y = (frames_of(side) for side in clips)
        for name, scores in self._scores.items():
            scores.append(self._pair_scores(METRICS[name], x, y).reshape(len(originals), -1).cpu())
        for name, others in self._others.items():
            left, right = clips if self.backbones[name].sees == "clips" else (x, y)
            others.append(self._networks[name](right).cpu().numpy())
            if name in self._wanted and name not in self._known:
                self._originals[name].append(self._networks[name](left).cpu().numpy())
        self.n += len(originals)

    def add(self, samples: Tensor) -> None:
        """Add generated uint8 images, (B, 3, H, W), or clips, (B, 3, T, H, W)."""
        if self.group != "generation":
            raise ValueError("reconstructions are added with their originals; see `update`")
        if samples.dtype != torch.uint8:
            raise ValueError("metrics are measured on uint8 images; see `rounded`")
        if (samples.shape[2] if samples.ndim == 5 else 1) != self.frames:
            raise ValueError(f"{samples.shape} does not hold samples of {self.frames} frame(s)")
        clips = samples.to(self.device)
        for name, others in self._others.items():
            seen = clips if self.backbones[name].sees == "clips" else frames_of(clips)
            others.append(self._networks[name](seen).cpu().numpy())
        self.n += len(samples)

    def seen(self) -> Seen:
        """What has been added so far, as plain arrays, to be sent to another process."""
        return Seen(
            n=self.n,
            scores={name: list(parts) for name, parts in self._scores.items()},
            originals={name: list(parts) for name, parts in self._originals.items()},
            others={name: list(parts) for name, parts in self._others.items()},
        )

    def replace(self, parts: Sequence[Seen]) -> None:
        """Forget what was added, and take instead what these have seen, in their order."""
        self.n = sum(part.n for part in parts)
        for name in self._scores:
            self._scores[name] = [one for part in parts for one in part.scores[name]]
        for features in self._others:
            self._others[features] = [one for part in parts for one in part.others[features]]
            self._originals[features] = [one for part in parts for one in part.originals[features]]

    def compute(self) -> list[Measured]:
        """Every metric over all pairs so far, in the order of the names.

        Raises:
            DataError: too few pairs, or features of originals that are not those of these pairs.
            NonFiniteError: a value is not a finite number.
            MetricError: a value is outside of its metric's bounds.
        """
        for name in self.names:
            if self.n < METRICS[name].needs:
                raise DataError(f"{name} needs {METRICS[name].needs} images, there are {self.n}")
        store = _Store(self)
        return [self._measured(name, store) for name in self.names]

    def rules_of(self, metric: Metric) -> dict[str, Any]:
        """What a metric's function is given of the protocol."""
        return {name: getattr(self.protocol, rule) for name, rule in metric.rules.items()}

    def _pair_scores(self, metric: Metric, x: Tensor, y: Tensor) -> Tensor:
        given: dict[str, Any] = {} if metric.summary else self.rules_of(metric)
        if metric.features is not None:
            given["network"] = self._networks[metric.features]
        scores: Tensor = pkgutil.resolve_name(metric.function)(x, y, **given)
        return scores

    def _measured(self, name: str, store: _Store) -> Measured:
        if name in self._scores:
            value, se = self._mean(name)
            note = ""
        else:
            try:
                value, se, note = store.value(name)
            except NonFiniteError as error:
                raise NonFiniteError(f"{name}: {error}") from error
        return Measured(name=name, value=value, n=self.n, se=se, note=note)

    def _mean(self, name: str) -> tuple[float, float | None]:
        """Mean over samples, and its standard error."""
        metric, scores = METRICS[name], torch.cat(self._scores[name])
        if metric.summary:
            scores = pkgutil.resolve_name(metric.summary)(scores, **self.rules_of(metric))
            if scores.ndim == 0:
                return float(scores), None
        samples = scores.mean(dim=1).tolist()
        mean = math.fsum(samples) / self.n
        if self.n < 2:
            return mean, None
        variance = math.fsum((value - mean) ** 2 for value in samples) / (self.n - 1)
        return mean, math.sqrt(variance / self.n)


class _Store:
    """The features of a finished evaluation, and what several metrics read from them."""

    def __init__(self, measures: MetricSet) -> None:
        self.measures = measures
        self._results: dict[tuple[object, ...], Any] = {}
        self._originals: dict[str, Given] = {}
        self._others: dict[str, Given] = {}
        for name in measures._others:
            self._others[name] = np.concatenate(measures._others[name])
            if name in measures._wanted:
                known = measures._known.get(name)
                self._originals[name] = (
                    np.concatenate(measures._originals[name]) if known is None else known
                )
                self._check(name)

    def _check(self, name: str) -> None:
        known, found = self._originals[name], self._others[name]
        # Generated samples have no originals of their own, and may be more or fewer.
        if len(known) != len(found) and self.measures.group == "reconstruction":
            raise DataError(
                f"the reference holds features of {len(known)} images, but {len(found)} were "
                "reconstructed; compute the reference on the same images"
            )
        width = self.measures.backbones[name].width
        if known.shape[1:] != (width,):
            raise DataError(
                f"the reference holds {known.shape[1:]} features of an image, {name} has {width}"
            )

    def value(self, name: str) -> tuple[float, float | None, str]:
        """Value, standard error and note of one metric on distributions."""
        metric = METRICS[name]
        assert metric.features is not None
        parts = self._parts(metric.features)
        results = [self._one(metric, at, a, b) for at, (a, b) in enumerate(parts)]
        rows, width = min(len(side) for side in parts[0]), parts[0][1].shape[1]
        note = f"mean over {len(parts)} frame indices" if len(parts) > 1 else ""
        if metric.covariances and rows <= width:
            singular = (
                f"{rows} rows for {width} features: the covariances are singular and the value is "
                "biased; use more samples"
            )
            note = f"{note}; {singular}" if note else singular
        errors = [error for _, error in results]
        known = [error for error in errors if error is not None]
        se = math.sqrt(math.fsum(error**2 for error in known)) / len(parts) if known else None
        return math.fsum(value for value, _ in results) / len(parts), se, note

    def _parts(self, features: str) -> list[tuple[Given, Given]]:
        """Pairs of sets to compare: everything, or frame index by frame index."""
        others = self._others[features]
        originals = self._originals.get(features, others)
        frames, sees = self.measures.frames, self.measures.backbones[features].sees
        if frames == 1 or sees == "clips" or not self.measures.protocol.frames_apart:
            return [(originals, others)]
        return [(originals[at::frames], others[at::frames]) for at in range(frames)]

    def _one(self, metric: Metric, at: int, a: Given, b: Given) -> tuple[float, float | None]:
        """Value and standard error of a metric on one pair of sets."""
        measures = self.measures
        rules, paired = measures.rules_of(metric), measures.group == "reconstruction"
        given = {**rules, "paired": paired} if metric.tells_pairs else rules
        if metric.of_logits:
            b = self._logits(metric.features, b)
        if not metric.reference:
            a = b
        function = pkgutil.resolve_name(metric.function)

        def result(originals: Given, others: Given) -> Any:
            sets = (originals, others) if metric.reference else (others,)
            return function(*sets, **given)

        # Metrics that are parts of one result share it.
        key = (metric.function, metric.features, metric.reference, at, *rules.items())
        if key not in self._results:
            self._results[key] = result(a, b)
        found = self._results[key]
        value = float(getattr(found, metric.part) if metric.part else found)
        if not measures.bootstrap or not metric.resampled:
            return value, None
        rows = len(b) // measures.n
        return value, bootstrap_error(
            result, a, b, resamples=measures.bootstrap, rows=rows, paired=paired
        )

    def _logits(self, features: str | None, features_NF: Given) -> Array:
        """Outputs (N, K) of the classifier that a network has over its features."""
        network = self.measures._networks[str(features)]
        weight, bias = (part.double().cpu().numpy() for part in network.classifier())  # type: ignore[operator]  # nn.Module types every attribute as Tensor | Module
        logits: Array = np.asarray(features_NF, np.float64) @ weight.T
        if self.measures.protocol.inception_bias:
            logits += bias
        return logits


def check_metrics(
    names: Sequence[str],
    protocol_name: str,
    resolution: int,
    frames: int,
    group: MetricGroup = "reconstruction",
) -> None:
    """Whether these metrics can be measured under a protocol on such samples.

    Raises:
        SpecError: an unknown metric, one named twice, one of another group or that the protocol has
            no rules for, or samples too small or short for one.
    """
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SpecError(
                "metrics", f"{name!r} is not a metric; there are {', '.join(METRICS)}{hint}"
            )
        metric = METRICS[name]
        if why := not_in_group(name, group) or not_under(name, protocol_name):
            raise SpecError("metrics", why)
        if resolution < metric.smallest:
            raise SpecError(
                "metrics",
                f"{name} needs images of at least {metric.smallest} px, the resolution is "
                f"{resolution}",
            )
        if frames < metric.frames:
            raise SpecError(
                "metrics", f"{name} needs clips of at least {metric.frames} frames, not {frames}"
            )
    if len(set(names)) != len(names):
        raise SpecError("metrics", f"a metric is named twice in {', '.join(names)}")
