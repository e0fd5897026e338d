"""Does Ctrl-C end the command in order, and an attempt without counting as its failure?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweepctl.cluster._attempt import settle
from sweepctl.runs import AttemptRequest, attempt_folder

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "library",
    [
        pytest.param("_multiarray_umath", id="numpy"),
        pytest.param("_pydantic_core", id="pydantic", marks=pytest.mark.slow),
        pytest.param("_sqlite3", id="the-ledger", marks=pytest.mark.slow),
        pytest.param("libtorch", id="torch", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_while_libraries_are_imported(tmp_path: Path, library: str) -> None:
    """The signal comes as soon as the library's own code is mapped: in the midst of its import."""
    (tmp_path / "study.yaml").write_text(
        "format: 1\nstudy: tiny\naxes: {p: [8], c: [4]}\n"
        "data: {train: photos-train, resolution: 32, images: 64}\n"
        "tokenizer: {encoder: nano, decoder: nano}\n"
        "stages: {stage1: {steps: 3, batch: 8, precision: fp32, loss: {lpips: 0}}}\n"
        "evaluate: {reconstruction: {on: [photos-eval], images: 32, metrics: [psnr]}}\n"
    )
    command = [sys.executable, "-m", "sweepctl.start", "run", "study.yaml", "--cluster", "inline"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        deadline = time.monotonic() + 300
        while library not in maps.read_text() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "stopped" in err


@pytest.mark.parametrize("code", [130, -signal.SIGINT])
def test_an_attempt_ended_by_sigint_is_stopped(tmp_path: Path, code: int) -> None:
    request = AttemptRequest(task_id="t", kind="stage1", folder=str(tmp_path), attempt=1)
    attempt_folder(tmp_path, 1).mkdir(parents=True)
    outcome = settle(request, code=code)
    assert outcome.state == "stopped" and outcome.failure is None
    assert settle(request, code=-signal.SIGSEGV).failure == "killed"


def test_a_child_takes_sigint_as_a_wish_to_stop(tmp_path: Path) -> None:
    """An attempt in a process of its own, sent SIGINT as `kill -INT` or a batch system does."""
    (tmp_path / "task.json").write_text("{}")
    program = (
        "import signal\n"
        # Tests that a shell runs in the background have SIGINT ignored, and hand that on.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sweepctl.tasks import _attempt\n"
        "from sweepctl.runs import AttemptRequest\n"
        "from vitok_core.errors import Stopped\n"
        "def work(request, device, stop, started):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    assert stop()\n"
        "    raise Stopped('stopped at step 3')\n"
        "_attempt._do = work\n"
        f"folder = {str(tmp_path)!r}\n"
        "_attempt.run(AttemptRequest(task_id='t', kind='stage1', folder=folder, attempt=1))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    request = AttemptRequest(task_id="t", kind="stage1", folder=str(tmp_path), attempt=1)
    outcome = settle(request, code=0)
    assert (outcome.state, outcome.failure) == ("stopped", None)
    assert outcome.message == "stopped at step 3"
