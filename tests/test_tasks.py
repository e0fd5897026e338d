"""Is the bridge to the models light to import, and does its hash see every change of it?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import sweepctl
import vitok_core
from sweepctl.kinds import KINDS
from sweepctl.tasks import TASKS

ASK = """
import sys
from sweepctl.tasks import code_hash
print(code_hash())
print("torch" in sys.modules)
"""


def test_every_kind_of_a_plan_is_done_by_a_function() -> None:
    assert TASKS.keys() == set(KINDS)


def test_the_hash_sees_what_decides_numbers_and_nothing_else(tmp_path: Path) -> None:
    for package in (sweepctl, vitok_core):
        source = Path(package.__file__ or "").parent
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, tmp_path / source.name, ignore=skipped)

    def asked() -> str:
        done = subprocess.run(
            [sys.executable, "-c", ASK], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        found, heavy = done.stdout.split()
        assert heavy == "False"
        return found

    seen = [asked()]
    for path, same in (
        ("sweepctl/cli/__init__.py", True),
        ("sweepctl/tasks/_measure.py", False),
        ("vitok_core/latents/_part.py", False),
    ):
        with (tmp_path / path).open("a") as file:
            file.write("# another line\n")
        seen.append(asked())
        assert (seen[-1] == seen[-2]) is same, path
    (tmp_path / "vitok_core/losses.py").rename(tmp_path / "vitok_core/other.py")
    assert asked() not in seen
