"""A loss term costs a field with its record and a function: one is added here, from outside.

This file is its own toy: run as a script it adds the term as the two files of the library would,
and becomes the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pytest
from typing_extensions import Doc

from vitok_core import settings

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHT = "stages.stage1.loss.variation"

VARIATION = settings.Term(title="total variation", smallest=64)


@dataclass(frozen=True, kw_only=True)
class Loss(settings.Loss):
    """One term more."""

    variation: Annotated[
        settings.Weight,
        Doc("Weight of the difference of the total variations."),
        VARIATION,
        settings.AddedLater(before=0.0),
    ] = 0.0


def variation(network: nn.Module, x_hat: Tensor, x: Tensor) -> Tensor:
    """How much rougher or smoother a reconstruction is than its original."""
    return (x_hat.diff(dim=-1).abs().mean() - x.diff(dim=-1).abs().mean()).abs()


def add() -> None:
    """What a field in vitok_core/settings and a function in vitok_core/losses.py would do."""
    from vitok_core import losses
    from vitok_core.settings import _stages

    _stages.Loss = Loss  # type: ignore[misc]
    losses.TERMS["variation"] = variation


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """This file in a process of its own."""
    return subprocess.run(
        [sys.executable, __file__, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )


def identities(folder: Path, how: str, *overrides: str) -> set[str]:
    """Tasks of the study, planned with the term or without it."""
    done = python(folder, how, "plan", *overrides)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_a_term_without_weight_changes_no_fingerprint(tmp_path: Path) -> None:
    plain = identities(tmp_path, "without")
    assert identities(tmp_path, "with") == plain
    large = identities(tmp_path, "with", "data.resolution=64")
    weighted = identities(tmp_path, "with", "data.resolution=64", f"{WEIGHT}=0.5")
    assert len(large) == len(weighted) == len(plain) and not weighted & large


def test_a_term_is_checked_and_told_about_when_it_is_planned(tmp_path: Path) -> None:
    done = python(tmp_path, "with", "plan", f"{WEIGHT}=0.5")
    assert "the total variation loss needs images of at least 64 px, not 32" in done.stderr
    done = python(tmp_path, "with", "plan", f"{WEIGHT}=-1")
    assert "must be at least 0.0, not -1" in done.stderr


@pytest.mark.slow
def test_a_term_trains(tmp_path: Path) -> None:
    from studies import SMALL, write

    text = SMALL.replace("p: [4, 8]", "p: [8]").replace("c: [4, 16]", "c: [4]")
    write(tmp_path, text.replace("resolution: 32", "resolution: 64"), "small.yaml")
    said = f"{WEIGHT}=0.5"
    done = python(tmp_path, "with", "run", "small.yaml", "--cluster", "inline", "-q", "--set", said)
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("runs/stage1-*/result.json")
    assert json.loads(result.read_text())["values"]["parts_recent"]["variation"] > 0


if __name__ == "__main__":
    _, how, *words = sys.argv
    if how == "with":
        add()
    if words[0] == "plan":
        from studies import SMALL, plan_of  # only now: a plan reads the settings

        made = plan_of(Path(), SMALL, *words[1:])
        print(json.dumps([name for name, task in made.tasks.items() if task.kind == "stage1"]))
    else:
        from sweepctl.cli import main

        sys.argv[1:] = words
        main()
