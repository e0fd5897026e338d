"""What does a task of each kind take? Parameters, operations and disk, in closed form.

Trainings are counted as `vitok_core.spec` counts them, with every network that runs in them. Of
measurements only the models that are measured are counted, not the networks that judge them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vitok_core.spec import (
    DiTSpec,
    Flops,
    TokenizerSpec,
    discriminator_parameters,
    dit_training_flops,
    in_precision,
    stage1_flops,
    stage2_flops,
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
    """

    parameters: int = 0
    macs: int = 0
    flops: int = 0
    tf32_flops: int = 0
    fp32_flops: int = 0
    samples: int = 0
    disk_bytes: int = 0

    def scaled(self, share: float) -> Cost:
        """What a share of its steps takes; models and disk stay as large."""
        return replace(
            self,
            flops=round(self.flops * share),
            tf32_flops=round(self.tf32_flops * share),
            fp32_flops=round(self.fp32_flops * share),
            samples=round(self.samples * share),
        )


def of_stage1(spec: TokenizerSpec, stage1: Mapping[str, Any]) -> Cost:
    """The training of an auto-encoder; `stage1` are its lasting settings."""
    samples = stage1["steps"] * stage1["batch"]
    flops = stage1_flops(
        spec,
        samples,
        precision=stage1["precision"],
        lpips_net=_lpips_net(stage1["loss"]),
        dino=stage1["loss"].get("dino", 0.0) > 0,
    )
    return Cost(
        parameters=spec.parameters,
        macs=spec.macs,
        samples=samples,
        disk_bytes=_trained_bytes(spec.parameters, spec.parameters, stage1.get("ema")),
        **_counted(flops),
    )


def of_stage2(spec: TokenizerSpec, stage2: Mapping[str, Any]) -> Cost:
    """The training against a discriminator, which is counted too."""
    adversarial, width = stage2["adversarial"], stage2["discriminator_width"]
    fooled = adversarial["weight"] > 0
    flops = stage2_flops(
        spec,
        steps=stage2["steps"],
        batch=stage2["batch"],
        train=stage2["train"],
        precision=stage2["precision"],
        lpips_net=_lpips_net(stage2["loss"]),
        dino=stage2["loss"]["dino"] > 0,
        discriminator_width=width if fooled else None,
        adversarial_start=adversarial["start"],
        r1=adversarial["r1"] > 0,
    )
    moving = spec.parameters if stage2["train"] == "all" else spec.decoder_parameters
    judge = discriminator_parameters(spec.resolution, width) if fooled else 0
    return Cost(
        parameters=spec.parameters + judge,
        macs=spec.macs,
        samples=stage2["steps"] * stage2["batch"],
        # Two checkpoints hold the discriminator with both of its moments.
        disk_bytes=_trained_bytes(spec.parameters, moving, stage2["ema"]) + 2 * 4 * 3 * judge,
        **_counted(flops),
    )


def of_latents(spec: TokenizerSpec, images: int, *, flip: bool) -> Cost:
    """Encoding a data set, mirrored samples too, in float32."""
    samples = images * (2 if flip else 1)
    arrays = 2 if spec.bottleneck in ("kl", "noise") else 1
    return Cost(
        parameters=spec.encoder_parameters,
        macs=spec.encoder_macs,
        samples=samples,
        disk_bytes=4 * (arrays * samples * spec.tokens * spec.c + spec.parameters) + 8 * images,
        **_counted(Flops(fp32=2 * spec.encoder_macs * samples)),
    )


def of_dit(dit: DiTSpec, how: Mapping[str, Any]) -> Cost:
    """The training of a generator."""
    samples = how["steps"] * how["batch"]
    return Cost(
        parameters=dit.parameters,
        macs=dit.macs,
        samples=samples,
        disk_bytes=_trained_bytes(dit.parameters, dit.parameters, how["ema"]),
        **_counted(in_precision(dit_training_flops(dit, samples), how["precision"])),
    )


def of_generate(spec: TokenizerSpec, dit: DiTSpec, how: Mapping[str, Any]) -> Cost:
    """Making samples: a prediction a step, two where guidance is on, and the decoder once."""
    low, high = how["cfg_interval"] or (0.0, 1.0)
    guided = round(how["steps"] * (high - low)) if how["cfg"] != 1 else 0
    predicted = 2 * dit.macs * (how["steps"] + guided) * how["images"]
    decoded = 2 * spec.decoder_macs * how["images"]
    return Cost(
        parameters=dit.parameters + spec.decoder_parameters,
        macs=dit.macs,
        samples=how["images"],
        # All samples lie there until they are measured; 64 of them stay.
        disk_bytes=how["images"] * 3 * spec.frames * spec.resolution**2,
        **_counted(in_precision(predicted, how["precision"]) + Flops(fp32=decoded)),
    )


def of_reconstruct(spec: TokenizerSpec, images: int) -> Cost:
    """Encoding and decoding a data set, in float32."""
    return Cost(
        parameters=spec.parameters,
        macs=spec.macs,
        samples=images,
        disk_bytes=2 * RECONSTRUCTIONS_KEPT * 3 * spec.frames * spec.resolution**2,
        **_counted(Flops(fp32=2 * spec.macs * images)),
    )


def _counted(flops: Flops) -> dict[str, int]:
    return {"flops": flops.total, "tf32_flops": flops.tf32, "fp32_flops": flops.fp32}


def _trained_bytes(parameters: int, moving: int, ema: float | None) -> int:
    """Weights, and two checkpoints of weights, both AdamW moments of what moves, their average."""
    averages = 0 if ema is None else parameters
    return 4 * (parameters + 2 * (parameters + 2 * moving + averages))


def _lpips_net(loss: Mapping[str, Any]) -> Any:
    return loss["lpips_net"] if loss["lpips"] > 0 else None
