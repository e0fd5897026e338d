"""Are the paper's studies the paper's?

`python tests/test_paper_studies.py` writes the lines in their headers that say what they cost.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from own_files import picture_folder
from paper_studies import FILES, FOLDER, ON, all_planned, memory, planned, points, with_cost

from sweepctl import cli
from sweepctl.claims import fit_study
from sweepctl.datasets import PAPERS, data_identities, scan
from sweepctl.errors import StudyError
from sweepctl.execute import run_study
from sweepctl.paper import as_published, figure_or_table
from sweepctl.plan import Calibration, Plan, Task, design_rows, make_plan, parse_on, total
from sweepctl.study import OwnSet, load_site, load_study

each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

CELLS = {
    "figure-3": 15, "figure-4": 14, "figure-5": 7, "figure-6": 7, "figure-7": 7, "figure-8": 7,
    "figure-9": 6, "figure-10": 10, "figure-12": 3, "figure-13": 6, "figure-14": 10,
    "figure-15": 11, "table-2": 2, "table-3": 1, "table-4": 3, "table-5": 2, "table-6": 1,
}  # fmt: skip
"""Points that the paper plots or prints of ViTok."""

BESIDE = {"figure-3-coco": 15, "figure-12-coco": 3, "figure-4-cfg-3": 28}
BESIDE |= {"table-2-coco": 2, "table-3-coco": 1}
"""The same figures on another data set, or with arXiv v1's second guidance scale."""


@each
def test_every_training_fits_an_h100(file: Path) -> None:
    for line in memory(planned(file)):
        assert not line.misfits
        assert line.smallest is not None and (line.smallest.micro_batch or 0) >= 8
        assert not line.recomputed
        for one in (line.smallest, line.largest):
            assert one is not None and one.bytes <= 80e9


def test_every_figure_and_table_has_its_study() -> None:
    assert {file.stem for file in FILES} == CELLS.keys() | BESIDE.keys()
    assert {file.stem: len(planned(file).cells) for file in FILES} == CELLS | BESIDE
    for file in FILES:
        plan = planned(file)
        assert plan.study_name == f"paper-{file.stem}" and plan.study.study.question
        assert figure_or_table(plan.study_name)


ON_PAPER = {
    "imagenet-val": ("ImageNet-1K val", "ImageNet-1K"),
    "imagenet-train": ("ImageNet-1K",),
    "coco-val": ("COCO-2017 val",),
    "kinetics-700-val": ("Kinetics-700 val",),
    "ucf101-train": ("UCF-101 train", "UCF-101"),
}


@each
def test_its_numbers_are_those_that_the_paper_publishes(file: Path) -> None:
    """Not one more, not one less, on the data sets that it measures."""
    plan = planned(file)
    rows = design_rows(plan)
    found = as_published(rows, configs(plan), place=figure_or_table(plan.study_name))
    assert len(found) == len(rows) and len(set(found["cell"])) == len(plan.cells)
    here = {name for dataset in found["dataset"] for name in ON_PAPER[dataset]}
    wanted = [one for one in points(plan) if one.on in here]
    if file.stem in ("figure-4", "figure-7", "figure-8"):
        wanted = [one for one in wanted if "CFG 3" not in one.place]
    if file.stem == "figure-13":
        wanted = [one for one in wanted if one.factors["stage 2 steps"] == 100_000]
    metrics = {one.metric for one in wanted}
    mine = [(one.metric, one.value) for one in found.itertuples() if one.metric in metrics]
    assert sorted(mine) == sorted((one.metric, one.value) for one in wanted)


def configs(plan: Plan) -> dict[int, dict[str, object]]:
    return {cell.index: dict(cell.config) for cell in plan.cells}


PRINTED = {
    "figure-3": {"rfid": 0.94, "ris": 0.91, "ssim": 0.98, "psnr": 0.92},
    "figure-3-coco": {"rfid": 0.92, "ssim": 0.98, "psnr": 0.93},
    "figure-4": {"gfid": 0.75, "gis": 0.58},
    "figure-4-cfg-3": {"gfid": 0.75, "gis": 0.58, "gfid-cfg3": 0.13, "gis-cfg3": 0.68},
    "figure-5": {"rfid": 0.00, "ris": 0.04, "ssim": 0.05, "psnr": 0.07},
    "figure-6": {"rfid": 0.63, "ris": 0.48, "ssim": 0.71, "psnr": 0.83},
    "figure-7": {"gfid": 0.24, "gis": 0.23},
    "figure-8": {"gfid": 0.03, "gis": 0.03},
    "figure-9": {"rfid-ssim": 0.92, "rfid-psnr": 0.56, "ris-ssim": 0.82, "ris-psnr": 0.46},
    "figure-10": {"rfid": 0.98, "rfvd": 0.98, "ssim": 0.97, "psnr": 0.99, "rfid-ucf": 0.98},
    "figure-12": {"rfid": 0.99, "ris": 0.88, "ssim": 1.0, "psnr": 0.99},
    "figure-12-coco": {"rfid": 0.99, "ssim": 1.0, "psnr": 0.99},
}


QUICK = ("figure-4", "figure-5", "figure-9", "figure-10")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PRINTED],
)
def test_its_laws_on_the_papers_points_are_the_plotted_ones(name: str) -> None:
    """R2 as printed in the figure, to its two decimals."""
    plan = planned(FOLDER / f"{name}.yaml")
    frame = as_published(design_rows(plan), configs(plan), place=figure_or_table(plan.study_name))
    study = plan.study.study
    analysis = fit_study(frame, study.fits, ())
    r2 = {fit.name: fit.r2 for fit in analysis.fits}
    for law, printed in PRINTED[name].items():
        assert r2[law] == pytest.approx(printed, abs=0.0051), law


@pytest.mark.slow
@each
def test_no_claim_is_undecided_because_it_could_not_be_put(file: Path) -> None:
    plan = planned(file)
    frame = as_published(design_rows(plan), configs(plan), place=figure_or_table(plan.study_name))
    study = plan.study.study
    for claim in fit_study(frame, study.fits, study.claims).claims:
        assert claim.details, f"{claim.name}: {claim.evidence}"


def test_shared_tasks_are_counted_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plans = all_planned()
    whole = {name for plan in plans for name in plan.tasks}
    alone = sum(len(plan.tasks) for plan in plans)
    assert len(whole) < alone / 1.5
    monkeypatch.chdir(tmp_path)
    words = ["sweepctl", "plan", *(str(file) for file in FILES), "--on", ON, "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
        sys.exit(0)
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"]["tasks"] == len(whole)
    assert told["tasks_of_the_studies"] == alone


def tasks(name: str, kind: str) -> set[str]:
    plan = planned(FOLDER / f"{name}.yaml")
    return {name for name, task in plan.tasks.items() if task.kind == kind}


def test_what_is_shared_and_what_is_not() -> None:
    trained = tasks("figure-3", "stage1")
    assert len(trained) == 15
    assert tasks("figure-3-coco", "stage1") == trained > tasks("figure-4", "stage1")
    assert not tasks("figure-3-coco", "reconstruct") & tasks("figure-3", "reconstruct")
    assert tasks("figure-4", "reconstruct") < tasks("figure-3", "reconstruct")
    # Two guidance scales: twice the samples of the same generators.
    assert tasks("figure-4-cfg-3", "dit") == tasks("figure-4", "dit")
    assert tasks("figure-4-cfg-3", "generate") > tasks("figure-4", "generate")
    assert len(tasks("figure-4-cfg-3", "generate")) == 28
    assert planned(FOLDER / "figure-5.yaml").tasks == planned(FOLDER / "figure-6.yaml").tasks
    assert planned(FOLDER / "figure-7.yaml").tasks == planned(FOLDER / "figure-8.yaml").tasks
    # Eight measurements of two masked trainings, and three plain ones of figure 3.
    assert len(tasks("figure-15", "stage1")) == 5
    assert len(tasks("figure-15", "stage1") & trained) == 3
    # Six ends of stage 2 from one stage 1; the end of figure 9 is one of them.
    assert len(tasks("figure-13", "stage1")) == 1
    assert tasks("figure-9", "stage2") < tasks("figure-13", "stage2")
    assert tasks("table-2", "stage2") & tasks("figure-13", "stage2")
    # Another resolution, another data set, another protocol: nothing in common.
    assert not tasks("figure-12", "stage1") & trained
    assert not tasks("table-2", "reconstruct") & tasks("figure-13", "reconstruct")
    kinds = Counter(task.kind for plan in all_planned() for task in plan.tasks.values())
    assert set(kinds) == {
        "prepare", "reference", "stage1", "stage2", "latents", "dit", "reconstruct", "generate",
    }  # fmt: skip


def test_the_cost_is_within_a_factor_of_two_of_the_papers() -> None:
    """S-B/16 at 256 px on 8 H100: 6 to 12 hours of stage 1, 3 to 6 of stage 2 (appendix A)."""
    plan = planned(FOLDER / "figure-13.yaml")
    calibration = Calibration([], parse_on(ON))

    def hours(task: Task) -> float:
        expected = calibration.expect(task.kind, task.cost)
        assert expected is not None
        return expected.seconds / 3600 / 8

    stage1 = [hours(task) for task in plan.tasks.values() if task.kind == "stage1"]
    assert 6 / 2 <= stage1[0] <= 12 * 2
    stage2 = [hours(task) for task in plan.tasks.values() if task.kind == "stage2"]
    assert all(3 / 2 <= one <= 6 * 2 for one in stage2)
    whole = total([plan], {}, calibration)
    assert whole.hours_low is not None and whole.hours_low < whole.hours


@each
def test_the_header_says_what_it_costs(file: Path) -> None:
    text = file.read_text()
    assert text == with_cost(file), "run: python tests/test_paper_studies.py"
    assert text.count("# Cost: ") == 1 and "# The paper" in text


# --- without the data ---------------------------------------------------------------------------


def test_what_is_not_here_is_named_and_not_run() -> None:
    plan = planned(FOLDER / "figure-3.yaml")
    said = {problem.path: problem.message for problem in plan.absent}
    assert said["data.train"].startswith("imagenet-train is not in the site file; put it under")
    assert said["evaluate.reconstruction.on"].startswith("imagenet-val is not in the site file")
    with pytest.raises(StudyError, match="imagenet-train is not in the site file"):
        run_study(plan, None, None, None, provenance={})  # type: ignore[arg-type]  # never reached


def test_a_data_set_of_the_users_takes_the_place_of_the_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = load_site(FOLDER / "sweepctl.site.example.yaml")
    assert site.datasets.keys() == PAPERS.keys()
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))
    pictures = picture_folder(tmp_path / "pictures", {"n01440764": 2, "n01443537": 2})
    own = {"imagenet-val": OwnSet(folder=str(pictures))}
    file = FOLDER / "figure-12.yaml"

    def problems() -> dict[str, str]:
        data = data_identities(own)
        plan = make_plan(load_study(file, datasets=data), data=data)
        return {problem.path: problem.message for problem in plan.absent}

    assert "imagenet-val was not scanned" in problems()["evaluate.reconstruction.on"]
    scan("imagenet-val", own, threads=1, progress=lambda state: None)
    with pytest.raises(StudyError, match="imagenet-val has 4 images, not 50,000"):
        problems()


DRAWN = ("figure-4-cfg-3", "figure-7", "figure-9", "figure-15", "table-4")


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_the_figure_is_drawn_before_anything_is_trained(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = FOLDER / f"{name}.yaml"
    words = ["sweepctl", "fit", str(file), "--reference", "--figures", "law"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
        sys.exit(0)
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "these are the paper's own points" in said.err
    drawn = [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.svg")]
    assert bool(drawn) == bool(planned(file).study.study.fits)
    assert not (tmp_path / "results.db").exists()


if __name__ == "__main__":
    for study in FILES:
        study.write_text(with_cost(study))
