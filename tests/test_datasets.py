"""Can a study name a data set of the user's: scanned, planned, prepared and never by its path?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from own_files import picture_folder, png, shards, video

from studies import write
from sweepctl.datasets import data_identities
from sweepctl.errors import StudyError, UsageError
from sweepctl.plan import make_plan
from sweepctl.study import OwnSet, load_site, load_study

STUDY = """
format: 1
study: own
data: {train: mine, resolution: 16, images: 20}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages: {stage1: {steps: 2, batch: 4, precision: fp32, loss: {lpips: 0}}}
evaluate: {allow_overlap: true, reconstruction: {on: [shards], images: 8, metrics: [psnr]}}
"""
SITE = """
datasets:
  mine: {folder: pictures, broken: 0.1}
  shards: {webdataset: "tars/part-{000..001}.tar", crop: centre}
  films: {videos: films}
"""
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with two data sets, a site file and a study."""
    picture_folder(tmp_path / "pictures", {"a": 12, "b": 12})
    (tmp_path / "pictures" / "a" / "0002.png").write_bytes(b"")
    shards(tmp_path / "tars", 2, 6)
    write(tmp_path, STUDY, "own.yaml")
    (tmp_path / "sweepctl.site.yaml").write_text(SITE)
    return tmp_path


def test_a_set_is_scanned_before_it_is_planned(here: Path, call: Call) -> None:
    code, out, err = call("run", "own.yaml")
    assert code == 3
    assert "own.yaml:4:15: data.train: mine was not scanned" in err
    assert "run: sweepctl data scan mine" in err
    code, out, err = call("plan", "own.yaml")
    assert code == 0 and out.startswith("stage\t"), err
    assert "cannot be run here: own.yaml:4:15: data.train: mine was not scanned" in err
    code, out, err = call("data", "list")
    assert code == 0 and err == "next: sweepctl data scan mine\n"
    states = {line.split("\t")[0]: line.split("\t")[5] for line in out.splitlines()[1:]}
    assert states["photos-train"] == "built in"
    assert states["mine"] == "not scanned"
    code, out, err = call("data", "scan", "mine", "--json")
    assert code == 0
    assert (json.loads(out)["samples"], json.loads(out)["classes"]) == (24, 2)
    assert call("data", "scan", "shards")[0] == 0
    code, out, err = call("plan", "own.yaml")
    assert code == 0, err
    code, out, err = call("plan", "own.yaml", "--set", "data.images=25")
    assert code == 3 and "mine has 24 images, not 25" in err
    code, out, err = call("data", "show", "mine")
    assert code == 0 and "samples: 24\n" in out
    for words, said in (
        (("scan", "none"), "there is no data set 'none' of yours"),
        (("scan", "photos-train"), "built in"),
        (("show", "films"), "films was not scanned"),
        (("scan", "films"), "films does not exist"),
    ):
        code, out, err = call("data", *words)
        assert code in (1, 2) and said in err, err


@pytest.mark.slow
def test_a_study_of_own_sets_runs(here: Path, call: Call) -> None:
    for name in ("mine", "shards"):
        assert call("data", "scan", name)[0] == 0
    code, _, err = call("run", "own.yaml", "--cluster", "inline", "-q")
    assert code == 0, err
    made = {
        task["label"].split()[0]: folder
        for folder in (here / "runs").glob("prepare-*")
        for task in [json.loads((folder / "task.json").read_text())]
    }
    values = json.loads((made["mine"] / "result.json").read_text())["values"]
    assert values["images"] == 20
    assert str(here) not in (made["mine"] / "task.json").read_text()
    # Elsewhere it is the same data set, and what was computed of it counts.
    shutil.move(here / "pictures", here / "moved")
    (here / "sweepctl.site.yaml").write_text(SITE.replace("pictures", "moved"))
    assert call("data", "scan", "mine")[0] == 0
    code, _, err = call("run", "own.yaml", "--cluster", "inline")
    assert code == 0 and "nothing to do" in err
    code, _, err = call("run", "own.yaml", "--cluster", "inline", "--set", "data.images=21")
    assert code == 0, err
    # One more file, and it is another one.
    (here / "moved" / "b" / "new.png").write_bytes(png(99))
    assert call("data", "scan", "mine")[0] == 0
    assert "data.content: " in call("plan", "own.yaml")[2]


def test_videos_are_video_sets(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from vitok_core.data import OwnData, scan

    video(tmp_path / "films" / "x.mkv", frames=12)
    own = {"films": OwnSet(videos=str(tmp_path / "films"))}
    scan(OwnData(name="films", kind="videos", place=str(tmp_path / "films")))
    data = data_identities(own)
    assert (data["films"].video, data["films"].samples, data["films"].problem) == (True, None, None)
    text = STUDY.replace("mine", "films").replace("shards", "films")
    file = write(tmp_path, text, "films.yaml")
    with pytest.raises(StudyError, match="films holds clips"):
        make_plan(load_study(file, datasets=data), data=data)
    file = write(tmp_path, text.replace("images: 20", "images: 20, frames: 8, fps: 5"), "f.yaml")
    assert make_plan(load_study(file, datasets=data), data=data).tasks


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{folder: a, videos: b}", "one of folder, videos.* here is folder and videos"),
        ("{crop: adm}", "here is none"),
        ("{folder: a, crop: middle}", "crop"),
        ("{folder: a, broken: 1.5}", "broken"),
        ("{folder: a, lables: false}", "lables"),
    ],
)
def test_a_wrong_entry_is_a_problem_with_its_place(tmp_path: Path, entry: str, said: str) -> None:
    file = write(tmp_path, f"datasets:\n  mine: {entry}\n", "site.yaml")
    with pytest.raises(StudyError, match=said) as raised:
        load_site(file)
    assert "site.yaml:2:" in str(raised.value)


def test_what_only_the_reader_knows_is_refused_by_name(tmp_path: Path) -> None:
    for name, one, said in (
        ("photos-train", OwnSet(folder="/a"), "that one is built in"),
        ("mine", OwnSet(webdataset="s3://a/b.tar"), "only local files"),
        ("mine", OwnSet(huggingface="a/b", split="train"), "commit is needed"),
    ):
        with pytest.raises(UsageError, match=said):
            data_identities({name: one})


def test_relative_places_start_at_the_site_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    text = "datasets:\n  a: {folder: x}\n  b: {huggingface: you/set}\n  c: {huggingface: ./y}\n"
    own = load_site(write(tmp_path / "deep", text, "site.yaml")).datasets
    assert own["a"].place == str(tmp_path / "deep" / "x")
    assert (own["b"].place, own["c"].place) == ("you/set", str(tmp_path / "deep" / "y"))
