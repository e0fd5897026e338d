"""How fast can a device be? Peaks of data sheets, and the least time that operations need.

Operations are counted by the precision in which torch computes them by default: bfloat16 under
autocast, tf32 for float32 convolutions (cuDNN), float32 for all other products. A device that is
not in the table has no peak: it is never guessed. Of CPUs there is an assumption about one core.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vitok_core.errors import SpecError


def _peaks(fp32: float, tf32: float, bf16: float) -> dict[str, float]:
    """A row of the table, from TFLOP/s."""
    return {"fp32": fp32 * 1e12, "tf32": tf32 * 1e12, "bf16": bf16 * 1e12}


PEAK_FLOPS: dict[str, dict[str, float]] = {
    "NVIDIA A10": _peaks(31.2, 62.5, 125),
    "NVIDIA A30": _peaks(10.3, 82, 165),
    "NVIDIA A40": _peaks(37.4, 74.8, 149.7),
    "NVIDIA A100-PCIE-40GB": _peaks(19.5, 156, 312),
    "NVIDIA A100-SXM4-40GB": _peaks(19.5, 156, 312),
    "NVIDIA A100-SXM4-80GB": _peaks(19.5, 156, 312),
    "NVIDIA A100 80GB PCIe": _peaks(19.5, 156, 312),
    "NVIDIA H100 80GB HBM3": _peaks(67, 494.7, 989.4),
    "NVIDIA H100 PCIe": _peaks(51, 378, 756),
    "NVIDIA H100 NVL": _peaks(60, 417.5, 835.5),
    "NVIDIA H200": _peaks(67, 494.7, 989.4),
    "NVIDIA H200 NVL": _peaks(60, 417.5, 835.5),
    "NVIDIA GH200 480GB": _peaks(67, 494.7, 989.4),
    "NVIDIA B200": _peaks(75, 1125, 2250),
    "NVIDIA L4": _peaks(30.3, 60, 121),
    "NVIDIA L40": _peaks(90.5, 90.5, 181),
    "NVIDIA L40S": _peaks(91.6, 183, 362),
    "NVIDIA RTX A4000": _peaks(19.2, 38.3, 76.7),
    "NVIDIA RTX A5000": _peaks(27.8, 55.6, 111.1),
    "NVIDIA RTX A6000": _peaks(38.7, 77.4, 154.8),
    "NVIDIA RTX 6000 Ada Generation": _peaks(91.1, 182.1, 364.2),
    # Consumer cards: bfloat16 products that are summed in float32, at half the rate of those that
    # are summed in float16; the white papers of GA102, Ada and RTX Blackwell list both.
    "NVIDIA GeForce RTX 3080": _peaks(29.8, 29.8, 59.5),
    "NVIDIA GeForce RTX 3090": _peaks(35.6, 35.6, 71),
    "NVIDIA GeForce RTX 3090 Ti": _peaks(40, 40, 80),
    "NVIDIA GeForce RTX 4080": _peaks(48.7, 48.7, 97.5),
    "NVIDIA GeForce RTX 4090": _peaks(82.6, 82.6, 165.2),
    "NVIDIA GeForce RTX 5080": _peaks(56.3, 56.3, 112.6),
    "NVIDIA GeForce RTX 5090": _peaks(104.8, 104.8, 209.5),
    # Neither bfloat16 nor tf32 before Ampere: all products are float32 ones.
    "Tesla T4": _peaks(8.1, 8.1, 8.1),
    "Tesla V100-SXM2-16GB": _peaks(15.7, 15.7, 15.7),
    "Tesla V100-SXM2-32GB": _peaks(15.7, 15.7, 15.7),
    "Tesla V100-PCIE-16GB": _peaks(14, 14, 14),
    "Tesla V100-PCIE-32GB": _peaks(14, 14, 14),
    # torch has no tf32 there. Of cards with two dies, each of which is a device: one die.
    "AMD Instinct MI210": _peaks(45.3, 45.3, 181),
    "AMD Instinct MI250": _peaks(45.3, 45.3, 181),
    "AMD Instinct MI250X": _peaks(47.9, 47.9, 191.5),
    "AMD Instinct MI300A": _peaks(122.6, 122.6, 980.6),
    "AMD Instinct MI300X": _peaks(163.4, 163.4, 1307.4),
    # No data sheet: one core with AVX2 at 3 GHz, 32 operations of float32 numbers in a cycle.
    "cpu": _peaks(0.096, 0.096, 0.096),
}
"""Device name as torch gives it -> dense peak in FLOP/s without sparsity, from the makers' data
sheets and white papers of these products (where a sheet prints the sparse number, half of it)."""


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
    """The device of `PEAK_FLOPS` that a name or a word of it means, such as "H100" or "rtx4090".

    Of several that it fits, the first; they are ordered so that this is the one people mean.

    Raises:
        SpecError: it fits none; says which there are, and the nearest.
    """
    wanted = _words(text)
    if wanted:
        for name in PEAK_FLOPS:
            if wanted == _words(name):
                return name
        for name in sorted(PEAK_FLOPS, key=lambda name: "PCI" in name.upper()):
            if wanted <= _words(name) | _ALSO.get(name, set()):
                return name
    known = [re.sub(r"^(NVIDIA|AMD|Tesla) ", "", name) for name in PEAK_FLOPS]
    short = [re.sub(r"^(GeForce|Instinct) |-.*| (80GB|PCIe).*", "", name) for name in known]
    close = difflib.get_close_matches(text.strip().upper()[:40], short, n=1)
    slip = f" (did you mean {close[0]}?)" if close else ""
    raise SpecError(
        "device",
        f"no peak is known of a device called {text!r}{slip}; known are {', '.join(known)}, and a "
        "peak of your own, for example '200 TFLOP/s'",
    )


def _words(text: str) -> frozenset[str]:
    apart = re.sub(r"\b(rtx|gtx|tesla|geforce|[ahv]100)(?=[\da-z])", r"\1 ", text.lower())
    words = re.findall(r"[a-z0-9]+", apart)
    plain = (re.sub(r"^(\d+)gb?$", r"\1", re.sub(r"^sxm\d$", "sxm", word)) for word in words)
    return frozenset(plain) - _MAKERS


_MAKERS = {"nvidia", "geforce", "tesla", "amd", "instinct", "gpu"}
_ALSO = {
    "NVIDIA H100 80GB HBM3": {"sxm"},
    "NVIDIA H200": {"sxm", "141"},
    "NVIDIA B200": {"sxm", "180", "192"},
}
"""Words that people use of a device and that its name does not have."""
