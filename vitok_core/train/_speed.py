"""How much of the machine a training uses: share of the peak (MFU) and memory.

A share of the peak is given only for devices whose dense peak stands in a data sheet, never
guessed; it is the least time for all operations, each at the peak of its precision, over the time
they took.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

from vitok_core.spec import DEVICES, Flops, least_seconds


def share_of_peak(flops: Flops, seconds: float, device: torch.device) -> float | None:
    """Least time for operations at a device's peaks over the time they took (MFU).

    Args:
        flops: the operations of one device.
        seconds: the time they took, above 0.
        device: of this process.

    Returns:
        The share, or None if no data sheet of the device is known here.
    """
    if device.type != "cuda":
        return None
    known = DEVICES.get(torch.cuda.get_device_name(device))
    if known is None:
        return None
    peaks = known.peaks
    if torch.get_float32_matmul_precision() != "highest":
        peaks = {**peaks, "fp32": peaks["tf32"]}
    return least_seconds(flops, peaks) / seconds


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory so far: of torch's allocator on a GPU, else resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        # Not getrusage: its maximum is inherited from the process that started this one.
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        if found is not None:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
