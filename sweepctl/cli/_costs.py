"""The tables of `plan`: what one study costs per stage, or several studies together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweepctl.cli._output import give_json, give_table, notices, say
from sweepctl.cli._session import database, open_for_reading
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.plan import (
        Calibration,
        Measured,
        Need,
        On,
        Plan,
        Recorded,
        Speed,
        StageMemory,
        StageSummary,
        Total,
    )

ASK = "--on 8xH100"


def what_would_run(made: Plan, on: On | None, *, as_json: bool) -> None:
    """One study: a line per stage, the hours and where they come from, why each task runs."""
    from sweepctl.plan import Calibration, reasons, ruled_rates, summary, total

    known = what_is_known([made])
    calibration = Calibration(known.speeds, on)
    gpus = _gpus([made], calibration)
    lines = summary(made, known.states, calibration)
    whole = total([made], known.states, calibration)
    why = reasons(made, known.states, known.recorded, known.attempts)
    if as_json:
        give_json(
            {
                "schema": 1,
                "study": made.study_name,
                "cells": len(made.cells),
                "tasks": len(made.tasks),
                "stages": lines,
                "total": whole,
                "wall_hours": _wall_hours([made], known.states, calibration, gpus),
                "on": on,
                "device": calibration.device,
                "memory_without_gradients": _needs([made], calibration),
                "ruled_rates": ruled_rates(made),
                "memory": _memory([made], calibration, gpus),
                "gpus": _counts([made], gpus),
                "reasons": why,
                "dropped": list(made.dropped),
                "notices": list(made.notices),
                "absent": [f"{one.path}: {one.message}" for one in made.absent],
                "other_code": known.other_code,
            }
        )
        return
    say(
        f"{made.study_name}: {many(len(made.cells), 'cell')}, {many(len(made.tasks), 'task')}, "
        f"{whole.new} to run" + ("" if whole.new else ": nothing to do")
    )
    _give_stages(lines)
    if whole.new:
        _say_hours([made], known.states, calibration, whole, gpus)
    _say_gpus([made], gpus)
    _say_memory([made], calibration, gpus)
    for rate in ruled_rates(made):
        of = "" if rate.cells == len(made.cells) else f" ({many(rate.cells, 'cell')})"
        say(f"{rate.path}: {rate.per_256:g} per 256 is {rate.lr:g} at batch {rate.batch}{of}")
    for reason in why:
        say(f"{reason.stage}: {many(reason.tasks, 'task')} {reason.why} (e.g. {reason.example})")
    if known.other_code:
        say(
            f"note: {many(known.other_code, 'result')} were made by other code than this; they "
            "are used as they are"
        )
    notices(made)


def _give_stages(lines: Sequence[StageSummary]) -> None:
    columns = (
        *("stage", "cells", "tasks", "shared", "cached", "new", "blocked"),
        *("FLOPs", "disk", "hours", "low", "high"),
    )
    rows = [
        (
            line.stage,
            line.cells,
            line.tasks,
            line.shared,
            line.cached,
            line.new,
            line.blocked,
            f"{line.flops:.2e}" if line.flops else "",
            in_bytes(line.disk_bytes),
            *map(_hours, (line.hours, line.hours_low, line.hours_high)),
        )
        for line in lines
    ]
    give_table(columns, rows, "table")
    for line in lines:
        if line.source:
            say(f"hours of {line.stage}: {line.source}")


def what_they_share(plans: Sequence[Plan], on: On | None, *, as_json: bool) -> None:
    """Several studies: a line per study, and all together with shared tasks counted once."""
    from sweepctl.plan import Calibration, total

    known = what_is_known(plans)
    calibration = Calibration(known.speeds, on)
    gpus = _gpus(plans, calibration)
    each = [total([plan], known.states, calibration) for plan in plans]
    whole = total(plans, known.states, calibration)
    if as_json:
        give_json(
            {
                "schema": 1,
                "studies": [
                    {"study": plan.study_name, "total": one, "notices": list(plan.notices)}
                    for plan, one in zip(plans, each, strict=True)
                ],
                "tasks_of_the_studies": sum(one.tasks for one in each),
                "hours_of_the_studies": sum(one.hours for one in each),
                "total": whole,
                "wall_hours": _wall_hours(plans, known.states, calibration, gpus),
                "on": on,
                "device": calibration.device,
                "memory_without_gradients": _needs(plans, calibration),
                "memory": _memory(plans, calibration, gpus),
                "gpus": _counts(plans, gpus),
            }
        )
        return
    columns = (
        *("study", "cells", "uses", "tasks", "cached", "new", "blocked"),
        *("FLOPs", "disk", "hours", "low", "high"),
    )
    rows = [
        (
            name,
            one.cells,
            one.uses,
            one.tasks,
            one.cached,
            one.new,
            one.blocked,
            f"{one.flops:.2e}" if one.flops else "",
            in_bytes(one.disk_bytes),
            # Unknown hours of new tasks are not zero.
            *(
                ["", "", ""]
                if one.new and not one.hours
                else map(_hours, (one.hours, one.hours_low, one.hours_high))
            ),
        )
        for name, one in [
            *((plan.study_name, one) for plan, one in zip(plans, each, strict=True)),
            ("all, each task once", whole),
        ]
    ]
    give_table(columns, rows, "table")
    apart, by_cell = sum(one.tasks for one in each), whole.uses
    say(
        f"{many(whole.tasks, 'task')} in all: {apart:,} if each study had its own, {by_cell:,} if "
        "each cell had"
    )
    if whole.hours:
        alone = sum(one.hours for one in each)
        say(
            f"{in_hours(whole.hours)} still to run: {in_hours(alone)} if each study had its own "
            f"tasks, {in_hours(whole.hours_unshared)} if each cell had"
        )
    if whole.new:
        _say_hours(plans, known.states, calibration, whole, gpus)
    _say_gpus(plans, gpus)
    _say_memory(plans, calibration, gpus)
    notices(*plans)


def _say_hours(
    plans: Sequence[Plan],
    states: Mapping[str, str],
    calibration: Calibration,
    whole: Total,
    gpus: Mapping[str, int],
) -> None:
    """How long it takes, where that is known from, and what is missing."""
    if whole.hours:
        ends = ""
        if whole.hours_low is not None and whole.hours_high is not None:
            ends = f" ({in_hours(whole.hours_low, whole.hours_high)})"
        said = f"in all {in_hours(whole.hours)}{ends} on one device or slot"
        if calibration.on is not None and calibration.on.devices > 1:
            devices = calibration.on.devices
            each = "one task per device" if not gpus else "with the GPUs that each task needs"
            said += (
                f"; on {devices}, {each}, "
                f"{in_hours(_wall_hours(plans, states, calibration, gpus))}; "
                f"{in_hours(whole.hours / devices)} if all tasks were spread over all"
            )
        say(said)
        if len(plans) > 1:
            for source in whole.sources:
                say(f"hours: {source}")
    if whole.unknown:
        kinds = ", ".join(f"{count} {kind}" for kind, count in whole.unknown.items())
        hint = "" if whole.hours else f"; {ASK} assumes a device"
        say(f"hours leave out what was never measured here: {kinds}{hint}")


def _gpus(plans: Sequence[Plan], calibration: Calibration) -> dict[str, int]:
    """GPUs of the tasks that get several.

    Raises:
        StudyError: --on says fewer than a task needs.
    """
    from sweepctl.plan import check_room, gpus_of_tasks

    on = calibration.on
    gpus = gpus_of_tasks(plans, calibration, None if on is None else on.devices)
    if on is not None:
        check_room(plans, gpus, on.devices, f"--on says {many(on.devices, 'device')}")
    return gpus


def _counts(plans: Sequence[Plan], gpus: Mapping[str, int]) -> dict[str, dict[int, int]]:
    """Stage -> GPUs of a task -> how many tasks; of stages where some task gets several."""
    tasks = {name: task for plan in plans for name, task in plan.tasks.items()}
    kinds = {tasks[name].kind for name in gpus}
    counts: dict[str, dict[int, int]] = {}
    for name, task in tasks.items():
        if task.kind in kinds:
            of_kind, number = counts.setdefault(task.kind, {}), gpus.get(name, 1)
            of_kind[number] = of_kind.get(number, 0) + 1
    return counts


def _say_gpus(plans: Sequence[Plan], gpus: Mapping[str, int]) -> None:
    """How many GPUs a task of each stage gets, where that is not one."""
    for stage, counts in _counts(plans, gpus).items():
        said = ", ".join(
            f"{number} for {many(counts[number], 'task')}" for number in sorted(counts)
        )
        say(f"GPUs of {stage}: {said}")


def _memory(
    plans: Sequence[Plan], calibration: Calibration, gpus: Mapping[str, int]
) -> list[StageMemory]:
    """What the trainings need of the device's memory; nothing where that is not known."""
    from sweepctl.plan import memory_on

    if calibration.memory_bytes is None:
        return []
    # Of a task that several plans share, the first one to run it decides.
    tasks = {
        name: (task, plan.study.study.run.memory)
        for plan in reversed(plans)
        for name, task in plan.tasks.items()
    }
    measured = _measured(plans, calibration.device)
    return memory_on(tasks.values(), calibration.memory_bytes, measured, gpus)


def _needs(plans: Sequence[Plan], calibration: Calibration) -> list[Need]:
    """What tasks that train nothing need of the device; nothing where that is not known."""
    from sweepctl.plan import needs_on

    if calibration.memory_bytes is None:
        return []
    tasks = {name: task for plan in plans for name, task in plan.tasks.items()}
    return needs_on(tasks.values(), calibration.memory_bytes)


def _measured(plans: Sequence[Plan], device: str | None) -> dict[str, Measured]:
    """What fitted such a device in earlier trainings of one process."""
    from sweepctl.ledger import ledger_exists
    from sweepctl.plan import configuration

    keys = {configuration(task) for plan in plans for task in plan.tasks.values()} - {None}
    if not keys or not ledger_exists(database()):
        return {}
    with open_for_reading() as ledger:
        return {
            key: (one.micro_batch, one.recompute, one.peak_bytes)
            for key, known in ledger.fitted.of(key for key in keys if key).items()
            for one in known
            if one.device_name == device and one.ranks == 1
        }


def _say_memory(plans: Sequence[Plan], calibration: Calibration, gpus: Mapping[str, int]) -> None:
    """How many samples of a step fit the device, and what does not fit at all."""
    for line in _memory(plans, calibration, gpus):
        small, large = line.smallest, line.largest
        if small is not None and large is not None:
            fits = f"{small.micro_batch:,} of {small.batch:,} samples at once"
            if small.micro_batch != large.micro_batch:
                fits = f"{small.micro_batch:,} to {large.micro_batch:,} of {large.batch:,} samples"
            again = ""
            if line.recomputed:
                every = "" if line.recomputed == line.trainings else f" of {line.recomputed:,}"
                again = f", activations{every} recomputed"
            peak = in_bytes(max(small.bytes, large.bytes))
            if line.measured:
                every = "" if line.measured == line.trainings else f" {line.measured:,} of them"
                again += f",{every} as measured"
            say(f"memory of {line.stage}: {fits}, {peak} at the peak{again} ({calibration.device})")
        for one in line.misfits[:1]:
            others = len(line.misfits) - 1
            which = f"{one.task} ({one.label})"
            which += f" and {others:,} more do not fit" if others else " does not fit"
            say(
                f"warning: {which} {calibration.device}: {in_bytes(one.bytes)} are needed, by a "
                "closed form; set run.micro_batch or run.recompute to auto, or take a device with "
                "more memory"
            )
    for need in _needs(plans, calibration):
        for task, label, taken in need.misfits[:1]:
            others = len(need.misfits) - 1
            more = f", and {others:,} more" if others else ""
            say(
                f"warning: {task} ({label}) takes {in_bytes(taken)} for {need.samples} samples at "
                f"once, by a closed form, more than {calibration.device} has{more}"
            )


def _wall_hours(
    plans: Sequence[Plan],
    states: Mapping[str, str],
    calibration: Calibration,
    gpus: Mapping[str, int],
) -> float:
    from sweepctl.plan import whole_run

    devices = 1 if calibration.on is None else calibration.on.devices
    return whole_run(plans, states, calibration, devices, gpus).seconds / 3600


def _hours(hours: float | None) -> str:
    """Three figures of small numbers, whole hours of large ones; below a minute in seconds."""
    if hours is None:
        return ""
    if 0 < hours < 1 / 60:
        return f"{hours * 3600:.3g} s"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def in_hours(*hours: float) -> str:
    """A time, or "one to another", with the unit, for sentences."""
    said = " to ".join(map(_hours, hours))
    return said if said.endswith(" s") else f"{said} hours"


@dataclass(slots=True)
class Known:
    """What the ledger knows about plans; nothing at all when there is no ledger yet.

    Attributes:
        states: fingerprint -> state, as the next run will see it.
        attempts: fingerprint -> number of attempts.
        speeds: finished tasks to calibrate hours with.
        recorded: what former submissions used, of one plan only.
        other_code: results made by other code than this.
    """

    states: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    speeds: list[Speed] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    other_code: int = 0


def what_is_known(plans: Sequence[Plan]) -> Known:
    """What the ledger knows about the tasks of plans."""
    from sweepctl.ledger import ledger_exists
    from sweepctl.runs import NOT_ITS_FAULT
    from sweepctl.tasks import code_hash

    known = Known()
    if not ledger_exists(database()):
        return known
    tasks = list(dict.fromkeys(name for plan in plans for name in plan.tasks))
    with open_for_reading() as ledger:
        states = ledger.tasks.states(tasks)
        known.states = {
            # What the next run tries again by itself is not blocked by its failure.
            name: "pending"
            if state.state == "failed" and state.failure in NOT_ITS_FAULT
            else state.state
            for name, state in states.items()
        }
        known.attempts = {name: state.attempts for name, state in states.items()}
        known.speeds = ledger.tasks.speeds()
        if len(plans) > 1:
            return known
        if any(known.states.get(name) != "done" for name in tasks):
            known.recorded = ledger.cells.recorded(plans[0].study_name)
        counts = ledger.tasks.code_counts(tasks)
        known.other_code = sum(counts.values()) - counts.get(code_hash(), 0)
    return known


def in_bytes(count: int) -> str:
    """A size with three figures and its unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
