"""`show`: where a cell, a task or a measured value comes from, and what was made from it.

A point is named as people have it at hand: `quickstart/7`, `quickstart p=8 c=16`, a task's id, or
a cell with the metric that was read off a figure. The output goes both ways: the tasks that it was
made from, and the cells and studies that were made from the same tasks.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Json, Sets
from sweepctl.cli._output import give, give_json, give_table, say, shown
from sweepctl.cli._session import (
    check_alone,
    looks_like_file,
    open_for_reading,
    plan_file,
    run_folder,
)
from sweepctl.errors import StudyError, UsageError
from sweepctl.kinds import optional_groups
from sweepctl.paths import flat
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.ledger import Attempt, CellMetric, CellState, Ledger, Relative, Submitted
    from sweepctl.ledger.describe import TaskView
    from sweepctl.runs import FileRecord, MetricValue
    from sweepctl.study import StudyFile

MOST = 5
"""Cells and tasks of one kind that are named in text; --json names all."""

_FORM = "sweepctl show STUDY/7, STUDY p=8 c=16, or a task's id; with a metric: STUDY/7 psnr"


def show(
    point: Annotated[
        list[str],
        typer.Argument(
            metavar="POINT...",
            help="STUDY/7, STUDY p=8 c=16, a task's id; or a study file. A metric may follow.",
        ),
    ],
    cell: Annotated[
        int | None, typer.Option("--cell", "-c", min=1, help="Number of the cell.")
    ] = None,
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Show where a point comes from: its tasks, files with SHA-256, commands, config, other uses.

    Of a task also how it differs from the closest recorded one. Of a study file, which need not
    have run: a cell's config and where each value came from.

    Example: sweepctl show quickstart p=8 c=16
    """
    first, rest = point[0], list(point[1:])
    inside = re.fullmatch(r"(.+)/(\d+)", first)
    if inside is not None and cell is not None:
        check_alone(first, {"--cell": cell})
    if inside is None and looks_like_file(first):
        _show_planned(Path(first), cell, rest, overrides or (), as_json=as_json)
        return
    if overrides:
        raise UsageError("--set applies only to study files")
    with open_for_reading() as ledger:
        names = ledger.studies.names()
        if inside is not None:
            first, cell = inside[1], int(inside[2])
        if first in names or cell is not None:
            named = _cell_point(ledger, first, cell, rest)
            told = _about_cell(ledger, named, run_folder())
        else:
            if rest:
                near = difflib.get_close_matches(first, names, n=1)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                said = " ".join(rest)
                raise UsageError(
                    f"there is no study {first!r} to find {said} in{meant}", hint=_FORM
                )
            told = _about_task(ledger, first, run_folder())
    if as_json:
        give_json({"schema": 1, **told})
    else:
        _give(told)


# --- a cell of a file, before it is run -------------------------------------------------------


def _show_planned(
    file: Path, cell: int | None, words: Sequence[str], overrides: Sequence[str], *, as_json: bool
) -> None:
    made = plan_file(file, overrides)
    if cell is None:
        wanted, metric = _wanted(words)
        if metric is not None:
            raise UsageError(
                f"{metric!r} is not axis=value, and a file has no measured values to show",
                hint=f"of a study that was run: sweepctl show {made.study_name}/7 {metric}",
            )
        fitting = [one.index for one in made.cells if _fits(one.axes, wanted)]
        cell = _only(fitting, wanted, len(made.cells), list(made.axes))
    elif words:
        raise UsageError("give --cell or axis=value, not both")
    _check_cell(cell, len(made.cells))
    found = made.cells[cell - 1]
    rows = _config_rows(found.config, made.study)
    for row in rows:
        if row["path"] in found.rules:
            row["rule"] = dict(found.rules[row["path"]])
    tasks = {stage: made.tasks[name].id for stage, name in found.tasks.items()}
    if as_json:
        facts = {"axes": dict(found.axes), "derived": found.derived, "tasks": tasks}
        give_json({"schema": 1, "cell": cell, **facts, "config": rows})
        return
    _give_config(rows)
    for stage, task in tasks.items():
        say(f"{stage}: {task}")


def _config_rows(config: Any, study: StudyFile | None) -> list[dict[str, Any]]:
    return [
        {
            "path": path,
            "value": value,
            "from": "recorded" if study is None else study.origin(path),
        }
        for path, value in flat(config).items()
    ]


def _give_config(rows: Sequence[Mapping[str, Any]]) -> None:
    """The values that are used; --json has all."""
    empty = {row["path"] for row in rows if row["value"] is None}
    lines = [
        (row["path"], shown(row["value"]) + _by_rule(row.get("rule")), row["from"])
        for row in rows
        # Of a group that is off only the setting is shown that would turn it on.
        if not any(
            row["path"].startswith(f"{group}.")
            and empty.intersection(kind.switches) - {row["path"]}
            for group, kind in optional_groups().items()
        )
    ]
    give_table(("path", "value", "from"), lines, "table")


def _by_rule(rule: Mapping[str, float] | None) -> str:
    return "".join(f" ({key}: {shown(number)})" for key, number in (rule or {}).items())


# --- which point is meant ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """A recorded cell and, where one was named, a metric of it."""

    study: str
    cell: CellState
    metric: str | None


def _cell_point(ledger: Ledger, study: str, number: int | None, words: Sequence[str]) -> _Point:
    cells = ledger.cells.of(study)
    wanted, metric = _wanted(words)
    if number is None:
        fitting = [one.index for one in cells if _fits({**one.values, **one.axes}, wanted)]
        number = _only(fitting, wanted, len(cells), list(cells[0].axes) if cells else [])
    elif wanted:
        raise UsageError("give the cell's number or axis=value, not both")
    _check_cell(number, len(cells))
    return _Point(study=study, cell=cells[number - 1], metric=metric)


def _wanted(words: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Words as axis values and the name of a metric."""
    wanted: dict[str, str] = {}
    metric = None
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name and value:
            if name in wanted:
                raise UsageError(
                    f"{name} is stated twice: {name}={wanted[name]} and {word}",
                    hint="a cell has one value of each axis",
                )
            wanted[name] = value
        elif sign or metric is not None:
            raise UsageError(f"{word!r} is neither axis=value nor a metric", hint=_FORM)
        else:
            metric = word
    return wanted, metric


def _fits(values: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    return all(name in values and _same(values[name], text) for name, text in wanted.items())


def _same(value: object, text: str) -> bool:
    if shown(value) == text or (value is None and text in ("-", "null")):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    with contextlib.suppress(ValueError):
        return float(text) == value
    return False


def _only(fitting: Sequence[int], wanted: Mapping[str, str], cells: int, axes: list[str]) -> int:
    """The one cell that fits, or an error that helps."""
    if len(fitting) == 1:
        return fitting[0]
    said = " ".join(f"{name}={value}" for name, value in wanted.items())
    known = f"the axes are {', '.join(axes)}" if axes else "the study has no axes"
    if not wanted:
        raise UsageError(f"which of the {many(cells, 'cell')}?", hint=f"{_FORM}; {known}")
    if not fitting:
        raise UsageError(f"no cell has {said}", hint=known)
    numbers = ", ".join(map(str, fitting[:8])) + (", ..." if len(fitting) > 8 else "")
    raise UsageError(f"{many(len(fitting), 'cell')} have {said}: {numbers}", hint=known)


def _check_cell(cell: int, cells: int) -> None:
    if not 1 <= cell <= cells:
        raise UsageError(f"there is no cell {cell}; the study has {many(cells, 'cell')}")


# --- facts ------------------------------------------------------------------------------------


def _about_cell(ledger: Ledger, point: _Point, folder: Path) -> dict[str, Any]:
    from sweepctl.ledger.describe import describe_cell, describe_task

    study = point.study
    view = describe_cell(ledger, study, point.cell.index)
    cell, asked = view.cell, view.submission
    stages = {
        stage: _task(describe_task(ledger, state.id), folder)
        for stage, state in cell.stages.items()
    }
    measured = [{**_measured(one), "stage": one.stage, "task": one.task} for one in view.metrics]
    if point.metric is not None:
        name, _, where = point.metric.partition("@")
        known = sorted({f"{one['metric']}@{one['dataset']}" for one in measured})
        measured = [
            one
            for one in measured
            if one["metric"] == name
            and where in ("", one["dataset"], f"{one['dataset']}/{one['protocol']}")
        ]
        if not measured:
            raise UsageError(
                f"{study}/{cell.index} has no {point.metric}",
                hint=f"it has {', '.join(known)}" if known else "nothing of it is measured yet",
            )
        # Only what this value was made from.
        behind = {one["task"] for one in measured}
        behind |= {
            kin["id"] for one in stages.values() if one["task"] in behind for kin in one["up"]
        }
        stages = {stage: one for stage, one in stages.items() if one["task"] in behind}
    return {
        "point": "cell" if point.metric is None else "metric",
        "study": study,
        "cell": cell.index,
        "state": cell.state,
        "axes": dict(cell.axes),
        "derived": dict(cell.values),
        "measured": measured,
        "asked": _asked(asked),
        "command": _command(asked.argv),
        "command_of_this_cell": _command_alone(asked, cell),
        "tasks": {stage: one["task"] for stage, one in stages.items()},
        "stages": stages,
        "config": _config_rows(view.config, None),
    }


def _about_task(ledger: Ledger, name: str, folder: Path) -> dict[str, Any]:
    from sweepctl.ledger.describe import closest_task, describe_task

    view = describe_task(ledger, name)
    studies = dict.fromkeys(study for study, _, _ in view.record.cells)
    asked = {study: ledger.studies.submission(study) for study in studies}
    closest = closest_task(ledger, view.record)
    return {
        "point": "task",
        **_task(view, folder),
        "identity": json.loads(view.record.identity),
        "closest": None if closest is None else closest.id,
        "differences": [] if closest is None else list(closest.differences),
        "commands": {study: _command(one.argv) for study, one in asked.items()},
    }


def _task(view: TaskView, folder: Path) -> dict[str, Any]:
    """Everything about one task: what it is, made from, made into, how it ran, what it left."""
    state = view.record.state
    own = folder / state.id
    return {
        "task": state.id,
        "kind": state.kind,
        "label": state.label,
        "fingerprint": state.fingerprint,
        "state": state.shown,
        "failure": state.failure,
        "message": state.message,
        "needs": [{"role": role, "task": parent} for role, parent in view.record.parents],
        "up": [_kin(one) for one in view.up],
        "down": [_kin(one) for one in view.down],
        "used_by": [
            {"study": study, "cell": cell, "stage": stage}
            for study, cell, stage in view.record.cells
        ],
        "folder": str(own),
        "files": [_file(own, one) for one in view.files],
        "checkpoints": _names(own / "checkpoints", "*"),
        "sheets": _names(own / "sheets", "*.png"),
        "measured": [_measured(one) for one in view.metrics],
        "attempts": [_attempt(one) for one in view.attempts],
    }


def _kin(one: Relative) -> dict[str, Any]:
    return {
        "id": one.id, "kind": one.kind, "label": one.label, "state": one.state, "depth": one.depth,
    }  # fmt: skip


def _file(folder: Path, one: FileRecord) -> dict[str, Any]:
    path = folder / one.name
    return {
        "path": str(path), "bytes": one.bytes, "sha256": one.sha256, "there": path.is_file(),
    }  # fmt: skip


def _measured(one: MetricValue | CellMetric) -> dict[str, Any]:
    return {
        "metric": one.name, "dataset": one.dataset, "protocol": one.protocol,
        "value": one.value, "se": one.se, "n": one.n,
    }  # fmt: skip


def _attempt(one: Attempt) -> dict[str, Any]:
    kept = one.provenance
    return {
        "attempt": one.number,
        "state": one.state,
        "failure": one.failure,
        "message": one.message,
        "started_at": one.started_at,
        "seconds": one.seconds,
        "predicted_s": one.predicted_s,
        "peak_memory_bytes": one.peak_memory_bytes,
        "host": one.host,
        "device": one.device,
        "device_name": one.device_name,
        "log": one.log,
        "code": one.code,
        "commit": kept.get("commit"),
        "dirty": kept.get("dirty"),
        "versions": kept.get("versions") or {},
        "environment": kept.get("environment") or {},
        "provenance": dict(kept),
    }


def _names(folder: Path, pattern: str) -> list[str]:
    try:
        return sorted(str(path) for path in folder.glob(pattern) if not path.name.startswith("."))
    except OSError:
        return []  # unreadable is as good as not there: the folder itself is named


def _asked(asked: Submitted) -> dict[str, Any]:
    return {
        "submission": asked.number,
        "at": asked.created_at,
        "commit": asked.git_commit,
        "dirty": asked.git_dirty,
        "sweepctl": asked.version,
        "overrides": list(asked.overrides),
    }


def _command(argv: Sequence[str]) -> str | None:
    """The command line of a submission, or None when it was not submitted by one."""
    if len(argv) < 2:
        return None
    return shlex.join(["sweepctl", *argv[1:]])


def _command_alone(asked: Submitted, cell: CellState) -> str | None:
    """A command that runs just this cell, or None when none was found that makes the same tasks."""
    file = next((word for word in asked.argv[1:] if word.endswith((".yaml", ".yml"))), None)
    if file is None or not Path(file).is_file():
        return None
    sets = [*asked.overrides]
    for axis, value in cell.axes.items():
        sets.append(f"axes.{axis}=[{shown(value)}]")
    try:
        made = plan_file(Path(file), sets)
    except (StudyError, UsageError):
        return None  # axes that cannot be set one by one, or a file that has changed
    wanted = {stage: state.fingerprint for stage, state in cell.stages.items()}
    if len(made.cells) != 1 or dict(made.cells[0].tasks) != wanted:
        return None
    words = [word for one in sets for word in ("--set", one)]
    return shlex.join(["sweepctl", "run", file, *words])


# --- how it is printed ------------------------------------------------------------------------


def _give(told: Mapping[str, Any]) -> None:
    if told["point"] == "task":
        _give_task(told, "")
        _give_closest(told)
        for study, command in told["commands"].items():
            if command:
                _line("made by", f"{command}  ({study})")
        return
    axes = "  ".join(f"{name} {shown(value)}" for name, value in told["axes"].items())
    _line("cell", f"{told['study']}/{told['cell']}  {axes}  {told['state']}")
    derived = told["derived"]
    _line(
        "code",
        f"E {derived['E']}, {derived['tokens']} tokens of {derived['c']} channels; "
        f"{derived['parameters']:,} parameters, {derived['macs']:,} MACs",
    )
    for one in told["measured"]:
        error = "" if one["se"] is None else f" ± {one['se']:.2g}"
        _line(
            "measured",
            f"{one['metric']} {one['value']:.6g}{error}  {one['dataset']}, {one['protocol']}, "
            f"n {one['n']}, by {one['task']}",
        )
    asked = told["asked"]
    tree = f", commit {asked['commit'][:12]}" if asked["commit"] else ""
    tree += " with changes" if asked["dirty"] else ""
    if told["command"]:
        _line("made by", told["command"])
    _line("", f"submission {asked['submission']}{tree}, sweepctl {asked['sweepctl']}")
    if told["command_of_this_cell"]:
        _line("only it", told["command_of_this_cell"])
    for stage, one in told["stages"].items():
        give("")
        _give_task(one, stage, told["study"], told["cell"])
    give("")
    _give_config(told["config"])


def _give_task(
    one: Mapping[str, Any], stage: str, study: str | None = None, cell: int | None = None
) -> None:
    _line(stage or one["kind"], f"{one['task']}  {one['label']}  {one['state']}")
    if one["failure"]:
        _line("failure", f"{one['failure']}: {one['message']}")
    for need in one["needs"]:
        _line("needs", f"{need['task']}  ({need['role']})")
    if study is None:
        for name, kin in (("made from", one["up"]), ("made into", one["down"])):
            for other in kin[:MOST]:
                _line(name, f"{other['id']}  {other['label']}  {other['state']}")
            if len(kin) > MOST:
                _line("", f"{len(kin) - MOST:,} more")
        for value in one["measured"]:
            _line("measured", f"{value['metric']} {value['value']:.6g}  {value['dataset']}")
    elif one["down"]:
        _line("made into", many(len(one["down"]), "task"))
    others = [use for use in one["used_by"] if (use["study"], use["cell"]) != (study, cell)]
    if others:
        named = ", ".join(f"{use['study']}/{use['cell']}" for use in others[:MOST])
        more = f" and {len(others) - MOST:,} more" if len(others) > MOST else ""
        _line("also in" if study else "used by", named + more)
    for past in one["attempts"][:-1]:
        end = f": {past['failure']}: {past['message']}" if past["failure"] else ""
        _line("", f"attempt {past['attempt']} {past['state']} in {past['seconds']:.1f} s{end}")
    if one["attempts"]:
        _give_attempt(one["attempts"][-1])
    for file in one["files"]:
        gone = "" if file["there"] else "  (gone)"
        _line("file", f"{file['path']}  {file['bytes']:,} bytes  sha256 {file['sha256']}{gone}")
    for path in one["checkpoints"]:
        _line("checkpoint", path)
    if one["sheets"]:
        _line("sheets", f"{many(len(one['sheets']), 'picture')}, the last {one['sheets'][-1]}")


def _give_closest(told: Mapping[str, Any]) -> None:
    """The recorded task that differs least, and in what."""
    if told["closest"] is None:
        _line("closest", f"no other {told['kind']} task is recorded")
        return
    _line("closest", f"{told['closest']}, which differs in")
    for one in told["differences"]:
        _line("", f"{one.path}: {shown(one.recorded)} there, {shown(one.given)} here")


def _give_attempt(one: Mapping[str, Any]) -> None:
    expected = "" if one["predicted_s"] is None else f" ({one['predicted_s']:.1f} s expected)"
    where = ", ".join(filter(None, (one["host"], one["device_name"] or one["device"])))
    ranks = one["provenance"].get("ranks", 1)
    where += f", {ranks} processes" if ranks > 1 else ""
    took = f"attempt {one['attempt']} {one['state']}"
    if one["state"] != "running":
        took += f" in {one['seconds']:.1f} s"
    _line("ran", f"{took}{expected}" + (f" on {where}" if where else ""))
    made = [f"{name} {version}" for name, version in one["versions"].items()][:2]
    if one["commit"]:
        made.append(f"commit {one['commit'][:12]}{' with changes' if one['dirty'] else ''}")
    if one["code"]:
        made.append(f"code {one['code']}")
    if made:
        _line("with", ", ".join(made))
    if one["log"]:
        _line("log", one["log"])


def _line(name: str, text: str) -> None:
    give(f"{name:<22}{text}".rstrip() if len(name) < 22 else f"{name}  {text}")
