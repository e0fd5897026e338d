"""Is a study refused that measures on what it trains on, and does it say so where that is meant?"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from own_files import picture_folder, png, shards
from ui_ledger import Place, fill

from studies import SMALL, write
from sweepctl import cli
from sweepctl.datasets import data_identities, scan
from sweepctl.errors import StudyError
from sweepctl.ledger import open_ledger
from sweepctl.plan import Plan, make_plan
from sweepctl.study import OwnSet, load_study
from sweepctl.ui._reading import Reader
from sweepctl.ui._report import html_report, markdown_report

STUDY = """
format: 1
study: own
data: {train: TRAIN, resolution: 16, images: 8}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages: {stage1: {steps: 2, batch: 4, precision: fp32, loss: {lpips: 0}}}
evaluate: {reconstruction: {on: [EVAL], images: 4, metrics: [psnr]}}
"""
REFUSED = r"study\.yaml:4:15: data\.train: .*evaluate\.allow_overlap"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line as `main` does; gives exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, OwnSet]:
    """A set, copies of it in every disguise, and sets that share little or nothing with it."""
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    picture_folder(tmp_path / "mine", {"a": 6, "b": 6})
    shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    pictures = sorted((tmp_path / "mine").rglob("*.png"))
    renamed, part, other = (tmp_path / name for name in ("renamed", "part", "other"))
    for folder in (renamed, part, other):
        folder.mkdir()
    for number, picture in enumerate(pictures):
        shutil.copy(picture, renamed / f"another-name-{number}.png")
    for number in range(300):
        (other / f"{number}.png").write_bytes(png(1_000 + number))
    shutil.copy(pictures[0], other / "by-accident.png")  # 1 of 301
    for number in range(20):
        (part / f"{number}.png").write_bytes(png(2_000 + number))
    shutil.copy(pictures[3], part / "one-of-mine.png")  # 1 of 21
    sets = {
        name: OwnSet(folder=str(tmp_path / name))
        for name in ("mine", "copied", "renamed", "part", "other")
    }
    sets["under-another-name"] = OwnSet(folder=str(tmp_path / "mine"), crop="center")
    for name in sets:
        scan(name, sets, threads=1, progress=lambda progress: None)
    return sets


def planned(folder: Path, own: dict[str, OwnSet], train: str, on: str, *overrides: str) -> Plan:
    data = data_identities(own)
    text = STUDY.replace("TRAIN", train).replace("EVAL", on)
    file = write(folder, text, "study.yaml")
    return make_plan(load_study(file, overrides=overrides, datasets=data), data=data)


@pytest.mark.parametrize(
    "on", ["mine", "copied", "renamed", "part", "under-another-name"], ids=lambda name: name
)
def test_what_holds_training_samples_is_refused(
    tmp_path: Path, own: dict[str, OwnSet], on: str
) -> None:
    with pytest.raises(StudyError, match=REFUSED):
        planned(tmp_path, own, "mine", on)
    allowed = planned(tmp_path, own, "mine", on, "evaluate.allow_overlap=true")
    assert allowed.cells[0].config["evaluate"]["allow_overlap"] is True


def test_what_shares_next_to_nothing_is_not(tmp_path: Path, own: dict[str, OwnSet]) -> None:
    free = planned(tmp_path, own, "mine", "other")
    allowed = planned(tmp_path, own, "mine", "other", "evaluate.allow_overlap=true")
    assert free.cells[0].config["evaluate"]["allow_overlap"] is False
    assert allowed.cells == free.cells, "recorded only where it is so"
    with pytest.raises(StudyError, match=REFUSED):
        planned(tmp_path, own, "other", "other")


def test_built_in_sets_and_their_own_halves(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=REFUSED):
        planned(tmp_path, {}, "photos-eval", "photos-eval")
    assert planned(tmp_path, {}, "photos-train", "photos-eval").cells
    clips = ("data.frames=4", "data.images=16")
    with pytest.raises(StudyError, match=REFUSED):
        planned(tmp_path, {}, "clips-eval", "clips-eval", *clips)
    assert planned(tmp_path, {}, "clips-train", "clips-eval", *clips).cells


def test_no_identity_changes(tmp_path: Path) -> None:
    plain = planned(tmp_path, {}, "photos-train", "photos-eval")
    spoken = planned(tmp_path, {}, "photos-train", "photos-eval", "evaluate.allow_overlap=true")
    assert (plain.cells[0].key, plain.tasks) == (spoken.cells[0].key, spoken.tasks)


def test_shards_of_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    shards(tmp_path / "tars", 2, 6)
    shutil.copytree(tmp_path / "tars", tmp_path / "again")
    own = {
        name: OwnSet(webdataset=str(tmp_path / name / "part-{000..001}.tar"))
        for name in ("tars", "again")
    }
    for name in own:
        scan(name, own, threads=1, progress=lambda progress: None)
    with pytest.raises(StudyError, match=REFUSED):
        planned(tmp_path, own, "tars", "again")


SAID = "4 cells are measured on data that are trained on (evaluate.allow_overlap)"


def overlapping(folder: Path) -> Place:
    """A finished study of four cells that measures on its training data."""
    text = SMALL.replace("train: photos-train", "train: photos-eval").replace(
        "evaluate:\n", "evaluate:\n  allow_overlap: true\n"
    )
    return fill(folder, text=text)


def test_results_say_so(tmp_path: Path, call: Call) -> None:
    place = overlapping(tmp_path)
    code, out, err = call("results", "small")
    assert code == 0 and SAID in err and SAID not in out
    with open_ledger(place.database, create=False, read_only=True) as ledger:
        assert ledger.studies.submission("small").overlapping == 4


@pytest.mark.slow
def test_fits_and_reports_say_so(tmp_path: Path, call: Call) -> None:
    place = overlapping(tmp_path)
    code, out, err = call("fit", "small", "--json")
    assert code == 0 and SAID in err and '"overlapping": 4' in out
    with open_ledger(place.database, create=False, read_only=True) as ledger:
        reader = Reader(ledger, place.runs)
        assert SAID in html_report(reader, "small")
        assert SAID.partition(" (")[0] in markdown_report(reader, "small")


def test_a_study_without_overlap_says_nothing_of_it(tmp_path: Path, call: Call) -> None:
    fill(tmp_path)
    assert "trained on" not in "".join(map(str, call("results", "small")))
