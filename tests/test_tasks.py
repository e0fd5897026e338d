"""Is the bridge to the models light to import, and does its hash see every change of it?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import profile

import sweepctl
import vitok_core
from sweepctl.kinds import KINDS
from sweepctl.runs import AttemptRequest, read_json, write_json
from sweepctl.tasks import TASKS, run
from sweepctl.tasks._work import Made
from vitok_core.discriminator import Discriminator

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


# --- how an attempt computes --------------------------------------------------------------------


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Runs an attempt whose work is a function without arguments; (what it gave, provenance)."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
    )

    def made(work: Callable[[], Any], device: str = "cpu", **how: Any) -> tuple[Any, Any]:
        folder = tmp_path / f"stage1-{len(list(tmp_path.iterdir()))}"
        task = {"fingerprint": "s1:0f", "kind": "stage1", "label": "a test"}
        write_json(folder / "task.json", {**task, "identity": {"config": {}}, "parents": {}})
        given: list[Any] = []

        def done(_: Any) -> Made:
            given.append(work())
            return Made(files=(), values={})

        monkeypatch.setitem(TASKS, "stage1", done)
        monkeypatch.setattr("sweepctl.tasks._attempt.device_of", lambda asked: device)
        run(
            AttemptRequest(
                task_id=folder.name,
                kind="stage1",
                folder=str(folder),
                attempt=1,
                threads=torch.get_num_threads(),
                **how,
            )
        )
        return given[0], read_json(folder / "result.json")["provenance"]

    yield made
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = before[2]


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [("cpu", False, True), ("cpu", True, True), ("cuda:0", False, False), ("cuda:0", True, True)],
)
def test_cpus_are_always_deterministic_and_gpus_where_a_study_asks(
    attempt: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    asked: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def look() -> tuple[bool, bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            "CUBLAS_WORKSPACE_CONFIG" in os.environ,
        )

    found, provenance = attempt(look, device, deterministic=asked)
    assert found == (expected, not expected, asked)
    assert provenance["deterministic"] is expected
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def test_a_deterministic_step_fills_no_more_memory_than_another(
    attempt: Callable[..., Any],
) -> None:
    def fills() -> dict[str, int]:
        torch.manual_seed(0)
        network = Discriminator(8, 0.03)
        images = torch.rand(2, 3, 8, 8)
        with profile() as seen:
            network(images).sum().backward()
        return {one.key: one.count for one in seen.key_averages() if one.key == "aten::fill_"}

    torch.use_deterministic_algorithms(False)
    free = fills()
    found, _ = attempt(fills)
    assert found == free and free
