"""What runs in a process that torchrun starts for a test? One stage 2 in a world of several.

torchrun --standalone --nproc-per-node 2 tests/stage2_entries.py TOKENIZER DATA FOLDER [STOP_AT]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from vitok_core.data import open_prepared
from vitok_core.errors import Stopped
from vitok_core.settings import Adversarial, Loss, Optimiser, Run, Stage2
from vitok_core.spec import TokenizerSpec
from vitok_core.train import Stage2Result, distributed, train_stage2

SPEC = TokenizerSpec(encoder="nano", decoder="nano", p=8, c=4, resolution=16, lengths=(2, 4))
CONFIG = Stage2(
    precision="fp32",
    steps=20,
    batch=7,
    optimiser=Optimiser(lr=1e-3),
    discriminator=Optimiser(lr=1e-3, warmup=0.1, schedule="constant"),
    discriminator_width=1 / 64,
    loss=Loss(lpips=0.0),
    adversarial=Adversarial(ramp=5, r1=0.1, lecam=1e-2, adaptive=True),
    ema=0.9,
    seed=5,
)


def train(
    tokenizer: Path, data: Path, folder: Path, *, stop_at: int | None = None
) -> Stage2Result | None:
    """Train in this process, in micro-batches of 2; None if it stopped."""
    asked = iter(range(10**6))
    torch.set_num_threads(1)
    with distributed() as device:
        try:
            return train_stage2(
                tokenizer,
                CONFIG,
                open_prepared(data),
                folder,
                run=Run(device=str(device), checkpoint_s=10**6, micro_batch=2),
                should_stop=lambda: next(asked) == stop_at,
            )
        except Stopped:
            return None


def main() -> None:
    tokenizer, data, folder = map(Path, sys.argv[1:4])
    train(tokenizer, data, folder, stop_at=int(sys.argv[4]) if len(sys.argv) > 4 else None)
    # Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291).
    os._exit(0)


if __name__ == "__main__":
    main()
