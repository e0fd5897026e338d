"""What the ranks of an attempt do in the tests of sweepctl.tasks._gang; importable by servers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sweepctl.runs import AttemptOutcome, AttemptRequest, attempt_folder, write_json
from sweepctl.tasks._gang import Told, in_ranks


def preload() -> None:
    import torch.distributed  # noqa: F401


def run(request: AttemptRequest) -> None:
    attempt = attempt_folder(Path(request.folder), request.attempt)
    told = in_ranks(request.ranks, attempt, partial(work, request.kind))
    outcome = AttemptOutcome(task_id=request.task_id, attempt=request.attempt, **told)
    write_json(attempt / "outcome.json", outcome)


def work(kind: str, say: Callable[[Told], None]) -> None:
    """Rank 2 does what the kind says of one; the others wait for it, as in a collective."""
    who, _, does = kind.partition(" ")
    rank = int(os.environ["RANK"])
    assert os.environ["MASTER_PORT"].isdigit() and os.environ["WORLD_SIZE"] == "3"
    if who == "one" and rank != (1 if does == "leaves" else 2):
        time.sleep(600)
    if does == "leaves":
        os._exit(7)
    if does == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    words = {
        "fail": {"state": "failed", "failure": "error", "message": "no more cheese"},
        "stop": {"state": "stopped", "message": "stopped at step 7"},
        "end": {"state": "done"},
    }
    say({**words[does.removesuffix("s")], "peak_memory_bytes": 1 + rank})
