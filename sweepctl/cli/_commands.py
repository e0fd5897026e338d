"""What does each command do? One function a command: settle places, make the call, print."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.cli._session import (
    check_format,
    database,
    give,
    give_json,
    give_table,
    looks_like_file,
    open_for_reading,
    plan_file,
    run_folder,
    say,
    site,
    study_of,
    to_terminal,
    unicode,
    width,
)
from sweepctl.errors import RunFolderError, UsageError

if TYPE_CHECKING:
    from sweepctl.ledger import CellState, Ledger, TaskState
    from sweepctl.plan import Plan
    from sweepctl.report import StageState
    from sweepctl.study import StudyFile


def init(file: Path) -> None:
    """Write a study to start from."""
    from sweepctl.study import init_study

    for written in init_study(file):
        give(str(written))
    say(f"next: sweepctl plan {shlex.quote(str(file))}")


def check(file: Path, overrides: Sequence[str]) -> None:
    """Check a study file."""
    made = plan_file(file, overrides)
    give(f"{file}: {made.study_name} is a valid study of {_many(len(made.cells), 'cell')}")
    _notices(made)


def schema() -> None:
    """Print the JSON Schema."""
    from sweepctl.study import json_schema

    give_json(json_schema())


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _notices(made: Plan) -> None:
    for notice in made.notices:
        say(f"note: {notice}")
    for dropped in made.dropped[:5]:
        values = ", ".join(f"{name} {value}" for name, value in dropped.axes.items())
        say(f"note: no cell for {values}: {dropped.reason}")
    if len(made.dropped) > 5:
        say(f"note: {len(made.dropped) - 5} more combinations are no cells")


# --- plan and show ------------------------------------------------------------------------------


def plan(file: Path, overrides: Sequence[str], db: str | None, *, as_json: bool) -> None:
    """Show what a run would do."""
    from sweepctl.plan import reasons, summary

    made = plan_file(file, overrides)
    known = _what_is_known(made, db)
    lines = summary(made, known.states, known.speeds)
    why = reasons(made, known.states, known.recorded, known.attempts)
    if as_json:
        give_json(
            {
                "schema": 1,
                "study": made.study_name,
                "cells": len(made.cells),
                "tasks": len(made.tasks),
                "stages": lines,
                "reasons": why,
                "dropped": list(made.dropped),
                "notices": list(made.notices),
                "other_code": known.other_code,
            }
        )
        return
    new = sum(line.new for line in lines)
    say(
        f"{made.study_name}: {_many(len(made.cells), 'cell')}, {_many(len(made.tasks), 'task')}, "
        f"{new} to run" + ("" if new else ": nothing to do")
    )
    columns = (
        "stage", "cells", "tasks", "shared", "cached", "new", "blocked", "FLOPs", "disk", "hours",
    )  # fmt: skip
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
            _bytes(line.disk_bytes),
            "" if line.hours is None else f"{line.hours:.3g}",
        )
        for line in lines
    ]
    give_table(columns, rows, "table")
    for reason in why:
        say(f"{reason.stage}: {_many(reason.tasks, 'task')} {reason.why} (e.g. {reason.example})")
    if known.other_code:
        say(
            f"note: {_many(known.other_code, 'result')} were made by other code than this; they "
            "are used as they are"
        )
    _notices(made)


class _Known:
    """What the ledger knows about a plan; nothing at all when there is no ledger yet."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.speeds: list[Any] = []
        self.recorded: list[Any] = []
        self.other_code = 0


def _what_is_known(made: Plan, db: str | None) -> _Known:
    from sweepctl.ledger import ledger_exists
    from sweepctl.runs import NOT_ITS_FAULT
    from sweepctl.tasks import code_hash

    known = _Known()
    if not ledger_exists(database(db)):
        return known
    with open_for_reading(db) as ledger:
        states = ledger.task_states(list(made.tasks))
        known.states = {
            # What the next run tries again by itself is not blocked by its failure.
            name: "pending"
            if state.state == "failed" and state.failure in NOT_ITS_FAULT
            else state.state
            for name, state in states.items()
        }
        known.attempts = {name: state.attempts for name, state in states.items()}
        known.speeds = list(ledger.speeds())
        if any(known.states.get(name) != "done" for name in made.tasks):
            known.recorded = ledger.recorded(made.study_name)
        counts = ledger.code_counts(list(made.tasks))
        known.other_code = sum(counts.values()) - counts.get(code_hash(), 0)
    return known


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def show(study: str, cell: int, overrides: Sequence[str], db: str | None, *, as_json: bool) -> None:
    """Show a cell's config and where its values came from."""
    if looks_like_file(study):
        made = plan_file(Path(study), overrides)
        _check_cell(cell, len(made.cells))
        found = made.cells[cell - 1]
        rows = _config_rows(found.config, made.study)
        tasks = {stage: made.tasks[name].id for stage, name in found.tasks.items()}
        facts = {"axes": dict(found.axes), "derived": found.derived, "tasks": tasks}
    else:
        if overrides:
            raise UsageError("--set needs a study file; a recorded cell is what it is")
        with open_for_reading(db) as ledger:
            states = ledger.cells(study)
            _check_cell(cell, len(states))
            state = states[cell - 1]
            config = ledger.cell_config(study, state.key)
        rows = _config_rows(config, None)
        tasks = {stage: task.id for stage, task in state.stages.items()}
        facts = {"axes": dict(state.axes), "derived": dict(state.values), "tasks": tasks}
    if as_json:
        give_json({"schema": 1, "cell": cell, **facts, "config": rows})
        return
    give_table(
        ("path", "value", "from"),
        [(row["path"], _shown(row["value"]), row["from"]) for row in rows],
        "table",
    )
    for stage, task in tasks.items():
        say(f"{stage}: {task}")


def _check_cell(cell: int, cells: int) -> None:
    if cell > cells:
        raise UsageError(f"there is no cell {cell}; the study has {_many(cells, 'cell')}")


def _config_rows(config: Any, study: StudyFile | None) -> list[dict[str, Any]]:
    from sweepctl.plan import flat

    return [
        {
            "path": path,
            "value": value,
            "from": "recorded" if study is None else study.origin(path),
        }
        for path, value in flat(config)
    ]


def _shown(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


# --- run ----------------------------------------------------------------------------------------


def run(
    file: Path,
    overrides: Sequence[str],
    db: str | None,
    runs: Path | None,
    *,
    where: str | None,
    workers: int | None,
    threads: int | None,
    device: str | None,
    fail_fast: bool,
    quiet: bool,
) -> None:
    """Run a study and print its results."""
    from sweepctl import execute
    from sweepctl.cli._live import LiveWatcher, PlainWatcher
    from sweepctl.ledger import open_ledger
    from sweepctl.study import DEVICE
    from sweepctl.tasks import software

    if device is not None and not re.match(DEVICE, device):
        raise UsageError(f"there is no device {device!r}", hint="auto, cpu, cuda or cuda:N")
    made = plan_file(file, overrides)
    if not quiet:
        _notices(made)
    here, how = site(), made.study.study.run
    settings = execute.Settings(
        folder=run_folder(runs),
        where=where or here.workers.where,
        workers=workers or here.workers.count,
        threads=threads or here.workers.threads,
        device=device or here.workers.device,
        grace_s=here.workers.grace_s,
        retries=how.retries,
        checkpoint_s=how.checkpoint_s,
        timeout_s=how.timeout_s,
        fail_fast=fail_fast,
    )
    live = sys.stderr.isatty() and not quiet
    with open_ledger(database(db)) as ledger:
        for notice in ledger.notices:
            say(f"note: {notice}")
        provenance = software()
        with LiveWatcher() if live else PlainWatcher(quiet=quiet) as watcher:
            summary = execute.run_study(
                made, ledger, settings, watcher, provenance=provenance, argv=sys.argv
            )
        if summary.stopped_by is None and not summary.failed:
            _after_run(ledger, made, summary, quiet)
    _hint_of_run(summary, file, quiet)
    execute.raise_for_failures(summary)
    if summary.stopped_by is not None:
        sys.exit(128 + summary.stopped_by)


def _after_run(ledger: Ledger, made: Plan, summary: Any, quiet: bool) -> None:
    if summary.finished == 0 and summary.adopted == 0:
        if not quiet:
            say(f"nothing to do: all {summary.tasks} tasks of {made.study_name} are done")
        if summary.tasks > 200:
            return  # the table was asked for by nobody, and would scroll everything away
    table = ledger.results(made.study_name, sort="E,p")
    give_table(table.columns, table.rows, "table")


def _hint_of_run(summary: Any, file: Path, quiet: bool) -> None:
    if quiet:
        return
    if summary.stopped_by is not None:
        say(f"stopped; go on with: sweepctl run {shlex.quote(str(file))}")
        return
    if summary.finished:
        say(f"{_many(summary.finished, 'task')} in {summary.seconds:.0f} s")
    if not summary.failed:
        say(f"next: sweepctl fit {summary.study}; sweepctl results {summary.study}")


# --- looking ------------------------------------------------------------------------------------


def status(study: str | None, db: str | None, runs: Path | None, *, as_json: bool) -> None:
    """Show how far studies are."""
    with open_for_reading(db) as ledger:
        if study is None:
            _status_of_all(ledger, as_json=as_json)
            return
        cells = ledger.cells(study)
        left = _seconds_left(cells, ledger)
    if as_json:
        give_json({"schema": 1, "study": study, "seconds_left": left, "cells": cells})
        return
    _give_grid(cells)
    _say_progress(study, cells, left, run_folder(runs))


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

    stages = list(dict.fromkeys(stage for cell in cells for stage in cell.stages))
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


def _seconds_left(cells: Sequence[CellState], ledger: Ledger) -> float | None:
    """Time to the end with the slots that work now, or None where nothing was measured yet."""
    tasks = _tasks(cells).values()
    open_tasks = [task for task in tasks if task.state in ("pending", "running")]
    if not open_tasks:
        return 0.0
    from sweepctl.plan import expected_seconds

    speeds, total = ledger.speeds(), 0.0
    for task in open_tasks:
        expected = expected_seconds(task.kind, task.flops, speeds)
        if expected is None:
            return None
        done = task.step / task.steps if task.state == "running" and task.step and task.steps else 0
        total += expected * (1 - done)
    slots = sum(task.state == "running" for task in open_tasks)
    return total / max(1, slots)


def _say_progress(study: str, cells: Sequence[CellState], left: float | None, folder: Path) -> None:
    from sweepctl.runs import attempt_folder

    tasks = _tasks(cells)
    states = [task.state for task in tasks.values()]
    counts = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("done", "running", "failed", "pending")
        if state in states
    )
    time_left = ""
    if left is not None and ("running" in states or "pending" in states):
        time_left = f"; about {left / 60:.1f} min of work left"
    say(f"{study}: {_many(len(cells), 'cell')}, {_many(len(tasks), 'task')}: {counts}{time_left}")
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
            raise UsageError(f"{task.state.id} has {_many(len(tries), 'attempt')}, not {number}")
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
            f"          {difference.path}: {_shown(difference.recorded)} there, "
            f"{_shown(difference.given)} here"
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
    say(f"{_many(len(again), 'failed task')} of {what} will be tried again by `sweepctl run`")


# --- results ------------------------------------------------------------------------------------


def results(
    study: str,
    db: str | None,
    *,
    where: str | None,
    columns: str | None,
    sort: str | None,
    form: str,
) -> None:
    """Print a study's results."""
    check_format(form)
    names = [name.strip() for name in columns.split(",")] if columns else None
    with open_for_reading(db) as ledger:
        table = ledger.results(study, where=where, columns=names, sort=sort)
    give_table(table.columns, table.rows, form)


def query(sql: str, db: str | None, *, form: str, limit: int) -> None:
    """Run a SELECT."""
    check_format(form)
    with open_for_reading(db) as ledger:
        table = ledger.query(sql, limit_rows=limit)
    give_table(table.columns, table.rows, form)
    if table.truncated:
        say(f"note: cut after {limit:,} rows; --limit gives more")


def fit(
    study: str,
    db: str | None,
    runs: Path | None,
    out: Path | None,
    *,
    draw: bool,
    as_json: bool,
) -> None:
    """Fit, judge, draw and print."""
    from sweepctl.ledger import open_ledger
    from sweepctl.report import claims_text, fit_and_draw, fits_text

    folder = run_folder(runs)
    with open_ledger(database(db), create=False) as ledger:
        asked = study_of(study, ledger)
        made = fit_and_draw(ledger, asked, runs=folder, out=out or folder / "figures", draw=draw)
    if as_json:
        give_json({"schema": 1, "study": asked.study, **made.analysis.to_json()})
    else:
        give(fits_text(made.analysis, terminal=to_terminal(), width=width()))
        if to_terminal():
            give("")
        give(claims_text(made.analysis, terminal=to_terminal(), width=width(), unicode=unicode()))
    for file in made.files:
        say(f"figure: {file}")
    name = asked.study
    say(f'next: sweepctl results {name} --sort=-E; sweepctl query "select * from v_cell"')


def upgrade(db: str | None) -> None:
    """Bring the database to the newest schema."""
    from sweepctl.ledger import upgrade_ledger

    give(upgrade_ledger(database(db)))


def views(*, as_json: bool) -> None:
    """Print the public views."""
    from sweepctl.ledger import VIEWS

    if as_json:
        give_json(
            {
                name: {"about": about, "columns": dict(columns)}
                for name, (about, columns) in VIEWS.items()
            }
        )
        return
    for name, (about, columns) in VIEWS.items():
        give(f"{name}: {about}")
        for column, meaning in columns.items():
            give(f"    {column:<18}{meaning}")
