"""How fast can a device be, and what does it hold? Data sheets; the least time of operations.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a data sheet says of a device.

    Attributes:
        peaks: precision -> dense peak in FLOP/s, without sparsity.
        memory_bytes: its memory; None for a CPU, which has none of its own.
    """

    peaks: Mapping[str, float]
    memory_bytes: int | None


def _device(fp32: float, tf32: float, bf16: float, gigabytes: int | None) -> Device:
    """A row of the table, from TFLOP/s and GB."""
    peaks = {"fp32": fp32 * 1e12, "tf32": tf32 * 1e12, "bf16": bf16 * 1e12}
    return Device(peaks=peaks, memory_bytes=gigabytes and gigabytes * 10**9)


DEVICES: dict[str, Device] = {
    "NVIDIA A10": _device(31.2, 62.5, 125, 24),
    "NVIDIA A30": _device(10.3, 82, 165, 24),
    "NVIDIA A40": _device(37.4, 74.8, 149.7, 48),
    "NVIDIA A100-PCIE-40GB": _device(19.5, 156, 312, 40),
    "NVIDIA A100-SXM4-40GB": _device(19.5, 156, 312, 40),
    "NVIDIA A100-SXM4-80GB": _device(19.5, 156, 312, 80),
    "NVIDIA A100 80GB PCIe": _device(19.5, 156, 312, 80),
    "NVIDIA H100 80GB HBM3": _device(67, 494.7, 989.4, 80),
    "NVIDIA H100 PCIe": _device(51, 378, 756, 80),
    "NVIDIA H100 NVL": _device(60, 417.5, 835.5, 94),
    "NVIDIA H200": _device(67, 494.7, 989.4, 141),
    "NVIDIA H200 NVL": _device(60, 417.5, 835.5, 141),
    "NVIDIA GH200 480GB": _device(67, 494.7, 989.4, 96),
    "NVIDIA B200": _device(75, 1125, 2250, 180),
    "NVIDIA L4": _device(30.3, 60, 121, 24),
    "NVIDIA L40": _device(90.5, 90.5, 181, 48),
    "NVIDIA L40S": _device(91.6, 183, 362, 48),
    "NVIDIA RTX A4000": _device(19.2, 38.3, 76.7, 16),
    "NVIDIA RTX A5000": _device(27.8, 55.6, 111.1, 24),
    "NVIDIA RTX A6000": _device(38.7, 77.4, 154.8, 48),
    "NVIDIA RTX 6000 Ada Generation": _device(91.1, 182.1, 364.2, 48),
    # Consumer cards: bfloat16 products that are summed in float32, at half the rate of those that
    # are summed in float16; the white papers of GA102, Ada and RTX Blackwell list both.
    "NVIDIA GeForce RTX 3080": _device(29.8, 29.8, 59.5, 10),
    "NVIDIA GeForce RTX 3090": _device(35.6, 35.6, 71, 24),
    "NVIDIA GeForce RTX 3090 Ti": _device(40, 40, 80, 24),
    "NVIDIA GeForce RTX 4080": _device(48.7, 48.7, 97.5, 16),
    "NVIDIA GeForce RTX 4090": _device(82.6, 82.6, 165.2, 24),
    "NVIDIA GeForce RTX 5080": _device(56.3, 56.3, 112.6, 16),
    "NVIDIA GeForce RTX 5090": _device(104.8, 104.8, 209.5, 32),
    # Neither bfloat16 nor tf32 before Ampere: all products are float32 ones.
    "Tesla T4": _device(8.1, 8.1, 8.1, 16),
    "Tesla V100-SXM2-16GB": _device(15.7, 15.7, 15.7, 16),
    "Tesla V100-SXM2-32GB": _device(15.7, 15.7, 15.7, 32),
    "Tesla V100-PCIE-16GB": _device(14, 14, 14, 16),
    "Tesla V100-PCIE-32GB": _device(14, 14, 14, 32),
    # torch has no tf32 there. Of cards with two dies, each of which is a device: one die.
    "AMD Instinct MI210": _device(45.3, 45.3, 181, 64),
    "AMD Instinct MI250": _device(45.3, 45.3, 181, 64),
    "AMD Instinct MI250X": _device(47.9, 47.9, 191.5, 64),
    "AMD Instinct MI300A": _device(122.6, 122.6, 980.6, 128),
    "AMD Instinct MI300X": _device(163.4, 163.4, 1307.4, 192),
    # No data sheet: one core with AVX2 at 3 GHz, 32 operations of float32 numbers in a cycle.
    "cpu": _device(0.096, 0.096, 0.096, None),
}
"""Device name as torch gives it -> its peaks and memory, from the makers' data sheets and white
papers of these products (where a sheet prints the sparse peak, half of it)."""


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
        peaks: of a `Device`.
    """
    return flops.bf16 / peaks["bf16"] + flops.tf32 / peaks["tf32"] + flops.fp32 / peaks["fp32"]


def known_device(text: str) -> str:
    """The device of `DEVICES` that a name or a word of it means, such as "H100" or "rtx4090".

    Of several that it fits, the first; they are ordered so that this is the one people mean.

    Raises:
        SpecError: it fits none; says which there are, and the nearest.
    """
    wanted = _words(text)
    if wanted:
        for name in DEVICES:
            if wanted == _words(name):
                return name
        for name in sorted(DEVICES, key=lambda name: "PCI" in name.upper()):
            if wanted <= _words(name) | _ALSO.get(name, set()):
                return name
    known = [re.sub(r"^(NVIDIA|AMD|Tesla) ", "", name) for name in DEVICES]
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
