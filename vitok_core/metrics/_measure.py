"""How good are reconstructions and samples? Accumulators: update with uint8 images, then compute.

Metrics on pairs keep one score a sample. Metrics on distributions share one store: the features of
a backbone are computed once for the reconstructions, and once for the originals unless they are
known, however many metrics read them. Everything is combined at the end, in float64 and in the
order of the samples, so that batches and processes have no say beyond the rounding of networks.

Clips are judged frame by frame. A score of a clip is the mean over its frames, and the metric is
the mean over clips, so that n counts independent samples. Distribution metrics see the frames of
all clips, pooled or frame index by frame index as the protocol says; I3D and VideoMAE see whole
clips.

Shape suffixes: B samples of a batch, N all images or frames, T frames of a clip, F features.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitok_core.errors import DataError, NonFiniteError, SpecError
from vitok_core.features import feature_network, lpips_network
from vitok_core.metrics._distances import (
    bootstrap_error,
    frechet_distance,
    frechet_infinity,
    gaussian_kernel_distance,
    inception_score,
    kernel_distance,
)
from vitok_core.metrics._neighbours import Cover, cover
from vitok_core.metrics._pairs import ms_ssim, psnr_of, squared_error, ssim
from vitok_core.protocols import (
    FEATURE_WIDTHS,
    METRICS,
    PROTOCOLS,
    SEE_CLIPS,
    Features,
    MetricGroup,
    Protocol,
    not_in_group,
    not_under,
)
from vitok_core.tokenizer import from_uint8, to_uint8

Array = NDArray[np.float64]
Given = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measured number.

    Attributes:
        name: key into `vitok_core.protocols.METRICS`.
        value: the number in the metric's unit; always finite.
        n: number of images, or of clips, behind it.
        se: its standard error over samples, or None where none was asked for or is known.
        note: what a reader of the number has to know, or "".
    """

    name: str
    value: float
    n: int
    se: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a `MetricSet` has collected.

    Attributes:
        n: number of samples.
        scores: metric on pairs -> scores (B, T) of each batch.
        originals: backbone -> features of each batch's originals; empty where they are known.
        others: backbone -> features of each batch's reconstructions.
    """

    n: int
    scores: Mapping[str, list[Tensor]]
    originals: Mapping[Features, list[NDArray[np.float32]]]
    others: Mapping[Features, list[NDArray[np.float32]]]


def protocol(name: str) -> Protocol:
    """Look a protocol up.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise SpecError("protocol", f"{name!r} is no protocol; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def frames_of(samples: Tensor) -> Tensor:
    """Frames of clips (B, 3, T, H, W), clip after clip: (B * T, 3, H, W); images as they are."""
    return samples if samples.ndim == 4 else samples.transpose(1, 2).flatten(0, 1)


def network_of(features: Features, rules: Protocol) -> nn.Module:
    """The network that computes a backbone's features under a protocol.

    Raises:
        WeightsError: its weights are not there.
    """
    if features in ("dinov2", "clip", "i3d", "videomae"):
        return feature_network(features)
    return feature_network(rules.network)


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
        self._lpips: nn.Module | None = None
        if any(one.features == "alex" for one in used):
            self._lpips = lpips_network("alex").to(self.device)
        self._networks: dict[Features, nn.Module] = {}
        for one in used:
            if one.of == "features" and one.features and one.features not in self._networks:
                self._networks[one.features] = network_of(one.features, self.protocol).to(
                    self.device
                )
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
        self._originals: dict[Features, list[NDArray[np.float32]]] = {
            name: [] for name in self._networks
        }
        self._others: dict[Features, list[NDArray[np.float32]]] = {
            name: [] for name in self._networks
        }
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
            scores.append(self._pair_scores(name, x, y).reshape(len(originals), -1).cpu())
        for name, network in self._networks.items():
            left, right = clips if name in SEE_CLIPS else (x, y)
            self._others[name].append(network(right).cpu().numpy())
            if name in self._wanted and name not in self._known:
                self._originals[name].append(network(left).cpu().numpy())
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
        for name, network in self._networks.items():
            seen = clips if name in SEE_CLIPS else frames_of(clips)
            self._others[name].append(network(seen).cpu().numpy())
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
        for features in self._networks:
            self._others[features] = [one for part in parts for one in part.others[features]]
            self._originals[features] = [one for part in parts for one in part.originals[features]]

    def compute(self) -> list[Measured]:
        """Every metric over all pairs so far, in the order of the names.

        Raises:
            DataError: too few pairs, or features of originals that are not those of these pairs.
            NonFiniteError: a value is not a finite number.
        """
        for name in self.names:
            if self.n < METRICS[name].needs:
                raise DataError(f"{name} needs {METRICS[name].needs} images, there are {self.n}")
        store = _Store(self)
        return [self._measured(name, store) for name in self.names]

    def _pair_scores(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        if name == "psnr":
            return squared_error(x, y)
        if name == "ssim":
            return ssim(x, y, self.protocol.ssim_border)
        if name == "ms_ssim":
            return ms_ssim(x, y)
        assert self._lpips is not None
        with torch.no_grad():
            scores: Tensor = self._lpips(from_uint8(y), from_uint8(x)).reshape(-1)
        return scores.double()

    def _measured(self, name: str, store: _Store) -> Measured:
        if name in self._scores:
            value, se = self._mean(name)
            note = ""
        else:
            value, se, note = store.value(name)
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} over {self.n} images is {value}")
        return Measured(name=name, value=value, n=self.n, se=se, note=note)

    def _mean(self, name: str) -> tuple[float, float | None]:
        """Mean over samples, and its standard error."""
        scores = torch.cat(self._scores[name])
        if name == "psnr" and self.protocol.psnr_over == "all":
            return float(psnr_of(torch.tensor(math.fsum(scores.flatten()) / scores.numel()))), None
        samples = (psnr_of(scores) if name == "psnr" else scores).mean(dim=1).tolist()
        mean = math.fsum(samples) / self.n
        if self.n < 2:
            return mean, None
        variance = math.fsum((value - mean) ** 2 for value in samples) / (self.n - 1)
        return mean, math.sqrt(variance / self.n)


class _Store:
    """The features of a finished evaluation, and what several metrics read from them."""

    def __init__(self, measures: MetricSet) -> None:
        self.measures = measures
        self._covers: dict[int, Cover] = {}
        self._originals: dict[Features, Given] = {}
        self._others: dict[Features, Given] = {}
        for name in measures._networks:
            self._others[name] = np.concatenate(measures._others[name])
            if name in measures._wanted:
                known = measures._known.get(name)
                self._originals[name] = (
                    np.concatenate(measures._originals[name]) if known is None else known
                )
                self._check(name)

    def _check(self, name: Features) -> None:
        known, found = self._originals[name], self._others[name]
        # Generated samples have no originals of their own, and may be more or fewer.
        if len(known) != len(found) and self.measures.group == "reconstruction":
            raise DataError(
                f"the reference holds features of {len(known)} images, but {len(found)} were "
                "reconstructed; compute the reference on the same images"
            )
        if known.shape[1:] != (FEATURE_WIDTHS[name],):
            raise DataError(
                f"the reference holds {known.shape[1:]} features of an image, {name} has "
                f"{FEATURE_WIDTHS[name]}"
            )

    def value(self, name: str) -> tuple[float, float | None, str]:
        """Value, standard error and note of one metric on distributions."""
        features = METRICS[name].features
        assert features is not None
        parts = self._parts(features)
        results = [self._one(name, at, a, b) for at, (a, b) in enumerate(parts)]
        rows = min(len(side) for side in parts[0])
        note = f"mean over {len(parts)} frame indices" if len(parts) > 1 else ""
        if name[1:].startswith(_FRECHET) and rows <= FEATURE_WIDTHS[features]:
            singular = (
                f"{rows} rows for {FEATURE_WIDTHS[features]} features: the covariances are "
                "singular and the value is biased; use more samples"
            )
            note = f"{note}; {singular}" if note else singular
        errors = [error for _, error in results]
        known = [error for error in errors if error is not None]
        se = math.sqrt(math.fsum(error**2 for error in known)) / len(parts) if known else None
        return math.fsum(value for value, _ in results) / len(parts), se, note

    def _parts(self, features: Features) -> list[tuple[Given, Given]]:
        """Pairs of sets to compare: everything, or frame index by frame index."""
        others = self._others[features]
        originals = self._originals.get(features, others)
        frames = self.measures.frames
        if frames == 1 or features in SEE_CLIPS or not self.measures.protocol.frames_apart:
            return [(originals, others)]
        return [(originals[at::frames], others[at::frames]) for at in range(frames)]

    def _one(self, name: str, at: int, a: Given, b: Given) -> tuple[float, float | None]:
        rules = self.measures.protocol
        # A metric of reconstructions and its twin of samples differ in the first letter only.
        what, paired = name[1:], self.measures.group == "reconstruction"
        if what in ("precision", "recall", "density", "coverage"):
            if at not in self._covers:
                self._covers[at] = cover(a, b)
            return dataclasses.asdict(self._covers[at])[what], None
        distance: Callable[[Given, Given], float]
        if what == "is":
            logits = self._logits(b)

            def score(_: Given, rows: Given) -> float:
                return inception_score(
                    rows, splits=rules.inception_splits, shuffled=rules.inception_shuffled
                )

            distance, a, b = score, logits, logits
        elif what in ("fid_infinity", "fd_lite0_infinity"):
            distance = functools.partial(frechet_infinity, paired=paired)
        elif what in ("kid", "kid_lite0", "kvd"):

            def kernel(left: Given, right: Given) -> float:
                return kernel_distance(left, right, rules.kid_subset)

            distance = kernel
        elif what in ("mmd_dino", "cmmd"):
            distance = gaussian_kernel_distance
        else:
            distance = frechet_distance
        se = None
        if self.measures.bootstrap:
            se = bootstrap_error(
                distance,
                a,
                b,
                resamples=self.measures.bootstrap,
                rows=len(b) // self.measures.n,
                paired=paired,
            )
        return distance(a, b), se

    def _logits(self, features_NF: Given) -> Array:
        """Classifier outputs (N, K) of the Inception."""
        network = self.measures._networks["inception"]
        weight, bias = (part.double().cpu().numpy() for part in network.classifier())  # type: ignore[operator]  # nn.Module types every attribute as Tensor | Module
        logits: Array = np.asarray(features_NF, np.float64) @ weight.T
        if self.measures.protocol.inception_bias:
            logits += bias
        return logits


_FRECHET = ("fid", "fd", "fvd")


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
                "metrics", f"{name!r} is no metric; there are {', '.join(METRICS)}{hint}"
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
