"""What does the model draw by now? Sheets of originals above reconstructions, as PNG.

A sheet always shows the same samples, spread over the data set; of clips, up to four frames that
are spread over the clip, one pair of rows each. Sheets are pictures of the way: nothing is computed
from them and they are no part of a checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.data import Samples
from vitok_core.files import replacing
from vitok_core.tokenizer import ViTok, from_uint8, to_uint8

SHEET_SAMPLES = 8
SHEET_FRAMES = 4


def fixed_samples(samples: Samples) -> NDArray[np.uint8]:
    """Up to 8 samples spread over the set: (n, 3, H, W) or (n, 3, T, H, W)."""
    count = min(len(samples), SHEET_SAMPLES)
    return samples.batch(np.arange(count, dtype=np.int64) * len(samples) // count)


@torch.no_grad()
def write_sheet(
    path: Path, originals: NDArray[np.uint8], model: ViTok, device: torch.device
) -> None:
    """Draw originals above their reconstructions by the posterior mean; whole or not at all.

    Args:
        path: of the PNG; its folder is made if missing.
        originals: from `fixed_samples`.
        model: the tokenizer; it is left in the mode it was in.
        device: where the model is.

    Raises:
        OSError: it cannot be written.
    """
    from PIL import Image

    training = model.training
    model.eval()
    drawn: list[NDArray[np.uint8]] = []
    for original in originals:  # one by one: a sheet must not need more memory than a step
        x = from_uint8(torch.from_numpy(original[None]).to(device))
        drawn.append(to_uint8(_reconstruct(model, x))[0].cpu().numpy())
    model.train(training)

    above, below = _frames(originals), _frames(np.stack(drawn))
    # (rows, n, 3, H, W): frame 0 original, frame 0 drawn, frame 1 original, ...
    pairs = np.stack([above, below], axis=1).reshape(-1, *above.shape[1:])
    rows, n, channels, height, width = pairs.shape
    picture = pairs.transpose(0, 3, 1, 4, 2).reshape(rows * height, n * width, channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _reconstruct(model: ViTok, x: Tensor) -> Tensor:
    x_hat: Tensor
    x_hat, _ = model(x)
    return x_hat


def _frames(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Up to four frames: (frames, n, 3, H, W)."""
    if samples.ndim == 4:
        return samples[None]
    count = min(samples.shape[2], SHEET_FRAMES)
    chosen = np.arange(count) * samples.shape[2] // count
    return np.moveaxis(samples[:, :, chosen], 2, 0)
