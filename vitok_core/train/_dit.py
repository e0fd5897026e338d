"""The training of a generator of codes, over latents that were computed before.

Every step draws new codes from their posteriors, normalises them, adds noise at uniform times and
asks the network for its target. A share of the labels is left out, so that the same network also
knows the codes of no class in particular, which guidance needs. What is written is the moving
average of the weights, if there is one.

Beside the loss the history has the squared error by quarter of the time scale, from clean to noise
(the total hides which noise levels still improve), and mean and standard deviation of the codes the
network sees: far from 0 and 1, a normalisation is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitok_core.data import Sampler
from vitok_core.diffusion import STEPS, add_noise, diffusion_loss, draw_times
from vitok_core.dit import DiT, save_dit
from vitok_core.errors import DataError
from vitok_core.latents import LatentSet
from vitok_core.ranks import from_first
from vitok_core.settings import INITIAL_SHARE, DiTTraining, Run, whole_steps
from vitok_core.spec import DiTSpec
from vitok_core.tokenizer import Normalisation, load_tokenizer
from vitok_core.train._batches import ahead, read_ahead, ready
from vitok_core.train._grids import write_class_grid
from vitok_core.train._guard import NORM, Side, all_finite
from vitok_core.train._loop import Loop, check_run
from vitok_core.train._optimise import Learner, learning_rate, stream
from vitok_core.train._parallel import part
from vitok_core.train._progress import TrainingProgress, TrainingResult, with_metrics
from vitok_core.train._room import fitted

# What the random streams of a step are for.
WEIGHTS, POSTERIOR, TIME, NOISE, DROPOUT = 21, 22, 23, 24, 25

QUARTERS = ("mse_0_25", "mse_25_50", "mse_50_75", "mse_75_100")
"""Terms of the history: squared error of the samples whose time lies in that quarter, in percent of
the scale from clean to noise; absent in a step that has no such sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTResult(TrainingResult):
    """What training a generator has left and how it went; see `TrainingResult`.

    Attributes:
        latent_mean: mean of the normalised codes over the last 50 steps.
        latent_std: their standard deviation; far from 1, a normalisation is missing.
    """

    latent_mean: float
    latent_std: float


def train_dit(
    spec: DiTSpec,
    config: DiTTraining,
    latents: LatentSet,
    folder: Path,
    *,
    run: Run = Run(),
    until: int | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DiTResult:
    """Train a generator, or resume from the checkpoints in `folder`.

    Inside of `distributed` every process calls this with the same arguments and gets the result;
    the first one writes the files.

    Args:
        spec: the generator.
        config: everything besides data that decides the weights.
        latents: of the spec's tokens and channels, see `vitok_core.latents.compute_latents`.
        folder: weights.safetensors, checkpoints/ and sheets/ go there; made if missing.
        run: what changes no number beyond float rounding. Its sample grids show generated samples,
            a row for each of up to 8 classes, by the weights in training (not their average)
            without guidance; the tokenizer is read from the folder of the latents.
        until: steps after which to end, at most `config.steps`; the weights are then those of this
            step of the full schedule, and its checkpoint stays, to resume from. None for all steps.
        about: plain data to keep inside the weights file, see `vitok_core.dit.save_dit`; "metrics"
            is added.
        progress: called after the first and the last step and about once a second, in the first
            process only.
        should_stop: called before every step, in every process.

    Raises:
        SpecError: spec or settings that cannot be used.
        DataError: latents of another shape or with other labels, or without mirrored copies where
            `flip` asks for them.
        WeightsError: sample grids are wanted and the tokenizer cannot be read.
        NonFiniteError: the loss or gradient stopped being a number; the checkpoints are of before.
        CheckpointError: checkpoints of other settings, or a folder that cannot be written.
        Stopped: `should_stop` said so; a checkpoint was written first.
        OSError: the disk is full.
    """
    began = time.perf_counter()
    last, steps = check_run(config, run, until), whole_steps(config.steps)
    _check(spec, config, latents)
    run = fitted(run, lambda again: config.memory(spec, recompute=again), config.batch)
    tokenizer = None if run.sheet_every is None else load_tokenizer(latents.weights)
    learner = Learner(_first_model(spec, config.seed).to(run.device), config, run)
    learner.model.recompute = bool(run.recompute_activations)
    loop = Loop(
        folder,
        batch=config.batch,
        run=run,
        last=last,
        keep_last=until is not None,
        identity=_identity(spec, config, latents),
        resumable=learner.resumable,
        progress=progress,
        should_stop=should_stop,
    )
    learner.room.tell(loop.history)
    loop.notes += _average_notes(config.ema, steps)
    statistics = latents.normalisation.to(learner.device)
    codes = part(config.batch).stop - part(config.batch).start
    depth = ahead(codes * 2 * 4 * spec.tokens * spec.c)  # mean and log-variance, float32
    batches = read_ahead(_loader(config, latents, learner.device), loop.remaining, depth)
    with contextlib.closing(batches), contextlib.closing(loop):
        for step in loop.steps():
            batch = _draw(learner, config, statistics, next(batches), step)
            sums_N, norm = _gradients(learner, config, batch, step)
            lr = learning_rate(config.optimiser, step, steps)
            summed_N = torch.cat([loop.sum(sums_N), norm[None].double()])
            ok = all_finite(summed_N)
            learner.update(lr, ok)
            names, numbers_N = _numbers(spec, summed_N, batch.counts_Q)
            sides = [Side(names=names[: -len(QUARTERS)], norm=NORM, lr=lr)]
            loop.record(step, names, numbers_N, ok, sides)
            if tokenizer is not None and (path := loop.grid_due(step)):
                from_first(partial(write_class_grid, path, learner.model, tokenizer, config.seed))

    model, weights = learner.take_average(), folder / "weights.safetensors"
    recent = loop.history.recent().parts
    flops = dataclasses.replace(config, steps=last).flops(spec)
    result = DiTResult(
        **loop.result(weights, flops, began, run, learner.room),
        latent_mean=recent["latent_mean"],
        latent_std=recent["latent_std"],
    )
    from_first(lambda: save_dit(model, weights, about=with_metrics(about, result)))
    return result


def _check(
    spec: DiTSpec,
    config: DiTTraining,
    latents: LatentSet,
) -> None:
    spec.check()
    config.check(spec)
    if (latents.tokens, latents.c) != (spec.tokens, spec.c):
        raise DataError(
            f"the latents have {latents.tokens} tokens of {latents.c} channels, the DiT takes "
            f"{spec.tokens} of {spec.c}; make its spec by DiTSpec.for_tokenizer"
        )
    if config.flip and not latents.mirrored:
        raise DataError(
            "flip asks for mirrored samples, and these latents have none; compute them with flip, "
            "or set flip to false"
        )
    low, high = int(latents.labels.min()), int(latents.labels.max())
    if spec.classes and not 0 <= low <= high < spec.classes:
        raise DataError(
            f"the latents have labels from {low} to {high}, the DiT has {spec.classes} classes"
        )


def _first_model(spec: DiTSpec, seed: int) -> DiT:
    # Drawn on the CPU from a generator of its own: the same weights on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, 0, purpose=WEIGHTS))
        return DiT(spec)


def _identity(spec: DiTSpec, config: DiTTraining, latents: LatentSet) -> dict[str, Any]:
    """What a checkpoint must agree with before training resumes from it."""
    # Without the shape, which is in the spec.
    training = {one.name: getattr(config, one.name) for one in fields(DiTTraining)}
    training["optimiser"] = dataclasses.asdict(config.optimiser)
    statistics = latents.normalisation
    return {
        "spec": spec.plain(),
        "config": training,
        "latents": {
            "samples": len(latents),
            "mirrored": latents.mirrored,
            "normalisation": statistics.mode,
            "mean": statistics.mean_C.tolist(),
            "std": statistics.std_C.tolist(),
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Rows as they were read, ready for the device; see `ready`."""

    mean_BLC: Tensor
    logvar_BLC: Tensor | None
    labels_B: Tensor


def _loader(
    config: DiTTraining, latents: LatentSet, device: torch.device
) -> Callable[[int], _Read]:
    """A function of the step: this process's rows of the global batch, read from disk."""
    sampler, rows = Sampler(len(latents), config.seed), part(config.batch)

    def load(step: int) -> _Read:
        draw = sampler.draw(step * config.batch, config.batch)
        read = latents.batch(draw.indices[rows], draw.flips[rows] if config.flip else None)
        return _Read(
            mean_BLC=ready(read.mean, device),
            logvar_BLC=None if read.logvar is None else ready(read.logvar, device),
            labels_B=ready(read.labels, device),
        )

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The rows of this process, on the device; `counts_Q` is of the global batch, float64."""

    z_BLC: Tensor
    noise_BLC: Tensor
    time_B: Tensor
    labels_B: Tensor | None
    counts_Q: Tensor


def _draw(
    learner: Learner[DiT], config: DiTTraining, statistics: Normalisation, read: _Read, step: int
) -> _Batch:
    """Normalised codes, times, noise and labels of a step.

    Drawn for the whole global batch and sliced, so that neither processes nor micro-batches change
    them.
    """
    spec, device, rows = learner.model.spec, learner.device, part(config.batch)
    shape = (config.batch, spec.tokens, spec.c)

    def source(purpose: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(stream(config.seed, step, purpose=purpose))

    z_BLC = read.mean_BLC.to(device, non_blocking=True)
    if read.logvar_BLC is not None:
        spread_BLC = torch.exp(0.5 * read.logvar_BLC.to(device, non_blocking=True))
        drawn_BLC = torch.randn(shape, generator=source(POSTERIOR), device=device)[rows]
        z_BLC = z_BLC + drawn_BLC * spread_BLC
    time_B = draw_times(spec.target, config.batch, source(TIME))
    noise_BLC = torch.randn(shape, generator=source(NOISE), device=device)
    labels_B = None
    if spec.classes:
        dropped_B = torch.rand(config.batch, generator=source(DROPOUT), device=device)[rows]
        labels_B = read.labels_B.to(device, non_blocking=True)
        labels_B = labels_B.masked_fill(dropped_B < config.class_dropout, learner.model.null)
    return _Batch(
        z_BLC=statistics.normalise(z_BLC),
        noise_BLC=noise_BLC[rows],
        time_B=time_B[rows],
        labels_B=labels_B,
        # Not bincount: it would wait for the largest quarter.
        counts_Q=torch.zeros(len(QUARTERS), dtype=torch.float64, device=device).index_add_(
            0, _quarter(time_B), torch.ones_like(time_B, dtype=torch.float64)
        ),
    )


def _quarter(time_B: Tensor) -> Tensor:
    return (time_B * len(QUARTERS) / STEPS).long().clamp_max(len(QUARTERS) - 1)


def _terms(spec: DiTSpec) -> tuple[str, ...]:
    """Names of what `_gradients` sums, before the quarters."""
    parts = ("mse", "vlb") if spec.learn_sigma else ("mse",)
    return ("loss", *parts, "latent_mean", "latent_square")


def _gradients(
    learner: Learner[DiT], config: DiTTraining, batch: _Batch, step: int
) -> tuple[Tensor, Tensor]:
    """Leave the clipped gradient of one step in the model.

    Returns:
        On the device: `_terms` and the squared errors of each quarter, of this process's rows,
        whose sum over the processes is that of the global batch; and the norm of the whole gradient
        before clipping.
    """
    target = learner.model.spec.target
    terms = len(_terms(learner.model.spec))
    sums_N = torch.zeros(terms + len(QUARTERS), device=learner.device)
    rows = slice(0, len(batch.z_BLC))
    for trying in learner.room.tries(step, rows):
        with trying:
            sums_N.zero_()
            for own in learner.room.micro_batches(rows):
                z_BLC, noise_BLC, time_B = batch.z_BLC[own], batch.noise_BLC[own], batch.time_B[own]
                xt_BLC = add_noise(target, z_BLC, noise_BLC, time_B)
                labels_B = None if batch.labels_B is None else batch.labels_B[own]
                prediction = learner.forward(xt_BLC, time_B, labels_B)
                loss = diffusion_loss(target, prediction, z_BLC, noise_BLC, xt_BLC, time_B)
                total_B = loss.mse_B if loss.vlb_B is None else loss.mse_B + loss.vlb_B
                torch.autograd.backward(total_B.sum() / config.batch)
                terms_B = [total_B, loss.mse_B, *(() if loss.vlb_B is None else (loss.vlb_B,))]
                terms_B += [z_BLC.mean(dim=(1, 2)), z_BLC.square().mean(dim=(1, 2))]
                sums_N[:terms] += torch.stack(terms_B).detach().sum(dim=1) / config.batch
                sums_N[terms:].index_add_(0, _quarter(time_B), loss.mse_B.detach())
    return sums_N, learner.clip()


def _numbers(spec: DiTSpec, summed_N: Tensor, counts_Q: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """Names and values of what is recorded, from the sums over all processes and the norm."""
    terms = _terms(spec)
    numbers = dict(zip(terms, summed_N, strict=False))
    spread = numbers.pop("latent_square") - numbers["latent_mean"] ** 2
    numbers["latent_std"] = spread.clamp_min(0).sqrt()
    numbers[NORM] = summed_N[-1]
    # NaN where the step has no sample of a quarter.
    errors_Q = summed_N[len(terms) : -1] / counts_Q
    return (*numbers, *QUARTERS), torch.cat([torch.stack(list(numbers.values())), errors_Q])


def _average_notes(ema: float | None, steps: int) -> tuple[str, ...]:
    left = 0.0 if ema is None else ema**steps
    if left <= INITIAL_SHARE:
        return ()
    fitting = math.floor(10_000 * INITIAL_SHARE ** (1 / steps)) / 10_000
    return (
        f"{100 * left:.0f} % of the average with ema {ema} are still the untrained weights "
        f"after {steps} steps; train longer, or lower ema to {fitting} or less",
    )
