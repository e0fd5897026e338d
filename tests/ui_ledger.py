"""A small study with results, run folders and pictures, for the tests of the dashboard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ledger_plans import by_kind, metric, outcome, result

from studies import SMALL, plan_of
from sweepctl import runs
from sweepctl.ledger import Ledger, Submission, open_ledger
from sweepctl.plan import Plan, Task

STUDY = SMALL.replace("study: small", "study: small\nquestion: Does E help?")


@dataclass(frozen=True)
class Place:
    """Where a filled ledger is, and what is in it."""

    folder: Path
    plan: Plan
    database: str

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def tasks(self, kind: str) -> list[Task]:
        return by_kind(self.plan, kind)  # type: ignore[arg-type]  # it has tasks, as a plan does

    def reading(self) -> Ledger:
        return open_ledger(self.database, create=False, read_only=True)


def value_of(cell: Any) -> float:
    """The PSNR a cell is given: a law with a little scatter, every digit of it."""
    return 11.0 + 2.5 * float(np.log2(cell.derived.E)) + 0.1 * cell.index + 1 / 3


def write_folder(place: Path, task: Task, number: int) -> None:
    folder = place / task.id
    attempt = runs.attempt_folder(folder, 1)
    attempt.mkdir(parents=True)
    (attempt / "log.txt").write_text("a line\nthe last line\n")
    values: dict[str, Any] = {}
    files: list[str] = []
    if task.kind == "stage1":
        values = {"curve": [{"step": n, "loss": 1 / n, "kl": 3.0} for n in range(1, 30)]}
        (folder / "weights.safetensors").write_bytes(b"weights")
        files = ["weights.safetensors"]
    if task.kind == "reconstruct":
        originals = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
        np.save(folder / "originals.npy", originals)
        np.save(folder / "reconstructions.npy", originals // (number + 1))
        files = ["originals.npy", "reconstructions.npy"]
    made = runs.TaskResult(
        fingerprint=task.fingerprint,
        attempt=1,
        values=values,
        files=tuple(runs.file_record(folder, name) for name in files),
    )
    runs.write_result(folder, made)


def fill(
    folder: Path,
    *,
    text: str = STUDY,
    cells: int = 4,
    change: Callable[[Plan], Plan] = lambda plan: plan,
    database: str = "",
) -> Place:
    """Record a study and finish the tasks of its first cells."""
    plan = change(plan_of(folder, text))
    database = database or str(folder / "results.db")
    with open_ledger(database) as ledger:
        ledger.studies.record(
            plan,
            Submission(
                text=text,
                resolved=plan.study.study.model_dump(mode="json", by_alias=True),
                argv=("sweepctl", "run", "study.yaml"),
                question=plan.study.study.question,
                version="0.1.0",
            ),
        )
        for cell in plan.cells[:cells]:
            finish_cell(ledger, plan, cell, folder / "runs")
    return Place(folder=folder, plan=plan, database=database)


def finish_cell(ledger: Ledger, plan: Plan, cell: Any, place: Path) -> None:
    for fingerprint in cell.tasks.values():
        task = plan.tasks[fingerprint]
        number = ledger.attempts.start(
            fingerprint, host="node<1>", provenance={"device": "cpu"}, folder=place / task.id
        )
        if number is None:
            continue
        numbers = ()
        if task.kind == "reconstruct":
            numbers = (
                replace(metric(value_of(cell)), dataset="photos-eval", se=0.25),
                replace(metric(400.0 / cell.derived.E, name="rfd_lite0"), dataset="photos-eval"),
            )
        write_folder(place, task, cell.index)
        made = result(task, *numbers, attempt=number, provenance={"torch": "2.14", "device": "cpu"})
        assert ledger.attempts.finish(outcome(task, number), made)


def running(place: Place, index: int, step: int = 3) -> Task:
    """Let the training of a cell run, and tell how far it is."""
    from sweepctl.ledger import AttemptProgress

    cell = place.plan.cells[index - 1]
    task = place.plan.tasks[cell.tasks["stage1"]]
    with open_ledger(place.database) as ledger:
        number = ledger.attempts.start(task.fingerprint, folder=place.runs / task.id) or 1
        ledger.attempts.progress(
            [
                AttemptProgress(
                    fingerprint=task.fingerprint, attempt=number, step=step, steps=10, loss=0.5
                )
            ]
        )
    attempt = runs.attempt_folder(place.runs / task.id, number)
    attempt.mkdir(parents=True, exist_ok=True)
    with (attempt / "events.jsonl").open("w") as file:
        for at in range(1, step + 1):
            file.write(json.dumps({"t": 1.0, "step": at, "steps": 10, "loss": 1.0 / at}) + "\n")
    (attempt / "log.txt").write_text(f"step {step}\n")
    return task
