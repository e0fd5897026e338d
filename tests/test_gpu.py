"""Does every CUDA path do what it should? The checks of bench/gpu_checks.py, and bench/gpu.py.

Tests marked `gpu` need a GPU, and run with `-m gpu`. Without one the checks that mean something on
a CPU run there, which tests the checks.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vitok_core.protocols import BACKBONES

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.append(str(BENCH))
gpu_checks: Any = importlib.import_module("gpu_checks")
QUICK = (
    "latents as on the CPU",
    "not a number stops",
    "reconstructions as on the CPU",
    "samples as on the CPU",
)
"""Checks that take a moment on a CPU; the others are slow ones."""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _backbones() -> Iterator[None]:
    """Checks put random networks in place of those whose files are missing."""
    before = dict(BACKBONES)
    yield
    BACKBONES.clear()
    BACKBONES.update(before)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", gpu_checks.CHECKS)
def test_on_a_gpu(name: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU that torch can use")
    print(gpu_checks.CHECKS[name].run(tmp_path, "cuda"))


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name, check in gpu_checks.CHECKS.items()
        if not check.gpu_only
    ],
)
def test_the_check_itself_on_a_cpu(name: str, tmp_path: Path) -> None:
    gpu_checks.CHECKS[name].run(tmp_path, "cpu")


BLOCKER = """
import importlib.machinery, runpy, sys
HAS = {"torch", "torchgen", "functorch", "numpy", "scipy", "PIL", "safetensors", "triton"}
HAS |= {"typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec"}
HAS |= {"filelock", "setuptools", "vitok_core", "gpu_checks", "gpu_figures", "gpu_plain"}
HAS |= {"gpu_trainings", "stand_ins", "sweepctl"}
class Few(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in HAS or top in sys.stdlib_module_names or top.startswith("_")
        return super().find_spec(name, path, target) if known else None
sys.meta_path[:] = [*sys.meta_path[:2], Few]
sys.argv = sys.argv[1:]
sys.path.insert(0, BENCH)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Starts a script as on a machine that has torch and four packages more."""


@pytest.mark.slow
def test_the_whole_script_at_toy_size_with_four_packages(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    parts = ["peaks", "S-B/16", "DiT-L", "stage 2", "checkpoints", "samples", "evaluation"]
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"BENCH = {str(BENCH)!r}{BLOCKER}", str(BENCH / "gpu.py")),
            *("--toy", "--out", str(out)),
            *(word for part in parts for word in ("--only", part)),
        ],
        env={**os.environ, "PYTHONPATH": str(BENCH.parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TOY SIZE ON THE CPU" in done.stdout and "figures mean nothing" in done.stdout
    assert "vgg has random weights" in done.stdout and "annotated_types is absent" in done.stdout
    written = json.loads(out.read_text())
    assert written["about"]["toy"] is True
    rows = [one for one in written["findings"] if one["kind"] == "row"]
    assert {one["part"] for one in written["findings"]} == set(parts)
    assert all(one["step_s"] > 0 and one["images_per_s"] > 0 for one in rows)
    plain = [one for one in rows if one["row"].startswith("plain loop")]
    assert [one["case"] for one in plain] == ["stage 1 S-B/16", "DiT-nano"]


@pytest.mark.slow
def test_what_is_killed_keeps_what_it_found(tmp_path: Path) -> None:
    """A part whose time is up ends with all that it has started, and its findings stay."""
    code = f"""
import sys, time, subprocess
sys.path.insert(0, {str(BENCH)!r})
import gpu
def work(tell):
    tell("note", text="first")
    child = subprocess.Popen(["sleep", "600"])
    tell("note", text=str(child.pid))
    time.sleep(600)
for one in gpu.in_a_child(work, time.monotonic() + 20):
    print(one["text"])
def broken(tell):
    tell("note", text="before")
    raise ValueError("broken")
print([one.get("text", one.get("error")) for one in gpu.in_a_child(broken, time.monotonic() + 60)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(BENCH.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    first, pid, up, broken = done.stdout.splitlines()
    assert first == "first" and "time was up" in up
    assert broken == "['before', 'ended with code 1']" and "ValueError: broken" in done.stderr
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
