"""Stage 2: the training of the decoder against a discriminator.

One flat loop, like stage 1's, from a tokenizer that stage 1 has trained. The encoder is frozen (or,
as an option, trained too), codes are still sampled, the losses of stage 1 stay on, and the
generator loss -mean(D(x_hat)) joins them with a weight that rises along a ramp. Decoder and
discriminator are updated at the same time, from the same samples; see `_discriminator`.

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

import torch
from torch import Tensor, nn

from vitok_core.data import Samples
from vitok_core.features import convolutions
from vitok_core.files import sha256_of
from vitok_core.losses import adversarial_weight, loss_networks, stage1_loss
from vitok_core.ranks import from_first
from vitok_core.settings import Run, Stage2, whole_steps
from vitok_core.spec import TokenizerSpec, discriminator_parameters
from vitok_core.tokenizer import ViTok, from_uint8, load_tokenizer, save_tokenizer
from vitok_core.train._batches import check_samples, code_draws, sample_batches
from vitok_core.train._discriminator import CollapseWatch, DiscriminatorLearner
from vitok_core.train._grids import fixed_samples, write_grid
from vitok_core.train._guard import NORM, Side, all_finite
from vitok_core.train._loop import Loop, check_run
from vitok_core.train._optimise import Learner, learning_rate, stream
from vitok_core.train._parallel import part
from vitok_core.train._progress import TrainingProgress, TrainingResult, with_metrics
from vitok_core.train._room import fitted

OWN_NORM = "discriminator_norm"
"""Name of the norm of the discriminator's gradient before clipping."""

WEIGHTS, NOISE, LENGTHS = 11, 12, 13
"""Purposes of the random streams; stage 1 with the same seed has others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage2Result(TrainingResult):
    """What stage 2 has left and how it went; see `TrainingResult`.

    Parts in addition to those of stage 1, where a step has them: "adversarial" (-mean D(x_hat)) and
    "adversarial_weight" (after ramp and adaptive factor) of the decoder's loss; of the
    discriminator "hinge", "real_logit", "fake_logit", "r1", "lecam" and "discriminator_norm", the
    norm of its gradient before clipping.

    Attributes:
        tokenizer_sha256: of the weights file it began with.
        discriminator_parameters: 0 without discriminator.
    """

    tokenizer_sha256: str
    discriminator_parameters: int


def train_stage2(
    tokenizer: Path,
    config: Stage2,
    samples: Samples,
    folder: Path,
    *,
    run: Run = Run(),
    until: int | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Stage2Result:
    """Train a tokenizer further with a discriminator, or resume from the checkpoints in `folder`.

    Inside of `distributed` every process calls this with the same arguments and gets the result;
    the first one writes the files. A frozen encoder's codes stay what they were, so statistics of
    the codes inside the tokenizer's file are kept; with train = "all" they are dropped.

    Args:
        tokenizer: weights.safetensors of stage 1.
        config: everything besides data that decides the weights.
        samples: of the tokenizer's resolution and frames.
        folder: weights.safetensors, checkpoints/ and sheets/ go there; made if missing.
        run: what changes no number beyond float rounding. Its sample grids show originals above
            reconstructions, of the weights in training (not of their average).
        until: steps after which to end, at most `config.steps`; the weights are then those of this
            step of the full schedule, and its checkpoint stays, to resume from. None for all steps.
        about: plain data to keep inside the weights file, see `save_tokenizer`; "metrics" and
            "tokenizer_sha256", of the file it began with, are added.
        progress: called after the first and the last step and about once a second, in the first
            process only.
        should_stop: called before every step, in every process.

    Raises:
        SpecError: settings that cannot be used.
        DataError: samples of another resolution or number of frames.
        WeightsError: `tokenizer` cannot be read, or a perceptual network is missing.
        NonFiniteError: a loss or gradient of either side stopped being a number; neither was
            updated, and the checkpoints are of before.
        CheckpointError: checkpoints of other settings, or a folder that cannot be written.
        Stopped: `should_stop` said so; a checkpoint was written first.
        OSError: the disk is full.
    """
    began = time.perf_counter()
    last, steps = check_run(config, run, until), whole_steps(config.steps)
    model = load_tokenizer(tokenizer, run.device)
    spec = model.spec
    config.check(spec)
    check_samples(spec, samples)
    run = fitted(run, lambda again: config.memory(spec, recompute=again), config.batch)
    _choose_trained(model, config)
    device = torch.device(run.device)
    discriminator = _first_discriminator(config, spec, device) if config.fools else None
    others = () if discriminator is None else (discriminator.network,)
    learner = Learner(model, config, run, others=others)
    learner.model.recompute_activations(bool(run.recompute_activations))
    networks = loss_networks(
        config.loss, learner.device, config.network_precision, fast=config.compile
    )
    sha256 = sha256_of(tokenizer)
    loop = Loop(
        folder,
        batch=config.batch,
        run=run,
        last=last,
        keep_last=until is not None,
        identity={
            "tokenizer": sha256,
            "spec": spec.plain(),
            "config": dataclasses.asdict(config),
            "samples": len(samples),
        },
        resumable={**learner.resumable, "adversary": discriminator},
        progress=progress,
        should_stop=should_stop,
    )
    learner.room.tell(loop.history)
    loop.watch(CollapseWatch(loop.history, since=config.discriminator.rising(steps)).look)
    shown = fixed_samples(samples)
    batches = sample_batches(samples, config, loop.remaining, learner.device)
    arithmetic = convolutions(config.network_precision)
    with contextlib.closing(batches), contextlib.closing(loop), arithmetic:
        for step in loop.steps():
            terms, norms, weight = _gradients(
                learner, discriminator, networks, config, next(batches), step
            )
            sums = dict(zip(terms, loop.sum(torch.stack(list(terms.values()))), strict=True))
            numbers, ok, sides = _update(learner, discriminator, config, step, sums, norms, weight)
            loop.record(step, tuple(numbers), torch.stack(list(numbers.values())), ok, sides)
            if path := loop.grid_due(step):
                from_first(partial(write_grid, path, shown, learner.model, learner.device))

    model, weights = learner.take_average(), folder / "weights.safetensors"
    size = (spec.resolution, config.discriminator_width)
    flops = dataclasses.replace(config, steps=last).flops(spec)
    result = Stage2Result(
        **loop.result(weights, flops, began, run, learner.room),
        tokenizer_sha256=sha256,
        discriminator_parameters=0 if discriminator is None else discriminator_parameters(*size),
    )
    record = with_metrics({**(about or {}), "tokenizer_sha256": sha256}, result)
    from_first(lambda: save_tokenizer(model, weights, about=record))
    return result


def _update(
    learner: Learner[ViTok],
    discriminator: DiscriminatorLearner | None,
    config: Stage2,
    step: int,
    sums: Mapping[str, Tensor],
    norms: Tensor,
    weight: Tensor | None,
) -> tuple[dict[str, Tensor], Tensor, list[Side]]:
    """Change the weights of both sides, or of none if anything is not finite.

    Args:
        learner: the tokenizer.
        discriminator: the discriminator, or None.
        config: the settings.
        step: from 0.
        sums: terms of the global batch, float64.
        norms: from `_gradients`.
        weight: of the generator loss, from `_gradients`.

    Returns:
        The numbers to record, float64 scalars; whether the updates were made; and whose numbers
        they are.
    """
    steps = whole_steps(config.steps)
    numbers = {**sums, NORM: norms[0].double()}
    if weight is not None:
        numbers["adversarial_weight"] = weight
    # The guard of both sides stands before both updates.
    ok = all_finite(torch.cat([torch.stack(list(numbers.values())), norms.double()]))
    lr = learning_rate(config.optimiser, step, steps)
    learner.update(lr, ok)
    own = config.adversarial.parts if discriminator is not None else ()
    sides = [Side(names=tuple(n for n in numbers if n not in own), norm=NORM, lr=lr)]
    if discriminator is not None:
        own_lr = learning_rate(config.discriminator, step, steps)
        discriminator.end_step(ok, sums["real_logit"], sums["fake_logit"], norms[2:].double())
        discriminator.update(own_lr, ok)
        numbers[OWN_NORM] = norms[1].double()
        sides.append(Side(names=(*own, OWN_NORM), norm=OWN_NORM, lr=own_lr))
    return numbers, ok, sides


def _choose_trained(model: ViTok, config: Stage2) -> None:
    """Freeze the encoder, or forget what would be true of a frozen one only."""
    if config.train == "all":
        model.normalisation = None  # codes will not stay what they were
    for name, parameter in model.named_parameters():
        # Without gradients nothing of the encoder is kept in memory either.
        decodes = name.partition(".")[0] in ("from_code", "patch_token_D", "decoder", "output")
        parameter.requires_grad_(config.train == "all" or decodes)


def _first_discriminator(
    config: Stage2, spec: TokenizerSpec, device: torch.device
) -> DiscriminatorLearner:
    return DiscriminatorLearner(
        config.adversarial,
        config.discriminator,
        resolution=spec.resolution,
        width=config.discriminator_width,
        seed=stream(config.seed, 0, purpose=WEIGHTS),
        device=device,
        precision=config.network_precision,
        fast=config.compile,
    )


def _gradients(
    learner: Learner[ViTok],
    discriminator: DiscriminatorLearner | None,
    networks: Mapping[str, nn.Module],
    config: Stage2,
    pixels: Tensor,
    step: int,
) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
    """Leave the clipped gradients of one step in tokenizer and discriminator.

    Args:
        learner: the tokenizer.
        discriminator: the discriminator, or None.
        networks: what the losses of stage 1 need.
        config: the settings.
        pixels: uint8, the rows of this process of the global batch.
        step: from 0.

    Returns:
        Everything on the device: scalars of this process's rows, whose sum over the processes is
        that of the global batch; norms, of the tokenizer's gradient before clipping and of what
        `DiscriminatorLearner.finish_gradients` returns; and the weight of the generator loss,
        float64, None where it has none.
    """
    rows = part(config.batch)
    noise_BLC, keep_B = code_draws(
        learner.model.spec,
        batch=config.batch,
        seed=config.seed,
        step=step,
        device=learner.device,
        purposes=(NOISE, LENGTHS),
    )
    ramp = adversarial_weight(config.adversarial, step)
    weight = None if discriminator is None or ramp == 0 else ramp * discriminator.factor
    sums: dict[str, Tensor] = {}

    for trying in learner.room.tries(step, rows):
        with trying:
            if discriminator is not None:
                discriminator.begin_step()
            sums.clear()
            for own in learner.room.micro_batches(rows):
                x = from_uint8(pixels[own.start - rows.start : own.stop - rows.start])
                share = len(x) / config.batch
                x_hat, posterior = learner.forward(
                    x, noise_BLC[own], None if keep_B is None else keep_B[own]
                )
                total, parts = stage1_loss(config.trained_loss, x, x_hat, posterior, networks)
                terms, gradient = {"loss": total.detach(), **parts}, None
                if discriminator is not None:
                    gradient, judged = discriminator.backward(
                        x, x_hat, share=share, generator=weight is not None
                    )
                    terms |= judged
                if discriminator is not None and gradient is not None and weight is not None:
                    terms["loss"] = terms["loss"] + weight.float() * terms["adversarial"]
                    last = learner.model.output.project.weight
                    discriminator.compare(total, x_hat, gradient, last, share=share)
                    # One backward pass through the decoder for both: sum of the two gradients
                    # by x_hat.
                    pulled = [None, (share * weight).float() * gradient]
                    torch.autograd.backward([share * total, x_hat], pulled)
                else:
                    torch.autograd.backward(share * total)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + share * value

    norms = [learner.clip()]
    if discriminator is not None:
        norms += discriminator.finish_gradients()
    return sums, torch.stack(norms), weight
