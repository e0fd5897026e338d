"""Tasks of a plan as folders on disk, to be worked on in this process: whole, stopped, killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sweepctl import runs
from sweepctl.datasets import data_identities
from sweepctl.plan import Plan, Task, make_plan
from sweepctl.runs import AttemptRequest, TaskResult
from sweepctl.study import load_study
from sweepctl.tasks import TASKS, Work, run


def plan_of(folder: Path, text: str) -> Plan:
    """The plan of a study of built-in data sets."""
    data = data_identities()
    file = folder / "study.yaml"
    file.write_text(text)
    return make_plan(load_study(file, datasets=data), data=data)


def freeze(plan: Plan, task: Task, root: Path) -> Path:
    """The task's folder with the task.json that a driver writes."""
    folder = root / task.id
    folder.mkdir(parents=True)
    runs.write_json(
        folder / "task.json",
        {
            "fingerprint": task.fingerprint,
            "kind": task.kind,
            "label": task.label,
            "study": plan.study_name,
            "identity": json.loads(task.identity),
            "parents": {role: plan.tasks[parent].id for role, parent in task.parents},
            "cost": {"flops": task.cost.flops},
            "continues": [name for name, _ in task.continues],
        },
    )
    return folder


def attempt(folder: Path, number: int = 1, **how: Any) -> TaskResult:
    """One whole attempt, as a worker's child makes it; its result."""
    task = runs.read_json(folder / "task.json")
    run(
        AttemptRequest(
            task_id=folder.name,
            kind=task["kind"],
            folder=str(folder),
            attempt=number,
            device="cpu",
            checkpoint_s=60.0,
            **how,
        )
    )
    outcome = runs.read_json(runs.attempt_folder(folder, number) / "outcome.json")
    assert outcome["state"] == "done", outcome
    result = runs.read_result(folder, task["fingerprint"])
    assert result is not None
    return result


def work_on(folder: Path, should_stop: Callable[[], bool]) -> None:
    """The kind's function alone, with a say in when it is asked to stop."""
    task = runs.read_json(folder / "task.json")
    TASKS[task["kind"]](
        Work(
            task=folder.name,
            study=task["study"],
            identity=task["identity"],
            folder=folder,
            parents={role: folder.parent / name for role, name in task["parents"].items()},
            device="cpu",
            threads=1,
            checkpoint_s=0.0,
            event=lambda event: None,
            should_stop=should_stop,
            continues=tuple(folder.parent / name for name in task["continues"]),
        )
    )


def kill_at(folder: Path, asked: int) -> None:
    """The kind's function in a child that is killed when it looks for the `asked`-th time.

    As in a real run the child comes from a server that has imported what is needed and computed
    nothing. A fork of this process would inherit a torch that has trained, and its threads not.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["task_folders"])
    # The server may be an earlier test's, with the environment of that time.
    child = context.Process(target=_work_until_killed, args=(folder, asked, dict(os.environ)))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, f"it ended with {child.exitcode} before look {asked}"


def _work_until_killed(folder: Path, asked: int, environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    left = iter(range(asked))

    def look() -> bool:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    torch.set_num_threads(1)  # as an attempt has it: other sums are other bytes
    torch.use_deterministic_algorithms(True, warn_only=True)
    work_on(folder, look)


def lasting(result: TaskResult) -> Mapping[str, Any]:
    """What of a result must not depend on interruptions."""
    ours = ("samples_per_s", "flops_per_s", "mfu", "peak_memory_bytes", "resumed_from")
    return {
        "files": [(file.name, file.sha256) for file in result.files],
        "metrics": result.metrics,
        "values": {name: value for name, value in result.values.items() if name not in ours},
    }
