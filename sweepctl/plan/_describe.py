"""The size of one tokenizer without a study: a variant string and options to counts per part.

The same closed forms that plans use (`vitok_core.spec`), for `sweepctl spec`: tokens, E and
compression of the code, parameters and multiply-accumulates (MACs) of encoder, decoder, both, and
of a DiT over the codes when one is asked for. Nothing is built and nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweepctl.errors import UsageError
from sweepctl.plan._model import Code, code_of
from vitok_core.errors import SpecError
from vitok_core.spec import (
    Bottleneck,
    DiTSpec,
    Norm,
    Positions,
    Target,
    TokenizerSpec,
    parse_variant,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one part of a model costs.

    Attributes:
        part: "encoder", "decoder", "tokenizer" (both), or "DiT-" and its size.
        parameters: number of them.
        macs: multiply-accumulates of one forward pass of one sample; of a DiT, of one prediction.
        flops: floating point operations of the same, 2 * macs.
    """

    part: str
    parameters: int
    macs: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A tokenizer by its numbers.

    Attributes:
        variant: as the paper writes it, "S-B/16" or "S-B/4x8".
        resolution: image side in pixels.
        frames: frames of a sample, 1 for images.
        grid: tubelets in time, height and width.
        code: the whole code.
        cut: the code at each length of a masked tokenizer; empty for all others.
        parts: encoder, decoder, tokenizer, and the DiT when one was asked for.
    """

    variant: str
    resolution: int
    frames: int
    grid: tuple[int, int, int]
    code: Code
    cut: tuple[Code, ...]
    parts: tuple[Part, ...]


def describe_tokenizer(
    variant: str,
    *,
    resolution: int = 256,
    channels: int = 16,
    frames: int = 1,
    latent_tokens: int | None = None,
    lengths: Sequence[int] = (),
    norm: Norm = "layernorm",
    qk_norm: bool = False,
    positions: Positions = "axial",
    bottleneck: Bottleneck = "kl",
    noise_std: float | None = None,
    causal: bool = False,
    dit: str | None = None,
    classes: int = 0,
    target: Target = "eps",
    learn_sigma: bool = False,
) -> Sized:
    """Count a tokenizer in closed form, and a DiT over its codes.

    Args:
        variant: "S-B/16" (encoder-decoder/p) or "S-B/4x8" (encoder-decoder/q x p).
        resolution: image side in pixels.
        channels: c, channels of the code a token.
        frames: frames of a sample.
        latent_tokens, lengths, norm, qk_norm, positions, bottleneck, noise_std, causal: as in a
            study's `tokenizer`.
        dit: size of the DiT, or None for none.
        classes: labels of the DiT; 0 for an unconditional one.
        target: what the DiT predicts.
        learn_sigma: whether it predicts the variance as well.

    Raises:
        UsageError: nothing can be built from that; says what is allowed.
    """
    try:
        stride = parse_variant(variant)
        spec = TokenizerSpec(
            encoder=stride.encoder,
            decoder=stride.decoder,
            q=stride.q,
            p=stride.p,
            c=channels,
            resolution=resolution,
            frames=frames,
            latent_tokens=latent_tokens,
            lengths=tuple(lengths),
            norm=norm,
            qk_norm=qk_norm,
            positions=positions,
            bottleneck=bottleneck,
            noise_std=noise_std,
            causal=causal,
        ).check()
        parts = [
            _part("encoder", spec.encoder_parameters, spec.encoder_macs),
            _part("decoder", spec.decoder_parameters, spec.decoder_macs),
            _part("tokenizer", spec.parameters, spec.macs),
        ]
        if dit is not None:
            generator = DiTSpec.for_tokenizer(
                spec, size=dit, classes=classes, target=target, learn_sigma=learn_sigma
            )
            parts.append(_part(f"DiT-{dit}", generator.parameters, generator.macs))
    except SpecError as error:
        raise UsageError(error.message) from error
    return Sized(
        variant=spec.variant,
        resolution=spec.resolution,
        frames=spec.frames,
        grid=spec.grid,
        code=code_of(spec, spec.tokens),
        cut=tuple(code_of(spec, length) for length in spec.lengths),
        parts=tuple(parts),
    )


def _part(name: str, parameters: int, macs: int) -> Part:
    return Part(part=name, parameters=parameters, macs=macs, flops=2 * macs)
