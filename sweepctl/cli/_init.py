"""`init`: write a study to start from."""

from __future__ import annotations

import shlex

from sweepctl.cli._options import File
from sweepctl.cli._output import give, say


def init(file: File) -> None:
    """Write a study to start from, with the schema for your editor.

    Example: sweepctl init studies/my-question.yaml
    """
    from sweepctl.study import init_study

    for written in init_study(file):
        give(str(written))
    say(f"next: sweepctl plan {shlex.quote(str(file))}")
