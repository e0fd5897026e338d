"""Is every mistake answered with its place? Mutants of all shipped studies, and some of each kind.

`python tests/fault_shapes.py --count 10000` runs as many as one likes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_shapes import Mutant, judge, mutants

from studies import write
from sweepctl.errors import StudyError
from sweepctl.study import load_site


def check(corpus: list[Mutant], folder: Path) -> None:
    figures = judge(iter(corpus), folder)
    assert not figures.findings, "\n\n".join(
        f"{one.why}: {one.verb} {one.mutant}\n{one.said[-2000:]}" for one in figures.findings
    )
    # A corpus of nothing but rubbish, or of nothing that is wrong, would test little.
    assert {code.split()[-1] for code in figures.codes} <= {"0", "2", "3"}


def test_some_mutants_of_all_studies(tmp_path: Path) -> None:
    check(list(mutants(12, seed=1)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_mutants_of_all_studies(seed: int, tmp_path: Path) -> None:
    check(list(mutants(250, seed)), tmp_path)


def test_the_same_seed_gives_the_same_mutants() -> None:
    assert list(mutants(40, seed=3)) == list(mutants(40, seed=3)) != list(mutants(40, seed=4))


# --- site files --------------------------------------------------------------------------------

SITE_KEYS = "allowed: database, runs, datasets, workers"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: x\n", f"1:1: run: unknown key 'run' (did you mean 'runs'?); {SITE_KEYS}"),
        ("study: x\n", f"1:1: study: unknown key 'study'; {SITE_KEYS}"),
        (
            "threads: 4\n",
            "1:1: threads: unknown key 'threads' (it belongs to workers); all",
        ),
        (
            "workers: {cluster: {a: 1}}\n",
            "1:11: workers.cluster: unknown key 'cluster'; allowed: w",
        ),
        ("workers: local\n", "1:10: workers: needs a mapping (key: value), not the text 'local'"),
        ("workers: {threads: four}\n", "1:20: workers.threads: needs a whole number, not the text"),
        (
            "workers: {grace_s: 30s}\n",
            "1:20: workers.grace_s: needs a number, not the text '30s'",
        ),
        ("workers: {device: gpu}\n", "1:19: workers.device: a device is auto, cpu, cuda or cuda:N"),
        ("workers: {count: 1, count: 2}\n", "1:21: workers.count: the key 'count' stands here tw"),
        ("datasets: {Mine: {folder: x}}\n", "1:12: datasets.Mine: the text 'Mine' is not a name"),
        (
            "datasets: {mine: x}\n",
            "1:18: datasets.mine: needs a mapping (key: value), not",
        ),
        (
            "datasets: {mine: {folder: x, n: 1}}\n",
            "1:30: datasets.mine.n: unknown key 'n'; all",
        ),
        (
            "datasets: {mine: {folder: ''}}\n",
            "1:27: datasets.mine.folder: needs the name of",
        ),
        ("datasets: {a: {folder: x, broken: 1%}}\n", "not the text '1%'; write as a share: 0.01"),
        (
            "<<: {runs: x}\n",
            "1:1: <<: merge keys (<<) are not part of YAML 1.2 and are not r",
        ),
        ('runs: "a\\0b"\n', "1:7: runs: holds a NUL"),
        ('runs: "a\\nb"\n', "1:7: runs: needs the name of a place"),
        ("[1]\n", "1:1: needs a mapping (key: value), not a list of 1"),
        ("runs: !!x y\n", "1:7: runs: the tag tag:yaml.org,2002:x is not allowed in a site file"),
    ],
)
def test_a_mistake_in_a_site_file_speaks_of_site_files(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(StudyError) as caught:
        load_site(write(tmp_path, text, "site.yaml"))
    (problem,) = caught.value.problems
    assert said in str(problem) and "study" not in problem.message.replace("'study'", "")
