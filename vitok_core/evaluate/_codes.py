"""Metrics of a tokenizer's codes, measured before any generator is trained.

Statistics come from the posteriors alone. Equivariance errors ask whether a simple transformation
of the code is the same transformation of the picture (EQ-VAE, Kouzelis et al. 2025): the grid of
the code is averaged 2 x 2, or turned by a quarter, then decoded and compared with the original
averaged or turned. For the half-size grid the same decoder weights are given the smaller grid,
which a transformer without learned positions takes. How a metric moves codes is a class here with a
method `of(grid, images) -> (decoded, wanted)`, named by the metric's record.

Metrics over the grid need codes that have one: not 1-D codes, and not cut ones.

Shape suffixes: B samples, L tokens, C channels, T, H, W the grid of tokens.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vitok_core.data import SampleSet
from vitok_core.errors import DataError, SpecError
from vitok_core.evaluate._batches import EvaluateProgress, each_batch
from vitok_core.metrics import Codes, Measured
from vitok_core.protocols import METRICS, not_of_code
from vitok_core.ranks import collected, from_first
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Posterior, ViTok, from_uint8

MOST_KEPT = 10_000
"""Samples whose codes are kept for the probe and the spectrum; the first ones."""


def code_metrics(
    tokenizer: ViTok,
    samples: SampleSet,
    *,
    metrics: Sequence[str],
    length: int | None = None,
    device: str | torch.device = "cpu",
    batch: int = 64,
    progress: Callable[[EvaluateProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Measured]:
    """Measure the codes of all samples, without looking at reconstructions.

    Args:
        tokenizer: moved to `device`.
        samples: images or clips of the tokenizer's shape.
        metrics: keys into `vitok_core.protocols.METRICS` that are of codes.
        length: first tokens of the code that are looked at; None for all.
        device: where the tokenizer runs.
        batch: images, or frames of whole clips, at a time.
        progress: called after every batch.
        should_stop: called before every batch.

    Returns:
        One value per metric, in the order of `metrics`; also those of channels, see `CodeSet`.

    Raises:
        SpecError: a metric of something else, or one that the tokenizer's codes do not have.
        DataError: too few samples, or codes that never change.
        NonFiniteError: a value is not a finite number.
        Stopped: `should_stop` said so.
    """
    tokenizer = tokenizer.to(device).eval()
    codes = CodeSet(tokenizer, metrics, length=length)

    def look(indices: NDArray[np.int64]) -> None:
        x = from_uint8(torch.from_numpy(samples.batch(indices)).to(device))
        with torch.no_grad():
            posterior = tokenizer.encode(x)
        codes.update(x, posterior, samples.labels[indices])

    each_batch(
        samples,
        look,
        batch=batch,
        progress=progress,
        should_stop=should_stop,
        what="the evaluation of codes",
    )
    parts = collected(codes.seen())

    def values() -> list[Measured]:
        codes.replace(parts)
        return codes.compute()

    return from_first(values)


@dataclass(slots=True, kw_only=True)
class SeenCodes:
    """What a `CodeSet` has collected, batch by batch.

    Attributes:
        n: number of samples.
        kl: KL of each sample, mean over its numbers.
        sums: sum over samples and tokens of the codes' means (C,), and of mean^2 + variance (C,).
        errors: metric -> (squared error, variance of the image) of each sample.
        codes: means (B, L, C), of the first samples.
        labels: of those.
    """

    n: int = 0
    kl: list[Tensor] = field(default_factory=list)
    sums: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    errors: dict[str, list[Tensor]] = field(default_factory=dict)
    codes: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)


class CodeSet:
    """The metrics of codes of one evaluation, fed by batches.

    Args:
        tokenizer: whose codes they are; decodes transformed ones.
        names: keys into `vitok_core.protocols.METRICS` that are of codes.
        length: first tokens that are looked at; None for all.

    Raises:
        SpecError: a metric of something else, or one that the tokenizer's codes do not have.
    """

    def __init__(
        self, tokenizer: ViTok, names: Sequence[str], *, length: int | None = None
    ) -> None:
        self.spec, self.names, self.length = tokenizer.spec, tuple(names), length
        _check(self.spec, names, length)
        moved = {name: METRICS[name].code.moved for name in names}
        self._moves: dict[str, Moved] = {
            name: pkgutil.resolve_name(path)(tokenizer) for name, path in moved.items() if path
        }
        self._keeps = any(METRICS[name].code.kept for name in names)
        self._seen = SeenCodes()

    def update(self, x: Tensor, posterior: Posterior, labels: NDArray[np.int64]) -> None:
        """Add samples in [-1, 1], their posteriors and labels."""
        seen, mean = self._seen, posterior.mean[:, : self.length].double()
        seen.kl.append(
            posterior.kl()[:, : self.length].double().reshape(len(x), -1).mean(dim=1).cpu()
        )
        second = mean.square()
        if posterior.logvar is not None:
            second = second + posterior.logvar[:, : self.length].double().exp()
        seen.sums.append((mean.sum(dim=(0, 1)).cpu(), second.sum(dim=(0, 1)).cpu()))
        for name in self._moves:
            seen.errors.setdefault(name, []).append(self._error(name, x, posterior.mean))
        if self._keeps and seen.n < MOST_KEPT:
            seen.codes.append(mean.float().cpu().numpy())
            seen.labels.append(np.asarray(labels))
        seen.n += len(x)

    def seen(self) -> SeenCodes:
        """What has been added so far, to be sent to another process."""
        return self._seen

    def replace(self, parts: Sequence[SeenCodes]) -> None:
        """Forget what was added, and take instead what these have seen, in their order."""
        self._seen = SeenCodes(
            n=sum(part.n for part in parts),
            kl=[one for part in parts for one in part.kl],
            sums=[one for part in parts for one in part.sums],
            errors={
                name: [one for part in parts for one in part.errors[name]]
                for name in parts[0].errors
            },
            codes=[one for part in parts for one in part.codes],
            labels=[one for part in parts for one in part.labels],
        )

    def compute(self) -> list[Measured]:
        """Every metric over all samples so far, in the order of the names.

        Raises:
            DataError: too few samples, or codes that never change.
            NonFiniteError: a value is not a finite number.
            MetricError: a value is outside of its metric's bounds.
        """
        for name in self.names:
            if self._seen.n < METRICS[name].needs:
                raise DataError(
                    f"{name} needs {METRICS[name].needs} samples, there are {self._seen.n}"
                )
        return [self._measured(name) for name in self.names]

    def _measured(self, name: str) -> Measured:
        metric, codes = METRICS[name], self._codes(name)
        n = len(codes.codes_NLC) if metric.code.kept else self._seen.n
        value, se = pkgutil.resolve_name(metric.function)(codes)
        return Measured(name=name, value=value, n=n, se=se)

    def _codes(self, name: str) -> Codes:
        """What a metric's function sees."""
        seen, (mean, variance) = self._seen, self._moments()
        kept = METRICS[name].code.kept
        codes = np.concatenate(seen.codes)[:MOST_KEPT] if kept else np.zeros((0, 0, 0))
        labels = np.concatenate(seen.labels)[:MOST_KEPT] if kept else np.zeros(0, np.int64)
        errors = torch.cat(seen.errors[name]).numpy() if name in self._moves else np.zeros((0, 2))
        return Codes(
            kl_N=torch.cat(seen.kl).numpy(),
            mean_C=mean,
            variance_C=variance,
            errors_N2=errors,
            codes_NLC=codes.astype(np.float64),
            labels_N=labels,
            grid=self.spec.grid,
        )

    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance (C,) of drawn codes over samples and tokens."""
        count = self._seen.n * (self.spec.tokens if self.length is None else self.length)
        first, second = (
            torch.stack(parts).sum(dim=0).numpy() / count
            for parts in zip(*self._seen.sums, strict=True)
        )
        return first, second - first**2

    @torch.no_grad()
    def _error(self, name: str, x: Tensor, mean_BLC: Tensor) -> Tensor:
        """Squared error and variance of each image, (B, 2) float64."""
        x_BCTHW = x.unsqueeze(2) if x.ndim == 4 else x
        grid_BTHWC = mean_BLC.reshape(len(x), *self.spec.grid, -1)
        x_hat, wanted = self._moves[name].of(grid_BTHWC, x_BCTHW)
        found = x_hat.reshape(wanted.shape).double()
        error = (found - wanted).square().flatten(1).mean(dim=1)
        variance = wanted.double().flatten(1).var(dim=1, correction=0)
        return torch.stack([error, variance], dim=1).cpu()


class Moved(Protocol):
    """A transformation of codes that should be the same transformation of images."""

    def of(self, grid_BTHWC: Tensor, x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded images of the transformed codes, and the transformed images."""


class Turned:
    """Codes and images turned by a quarter."""

    def __init__(self, tokenizer: ViTok) -> None:
        self.tokenizer = tokenizer

    def of(self, grid_BTHWC: Tensor, x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """See `Moved`."""
        code = grid_BTHWC.rot90(dims=(2, 3)).flatten(1, 3)
        return self.tokenizer.decode(code), x_BCTHW.rot90(dims=(3, 4))


class Halved:
    """Codes and images averaged 2 x 2."""

    def __init__(self, tokenizer: ViTok) -> None:
        self.tokenizer = _at_half_size(tokenizer)

    def of(self, grid_BTHWC: Tensor, x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """See `Moved`."""
        moved = functional.avg_pool3d(grid_BTHWC.permute(0, 4, 1, 2, 3), (1, 2, 2))
        code = moved.flatten(2).transpose(1, 2).contiguous()
        return self.tokenizer.decode(code), functional.avg_pool3d(x_BCTHW, (1, 2, 2))


def _at_half_size(tokenizer: ViTok) -> ViTok:
    """The same weights as a tokenizer of half the resolution."""
    spec = dataclasses.replace(tokenizer.spec, resolution=tokenizer.spec.resolution // 2)
    device = next(tokenizer.parameters()).device
    # Its first weights are random ones, which must not move the caller's random numbers on.
    with torch.random.fork_rng(devices=[]):
        half = ViTok(spec).to(device)
    half.load_state_dict(tokenizer.state_dict(), assign=True)
    return half.eval()


def _check(spec: TokenizerSpec, names: Sequence[str], length: int | None) -> None:
    for name in names:
        if name not in METRICS or METRICS[name].of != "codes":
            of_codes = [one.name for one in METRICS.values() if one.of == "codes"]
            raise SpecError(
                "metrics", f"{name!r} is not a metric of codes; there are {', '.join(of_codes)}"
            )
        why = not_of_code(
            name,
            grid=spec.grid if spec.latent_tokens is None and length is None else None,
            random=spec.bottleneck not in ("none", "layernorm"),
        )
        if why:
            raise SpecError("metrics", why)
    if length is not None:
        spec.check_length(length)
