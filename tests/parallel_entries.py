"""What runs in a training process that a test starts? One stage 1 in a world of several.

As torchrun does it: every process gets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from vitok_core.data import open_prepared
from vitok_core.errors import VitokError
from vitok_core.settings import Loss, Optimiser, Run, Stage1
from vitok_core.spec import TokenizerSpec
from vitok_core.train import distributed, train_stage1, world

SPEC = TokenizerSpec(
    encoder="nano", decoder="nano", p=8, c=4, resolution=16, latent_tokens=3, lengths=(1, 3)
)
CONFIG = Stage1(
    precision="fp32",
    steps=20,
    batch=7,
    optimiser=Optimiser(lr=1e-3),
    loss=Loss(lpips=0.0),
    ema=0.9,
    seed=5,
)


def run(data: Path, folder: Path, *, stop_at: int | None, **options: Any) -> dict[str, Any]:
    """Train in this process; what came of it as plain data."""
    asked = iter(range(10**6))
    config = dataclasses.replace(CONFIG, **options.pop("config", {}))
    with distributed() as device:
        rank = world().rank
        try:
            result = train_stage1(
                SPEC,
                config,
                open_prepared(data),
                folder,
                run=Run(
                    device=str(device), checkpoint_s=10**6, micro_batch=options.get("micro_batch")
                ),
                # Only the last process is told to stop; the others must learn it from it.
                should_stop=lambda: next(asked) == stop_at and rank == world().size - 1,
            )
        except VitokError as error:
            return {"rank": rank, "error": type(error).__name__, "text": str(error)}
    return {
        "rank": rank,
        "losses": [point.loss for point in result.curve],
        "resumed_from": result.resumed_from,
        "notes": list(result.notes),
    }


def train_in_processes(
    processes: int, data: Path, folder: Path, *, stop_at: int | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Start them, wait for all, and return what each says, by rank."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    asked = json.dumps({"data": str(data), "folder": str(folder), "stop_at": stop_at, **options})
    started = [
        subprocess.Popen(
            [sys.executable, __file__, asked],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    answers = []
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        answers.append(json.loads(out))
    return answers


def main() -> None:
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    answer = run(Path(asked.pop("data")), Path(asked.pop("folder")), **asked)
    print(json.dumps(answer), flush=True)
    # Threads of gloo can abort an interpreter that is ending (pytorch pull request 179291).
    os._exit(0)


if __name__ == "__main__":
    main()
