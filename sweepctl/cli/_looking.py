"""How does a study stand? `status`, `logs`, `why` and `retry`: its cells and tasks, one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweepctl.cli._foreseeing import give_so_far, say_recorded, so_far
from sweepctl.cli._left import how_it_was_kept, kept_in_words, left_in_words, study_left
from sweepctl.cli._session import (
    database,
    give,
    give_json,
    give_table,
    many,
    open_for_reading,
    run_folder,
    say,
    shown,
    to_terminal,
    unicode,
)
from sweepctl.errors import RunFolderError, UsageError

if TYPE_CHECKING:
    from sweepctl.ledger import CellState, Ledger, TaskState
    from sweepctl.plan import Left
    from sweepctl.report import StageState


def status(
    study: str | None,
    db: str | None,
    runs: Path | None,
    *,
    fits: bool,
    predict: bool,
    as_json: bool,
) -> None:
    """Show how far studies are."""
    if study is None and (fits or predict):
        raise UsageError("--fits and --predict are about one study", hint="name it")
    with open_for_reading(db) as ledger:
        if study is None:
            _status_of_all(ledger, as_json=as_json)
            return
        cells = ledger.cells(study)
        tasks = {task.fingerprint: task for cell in cells for task in cell.stages.values()}
        left = study_left(study, tasks, ledger)
        kept = how_it_was_kept(ledger.predictions(study))
        laws = so_far(study, cells, ledger, predict=predict) if fits or predict else None
        recorded = () if laws or as_json else ledger.fits(study)
    if as_json:
        known = left is None or not left.unknown
        seconds = 0.0 if left is None else left.seconds
        give_json(
            {
                "schema": 1,
                "study": study,
                "seconds_left": seconds if known else None,
                "left": left,
                "predictions": kept,
                "cells": cells,
                **(laws or {}),
            }
        )
        return
    _give_grid(cells)
    if laws is not None:
        give_so_far(laws, fits=fits, predict=predict)
    _say_progress(study, cells, left, run_folder(runs))
    say_recorded(study, recorded)
    if kept is not None:
        say(kept_in_words(kept))


def _status_of_all(ledger: Ledger, *, as_json: bool) -> None:
    columns = ("study", "cells", "tasks", "done", "running", "failed", "pending")
    rows = []
    for name in ledger.study_names():
        states = [task.state for task in ledger.task_states(study=name).values()]
        counts = [states.count(state) for state in ("done", "running", "failed", "pending")]
        rows.append((name, len(ledger.cells(name)), len(states), *counts))
    if not rows and not as_json:
        say("no study was run yet; start with: sweepctl init my-study.yaml")
    give_table(columns, rows, "json" if as_json else "table")


def _give_grid(cells: Sequence[CellState]) -> None:
    from sweepctl.report import StageState, StatusCell, status_grid

    # The cell with most stages has them in the order of the flow.
    longest_first = sorted(cells, key=lambda cell: -len(cell.stages))
    stages = list(dict.fromkeys(stage for cell in longest_first for stage in cell.stages))
    states = {}
    for cell in cells:
        for stage, task in cell.stages.items():
            fraction = task.step / task.steps if task.step and task.steps else None
            state = "blocked" if task.blocked else task.state
            states[cell.index, stage] = StageState(state=state, fraction=fraction)
    if to_terminal():
        rows = [
            StatusCell(number=cell.index, axes=dict(cell.axes), E=cell.values["E"])
            for cell in cells
        ]
        give(status_grid(rows, stages, states, unicode=unicode()))
        return
    axes = list(cells[0].axes) if cells else []
    give_table(
        ("cell", *axes, "E", *stages),
        [
            (
                cell.index,
                *cell.axes.values(),
                cell.values["E"],
                *(_in_a_word(states.get((cell.index, stage))) for stage in stages),
            )
            for cell in cells
        ],
        "table",
    )


def _in_a_word(state: StageState | None) -> str:
    if state is None:
        return ""
    if state.state != "running" or state.fraction is None:
        return state.state
    return f"running {100 * state.fraction:.0f}%"


def _tasks(cells: Sequence[CellState]) -> dict[str, TaskState]:
    return {task.id: task for cell in cells for task in cell.stages.values()}


def _say_progress(study: str, cells: Sequence[CellState], left: Left | None, folder: Path) -> None:
    from sweepctl.runs import attempt_folder

    tasks = _tasks(cells)
    states = [task.state for task in tasks.values()]
    counts = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("done", "running", "failed", "pending")
        if state in states
    )
    words = "" if left is None else left_in_words(left)
    time_left = f"; {words}{' on one slot' if left and left.slots == 1 else ''}" if words else ""
    pruned = sum(1 for cell in cells if cell.state == "pruned")
    cut = f" ({pruned} pruned)" if pruned else ""
    said = f"{many(len(cells), 'cell')}{cut}, {many(len(tasks), 'task')}: {counts}{time_left}"
    say(f"{study}: {said}")
    for task in tasks.values():
        if task.state == "failed":
            say(f"failed: {task.id} ({task.failure}): {task.message}")
            log = attempt_folder(folder / task.id, task.attempts) / "log.txt"
            say(f"  log: {log}  (sweepctl logs {task.id})")
    if "failed" in states:
        say(f"next: mend the cause, then sweepctl retry {study} and run again")


def logs(
    prefix: str,
    db: str | None,
    runs: Path | None,
    *,
    follow: bool,
    tail: int,
    attempt: int | None,
) -> None:
    """Print a task's log, and go on while it runs when asked to."""
    from sweepctl.runs import attempt_folder

    with open_for_reading(db) as ledger:
        task = ledger.find_task(prefix)
        tries = ledger.attempts(task.state.fingerprint)
        if not tries:
            raise UsageError(f"{task.state.id} was never started, so it has no log")
        number = attempt or tries[-1].number
        if number > tries[-1].number:
            raise UsageError(f"{task.state.id} has {many(len(tries), 'attempt')}, not {number}")
        path = attempt_folder(run_folder(runs) / task.state.id, number) / "log.txt"
        recorded = next((one.log for one in tries if one.number == number), "")
        if not path.exists() and recorded:
            path = Path(recorded)
        say(f"{path}")
        place = _print_tail(path, tail)
        while follow and _is_running(ledger, task.state.fingerprint, number):
            time.sleep(0.5)
            place = _print_from(path, place)
        if follow:
            _print_from(path, place)


def _is_running(ledger: Ledger, fingerprint: str, number: int) -> bool:
    tries = {one.number: one for one in ledger.attempts(fingerprint)}
    return number in tries and tries[number].state == "running"


def _print_tail(path: Path, lines: int) -> int:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return 0  # handed out, not started yet
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from error
    shown = b"".join(text.splitlines(keepends=True)[-lines:]) if lines else text
    sys.stdout.write(shown.decode(errors="replace"))
    sys.stdout.flush()
    return len(text)


def _print_from(path: Path, place: int) -> int:
    try:
        with path.open("rb") as file:
            file.seek(place)
            text = file.read()
    except OSError:
        return place  # not there yet, or moved away: what was printed stays printed
    if text:
        sys.stdout.write(text.decode(errors="replace"))
        sys.stdout.flush()
    return place + len(text)


def why(prefix: str, db: str | None, *, as_json: bool) -> None:
    """Say what a task is and how it differs from the nearest recorded one."""
    with open_for_reading(db) as ledger:
        task = ledger.find_task(prefix)
        tries = ledger.attempts(task.state.fingerprint)
        near = ledger.nearest_task(task.state.kind, task.identity)
    nearest = None if near is None else near[0].state.id
    changed = () if near is None else near[1]
    if as_json:
        give_json(
            {
                "schema": 1,
                "task": task,
                "attempts": tries,
                "nearest": nearest,
                "differences": changed,
            }
        )
        return
    state = task.state
    give(f"{state.id}  {state.label}\nstate     {'blocked' if state.blocked else state.state}")
    for one in tries:
        end = f"{one.failure}: {one.message}" if one.failure else one.message
        give(f"attempt   {one.number}  {one.state}  {one.seconds:.1f} s  {end}".rstrip())
    for role, parent in task.parents:
        give(f"needs     {parent}  ({role})")
    for name, cell, stage in task.cells[:8]:
        give(f"used by   {name} cell {cell} ({stage})")
    if nearest is None:
        give(f"nearest   no other {state.kind} task was recorded")
        return
    give(f"nearest   {nearest}, which differs in")
    for difference in changed:
        give(
            f"          {difference.path}: {shown(difference.recorded)} there, "
            f"{shown(difference.given)} here"
        )


def retry(what: str, db: str | None) -> None:
    """Make failed tasks pending again."""
    from sweepctl.ledger import open_ledger

    with open_ledger(database(db), create=False) as ledger:
        if what in ledger.study_names():
            states = ledger.task_states(study=what).values()
        else:
            states = [ledger.find_task(what).state]  # type: ignore[assignment]  # a list will do
        again = [state for state in states if state.state == "failed"]
        ledger.reset([state.fingerprint for state in again])
    for state in again:
        give(state.id)
    say(f"{many(len(again), 'failed task')} of {what} will be tried again by `sweepctl run`")
