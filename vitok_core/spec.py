"""How large is a tokenizer, and what does it cost? Shapes and closed-form counts; no torch here.

A spec is the paper's vocabulary: encoder and decoder size, tubelet q x p x p, c channels a token,
and the shape of one sample (frames x resolution x resolution). From these follow the number of
tokens L, the number of floating points in the code E = L * c, the parameters and the
multiply-accumulates (MACs). Plans ask for them ten thousand times, so they are integer arithmetic
cached by shape; a test holds them equal to what the built model counts.

The paper (Learnings from Scaling Visual Tokenizers, ICML 2025) prints MACs under the heading
"GFLOPs", attention matmuls, tubelet embedding and output convolution included; so do we, under
their own name.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, fields
from functools import lru_cache

from vitok_core.errors import SpecError

IMAGE_CHANNELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One transformer tower, encoder or decoder.

    Attributes:
        name: how specs and variant strings call it.
        width: features a token (d).
        depth: number of blocks.
        heads: attention heads; divides the width, and a head has an even number of features.
    """

    name: str
    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1:
            raise SpecError("size", f"{self.name}: width, depth and heads must be at least 1")
        if self.width % self.heads:
            raise SpecError(
                "size", f"{self.name}: width {self.width} is not divisible by {self.heads} heads"
            )
        if self.head_width % 2 or self.head_width < 8:
            raise SpecError(
                "size",
                f"{self.name}: {self.head_width} features a head; rotary positions need an even "
                "number of at least 8",
            )

    @property
    def head_width(self) -> int:
        """Features a head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Hidden width of the SwiGLU: 8/3 of the width, rounded up to a multiple of 8."""
        return 8 * -(-self.width // 3)


SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        # For CPUs and tests; not in the paper.
        Size(name="nano", width=64, depth=2, heads=2),
        Size(name="pico", width=128, depth=1, heads=4),  # wide enough to code 16 x 16 patches
        Size(name="micro", width=96, depth=3, heads=3),
        Size(name="mini", width=128, depth=4, heads=4),
        Size(name="tiny", width=192, depth=6, heads=3),
        # Table 1 of the paper.
        Size(name="S", width=768, depth=6, heads=12),
        Size(name="B", width=768, depth=12, heads=12),
        Size(name="L", width=1152, depth=24, heads=16),
    )
}
"""Every tower size by name: S, B, L of the paper, and small ones for CPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """One tokenizer and the shape of what it encodes; `check` says whether it can be built.

    Attributes:
        encoder: key into `SIZES`.
        decoder: key into `SIZES`.
        q: frames a token (temporal stride), at least 1; divides `frames`.
        p: pixels a token in height and in width, at least 1; divides `resolution`.
        c: channels of the code a token, at least 1.
        resolution: height and width of a sample in pixels.
        frames: frames of a sample; 1 for an image.
    """

    encoder: str
    decoder: str
    q: int = 1
    p: int
    c: int
    resolution: int
    frames: int = 1

    def check(self) -> TokenizerSpec:
        """Return the spec itself if a model can be built from it.

        Raises:
            SpecError: an unknown size, a number out of range, a stride that does not divide.
        """
        for name in ("encoder", "decoder"):
            _size(name, getattr(self, name))
        for entry in fields(self):
            value: object = getattr(self, entry.name)
            if entry.name in ("encoder", "decoder"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(
                    entry.name, f"{entry.name} = {value!r}: must be a whole number of at least 1"
                )
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
        return self

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens in time, height and width."""
        side = self.resolution // self.p
        return self.frames // self.q, side, side

    @property
    def tokens(self) -> int:
        """L, the number of tokens of one sample."""
        return (self.frames // self.q) * (self.resolution // self.p) ** 2

    @property
    def E(self) -> int:
        """E = L * c, the number of floating points in the code of one sample."""
        return self.tokens * self.c

    @property
    def tubelet(self) -> int:
        """Values of the image behind one token, 3 * q * p * p."""
        return IMAGE_CHANNELS * self.q * self.p * self.p

    @property
    def compression(self) -> float:
        """Values of the image for one value of the code; 48 for p = 16, c = 16."""
        return IMAGE_CHANNELS * self.frames * self.resolution**2 / self.E

    @property
    def variant(self) -> str:
        """The paper's name, "S-B/16", or "S-B/4x8" (q x p) when q is not 1."""
        stride = f"{self.p}" if self.q == 1 else f"{self.q}x{self.p}"
        return f"{self.encoder}-{self.decoder}/{stride}"

    @property
    def encoder_parameters(self) -> int:
        """Parameters from the tubelet embedding to the projection onto 2c moments."""
        return self._encoder_counts()[0]

    @property
    def decoder_parameters(self) -> int:
        """Parameters from the projection of the code to the output convolution."""
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
        return _encoder_counts(self.encoder, self.tubelet, self.tokens, self.c)

    def _decoder_counts(self) -> tuple[int, int]:
        return _decoder_counts(self.decoder, self.tubelet, self.tokens, self.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a variant string says.

    Attributes:
        encoder: key into `SIZES`.
        decoder: key into `SIZES`.
        q: frames a token.
        p: pixels a token in height and in width.
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
    _size("encoder", encoder)
    _size("decoder", decoder)
    if variant.q < 1 or variant.p < 1:
        raise SpecError("variant", f"{text!r}: q and p must be at least 1")
    return variant


def training_flops(spec: TokenizerSpec, images: int) -> int:
    """Floating point operations of showing `images` samples to the tokenizer in training.

    One MAC is two operations, and a backward pass costs twice a forward pass (gradients of the
    activations and of the weights), hence 3 * 2 * macs * images. Pretrained networks of the loss,
    the optimiser and everything element-wise are not counted.
    """
    return 6 * spec.macs * images


def _size(field: str, name: object) -> Size:
    size = SIZES.get(name) if isinstance(name, str) else None
    if size is None:
        close = difflib.get_close_matches(str(name), SIZES, n=1, cutoff=0.5)
        by_case = [known for known in SIZES if known.lower() == str(name).lower()]
        hint = "".join(f"; did you mean {known}?" for known in (by_case or close)[:1])
        raise SpecError(field, f"{field} = {name!r} is no size; there are {', '.join(SIZES)}{hint}")
    return size


def _divisors(number: int) -> str:
    return ", ".join(str(value) for value in range(1, number + 1) if number % value == 0)


@lru_cache(maxsize=4096)
def _encoder_counts(name: str, tubelet: int, tokens: int, c: int) -> tuple[int, int]:
    size = _size("encoder", name)
    width = size.width
    parameters, macs = _blocks_counts(size, tokens)
    parameters += (tubelet + 1) * width + 2 * width + (width + 1) * 2 * c
    macs += tokens * width * (tubelet + 2 * c)
    return parameters, macs


@lru_cache(maxsize=4096)
def _decoder_counts(name: str, tubelet: int, tokens: int, c: int) -> tuple[int, int]:
    size = _size("decoder", name)
    width = size.width
    parameters, macs = _blocks_counts(size, tokens)
    # A transposed convolution has one bias a colour channel, not one an output value.
    parameters += (c + 1) * width + 2 * width + width * tubelet + IMAGE_CHANNELS
    macs += tokens * width * (tubelet + c)
    return parameters, macs


def _blocks_counts(size: Size, tokens: int) -> tuple[int, int]:
    width, hidden = size.width, size.hidden
    weights = 4 * width * width + 3 * width * hidden
    # Biases: attention output (d), SwiGLU (2h + d); two LayerNorms with scale and shift (4d).
    others = width + 2 * hidden + width + 4 * width
    macs = weights * tokens + 2 * tokens * tokens * width
    return size.depth * (weights + others), size.depth * macs
