"""How fast can a device be? Peaks of data sheets, and the least time that operations need.

Operations are counted by the precision in which torch computes them by default: bfloat16 under
autocast, tf32 for float32 convolutions (cuDNN), float32 for all other products. A device that is
not in the table has no peak: it is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vitok_core.errors import SpecError

PEAK_FLOPS: dict[str, dict[str, float]] = {
    "NVIDIA A10": {"fp32": 31.2e12, "tf32": 62.5e12, "bf16": 125e12},
    "NVIDIA A30": {"fp32": 10.3e12, "tf32": 82e12, "bf16": 165e12},
    "NVIDIA A40": {"fp32": 37.4e12, "tf32": 74.8e12, "bf16": 149.7e12},
    "NVIDIA A100-PCIE-40GB": {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12},
    "NVIDIA A100-SXM4-40GB": {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12},
    "NVIDIA A100-SXM4-80GB": {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12},
    "NVIDIA A100 80GB PCIe": {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12},
    "NVIDIA H100 80GB HBM3": {"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12},
    "NVIDIA H100 PCIe": {"fp32": 51e12, "tf32": 378e12, "bf16": 756e12},
    "NVIDIA H200": {"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12},
    "NVIDIA L4": {"fp32": 30.3e12, "tf32": 60e12, "bf16": 121e12},
    "NVIDIA L40S": {"fp32": 91.6e12, "tf32": 183e12, "bf16": 362e12},
    "NVIDIA RTX A6000": {"fp32": 38.7e12, "tf32": 77.4e12, "bf16": 154.8e12},
}
"""Device name as torch gives it -> dense peak in FLOP/s without sparsity, from NVIDIA's data sheets
of these products (where a sheet prints the sparse number, half of it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Floating point operations by the precision in which they are computed.

    Attributes:
        bf16: in bfloat16.
        tf32: convolutions of float32 numbers, which have tf32 products where a device knows them.
        fp32: other products of float32 numbers.
    """

    bf16: int = 0
    tf32: int = 0
    fp32: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.bf16 + self.tf32 + self.fp32

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            bf16=self.bf16 + other.bf16, tf32=self.tf32 + other.tf32, fp32=self.fp32 + other.fp32
        )


def least_seconds(flops: Flops, peaks: Mapping[str, float]) -> float:
    """Seconds that operations take at the peak of their precision, one after the other.

    Args:
        flops: the operations.
        peaks: a row of `PEAK_FLOPS`.
    """
    return flops.bf16 / peaks["bf16"] + flops.tf32 / peaks["tf32"] + flops.fp32 / peaks["fp32"]


def known_device(text: str) -> str:
    """The device of `PEAK_FLOPS` that a name or a word of it means, such as "H100" or "a100".

    Of several that it fits, the first; they are ordered so that this is the one people mean.

    Raises:
        SpecError: it fits none; says which there are.
    """
    wanted = _words(text)
    if wanted:
        for name in PEAK_FLOPS:
            if wanted == _words(name):
                return name
        for name in sorted(PEAK_FLOPS, key=lambda name: "PCI" in name.upper()):
            if wanted <= _words(name):
                return name
    known = ", ".join(name.removeprefix("NVIDIA ") for name in PEAK_FLOPS)
    raise SpecError(
        "device", f"no peak is known of a device called {text!r}; there are data sheets of {known}"
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower())) - {"nvidia"}
