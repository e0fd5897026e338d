"""Are trackers told everything, and can a bad one do no harm?"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import studies
from sweepctl.errors import UsageError
from sweepctl.trackers import RunInfo, Trackers, check_trackers, flat, make_tracker


class Remembering:
    """Keeps what it is told."""

    def __init__(self, told: list[tuple[Any, ...]]) -> None:
        self.told = told

    def start(self, run: RunInfo) -> None:
        self.told.append(("start", run.id))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(("scalars", step, dict(values)))

    def images(self, step: int, name: str, files: Sequence[Path]) -> None:
        self.told.append(("images", step, name, len(files)))

    def finish(self, status: str) -> None:
        self.told.append(("finish", status))


class Failing(Remembering):
    """Raises at the second number."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        super().scalars(step, values)
        raise RuntimeError("no route to host\nand more")


def info(folder: Path, name: str = "stage1-1") -> RunInfo:
    return RunInfo(
        id=name, name="label", study="small", kind="stage1", config={"a": {"b": 1}}, folder=folder
    )


def test_events_reach_a_tracker_in_order_without_what_is_no_number(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    notes: list[str] = []
    trackers = Trackers(["one"], note=notes.append, make=lambda name: Remembering(told))
    trackers.start(info(tmp_path))
    trackers.event("stage1-1", {"step": 1, "steps": 9, "loss": 0.5, "eta_s": 3.0, "t": 1.0})
    trackers.event("stage1-1", {"step": 2, "loss": float("nan")})
    trackers.event("stage1-1", {"note": "no step"})
    trackers.numbers("stage1-1", 9, {"psnr": 30.0, "bad": float("inf")})
    trackers.images("stage1-1", 9, "sheet", [tmp_path / "a.png"])
    trackers.finish("stage1-1", "done")
    trackers.close()
    assert told == [
        ("start", "stage1-1"),
        ("scalars", 1, {"loss": 0.5}),
        ("scalars", 9, {"psnr": 30.0}),
        ("images", 9, "sheet", 1),
        ("finish", "done"),
    ]
    assert notes == []


def test_one_that_raises_is_dropped_with_a_note_and_the_others_go_on(tmp_path: Path) -> None:
    told: dict[str, list[tuple[Any, ...]]] = {"bad": [], "good": []}
    notes: list[str] = []

    def make(name: str) -> Remembering:
        return (Failing if name == "bad" else Remembering)(told[name])

    trackers = Trackers(["bad", "good"], note=notes.append, make=make)
    trackers.start(info(tmp_path))
    for step in (1, 2, 3):
        trackers.event("stage1-1", {"step": step, "loss": 1.0})
    trackers.finish("stage1-1", "done")
    trackers.close()
    assert [what for what, *_ in told["bad"]] == ["start", "scalars"]
    assert [what for what, *_ in told["good"]] == ["start", *["scalars"] * 3, "finish"]
    assert notes == ["the tracker bad is removed, the study continues: no route to host"]


def test_one_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweepctl.trackers._GOODBYE_S", 0.2)
    go_on = threading.Event()
    notes: list[str] = []

    class Hanging(Remembering):
        def start(self, run: RunInfo) -> None:
            go_on.wait(30)

    trackers = Trackers(["one"], note=notes.append, make=lambda name: Hanging([]))
    trackers.start(info(tmp_path))
    began = time.monotonic()
    for step in range(5_000):
        trackers.event("stage1-1", {"step": step, "loss": 1.0})
    trackers.close()
    assert time.monotonic() - began < 10
    assert "did not finish" in notes[0]
    go_on.set()


def test_attempts_that_never_ended_are_finished_as_stopped(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    trackers = Trackers(["one"], note=print, make=lambda name: Remembering(told))
    trackers.start(info(tmp_path))
    trackers.close()
    assert told[-1] == ("finish", "stopped")


def test_unknown_and_missing_trackers_are_refused_before_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="no tracker 'mlflow'"):
        check_trackers(["mlflow"])
    monkeypatch.setattr("sweepctl.trackers.TRACKERS", {"wandb": "no_such_package_at_all"})
    with pytest.raises(UsageError, match="not installed") as refused:
        make_tracker("wandb")
    assert refused.value.hint == "pip install 'sweepctl[wandb]'"


def test_a_config_becomes_flat() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def picture(folder: Path) -> Path:
    from PIL import Image

    file = folder / "step-1.png"
    Image.new("RGB", (8, 6), "red").save(file)
    return file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TensorBoard's reader
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "runs" / "stage1-1"
    folder.mkdir(parents=True)
    tracker = make_tracker("tensorboard")
    tracker.start(info(folder))
    tracker.scalars(3, {"loss": 0.25, "psnr": 30.0})
    tracker.images(3, "sheet", [picture(tmp_path)])
    tracker.finish("done")
    read = EventAccumulator(str(tmp_path / "runs" / "tensorboard" / "small" / "stage1-1"))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("loss")] == [(3, 0.25)]
    assert read.Images("sheet")[0].width == 8
    assert {"config/text_summary", "status/text_summary"} <= set(read.Tags()["tensors"])


OFFLINE = """
import sys
from pathlib import Path
from sweepctl.trackers import RunInfo, make_tracker
folder = Path(sys.argv[2]) / "runs" / "stage1-1"
folder.mkdir(parents=True)
for name in ("stage1-1", "stage1-2"):
    tracker = make_tracker(sys.argv[1])
    tracker.start(RunInfo(id=name, name="label", study="small", kind="stage1", config={"a": 1},
                          folder=folder))
    tracker.scalars(1, {"loss": 0.5})
    tracker.images(1, "sheet", [Path(sys.argv[3])])
    tracker.finish("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_other_trackers_take_what_they_are_told(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    import os

    environment = {
        **os.environ,
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, name, str(tmp_path), str(picture(tmp_path))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".wandb", ".db")]
    assert written


def test_a_run_tells_its_tracker_and_ends_as_without(tmp_path: Path) -> None:
    """The real driver with attempts that only leave results, and a tracker that raises."""
    from sweepctl import execute
    from sweepctl.cli._progress import PlainWatcher, TrackingWatcher
    from sweepctl.ledger import open_ledger

    told: list[tuple[Any, ...]] = []
    notes: list[str] = []
    trackers = Trackers(
        ["bad", "good"],
        note=notes.append,
        make=lambda name: (Failing if name == "bad" else Remembering)(told),
    )
    plan = studies.plan_of(tmp_path)
    watcher = TrackingWatcher(PlainWatcher(quiet=True), trackers, "small", tmp_path / "runs")
    settings = execute.Settings(
        folder=tmp_path / "runs", where="inline", entry="execute_entries:run", preload=None
    )
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        summary = execute.run_study(plan, ledger, settings, watcher, provenance={"code": "x"})
    trackers.close()
    assert summary.finished == len(plan.tasks) and not summary.failed
    begun = [entry for entry in told if entry[0] == "start"]
    assert {name for _, name in begun} == {task.id for task in plan.tasks.values()}
