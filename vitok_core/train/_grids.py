"""Sample grids during training: reconstructions or generated samples, as PNG.

Grids of different steps show the same samples or classes, from the same noise, so that they can be
compared. Nothing is computed from them, and they are not part of a checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.data import Samples
from vitok_core.dit import DiT
from vitok_core.files import replacing
from vitok_core.generate import sample
from vitok_core.settings import Sampling
from vitok_core.tokenizer import ViTok, from_uint8, to_uint8

SAMPLES = 8
FRAMES = 4
CLASSES, PER_CLASS = 8, 4
SAMPLING_STEPS = 50


def fixed_samples(samples: Samples) -> NDArray[np.uint8]:
    """Up to 8 samples spread over the set: (n, 3, H, W) or (n, 3, T, H, W)."""
    count = min(len(samples), SAMPLES)
    return samples.batch(np.arange(count, dtype=np.int64) * len(samples) // count)


@torch.no_grad()
def write_grid(
    path: Path, originals: NDArray[np.uint8], model: ViTok, device: torch.device
) -> None:
    """Originals above their reconstructions by the posterior mean; of clips up to 4 frames.

    Args:
        path: of the PNG; its folder is made if missing.
        originals: from `fixed_samples`.
        model: the tokenizer; it is left in the mode it was in.
        device: where the model is.

    Raises:
        OSError: it cannot be written.
    """
    training = model.training
    model.eval()
    drawn: list[NDArray[np.uint8]] = []
    for original in originals:  # one by one: a grid must not need more memory than a step
        x = from_uint8(torch.from_numpy(original[None]).to(device))
        drawn.append(to_uint8(_reconstruct(model, x))[0].cpu().numpy())
    model.train(training)

    above, below = _frames(originals), _frames(np.stack(drawn))
    # (rows, n, 3, H, W): frame 0 original, frame 0 drawn, frame 1 original, ...
    pairs = np.stack([above, below], axis=1).reshape(-1, *above.shape[1:])
    rows, n, channels, height, width = pairs.shape
    _save(path, pairs.transpose(0, 3, 1, 4, 2).reshape(rows * height, n * width, channels))


def _reconstruct(model: ViTok, x: Tensor) -> Tensor:
    x_hat: Tensor
    x_hat, _ = model(x)
    return x_hat


def _frames(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Up to four frames: (frames, n, 3, H, W)."""
    if samples.ndim == 4:
        return samples[None]
    count = min(samples.shape[2], FRAMES)
    chosen = np.arange(count) * samples.shape[2] // count
    return np.moveaxis(samples[:, :, chosen], 2, 0)


def write_class_grid(path: Path, dit: DiT, tokenizer: ViTok, seed: int) -> None:
    """Generated samples: a row for each of up to 8 classes, of 4 samples or 4 frames of a clip.

    Without guidance, in 50 steps of the target's sampler.

    Args:
        path: of the PNG; its folder is made if missing.
        dit: the generator; it is left in the mode it was in.
        tokenizer: of its codes, with their normalisation; moved to the generator's device.
        seed: of the noise.

    Raises:
        OSError: it cannot be written.
    """
    training, classes, frames = dit.training, dit.spec.classes, tokenizer.spec.frames
    rows = min(classes, CLASSES) or CLASSES
    columns = PER_CLASS if frames == 1 else 1
    made = sample(
        dit,
        tokenizer,
        [row * classes // rows for row in range(rows) for _ in range(columns)],
        sampling=Sampling(steps=SAMPLING_STEPS, cfg=1.0),
        seed=seed,
        batch=CLASSES,
        device=dit.positions_LD.device,
    )
    dit.train(training)
    if frames > 1:
        count = min(frames, FRAMES)
        made = made[:, np.arange(count) * frames // count]
    side = tokenizer.spec.resolution
    cells = made.reshape(rows, -1, side, side, 3)
    _save(path, cells.transpose(0, 2, 1, 3, 4).reshape(rows * side, -1, 3))


def _save(path: Path, picture: NDArray[np.uint8]) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
