"""What a checkpoint costs a training: the time it waits, against writing in the loop.

    python bench/checkpoints.py                 # 1.5 GB, the state of S-B/16 with AdamW
    python bench/checkpoints.py --gigabytes 10.8    # DiT-XL with its average

In one run, alternating: a checkpoint by `vitok_core.train` (copied, then written, hashed and synced
by a thread while matrix products go on) and the same state saved, synced and read again for its
hash in the loop. Printed are the wait of each in seconds, the processor seconds of the thread, how
much slower the matrix products are while it writes, and from all that the share of the time that
checkpoints take at the cadence they choose for themselves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from vitok_core.files import replacing, sha256_of, write_bytes
from vitok_core.train._checkpoints import COST_SHARE, LEAST_S, MOST_S, Checkpoints
from vitok_core.train._history import History

TENSORS = 300
"""About as many as S-B/16 has, each with two moments."""


def state(gigabytes: float, device: torch.device) -> dict[str, Any]:
    """Weights and moments of that size together."""
    values = int(gigabytes * 1e9 / 4 / 3 / TENSORS)
    return {
        name: {n: torch.randn(values, device=device) for n in range(TENSORS)}
        for name in ("model", "first", "second")
    }


def in_the_loop(folder: Path, kept: dict[str, Any]) -> float:
    """Save, sync, and read again for the hash; the seconds that takes."""
    began = time.perf_counter()
    path = folder / "loop.pt"
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            torch.save({"state": kept}, file)
        write_bytes(path.with_suffix(".sha256"), f"{sha256_of(temporary)}\n".encode())
    return time.perf_counter() - began


def work_s(device: torch.device) -> float:
    """Seconds of one matrix product, the stand-in for a training step."""
    side = 1024 if device.type == "cpu" else 8192
    a = torch.ones(side, side, device=device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    (a @ a).sum().item()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.55)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="on the disk that is asked about")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    kept = state(asked.gigabytes, device)
    waits, loops, threads, writes, quiet, busy = [], [], [], [], [], []
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        checkpoints = Checkpoints(Path(name), {}, History(asked.repeats + 1))
        for step in range(1, asked.repeats + 1):
            quiet += [work_s(device) for _ in range(20)]
            began = time.perf_counter()
            checkpoints.begin(step, lambda: kept)
            waits.append(time.perf_counter() - began)
            writing = checkpoints._writing
            assert writing is not None
            while not writing.done():
                busy.append(work_s(device))
            writes.append(time.perf_counter() - began)
            threads.append(writing.result())
            loops.append(in_the_loop(Path(name), kept))
        checkpoints.close()
    # The first copy also takes its memory from the system.
    wait, loop, thread = (statistics.median(x[1:] or x) for x in (waits, loops, threads))
    slower = statistics.mean(busy) / statistics.median(quiet) - 1
    cost = wait + (thread if device.type == "cpu" else 0.0)
    cadence = min(max(cost / COST_SHARE, LEAST_S), MOST_S)
    write = statistics.median(writes)
    print(f"state {asked.gigabytes:g} GB on {device}, {asked.repeats} checkpoints")
    print(f"in the loop: {loop:.2f} s of waiting each")
    print(
        f"by a thread: {wait:.3f} s of waiting each ({waits[0]:.3f} s the first), {wait / loop:.1%}"
    )
    print(f"the thread: {write:.2f} s, of them {thread:.2f} s of a processor")
    print(f"matrix products while it writes: {slower:+.1%}")
    print(f"cadence {cadence:.0f} s: {wait / cadence:.2%} of the time waiting", end=", ")
    print(f"{(wait + write * max(slower, 0)) / cadence:.2%} with what the thread takes away")


if __name__ == "__main__":
    main()
