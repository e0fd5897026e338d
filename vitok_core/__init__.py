"""Which parts make a visual tokenizer? The model library under sweepctl, usable without it.

    import vitok_core
    tokenizer = vitok_core.load("weights.safetensors")
    code = tokenizer.encode(x).mean        # x (B, 3, H, W) or (B, 3, T, H, W) in [-1, 1]
    x_hat = tokenizer.decode(code)

Imports go only downward:

    train | evaluate
    generate
    latents | losses | metrics
    tokenizer | dit | discriminator | diffusion | features | data
    layers | artefacts | settings
    weights
    spec | protocols | sources
    files | errors | ranks

Nothing is imported here before it is asked for: `spec`, `settings`, `protocols`, `weights`,
`files`, `errors` and `data` stay free of torch: planning ten thousand cells does not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from vitok_core.tokenizer import ViTok


def load(path: Path | str, device: str | torch.device = "cpu") -> ViTok:
    """Read the tokenizer in a `weights.safetensors`, frozen and ready to encode and decode.

    Raises:
        WeightsError: the file is missing, is not of a tokenizer, or does not fit its own spec.
    """
    from vitok_core.tokenizer import load_tokenizer

    return load_tokenizer(path, device)
