"""Stage 1: the training of a tokenizer by pixel, KL and perceptual terms.

One flat loop. A step draws its samples, its noise and, for masked tokenizers, the kept length of
every sample from (seed, step) for the global batch; computes the gradient of this process's rows in
micro-batches; adds it up over the processes; clips it; and, if everything is finite, updates
weights and, when asked for, their moving average.

Shape suffixes: B samples, L tokens of the code, C its channels; `x` are samples in [-1, 1],
(B, 3, H, W) or (B, 3, T, H, W).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitok_core.data import Samples
from vitok_core.features import convolutions
from vitok_core.losses import loss_networks, stage1_loss
from vitok_core.ranks import from_first
from vitok_core.settings import Run, Stage1
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import ViTok, from_uint8, save_tokenizer
from vitok_core.train._batches import check_samples, code_draws, sample_batches
from vitok_core.train._grids import fixed_samples, write_grid
from vitok_core.train._guard import NORM, Side, all_finite
from vitok_core.train._loop import Loop, check_run
from vitok_core.train._optimise import Learner, learning_rate, stream
from vitok_core.train._parallel import part
from vitok_core.train._progress import TrainingProgress, TrainingResult, with_metrics
from vitok_core.train._room import fitted

WEIGHTS = 1
"""Purpose of the random stream of initial weights."""

PROBE_SAMPLES = 256
PROBE_BATCH = 64
ACTIVE_VARIANCE = 0.01
"""A channel is active if its posterior mean varies more than this (Burda et al. 2016)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1Result(TrainingResult):
    """What stage 1 has left and how it went; see `TrainingResult`.

    Attributes:
        kl_per_channel: mean KL in nats of each of the c channels over samples and tokens; zeros for
            a deterministic code.
        active_units: channels whose posterior mean has a variance above 0.01.
    """

    kl_per_channel: tuple[float, ...]
    active_units: int


def train_stage1(
    spec: TokenizerSpec,
    config: Stage1,
    samples: Samples,
    folder: Path,
    *,
    run: Run = Run(),
    until: int | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Stage1Result:
    """Train a tokenizer, or resume from the checkpoints in `folder`.

    Inside of `distributed` every process calls this with the same arguments and gets the result;
    the first one writes the files.

    Args:
        spec: the tokenizer.
        config: everything besides data that decides the weights.
        samples: of the spec's resolution and frames, prepared or streamed.
        folder: weights.safetensors, checkpoints/ and sheets/ go there; made if missing.
        run: what changes no number beyond float rounding. Its sample grids show originals above
            reconstructions, of the weights in training (not of their average).
        until: steps after which to end, at most `config.steps`; the weights are then those of this
            step of the full schedule, and its checkpoint stays, to resume from. None for all steps.
        about: plain data to keep inside the weights file, see `save_tokenizer`; "metrics" is added.
        progress: called after the first and the last step and about once a second, in the first
            process only.
        should_stop: called before every step, in every process.

    Raises:
        SpecError: spec or settings that cannot be used.
        DataError: samples of another resolution or number of frames.
        WeightsError: a perceptual network is missing.
        NonFiniteError: the loss or gradient stopped being a number; the checkpoints are of before.
        CheckpointError: checkpoints of other settings, or a folder that cannot be written.
        Stopped: `should_stop` said so; a checkpoint was written first.
        OSError: the disk is full.
    """
    began = time.perf_counter()
    config.check(spec.check())
    last = check_run(config, run, until)
    check_samples(spec, samples)
    run = fitted(run, lambda again: config.memory(spec, recompute=again), config.batch)
    networks = loss_networks(config.loss, run.device, config.network_precision, fast=config.compile)
    learner = Learner(_first_model(spec, config.seed).to(run.device), config, run)
    learner.model.recompute_activations(bool(run.recompute_activations))
    loop = Loop(
        folder,
        batch=config.batch,
        run=run,
        last=last,
        keep_last=until is not None,
        identity={
            "spec": spec.plain(),
            "config": dataclasses.asdict(config),
            "samples": len(samples),
        },
        resumable=learner.resumable,
        progress=progress,
        should_stop=should_stop,
    )
    learner.room.tell(loop.history)
    shown = fixed_samples(samples)
    batches = sample_batches(samples, config, loop.remaining, learner.device)
    arithmetic = convolutions(config.network_precision)
    with contextlib.closing(batches), contextlib.closing(loop), arithmetic:
        for step in loop.steps():
            terms, norm = _gradients(learner, networks, config, next(batches), step)
            numbers_N = torch.cat(
                [loop.sum(torch.stack(list(terms.values()))), norm[None].double()]
            )
            ok, lr = all_finite(numbers_N), learning_rate(config.optimiser, step, config.steps)
            learner.update(lr, ok)
            names = (*terms, NORM)
            loop.record(step, names, numbers_N, ok, [Side(names=names, norm=NORM, lr=lr)])
            if path := loop.grid_due(step):
                from_first(partial(write_grid, path, shown, learner.model, learner.device))

    model, weights = learner.take_average(), folder / "weights.safetensors"
    together = min(
        learner.room.micro_batch or config.batch, PROBE_BATCH
    )  # never more memory than a step
    kl_per_channel, active_units = _probe(model, samples, together, learner.device)
    flops = dataclasses.replace(config, steps=last).flops(spec)
    result = Stage1Result(
        **loop.result(weights, flops, began, run, learner.room),
        kl_per_channel=kl_per_channel,
        active_units=active_units,
    )
    record = with_metrics(about, result, active_units=active_units)
    from_first(lambda: save_tokenizer(model, weights, about=record))
    return result


def _first_model(spec: TokenizerSpec, seed: int) -> ViTok:
    # Drawn on the CPU from a generator of its own: the same weights on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, 0, purpose=WEIGHTS))
        return ViTok(spec)


def _gradients(
    learner: Learner[ViTok],
    networks: Mapping[str, nn.Module],
    config: Stage1,
    pixels: Tensor,
    step: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Leave the clipped gradient of one step in the model.

    Args:
        learner: the model.
        networks: what its loss needs.
        config: the settings.
        pixels: uint8, the rows of this process of the global batch.
        step: from 0.

    Returns:
        Scalars on the device: the terms of this process's rows, whose sum over the processes is
        that of the global batch, and the norm of the whole gradient before clipping.
    """
    rows = part(config.batch)
    noise_BLC, keep_B = code_draws(
        learner.model.spec, batch=config.batch, seed=config.seed, step=step, device=learner.device
    )

    terms: dict[str, Tensor] = {}
    for trying in learner.room.tries(step, rows):
        with trying:
            terms.clear()
            for own in learner.room.micro_batches(rows):
                x = from_uint8(pixels[own.start - rows.start : own.stop - rows.start])
                x_hat, posterior = learner.forward(
                    x, noise_BLC[own], None if keep_B is None else keep_B[own]
                )
                total, parts = stage1_loss(config.loss, x, x_hat, posterior, networks)
                share = len(x) / config.batch
                torch.autograd.backward(share * total)
                for name, value in {"loss": total.detach(), **parts}.items():
                    terms[name] = terms.get(name, 0.0) + share * value
    return terms, learner.clip()


@torch.no_grad()
def _probe(
    model: ViTok, samples: Samples, together: int, device: torch.device
) -> tuple[tuple[float, ...], int]:
    """KL of each channel and the number of active ones, over the first training samples."""
    model.eval()
    means, kls = [], []
    count = min(len(samples), PROBE_SAMPLES)
    for first in range(0, count, together):
        indices = np.arange(first, min(first + together, count))
        posterior = model.encode(from_uint8(torch.from_numpy(samples.batch(indices)).to(device)))
        means.append(posterior.mean.flatten(0, 1).double())
        kls.append(posterior.kl().flatten(0, 1).double())
    variance = torch.cat(means).var(dim=0, correction=0)
    kl_per_channel = torch.cat(kls).mean(dim=0)
    return tuple(kl_per_channel.tolist()), int((variance > ACTIVE_VARIANCE).sum())
