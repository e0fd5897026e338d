"""What does an attempt cost beyond its work? Times of attempts that do nothing, in each pool.

    python bench/overhead.py [--attempts 200] [--workers 2] [--json]

Each attempt goes the whole way: folder, request, a forked child of a server that has torch loaded,
outcome.json written and synced, the outcome back in the driver. "alone" is the time from submit to
outcome with one attempt under way; "full" is wall time divided by attempts with all slots kept
busy. The targets are 40 ms for worker processes and 5 ms in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sweepctl.cluster import Pool, open_pool
from sweepctl.runs import AttemptOutcome, AttemptRequest, attempt_folder, write_json


def preload() -> None:
    """Load what a fork server loads for real attempts."""
    import torch  # noqa: F401


def do_nothing(request: AttemptRequest) -> None:
    outcome = AttemptOutcome(task_id=request.task_id, attempt=request.attempt, state="done")
    folder = attempt_folder(Path(request.folder), request.attempt)
    write_json(folder / "outcome.json", outcome)


def request(folder: Path, number: int) -> AttemptRequest:
    task = f"noop-{number:06d}"
    return AttemptRequest(task_id=task, kind="noop", folder=str(folder / task), attempt=1)


def wait_for(pool: Pool) -> list[AttemptOutcome]:
    outcomes = pool.completed(60.0)
    if not outcomes or any(o.state != "done" for o in outcomes):
        raise SystemExit(f"an attempt that does nothing failed: {outcomes}")
    return outcomes


def time_alone(pool: Pool, folder: Path, attempts: int) -> tuple[list[float], list[float]]:
    """Seconds from submit to outcome, and of these the seconds of the child."""
    waited, inside = [], []
    for number in range(attempts):
        started = time.perf_counter()
        pool.submit(request(folder / "alone", number))
        (outcome,) = wait_for(pool)
        waited.append(time.perf_counter() - started)
        inside.append(outcome.seconds)
    return waited, inside


def time_full(pool: Pool, folder: Path, attempts: int) -> float:
    """Seconds of wall time an attempt when all slots are kept busy."""
    started = time.perf_counter()
    submitted = ended = 0
    while ended < attempts:
        while submitted < attempts and submitted - ended < pool.slots:
            pool.submit(request(folder / "full", submitted))
            submitted += 1
        ended += len(wait_for(pool))
    return (time.perf_counter() - started) / attempts


def measure(where: str, workers: int | None, attempts: int, folder: Path) -> dict[str, object]:
    opened = time.perf_counter()
    with open_pool(
        where,
        workers=workers,
        entry="overhead:do_nothing",
        preload="overhead:preload",
        log_folder=folder / "logs",
    ) as pool:
        open_s = time.perf_counter() - opened
        for number in range(2 * pool.slots):  # the first ones wait for the import of torch
            pool.submit(request(folder / "warm", number))
            wait_for(pool)
        first_s = time.perf_counter() - opened
        waited, inside = time_alone(pool, folder, attempts)
        full_s = time_full(pool, folder, attempts)
        return {
            "pool": where,
            "slots": pool.slots,
            "attempts": attempts,
            "open_s": round(open_s, 3),
            "first_outcomes_s": round(first_s, 3),
            "alone_median_ms": round(1e3 * statistics.median(waited), 2),
            "alone_p90_ms": round(1e3 * statistics.quantiles(waited, n=10)[-1], 2),
            "child_median_ms": round(1e3 * statistics.median(inside), 2),
            "full_ms_an_attempt": round(1e3 * full_s, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=200, help="attempts per figure (200)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a pool")
    given = parser.parse_args()
    print(f"python {platform.python_version()}, {os.cpu_count()} cores", file=sys.stderr)
    for where, workers in (("inline", None), ("local", given.workers)):
        folder = Path(tempfile.mkdtemp(prefix="sweepctl-overhead-"))
        try:
            figures = measure(where, workers, given.attempts, folder)
        finally:
            shutil.rmtree(folder)
        if given.json:
            print(json.dumps(figures))
        else:
            print("\n".join(f"{name:20} {value}" for name, value in figures.items()), end="\n\n")


if __name__ == "__main__":
    main()
