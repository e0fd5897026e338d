"""The samples of a step: drawn by (seed, step), read ahead.

While a step computes, one thread reads the next batch: uint8, from the file that is mapped into
memory, only the rows of this process. Samples go to the device as uint8, a quarter of the bytes,
and become numbers in [-1, 1] there. On a GPU the thread pins the memory and the copy does not wait.

Shape suffixes: B samples of the global batch, L tokens of the code, C its channels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vitok_core.data import Samples
from vitok_core.errors import DataError
from vitok_core.settings import Stage1, Stage2
from vitok_core.spec import TokenizerSpec
from vitok_core.train._optimise import stream
from vitok_core.train._parallel import part

NOISE, LENGTHS = 2, 3
"""Purposes of the random streams."""

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

    def load(step: int) -> Tensor:
        draw = sampler.draw(step * config.batch, config.batch)
        flips = draw.flips[rows] if config.flip else None
        places = None if draw.places is None else draw.places[rows]
        pixels = torch.from_numpy(samples.batch(draw.indices[rows], flips, places))
        return pixels.pin_memory() if device.type == "cuda" else pixels

    for pixels in read_ahead(load, steps):
        yield pixels.to(device, non_blocking=True)


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
    return noise_BLC, torch.from_numpy(keep_B).to(device)


def read_ahead(load: Callable[[int], Loaded], steps: range) -> Generator[Loaded, None, None]:
    """`load(step)` of every step, in order, each begun by one thread while the one before is used.

    An error of `load` is raised where its result would have been.
    """
    if not steps:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming = thread.submit(load, steps[0])
        for step in steps[1:]:
            here = coming.result()
            coming = thread.submit(load, step)
            yield here
        yield coming.result()
