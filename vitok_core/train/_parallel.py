"""Several processes make one update: each computes its slice of the same global batch.

Order, mirroring and noise are drawn for the global batch from (seed, step) and sliced, every loss
is weighted by its share of the global batch, and gradients are added up over the processes before
they are clipped, in the course of the backward pass. So the number of processes, like the size of a
micro-batch, changes float rounding and nothing else, and there is no wrapper between the loop and
the model: accumulation, a second optimiser, penalties on gradients and compiled functions work as
they do in one process.

Who the processes are and how they agree is in `vitok_core.ranks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as processes

from vitok_core.errors import SpecError
from vitok_core.ranks import agree_on, world

BUCKET_BYTES = 25 * 2**20
"""Gradients that are added up in one message; of torch's DistributedDataParallel, too."""

ALIGNMENT = 64
"""Bytes."""


def part(batch: int) -> slice:
    """The rows of a global batch that this process computes: contiguous, sizes differ by one.

    Raises:
        SpecError: fewer rows than processes.
    """
    here = world()
    if batch < here.size:
        raise SpecError(
            "batch",
            f"batch = {batch} is less than the {here.size} processes, some would have nothing to "
            "do; start fewer, or enlarge the batch",
        )
    return slice(here.rank * batch // here.size, (here.rank + 1) * batch // here.size)


def micro_batches(rows: slice, most: int | None) -> list[slice]:
    """The parts of `rows`, each of at most `most`, that are in memory together; None for all."""
    size = most or rows.stop - rows.start
    starts = range(rows.start, rows.stop, size)
    return [slice(start, min(start + size, rows.stop)) for start in starts]


class GradientSum:
    """Adds gradients up over the processes while the backward pass still computes others.

    Gradients are views of buckets, so nothing is copied: contiguous memory of a bounded size, in
    which parameters lie in the order in which a backward pass reaches them. The last micro-batch
    of a step sends every bucket as soon as its gradients are there:

        sums.begin()
        for ...:                     # micro-batches; any number of them, also another in each rank
            sums.last = ...
            ...                      # one backward pass, or several of different parameters
        sums.finish()

    Between `begin` and `finish` every process sends every bucket exactly once and in the same
    order, whatever happens in between: where a process gives up half way, `finish` sends what is
    left. So none waits for a message that never comes, and all drop the sums together.

    In one process there are neither buckets nor hooks: gradients are None after `begin`, and that
    is all.

    Args:
        modules: whose gradients are added up, in the order in which their backward passes come; the
            parameters of each in the order of the forward pass. What needs no gradient at this
            point is left out.
        bucket_bytes: most that is sent in one message, if no parameter alone is larger.

    Attributes:
        last: whether the backward passes that follow are those of the last micro-batch.
    """

    def __init__(self, *modules: nn.Module, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.last = False
        self._parameters = [
            parameter
            for module in modules
            for parameter in reversed(list(module.parameters()))
            if parameter.requires_grad
        ]
        self._alone = world().size == 1
        self._buckets: list[Tensor] = []
        self._views: list[Tensor] = []
        self._members: list[range] = []
        self._used = [False] * len(self._parameters)
        self._awaited: list[set[int]] = []
        self._sent: list[Any] = []
        if self._alone:
            return
        for members in _runs(self._parameters, bucket_bytes):
            self._lay_out(members)
        for at, parameter in enumerate(self._parameters):
            bucket = next(i for i, members in enumerate(self._members) if at in members)
            hook = partial(self._arrived, at, bucket)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]  # torch has no type

    def _lay_out(self, members: range) -> None:
        """Make one bucket, and the gradients of its parameters views of it."""
        held = [self._parameters[at] for at in members]
        starts = [0, *accumulate(_padded(parameter) for parameter in held)]
        bucket = torch.zeros(starts[-1], dtype=held[0].dtype, device=held[0].device)
        # With the strides of the parameter, which fused optimisers need.
        self._views += [
            bucket.as_strided(parameter.size(), parameter.stride(), start)
            for parameter, start in zip(held, starts, strict=False)
        ]
        self._buckets.append(bucket)
        self._members.append(members)

    def begin(self) -> None:
        """Forget the gradients of the step before, or of a try that was dropped."""
        self.last = False
        if self._alone:
            for parameter in self._parameters:
                parameter.grad = None
            return
        torch._foreach_zero_(self._buckets)
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view
        self._used = [False] * len(self._parameters)
        self._awaited = [set(members) for members in self._members]

    def _arrived(self, at: int, bucket: int, _: Tensor) -> None:
        """A backward pass has added to a gradient."""
        self._used[at] = True
        if not self.last:
            return
        if at not in self._awaited[bucket]:
            raise RuntimeError(
                "a gradient was added to twice in the last micro-batch, after it may have been "
                "sent; set `last` before the last backward pass only"
            )
        self._awaited[bucket].remove(at)
        # In the order of the buckets: all processes must send in the same one.
        while len(self._sent) < len(self._buckets) and not self._awaited[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        self._sent.append(processes.all_reduce(self._buckets[len(self._sent)], async_op=True))

    def finish(self, *flags: bool) -> list[bool]:
        """Wait until every process has the sums; parameters that none of them used have none.

        Args:
            flags: of this process.

        Returns:
            Of each flag, whether any process raised it.
        """
        self.last = False
        if self._alone:
            return list(flags)
        while len(self._sent) < len(self._buckets):
            self._send()
        for work in self._sent:
            work.wait()
        self._sent.clear()
        said = agree_on([*flags, *self._used])
        for parameter, used in zip(self._parameters, said[len(flags) :], strict=True):
            # An optimiser passes over what has no gradient, and would decay what has one of zeros.
            if not used:
                parameter.grad = None
        return said[: len(flags)]


def _runs(parameters: Sequence[nn.Parameter], most: int) -> Iterator[range]:
    """Which of the parameters share a bucket: neighbors of one type, on one device."""
    first = size = 0
    for at, parameter in enumerate(parameters):
        before = parameters[at - 1]
        alike = (parameter.dtype, parameter.device) == (before.dtype, before.device)
        own = _padded(parameter) * parameter.element_size()
        if at and (not alike or size + own > most):
            yield range(first, at)
            first, size = at, 0
        size += own
    if parameters:
        yield range(first, len(parameters))


def _padded(parameter: nn.Parameter) -> int:
    """Its values in a bucket, in which every gradient begins where vectorized kernels take it."""
    step = ALIGNMENT // parameter.element_size()
    return -(-parameter.numel() // step) * step


def sum_tensor(tensor: Tensor) -> Tensor:
    """The tensor itself after adding it up over all processes, in place."""
    if world().size > 1:
        processes.all_reduce(tensor)
    return tensor
