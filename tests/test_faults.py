"""Does a study come to the same end whatever is killed, damaged, full or missing on the way?

A tiny real study is run by the real command line with worker processes. The weights of a run that
nobody disturbed are compared, byte for byte, with those of runs that were killed at random moments
(seeded, but what a moment hits depends on the machine), stopped, or starved of disk.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_command import PATIENCE_S, Run, call, one_error, wait_until

from studies import write
from sweepctl import runs
from sweepctl.datasets import data_identities
from sweepctl.ledger import open_ledger
from sweepctl.plan import Plan, make_plan
from sweepctl.study import load_study
from vitok_core.files import sha256_of

STEPS = 400
TINY = f"""\
format: 1
study: tiny
axes: {{p: [8], c: [4, 8]}}
data: {{train: photos-train, resolution: 32, images: 8192}}
tokenizer: {{encoder: nano, decoder: nano}}
stages:
  stage1: {{steps: {STEPS}, batch: 16, precision: fp32, loss: {{kl: 1e-5, lpips: 0}}}}
evaluate:
  reconstruction: {{on: [photos-eval], images: 32, metrics: [psnr]}}
run: {{checkpoint_s: 0.5, retries: 10}}
"""


def plan_of(folder: Path) -> Plan:
    data = data_identities()
    return make_plan(load_study(folder / "tiny.yaml", datasets=data), data=data)


def tasks_of(plan: Plan, kind: str) -> list[str]:
    return sorted(task.id for task in plan.tasks.values() if task.kind == kind)


def weights(folder: Path) -> dict[str, str]:
    """Task id -> SHA-256 of the weights it left."""
    files = sorted((folder / "runs").glob("stage1-*/weights.safetensors"))
    return {file.parent.name: sha256_of(file) for file in files}


def check_ledger(folder: Path, database: str = "results.db") -> Counter[str]:
    """Ledger and files agree, one result a task; returns how attempts that were not done ended."""
    plan, ended = plan_of(folder), Counter[str]()
    with open_ledger(str(folder / database), create=False, read_only=True) as ledger:
        states = ledger.tasks.states(study="tiny")
        assert {state.state for state in states.values()} == {"done"}
        for name in states:
            task = plan.tasks[name]
            tries = ledger.attempts.of(name)
            assert [one.number for one in tries] == list(range(1, len(tries) + 1))
            (done,) = [one.number for one in tries if one.state == "done"]
            result = runs.read_result(folder / "runs" / task.id, name)
            assert result is not None and result.attempt == done
            for record in result.files:
                assert sha256_of(folder / "runs" / task.id / record.name) == record.sha256
            ended.update(one.failure or one.state for one in tries if one.state != "done")
        cells = ledger.cells.of("tiny")
        found = ledger.query("select cell, name, value from v_metric")
        assert sorted(cell for cell, _, _ in found.rows) == [cell.index for cell in cells]
    return ended


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The weights of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder, TINY, "tiny.yaml")
    with Run(folder, "--workers", "2") as run:
        assert run.wait().code == 0
    assert not check_ledger(folder)
    found = weights(folder)
    assert len(found) == 2 == len(set(found.values()))
    return found


# --- kills ------------------------------------------------------------------------------------


def moment(draw: random.Random, when: str) -> tuple[int, float]:
    """A random moment of an attempt: the step to wait for, and seconds to wait after it."""
    low, high = {"soon": (0, 0), "early": (1, STEPS // 3), "late": (STEPS // 2, STEPS * 3 // 4)}[
        when
    ]
    return draw.randint(low, high), draw.uniform(0, 0.5)


def wait_for_step(run: Run, task: str, step: int) -> None:
    wait_until(lambda: run.attempt(task) and run.step(task) >= step, f"step {step} of {task}")


@pytest.mark.slow
def test_a_driver_that_is_killed_thrice(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    plan, draw = plan_of_tiny(tmp_path), random.Random(41)
    first, second = tasks_of(plan, "stage1")
    for when, task in (("soon", prepare_of_training(plan)), ("early", first), ("late", second)):
        step, rest_s = moment(draw, when)
        with Run(tmp_path, "--workers", "2") as run:
            wait_for_step(run, task, step)
            time.sleep(rest_s)
            assert run.attempt(task), f"{task} ended before the driver was killed"
            run.process.kill()
            assert run.process.wait() == -signal.SIGKILL
            run.wait_until_gone()
    with Run(tmp_path, "--workers", "2") as run:
        ended = run.wait()
    assert ended.code == 0, ended.err
    assert weights(tmp_path) == undisturbed
    assert check_ledger(tmp_path)["lost"] >= 3
    result = runs.read_result(tmp_path / "runs" / second, fingerprint(plan, second))
    assert result is not None and result.values["resumed_from"] > 0


@pytest.mark.slow
def test_workers_and_attempts_that_are_killed_thrice_each(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    plan, draw = plan_of_tiny(tmp_path), random.Random(43)
    first, second = tasks_of(plan, "stage1")
    kills = {
        prepare_of_training(plan): [("soon", "attempt"), ("soon", "worker")],
        first: [("early", "attempt"), ("late", "worker")],
        second: [("early", "worker"), ("late", "attempt")],
    }
    with Run(tmp_path, "--workers", "2") as run:
        kill_as_planned(run, kills, draw)
        ended = run.wait()
    assert ended.code == 0, ended.err
    assert weights(tmp_path) == undisturbed
    assert check_ledger(tmp_path) == {"killed": 3, "worker_lost": 3}


def kill_as_planned(run: Run, kills: dict[str, list[tuple[str, str]]], draw: random.Random) -> None:
    """Kill each task's attempts, or their workers, at random moments; tasks run side by side."""
    moments = {task: [moment(draw, when) for when, _ in kills[task]] for task in kills}
    due_at: dict[str, float] = {}
    killed: set[int] = set()

    def look() -> bool:
        assert run.process.poll() is None, f"ended too soon:\n{run.err.read_text()}"
        for task in [task for task in kills if kills[task]]:
            process = run.attempt(task)
            if process is None or process.pid in killed or run.step(task) < moments[task][0][0]:
                continue
            if time.monotonic() < due_at.setdefault(task, time.monotonic() + moments[task][0][1]):
                continue
            _, whom = kills[task].pop(0)
            moments[task].pop(0)
            del due_at[task]
            victim = process if whom == "attempt" else run.worker_of(process)
            os.kill(victim.pid, signal.SIGKILL)
            killed.add(process.pid)
        return not any(kills.values())

    wait_until(look, "all kills")


def plan_of_tiny(folder: Path) -> Plan:
    write(folder, TINY, "tiny.yaml")
    return plan_of(folder)


def prepare_of_training(plan: Plan) -> str:
    (found,) = [
        task.id
        for task in plan.tasks.values()
        if task.kind == "prepare" and "photos-train" in task.label
    ]
    return found


def fingerprint(plan: Plan, task_id: str) -> str:
    (found,) = [task.fingerprint for task in plan.tasks.values() if task.id == task_id]
    return found


# --- a stop and a damaged checkpoint ------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_then_a_damaged_checkpoint(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    plan = plan_of_tiny(tmp_path)
    trainings = tasks_of(plan, "stage1")
    folders = [tmp_path / "runs" / task / "checkpoints" for task in trainings]
    with Run(tmp_path, "--workers", "2") as run:
        wait_for_step(run, prepare_of_training(plan), 0)
        second = call(tmp_path, "run", "tiny.yaml", "--cluster", "inline")
        assert second.code == 75 and one_error(second.err), second
        assert f"pid {run.process.pid}" in second.err
        wait_until(
            lambda: all(len(list(folder.glob("step-*.pt"))) == 2 for folder in folders),
            "two checkpoints of each training",
        )
        run.process.send_signal(signal.SIGTERM)
        ended = run.wait()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "stopped; resume with: sweepctl run tiny.yaml" in ended.err
    kept = {}
    for task, folder in zip(trainings, folders, strict=True):
        older, newest = sorted(folder.glob("step-*.pt"))
        kept[task] = int(older.stem.removeprefix("step-"))
        raw = bytearray(newest.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        newest.write_bytes(raw)
    with Run(tmp_path, "--workers", "2") as run:
        ended = run.wait()
    assert ended.code == 0, ended.err
    assert weights(tmp_path) == undisturbed
    assert check_ledger(tmp_path) == {"stopped": 2}
    for task, step in kept.items():
        result = runs.read_result(tmp_path / "runs" / task, fingerprint(plan, task))
        assert result is not None and result.values["resumed_from"] == step
        assert any("damaged" in note for note in result.values["notes"])


# --- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 340 MiB; a driver wants 256 MiB free before it starts a task."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=340m", "tmpfs", str(place)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root and mount(8)")
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def no_space_in(folder: Path) -> Iterator[None]:
    """Take all space of a file system, again and again, as another user's job would."""
    enough = threading.Event()
    path = folder / "filler"

    def fill() -> None:
        with path.open("ab", buffering=0) as file:
            while not enough.is_set():
                try:
                    for size in (1 << 20, 4096, 1):
                        with contextlib.suppress(OSError):
                            while True:
                                file.write(bytes(size))
                finally:
                    time.sleep(0.001)

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        yield
    finally:
        enough.set()
        filler.join()
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("database", ["results.db", "../results.db"])
def test_a_disk_that_fills_up_during_training(
    small_disk: Path, database: str, undisturbed: dict[str, str]
) -> None:
    plan_of_tiny(small_disk)
    words = ("--workers", "1", "--set", "axes.c=[4]", "--db", database)
    with Run(small_disk, *words) as run:
        wait_until(
            lambda: list((small_disk / "runs").glob("stage1-*/checkpoints/step-*.pt")),
            "the first checkpoint",
        )
        with no_space_in(small_disk):
            code = run.process.wait(PATIENCE_S)
            run.wait_until_gone()
    said = run.err.read_text()
    assert code in (1, 4) and one_error(said), said
    assert "disk is full" in said, said
    with Run(small_disk, *words) as run:
        ended = run.wait()
    assert ended.code == 0, ended.err
    ((task, made),) = weights(small_disk).items()
    assert made == undisturbed[task]
    check_ledger(small_disk, database)


@pytest.mark.slow
def test_a_disk_that_is_nearly_full_before(small_disk: Path) -> None:
    write(small_disk, TINY, "tiny.yaml")
    (small_disk / "filler").write_bytes(bytes(200 << 20))
    ended = call(small_disk, "run", "tiny.yaml", "--cluster", "inline")
    assert ended.code == 1 and one_error(ended.err), ended
    assert "nearly full" in ended.err and "nothing is lost" in ended.err
