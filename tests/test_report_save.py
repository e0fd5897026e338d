"""Does a saved fit hold everything, with all digits, the same each time?"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sweepctl.analyse import Analysis, fit_study, fit_table, paper_frame, paper_study
from sweepctl.errors import UsageError
from sweepctl.report import save
from sweepctl.study import Fit


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    study = paper_study("paper/figure-4")
    return fit_study(paper_frame(study), study.fits, study.claims)


def test_a_folder_holds_law_points_predictions_and_draws(
    analysis: Analysis, tmp_path: Path
) -> None:
    files = save(analysis, tmp_path / "fits")
    assert all(file.is_file() for file in files) and len(files) == 2 + 4 * 4
    fit = analysis.fit("gfid-cfg1.5")
    folder = tmp_path / "fits" / fit.name
    law = json.loads((folder / "fit.json").read_text())
    assert law["r2"] == fit.r2 and law["schema"] == 1
    assert law["coefficients"]["quadratic"]["estimate"] == fit.coefficients["quadratic"].estimate
    points = list(csv.DictReader((folder / "points.csv").read_text().splitlines()))
    assert [float(row["fitted"]) for row in points] == [point.fitted for point in fit.points]
    assert [float(row["x E"]) for row in points] == [point.x for point in fit.points]
    grid = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert len(grid) == 101 and all(float(r["low"]) < float(r["mean"]) for r in grid)
    with np.load(folder / "draws.npz") as draws:
        assert draws["values"].shape == (10_000, 3)
        assert fit.slope is not None
        assert draws["slopes"].mean() == pytest.approx(fit.slope.estimate, abs=0.02)
    claims = json.loads((tmp_path / "fits" / "claims.json").read_text())["claims"]
    assert [claim["verdict"] for claim in claims] == ["supported", "undecided"]
    assert "gFID has a best E" in (tmp_path / "fits" / "summary.txt").read_text()


def test_the_same_analysis_gives_the_same_bytes(analysis: Analysis, tmp_path: Path) -> None:
    def written(name: str) -> dict[str, bytes]:
        files = save(analysis, tmp_path / name)
        return {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files}

    assert written("one") == written("two")


def test_a_law_that_was_not_made_leaves_no_predictions_of_an_earlier_one(tmp_path: Path) -> None:
    fit = Fit(metric="loss", on="table", x="E", form="loglog")
    columns = {"E": [1, 2, 4, 8, 16], "loss": [9.0, 5.0, 2.4, 1.3, 0.6]}
    made = Analysis(fits=(fit_table(columns, fit),), claims=())
    assert (tmp_path / "law" / "draws.npz") in save(made, tmp_path)
    failed = Analysis(fits=(fit_table(columns | {"loss": [1.0] * 4 + [0.0]}, fit),), claims=())
    save(failed, tmp_path)
    assert sorted(file.name for file in (tmp_path / "law").iterdir()) == ["fit.json", "points.csv"]
    assert json.loads((tmp_path / "law" / "fit.json").read_text())["warnings"] == [
        "nonpositive_value"
    ]


def test_a_folder_that_cannot_be_written_is_told(analysis: Analysis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the fits into"):
        save(analysis, tmp_path / "file")
