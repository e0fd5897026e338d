"""What does a study ask for? Commands that run nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.cli._session import (
    give,
    give_json,
    give_table,
    looks_like_file,
    many,
    notices,
    open_for_reading,
    plan_file,
    say,
    shown,
)
from sweepctl.errors import UsageError

if TYPE_CHECKING:
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
    give(f"{file}: {made.study_name} is a valid study of {many(len(made.cells), 'cell')}")
    notices(made)


def schema() -> None:
    """Print the JSON Schema."""
    from sweepctl.study import json_schema

    give_json(json_schema())


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
        [(row["path"], shown(row["value"]), row["from"]) for row in rows],
        "table",
    )
    for stage, task in tasks.items():
        say(f"{stage}: {task}")


def _check_cell(cell: int, cells: int) -> None:
    if cell > cells:
        raise UsageError(f"there is no cell {cell}; the study has {many(cells, 'cell')}")


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
