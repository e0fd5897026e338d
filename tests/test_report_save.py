"""Does a kept fit hold everything, with all digits, the same each time, and can it be repeated?"""

from __future__ import annotations

import csv
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from sweepctl import cli
from sweepctl.analyse import fit_table
from sweepctl.claims import Analysis, fit_study
from sweepctl.errors import UsageError
from sweepctl.paper import paper_frame, paper_study
from sweepctl.report import save
from sweepctl.study import Fit


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    study = paper_study("paper/figure-4")
    return fit_study(paper_frame(study), study.fits, study.claims)


def one(analysis: Analysis, name: str) -> Analysis:
    return Analysis(fits=(analysis.fit(name),), claims=analysis.claims)


@pytest.mark.slow
def test_a_folder_holds_law_points_predictions_draws_and_figures(
    analysis: Analysis, tmp_path: Path
) -> None:
    fit = analysis.fit("gfid-cfg1.5")
    kept = save(one(analysis, fit.name), tmp_path / "fits", of="paper/figure-4", formats=["svg"])
    folder = kept[fit.name]
    assert folder.parent == tmp_path / "fits"
    assert folder.name.startswith("paper-figure-4-gfid-cfg1.5-")
    assert sorted(file.name for file in folder.iterdir()) == [
        *("claims.json", "draws.npz", "figures", "fit.json", "fit.yaml", "points.csv"),
        *("predictions.csv", "summary.txt"),
    ]
    names = {file.name for file in (folder / "figures").iterdir()}
    assert names == {f"{kind}.svg" for kind in ("law", "residuals", "holdout", "optimum")}
    law = json.loads((folder / "fit.json").read_text())
    assert law["r2"] == fit.r2 and law["schema"] == 2 and law["of"] == "paper/figure-4"
    assert law["coefficients"]["quadratic"]["estimate"] == fit.coefficients["quadratic"].estimate
    points = list(csv.DictReader((folder / "points.csv").read_text().splitlines()))
    assert [float(row["fitted"]) for row in points] == [point.fitted for point in fit.points]
    assert [float(row["E"]) for row in points] == [point.x for point in fit.points]
    grid = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert len(grid) == 101 and all(float(r["low"]) < float(r["mean"]) for r in grid)
    with np.load(folder / "draws.npz") as draws:
        assert draws["values"].shape == (10_000, 3)
        assert fit.slope is not None
        assert draws["slopes"].mean() == pytest.approx(fit.slope.estimate, abs=0.02)
    claims = json.loads((folder / "claims.json").read_text())["claims"]
    assert [claim["verdict"] for claim in claims] == ["supported", "undecided"]
    assert "gFID has a best E" in (folder / "summary.txt").read_text()


def test_the_same_question_gives_the_same_folder_and_bytes(
    analysis: Analysis, tmp_path: Path
) -> None:
    def written(name: str) -> dict[str, bytes]:
        (folder,) = save(one(analysis, "gis-cfg3"), tmp_path / name, of="x", formats=()).values()
        files = [file for file in folder.rglob("*") if file.is_file()]
        return {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files}

    assert written("one") == written("two")
    kept = save(one(analysis, "gis-cfg3"), tmp_path / "one", of="x", condition="p = 8", formats=())
    assert len(list((tmp_path / "one").iterdir())) == 2  # another question, another folder
    assert not (kept["gis-cfg3"] / "figures").exists()


@pytest.mark.parametrize(
    "law",
    [
        {"form": "loglog", "factors": ["p"], "interaction": True},
        {"form": "quadratic", "scale": "raw"},
        {"form": "power", "loss": "huber:0.5"},
        {"form": "loglog", "x": ["p", "c"]},
        {"form": "linear", "x": "psnr"},
    ],
    ids=lambda law: f"{law['form']}-{len(law)}",
)
def test_fit_repeats_a_kept_fit_from_its_points(
    law: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With weights from seeds, which the table of means no longer knows."""
    study = paper_study("paper/figure-3")
    frame = paper_frame(study)
    again = frame[(frame["p"] != 32)].assign(seed=1, value=lambda rows: rows["value"] * 1.1)
    again = again.assign(task="again " + again["task"])
    import pandas as pd

    both = pd.concat([frame, again], ignore_index=True)
    stated = Fit.model_validate({"metric": "rfid", "on": "ImageNet-1K val", **law})
    made = fit_study(both, {"law": stated}, ())
    (fit,) = made.fits
    assert fit.fitted and fit.weighting == "seeds", fit.reason
    (folder,) = save(made, tmp_path, of="seeds", formats=()).values()
    asked = YAML(typ="safe").load(folder / "fit.yaml")
    assert Fit.model_validate(asked["fits"]["law"]) == stated.model_copy(
        update={"scale": asked["fits"]["law"].get("scale")}
    )
    words = [*shlex.split(asked["again"]), "--json", "--figures", "none"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)["fits"][0]
    kept = json.loads((folder / "fit.json").read_text())
    for name in ("r2", "sigma", "df", "n"):
        assert found[name] == pytest.approx(kept[name], rel=1e-9), name
    for name, coefficient in kept["coefficients"].items():
        for part in ("estimate", "low", "high"):
            expected = coefficient[part]
            if expected is not None:
                assert found["coefficients"][name][part] == pytest.approx(expected, rel=1e-6)
    assert found["warnings"] == kept["warnings"]


def test_a_law_that_was_not_made_is_kept_with_its_reason(tmp_path: Path) -> None:
    fit = Fit(metric="loss", on="table", x="E", form="loglog")
    columns = {"E": [1, 2, 4, 8, 16], "loss": [1.0] * 4 + [0.0]}
    failed = Analysis(fits=(fit_table(columns, fit),), claims=())
    (folder,) = save(failed, tmp_path, of="table").values()
    assert sorted(file.name for file in folder.iterdir()) == [
        *("claims.json", "fit.json", "fit.yaml", "points.csv", "summary.txt")
    ]
    assert json.loads((folder / "fit.json").read_text())["warnings"] == ["nonpositive_value"]
    assert "not fitted: loss has no logarithm" in (folder / "summary.txt").read_text()


def test_a_folder_that_cannot_be_written_is_told(analysis: Analysis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the fits into"):
        save(analysis, tmp_path / "file", of="x")
