"""What tests run instead of real tasks: an entry that writes a result, fails, or waits as told.

How a task behaves is told by a file beside the run folder, behaviour.json: task kind or id -> one
of "done", "error", "killed", "non_finite", "hang", "interrupted"; a list is used up one attempt at
a time.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from sweepctl import runs
from sweepctl.runs import AttemptOutcome, AttemptRequest, MetricValue, TaskResult


def behaviour(folder: Path, task_id: str, kind: str, attempt: int) -> str:
    path = folder.parent / "behaviour.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    how = told.get(task_id, told.get(kind, "done"))
    return how if isinstance(how, str) else how[min(attempt, len(how)) - 1]


def run(request: AttemptRequest) -> None:
    folder = Path(request.folder)
    attempt = runs.attempt_folder(folder, request.attempt)
    attempt.mkdir(parents=True, exist_ok=True)
    task = runs.read_json(folder / "task.json")
    for parent in task["parents"].values():
        assert (folder.parent / parent / "result.json").is_file(), "started before its parent"
    runs.append_event(attempt / "events.jsonl", {"t": time.time(), "step": 1, "steps": 2})
    how = behaviour(folder, request.task_id, request.kind, request.attempt)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hang" and not (attempt / "stop").exists():
        time.sleep(0.01)
    if how == "done":
        (folder / "made.txt").write_text(request.task_id)
        metrics = ()
        if request.kind == "reconstruct":
            digits = int(task["fingerprint"][3:11], 16)
            metrics = (
                MetricValue(
                    name="psnr",
                    dataset=task["identity"]["config"]["dataset"],
                    protocol="lite0",
                    value=digits / 2**32,
                    n=8,
                    step=task["identity"]["config"].get("step"),
                ),
            )
        runs.write_result(
            folder,
            TaskResult(
                fingerprint=task["fingerprint"],
                attempt=request.attempt,
                files=(runs.file_record(folder, "made.txt"),),
                metrics=metrics,
            ),
        )
    state = {"done": "done", "hang": "stopped", "interrupted": "stopped"}.get(how, "failed")
    runs.write_json(
        attempt / "outcome.json",
        AttemptOutcome(
            task_id=request.task_id,
            attempt=request.attempt,
            state=state,  # type: ignore[arg-type]
            failure=how if state == "failed" else None,  # type: ignore[arg-type]
            message="" if state == "done" else f"told to be {how}",
            seconds=0.0 if how != "hang" else 1.0,
        ),
    )
