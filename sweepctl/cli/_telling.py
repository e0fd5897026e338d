"""Who is told beside the person at the terminal? A watcher that passes all on to trackers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.runs import read_result
from sweepctl.trackers import RunInfo, Trackers

if TYPE_CHECKING:
    from sweepctl.execute import Watcher
    from sweepctl.plan import Left, Task
    from sweepctl.runs import AttemptOutcome


class TellingWatcher:
    """A watcher that also tells trackers; what they do with it cannot hold it up."""

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
