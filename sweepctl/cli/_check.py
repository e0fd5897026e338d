"""`check`: check a study file."""

from __future__ import annotations

from sweepctl.cli._options import File, Sets
from sweepctl.cli._output import give, notices
from sweepctl.cli._session import plan_file
from sweepctl.plain import many


def check(file: File, overrides: Sets = None) -> None:
    """Check a study file; every mistake comes with file:line:column.

    Example: sweepctl check studies/quickstart.yaml
    """
    made = plan_file(file, overrides or ())
    give(f"{file}: {made.study_name} is a valid study of {many(len(made.cells), 'cell')}")
    notices(made)
