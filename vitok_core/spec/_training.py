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
compute in the training's precision, LPIPS, DINOv2 and the discriminator in that of the networks,
which by default is float32 with tf32 products in convolutions.
"""

from __future__ import annotations

from typing import Literal

from vitok_core.spec._devices import Flops
from vitok_core.spec._dit import DiTSpec
from vitok_core.spec._tokenizer import TokenizerSpec

Precision = Literal["fp32", "bf16"]
NetworkPrecision = Literal["fp32", "tf32", "bf16"]
"""Of LPIPS, DINOv2 and the discriminator: float32, float32 with TF32 in convolutions on GPUs that
have it, or bfloat16."""


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


def in_precision(flops: int, precision: Precision) -> Flops:
    """Operations that are all computed in one precision."""
    return Flops(bf16=flops) if precision == "bf16" else Flops(fp32=flops)


def of_networks(flops: Flops, precision: NetworkPrecision) -> Flops:
    """Operations of LPIPS, DINOv2 or the discriminator in a precision, from those of tf32."""
    if precision == "bf16":
        return Flops(bf16=flops.total)
    return flops if precision == "tf32" else Flops(fp32=flops.tf32 + flops.fp32)
