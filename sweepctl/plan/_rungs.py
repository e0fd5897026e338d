"""Trials up to a rung: the trainings and measurements of one that was not promoted to its end.

A rung is a training of the full schedule that ends at an early step, and what is measured of it
then; both are tasks like all others, with identities of their own. The next rung, and the whole
training, can resume from its checkpoint and end with the same bytes as if there had been no rung,
so the tasks of a trial that is promoted to its end are those that it would have had without.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sweepctl.kinds import KINDS, measuring_kind
from sweepctl.plan._identity import canonical, fingerprint
from sweepctl.plan._model import Cell, Plan, Task
from sweepctl.study import Search


def rung_stage(stage: str, step: int) -> str:
    """The name among a cell's stages of what one of them is at a rung."""
    return f"{stage}@{step}"


def rung_steps(search: Search, cell: Cell) -> tuple[int, ...]:
    """The steps at which a trial is measured, its end last; empty when it cannot be cut.

    Args:
        search: that prunes.
        cell: of the trial, whole.
    """
    assert search.prune is not None
    stages = {search.prune.stage, measuring_stage(search)}
    if not stages <= cell.tasks.keys():
        return ()
    return search.prune.steps(int(cell.config["stages"][search.prune.stage]["steps"]))


def up_to(plan: Plan, search: Search, reached: Mapping[str, tuple[int, ...]]) -> Plan:
    """The plan of trials that are promoted to some rungs only.

    Args:
        plan: of whole trials.
        search: that prunes.
        reached: key of a cell -> the steps, of `rung_steps`, that it was promoted to so far;
            cells that are not in it stay whole.
    """
    assert search.prune is not None
    early: dict[str, Task] = {}
    late: dict[str, Task] = {}
    wanted: set[str] = set()
    cells = []
    for cell in plan.cells:
        steps = reached.get(cell.key, ())
        if not steps:
            wanted |= _with_ancestors(plan.tasks, cell.tasks.values())
            cells.append(cell)
            continue
        whole = plan.tasks[cell.tasks[search.prune.stage]]
        end = rung_steps(search, cell)[-1]
        tasks: dict[str, str] = {}
        behind: list[tuple[int, Task]] = []
        for step in steps:
            continues = tuple((task.id, before / step) for before, task in reversed(behind))
            if step == end:
                late[whole.fingerprint] = replace(whole, continues=continues)
                tasks |= cell.tasks
                break
            training = replace(_at(whole, {"until": step}, {}, step / end), continues=continues)
            measuring = _at(
                plan.tasks[cell.tasks[measuring_stage(search)]],
                {"step": step},
                {KINDS[search.prune.stage].weights: training.fingerprint},
            )
            for task in (training, measuring):
                early[task.fingerprint] = task
            tasks[rung_stage(search.prune.stage, step)] = training.fingerprint
            tasks[rung_stage(measuring_stage(search), step)] = measuring.fingerprint
            behind.append((step, training))
        rungs = [early[name] for name in tasks.values() if name in early]
        below = _with_ancestors(plan.tasks, (name for task in rungs for name in _parents(task)))
        wanted |= below | _with_ancestors(plan.tasks, tasks.values())
        shared = {stage: name for stage, name in cell.tasks.items() if name in below}
        until = None if steps[-1] == end else steps[-1]
        cells.append(replace(cell, tasks=shared | tasks, until=until))
    kept = {name: late.get(name, task) for name, task in plan.tasks.items() if name in wanted}
    before = _with_ancestors(plan.tasks, (p for task in early.values() for p in _parents(task)))
    first = {name: task for name, task in kept.items() if name in before}
    return replace(plan, cells=tuple(cells), tasks=first | early | kept)


def measuring_stage(search: Search) -> str:
    """The name among a cell's stages of what measures the objective that trials are ranked by."""
    objective = search.objectives[0]
    return f"{measuring_kind(objective.group).name}:{objective.dataset}"


def _at(
    task: Task, config: Mapping[str, Any], parents: Mapping[str, str], share: float = 1.0
) -> Task:
    """A task of a whole trial as it is at a rung: more in its config, other parents, a share."""
    identity = json.loads(task.identity)
    identity["config"] |= config
    identity["parents"] |= parents
    text = canonical(identity)
    ((_, step),) = config.items()
    return replace(
        task,
        fingerprint=fingerprint(text),
        label=f"{task.label} at step {step}",
        identity=text,
        parents=tuple(sorted(identity["parents"].items())),
        cost=task.cost.scaled(share),
    )


def _parents(task: Task) -> list[str]:
    return [parent for _, parent in task.parents]


def _with_ancestors(tasks: Mapping[str, Task], names: Iterable[str]) -> set[str]:
    """Those of some tasks that are in a plan, and all that they are made from."""
    found: set[str] = set()
    todo = [name for name in names if name in tasks]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _parents(tasks[name])
    return found
