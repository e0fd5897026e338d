"""Is what fitted a device remembered, and does the next training of the same begin with it?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ledger_plans import make_plan, submission

from studies import DATA, SMALL, load, plan_of, write
from sweepctl.ledger import open_ledger
from sweepctl.plan import configuration, memory_on
from sweepctl.plan import make_plan as plan_study
from sweepctl.runs import Fitted
from vitok_core.tokenizer import ViTok

Call = Callable[..., tuple[int, str, str]]

STUDY = SMALL.replace("p: [4, 8]\n  c: [4, 16]", "seed: [0, 1]").replace(
    "tokenizer: {encoder", "tokenizer: {p: 8, c: 4, encoder"
)
STUDY = STUDY[: STUDY.index("fits:")].replace("steps: 10", "steps: 3").replace(", rfd_lite0", "")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def shrink(monkeypatch: pytest.MonkeyPatch, most: int, dies_after: int | None = None) -> None:
    """A device that holds `most` samples; perhaps it fails after so many passes in all."""
    whole, seen = ViTok.forward, iter(range(10**6))

    def forward(self: Any, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if self.training and len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.training and dies_after is not None and next(seen) >= dies_after:
            raise RuntimeError("something else")
        return whole(self, x, *rest, **named)

    monkeypatch.setattr(ViTok, "forward", forward)


def rows(call: Call, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call("query", "-f", "json", sql)[1])
    return found


FITTED = "select micro_batch, recompute, ranks, memory_bytes, kind from v_fitted"
KEPT = {"micro_batch": 2, "recompute": 0, "ranks": 1, "memory_bytes": 0, "kind": "stage1"}


def test_a_study_remembers_and_uses_no_try(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, most=3)
    file = str(write(tmp_path, STUDY))
    code, _, err = call("run", file, "--cluster", "inline", "--device", "cpu")
    assert code == 0, err
    assert rows(call, "select distinct attempts from v_task") == [{"attempts": 1}]
    assert [row | {"recompute": 0} for row in rows(call, FITTED)] == [KEPT]
    with open_ledger() as ledger:
        results = [
            json.loads((tmp_path / "runs" / task.id / "result.json").read_text())["values"]
            for task in ledger.tasks.states().values()
            if task.id.startswith("stage1")
        ]
    assert [one["micro_batch"] for one in results] == [2, 2]
    # The first halves twice; the other one begins with what fitted.
    halved = [[e for e in one["events"] if e["kind"] == "out of memory"] for one in results]
    assert sorted(map(len, halved)) == [0, 2]


def test_an_attempt_that_failed_is_remembered_too(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as here:
        shrink(here, most=3, dies_after=9)
        file = str(write(tmp_path, STUDY.replace("[0, 1]", "[0]")))
        assert call("run", file, "--cluster", "inline", "--device", "cpu")[0] == 4
    assert [row | {"recompute": 0} for row in rows(call, FITTED)] == [KEPT]
    assert call("retry", "small")[0] == 0
    shrink(monkeypatch, most=3)
    assert call("run", file, "--cluster", "inline", "--device", "cpu")[0] == 0
    [log] = (tmp_path / "runs").glob("stage1-*/attempts/2/log.txt")
    assert "begins with 2 samples at once, which fitted before" in log.read_text()
    # What a study says itself is never overruled.
    again = STUDY.replace("[0, 1]", "[7]") + "run: {micro_batch: 3}\n"
    assert call("run", str(write(tmp_path, again)), "--cluster", "inline")[0] == 0
    newest = max((tmp_path / "runs").glob("stage1-*"), key=lambda path: path.stat().st_mtime)
    assert "begins with" not in (newest / "attempts/1/log.txt").read_text()


def test_a_key_is_what_takes_memory_and_nothing_else(tmp_path: Path) -> None:
    def key(*changes: str) -> set[str | None]:
        made = plan_study(load(tmp_path, STUDY, *changes), data=DATA)
        return {configuration(task) for task in made.tasks.values()} - {None}

    [same] = key()
    assert key("stages.stage1.steps=7") == {same}
    assert key("stages.stage1.optimiser.lr=0.5") == {same}
    for change in ("batch=16", "precision=bf16", "compile=true", "ema=0.9"):
        assert same not in key(f"stages.stage1.{change}"), change
    assert same not in key("tokenizer.decoder=tiny")


def test_the_ledger_keeps_the_newest(database: str) -> None:
    first = Fitted(device_name="A", memory_bytes=80, ranks=1, micro_batch=4, recompute=False)
    with open_ledger(database) as ledger:
        plan = make_plan()
        ledger.studies.record(plan, submission())
        task = next(iter(plan.tasks))
        assert ledger.fitted.of(["k"]) == {}
        ledger.fitted.keep(task, "k", first)
        newer = dataclasses.replace(first, micro_batch=2, peak_bytes=7, free_bytes=70)
        ledger.fitted.keep(task, "k", newer)
        other = dataclasses.replace(first, ranks=2, micro_batch=None, recompute=True)
        ledger.fitted.keep(task, "k", other)
        ledger.fitted.keep(task, "another", first)
        assert ledger.fitted.of(["k", "none"]) == {"k": (newer, other)}
        found = ledger.query("select configuration, micro_batch from v_fitted where ranks = 1")
        assert sorted(found.rows) == [("another", 4), ("k", 2)]


def test_a_plan_prefers_what_was_measured(tmp_path: Path) -> None:
    tasks = [(task, {}) for task in plan_of(tmp_path).tasks.values()]
    keys = {configuration(task) for task, _ in tasks} - {None}
    [line] = memory_on(tasks, 80 * 10**9)
    assert (line.measured, line.trainings) == (0, 4)
    [line] = memory_on(tasks, 80 * 10**9, {sorted(filter(None, keys))[0]: (3, True, 12345)})
    assert (line.measured, line.recomputed) == (1, 1)
    assert line.smallest is not None
    assert (line.smallest.micro_batch, line.smallest.bytes, line.smallest.batch) == (3, 12345, 8)
    # A study that says numbers itself gets the closed form of those.
    given = [(task, {"stage1": (2, False)}) for task, _ in tasks]
    [line] = memory_on(given, 80 * 10**9, {key: (3, True, 12345) for key in keys if key})
    assert line.measured == 0
