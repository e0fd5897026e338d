"""What does the generator draw by now? Sheets of samples, a row a class, as PNG.

A sheet always shows the same classes from the same noise, so that sheets of different steps can be
laid side by side. Sheets are pictures of the way: nothing is computed from them and they are no
part of a checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitok_core.dit import DiT
from vitok_core.files import replacing
from vitok_core.generate import sample
from vitok_core.settings import Sampling
from vitok_core.tokenizer import ViTok

ROWS, COLUMNS = 8, 4
STEPS = 50


def write_dit_sheet(path: Path, dit: DiT, tokenizer: ViTok, seed: int) -> None:
    """Draw up to 8 classes spread over all, each 4 samples or 4 frames of a clip; whole or not.

    Unguided, in 50 steps of the target's sampler.

    Args:
        path: of the PNG; its folder is made if missing.
        dit: the generator; it is left in the mode it was in.
        tokenizer: of its codes, with their normalisation; moved to the generator's device.
        seed: of the noise.

    Raises:
        OSError: it cannot be written.
    """
    from PIL import Image

    training, classes, frames = dit.training, dit.spec.classes, tokenizer.spec.frames
    rows = min(classes, ROWS) or ROWS
    columns = COLUMNS if frames == 1 else 1
    made = sample(
        dit,
        tokenizer,
        [row * classes // rows for row in range(rows) for _ in range(columns)],
        sampling=Sampling(steps=STEPS, cfg=1.0),
        seed=seed,
        batch=ROWS,
        device=dit.positions_LD.device,
    )
    dit.train(training)
    if frames > 1:
        count = min(frames, COLUMNS)
        made = made[:, np.arange(count) * frames // count]
    side = tokenizer.spec.resolution
    cells = made.reshape(rows, -1, side, side, 3)
    picture = cells.transpose(0, 2, 1, 3, 4).reshape(rows * side, -1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
