"""What runs in a process that torchrun starts for a test? One DiT training in a world of several.

torchrun --standalone --nproc-per-node 2 tests/dit_entries.py LATENTS FOLDER [STOP_AT]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

from vitok_core.data import SampleSet
from vitok_core.errors import Stopped
from vitok_core.latents import compute_latents, open_latents
from vitok_core.settings import DiTTraining, Optimiser, Run
from vitok_core.spec import DiTSpec, TokenizerSpec
from vitok_core.tokenizer import ViTok
from vitok_core.train import DiTResult, distributed, train_dit

TOKENIZER = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16)
SPEC = DiTSpec.for_tokenizer(TOKENIZER, size="nano", classes=3, learn_sigma=True)
CONFIG = DiTTraining(
    precision="fp32",
    steps=20,
    batch=7,
    optimiser=Optimiser(lr=1e-3, weight_decay=0.0, warmup=0.1, schedule="constant"),
    class_dropout=0.3,
    ema=0.9,
    seed=5,
)


def make_latents(folder: Path, spec: TokenizerSpec = TOKENIZER, *, count: int = 45) -> Path:
    """Latents of random pictures, or clips, by an untrained tokenizer; mirrored too."""
    shape = (count, *((spec.frames,) if spec.frames > 1 else ()), 16, 16, 3)
    pixels = np.random.Generator(np.random.Philox(1)).integers(0, 256, shape, np.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = ViTok(spec)
    data = SampleSet(samples=pixels, labels=np.arange(count) % 3)
    compute_latents(tokenizer, data, folder, normalisation="per-channel", flip=True)
    return folder


def train(latents: Path, folder: Path, *, stop_at: int | None = None) -> DiTResult | None:
    """Train in this process, in micro-batches of 2; None if it stopped."""
    asked = iter(range(10**6))
    torch.set_num_threads(1)
    with distributed() as device:
        try:
            return train_dit(
                SPEC,
                CONFIG,
                open_latents(latents),
                folder,
                run=Run(device=str(device), checkpoint_s=10**6, micro_batch=2),
                should_stop=lambda: next(asked) == stop_at,
            )
        except Stopped:
            return None


def main() -> None:
    latents, folder = map(Path, sys.argv[1:3])
    train(latents, folder, stop_at=int(sys.argv[3]) if len(sys.argv) > 3 else None)
    # Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291).
    os._exit(0)


if __name__ == "__main__":
    main()
