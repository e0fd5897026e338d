"""Does a learning rate that is a rule follow the batch of its stage, and say so?"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies import DATA, load, plan_of, write
from sweepctl.datasets import data_identities
from sweepctl.errors import StudyError
from sweepctl.paths import get
from sweepctl.plan import Cell, Trial, make_plan
from sweepctl.study import load_study, value_at
from vitok_core.settings import LR_RULE

Call = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).resolve().parent.parent
LR = "stages.stage1.optimiser.lr"
STUDY = """\
format: 1
study: small
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 10, batch: 64, optimiser: {lr: {per_256: 1e-3}}, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr]}
"""


def with_lr(text: str) -> str:
    return STUDY.replace("{per_256: 1e-3}", text)


def cells_of(folder: Path, text: str, *overrides: str) -> tuple[Cell, ...]:
    return plan_of(folder, text, *overrides).cells


def cell_of(folder: Path, text: str, *overrides: str) -> Cell:
    (cell,) = cells_of(folder, text, *overrides)
    return cell


def lrs(cells: tuple[Cell, ...], path: str = LR) -> list[float]:
    return [get(cell.config, path) for cell in cells]


def mistake(folder: Path, text: str, *overrides: str) -> str:
    """The only mistake of a study, with its place."""
    with pytest.raises(StudyError) as caught:
        make_plan(load(folder, text, *overrides), data=DATA)
    (problem,) = caught.value.problems
    return str(problem).split("\n")[0].split("study.yaml:")[-1]


def test_the_rate_follows_the_batch_wherever_that_is_set(tmp_path: Path) -> None:
    assert lrs(cells_of(tmp_path, STUDY)) == [2.5e-4]
    assert lrs(cells_of(tmp_path, STUDY, "stages.stage1.batch=256")) == [1e-3]
    assert lrs(cells_of(tmp_path, STUDY + "axes: {batch: [64, 512]}\n")) == [2.5e-4, 2e-3]
    when = STUDY + "axes: {p: [4, 8]}\nwhen: [{if: {p: 4}, set: {batch: 32}}]\n"
    assert lrs(cells_of(tmp_path, when)) == [1.25e-4, 2.5e-4]
    assert lrs(cells_of(tmp_path, when.replace("batch: 32", "lr: {per_256: 4e-3}"))) == [
        1e-3,
        2.5e-4,
    ]


def test_every_optimiser_has_the_rule_and_follows_its_own_stage(tmp_path: Path) -> None:
    text = STUDY.replace(
        "evaluate:",
        "  stage2: {steps: 10, batch: 32, optimiser: {lr: {per_256: 8e-4}},"
        " discriminator: {lr: {per_256: 8e-5}}}\n"
        "  dit: {steps: 10, size: nano, batch: 16, class_dropout: 0,"
        " optimiser: {lr: {per_256: 16e-4}}}\nevaluate:",
    )
    cell = cell_of(tmp_path, text)
    assert {path: get(cell.config, path) for path in cell.rules} == {
        LR: 2.5e-4,
        "stages.stage2.optimiser.lr": 1e-4,
        "stages.stage2.discriminator.lr": 1e-5,
        "stages.dit.optimiser.lr": 1e-4,
    }


def test_the_end_of_the_rate_follows_the_rate_that_comes_out(tmp_path: Path) -> None:
    end = LR.replace("lr", "final_lr")
    assert get(cell_of(tmp_path, STUDY).config, end) == 1e-5
    assert get(cell_of(tmp_path, with_lr("{per_256: 1e-5}")).config, end) == 2.5e-6
    assert get(cell_of(tmp_path, with_lr("{per_256: 1e-5}"), "batch=512").config, end) == 1e-5


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(digits=st.integers(1, 999), places=st.integers(3, 8), batch=st.integers(1, 5000))
def test_a_rule_and_the_number_it_gives_are_one_task(
    digits: int, places: int, batch: int, tmp_path: Path
) -> None:
    number = f"{digits}e-{places}"
    rate = Decimal(number) * batch / 256  # a whole number of binary digits: exact
    if rate > 1:
        return
    ruled = plan_of(tmp_path, with_lr(f"{{per_256: {number}}}"), f"batch={batch}")
    plain = plan_of(tmp_path, with_lr(f"{rate:e}"), f"batch={batch}")
    assert ruled.tasks.keys() == plain.tasks.keys()
    assert ruled.cells[0].key == plain.cells[0].key
    assert not plain.cells[0].rules and ruled.cells[0].rules == {LR: {"per_256": float(number)}}


def test_the_number_of_a_rule_is_an_axis_and_can_be_matched(tmp_path: Path) -> None:
    text = with_lr("5e-4") + "axes:\n  batch: [64, 256]\n  lr.per_256: [1e-3, 2e-3]\n"
    cells = cells_of(tmp_path, text)
    assert [dict(cell.axes) for cell in cells[:2]] == [
        {"batch": 64, "lr.per_256": 1e-3},
        {"batch": 64, "lr.per_256": 2e-3},
    ]
    assert lrs(cells) == [2.5e-4, 5e-4, 1e-3, 2e-3]
    assert lrs(cells_of(tmp_path, text + "exclude: [{lr.per_256: 1e-3}]\n")) == [5e-4, 2e-3]
    assert lrs(cells_of(tmp_path, text + "exclude: [{lr: '>= 1e-3'}]\n")) == [2.5e-4, 5e-4]
    zipped = STUDY + "zip: [{p: [4, 8], lr.per_256: [1e-3, 4e-3]}]\n"
    assert lrs(cells_of(tmp_path, zipped)) == [2.5e-4, 1e-3]
    fit = "fits: {law: {metric: psnr, on: photos-eval, x: lr.per_256, form: semilog}}\n"
    assert len(cells_of(tmp_path, text + fit)) == 4


def test_numbers_and_rules_replace_each_other(tmp_path: Path) -> None:
    write(tmp_path, STUDY, "base.yaml")
    over = "format: 1\nstudy: over\nbase: base.yaml\nstages: {stage1: {optimiser: {lr: NEW}}}\n"
    assert lrs(cells_of(tmp_path, over.replace("NEW", "0.5"))) == [0.5]
    write(tmp_path, with_lr("0.5"), "base.yaml")
    assert lrs(cells_of(tmp_path, over.replace("NEW", "{per_256: 4e-3}"))) == [1e-3]
    assert lrs(cells_of(tmp_path, with_lr("0.5"), "lr.per_256=4e-3")) == [1e-3]
    assert lrs(cells_of(tmp_path, STUDY, "lr.per_256=4e-3")) == [1e-3]
    assert lrs(cells_of(tmp_path, STUDY, "lr=0.5")) == [0.5]
    assert lrs(cells_of(tmp_path, STUDY, "lr={per_256: 4e-3}")) == [1e-3]


def test_a_search_varies_batch_and_rule(tmp_path: Path) -> None:
    text = STUDY + (
        "search:\n  sampler: random\n  trials: 4\n  objectives: [{metric: psnr}]\n  space:\n"
        "    batch: [64, 256]\n    lr.per_256: {low: 1e-4, high: 1e-2, log: true}\n"
    )
    rule = f"{LR}.per_256"
    trials = [
        Trial(axes={}, values={"stages.stage1.batch": batch, rule: number})
        for batch, number in ((64, 1e-3), (256, 2e-4))
    ]
    cells = make_plan(load(tmp_path, text), data=DATA, trials=trials).cells
    assert lrs(cells) == [2.5e-4, 2e-4]
    assert [cell.axes["lr.per_256"] for cell in cells] == [1e-3, 2e-4]
    # A finished cell is read as a point of such a space, whatever its study says.
    config = cell_of(tmp_path, with_lr("2.5e-4")).config
    assert value_at(config, rule) == 1e-3
    conditional = text.replace("log: true", "log: true, if: {batch: 64}")
    (other,) = make_plan(load(tmp_path, conditional), data=DATA, trials=trials[1:]).cells
    assert lrs((other,)) == [1e-3] and other.axes["lr.per_256"] == 1e-3


AXES = "axes: {lr.per_256: [1e-3]"
SPACE = "search: {sampler: random, trials: 2, objectives: [{metric: psnr}], space: {"
MISTAKES = {
    "a name": (with_lr("{per_25: 1e-3}"), "unknown key 'per_25' (did you mean 'per_256'?)"),
    "no number": (with_lr("{}"), "the key 'per_256' is missing"),
    "zero": (with_lr("{per_256: 0}"), "lr.per_256: must be above 0.0, not 0"),
    "a text": (with_lr("{per_256: fast}"), "needs a number, not the text 'fast'"),
    "an axis of rules": (
        STUDY + "axes: {lr: [1e-3, {per_256: 1e-3}]}\n",
        "a rule is varied by its number: write lr.per_256: [...] instead",
    ),
    "a choice of rules": (
        STUDY + SPACE + "lr: [1e-3, {per_256: 1e-3}]}}\n",
        "a rule is varied by its number: write lr.per_256: [...] instead",
    ),
    "two axes": (
        STUDY + AXES + ", lr: [1e-3]}\n",
        f"{LR} and {LR}.per_256 set the same value; only one of them can be an axis",
    ),
    "searched and gridded": (
        STUDY + AXES + "}\n" + SPACE + "lr: {low: 1e-4, high: 1e-3}}}\n",
        f"{LR} is an axis, too; it is either searched or gridded",
    ),
    "above 1": (
        with_lr("{per_256: 0.5}").replace("batch: 64", "batch: 1024"),
        "lr: lr = 2 at this batch is above 1; lower per_256",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_rule_is_one_mistake_at_its_place(name: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[name]
    said = mistake(tmp_path, text)
    assert expected in said and said.split(":")[0].isdigit(), said


def test_an_override_of_a_value_that_is_varied_by_its_rule_is_refused(tmp_path: Path) -> None:
    said = mistake(tmp_path, STUDY + AXES + "}\n", "lr=1e-3")
    assert said.endswith("lr.per_256 is an axis here; set axes.lr.per_256=[...] instead")


def test_plan_and_show_tell_the_rule_and_its_number(call: Call, tmp_path: Path) -> None:
    write(tmp_path, STUDY + "axes: {batch: [64, 512]}\n", "my.yaml")
    _, out, err = call("plan", "my.yaml")
    assert f"{LR}: 0.001 per 256 is 0.00025 at batch 64 (1 cell)" in out + err
    told = json.loads(call("plan", "my.yaml", "--json")[1])["ruled_rates"]
    assert told[1] == {"path": LR, "per_256": 1e-3, "batch": 512, "lr": 2e-3, "cells": 1}
    _, out, _ = call("show", "my.yaml", "--cell", "2")
    (line,) = [one for one in out.splitlines() if one.startswith(f"{LR}\t")]
    assert "0.002 (per_256: 0.001)" in line and "my.yaml:6:" in line
    rows = json.loads(call("show", "my.yaml", "--cell", "2", "--json")[1])["config"]
    (row,) = [row for row in rows if row["path"] == LR]
    assert (row["value"], row["rule"]) == (2e-3, {"per_256": 1e-3})
    write(tmp_path, STUDY + "axes: {lr.per_256: [1e-3, 2e-3]}\n", "my.yaml")
    _, out, _ = call("show", "my.yaml", "lr.per_256=0.002")
    (line,) = [one for one in out.splitlines() if one.startswith(f"{LR}\t")]
    assert "0.0005 (per_256: 0.002)" in line and "my.yaml:9:" in line


@pytest.mark.parametrize(
    ("study", "changes", "expected"),
    [
        ("figure-4.yaml", (), 4e-4),
        ("figure-4.yaml", ("stages.stage1.batch=256",), 1e-4),
        ("figure-4.yaml", ("stages.stage1.batch=96",), 3.75e-5),
    ],
)
def test_the_rates_of_the_paper_are_rules(
    study: str, changes: tuple[str, ...], expected: float
) -> None:
    data = data_identities()
    file = load_study(ROOT / "studies" / "paper" / study, overrides=changes, datasets=data)
    cells: Any = make_plan(file, data=data).cells
    assert set(lrs(cells)) == {expected} and cells[0].rules[LR] == {"per_256": 1e-4}


@given(rate=st.floats(1e-9, 1), batch=st.integers(1, 10**6))
def test_the_rule_of_a_rate_gives_that_rate(rate: float, batch: int) -> None:
    assert LR_RULE.rate(LR_RULE.number(rate, batch), batch) == pytest.approx(rate, rel=1e-15)
