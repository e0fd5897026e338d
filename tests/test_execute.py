"""Does a study end with every task done once, whatever fails, dies or is edited on the way?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_plans import by_kind, finish, make_plan, submission

from studies import SMALL, plan_of
from sweepctl import runs
from sweepctl.cluster._inline import InlinePool
from sweepctl.errors import DriverBusy, RunFolderError, TasksFailed
from sweepctl.execute import RunSummary, Settings, raise_for_failures, run_study
from sweepctl.ledger import Ledger, open_ledger
from sweepctl.plan import Left, Plan, Task
from sweepctl.runs import AttemptOutcome

PROVENANCE = {"code": "0123456789abcdef", "commit": None, "dirty": None, "versions": {}}


class Collected:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.outcomes: list[tuple[str, AttemptOutcome, float | None]] = []
        self.order: list[str] = []

    def started(self, total: int, done: int) -> None:
        self.total, self.done = total, done

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def submitted(self, task: Task, attempt: int) -> None:
        self.order.append(task.kind)

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        assert event["steps"] == 2

    def alive(self) -> None:
        self.beats = getattr(self, "beats", 0) + 1

    def left(self, left: Left) -> None:
        self.rest = left

    def grown(self, tasks: int, done: int) -> None:
        return None

    def ended(self, task: Task, outcome: AttemptOutcome, *, retry_in_s: float | None) -> None:
        self.outcomes.append((task.kind, outcome, retry_in_s))


def behave(folder: Path, **how: str | list[str]) -> None:
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / "behaviour.json").write_text(json.dumps(how))


def go(
    folder: Path, plan: Plan, ledger: Ledger, watcher: Collected | None = None, **changes: Any
) -> RunSummary:
    how = Settings(
        folder=folder / "runs",
        where="inline",
        entry="execute_entries:run",
        preload=None,
        backoff_s=0.01,
        **changes,
    )
    return run_study(plan, ledger, how, watcher or Collected(), provenance=PROVENANCE)


def states(ledger: Ledger, plan: Plan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state in ledger.tasks.states(list(plan.tasks)).values():
        counts[state.state] = counts.get(state.state, 0) + 1
    return counts


def test_a_study_runs_once_and_then_there_is_nothing_to_do(tmp_path: Path) -> None:
    plan, watcher = plan_of(tmp_path), Collected()
    with open_ledger() as ledger:
        first = go(tmp_path, plan, ledger, watcher)
        assert (first.tasks, first.done_before, first.finished, first.failed) == (11, 0, 11, ())
        assert states(ledger, plan) == {"done": 11}
        assert watcher.order[:3] == ["prepare", "prepare", "reference"]
        assert len(ledger.cells.results("small").rows) == 4
        again = Collected()
        second = go(tmp_path, plan, ledger, again)
        assert (second.done_before, second.finished, again.order) == (11, 0, [])


def test_the_time_of_a_task_is_expected_from_those_before(tmp_path: Path) -> None:
    plan, former = plan_of(tmp_path), make_plan("former")
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        ledger.studies.record(former, submission())
        finish(ledger, by_kind(former, "stage1")[0])  # 3e19 FLOPs in 2 s
        go(tmp_path, plan, ledger)
        for name, task in plan.tasks.items():
            (tried,) = ledger.attempts.of(name)
            expected = task.cost.flops * 2 / 3e19 if task.cost.flops else None
            assert tried.predicted_s == pytest.approx(expected)


def test_a_new_axis_value_runs_the_new_cells_only(tmp_path: Path) -> None:
    with open_ledger() as ledger:
        go(tmp_path, plan_of(tmp_path), ledger)
        watcher = Collected()
        more = plan_of(tmp_path, SMALL.replace("c: [4, 16]", "c: [4, 8, 16]"))
        summary = go(tmp_path, more, ledger, watcher)
        assert summary.finished == 4
        assert sorted(watcher.order) == ["reconstruct", "reconstruct", "stage1", "stage1"]
        edited = SMALL.replace("study: small", "study: small\nquestion: new words")
        assert (
            go(tmp_path, plan_of(tmp_path, edited.replace("semilog", "quadratic")), ledger).finished
            == 0
        )


def test_a_failure_blocks_its_descendants_only(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    broken = next(task for task in plan.tasks.values() if task.kind == "stage1")
    behave(tmp_path, **{broken.id: "error"})
    with open_ledger() as ledger:
        summary = go(tmp_path, plan, ledger)
        assert (summary.finished, len(summary.failed), summary.blocked) == (9, 1, 1)
        with pytest.raises(TasksFailed, match="1 of 11 tasks failed, 1 more wait") as caught:
            raise_for_failures(summary)
        assert broken.id in str(caught.value) and "log.txt" in str(caught.value)
        # What failed by its own fault is not tried again by itself ...
        watcher = Collected()
        assert len(go(tmp_path, plan, ledger, watcher).failed) == 1
        assert watcher.order == []
        # ... but after `retry` it is.
        behave(tmp_path)
        ledger.tasks.reset([broken.fingerprint])
        assert go(tmp_path, plan, ledger).finished == 2
        assert states(ledger, plan) == {"done": 11}


@pytest.mark.parametrize("failure", ["killed", "worker_lost", "out_of_memory"])
def test_infrastructure_failures_are_tried_again_with_a_pause(tmp_path: Path, failure: str) -> None:
    behave(tmp_path, reference=[failure, failure, "done"])
    with open_ledger() as ledger:
        plan, watcher = plan_of(tmp_path), Collected()
        summary = go(tmp_path, plan, ledger, watcher)
        assert summary.failed == () and summary.finished == 11
        pauses = [pause for kind, _, pause in watcher.outcomes if kind == "reference"]
        assert pauses == [0.01, 0.02, None]
        behave(tmp_path, reference=failure)


def test_an_attempt_that_somebody_interrupts_resumes_and_uses_no_try(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    behave(tmp_path, stage1=["interrupted", "interrupted", "done"])
    with open_ledger("results.db") as ledger:
        told = Collected()
        summary = go(tmp_path, plan, ledger, told, retries=0)
        assert summary.stopped_by is None and not summary.failed
        assert set(states(ledger, plan)) == {"done"}
        ended = [one.state for kind, one, _ in told.outcomes if kind == "stage1"]
        assert ended.count("stopped") == 2 * len(by_kind(plan, "stage1"))
        rows = ledger.query("SELECT DISTINCT failed_attempts FROM sweep_task").rows
    assert rows == ((0,),)


def test_no_temporary_file_outlives_the_next_run(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    plan = plan_of(tmp_path)
    task = by_kind(plan, "stage1")[0]
    checkpoints = tmp_path / "runs" / task.id / "checkpoints"
    checkpoints.mkdir(parents=True)
    here = socket.gethostname()
    gone = [
        checkpoints / f".step-3.pt.{dead.pid}@{here}.tmp",
        checkpoints / f".step-3.pt.{dead.pid}.tmp",  # as older versions called them
        tmp_path / "runs" / f".figure.png.{dead.pid}@{here}.tmp",
        checkpoints / f".step-4.pt.{dead.pid}@another-machine.tmp",
    ]
    kept = [
        checkpoints / f".step-5.pt.{os.getpid()}@{here}.tmp",  # its owner is alive
        checkpoints / ".step-6.pt.1@another-machine.tmp",  # written just now, over there
        checkpoints / "mine.tmp",
        checkpoints / ".mine.tmp",
        checkpoints / ".data.part",
    ]
    for path in gone + kept:
        path.write_text("half of")
    os.utime(gone[-1], (0, 0))
    with open_ledger("results.db") as ledger:
        go(tmp_path, plan, ledger)
    assert [path.name for path in gone if path.exists()] == []
    assert [path.name for path in kept if not path.exists()] == []


def test_ctrl_c_while_the_pool_closes_is_heard_and_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path)
    closed: list[str] = []

    def close(pool: InlinePool) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        closed.append("whole")

    monkeypatch.setattr(InlinePool, "close", close)
    with open_ledger("results.db") as ledger:
        summary = go(tmp_path, plan, ledger)
        assert set(states(ledger, plan)) == {"done"}
    assert closed == ["whole"] and summary.stopped_by == signal.SIGINT


def test_retries_end(tmp_path: Path) -> None:
    behave(tmp_path, reference="killed")
    with open_ledger() as ledger:
        plan, watcher = plan_of(tmp_path), Collected()
        summary = go(tmp_path, plan, ledger, watcher, retries=1)
        assert [one[1] for one in summary.failed] == ["killed"]
        assert watcher.order.count("reference") == 2
        # A kill is nobody's fault: the next run tries again by itself.
        behave(tmp_path)
        assert go(tmp_path, plan, ledger).failed == ()


def test_many_fast_failures_in_a_row_stop_the_study(tmp_path: Path) -> None:
    behave(tmp_path, stage1="error")
    text = SMALL.replace("c: [4, 16]", "c: [1, 2, 3, 4, 5, 6, 7, 8]")
    with open_ledger() as ledger:
        watcher = Collected()
        summary = go(tmp_path, plan_of(tmp_path, text), ledger, watcher)
        assert len(summary.failed) == 5
        assert any("in a row failed" in notice for notice in watcher.notices)


def test_a_result_found_on_disk_is_adopted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with open_ledger("first.db") as ledger:
        go(tmp_path, plan, ledger)
    with open_ledger("second.db") as ledger:
        watcher = Collected()
        summary = go(tmp_path, plan, ledger, watcher)
        assert (summary.adopted, summary.finished, watcher.order) == (11, 0, [])
        assert len(ledger.cells.results("small").rows) == 4


def test_a_damaged_result_is_made_anew(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with open_ledger("first.db") as ledger:
        go(tmp_path, plan, ledger)
    victim = next(task for task in plan.tasks.values() if task.kind == "stage1")
    (tmp_path / "runs" / victim.id / "result.json").write_text("{")
    with open_ledger("second.db") as ledger:
        assert (go(tmp_path, plan, ledger)).finished == 1


def test_files_that_are_gone_are_made_again_when_a_child_needs_them(tmp_path: Path) -> None:
    with open_ledger() as ledger:
        go(tmp_path, plan_of(tmp_path), ledger)
        shutil.rmtree(tmp_path / "runs")
        # Nothing needs the files while all is done ...
        assert go(tmp_path, plan_of(tmp_path), ledger).finished == 0
        # ... a new cell needs the data and the reference, but no other cell's training.
        watcher = Collected()
        more = plan_of(tmp_path, SMALL.replace("c: [4, 16]", "c: [4, 16, 64]"))
        go(tmp_path, more, ledger, watcher)
        counts = {kind: watcher.order.count(kind) for kind in set(watcher.order)}
        assert counts == {"prepare": 2, "reference": 1, "stage1": 2, "reconstruct": 2}


def test_two_drivers_never_meet_in_a_run_folder(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from sweepctl.execute._lock import driver_lock
with driver_lock(Path({str(tmp_path / "runs")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            with open_ledger() as ledger, pytest.raises(DriverBusy, match=f"pid {holder.pid}"):
                go(tmp_path, plan_of(tmp_path), ledger)
        finally:
            holder.kill()
    with open_ledger() as ledger:  # the kernel let go of the lock
        assert go(tmp_path, plan_of(tmp_path), ledger).finished == 11


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with open_ledger() as ledger, pytest.raises(RunFolderError, match="is a file, not a folder"):
        go(tmp_path, plan_of(tmp_path), ledger)


def test_ctrl_c_stops_and_the_next_run_goes_on(tmp_path: Path) -> None:
    behave(tmp_path, reference=["hang", "done"])
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell started this beside itself
    with open_ledger() as ledger:
        plan, watcher = plan_of(tmp_path), Collected()
        script = f"""
import os, pathlib, signal, time
runs = pathlib.Path({str(tmp_path / "runs")!r})
while not list(runs.glob("reference-*/attempts/1/events.jsonl")):
    time.sleep(0.02)
os.kill({os.getpid()}, signal.SIGINT)
"""
        killer = subprocess.Popen([sys.executable, "-c", script])
        summary = go(tmp_path, plan, ledger, watcher)
        killer.wait()
        assert summary.stopped_by == signal.SIGINT and summary.failed == ()
        assert states(ledger, plan)["pending"] == 9
        assert signal.getsignal(signal.SIGINT) is before
        assert go(tmp_path, plan, ledger).finished == 9


def test_provenance_stays_with_a_result(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with open_ledger() as ledger:
        go(tmp_path, plan, ledger)
        name = next(iter(plan.tasks))
        attempt = ledger.attempts.of(name)[-1]
        assert attempt.code == PROVENANCE["code"]
        assert Path(attempt.log).parts[-4:] == (plan.tasks[name].id, "attempts", "1", "log.txt")
        assert ledger.tasks.code_counts(list(plan.tasks)) == {PROVENANCE["code"]: 11}


class Driving(RuleBasedStateMachine):
    """Runs that end anyhow, folders that vanish, studies that are edited: what must always hold."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(f"machine-{time.monotonic_ns()}").resolve()
        self.text = SMALL
        self.ever_done: dict[str, int] = {}
        behave(self.folder)

    @rule(
        what=st.sampled_from(["prepare", "reference", "stage1", "reconstruct"]),
        how=st.sampled_from(["error", "killed", "non_finite", "worker_lost"]),
    )
    def something_breaks(self, what: str, how: str) -> None:
        behave(self.folder, **{what: how})
        self.drive()

    @rule()
    def nothing_breaks(self) -> None:
        behave(self.folder)
        self.drive()

    @rule(c=st.sampled_from(["[4]", "[4, 16]", "[4, 8, 16]"]))
    def the_study_is_edited(self, c: str) -> None:
        self.text = SMALL.replace("c: [4, 16]", f"c: {c}")

    @rule()
    def the_driver_dies(self) -> None:
        """What a killed driver leaves: tasks that were started and never ended."""
        plan = plan_of(self.folder, self.text)
        with open_ledger(str(self.folder / "results.db")) as ledger:
            for name, state in ledger.tasks.states(list(plan.tasks)).items():
                if state.state == "pending":
                    folder = self.folder / "runs" / state.id
                    ledger.attempts.start(name, folder=folder, provenance=PROVENANCE)
                    break

    @rule()
    def all_is_retried_and_well(self) -> None:
        behave(self.folder)
        plan = plan_of(self.folder, self.text)
        with open_ledger(str(self.folder / "results.db")) as ledger:
            ledger.tasks.reset(list(ledger.tasks.states(list(plan.tasks))))
        self.drive()
        with open_ledger(str(self.folder / "results.db")) as ledger:
            assert states(ledger, plan) == {"done": len(plan.tasks)}

    def drive(self) -> None:
        plan = plan_of(self.folder, self.text)
        with open_ledger(str(self.folder / "results.db")) as ledger:
            summary = go(self.folder, plan, ledger, retries=1)
            counts = states(ledger, plan)
            assert sum(counts.values()) == len(plan.tasks) == summary.tasks
            assert counts.get("done", 0) == summary.done_before + summary.finished
            assert counts.get("running", 0) == 0
            assert counts.get("failed", 0) == len(summary.failed)

    @invariant()
    def a_result_is_recorded_once_and_never_lost(self) -> None:
        path = self.folder / "results.db"
        if not path.exists():
            return
        with open_ledger(str(path)) as ledger:
            found = ledger.query(
                "select task, count(*) from v_metric group by study, cell, task, name"
            )
            assert all(count == 1 for _, count in found.rows)
            done = {state.id for state in ledger.tasks.states().values() if state.state == "done"}
        assert self.ever_done.keys() <= done
        for task in done:
            stamp = (self.folder / "runs" / task / "result.json").stat().st_mtime_ns
            assert self.ever_done.setdefault(task, stamp) == stamp, "a finished task was run again"


Driving.TestCase.settings = settings(
    max_examples=12, stateful_step_count=8, deadline=None, print_blob=True
)
TestDriving = Driving.TestCase


def test_a_result_must_be_whole(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"123")
    record = runs.file_record(tmp_path, "x.bin")
    result = runs.TaskResult(fingerprint="s1:" + "0" * 32, attempt=1, files=(record,))
    runs.write_result(tmp_path, result)
    assert runs.read_result(tmp_path, result.fingerprint) == result
    assert runs.read_result(tmp_path, "s1:" + "1" * 32) is None
    (tmp_path / "x.bin").write_bytes(b"1234")
    assert runs.read_result(tmp_path, result.fingerprint) is None
