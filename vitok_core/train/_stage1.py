"""Stage 1: the training of a tokenizer by pixel, KL and perceptual terms.

One flat loop. A step draws its samples, its noise and, for masked tokenizers, the kept length of
every sample from (seed, step) for the global batch; computes the gradient of this process's rows in
micro-batches; adds it up over the processes; clips it; stops before the update if anything is not
finite; updates weights and, when asked for, their moving average.

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
from vitok_core.errors import Stopped
from vitok_core.losses import loss_networks, stage1_loss
from vitok_core.settings import Run, Stage1
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Posterior, ViTok, from_uint8, save_tokenizer
from vitok_core.train._batches import (
    check_run,
    check_samples,
    code_draws,
    last_step,
    sample_batches,
)
from vitok_core.train._checkpoints import Checkpoints
from vitok_core.train._optimise import (
    Ema,
    adamw,
    clip_gradients,
    learning_rate,
    require_finite,
    set_learning_rate,
    stream,
)
from vitok_core.train._parallel import (
    agree,
    from_first,
    micro_batches,
    part,
    sum_gradients,
    sum_tensor,
)
from vitok_core.train._progress import History, Progress, SpikeWatch, TrainingResult, with_metrics
from vitok_core.train._sheets import fixed_samples, write_sheet
from vitok_core.train._speed import Pace

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
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Stage1Result:
    """Train a tokenizer, or go on where the checkpoints in `folder` end.

    Inside of `distributed` every process calls this with the same arguments and gets the result;
    the first one writes the files.

    Args:
        spec: the tokenizer.
        config: everything besides data that decides the weights.
        samples: of the spec's resolution and frames, prepared or streamed.
        folder: weights.safetensors, checkpoints/ and sheets/ go there; made if missing.
        run: what changes no number beyond float rounding. Its sheets show originals above
            reconstructions, of the weights in training (not of their average).
        until: steps after which to end, at most `config.steps`; the weights are then those of this
            step of the full schedule, and its checkpoint stays, to go on from. None for all steps.
        about: plain data to keep inside the weights file, see `save_tokenizer`; "metrics" is added.
        progress: told after the first and the last step and about once a second, in the first
            process only.
        should_stop: asked before every step, in every process.

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
    last = last_step(config.steps, until)
    check_run(run, batch=config.batch)
    check_samples(spec, samples)
    state = _begin(spec, config, last, samples, folder / "checkpoints", run)
    state.model.recompute_activations(run.recompute_activations)
    shown = fixed_samples(samples)
    pace = Pace(
        steps=last,
        batch=config.batch,
        first=state.resumed_from,
        checkpoint_s=run.checkpoint_s,
        progress=progress,
    )
    steps = range(state.resumed_from, last)
    batches = sample_batches(
        samples,
        batch=config.batch,
        flip=config.flip,
        seed=config.seed,
        steps=steps,
        device=state.device,
    )
    with contextlib.closing(batches):
        for step in steps:
            if agree(should_stop is not None and should_stop()):
                if step != pace.saved_step or step == 0:
                    state.save(step)
                raise Stopped(f"stopped at step {step} of {last}; a checkpoint is written")

            terms, grad_norm = _gradients(state, config, next(batches), step)
            lr = learning_rate(config.optimiser, step, config.steps)
            require_finite(step, lr, terms, grad_norm)
            set_learning_rate(state.adamw, lr)
            state.adamw.step()
            if state.ema is not None:
                state.ema.update(state.model)
            state.history.add(step, terms)
            state.spikes.look(step)

            done = step + 1
            pace.tell(
                done,
                terms,
                lr=lr,
                grad_norm=grad_norm,
                history=state.history,
                notes=state.checkpoints.notes,
            )
            if run.sheet_every is not None and done % run.sheet_every == 0:
                path = folder / "sheets" / f"step-{done:07d}.png"
                from_first(partial(write_sheet, path, shown, state.model, state.device))
            if pace.checkpoint_due(done):
                state.save(done)
                pace.saved(done)

    if until is not None and pace.saved_step != last:
        state.save(last)
    weights = folder / "weights.safetensors"
    if state.ema is not None:
        state.ema.store(state.model)
    together = min(run.micro_batch or config.batch, PROBE_BATCH)  # never more memory than a step
    kl_per_channel, active_units = _probe(state.model, samples, together, state.device)
    result = Stage1Result(
        **pace.result(
            state.history,
            weights=weights,
            flops=dataclasses.replace(config, steps=last).flops(spec),
            began=began,
            device=state.device,
            notes=state.checkpoints.notes,
        ),
        kl_per_channel=kl_per_channel,
        active_units=active_units,
    )
    from_first(
        lambda: save_tokenizer(
            state.model,
            weights,
            about=with_metrics(about, result, active_units=result.active_units),
        )
    )
    return result


@dataclass(slots=True, kw_only=True)
class _State:
    """What changes while training, and what it is computed with."""

    model: ViTok
    forward: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Posterior]]
    adamw: torch.optim.AdamW
    ema: Ema | None
    networks: Mapping[str, nn.Module]
    history: History
    spikes: SpikeWatch
    device: torch.device
    checkpoints: Checkpoints
    micro_batch: int | None
    resumed_from: int = 0

    def save(self, step: int) -> None:
        self.checkpoints.write(
            step,
            {
                "model": self.model.state_dict(),
                "adamw": self.adamw.state_dict(),
                "ema": None if self.ema is None else self.ema.state(),
                "history": self.history.state(step),
            },
        )

    def load(self, step: int, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.adamw.load_state_dict(state["adamw"])
        if self.ema is not None:
            self.ema.load(state["ema"])
        self.history.load(state["history"])
        self.resumed_from = step


def _begin(
    spec: TokenizerSpec,
    config: Stage1,
    last: int,
    samples: Samples,
    checkpoints: Path,
    run: Run,
) -> _State:
    """The state before the first step, or as the newest whole checkpoint has it."""
    device = torch.device(run.device)
    networks = loss_networks(config.loss, device)
    # Weights are drawn on the CPU from a generator of their own: the same on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, 0, purpose=WEIGHTS))
        model = ViTok(spec)
    model.to(device).train()
    history = History(last)
    # Fixed shapes: a short last micro-batch is compiled once more instead of for any length.
    forward = torch.compile(model, dynamic=False) if config.compile else model
    identity = {
        "spec": spec.plain(),
        "config": dataclasses.asdict(config),
        "samples": len(samples),
    }
    state = _State(
        model=model,
        forward=forward,
        adamw=adamw(model.parameters(), config.optimiser, device),
        ema=None if config.ema is None else Ema(model, config.ema),
        networks=networks,
        history=history,
        spikes=SpikeWatch(history),
        device=device,
        checkpoints=Checkpoints(checkpoints, identity),
        micro_batch=run.micro_batch,
    )
    found = state.checkpoints.newest(last)
    if found is not None:
        state.load(*found)
    return state


def _gradients(
    state: _State, config: Stage1, pixels: Tensor, step: int
) -> tuple[dict[str, float], float]:
    """Leave the clipped gradient of one step in the model; its terms and its norm before.

    Args:
        state: the model and what its loss needs.
        config: the settings.
        pixels: uint8, the rows of this process of the global batch.
        step: from 0.
    """
    x, rows = from_uint8(pixels), part(config.batch)
    noise_BLC, keep_B = code_draws(
        state.model.spec, batch=config.batch, seed=config.seed, step=step, device=state.device
    )

    state.adamw.zero_grad(set_to_none=True)
    terms: dict[str, Tensor] = {}
    for own in micro_batches(rows, state.micro_batch):
        x_own = x[own.start - rows.start : own.stop - rows.start]
        with torch.autocast(state.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            x_hat, posterior = state.forward(
                x_own, noise_BLC[own], None if keep_B is None else keep_B[own]
            )
        total, parts = stage1_loss(config.loss, x_own, x_hat, posterior, state.networks)
        share = len(x_own) / config.batch
        torch.autograd.backward(share * total)
        for name, value in {"loss": total.detach(), **parts}.items():
            terms[name] = terms.get(name, 0.0) + share * value
    sum_gradients(state.model.parameters())
    norm = clip_gradients(state.model.parameters(), config.optimiser)
    # One transfer from the device for everything that the guard and the record need.
    *values, grad_norm = torch.cat(
        [sum_tensor(torch.stack(list(terms.values()))), norm.reshape(1)]
    ).tolist()
    return dict(zip(terms, values, strict=True)), grad_norm


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
