"""The cost of a task of each kind: parameters, operations and disk, in closed form.

Trainings are counted by their settings, with every network that runs in them. Of measurements only
the models that are measured are counted, not the networks that judge them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vitok_core.settings import (
    DETERMINISTIC,
    DiT,
    Latents,
    Sampling,
    Stage1,
    Stage2,
    whole_steps,
)
from vitok_core.spec import (
    FRAMES_AT_ONCE,
    DiTSpec,
    Flops,
    Memory,
    TokenizerSpec,
    decoding_memory,
    discriminator_parameters,
    encoding_memory,
    reconstruction_memory,
    sampling_memory,
)

RECONSTRUCTIONS_KEPT = 16
"""Originals and reconstructions that stay on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a task takes, in closed form.

    Attributes:
        parameters: of the model, 0 where there is none.
        macs: multiply-accumulates of one forward pass of one sample.
        flops: floating point operations of the whole task; 0 where they are not counted.
        tf32_flops: of them, float32 convolutions, which a GPU computes as tf32 products.
        fp32_flops: of them, other products of float32 numbers; the rest is bfloat16.
        samples: images or clips that the task goes through; 0 where there are none.
        disk_bytes: what it takes on disk while it runs, checkpoints and all; less stays.
        training: of a training, what its memory follows from: the model and the settings.
        without_gradients: of a task that runs models and trains none, how many samples are in
            memory together, and their memory; networks that judge are not counted.
    """

    parameters: int = 0
    macs: int = 0
    flops: int = 0
    tf32_flops: int = 0
    fp32_flops: int = 0
    samples: int = 0
    disk_bytes: int = 0
    training: tuple[TokenizerSpec, Stage1 | Stage2] | tuple[DiTSpec, DiT] | None = field(
        default=None, compare=False
    )
    without_gradients: tuple[int, Memory] | None = field(default=None, compare=False)

    def scaled(self, share: float) -> Cost:
        """What a share of its steps takes; models and disk stay as large."""
        return replace(
            self,
            flops=round(self.flops * share),
            tf32_flops=round(self.tf32_flops * share),
            fp32_flops=round(self.fp32_flops * share),
            samples=round(self.samples * share),
        )


def of_stage1(spec: TokenizerSpec, how: Stage1) -> Cost:
    """The training of an auto-encoder."""
    return Cost(
        parameters=spec.parameters,
        macs=spec.macs,
        samples=how.steps * how.batch,
        disk_bytes=_trained_bytes(spec.parameters, spec.parameters, how.ema),
        training=(spec, how),
        **_counted(how.flops(spec)),
    )


def of_stage2(spec: TokenizerSpec, how: Stage2) -> Cost:
    """The training against a discriminator, which is counted too."""
    moving = spec.parameters if how.train == "all" else spec.decoder_parameters
    size = (spec.resolution, how.discriminator_width)
    judge = discriminator_parameters(*size) if how.fools else 0
    return Cost(
        parameters=spec.parameters + judge,
        macs=spec.macs,
        samples=whole_steps(how.steps) * how.batch,
        # Two checkpoints hold the discriminator with both of its moments.
        disk_bytes=_trained_bytes(spec.parameters, moving, how.ema) + 2 * 4 * 3 * judge,
        training=(spec, how),
        **_counted(how.flops(spec)),
    )


def of_latents(spec: TokenizerSpec, images: int, how: Latents) -> Cost:
    """Encoding a data set, mirrored samples too, in float32."""
    samples = images * (2 if how.flip else 1)
    arrays = 1 if spec.bottleneck in DETERMINISTIC else 2
    codes = arrays * samples * spec.tokens * spec.c
    return Cost(
        parameters=spec.encoder_parameters,
        macs=spec.encoder_macs,
        samples=samples,
        disk_bytes=how.value_bytes * codes + 4 * spec.parameters + 8 * images,
        without_gradients=(_at_once(spec), encoding_memory(spec)),
        **_counted(Flops(fp32=2 * spec.encoder_macs * samples)),
    )


def of_dit(dit: DiTSpec, how: DiT) -> Cost:
    """The training of a generator."""
    return Cost(
        parameters=dit.parameters,
        macs=dit.macs,
        samples=whole_steps(how.steps) * how.batch,
        disk_bytes=_trained_bytes(dit.parameters, dit.parameters, how.ema),
        training=(dit, how),
        **_counted(how.flops(dit)),
    )


def of_generate(spec: TokenizerSpec, dit: DiTSpec, how: Sampling, images: int) -> Cost:
    """Making samples: the generator at every step, and the decoder once, in float32."""
    return Cost(
        parameters=dit.parameters + spec.decoder_parameters,
        macs=dit.macs,
        samples=images,
        # All samples are kept until they are measured; 64 of them stay.
        disk_bytes=images * 3 * spec.frames * spec.resolution**2,
        without_gradients=(_at_once(spec), _sampling(spec, dit, how)),
        **_counted(how.flops(dit, images) + Flops(fp32=2 * spec.decoder_macs * images)),
    )


def of_reconstruct(spec: TokenizerSpec, images: int) -> Cost:
    """Encoding and decoding a data set, in float32."""
    return Cost(
        parameters=spec.parameters,
        macs=spec.macs,
        samples=images,
        disk_bytes=2 * RECONSTRUCTIONS_KEPT * 3 * spec.frames * spec.resolution**2,
        without_gradients=(_at_once(spec), reconstruction_memory(spec)),
        **_counted(Flops(fp32=2 * spec.macs * images)),
    )


def _at_once(spec: TokenizerSpec) -> int:
    return max(1, FRAMES_AT_ONCE // spec.frames)


def _sampling(spec: TokenizerSpec, dit: DiTSpec, how: Sampling) -> Memory:
    """Both models are there; codes are drawn and decoded one after the other."""
    drawn = sampling_memory(dit, how.precision, guided=how.cfg != 1)
    decoded = decoding_memory(spec)
    return Memory(
        fixed=drawn.fixed + decoded.fixed,
        per_sample=max(drawn.per_sample, decoded.per_sample),
    )


def _counted(flops: Flops) -> dict[str, Any]:
    return {"flops": flops.total, "tf32_flops": flops.tf32, "fp32_flops": flops.fp32}


def _trained_bytes(parameters: int, moving: int, ema: float | None) -> int:
    """Weights, and two checkpoints of weights, both AdamW moments of what moves, their average."""
    averages = 0 if ema is None else parameters
    return 4 * (parameters + 2 * (parameters + 2 * moving + averages))
