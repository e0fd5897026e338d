"""How large is a tokenizer, and what does it cost? The paper's variants and every option of ViTok.

Four kinds of code come out of two fields that combine freely (appendix A.4 of the paper):

    simple       one token of the code for each tubelet
    latent       latent_tokens = l: a 1-D code of l tokens, read out of and back into the tubelets
    mask simple  lengths: in training the code is cut to a length drawn for every sample
    mask latent  both

`check` says whether a spec can be built; everything else is arithmetic, cached by shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args

from vitok_core.errors import SpecError
from vitok_core.spec._counts import linear_counts, tower_counts
from vitok_core.spec._sizes import (
    SIZES,
    Norm,
    Positions,
    check_choice,
    check_count,
    check_switch,
    size_of,
)

IMAGE_CHANNELS = 3

Bottleneck = Literal["kl", "none", "layernorm", "noise"]
"""What the code is: a Gaussian of learned mean and variance (kl), the plain values (none), values
normalised over the channels of a token (layernorm), a Gaussian of fixed deviation (noise)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """One tokenizer and the shape of what it encodes; `check` says whether it can be built.

    Attributes:
        encoder: key into `SIZES`.
        decoder: key into `SIZES`.
        q: frames a tubelet (temporal stride), at least 1; divides `frames`.
        p: pixels a tubelet in height and in width, at least 1; divides `resolution`.
        c: channels of the code a token, at least 1; at least 3 for the bottleneck "layernorm".
        resolution: height and width of a sample in pixels.
        frames: frames of a sample; 1 for an image.
        latent_tokens: l, tokens of a 1-D code, any number of at least 1; None for one a tubelet.
        lengths: code lengths in tokens of which training draws one for every sample and step,
            strictly rising and at most `tokens`; () for always the whole code.
        norm: norm of the blocks, of the towers' ends and of `qk_norm`.
        qk_norm: whether queries and keys are normalised over the features of a head.
        positions: how tokens know where they are.
        bottleneck: what the code is.
        noise_std: standard deviation of the code for the bottleneck "noise", above 0; else None.
        causal: whether a token sees only its own and earlier steps in time; needs at least two
            steps and a code of one token a tubelet.
    """

    encoder: str
    decoder: str
    q: int = 1
    p: int
    c: int
    resolution: int
    frames: int = 1
    latent_tokens: int | None = None
    lengths: tuple[int, ...] = ()
    norm: Norm = "layernorm"
    qk_norm: bool = False
    positions: Positions = "axial"
    bottleneck: Bottleneck = "kl"
    noise_std: float | None = None
    causal: bool = False

    def check(self) -> TokenizerSpec:
        """Return the spec itself if a model can be built from it.

        Raises:
            SpecError: an unknown size or word, a number out of range, a stride that does not
                divide, or options that exclude one another.
        """
        for name in ("encoder", "decoder"):
            size_of(name, getattr(self, name), SIZES)
        for name in ("q", "p", "c", "resolution", "frames"):
            check_count(name, getattr(self, name))
        if self.latent_tokens is not None:
            check_count("latent_tokens", self.latent_tokens)
        check_choice("norm", self.norm, get_args(Norm))
        check_choice("positions", self.positions, get_args(Positions))
        check_choice("bottleneck", self.bottleneck, get_args(Bottleneck))
        check_switch("qk_norm", self.qk_norm)
        check_switch("causal", self.causal)
        self._check_strides()
        self._check_bottleneck()
        self._check_lengths()
        self._check_causal()
        return self

    def plain(self) -> dict[str, Any]:
        """Every field as plain data for JSON; `from_plain` reads it back."""
        return {**asdict(self), "lengths": list(self.lengths)}

    @classmethod
    def from_plain(cls, mapping: Mapping[str, Any]) -> TokenizerSpec:
        """The checked spec that `plain` described; fields that are absent have their defaults.

        Raises:
            SpecError: an unknown or missing field, or what `check` refuses.
        """
        known = [entry.name for entry in fields(cls)]
        for name in mapping:
            if name not in known:
                raise SpecError(
                    str(name), f"{name!r} is no field of a tokenizer; there are {', '.join(known)}"
                )
        for name in ("encoder", "decoder", "p", "c", "resolution"):
            if name not in mapping:
                raise SpecError(name, f"a tokenizer needs {name}; got {', '.join(mapping)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in mapping.items()
        }
        return cls(**values).check()

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets in time, height and width."""
        side = self.resolution // self.p
        return self.frames // self.q, side, side

    @property
    def patches(self) -> int:
        """Number of tubelets of one sample."""
        return (self.frames // self.q) * (self.resolution // self.p) ** 2

    @property
    def tokens(self) -> int:
        """L, the number of tokens in the code of one sample."""
        return self.patches if self.latent_tokens is None else self.latent_tokens

    @property
    def E(self) -> int:
        """E = L * c, the number of floating points in the code of one sample."""
        return self.tokens * self.c

    def E_at(self, length: int) -> int:
        """E of a masked tokenizer's code cut to `length` tokens.

        Raises:
            SpecError: the tokenizer has no lengths, or the length is not within 1 to `tokens`.
        """
        self.check_length(length)
        return length * self.c

    def check_length(self, length: int) -> None:
        """Say whether the code can be cut to `length` tokens.

        Raises:
            SpecError: the tokenizer has no lengths, or the length is not within 1 to `tokens`.
        """
        if not self.lengths:
            raise SpecError(
                "lengths",
                "this tokenizer knows its code only whole; train it with `lengths` to cut the code",
            )
        check_count("length", length)
        if length > self.tokens:
            raise SpecError(
                "length", f"length = {length}: the code of {self.variant} has {self.tokens} tokens"
            )

    @property
    def tubelet(self) -> int:
        """Values of the image behind one tubelet, 3 * q * p * p."""
        return IMAGE_CHANNELS * self.q * self.p * self.p

    @property
    def compression(self) -> float:
        """Values of the image for one value of the whole code; 48 for p = 16, c = 16."""
        return IMAGE_CHANNELS * self.frames * self.resolution**2 / self.E

    @property
    def variant(self) -> str:
        """The paper's name, "S-B/16", or "S-B/4x8" (q x p) when q is not 1."""
        stride = f"{self.p}" if self.q == 1 else f"{self.q}x{self.p}"
        return f"{self.encoder}-{self.decoder}/{stride}"

    @property
    def moments(self) -> int:
        """Values the encoder gives a token: c means, and c log-variances where they are learned."""
        return 2 * self.c if self.bottleneck == "kl" else self.c

    @property
    def encoder_parameters(self) -> int:
        """Parameters from the tubelet embedding to the projection onto the code."""
        return self._encoder_counts()[0]

    @property
    def decoder_parameters(self) -> int:
        """Parameters from the projection of the code (and its mask) to the output convolution."""
        return self._decoder_counts()[0]

    @property
    def parameters(self) -> int:
        """Parameters of the whole tokenizer."""
        return self._encoder_counts()[0] + self._decoder_counts()[0]

    @property
    def encoder_macs(self) -> int:
        """Multiply-accumulates of encoding one sample."""
        return self._encoder_counts()[1]

    @property
    def decoder_macs(self) -> int:
        """Multiply-accumulates of decoding one sample."""
        return self._decoder_counts()[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one sample."""
        return self._encoder_counts()[1] + self._decoder_counts()[1]

    def _encoder_counts(self) -> tuple[int, int]:
        return _encoder_counts(
            self.encoder,
            self.tubelet,
            self.patches,
            self.latent_tokens,
            self.moments,
            self.norm,
            self.qk_norm,
        )

    def _decoder_counts(self) -> tuple[int, int]:
        return _decoder_counts(
            self.decoder,
            self.tubelet,
            self.patches,
            self.latent_tokens,
            self.c,
            bool(self.lengths),
            self.norm,
            self.qk_norm,
        )

    def _check_strides(self) -> None:
        if self.resolution % self.p:
            raise SpecError(
                "p",
                f"p = {self.p} does not divide the resolution {self.resolution}; possible are "
                f"{_divisors(self.resolution)}",
            )
        if self.frames % self.q:
            raise SpecError(
                "q",
                f"q = {self.q} does not divide the {self.frames} frames of a sample; possible are "
                f"{_divisors(self.frames)}",
            )

    def _check_bottleneck(self) -> None:
        if self.bottleneck == "noise":
            std = self.noise_std
            number = isinstance(std, int | float) and not isinstance(std, bool)
            if std is None or not number or not 0 < std < math.inf:
                raise SpecError(
                    "noise_std",
                    f"noise_std = {std!r}: the bottleneck noise needs a standard deviation above 0",
                )
        elif self.noise_std is not None:
            raise SpecError(
                "noise_std",
                f"noise_std = {self.noise_std!r} belongs to the bottleneck noise, and this one is "
                f"{self.bottleneck}; leave noise_std out or set bottleneck to noise",
            )
        if self.bottleneck == "layernorm" and self.c < 3:
            raise SpecError(
                "c",
                f"c = {self.c}: of fewer than 3 channels the bottleneck layernorm leaves only "
                "signs, which have no gradient; take c of at least 3 or another bottleneck",
            )

    def _check_lengths(self) -> None:
        if not isinstance(self.lengths, tuple):
            raise SpecError("lengths", f"lengths = {self.lengths!r}: must be a list of lengths")
        for length in self.lengths:
            check_count("lengths", length)
        rising = all(a < b for a, b in zip(self.lengths, self.lengths[1:], strict=False))
        if not rising or (self.lengths and self.lengths[-1] > self.tokens):
            raise SpecError(
                "lengths",
                f"lengths = {list(self.lengths)}: must rise strictly and end at no more than the "
                f"{self.tokens} tokens of the code",
            )

    def _check_causal(self) -> None:
        if not self.causal:
            return
        steps = self.frames // self.q
        if steps < 2:
            raise SpecError(
                "causal",
                f"causal attention needs at least 2 steps in time, and {self.frames} frames with "
                f"q = {self.q} are {steps}; set causal to false for these",
            )
        if self.latent_tokens is not None:
            raise SpecError(
                "causal",
                f"causal attention needs tokens that have a time, and those of a 1-D code of "
                f"{self.latent_tokens} have none; leave out latent_tokens or causal",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a variant string says.

    Attributes:
        encoder: key into `SIZES`.
        decoder: key into `SIZES`.
        q: frames a tubelet.
        p: pixels a tubelet in height and in width.
    """

    encoder: str
    decoder: str
    q: int
    p: int


def parse_variant(text: str) -> Variant:
    """Read "S-B/16" or "S-B/4x8" (encoder-decoder/p or encoder-decoder/q x p).

    Raises:
        SpecError: not of that form, or an unknown size.
    """
    match = re.fullmatch(r"([A-Za-z]+)-([A-Za-z]+)/(?:(\d+)x)?(\d+)", text)
    if match is None:
        raise SpecError(
            "variant",
            f"{text!r} is not a variant; write encoder-decoder/p as in S-B/16, or "
            "encoder-decoder/qxp as in S-B/4x8",
        )
    encoder, decoder, q, p = match.groups()
    variant = Variant(encoder=encoder, decoder=decoder, q=int(q or 1), p=int(p))
    size_of("encoder", encoder, SIZES)
    size_of("decoder", decoder, SIZES)
    if variant.q < 1 or variant.p < 1:
        raise SpecError("variant", f"{text!r}: q and p must be at least 1")
    return variant


def _divisors(number: int) -> str:
    return ", ".join(str(value) for value in range(1, number + 1) if number % value == 0)


@lru_cache(maxsize=4096)
def _encoder_counts(
    name: str,
    tubelet: int,
    patches: int,
    latents: int | None,
    moments: int,
    norm: Norm,
    qk_norm: bool,
) -> tuple[int, int]:
    size = size_of("encoder", name, SIZES)
    embed = linear_counts(tubelet, size.width, patches)
    tower = tower_counts(size, patches + (latents or 0), norm, norm if qk_norm else None)
    to_code = linear_counts(size.width, moments, latents or patches)
    return embed[0] + tower[0] + to_code[0], embed[1] + tower[1] + to_code[1]


@lru_cache(maxsize=4096)
def _decoder_counts(
    name: str,
    tubelet: int,
    patches: int,
    latents: int | None,
    c: int,
    masked: bool,
    norm: Norm,
    qk_norm: bool,
) -> tuple[int, int]:
    size = size_of("decoder", name, SIZES)
    from_code = linear_counts(c, size.width, latents or patches)
    tower = tower_counts(size, patches + (latents or 0), norm, norm if qk_norm else None)
    output = linear_counts(size.width, tubelet, patches, bias=False)
    # The token that stands for every tubelet, and the one for every cut token of the code.
    mask_tokens = (0 if latents is None else size.width) + (c if masked else 0)
    # A transposed convolution has one bias a colour channel, not one an output value.
    parameters = from_code[0] + tower[0] + output[0] + mask_tokens + IMAGE_CHANNELS
    return parameters, from_code[1] + tower[1] + output[1]
