"""`schema`: print the JSON Schema of study files."""

from __future__ import annotations

from sweepctl.cli._output import give_json


def schema() -> None:
    """Print the JSON Schema of study files, for editors.

    Example: sweepctl schema > study.schema.json
    """
    from sweepctl.study import json_schema

    give_json(json_schema())
