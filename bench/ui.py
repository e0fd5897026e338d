"""How fast does the dashboard answer on a large ledger? python bench/ui.py [--keep FOLDER]

Fills a ledger with a study of 2,000 cells (half of it still running) and 5 million metric rows,
then asks the application as a browser would: the first page, polls that find nothing new, polls
after each of a driver's commits, memory over 500 polls, and how long a driver's commit takes with
and without somebody who looks. Targets of issue #8: first page under 1 s, poll under 100 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import random
import resource
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweepctl.plan import Plan

STUDY = """\
format: 1
study: large
question: Does the dashboard hold two thousand cells?
axes:
  p: [4, 8]
  c: [{channels}]
  seed: [{seeds}]
data: {{train: photos-train, resolution: 32, images: 4096}}
tokenizer: {{encoder: nano, decoder: nano}}
stages: {{stage1: {{steps: 1000, batch: 32, precision: fp32, loss: {{lpips: 0}}}}}}
evaluate: {{reconstruction: {{on: [photos-eval], images: 256, metrics: [psnr, ssim]}}}}
fits:
  psnr: {{metric: psnr, on: photos-eval, form: semilog}}
claims:
  - {{name: E helps, fit: psnr, slope: positive}}
"""
CELLS, ROWS, POLLS = 2_000, 5_000_000, 500
WARM_S = 3.0  # until a browser has been opened
CURVES = ("grad", "kl", "loss", "lpips", "pixel")


def fill(folder: Path, rows: int) -> str:
    """A ledger in which the first half of the cells is done and eight tasks run."""
    from sweepctl.datasets import data_identities
    from sweepctl.ledger import Submission, open_ledger
    from sweepctl.plan import make_plan
    from sweepctl.study import load_study

    study = folder / "large.yaml"
    channels = ", ".join(str(2 * n) for n in range(1, 51))
    seeds = ", ".join(map(str, range(CELLS // 100)))
    study.write_text(STUDY.format(channels=channels, seeds=seeds))
    data = data_identities()
    plan = make_plan(load_study(study, datasets=data), data=data)
    assert len(plan.cells) == CELLS
    database = folder / "results.db"
    resolved = plan.study.study.model_dump(mode="json", by_alias=True)
    with open_ledger(str(database)) as ledger:
        ledger.studies.record(plan, Submission(text=study.read_text(), resolved=resolved))
    fill_results(database, plan, rows)
    return str(database)


def fill_results(database: Path, plan: Plan, rows: int) -> None:
    """Results of the first half, by SQL: through the driver it would take a day."""
    half = plan.cells[: CELLS // 2]
    draw = random.Random(0)
    begun = dt.datetime(2026, 1, 1)
    ended = begun + dt.timedelta(hours=1)
    done = sorted({fingerprint for cell in half for fingerprint in cell.tasks.values()})
    running = [cell.tasks["stage1"] for cell in plan.cells[CELLS // 2 : CELLS // 2 + 8]]
    states = [(task, "done") for task in done] + [(task, "running") for task in running]
    many = -(-rows // (len(half) * len(CURVES)))

    def metrics() -> Iterator[tuple[Any, ...]]:
        # In the order of the key: five million rows are appended, not squeezed in.
        finals = {cell.tasks["reconstruct:photos-eval"]: cell.derived.E for cell in half}
        trained = {cell.tasks["stage1"] for cell in half}
        for task in done:
            if task in finals:
                octaves = finals[task].bit_length()
                for name, value in (
                    ("psnr", 10 + 2 * octaves + draw.gauss(0, 1)),
                    ("ssim", min(0.99, 0.2 + 0.05 * octaves)),
                ):
                    yield task, name, "photos-eval", "lite0", -1, value, 256
            if task in trained:
                for name in CURVES:
                    for step in range(1, many + 1):
                        yield task, name, "photos-train", "train", step, 1 / step, 32

    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        connection.executemany(
            "UPDATE sweep_task SET state = ?2, attempts = 1, finished_at = ?3, "
            "result_attempt = CASE WHEN ?2 = 'done' THEN 1 END WHERE fingerprint = ?1",
            [(task, how, str(ended) if how == "done" else None) for task, how in states],
        )
        connection.executemany(
            "INSERT INTO sweep_attempt (task, number, state, message, started_at, ended_at, "
            "seconds, peak_memory_bytes, flops, host, device, device_name, worker, code, log, "
            "step, steps, loss, progress_at, result_values, provenance) VALUES (?, 1, ?, '', ?, "
            "?, 60, 0, 0, 'node', 'cpu', 'cpu', 'w', '', '', ?, 1000, 0.1, ?, '{}', '{}')",
            [
                (
                    task,
                    how,
                    str(begun),
                    *((str(ended), 1000) if how == "done" else (None, 500)),
                    str(begun),
                )
                for task, how in states
            ],
        )
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
            "AND tbl_name = 'sweep_metric'"
        ).fetchall()
        for name, _ in indexes:  # made at the end they take seconds instead of minutes
            connection.execute(f"DROP INDEX {name}")
        connection.executemany(
            "INSERT INTO sweep_metric (task, name, dataset, protocol, step, value, n) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            metrics(),
        )
        for _, sql in indexes:
            connection.execute(sql)
        (count,) = connection.execute("SELECT count(*) FROM sweep_metric").fetchone()
    size = database.stat().st_size / 2**20
    print(
        f"{len(plan.cells):,} cells, {len(plan.tasks):,} tasks, {count:,} metric rows, "
        f"{size:,.0f} MiB"
    )


def resident_mb() -> float:
    """Resident size of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def timed(ask: Callable[[], Any]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


class Driver:
    """Commits the progress of the running tasks as a driver does, and times its commits."""

    def __init__(self, database: str) -> None:
        from sweepctl.ledger import AttemptProgress, open_ledger

        self.ledger = open_ledger(database)
        states = self.ledger.tasks.states(study="large").values()
        self.running = [state.fingerprint for state in states if state.state == "running"]
        self.progress = AttemptProgress
        self.step = 500

    def commit(self) -> float:
        self.step += 1
        told = [
            self.progress(fingerprint=task, attempt=1, step=self.step, steps=100_000, loss=0.1)
            for task in self.running
        ]
        return timed(lambda: self.ledger.attempts.progress(told))


def said(name: str, seconds: list[float]) -> None:
    seconds = sorted(seconds)
    print(
        f"{name:<44} median {1000 * statistics.median(seconds):7.1f} ms   "
        f"p95 {1000 * seconds[int(0.95 * (len(seconds) - 1))]:7.1f} ms   "
        f"max {1000 * seconds[-1]:7.1f} ms   ({len(seconds)})"
    )


def measure(database: str) -> None:
    from starlette.testclient import TestClient

    from sweepctl.ledger import open_ledger
    from sweepctl.ui import application

    ledger = open_ledger(database, create=False, read_only=True)
    app = application(ledger, Path(database).parent / "runs", warm=True)
    time.sleep(WARM_S)
    browser = TestClient(app, base_url="http://localhost")

    def get(path: str, tag: str = "") -> Any:
        answer = browser.get(path, headers={"If-None-Match": tag} if tag else {})
        assert answer.status_code in (200, 304), (path, answer.status_code, answer.text[:300])
        return answer

    said("first page, first time", [timed(lambda: get("/"))])
    said("page of the study, first time", [timed(lambda: get("/study/large"))])
    until = time.monotonic() + 120
    while "being fitted" in get("/study/large/live").text and time.monotonic() < until:
        time.sleep(0.2)
    said("page of the study", [timed(lambda: get("/study/large")) for _ in range(10)])
    said("figure", [timed(lambda: get("/study/large/figure.json")) for _ in range(5)])
    said("a point", [timed(lambda: get("/study/large/point/7")) for _ in range(5)])
    tag = get("/study/large/live").headers["etag"]
    unchanged = [timed(lambda: get("/study/large/live", tag)) for _ in range(50)]
    said("poll, nothing new (304)", unchanged)

    driver = Driver(database)
    alone = [driver.commit() for _ in range(200)]
    spent = []
    for _ in range(20):
        driver.commit()
        started = time.process_time()
        get("/study/large/live")
        spent.append(time.process_time() - started)
    said("poll after a commit, CPU alone", spent)
    before = resident_mb()
    stop, watched, polls = threading.Event(), [], []

    def commit() -> None:
        while not stop.is_set():
            watched.append(driver.commit())
            time.sleep(0.05)

    thread = threading.Thread(target=commit)
    thread.start()
    halfway = 0.0
    for number in range(POLLS):
        polls.append(timed(lambda: get("/study/large/live")))
        time.sleep(0.02)  # a browser waits 2 s; the driver's turn is what is measured
        if number == POLLS // 2:
            halfway = resident_mb()
    stop.set()
    thread.join()
    said("poll after a commit (200)", polls)
    said("a driver's commit, nobody looks", alone)
    said("a driver's commit, beside the polls", watched)
    print(
        f"resident size: {before:.0f} MB before {POLLS} polls, {halfway:.0f} MB halfway, "
        f"{resident_mb():.0f} MB after"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="metric rows")
    parser.add_argument("--keep", type=Path, help="folder of the ledger; one that is there is used")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        database = folder / "results.db"
        if not database.exists():
            took = timed(lambda: fill(folder, given.rows))
            print(f"filled in {took:.0f} s")
        measure(str(database))


if __name__ == "__main__":
    main()
