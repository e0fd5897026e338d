"""The guard before an update: whether everything is finite, decided where the numbers are.

Reading a number from a GPU waits until the GPU has computed it, and until then nothing new is sent
to it. So whether an update is made is decided on the device: AdamW skips it, moments and step count
included, where the guard says so. The process reads the numbers of a step when it has sent off the
next one, stops or counts the skipped step then, and writes no checkpoint before it has read
everything.

Shape suffix: N numbers of a step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

NORM = "gradient norm"
"""Name of the norm of the model's gradient before clipping; no term of the history."""

What = TypeVar("What")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The numbers of one network in a step: of the model, or of the discriminator.

    Attributes:
        names: of its terms, in the order in which they are read.
        norm: name of the norm of its gradient before clipping; one of the names.
        lr: learning rate of its update.
    """

    names: tuple[str, ...]
    norm: str
    lr: float


def all_finite(numbers_N: Tensor) -> Tensor:
    """Whether all numbers are finite: a boolean scalar on their device."""
    return numbers_N.isfinite().all()


def skip_unless(adamw: torch.optim.AdamW, ok: Tensor) -> None:
    """Let the next `adamw.step()` change nothing if `ok` is false, without reading it.

    A fused optimizer looks for this attribute, which `torch.amp.GradScaler` sets too, and leaves
    weights, moments and step count as they are where it is 1.
    """
    adamw.found_inf = (~ok).float()  # type: ignore[attr-defined]  # not in torch's types


def what_is_not_finite(step: int, numbers: Mapping[str, float], sides: Sequence[Side]) -> str:
    """The message about an update that was not made.

    Args:
        step: updates made before it.
        numbers: of the step, by name.
        sides: whose numbers they are.
    """

    def is_finite(side: Side) -> bool:
        return all(math.isfinite(numbers[name]) for name in side.names)

    side = next((one for one in sides if not is_finite(one)), sides[0])
    said = ", ".join(f"{name} {numbers[name]:.4g}" for name in side.names if name != side.norm)
    return (
        f"step {step + 1}: {said}, gradient norm {numbers[side.norm]:.4g}; the update was not "
        f"made. Lower lr (now {side.lr:.3g}), lengthen warmup, lower clip, or use precision fp32"
    )


class Later(Generic[What]):
    """Numbers that are read once the device has had other work.

    Args:
        device: where the numbers are.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._waiting: deque[tuple[What, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, what: What, numbers_N: Tensor) -> None:
        """Send numbers on their way to the host; never waits.

        Args:
            what: given back with them.
            numbers_N: float64 on the device.
        """
        host_N = torch.empty(numbers_N.shape, dtype=numbers_N.dtype, pin_memory=self._on_gpu)
        host_N.copy_(numbers_N, non_blocking=True)
        arrived = None
        if self._on_gpu:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no type
            arrived.record()
        self._waiting.append((what, host_N, arrived))

    def take(self, *, but: int = 0) -> Iterator[tuple[What, list[float]]]:
        """The numbers that were put, oldest first; waits for each.

        Args:
            but: so many of the newest are left for later.
        """
        while len(self._waiting) > but:
            what, host_N, arrived = self._waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            yield what, host_N.numpy().tolist()
