"""What does a study ask for? Commands that run nothing."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sweepctl.cli._session import (
    give,
    give_json,
    many,
    notices,
    plan_file,
    say,
)


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
