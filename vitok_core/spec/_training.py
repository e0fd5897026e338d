"""How many operations does a training take? Every network that runs in it, in closed form.

One multiply-accumulate (MAC) is two operations. A backward pass computes gradients of activations
and of weights and costs twice a forward pass; through frozen weights it costs once. Counted are,
for every sample that is shown:

    tokenizer      forward and backward, 6 a MAC; a frozen encoder forward only, 2 a MAC
    LPIPS          its trunk over the reconstruction and the original forward, and backward to the
                   reconstruction (6 a MAC of the trunk, for every frame), its heads both ways
    DINOv2         the same; its attention products cost two forward passes on the way back
    discriminator  three passes over the real frame (forward, two backward), three over the
                   reconstruction, one more for the decoder's gradient in steps where it is pulled,
                   and three more on the real one for R1
    DiT            forward and backward, 6 a MAC

Not counted are the optimiser, everything element-wise, SSIM (0.04 MFLOP a pixel row of a 256 px
image), what the adaptive weight measures, and what activation checkpointing computes again.

Operations are told apart by precision, because a device has a peak for each: tokenizer and DiT
compute in the training's precision, everything else in float32 (LPIPS and the discriminator as
convolutions, which have tf32 products on a GPU).
"""

from __future__ import annotations

from typing import Literal

from vitok_core.spec._devices import Flops
from vitok_core.spec._dit import DiTSpec
from vitok_core.spec._networks import LpipsTrunk, dino_macs, discriminator_macs, lpips_macs
from vitok_core.spec._tokenizer import TokenizerSpec

TrainingPrecision = Literal["fp32", "bf16"]


def training_flops(
    spec: TokenizerSpec, samples: int, *, train: Literal["all", "decoder"] = "all"
) -> int:
    """Floating point operations of the tokenizer alone when `samples` are shown in training.

    Args:
        spec: the tokenizer.
        samples: images or clips shown, over all steps.
        train: which part gets gradients.
    """
    encoder = 6 if train == "all" else 2
    return (encoder * spec.encoder_macs + 6 * spec.decoder_macs) * samples


def dit_training_flops(spec: DiTSpec, samples: int) -> int:
    """Floating point operations of showing `samples` codes to the generator in training."""
    return 6 * spec.macs * samples


def perceptual_flops(
    spec: TokenizerSpec, samples: int, *, lpips_net: LpipsTrunk | None, dino: bool
) -> Flops:
    """Floating point operations of the perceptual terms when `samples` are shown in training.

    Args:
        spec: the tokenizer whose reconstructions are judged.
        samples: images or clips shown, over all steps.
        lpips_net: trunk of LPIPS; None without that term.
        dino: whether there is a term of DINOv2.
    """
    frames, flops = spec.frames * samples, Flops()
    if lpips_net is not None:
        trunk, heads = lpips_macs(lpips_net, spec.resolution)
        flops += Flops(tf32=2 * (3 * trunk + 2 * heads) * frames)
    if dino:
        linear, products = dino_macs(spec.resolution)
        flops += Flops(fp32=2 * (3 * linear + 4 * products) * frames)
    return flops


def stage1_flops(
    spec: TokenizerSpec,
    samples: int,
    *,
    precision: TrainingPrecision,
    lpips_net: LpipsTrunk | None = None,
    dino: bool = False,
) -> Flops:
    """Floating point operations of stage 1.

    Args:
        spec: the tokenizer.
        samples: images or clips shown, over all steps.
        precision: of the tokenizer.
        lpips_net: trunk of LPIPS; None when the term has no weight.
        dino: whether the term of DINOv2 has weight.
    """
    perceptual = perceptual_flops(spec, samples, lpips_net=lpips_net, dino=dino)
    return in_precision(training_flops(spec, samples), precision) + perceptual


def stage2_flops(
    spec: TokenizerSpec,
    *,
    steps: int,
    batch: int,
    train: Literal["all", "decoder"],
    precision: TrainingPrecision,
    lpips_net: LpipsTrunk | None = None,
    dino: bool = False,
    discriminator_width: float | None,
    adversarial_start: int = 0,
    r1: bool = False,
) -> Flops:
    """Floating point operations of stage 2.

    Args:
        spec: the tokenizer.
        steps: updates.
        batch: images or clips an update.
        train: which part of the tokenizer gets gradients.
        precision: of the tokenizer.
        lpips_net: trunk of LPIPS; None when the term has no weight.
        dino: whether the term of DINOv2 has weight.
        discriminator_width: factor of its channels; None without discriminator.
        adversarial_start: steps in which only the discriminator learns.
        r1: whether its gradient is penalised.

    Raises:
        SpecError: no discriminator can be built for that resolution and width.
    """
    samples = steps * batch
    flops = in_precision(training_flops(spec, samples, train=train), precision)
    flops += perceptual_flops(spec, samples, lpips_net=lpips_net, dino=dino)
    if discriminator_width is not None:
        macs = discriminator_macs(spec.resolution, discriminator_width)
        passes = steps * (9 if r1 else 6) + max(steps - adversarial_start, 0)
        flops += Flops(tf32=2 * macs * passes * batch * spec.frames)
    return flops


def in_precision(flops: int, precision: TrainingPrecision) -> Flops:
    """Operations that are all computed in one precision."""
    return Flops(bf16=flops) if precision == "bf16" else Flops(fp32=flops)
