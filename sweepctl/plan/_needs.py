"""How many GPUs does each task of a plan get? What the study says, resolved task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweepctl.errors import Problem, StudyError
from sweepctl.plan._cost import Calibration
from sweepctl.plan._model import Plan, Task
from sweepctl.study import WITHIN, Gpus, StudyFile

SHOWN = 3
"""Tasks that an error names per stage."""


def gpus_of(
    task: Task, needs: Mapping[str, Gpus], calibration: Calibration, most: int | None = None
) -> int:
    """How many GPUs a task gets.

    Args:
        task: the task.
        needs: kind -> what the study says; 1 for one that is not named.
        calibration: how long tasks take, for one that is to end within a time. Where nothing is
            known of it, it gets as many as possible.
        most: of any worker; bounds the choice where a time is given, and not a number.
    """
    said = needs.get(task.kind)
    if said is None:
        return 1
    if said.within_s is None:
        return next(
            number
            for number, size in said.cases
            if size is None or size.than.holds(_measure(task, size.of))
        )
    expected = calibration.expect(task.kind, task.cost_left)
    batch = _batch(task)
    limit = min(one for one in (most, batch, WITHIN[-1]) if one is not None)
    able = [number for number in WITHIN if number <= limit] or [1]
    if expected is not None:
        for number in able:
            if expected.seconds <= number * said.within_s:
                return number
    return able[-1]


def _measure(task: Task, of: str) -> int:
    assert task.cost.training is not None  # rules by size are of trainings
    model, how = task.cost.training
    return how.batch if of == "batch" else model.tokens if of == "tokens" else model.parameters


def _batch(task: Task) -> int | None:
    """Samples of a step of a training: no more processes can share it."""
    return None if task.cost.training is None else int(task.cost.training[1].batch)


def gpus_of_tasks(
    plans: Sequence[Plan], calibration: Calibration, most: int | None = None
) -> dict[str, int]:
    """Fingerprint -> GPUs of each task of plans that gets more than one.

    Of a task that several plans share, the first one decides.
    """
    found: dict[str, int] = {}
    for plan in reversed(plans):
        needs = plan.study.study.run.gpus
        for name, task in plan.tasks.items():
            found[name] = gpus_of(task, needs, calibration, most) if needs else 1
    return {name: number for name, number in found.items() if number > 1}


def check_batches(study: StudyFile, tasks: Mapping[str, Task]) -> None:
    """Refuse trainings whose batch is smaller than their GPUs or their micro-batch.

    Raises:
        StudyError: with an entry for each stage.
    """
    run, calibration = study.study.run, Calibration()
    wrong: dict[tuple[str, ...], list[tuple[Task, str]]] = {}
    for task in tasks.values():
        batch = _batch(task)
        if batch is None:
            continue
        number = gpus_of(task, run.gpus, calibration)
        if number > batch:
            said = f"is to use {number} GPUs"
            wrong.setdefault(("needs", task.kind, "gpus"), []).append((task, said))
        together, _ = run.memory[task.kind]
        if isinstance(together, int) and together > batch:
            each = (task.kind,) if isinstance(run.micro_batch, dict) else ()
            said = f"is to take {together} samples at once"
            wrong.setdefault(("micro_batch", *each), []).append((task, said))
    problems = []
    for place, found in wrong.items():
        task, said = found[0]
        others = f", like {len(found) - 1:,} more" if len(found) > 1 else ""
        what = (
            "some would have nothing to do; give fewer GPUs"
            if place[0] == "needs"
            else f"give at most {_batch(task)}, or auto"
        )
        message = (
            f"{task.id} ({task.label}) {said} and has a batch of {_batch(task)}{others}: {what}, "
            "or a larger batch"
        )
        problems.append(study.document.problem(("run", *place), message))
    if problems:
        raise StudyError(problems)


def check_room(
    plans: Sequence[Plan], gpus: Mapping[str, int], most: int, where: str, names: str = "GPUs"
) -> None:
    """Refuse tasks that no worker has GPUs enough for.

    Args:
        plans: one or several.
        gpus: fingerprint -> GPUs, of the tasks that get more than one.
        most: what the largest worker has.
        where: that worker, for people: "8xH100 is 8 GPUs".
        names: what they are called, "GPUs" or "slots".

    Raises:
        StudyError: with an entry for each stage of each study.
    """
    problems = []
    for plan in plans:
        wrong: dict[str, list[Task]] = {}
        for name, task in plan.tasks.items():
            if gpus.get(name, 1) > most:
                wrong.setdefault(task.kind, []).append(task)
        for kind, tasks in wrong.items():
            needed = max(gpus[task.fingerprint] for task in tasks)
            shown = ", ".join(task.id for task in tasks[:SHOWN])
            if len(tasks) > SHOWN:
                shown += f" and {len(tasks) - SHOWN:,} more"
            said = f"{shown}: {needed} {names} are needed together, and {where}"
            problems.append(_problem(plan.study, kind, said))
    if problems:
        raise StudyError(problems)


def _problem(study: StudyFile, kind: str, said: str) -> Problem:
    return study.document.problem(("run", "needs", kind, "gpus"), said)
