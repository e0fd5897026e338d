"""Does studies/mini/README.md say what came out? `python tests/test_mini_studies.py` writes it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_findings import row as law_row

from sweepctl.analyse import FitResult, readable
from sweepctl.claims import Analysis, fit_study
from sweepctl.cli._table_file import read_points
from sweepctl.datasets import data_identities
from sweepctl.study import StudyFile, load_study

MINI = Path(__file__).resolve().parent.parent / "studies" / "mini"
PAGE = MINI / "README.md"
RESULTS = MINI / "results"
TOLD = {path.stem: path.read_text().strip() for path in sorted((MINI / "results").glob("*.md"))}
"""What is said of each study beside its numbers."""

HEAD = """\
# The five findings at the size of a laptop

Each study here puts one of the paper's findings ([docs/findings.md](../../docs/findings.md)) to
small tokenizers on real pictures, on two CPU cores. Claims were written before the first run; the
verdicts are the tool's ([docs/results.md](../../docs/results.md)). A claim that came out
contradicted or undecided is told as such. What holds at 32 px after a minute of training need not
hold at 256 px after a week, nor the other way round.

The measured points are in [results/](results), as `sweepctl export --long` wrote them. Judge the
claims yourself, without training anything:

```sh
sweepctl fit studies/mini/e-generation.yaml --points studies/mini/results/e-generation.csv
```

or make the points yourself (the same numbers on the same machine and versions):

```sh
sweepctl run studies/mini/e-generation.yaml
```

This page is written by `python tests/test_mini_studies.py`; a test holds it in step.
"""


def names() -> list[str]:
    return [path.stem for path in sorted(RESULTS.glob("*.csv")) if path.stem != "minutes"]


def loaded(name: str) -> StudyFile:
    return load_study(MINI / f"{name}.yaml", datasets=data_identities())


def analysed(name: str) -> Analysis:
    study = loaded(name).study
    return fit_study(read_points(RESULTS / f"{name}.csv"), study.fits, study.claims)


def page() -> str:
    found = {name: analysed(name) for name in names()}
    lines = [HEAD, "| Study | Claim | Verdict |", "| --- | --- | --- |"]
    for name, analysis in found.items():
        lines += [
            f"| [{name}](#{name}) | {claim.name} | **{claim.verdict}** |"
            for claim in analysis.claims
        ]
    lines.append("")
    return "\n".join([*lines, *(section(name, analysis) for name, analysis in found.items())])


def section(name: str, analysis: Analysis) -> str:
    study = loaded(name).study
    points = read_points(RESULTS / f"{name}.csv")
    tasks, minutes = spent()[study.study]
    lines = [f"## {name}", "", f"{study.question} ([{name}.yaml]({name}.yaml))", ""]
    lines += [
        f"{points['cell'].nunique()} cells, {tasks} tasks, {minutes} minutes of tasks, two at a "
        "time, beside other work on the same two cores.",
        "",
    ]
    if name in TOLD:
        lines += [TOLD[name], ""]
    lines += ["| Claim | Verdict | Evidence |", "| --- | --- | --- |"]
    lines += [
        f"| {claim.name} | **{claim.verdict}** | {claim.evidence} |" for claim in analysis.claims
    ]
    lines += ["", "| Law | n | R2 | Slope a doubling | To be doubted for | Best x |"]
    lines += ["| --- | --- | --- | --- | --- | --- |", *map(row, analysis.fits)]
    return "\n".join(lines) + "\n"


def row(fit: FitResult) -> str:
    """A law as docs/findings.md has it, with its optimum."""
    best = ""
    if fit.optimum is not None:
        low, high = fit.optimum.low, fit.optimum.high
        known = low is not None and high is not None
        bounds = f"[{readable(low)}, {readable(high)}]" if known else "unbounded"
        best = f"{readable(fit.optimum.x)} {bounds}"
    return f"{law_row(fit)} {best} |"


def spent() -> dict[str, tuple[int, int]]:
    """Study -> its tasks and the minutes they took, of results/minutes.csv."""
    with (RESULTS / "minutes.csv").open(newline="") as file:
        return {
            row["study"]: (int(row["tasks"]), round(float(row["seconds"]) / 60))
            for row in csv.DictReader(file)
        }


def test_the_page_says_what_came_out() -> None:
    assert PAGE.read_text() == page(), "run: python tests/test_mini_studies.py"


@pytest.mark.parametrize("path", sorted(MINI.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_was_run_and_its_claims_were_judged(path: Path) -> None:
    analysis = analysed(path.stem)
    assert analysis.claims and all(fit.fitted for fit in analysis.fits)
    declared = [claim.name for claim in loaded(path.stem).study.claims]
    assert [claim.name for claim in analysis.claims] == declared
    for claim in analysis.claims:
        assert claim.details, f"{claim.name}: {claim.evidence}"


if __name__ == "__main__":
    PAGE.write_text(page())
