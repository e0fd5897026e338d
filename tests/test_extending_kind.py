"""A kind of task added from outside, by a record, a planner and a function of what it does."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import SMALL, write
from sweepctl import cli
from sweepctl.kinds import KINDS, Kind
from sweepctl.ledger import open_ledger
from sweepctl.plan import PLANNERS, CellTasks, Cost
from sweepctl.runs import MetricValue
from sweepctl.tasks import TASKS, Made, Work

STUDY = SMALL.replace("p: [4, 8]", "p: [8]").replace(
    "metrics: [psnr, rfd_lite0]", "metrics: [psnr]"
)

NORM = Kind(name="norm", work="measure", priority=2, in_only=True, measures="tokenizer")
"""Measures how large the weights of the final tokenizer are."""


def plan_norm(cell: CellTasks) -> None:
    (dataset, *_) = cell.config["evaluate"]["reconstruction"]["on"]
    if "tokenizer" in cell.weights:
        cell.add(
            "norm",
            f"norm of {cell.point.spec.variant}",
            {"power": 2},
            dataset=dataset,
            parents={"tokenizer": cell.weights["tokenizer"]},
            cost=Cost(parameters=cell.point.spec.parameters),
        )


def norm(work: Work) -> Made:
    from vitok_core.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(work.parents["tokenizer"] / "weights.safetensors", work.device)
    power = work.identity["config"]["power"]
    total = sum(float((weight.detach() ** power).sum()) for weight in tokenizer.parameters())
    value = MetricValue(
        name="weight_norm",
        dataset="photos-eval",
        protocol="lite0",
        value=total ** (1 / power),
        n=tokenizer.spec.parameters,
    )
    return Made(files=(), metrics=(value,), values={})


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """The command line in a folder of its own, with one kind more."""
    monkeypatch.setitem(KINDS, NORM.name, NORM)
    monkeypatch.setitem(PLANNERS, NORM.name, plan_norm)
    monkeypatch.setitem(TASKS, NORM.name, norm)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        told = capsys.readouterr()
        assert not ended.value.code, told.err
        return told.out

    return run


def test_a_kind_from_outside_is_planned_run_recorded_and_shown(
    call: Callable[..., str], tmp_path: Path
) -> None:
    file = write(tmp_path, STUDY, "small.yaml")
    planned = {
        line["stage"]: line for line in json.loads(call("plan", str(file), "--json"))["stages"]
    }
    assert planned["norm"]["tasks"] == planned["norm"]["cells"] == 2
    assert planned["reconstruct"]["tasks"] == 2
    call("run", str(file), "--cluster", "inline", "-q")
    status = json.loads(call("status", "small", "--json"))
    assert [cell["state"] for cell in status["cells"]] == ["done", "done"]
    rows = list(csv.DictReader(io.StringIO(call(*["results", "small", "-f", "csv"]))))
    assert [row["cell"] for row in rows] == ["1", "2"]
    assert all(float(row["weight_norm"]) > 1 and row["state"] == "done" for row in rows)
    with open_ledger("results.db") as ledger:
        frame = ledger.cells.frame("small")
    behind = {name: list(rows.training_flops) for name, rows in frame.groupby("metric")}
    assert behind["weight_norm"] == behind["psnr"] and min(behind["psnr"]) > 0
