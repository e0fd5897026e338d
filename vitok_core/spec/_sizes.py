"""Which towers have a name? Width, depth and heads of encoders, decoders and generators.

S, B and L are table 1 of the paper, DiT's B, L and XL are those of Peebles and Xie (2023); the
small ones are for CPUs and tests and appear in no paper. The two tables are separate because the
same letter means different towers: L is 1152 wide as a tokenizer and 1024 wide as a DiT.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vitok_core.errors import SpecError

Norm = Literal["layernorm", "rmsnorm"]
"""How features are normalised: LayerNorm (the paper) or RMSNorm."""

Positions = Literal["axial", "1d", "sincos", "none"]
"""How tokens know where they are: 3-D axial RoPE, RoPE over the flattened index, a fixed table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One transformer tower: encoder, decoder or generator.

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
"""Every tower of a tokenizer by name: S, B, L of the paper, and small ones for CPUs."""

DIT_SIZES: dict[str, Size] = {
    size.name: size
    for size in (
        # For CPUs and tests; in no paper.
        Size(name="nano", width=64, depth=2, heads=2),
        Size(name="micro", width=128, depth=4, heads=4),
        Size(name="mini", width=192, depth=6, heads=6),
        # Peebles and Xie, table 1.
        Size(name="S", width=384, depth=12, heads=6),
        Size(name="B", width=768, depth=12, heads=12),
        Size(name="L", width=1024, depth=24, heads=16),
        Size(name="XL", width=1152, depth=28, heads=16),
    )
}
"""Every generator by name: S, B, L, XL of DiT, and small ones for CPUs."""


def size_of(field: str, name: object, sizes: Mapping[str, Size]) -> Size:
    """The size of that name.

    Args:
        field: field of the spec that holds the name, for the message.
        name: what was written there.
        sizes: `SIZES` or `DIT_SIZES`.

    Raises:
        SpecError: there is no such size; the message lists them all.
    """
    size = sizes.get(name) if isinstance(name, str) else None
    if size is None:
        close = difflib.get_close_matches(str(name), sizes, n=1, cutoff=0.5)
        by_case = [known for known in sizes if known.lower() == str(name).lower()]
        hint = "".join(f"; did you mean {known}?" for known in (by_case or close)[:1])
        raise SpecError(field, f"{field} = {name!r} is no size; there are {', '.join(sizes)}{hint}")
    return size


def check_choice(field: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise SpecError unless the value of a field is one of the allowed words."""
    if value not in allowed:
        words = ", ".join(allowed)
        raise SpecError(field, f"{field} = {value!r} is not possible; choose one of {words}")


def check_count(field: str, value: object) -> None:
    """Raise SpecError unless the value of a field is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(field, f"{field} = {value!r}: must be a whole number of at least 1")


def check_switch(field: str, value: object) -> None:
    """Raise SpecError unless the value of a field is true or false."""
    if not isinstance(value, bool):
        raise SpecError(field, f"{field} = {value!r}: must be true or false")
