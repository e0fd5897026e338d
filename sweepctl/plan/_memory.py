"""What the trainings of a plan need of a GPU's memory, and how many samples of a step fit in it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sweepctl.kinds import trainings
from sweepctl.plan._identity import canonical
from sweepctl.plan._model import Task
from vitok_core.spec import Memory, chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The tasks of a kind that run models and train none, on one device.

    Attributes:
        stage: the kind of task.
        tasks: how many.
        samples: most that are in memory together; it is fixed.
        bytes: most that one of them takes, in closed form, without the networks that judge.
        misfits: id, label and bytes of those that do not fit, in the order of the plan.
    """

    stage: str
    tasks: int
    samples: int
    bytes: int
    misfits: tuple[tuple[str, str, int], ...]


def needs_on(tasks: Iterable[Task], available_bytes: int) -> list[Need]:
    """What tasks need of a device that run models and train none, one line per kind.

    Args:
        tasks: of one or several plans.
        available_bytes: memory of the device.
    """
    found: dict[str, list[tuple[Task, int, int]]] = defaultdict(list)
    for task in tasks:
        if task.cost.without_gradients is not None:
            samples, memory = task.cost.without_gradients
            found[task.kind].append((task, samples, memory.bytes(samples, samples)))
    return [
        Need(
            stage=stage,
            tasks=len(of_kind),
            samples=max(samples for _, samples, _ in of_kind),
            bytes=max(taken for _, _, taken in of_kind),
            misfits=tuple(
                (task.id, task.label, taken)
                for task, _, taken in of_kind
                if taken > available_bytes
            ),
        )
        for stage, of_kind in found.items()
    ]


Measured = tuple[int | None, bool, int | None]
"""Of a training that fitted: samples at once (None for all), whether activations were recomputed,
and bytes at the peak where they are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One training on one device.

    Attributes:
        task: its id.
        label: of the task, for people.
        batch: samples of a step, of several GPUs those of the one that has most.
        micro_batch: of them, those in memory together; None when it does not fit.
        recompute: whether activations are recomputed.
        bytes: at the peak, in closed form; of one sample, or the given ones, where it does not fit.
        measured: whether a training that fitted says so.
    """

    task: str
    label: str
    batch: int
    micro_batch: int | None
    recompute: bool
    bytes: int
    measured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """The trainings of one stage on one device.

    Attributes:
        stage: the kind of task.
        trainings: how many tasks.
        smallest: the training with the smallest micro-batch of those that fit; None without one.
        largest: that with the largest.
        recomputed: how many recompute activations.
        measured: how many are as a training that fitted was.
        misfits: those that do not fit, in the order of the plan.
    """

    stage: str
    trainings: int
    smallest: Fit | None
    largest: Fit | None
    recomputed: int
    measured: int
    misfits: tuple[Fit, ...]


def configuration(task: Task) -> str | None:
    """Key of all trainings that take the same memory on the same device; None for other tasks.

    It is made of the model, the closed form, and the settings that choose how something is
    computed; rates, weights of losses, seeds and numbers of steps take no memory.
    """
    if task.cost.training is None:
        return None
    spec: Any = task.cost.training[0]
    how: Any = task.cost.training[1]
    chosen_by_name = {
        one.name: value
        for one in dataclasses.fields(how)
        if isinstance(value := getattr(how, one.name), bool | str)
    }
    form = [dataclasses.asdict(how.memory(spec, recompute=again)) for again in (False, True)]
    whole = {"kind": task.kind, "batch": how.batch, "spec": spec.plain(), "form": form}
    text = canonical(whole | {"settings": chosen_by_name})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def memory_on(
    tasks: Iterable[tuple[Task, Mapping[str, tuple[int | str, bool | str]]]],
    available_bytes: int,
    measured: Mapping[str, Measured] | None = None,
    gpus: Mapping[str, int] = MappingProxyType({}),
) -> list[StageMemory]:
    """What the trainings among tasks need of a device, one line per stage.

    Args:
        tasks: of one or several plans, each with what its study says of memory, `Run.memory`.
        available_bytes: memory of the device.
        measured: configuration -> what fitted such a device; it takes precedence over the closed
            form.
        gpus: fingerprint -> devices that share the batch, for tasks that have several.
    """
    known: dict[Any, tuple[int, int | None, bool, int, bool]] = {}
    fits: dict[str, list[Fit]] = defaultdict(list)
    for task, run in tasks:
        if task.cost.training is None:
            continue
        said = run.get(task.kind, ("auto", "auto"))
        together = gpus.get(task.fingerprint, 1)
        key = (task.cost.training, said, together)
        if key not in known:
            # Of trainings in one process, which take the whole batch.
            found = measured.get(configuration(task) or "") if measured and together == 1 else None
            if found is not None and said == ("auto", "auto"):
                known[key] = _measured(task.cost.training, found)
            else:
                known[key] = (*_fit(task.cost.training, available_bytes, together, *said), False)
        batch, micro_batch, recompute, taken, is_measured = known[key]
        fits[task.kind].append(
            Fit(
                task=task.id,
                label=task.label,
                batch=batch,
                micro_batch=micro_batch,
                recompute=recompute,
                bytes=taken,
                measured=is_measured,
            )
        )
    return [_stage(stage, fits[stage]) for stage in trainings() if fits[stage]]


def _measured(
    training: tuple[Any, Any], found: Measured
) -> tuple[int, int | None, bool, int, bool]:
    spec, how = training
    micro_batch, recompute, peak = found
    micro_batch = how.batch if micro_batch is None else micro_batch
    taken = how.memory(spec, recompute=recompute).bytes(how.batch, micro_batch)
    return how.batch, micro_batch, recompute, taken if peak is None else peak, True


def _fit(
    training: tuple[Any, Any],
    available_bytes: int,
    together: int,
    said: int | str,
    again: bool | str,
) -> tuple[int, int | None, bool, int]:
    spec, how = training

    def memory(recompute: bool) -> Memory:
        found: Memory = how.memory(spec, recompute=recompute)
        return found

    batch: int = -(-how.batch // together)
    given = {"auto": None, "all": batch}.get(said, said) if isinstance(said, str) else said
    micro_batch, recompute = chosen(
        memory,
        batch,
        available_bytes,
        micro_batch=None if given is None else int(given),
        recompute=None if isinstance(again, str) else again,
    )
    least = 1 if given is None else min(int(given), batch)
    taken = memory(recompute).bytes(batch, least if micro_batch is None else micro_batch)
    return batch, micro_batch, recompute, taken


def _stage(stage: str, fits: list[Fit]) -> StageMemory:
    inside = [one for one in fits if one.micro_batch is not None]
    return StageMemory(
        stage=stage,
        trainings=len(fits),
        smallest=min(inside, key=lambda one: one.micro_batch or 0, default=None),
        largest=max(inside, key=lambda one: one.micro_batch or 0, default=None),
        recomputed=sum(one.recompute for one in fits),
        measured=sum(one.measured for one in fits),
        misfits=tuple(one for one in fits if one.micro_batch is None),
    )
