"""Are the fingerprints of every study in studies/ what they were when results were recorded?

A changed fingerprint reruns what people have computed. `python tests/test_golden.py` rewrites the
file; do that only together with a version that was bumped on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from sweepctl.datasets import data_identities
from sweepctl.plan import make_plan
from sweepctl.study import load_study

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "data" / "fingerprints.json"
STUDIES = sorted(
    file
    for file in (ROOT / "studies").rglob("*.yaml")
    if "presets" not in file.parts and ".site." not in file.name
)


def fingerprints(file: Path) -> dict[str, Any]:
    """Per kind of task: how many there are, and one hash over their sorted fingerprints."""
    data = data_identities()
    plan = make_plan(load_study(file, datasets=data), data=data)
    by_kind: dict[str, list[str]] = defaultdict(list)
    for task in plan.tasks.values():
        by_kind[task.kind].append(task.fingerprint)
    return {
        kind: {
            "tasks": len(names),
            "sha256": hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest(),
        }
        for kind, names in sorted(by_kind.items())
    }


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_fingerprints_of_a_study_are_the_recorded_ones(file: Path) -> None:
    recorded = json.loads(GOLDEN.read_text())
    assert fingerprints(file) == recorded[file.relative_to(ROOT).as_posix()]


def test_every_recorded_study_is_still_there() -> None:
    assert json.loads(GOLDEN.read_text()).keys() == {
        file.relative_to(ROOT).as_posix() for file in STUDIES
    }


if __name__ == "__main__":
    known = {file.relative_to(ROOT).as_posix(): fingerprints(file) for file in STUDIES}
    GOLDEN.write_text(json.dumps(known, indent=1) + "\n")
