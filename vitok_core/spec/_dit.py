"""How large is a generator of codes, and what does it cost? The DiT's shape and closed-form counts.

A DiT sees the code of one sample as it is: one token a latent, c channels each, no patches. Its
cost therefore follows from the tokens alone, hardly from c. Counts are integer arithmetic cached by
shape, as those of tokenizers; a test holds them equal to what the built model counts.

Widths, depths and heads of L and XL are those of Peebles & Xie 2023; blocks are this library's
(SwiGLU of 8/3, rotary positions), which moves the parameters by less than 1 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args

from vitok_core.errors import SpecError
from vitok_core.spec._counts import attention_counts, linear_counts, swiglu_counts
from vitok_core.spec._sizes import DIT_SIZES, check_choice, check_count, check_switch, size_of
from vitok_core.spec._tokenizer import TokenizerSpec

Target = Literal["eps", "v", "flow"]
DiTPositions = Literal["axial", "1d"]

TIME_FEATURES = 256
"""Sines and cosines that the network is told the time by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTSpec:
    """One generator and the codes it generates; `check` says whether it can be built.

    Attributes:
        size: key into `DIT_SIZES`.
        grid: tokens of the code in time, height and width; (l, 1, 1) for a 1-D code of l tokens.
        c: channels of the code a token, at least 1.
        classes: number of labels, at least 0; with 0 the generator is unconditional.
        target: what the network predicts, see `vitok_core.diffusion`: "eps" (the noise), "v" or
            "flow" (the velocity of a straight path).
        learn_sigma: whether it predicts the variance as well (2c outputs); with target "eps" only.
        positions: rotary positions by the grid's coordinates ("axial") or by the flattened index
            ("1d"); a learned table of positions is added at the input in both cases.
        qk_norm: whether queries and keys are RMS-normalised a head, before their rotation.
    """

    size: str
    grid: tuple[int, int, int]
    c: int
    classes: int
    target: Target = "eps"
    learn_sigma: bool = False
    positions: DiTPositions = "axial"
    qk_norm: bool = False

    @classmethod
    def for_tokenizer(
        cls,
        tokenizer: TokenizerSpec,
        *,
        size: str,
        classes: int,
        target: Target = "eps",
        learn_sigma: bool = False,
        qk_norm: bool = False,
    ) -> DiTSpec:
        """The spec whose codes are those of a tokenizer: its grid, or a 1-D code's tokens in a row.

        Raises:
            SpecError: the tokenizer or the generator cannot be built.
        """
        tokenizer.check()
        row = tokenizer.latent_tokens is not None
        return cls(
            size=size,
            grid=(tokenizer.tokens, 1, 1) if row else tokenizer.grid,
            c=tokenizer.c,
            classes=classes,
            target=target,
            learn_sigma=learn_sigma,
            positions="1d" if row else "axial",
            qk_norm=qk_norm,
        ).check()

    def check(self) -> DiTSpec:
        """Return the spec itself if a model can be built from it.

        Raises:
            SpecError: an unknown size or name, a number out of range, a variance without eps.
        """
        size_of("size", self.size, DIT_SIZES)
        if not isinstance(self.grid, tuple) or len(self.grid) != 3:
            raise SpecError(
                "grid", f"grid = {self.grid!r}: must be tokens in (time, height, width)"
            )
        for length in self.grid:
            check_count("grid", length)
        check_count("c", self.c)
        if self.classes != 0 or isinstance(self.classes, bool):
            check_count("classes", self.classes)
        check_choice("target", self.target, get_args(Target))
        check_choice("positions", self.positions, get_args(DiTPositions))
        check_switch("learn_sigma", self.learn_sigma)
        check_switch("qk_norm", self.qk_norm)
        if self.learn_sigma and self.target != "eps":
            raise SpecError(
                "learn_sigma",
                f"learn_sigma with target {self.target}: the variance is learned through the bound "
                "of the eps process; use target eps, or set learn_sigma to false",
            )
        return self

    @property
    def tokens(self) -> int:
        """L, the number of tokens of one code."""
        t, h, w = self.grid
        return t * h * w

    @property
    def outputs(self) -> int:
        """Channels of the prediction: c, or 2c with a learned variance."""
        return 2 * self.c if self.learn_sigma else self.c

    @property
    def parameters(self) -> int:
        """Parameters of the network, position table and class embedding included."""
        return self._counts()[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one prediction for one sample, conditioning included."""
        return self._counts()[1]

    def plain(self) -> dict[str, Any]:
        """Every field as plain data for JSON; `from_plain` reads it back."""
        return {**asdict(self), "grid": list(self.grid)}

    @classmethod
    def from_plain(cls, mapping: Mapping[str, Any]) -> DiTSpec:
        """The checked spec that `plain` described; fields that are absent have their defaults.

        Raises:
            SpecError: an unknown or missing field, or what `check` refuses.
        """
        known = [entry.name for entry in fields(cls)]
        for name in mapping:
            if name not in known:
                raise SpecError(
                    str(name), f"{name!r} is no field of a DiT; there are {', '.join(known)}"
                )
        for entry in fields(cls):
            if entry.default is MISSING and entry.name not in mapping:
                raise SpecError(entry.name, f"a DiT needs {entry.name}; got {', '.join(mapping)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in mapping.items()
        }
        return cls(**values).check()

    def _counts(self) -> tuple[int, int]:
        return _counts(self.size, self.tokens, self.c, self.outputs, self.classes, self.qk_norm)


@lru_cache(maxsize=4096)
def _counts(
    name: str, tokens: int, c: int, outputs: int, classes: int, qk_norm: bool
) -> tuple[int, int]:
    size = size_of("size", name, DIT_SIZES)
    width = size.width
    parts = [
        linear_counts(c, width, tokens),
        linear_counts(TIME_FEATURES, width, 1),
        linear_counts(width, width, 1),
        *size.depth
        * [
            attention_counts(size, tokens, "rmsnorm" if qk_norm else None),
            swiglu_counts(size, tokens),
            linear_counts(width, 6 * width, 1),  # shift, scale and gate of both halves
        ],
        linear_counts(width, 2 * width, 1),
        linear_counts(width, outputs, tokens),
    ]
    # Looked up, not multiplied: the table of positions, a row a class and one for none.
    rows = tokens + (classes + 1 if classes else 0)
    return sum(part[0] for part in parts) + rows * width, sum(part[1] for part in parts)
