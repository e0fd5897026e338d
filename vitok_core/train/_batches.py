"""The samples of a step: drawn by (seed, step), read ahead.

While a step computes, threads read the next batches, only the rows of this process, into buffers
that are pinned where the device is a GPU; the copy to it then waits for nothing. Samples go there
as they are stored, uint8, a quarter of the bytes; there they are mirrored, get their channels in
front and become numbers in [-1, 1].

Shape suffixes: B samples of the global batch, L tokens of the code, C its channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.data import Samples, channels_first, in_order
from vitok_core.errors import DataError
from vitok_core.settings import Stage1, Stage2
from vitok_core.spec import TokenizerSpec
from vitok_core.train._optimise import stream
from vitok_core.train._parallel import part

NOISE, LENGTHS = 2, 3
"""Purposes of the random streams."""

AHEAD_BYTES = 1 << 30
MOST_AHEAD = 8
"""Batches are read ahead up to so many bytes and so many batches, and one in any case."""

LOADERS = 2
"""Batches that are read at the same time: while one ends, the next one keeps the decoders busy."""

Loaded = TypeVar("Loaded")


def check_samples(spec: TokenizerSpec, samples: Samples) -> None:
    """Refuse samples that the tokenizer cannot take.

    Raises:
        DataError: another resolution or number of frames.
    """
    if samples.resolution != spec.resolution:
        raise DataError(
            f"the samples are {samples.resolution} px, the tokenizer takes {spec.resolution} px; "
            "prepare the data set at that resolution"
        )
    if samples.frames != spec.frames:
        raise DataError(
            f"frames of a sample: {samples.frames}, frames the tokenizer takes: {spec.frames}; "
            "prepare a video data set with as many frames, or an image data set for 1"
        )


def sample_batches(
    samples: Samples, config: Stage1 | Stage2, steps: range, device: torch.device
) -> Generator[Tensor, None, None]:
    """The rows of this process of every step's global batch, uint8 on the device.

    Args:
        samples: where they are taken from.
        config: whose batch, seed and mirroring are used.
        steps: the steps to come, consecutive.
        device: where they go.

    Yields:
        (b, 3, H, W) or (b, 3, T, H, W) for each step.
    """
    sampler, rows = samples.sampler(config.seed), part(config.batch)
    shape, pinned = (rows.stop - rows.start, *samples.sample_shape), device.type == "cuda"
    depth = ahead(shape[0] * samples.sample_bytes)
    with samples.reading() as read:

        def load(step: int) -> tuple[Tensor, Tensor | None]:
            draw = sampler.draw(step * config.batch, config.batch)
            places = None if draw.places is None else draw.places[rows]
            pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
            read(draw.indices[rows], places, pixels.numpy())
            flips = draw.flips[rows] if config.flip else np.zeros(shape[0], np.bool_)
            if device.type == "cpu":  # this thread is the device, and NumPy the faster one there
                return torch.from_numpy(channels_first(pixels.numpy(), flips)), None
            mirrored = torch.from_numpy(np.flatnonzero(flips))
            return pixels, mirrored.pin_memory() if pinned else mirrored

        with contextlib.closing(read_ahead(load, steps, depth)) as batches:
            for pixels, mirrored in batches:
                pixels = pixels.to(device, non_blocking=True)
                if mirrored is not None:
                    pixels = arranged(pixels, mirrored.to(device, non_blocking=True))
                yield pixels


def arranged(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """Stored samples as models take them; waits for no device.

    Args:
        pixels: (b, H, W, 3) or (b, T, H, W, 3), any type.
        mirrored: int64, (m,), which of them are mirrored left-right, a clip in all its frames.

    Returns:
        (b, 3, H, W) or (b, 3, T, H, W), contiguous.
    """
    pixels = pixels.movedim(-1, 1).contiguous()
    if len(mirrored):
        pixels.index_copy_(0, mirrored, pixels.index_select(0, mirrored).flip(-1))
    return pixels


def ahead(batch_bytes: int) -> int:
    """How many batches of that size are read ahead of the one in use."""
    return max(1, min(MOST_AHEAD, AHEAD_BYTES // batch_bytes))


def code_draws(
    spec: TokenizerSpec,
    *,
    batch: int,
    seed: int,
    step: int,
    device: torch.device,
    purposes: tuple[int, int] = (NOISE, LENGTHS),
) -> tuple[Tensor, Tensor | None]:
    """What is random in the codes of one step's whole global batch.

    Drawn whole, to be sliced, so that neither processes nor micro-batches change it.

    Args:
        spec: of the tokenizer.
        batch: samples of the global batch (B).
        seed: of the training.
        step: from 0.
        device: where the noise is drawn; the same seed draws other noise on a GPU.
        purposes: of the streams of noise and lengths.

    Returns:
        Standard normal noise (B, L, c) and, for masked tokenizers, the number of tokens each sample
        keeps, (B,) int64, uniform over `spec.lengths`; else None.
    """
    source = torch.Generator(device).manual_seed(stream(seed, step, purpose=purposes[0]))
    noise_BLC = torch.randn((batch, spec.tokens, spec.c), generator=source, device=device)
    if not spec.lengths:
        return noise_BLC, None
    draws = np.random.Generator(np.random.Philox(stream(seed, step, purpose=purposes[1])))
    keep_B = draws.choice(np.array(spec.lengths, dtype=np.int64), size=batch)
    return noise_BLC, ready(keep_B, device).to(device, non_blocking=True)


def ready(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor that the device can copy without letting this process wait."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def read_ahead(
    load: Callable[[int], Loaded], steps: range, depth: int = 1
) -> Generator[Loaded, None, None]:
    """`load(step)` of every step, in order, begun by threads up to `depth` steps before its use.

    An error of `load` is raised where its result would have been. Closing it ends the threads.
    """
    with (
        ThreadPoolExecutor(LOADERS, thread_name_prefix="read-ahead") as threads,
        contextlib.closing(in_order(threads, load, steps, depth + 1)) as loaded,
    ):
        for _, result in loaded:
            yield result
