"""Progress of a run: a live display on a terminal, plain lines elsewhere, experiment trackers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.cli._time_left import left_in_words
from sweepctl.plan import Left, Task
from sweepctl.runs import AttemptOutcome, read_result
from sweepctl.trackers import RunInfo, Trackers

if TYPE_CHECKING:
    from sweepctl.execute import Watcher

HEARTBEAT_S = 60.0
"""Seconds without an event after which a run off a terminal reports that it is alive."""


class PlainWatcher:
    """One line per transition on stderr, and a heartbeat; for pipes, logs and batch jobs."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.total = self.done = 0
        self.running: dict[str, str] = {}
        self.rest = ""
        self.started_s = self.spoke_s = time.monotonic()

    def __enter__(self) -> PlainWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def _say(self, text: str) -> None:
        self.spoke_s = time.monotonic()
        if self.quiet:
            return
        try:
            sys.stderr.write(f"[{_clock(self.spoke_s - self.started_s)}] {text}\n")
            sys.stderr.flush()
        except BrokenPipeError:
            self.quiet = True  # the reader has gone; the study continues

    def started(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        if done < total:
            self._say(f"{total} tasks, {done} done already, {total - done} to do")

    def notice(self, text: str) -> None:
        self._say(text)

    def grown(self, tasks: int, done: int) -> None:
        self.total, self.done = tasks, done

    def submitted(self, task: Task, attempt: int) -> None:
        self.running[task.id] = ""
        again = f", attempt {attempt}" if attempt > 1 else ""
        self._say(f"start  {task.id}  {task.label}{again}")

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        self.running[task.id] = describe(event)

    def alive(self) -> None:
        if time.monotonic() - self.spoke_s > HEARTBEAT_S:
            held = "; ".join(f"{name} {said}".strip() for name, said in self.running.items())
            self._say(f"{self.done}/{self.total} done{self.rest}; {held}")

    def left(self, left: Left) -> None:
        said = left_in_words(left)
        self.rest = f", {said}" if said else ""

    def ended(self, task: Task, outcome: AttemptOutcome, *, retry_in_s: float | None) -> None:
        self.running.pop(task.id, None)
        self.done += outcome.state == "done"
        self._say(f"{verdict(outcome, retry_in_s)}  {task.id}  {task.label}  {self._count()}")

    def _count(self) -> str:
        return f"({self.done}/{self.total})"


class LiveWatcher:
    """A bar for the study and one for each running task, redrawn in place on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self.study: Any = None
        self.rows: dict[str, Any] = {}

    def __enter__(self) -> LiveWatcher:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, total: int, done: int) -> None:
        self.study = self.bars.add_task("study", total=total, completed=done, said="tasks")

    def notice(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def grown(self, tasks: int, done: int) -> None:
        self.bars.update(self.study, total=tasks, completed=done)

    def submitted(self, task: Task, attempt: int) -> None:
        self.rows[task.id] = self.bars.add_task(f"  {task.kind}  {task.label}", total=None, said="")

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        if task.id in self.rows:
            self.bars.update(
                self.rows[task.id],
                completed=event.get("step", 0),
                total=event.get("steps"),
                said=describe(event, counted=True),
            )

    def alive(self) -> None:
        """Nothing to do: the clocks of the bars run by themselves."""

    def left(self, left: Left) -> None:
        said = left_in_words(left)
        self.bars.update(self.study, said=f"tasks, {said}" if said else "tasks")

    def ended(self, task: Task, outcome: AttemptOutcome, *, retry_in_s: float | None) -> None:
        row = self.rows.pop(task.id, None)
        if row is not None:
            self.bars.remove_task(row)
        if outcome.state == "done":
            self.bars.advance(self.study)
        self.console.print(
            f"{verdict(outcome, retry_in_s)}  {task.kind}  {task.label}",
            markup=False,
            highlight=False,
        )


class TrackingWatcher:
    """A watcher that also logs to experiment trackers, which cannot hold it up."""

    def __init__(self, inner: Watcher, trackers: Trackers, study: str, runs: Path) -> None:
        self.inner = inner
        self.trackers = trackers
        self.study = study
        self.runs = runs
        self.attempts: dict[str, str] = {}
        self.steps: dict[str, int] = {}

    def started(self, total: int, done: int) -> None:
        self.inner.started(total, done)

    def notice(self, text: str) -> None:
        self.inner.notice(text)

    def grown(self, tasks: int, done: int) -> None:
        self.inner.grown(tasks, done)

    def submitted(self, task: Task, attempt: int) -> None:
        self.inner.submitted(task, attempt)
        run = task.id if attempt == 1 else f"{task.id}-{attempt}"
        self.attempts[task.id] = run
        self.trackers.start(
            RunInfo(
                id=run,
                name=task.label,
                study=self.study,
                kind=task.kind,
                config=json.loads(task.identity).get("config", {}),
                folder=self.runs / task.id,
            )
        )

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        self.inner.progress(task, event)
        self.steps[task.id] = int(event.get("step") or 0)
        self.trackers.event(self.attempts.get(task.id, task.id), event)

    def alive(self) -> None:
        self.inner.alive()

    def left(self, left: Left) -> None:
        self.inner.left(left)

    def ended(self, task: Task, outcome: AttemptOutcome, *, retry_in_s: float | None) -> None:
        self.inner.ended(task, outcome, retry_in_s=retry_in_s)
        run = self.attempts.pop(task.id, task.id)
        step = self.steps.pop(task.id, 0)
        folder = self.runs / task.id
        result = read_result(folder, task.fingerprint) if outcome.state == "done" else None
        if result is not None:
            numbers = {f"{one.name} on {one.dataset}": one.value for one in result.metrics}
            parts = result.values.get("parts_recent")
            if isinstance(parts, Mapping):
                numbers |= {f"final {name}": value for name, value in parts.items()}
            self.trackers.numbers(run, step, numbers)
            for sheet in sorted((folder / "sheets").glob("*.png")):
                self.trackers.images(run, step, sheet.stem, [sheet])
        self.trackers.finish(run, outcome.state)


def verdict(outcome: AttemptOutcome, retry_in_s: float | None) -> str:
    """How an attempt ended, in a few words."""
    took = f"{outcome.seconds:.1f} s"
    if outcome.state == "done":
        return f"done   {took}"
    if outcome.state == "stopped":
        return f"paused {took}"
    again = f", again in {retry_in_s:.0f} s" if retry_in_s is not None else ""
    return f"FAILED {took} ({outcome.failure}: {outcome.message}{again})"


def describe(event: Mapping[str, Any], *, counted: bool = False) -> str:
    """A progress event in a few words; without the step where a bar shows it."""
    said = []
    if not counted and event.get("steps"):
        said.append(f"{event.get('step', 0)}/{event['steps']}")
    if event.get("loss") is not None:
        said.append(f"loss {event['loss']:.4g}")
    if event.get("samples_per_s"):
        said.append(f"{event['samples_per_s']:.0f} samples/s")
    if event.get("eta_s"):
        said.append(f"{_clock(event['eta_s'])} left")
    return " ".join(said)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
