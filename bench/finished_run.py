"""How fast does a finished study of 10,000 tasks answer? python bench/finished_run.py

Runs the study through the driver with attempts that do nothing but leave a result (in this process,
about a minute), then times whole processes that find nothing left to do: `sweepctl run`, `plan`,
`status` and `results`. Target of issue #2: `run` under 3 s. Also printed: what the driver and the
ledger cost for each task of the first run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepctl import runs
from sweepctl.plan import Left, Plan, Task
from sweepctl.runs import AttemptOutcome, AttemptRequest, MetricValue, TaskResult

STUDY = """\
format: 1
study: finished
axes:
  p: [4, 8]
  c: [{channels}]
  seed: [{seeds}]
data: {{train: photos-train, resolution: 32, images: 4096}}
tokenizer: {{encoder: nano, decoder: nano}}
stages: {{stage1: {{steps: 100, batch: 32, precision: fp32, loss: {{lpips: 0}}}}}}
evaluate: {{reconstruction: {{on: [photos-eval], images: 256, metrics: [psnr]}}}}
"""


def leave_a_result(request: AttemptRequest) -> None:
    """What an attempt leaves behind, without its work."""
    folder = Path(request.folder)
    task = runs.read_json(folder / "task.json")
    (folder / "made.txt").write_text(request.task_id)
    metrics: tuple[MetricValue, ...] = ()
    if request.kind == "reconstruct":
        dataset = task["identity"]["config"]["dataset"]
        value = int(task["fingerprint"][3:11], 16) / 2**28
        metrics = (MetricValue(name="psnr", dataset=dataset, protocol="lite0", value=value, n=256),)
    runs.write_result(
        folder,
        TaskResult(
            fingerprint=task["fingerprint"],
            attempt=request.attempt,
            files=(runs.file_record(folder, "made.txt"),),
            metrics=metrics,
        ),
    )
    runs.write_json(
        runs.attempt_folder(folder, request.attempt) / "outcome.json",
        AttemptOutcome(task_id=request.task_id, attempt=request.attempt, state="done"),
    )


class Counting:
    """A watcher that says now and then how far the study is."""

    def started(self, total: int, done: int) -> None:
        self.total, self.done = total, done

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr)

    def submitted(self, task: Task, attempt: int) -> None:
        pass

    def alive(self) -> None:
        pass

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        pass

    def left(self, left: Left) -> None:
        pass

    def grown(self, tasks: int, done: int) -> None:
        return None

    def ended(self, task: Task, outcome: AttemptOutcome, *, retry_in_s: float | None) -> None:
        if outcome.state != "done":
            raise SystemExit(f"an attempt that does nothing failed: {outcome}")
        self.done += 1
        if self.done % 1000 == 0:
            print(f"{self.done:,} of {self.total:,} tasks", file=sys.stderr)


def write_study(folder: Path, seeds: int) -> Path:
    """A study of 2 x 50 x `seeds` cells, each with two tasks of its own."""
    file = folder / "finished.yaml"
    channels = ", ".join(str(number) for number in range(1, 51))
    file.write_text(STUDY.format(channels=channels, seeds=", ".join(map(str, range(seeds)))))
    return file


def plan_of(file: Path) -> Plan:
    from sweepctl.datasets import data_identities
    from sweepctl.plan import make_plan
    from sweepctl.study import load_study

    data = data_identities()
    return make_plan(load_study(file, datasets=data), data=data)


def finish(file: Path) -> None:
    """Run the study to its end with the driver, as `sweepctl run` does."""
    from sweepctl.execute import Settings, run_study
    from sweepctl.ledger import open_ledger
    from sweepctl.tasks import software

    plan = plan_of(file)
    settings = Settings(
        folder=file.parent / "runs",
        where="inline",
        entry="finished_run:leave_a_result",
        preload=None,
    )
    with open_ledger(str(file.parent / "results.db")) as ledger:
        summary = run_study(plan, ledger, settings, Counting(), provenance=software())
    if summary.finished != summary.tasks:
        raise SystemExit(f"the study did not end: {summary}")
    print(
        f"{len(plan.cells):,} cells, {summary.tasks:,} tasks: first run {summary.seconds:.1f} s, "
        f"{1e3 * summary.seconds / summary.tasks:.1f} ms a task that does nothing"
    )


def time_commands(file: Path, times: int) -> None:
    sweepctl = str(Path(sys.executable).with_name("sweepctl"))
    environment = {key: value for key, value in os.environ.items() if "SWEEPCTL" not in key}

    def call(words: list[str]) -> tuple[float, str]:
        started = time.perf_counter()
        done = subprocess.run(
            [sweepctl, *words],
            cwd=file.parent,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return time.perf_counter() - started, done.stderr

    for words in (
        ["run", file.name],
        ["plan", file.name],
        ["status", "finished"],
        ["status"],
        ["results", "finished"],
    ):
        seconds, said = zip(*(call(words) for _ in range(times)), strict=True)
        if words[0] == "run" and not all("nothing to do" in text for text in said):
            raise SystemExit(f"sweepctl run found something to do:\n{said[0]}")
        print(
            f"sweepctl {' '.join(words):<20} median {statistics.median(seconds):.2f} s, "
            f"fastest {min(seconds):.2f} s, slowest {max(seconds):.2f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50, help="seeds; 200 tasks each (50)")
    parser.add_argument("--times", type=int, default=5, help="how often each command is timed (5)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweepctl-finished-") as folder:
        file = write_study(Path(folder), given.seeds)
        finish(file)
        time_commands(file, given.times)


if __name__ == "__main__":
    main()
