"""Which studies are the paper's, and what do they come to and cost? For tests and pages."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from sweepctl.datasets import data_identities
from sweepctl.paper import ConfiguredValue, figure_or_table, published
from sweepctl.plan import (
    Calibration,
    Plan,
    StageMemory,
    make_plan,
    memory_on,
    parse_on,
    total,
)
from sweepctl.study import load_study

FOLDER = Path(__file__).resolve().parent.parent / "studies" / "paper"
FILES = tuple(
    sorted(
        (file for file in FOLDER.glob("*.yaml") if "example" not in file.name),
        key=lambda file: [int(word) if word.isdigit() else word for word in file.stem.split("-")],
    )
)
ON = "8xH100"


@functools.cache
def planned(file: Path) -> Plan:
    """A study of the paper as it is planned where none of its data is."""
    data = data_identities()
    return make_plan(load_study(file, datasets=data), data=data)


@functools.cache
def all_planned() -> tuple[Plan, ...]:
    return tuple(planned(file) for file in FILES)


def points(plan: Plan) -> list[ConfiguredValue]:
    """The numbers that the paper publishes in the figure or table of a study."""
    place = figure_or_table(plan.study_name)
    return [one for one in published() if one.stands_in(place)]


def hours(*plans: Plan) -> str:
    """H100 hours with their range, each task once."""
    whole = total(plans, {}, Calibration([], parse_on(ON)))
    assert whole.hours_low is not None and whole.hours_high is not None
    said = [f"{float(f'{hours:.2g}'):,.0f}" for hours in (whole.hours_low, whole.hours_high)]
    return f"{float(f'{whole.hours:.2g}'):,.0f} ({said[0]} to {said[1]})"


def cost(plan: Plan) -> str:
    """The line of a study's header that says what it costs."""
    count = f"{len(plan.tasks)} tasks"
    if len(plan.cells) > 1:
        count = f"{len(plan.cells)} cells, {count}"
    return f"# Cost: {count}, H100 hours {hours(plan)} by `sweepctl plan FILE --on {ON}`."


def with_cost(file: Path) -> str:
    """The text of a study with its cost line as it should be."""
    return re.sub(r"^# Cost: [^`]*(`[^`]*`\.)?", cost(planned(file)), file.read_text(), flags=re.M)


def memory(plan: Plan) -> list[StageMemory]:
    """What the trainings of a study need of one H100."""
    available = Calibration([], parse_on(ON)).memory_bytes
    assert available is not None
    how = plan.study.study.run.memory
    return memory_on([(task, how) for task in plan.tasks.values()], available)


def at_once(plan: Plan) -> str:
    """Samples of a step that fit one H100 together, per stage."""
    said = []
    for line in memory(plan):
        assert line.smallest is not None and line.largest is not None
        ends = {line.smallest.micro_batch: None, line.largest.micro_batch: None}
        said.append(f"{line.stage} {' to '.join(map(str, ends))}")
    return ", ".join(said)


def table_of_studies() -> str:
    """A row per study: file, question, cells, tasks, hours, samples that fit the memory."""
    lines = [
        "| Study | Question | Cells | Tasks | H100 hours | Samples at once |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for file in FILES:
        plan = planned(file)
        name = f"[{file.stem}](../studies/paper/{file.name})"
        question = plan.study.study.question
        lines.append(
            f"| {name} | {question} | {len(plan.cells)} | {len(plan.tasks)} | {hours(plan)} "
            f"| {at_once(plan)} |"
        )
    whole = {task for plan in all_planned() for task in plan.tasks}
    cells = sum(len(plan.cells) for plan in all_planned())
    alone = sum(len(plan.tasks) for plan in all_planned())
    lines.append(
        f"| all, each task once | | {cells} | {len(whole)} (apart: {alone}) "
        f"| {hours(*all_planned())} | |"
    )
    return "\n".join(lines)
