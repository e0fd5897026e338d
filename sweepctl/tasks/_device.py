"""Which device does an attempt compute on, and can it?

A GPU that was assigned and cannot be used is an error: a training that silently goes to the CPU
takes months. `auto` takes a GPU where the worker, or the user, has assigned one; where nobody says
anything, one that is there.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from sweepctl.errors import SweepctlError

_LOST = re.compile(
    r"no (CUDA-capable|ROCm-capable) device is detected|No (CUDA|HIP) GPUs are available"
    r"|invalid device ordinal|busy or unavailable|unknown error|unspecified launch failure"
    r"|uncorrectable (ECC|NVLink) error|ECC error|no kernel image is available"
    r"|kernel image is invalid|system not yet initialized|GPU is lost"
    r"|driver version is insufficient|unsupported display driver|Found no NVIDIA driver"
    r"|driver on your system is too old",
    re.IGNORECASE,
)
"""What CUDA and HIP say when the device, not the program, is at fault."""

_FILES = ("nvidia[0-9]*", "kfd", "dxg")
"""Device files of GPUs: NVIDIA's, AMD's, those of Windows."""


class NoDevice(SweepctlError):
    """A GPU was assigned or is wanted, and this process cannot use it."""


def assigned(environment: Mapping[str, str], *, rocm: bool) -> list[str] | None:
    """Ids of the GPUs that this process may use; None where nobody has said.

    Args:
        environment: of the process.
        rocm: whether torch was built for AMD's.
    """
    names = ["CUDA_VISIBLE_DEVICES"]
    if rocm:
        names = ["HIP_VISIBLE_DEVICES", *names, "ROCR_VISIBLE_DEVICES"]
    said = next((environment[name] for name in names if name in environment), None)
    if said is None:
        return None
    ids = (one.strip() for one in said.split(","))
    return [one for one in ids if one and not one.startswith("-")]


def device_of(asked: str, *, files: Path = Path("/dev")) -> str:
    """The torch device to compute on.

    Args:
        asked: "cpu", "cuda", "cuda:<number>" or "auto".
        files: folder of the device files.

    Raises:
        NoDevice: a GPU was assigned, named or is there, and torch cannot use it.
    """
    import torch

    if asked == "cpu":
        return asked
    given = assigned(os.environ, rocm=torch.version.hip is not None)
    if asked == "auto" and given == []:
        return "cpu"
    device = "cuda" if asked == "auto" else asked
    problem = _problem(device)
    if problem is None:
        return device
    if asked != "auto" or given:
        what = its_gpu() if given else f"device {device}"
    elif torch.version.cuda is None and torch.version.hip is None:
        return "cpu"  # whoever opened the pool has said so
    elif any(path for pattern in _FILES for path in files.glob(pattern)):
        what = "the GPU of the machine"
    else:
        return "cpu"
    raise NoDevice(f"{what} cannot be used (--device cpu does without); torch says: {problem}")


def its_gpu() -> str:
    """The GPUs that this process may use, for people."""
    import torch

    given = assigned(os.environ, rocm=torch.version.hip is not None)
    return f"its GPU {', '.join(given)}" if given else "its GPU"


def device_name(device: str, threads: int) -> str:
    """Kind of device, by which speeds are compared; of a CPU with the threads that were used."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        name = name if found is None else found[1].strip()
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}"


def device_memory(device: str) -> tuple[int, int | None]:
    """Bytes of memory of a device, and how many are free; (0, None) of a CPU."""
    import torch

    if not device.startswith("cuda"):
        return 0, None
    free, total = torch.cuda.mem_get_info(device)
    return int(total), int(free)


def _problem(device: str) -> str | None:
    """Why torch cannot use a GPU, in its words; None if it can, as far as that is known so far."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # makes no context
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split("\n")[0].split())[:300]
    number = int(device.partition(":")[2] or 0)
    there = torch.cuda.device_count()
    return None if number < there else f"there are {there} GPUs, counted from 0"


def lost_device(error: BaseException) -> bool:
    """Whether an error of torch says that the GPU is not there, or not there any more."""
    gpus = ("CUDA", "HIP", "GPU", "NVIDIA", "NVML")
    text = str(error)
    return (
        isinstance(error, RuntimeError)
        and type(error).__name__ != "OutOfMemoryError"
        and any(word in text for word in gpus)
        and _LOST.search(text) is not None
    )
