"""Small plans and results for the ledger's tests: real tasks and cells, but no study file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.ledger import Ledger, Submission
from sweepctl.plan import Cell, Cost, Derived, Task, canonical, fingerprint
from sweepctl.runs import AttemptOutcome, FileRecord, MetricValue, TaskResult


@dataclass(frozen=True)
class SmallPlan:
    """The part of a plan that the ledger reads."""

    study_name: str
    cells: tuple[Cell, ...]
    tasks: Mapping[str, Task]


def make_task(kind: str, identity: Mapping[str, Any], parents: Mapping[str, str]) -> Task:
    text = canonical({"kind": kind, "config": dict(identity), "parents": dict(parents)})
    return Task(
        fingerprint=fingerprint(text),
        kind=kind,
        label=f"{kind} {dict(identity)}",
        identity=text,
        parents=tuple(sorted(parents.items())),
        cost=Cost(parameters=1_000, macs=2_000, flops=3 * 10**19, disk_bytes=4_000),
    )


def make_plan(
    name: str = "small",
    axes: Sequence[Mapping[str, Any]] = ({"p": 8, "lr": 1e-4}, {"p": 16, "lr": 1e-3}),
    datasets: Sequence[str] = ("photos",),
    salt: str = "",
) -> SmallPlan:
    """One prepare task for all cells, and a stage1 and a reconstruct task for each."""
    tasks: dict[str, Task] = {}

    def add(kind: str, identity: Mapping[str, Any], parents: Mapping[str, str]) -> str:
        task = make_task(kind, {**identity, "salt": salt}, parents)
        tasks[task.fingerprint] = task
        return task.fingerprint

    cells = []
    for index, values in enumerate(axes, start=1):
        data = add("prepare", {"images": 64}, {})
        model = add("stage1", values, {"data": data})
        stages = {"prepare:train": data, "stage1": model}
        for dataset in datasets:
            stages[f"reconstruct:{dataset}"] = add(
                "reconstruct", {"on": dataset}, {"images": data, "model": model}
            )
        p, c = values.get("p", 8), values.get("c", 4)
        cells.append(
            Cell(
                index=index,
                key=fingerprint(canonical(dict(values))),
                axes=values,
                config={"tokenizer": {"p": p, "c": c}, "axes": dict(values)},
                derived=Derived(
                    p=p,
                    q=1,
                    c=c,
                    encoder="S",
                    decoder="B",
                    resolution=64,
                    frames=1,
                    seed=values.get("seed", 0),
                    tokens=(64 // p) ** 2,
                    E=(64 // p) ** 2 * c,
                    compression=3 * p * p / c,
                    parameters=10**6 * p,
                    macs=10**9,
                    encoder_parameters=4 * 10**5 * p,
                    decoder_parameters=6 * 10**5 * p,
                    encoder_macs=4 * 10**8,
                    decoder_macs=6 * 10**8,
                ),
                tasks=stages,
                datasets=tuple(datasets),
            )
        )
    return SmallPlan(study_name=name, cells=tuple(cells), tasks=tasks)


def submission(**changes: Any) -> Submission:
    given = {"text": "study: small\n", "resolved": {"study": "small"}, "version": "0.1.0"}
    return Submission(**(given | changes))


def metric(value: float, name: str = "psnr", dataset: str = "photos", **more: Any) -> MetricValue:
    return MetricValue(
        name=name, dataset=dataset, value=value, **({"protocol": "lite0", "n": 32} | more)
    )


def result(task: Task, *metrics: MetricValue, attempt: int = 1, **more: Any) -> TaskResult:
    given: dict[str, Any] = {
        "files": (FileRecord(name="weights.safetensors", bytes=100, sha256="0" * 64),),
        "provenance": {"device": "cpu", "code": "abc", "torch": "2.14"},
        "seconds": 2.0,
        "flops": 3 * 10**19,
    }
    return TaskResult(
        fingerprint=task.fingerprint, attempt=attempt, metrics=metrics, **(given | more)
    )


def outcome(task: Task, attempt: int = 1, state: Any = "done", **more: Any) -> AttemptOutcome:
    return AttemptOutcome(
        task_id=task.id, attempt=attempt, state=state, **({"seconds": 2.0, "host": "node1"} | more)
    )


def finish(ledger: Ledger, task: Task, *metrics: MetricValue) -> None:
    """Run a task from pending to done."""
    attempt = ledger.attempts.start(task.fingerprint)
    assert attempt is not None
    ended = outcome(task, attempt)
    assert ledger.attempts.finish(ended, result(task, *metrics, attempt=attempt))


def by_kind(plan: SmallPlan, kind: str) -> list[Task]:
    return [task for task in plan.tasks.values() if task.kind == kind]
