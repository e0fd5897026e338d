"""The training of a generator of codes, over latents that were computed before.

Every step draws codes anew from their posteriors, normalises them, adds noise at uniform times and
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
from vitok_core.errors import DataError, Stopped
from vitok_core.latents import Latents, LatentSet
from vitok_core.settings import DiTTraining, Run, whole_steps
from vitok_core.spec import DiTSpec
from vitok_core.tokenizer import load_tokenizer
from vitok_core.train._batches import check_run, last_step, read_ahead
from vitok_core.train._checkpoints import Checkpoints
from vitok_core.train._dit_sheets import write_dit_sheet
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
from vitok_core.train._speed import Pace

# What the random streams of a step are for.
WEIGHTS, POSTERIOR, TIME, NOISE, DROPOUT = 21, 22, 23, 24, 25

QUARTERS = ("mse_0_25", "mse_25_50", "mse_50_75", "mse_75_100")
"""Terms of the history: squared error of the samples whose time lies in that quarter, in percent of
the scale from clean to noise; absent in a step that has no such sample."""

INITIAL_SHARE = 0.05
"""With more of the initial weights than this left in the average, training was too short for it."""


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
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DiTResult:
    """Train a generator, or go on where the checkpoints in `folder` end.

    Inside of `distributed` every process calls this with the same arguments and gets the result;
    the first one writes the files.

    Args:
        spec: the generator.
        config: everything besides data that decides the weights.
        latents: of the spec's tokens and channels, see `vitok_core.latents.compute_latents`.
        folder: weights.safetensors, checkpoints/ and sheets/ go there; made if missing.
        run: what changes no number beyond float rounding. Its sheets show generated samples,
            a row for each of up to 8 classes, by the weights in training (not their average)
            without guidance; the tokenizer is read from the folder of the latents.
        until: steps after which to end, at most `config.steps`; the weights are then those of this
            step of the full schedule, and its checkpoint stays, to go on from. None for all steps.
        about: plain data to keep inside the weights file, see `vitok_core.dit.save_dit`; "metrics"
            is added.
        progress: told after the first and the last step and about once a second, in the first
            process only.
        should_stop: asked before every step, in every process.

    Raises:
        SpecError: spec or settings that cannot be used.
        DataError: latents of another shape or with other labels, or without mirrored copies where
            `flip` asks for them.
        WeightsError: sheets were asked for and the tokenizer cannot be read.
        NonFiniteError: the loss or gradient stopped being a number; the checkpoints are of before.
        CheckpointError: checkpoints of other settings, or a folder that cannot be written.
        Stopped: `should_stop` said so; a checkpoint was written first.
        OSError: the disk is full.
    """
    began = time.perf_counter()
    whole = whole_steps(config.steps)
    last = last_step(whole, until)
    check_run(run, batch=config.batch)
    _check(spec, config, latents)
    tokenizer = None if run.sheet_every is None else load_tokenizer(latents.weights)
    state = _begin(spec, config, last, latents, folder / "checkpoints", run)
    state.model.recompute = run.recompute_activations
    notes = (*state.checkpoints.notes, *_average_notes(config.ema, whole))
    pace = Pace(
        steps=last,
        batch=config.batch,
        first=state.resumed_from,
        checkpoint_s=run.checkpoint_s,
        progress=progress,
    )
    steps = range(state.resumed_from, last)
    batches = read_ahead(_loader(config, latents), steps)
    with contextlib.closing(batches):
        for step in steps:
            if agree(should_stop is not None and should_stop()):
                if step != pace.saved_step or step == 0:
                    state.save(step)
                raise Stopped(f"stopped at step {step} of {last}; a checkpoint is written")

            terms, grad_norm = _gradients(state, config, next(batches), step)
            lr = learning_rate(config.optimiser, step, whole)
            require_finite(step, lr, terms, grad_norm)
            set_learning_rate(state.adamw, lr)
            state.adamw.step()
            if state.ema is not None:
                state.ema.update(state.model)
            state.history.add(step, terms)
            state.spikes.look(step)

            done = step + 1
            pace.tell(done, terms, lr=lr, grad_norm=grad_norm, history=state.history, notes=notes)
            if tokenizer is not None and run.sheet_every and done % run.sheet_every == 0:
                path = folder / "sheets" / f"step-{done:07d}.png"
                from_first(partial(write_dit_sheet, path, state.model, tokenizer, config.seed))
            if pace.checkpoint_due(done):
                state.save(done)
                pace.saved(done)

    if until is not None and pace.saved_step != last:
        state.save(last)
    weights = folder / "weights.safetensors"
    if state.ema is not None:
        state.ema.store(state.model)
    recent = state.history.recent().parts
    result = DiTResult(
        **pace.result(
            state.history,
            weights=weights,
            flops=dataclasses.replace(config, steps=last).flops(spec),
            began=began,
            device=state.device,
            notes=notes,
        ),
        latent_mean=recent["latent_mean"],
        latent_std=recent["latent_std"],
    )
    from_first(lambda: save_dit(state.model, weights, about=with_metrics(about, result)))
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


@dataclass(slots=True, kw_only=True)
class _State:
    """What changes while training, and what it is computed with."""

    model: DiT
    forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    adamw: torch.optim.AdamW
    ema: Ema | None
    latents: LatentSet
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
    spec: DiTSpec,
    config: DiTTraining,
    last: int,
    latents: LatentSet,
    checkpoints: Path,
    run: Run,
) -> _State:
    """The state before the first step, or as the newest whole checkpoint has it."""
    device = torch.device(run.device)
    # Weights are drawn on the CPU from a generator of their own: the same on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, 0, purpose=WEIGHTS))
        model = DiT(spec)
    model.to(device).train()
    history = History(last)
    statistics = latents.normalisation
    # The shape is in the spec.
    training = {one.name: getattr(config, one.name) for one in fields(DiTTraining)}
    training["optimiser"] = dataclasses.asdict(config.optimiser)
    identity = {
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
    state = _State(
        model=model,
        # Fixed shapes: a short last micro-batch is compiled once more instead of for any length.
        forward=torch.compile(model, dynamic=False) if config.compile else model,
        adamw=adamw(model.parameters(), config.optimiser, device),
        ema=None if config.ema is None else Ema(model, config.ema),
        latents=latents,
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


def _loader(config: DiTTraining, latents: LatentSet) -> Callable[[int], Latents]:
    """A function of the step: this process's rows of the global batch, read from disk."""
    sampler, rows = Sampler(len(latents), config.seed), part(config.batch)

    def load(step: int) -> Latents:
        draw = sampler.draw(step * config.batch, config.batch)
        return latents.batch(draw.indices[rows], draw.flips[rows] if config.flip else None)

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The rows of this process, on the device; `counts_Q` is of the global batch."""

    z_BLC: Tensor
    noise_BLC: Tensor
    time_B: Tensor
    labels_B: Tensor | None
    counts_Q: Tensor


def _draw(state: _State, config: DiTTraining, read: Latents, step: int) -> _Batch:
    """Normalised codes, times, noise and labels of a step.

    Drawn for the whole global batch and sliced, so that neither processes nor micro-batches change
    them.
    """
    spec, device, rows = state.model.spec, state.device, part(config.batch)
    shape = (config.batch, spec.tokens, spec.c)

    def source(purpose: int) -> torch.Generator:
        return torch.Generator(device).manual_seed(stream(config.seed, step, purpose=purpose))

    z_BLC = torch.from_numpy(read.mean).to(device)
    if read.logvar is not None:
        spread_BLC = torch.exp(0.5 * torch.from_numpy(read.logvar).to(device))
        drawn_BLC = torch.randn(shape, generator=source(POSTERIOR), device=device)[rows]
        z_BLC = z_BLC + drawn_BLC * spread_BLC
    time_B = draw_times(spec.target, config.batch, source(TIME))
    noise_BLC = torch.randn(shape, generator=source(NOISE), device=device)
    labels_B = None
    if spec.classes:
        dropped_B = torch.rand(config.batch, generator=source(DROPOUT), device=device)[rows]
        labels_B = torch.from_numpy(read.labels).to(device)
        labels_B = labels_B.masked_fill(dropped_B < config.class_dropout, state.model.null)
    return _Batch(
        z_BLC=state.latents.normalisation.normalise(z_BLC),
        noise_BLC=noise_BLC[rows],
        time_B=time_B[rows],
        labels_B=labels_B,
        counts_Q=_quarter(time_B).bincount(minlength=len(QUARTERS)),
    )


def _quarter(time_B: Tensor) -> Tensor:
    return (time_B * len(QUARTERS) / STEPS).long().clamp_max(len(QUARTERS) - 1)


def _gradients(
    state: _State, config: DiTTraining, read: Latents, step: int
) -> tuple[dict[str, float], float]:
    """Leave the clipped gradient of one step in the model; its terms and its norm before."""
    target = state.model.spec.target
    batch = _draw(state, config, read, step)
    state.adamw.zero_grad(set_to_none=True)
    names = ["loss", "mse", "vlb"] if state.model.spec.learn_sigma else ["loss", "mse"]
    names += ["latent_mean", "latent_square"]
    sums = torch.zeros(len(names) + len(QUARTERS), device=state.device)
    for own in micro_batches(slice(0, len(batch.z_BLC)), state.micro_batch):
        z_BLC, noise_BLC, time_B = batch.z_BLC[own], batch.noise_BLC[own], batch.time_B[own]
        xt_BLC = add_noise(target, z_BLC, noise_BLC, time_B)
        labels_B = None if batch.labels_B is None else batch.labels_B[own]
        with torch.autocast(state.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            prediction = state.forward(xt_BLC, time_B, labels_B)
        loss = diffusion_loss(target, prediction, z_BLC, noise_BLC, xt_BLC, time_B)
        total_B = loss.mse_B if loss.vlb_B is None else loss.mse_B + loss.vlb_B
        torch.autograd.backward(total_B.sum() / config.batch)
        terms_B = [total_B, loss.mse_B, *(() if loss.vlb_B is None else (loss.vlb_B,))]
        terms_B += [z_BLC.mean(dim=(1, 2)), z_BLC.square().mean(dim=(1, 2))]
        sums[: len(names)] += torch.stack(terms_B).detach().sum(dim=1) / config.batch
        sums[len(names) :].index_add_(0, _quarter(time_B), loss.mse_B.detach())
    sum_gradients(state.model.parameters())
    norm = clip_gradients(state.model.parameters(), config.optimiser)
    # One transfer from the device for everything that the guard and the record need.
    sums = torch.cat([sum_tensor(sums), batch.counts_Q.to(sums.dtype), norm.reshape(1)])
    *values, grad_norm = sums.tolist()
    terms = dict(zip(names, values, strict=False))
    spread = terms.pop("latent_square") - terms["latent_mean"] ** 2
    terms["latent_std"] = math.sqrt(max(spread, 0.0))  # NaN stays NaN, for the guard
    errors, counts = values[len(names) :][: len(QUARTERS)], values[-len(QUARTERS) :]
    for name, error, count in zip(QUARTERS, errors, counts, strict=True):
        if count:
            terms[name] = error / count
    return terms, grad_norm


def _average_notes(ema: float | None, steps: int) -> tuple[str, ...]:
    left = 0.0 if ema is None else ema**steps
    if left <= INITIAL_SHARE:
        return ()
    fitting = math.floor(10_000 * INITIAL_SHARE ** (1 / steps)) / 10_000
    return (
        f"{100 * left:.0f} % of the average with ema {ema} are still the untrained weights "
        f"after {steps} steps; train longer, or lower ema to {fitting} or less",
    )
