"""How is a tokenizer trained? One flat loop a stage, resumable to the byte.

Everything random is a function of (seed, step): which images, which are mirrored, the posterior's
noise. A checkpoint is therefore weights, optimiser and one integer, and a run that was stopped or
killed at any step ends with the same bytes of weights as one that was not (same machine, same
thread count, deterministic kernels chosen by the caller).

The loop guards before it updates: a loss or gradient that is not finite raises and leaves the last
checkpoint as it was. Checkpoints are written under a temporary name, fsynced, renamed, and carry
their SHA-256 beside them; the last two are kept, a damaged one is set aside for the one before.

Settings of the whole process (threads, deterministic algorithms, TF32) are the caller's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from vitok_core.data import Sampler, SampleSet
from vitok_core.errors import CheckpointError, DataError, NonFiniteError, SpecError, Stopped
from vitok_core.features import lpips_network
from vitok_core.losses import Stage1Loss, stage1_loss
from vitok_core.spec import TokenizerSpec, training_flops
from vitok_core.tokenizer import ViTok, from_uint8, save_tokenizer

Precision = Literal["fp32", "bf16"]

CHECKPOINT_FORMAT = 1
CHECKPOINTS_KEPT = 2
CURVE_POINTS = 100
RECENT_STEPS = 50
PROBE_IMAGES = 256
ACTIVE_VARIANCE = 0.01
"""A channel is active if its posterior mean varies more than this (Burda et al. 2016)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1Config:
    """Everything besides model and data that decides the weights after stage 1.

    Attributes:
        steps: optimiser updates, at least 1.
        batch: images an update, at least 1.
        lr: peak learning rate, already resolved for the batch (the paper: 1e-4 * batch / 256).
        betas: of AdamW.
        weight_decay: of AdamW, on all parameters.
        warmup: part of the steps over which the rate rises linearly, from 0 to 1.
        final_lr: rate of the last step, at the end of the cosine; at most `lr`.
        clip: largest norm of the gradient, or None for no clipping.
        precision: "fp32", or "bf16" for autocast of the tokenizer; losses are float32 always.
        flip: whether images are mirrored left-right at random.
        loss: terms and weights.
        seed: of initial weights, order, mirroring and noise; from 0 to 2^63 - 1.
    """

    steps: int
    batch: int
    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    warmup: float = 0.03
    final_lr: float = 1e-5
    clip: float | None = 1.0
    precision: Precision = "fp32"
    flip: bool = True
    loss: Stage1Loss = field(default_factory=Stage1Loss)
    seed: int = 0

    def check(self, spec: TokenizerSpec) -> Stage1Config:
        """Return the settings themselves if they can be used for `spec`.

        Raises:
            SpecError: a value out of range; `field` names it.
        """
        clips = self.clip is None or (math.isfinite(self.clip) and self.clip > 0)
        for name, fits, allowed in (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
            ("lr", 0 < self.lr < math.inf, "positive"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("warmup", 0 <= self.warmup <= 1, "a part of the steps, from 0 to 1"),
            ("final_lr", 0 <= self.final_lr <= self.lr, f"from 0 to lr = {self.lr}"),
            ("clip", clips, "positive, or None"),
            ("precision", self.precision in get_args(Precision), "fp32 or bf16"),
            ("seed", 0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
        ):
            if not fits:
                raise SpecError(name, f"{name} = {getattr(self, name)!r}: must be {allowed}")
        self.loss.check(spec)
        return self


def learning_rate(config: Stage1Config, step: int) -> float:
    """The rate of one step, from 0: a linear rise to `lr`, then half a cosine to `final_lr`."""
    rising = round(config.warmup * config.steps)
    if step < rising:
        return config.lr * (step + 1) / rising
    done = (step - rising) / max(config.steps - 1 - rising, 1)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where training is, after a step.

    Attributes:
        step: updates made.
        steps: updates to make.
        loss: weighted total of this step.
        parts: unweighted terms of this step: pixel, kl and, when it has weight, lpips.
        lr: learning rate of this step.
        grad_norm: norm of the gradient before clipping.
        images_per_s: of this attempt.
        eta_s: seconds to the end at that speed.
        notes: what happened on the way that someone should know, such as damaged checkpoints.
    """

    step: int
    steps: int
    loss: float
    parts: Mapping[str, float]
    lr: float
    grad_norm: float
    images_per_s: float
    eta_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A stretch of training.

    Attributes:
        step: updates made at its end.
        loss: mean weighted total over the stretch.
        parts: mean unweighted terms over the stretch.
    """

    step: int
    loss: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1Result:
    """What training has left and how it went.

    Attributes:
        weights: path of weights.safetensors, see `vitok_core.tokenizer.load_tokenizer`.
        steps: updates made in all attempts.
        images: images shown in all attempts.
        flops: floating point operations of all attempts, see `vitok_core.spec.training_flops`.
        loss: weighted total of the last step.
        loss_recent: mean weighted total over the last 50 steps.
        parts_recent: mean unweighted terms over the last 50 steps.
        curve: at most 100 stretches of equal length.
        kl_per_channel: mean KL in nats of each of the c channels over images and tokens.
        active_units: channels whose posterior mean has a variance above 0.01.
        images_per_s: of this attempt; 0 when it had nothing left to do.
        seconds: wall time of this attempt.
        resumed_from: step of the checkpoint this attempt began with; 0 for none.
        notes: what happened on the way that someone should know, such as damaged checkpoints.
    """

    weights: Path
    steps: int
    images: int
    flops: int
    loss: float
    loss_recent: float
    parts_recent: Mapping[str, float]
    curve: tuple[CurvePoint, ...]
    kl_per_channel: tuple[float, ...]
    active_units: int
    images_per_s: float
    seconds: float
    resumed_from: int
    notes: tuple[str, ...]


def train_stage1(
    spec: TokenizerSpec,
    config: Stage1Config,
    images: SampleSet,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    checkpoint_s: float = 60.0,
    micro_batch: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Stage1Result:
    """Train a tokenizer, or go on where the checkpoints in `folder` end.

    Args:
        spec: the tokenizer; one frame.
        config: everything else that decides the weights.
        images: of the spec's resolution.
        folder: weights.safetensors and checkpoints/ go there; made if missing.
        device: torch device.
        checkpoint_s: seconds between checkpoints.
        micro_batch: images of a batch that are in memory together; None for all. Gradients are
            accumulated, so this changes results by float rounding only and is no part of `config`.
        progress: told after the first and the last step and about once a second.
        should_stop: asked before every step.

    Raises:
        SpecError: spec or settings that cannot be used.
        DataError: images of another resolution.
        WeightsError: the perceptual network is missing.
        NonFiniteError: the loss or gradient stopped being a number; the checkpoints are of before.
        CheckpointError: checkpoints of other settings, or a folder that cannot be written.
        Stopped: `should_stop` said so; a checkpoint was written first.
        OSError: the disk is full.
    """
    began = time.perf_counter()
    _check(spec, config, images, micro_batch)
    state = _begin(spec, config, images, folder / "checkpoints", torch.device(device))
    first = saved_step = state.resumed_from
    loop_began = time.perf_counter()
    told_at, saved_at = -math.inf, loop_began

    for step in range(first, config.steps):
        if should_stop is not None and should_stop():
            if step != saved_step or step == 0:
                state.save(step)
            raise Stopped(f"stopped at step {step} of {config.steps}; a checkpoint is written")

        terms, grad_norm = _gradients(state, config, images, step, micro_batch)
        lr = learning_rate(config, step)
        if not all(map(math.isfinite, (*terms.values(), grad_norm))):
            raise NonFiniteError(_non_finite(step, lr, terms, grad_norm))
        for group in state.optimiser.param_groups:
            group["lr"] = lr
        state.optimiser.step()
        state.history[step] = torch.tensor(list(terms.values()), dtype=torch.float64)

        done, now = step + 1, time.perf_counter()
        if progress is not None and (now - told_at >= 1.0 or done == config.steps):
            told_at = now
            speed = (done - first) * config.batch / (now - loop_began)
            progress(
                Progress(
                    step=done,
                    steps=config.steps,
                    loss=terms["loss"],
                    parts={name: value for name, value in terms.items() if name != "loss"},
                    lr=lr,
                    grad_norm=grad_norm,
                    images_per_s=speed,
                    eta_s=(config.steps - done) * config.batch / speed,
                    notes=tuple(state.notes),
                )
            )
        if now - saved_at >= checkpoint_s and done < config.steps:
            state.save(done)
            saved_step, saved_at = done, time.perf_counter()

    shown = (config.steps - first) * config.batch
    speed = shown / (time.perf_counter() - loop_began) if shown else 0.0
    weights = folder / "weights.safetensors"
    save_tokenizer(state.model, weights)
    kl_per_channel, active_units = _probe(state.model, images, state.device)
    recent = _stretch(state.history[-RECENT_STEPS:], config.steps, state.names)
    return Stage1Result(
        weights=weights,
        steps=config.steps,
        images=config.steps * config.batch,
        flops=training_flops(spec, config.steps * config.batch),
        loss=float(state.history[-1, 0]),
        loss_recent=recent.loss,
        parts_recent=recent.parts,
        curve=_curve(state.history, state.names),
        kl_per_channel=kl_per_channel,
        active_units=active_units,
        images_per_s=speed,
        seconds=time.perf_counter() - began,
        resumed_from=first,
        notes=tuple(state.notes),
    )


def discard_checkpoints(folder: Path) -> int:
    """Delete the checkpoints of a finished training; the bytes that were freed.

    Call it when the weights are safe: training `folder` again would then start from its beginning.
    """
    freed = 0
    for path in (folder / "checkpoints").glob("step-*"):
        freed += path.stat().st_size
        path.unlink()
    return freed


def _check(
    spec: TokenizerSpec, config: Stage1Config, images: SampleSet, micro_batch: int | None
) -> None:
    spec.check()
    config.check(spec)
    if micro_batch is not None and micro_batch < 1:
        raise SpecError("micro_batch", f"micro_batch = {micro_batch}: must be at least 1, or None")
    if spec.frames != 1:
        raise SpecError(
            "frames",
            f"frames = {spec.frames}: a set of single images cannot train a video tokenizer",
        )
    if images.resolution != spec.resolution:
        raise DataError(
            f"the images are {images.resolution} px, the tokenizer takes {spec.resolution} px; "
            "prepare the data set at that resolution"
        )


@dataclass(slots=True, kw_only=True)
class _State:
    """What changes while training, and what it is drawn from."""

    model: ViTok
    optimiser: torch.optim.AdamW
    perceptual: nn.Module | None
    sampler: Sampler
    noise_source: torch.Generator
    history: Tensor  # (steps, names) float64; rows of steps to come are zero
    names: tuple[str, ...]
    device: torch.device
    checkpoints: Path
    identity: dict[str, Any]
    resumed_from: int = 0
    notes: list[str] = field(default_factory=list)

    def save(self, step: int) -> None:
        contents = {
            "format": CHECKPOINT_FORMAT,
            "identity": self.identity,
            "step": step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history[:step].clone(),
        }
        _write_checkpoint(self.checkpoints, step, contents)


def _begin(
    spec: TokenizerSpec,
    config: Stage1Config,
    images: SampleSet,
    checkpoints: Path,
    device: torch.device,
) -> _State:
    """The state before the first step, or as the newest whole checkpoint has it."""
    perceptual = None
    if config.loss.lpips_weight > 0:
        perceptual = lpips_network(config.loss.lpips_net).to(device)
    # Weights are drawn on the CPU from a generator of their own: the same on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_stream(config.seed, 0, purpose=1))
        model = ViTok(spec)
    model.to(device).train()
    names = ("loss", "pixel", "kl", "lpips") if perceptual is not None else ("loss", "pixel", "kl")
    state = _State(
        model=model,
        optimiser=torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        ),
        perceptual=perceptual,
        sampler=Sampler(len(images), config.seed),
        noise_source=torch.Generator(device),
        history=torch.zeros(config.steps, len(names), dtype=torch.float64),
        names=names,
        device=device,
        checkpoints=checkpoints,
        identity=_identity(spec, config, images),
    )
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        for unfinished in checkpoints.glob(".step-*.tmp"):  # of an attempt that was killed
            unfinished.unlink()
    except OSError as error:
        raise CheckpointError(f"cannot write to {checkpoints}: {error.strerror}") from error
    found = _newest_checkpoint(checkpoints, state.identity, state.notes)
    if found is not None:
        state.model.load_state_dict(found["model"])
        state.optimiser.load_state_dict(found["optimiser"])
        state.resumed_from = found["step"]
        state.history[: state.resumed_from] = found["history"]
    return state


def _gradients(
    state: _State, config: Stage1Config, images: SampleSet, step: int, micro_batch: int | None
) -> tuple[dict[str, float], float]:
    """Leave the clipped gradient of one step in the model; its terms and its norm before."""
    draw = state.sampler.draw(step * config.batch, config.batch)
    pixels = images.batch(draw.indices, draw.flips if config.flip else None)
    x_BCHW = from_uint8(torch.from_numpy(pixels).to(state.device))
    spec = state.model.spec
    state.noise_source.manual_seed(_stream(config.seed, step, purpose=2))
    # Drawn for the whole batch at once: micro-batches must not change the noise.
    noise_BLC = torch.randn(
        (config.batch, spec.tokens, spec.c), generator=state.noise_source, device=state.device
    )

    state.optimiser.zero_grad(set_to_none=True)
    terms = torch.zeros(len(state.names), device=state.device)
    size = micro_batch or config.batch
    for first in range(0, config.batch, size):
        rows = slice(first, min(first + size, config.batch))
        share = (rows.stop - first) / config.batch
        total, parts = _forward(state, config, x_BCHW[rows], noise_BLC[rows])
        torch.autograd.backward(share * total)
        terms += share * torch.stack([total.detach(), *(parts[name] for name in state.names[1:])])
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip or math.inf)
    # One transfer from the device for everything that the guard and the record need.
    *values, grad_norm = torch.cat([terms, norm.reshape(1)]).tolist()
    return dict(zip(state.names, values, strict=True)), grad_norm


def _forward(
    state: _State, config: Stage1Config, x_BCHW: Tensor, noise_BLC: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast(state.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        posterior = state.model.encode(x_BCHW)
        x_hat_BCHW = state.model.decode(posterior.sample(noise_BLC))
    return stage1_loss(config.loss, x_BCHW, x_hat_BCHW, posterior, state.perceptual)


def _stream(seed: int, step: int, *, purpose: int) -> int:
    """A 63-bit seed for one purpose at one step; counter-based, so no step needs those before."""
    word = np.random.Philox(key=[seed, step], counter=[0, 0, 0, purpose]).random_raw()
    return int(word) >> 1


def _non_finite(step: int, lr: float, values: Mapping[str, float], grad_norm: float) -> str:
    terms = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    return (
        f"step {step + 1}: {terms}, gradient norm {grad_norm:.4g}; the update was not made. "
        f"Lower lr (now {lr:.3g}), lengthen warmup, lower clip, or use precision fp32"
    )


@torch.no_grad()
def _probe(model: ViTok, images: SampleSet, device: torch.device) -> tuple[tuple[float, ...], int]:
    """KL of each channel and the number of active ones, over the first training images."""
    model.eval()
    means, kls = [], []
    count = min(len(images), PROBE_IMAGES)
    for first in range(0, count, 64):
        indices = np.arange(first, min(first + 64, count))
        posterior = model.encode(from_uint8(torch.from_numpy(images.batch(indices)).to(device)))
        means.append(posterior.mean.flatten(0, 1).double())
        kls.append(posterior.kl().flatten(0, 1).double())
    variance = torch.cat(means).var(dim=0, correction=0)
    kl_per_channel = torch.cat(kls).mean(dim=0)
    return tuple(kl_per_channel.tolist()), int((variance > ACTIVE_VARIANCE).sum())


def _curve(history: Tensor, names: tuple[str, ...]) -> tuple[CurvePoint, ...]:
    steps = len(history)
    length = -(-steps // CURVE_POINTS)
    ends = [min(first + length, steps) for first in range(0, steps, length)]
    starts = range(0, steps, length)
    return tuple(
        _stretch(history[first:end], end, names) for first, end in zip(starts, ends, strict=True)
    )


def _stretch(rows: Tensor, step: int, names: tuple[str, ...]) -> CurvePoint:
    mean = dict(zip(names, rows.mean(dim=0).tolist(), strict=True))
    return CurvePoint(step=step, loss=mean.pop("loss"), parts=mean)


def _identity(spec: TokenizerSpec, config: Stage1Config, images: SampleSet) -> dict[str, Any]:
    """What a checkpoint must agree with before training goes on from it, as plain data."""
    return {
        "spec": dataclasses.asdict(spec),
        "config": dataclasses.asdict(config),
        "images": len(images),
    }


def _newest_checkpoint(
    folder: Path, identity: dict[str, Any], notes: list[str]
) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; damaged ones are renamed and noted."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        sidecar = path.with_suffix(".sha256")
        expected = (
            sidecar.read_text(errors="replace").strip() if sidecar.exists() else "none recorded"
        )
        if _sha256(path) != expected:
            path.replace(path.with_suffix(".pt.damaged"))
            sidecar.unlink(missing_ok=True)
            notes.append(f"checkpoint {path.name} was damaged and has been set aside")
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if state.get("format") != CHECKPOINT_FORMAT or state["identity"] != identity:
            raise CheckpointError(
                f"{path} was written with other settings ({_difference(state, identity)}); train "
                "in another folder, or delete this one's checkpoints"
            )
        return state
    return None


def _difference(state: dict[str, Any], identity: dict[str, Any]) -> str:
    if state.get("format") != CHECKPOINT_FORMAT:
        return f"checkpoint format {state.get('format')}, this version reads {CHECKPOINT_FORMAT}"
    for part, wanted in identity.items():
        given = state["identity"].get(part)
        if given == wanted:
            continue
        if not isinstance(wanted, dict) or not isinstance(given, dict):
            return f"{part}: {given} there, {wanted} here"
        for name in sorted(given.keys() | wanted.keys()):
            if given.get(name) != wanted.get(name):
                return f"{name}: {given.get(name)!r} there, {wanted.get(name)!r} here"
    return "unknown"


def _write_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write a checkpoint and its hash, then delete all but the last two."""
    path = folder / f"step-{step:010d}.pt"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        # The hash goes first: a checkpoint without one would count as damaged.
        _write_text(path.with_suffix(".sha256"), _sha256(temporary) + "\n")
        temporary.replace(path)
        _sync_folder(folder)
        for old in sorted(folder.glob("step-*.pt"))[:-CHECKPOINTS_KEPT]:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
