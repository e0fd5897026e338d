"""Do `fit`, `correlate`, `frontier`, `contours` and `status --fits` tell what the cells say?

The cells are real ones of a planned study; their numbers are written here, so that nothing has to
be trained and every answer is known.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledger_plans import finish, metric

from studies import plan_of
from sweepctl.cli._table_file import read_points
from sweepctl.ledger import Submission, open_ledger

STUDY = """\
format: 1
study: nine
axes:
  p: [4, 8, 16]
  c: [4, 16, 64]
data: {train: photos-train, resolution: 64, images: 64}
tokenizer: {encoder: nano, decoder: nano}
stages:
  stage1: {steps: 10, batch: 8, precision: fp32, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr, ssim, rfd_lite0]}
fits:
  fidelity: {metric: psnr, on: photos-eval, form: semilog}
  distance: {metric: rfd_lite0, on: photos-eval, form: loglog}
claims:
  - {name: E helps, fit: fidelity, slope: positive}
  - {name: trade, metric: psnr, on: photos-eval, against: rfd_lite0}
"""
PAPER = Path(__file__).resolve().parent.parent / "studies" / "paper"
Call = Callable[..., tuple[int, str, str]]


def filled(folder: Path, *, unfinished: tuple[int, ...] = (), broken: int | None = None) -> None:
    """results.db with the study: PSNR is 10 + 1.6 log2 E and a little noise."""
    (folder / "results.db").write_bytes(database(unfinished, broken))


@functools.cache
def database(unfinished: tuple[int, ...], broken: int | None) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        fill(Path(place), unfinished, broken)
        return (Path(place) / "results.db").read_bytes()


def fill(folder: Path, unfinished: tuple[int, ...], broken: int | None) -> None:
    plan = plan_of(folder, STUDY)
    rng = np.random.default_rng(0)
    with open_ledger(str(folder / "results.db")) as ledger:
        study = plan.study.study.model_dump(mode="json", by_alias=True)
        ledger.studies.record(plan, Submission(text=STUDY, resolved=study, version="0"))
        done: set[str] = set()
        for cell in plan.cells:
            noise = rng.normal(size=3)
            for stage, name in cell.tasks.items():
                task = plan.tasks[name]
                if name in done or (cell.index in unfinished and task.kind != "prepare"):
                    continue
                done.add(name)
                values = []
                if stage.startswith("reconstruct"):
                    E = cell.derived.E
                    psnr = 10 + 1.6 * math.log2(E) + 0.3 * noise[0]
                    psnr -= 9.0 if cell.index == broken else 0.0
                    numbers = {"psnr": psnr, "ssim": 0.05 * math.log2(E) + 0.02 * noise[1]}
                    numbers["rfd_lite0"] = 4000 * E**-0.5 * 2 ** (0.1 * noise[2])
                    values = [
                        metric(value, label, "photos-eval") for label, value in numbers.items()
                    ]
                finish(ledger, task, *values)


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


# --------------------------------------------------------------------------------------------- fit


def test_where_chooses_cells_as_results_does_and_says_so(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    code, out, err = call(
        "fit", "nine", "--where", "p = 8 or psnr > 30", "--figures", "none", "--json"
    )
    assert code == 0 and "only cells where p = 8 or psnr > 30: " in err
    said = json.loads(out)
    _, rows, _ = call("results", "nine", "--where", "p = 8 or psnr > 30", "--format", "json")
    chosen = {row["cell"] for row in json.loads(rows)}
    assert said["where"] == "p = 8 or psnr > 30"
    assert said["cells"] == {"used": len(chosen), "measured": 9, "overlapping": 0}
    assert {c for point in said["fits"][0]["points"] for c in point["cells"]} == chosen
    assert said["claims"][1]["details"]["n"] == len(chosen)
    # What is recorded with a condition stands beside the law of all cells, not in its place.
    call("fit", "nine", "--figures", "none")
    sql = "select condition, n from v_fit where fit = 'fidelity' order by n"
    _, out, _ = call("query", sql, "--format", "json")
    assert json.loads(out) == [
        {"condition": "p = 8 or psnr > 30", "n": len(chosen)},
        {"condition": "", "n": 9},
    ]
    code, _, err = call("fit", "nine", "--where", "p = 99", "--figures", "none")
    assert code == 2 and "no measured cell of nine meets --where 'p = 99'" in err
    code, _, err = call("fit", "nine", "--where", "P8 = 1", "--figures", "none")
    assert code == 2 and "--where 'P8 = 1' cannot be used" in err


def test_where_chooses_rows_of_a_table_and_points_of_the_paper(call: Call, tmp_path: Path) -> None:
    rows = [f"{2**i},{8 + 8 * (i % 2)},{2**-i * (1 + i % 2)!r}" for i in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["E,p,loss", *rows]) + "\n")
    words = (
        "fit-table",
        "t.csv",
        "--y",
        "loss",
        "--x",
        "E",
        "--form",
        "loglog",
        "--figures",
        "none",
    )
    code, out, err = call(*words, "--json", "--where", "p = 16")
    said = json.loads(out)
    assert code == 0 and said["fits"][0]["n"] == 4 and said["rows"] == 4
    assert "only rows where p = 16: 4 of 8" in err
    assert [point["cells"] for point in said["fits"][0]["points"]] == [[2], [4], [6], [8]]
    code, _, err = call(*words, "--where", "p = 7")
    assert code == 2 and "no row of the table meets" in err
    words = ("fit", "paper/figure-4", "--reference", "--figures", "none", "--json")
    code, out, err = call(*words, "--where", "c <= 16")
    assert code == 0 and "only points where c <= 16" in err
    assert {fit["n"] for fit in json.loads(out)["fits"]} == {9}


def test_the_papers_points_stand_beside_a_study(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    code, out, err = call("fit", "nine", "--reference", "--figures", "none", "--json")
    assert code == 0 and "fidelity compared with paper/figure-3" in err
    beside = json.loads(out)["paper_comparison"]
    assert {row["fit"] for row in beside} == {"fidelity"}  # the paper has no rfd_lite0
    assert {row["as"] for row in beside} == {"difference"}
    assert [row["paper"] is None for row in beside] == [row["x"] < 256 for row in beside]
    code, out, _ = call("fit", "nine", "--reference", "paper/figure-12", "--figures", "none")
    assert code == 0 and out.splitlines()[-1].split("\t")[-2] == "paper/figure-12"
    code, _, err = call("fit", "nine", "--reference", "figure-9", "--figures", "none")
    assert code == 2 and "paper/figure-9 has no points of psnr against E" in err
    code, _, err = call("fit", "nine", "paper/figure-3", "--figures", "none")
    assert code == 2 and "is --reference missing?" in err


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("more", [(), ("paper/figure-3", "--reference")])
def test_a_study_of_the_paper_that_was_not_run_names_the_papers_own_points(
    call: Call, tmp_path: Path, there: bool, more: tuple[str, ...]
) -> None:
    if there:
        filled(tmp_path)
    file = str(PAPER / "figure-3.yaml")
    code, out, err = call("fit", file, *more)
    assert (code, out) == (2, "") and "nothing of paper-figure-3 has been measured" in err
    assert f"sweepctl fit {file} --reference" in err


def test_the_papers_own_points_are_found_by_a_file_in_a_folder_called_paper(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PAPER.parent)
    words = ("--reference", "--figures", "none", "--db", "/nowhere/results.db")
    code, _, err = call("fit", "paper/figure-3.yaml", *words)
    assert code == 0 and "these are the paper's own points" in err


def test_kept_fits_are_listed_with_their_folder(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    code, out, err = call("fit", "nine", "--save", "fits", "--figures", "none", "--json")
    kept = json.loads(out)["kept"]
    assert code == 0 and set(kept) == {"fidelity", "distance"}
    assert all((tmp_path / folder / "fit.yaml").is_file() for folder in kept.values())
    assert f"kept: {kept['distance']}" in err
    sql = "select fit, created_at, law, slope, slope_low, slope_high, r2, n, folder from v_fit "
    _, out, _ = call("query", sql + "where folder is not null", "--format", "json")
    rows = {row["fit"]: row for row in json.loads(out)}
    assert set(rows) == set(kept)
    assert Path(rows["fidelity"]["folder"]) == (tmp_path / kept["fidelity"]).absolute()
    assert rows["fidelity"]["law"].startswith("psnr = ") and rows["fidelity"]["n"] == 9
    assert rows["fidelity"]["slope_low"] < 1.6 < rows["fidelity"]["slope_high"]
    # Asking again without --save finds the same law and forgets no folder.
    call("fit", "nine", "--figures", "none")
    _, again, _ = call("query", sql + "where folder is not null", "--format", "json")
    assert json.loads(again) == json.loads(out)
    _, out, _ = call("fit", "nine", "--save", "elsewhere", "--figures", "none", "--json")
    assert {Path(folder).parent.name for folder in json.loads(out)["kept"].values()} == {
        "elsewhere"
    }


@pytest.mark.slow
def test_every_kind_of_figure_in_every_format(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    code, _, err = call("fit", "nine", "--figures", "all,svg,pdf", "--out", "f")
    assert code == 0
    names = {path.name for path in (tmp_path / "f").iterdir()}
    kinds = ("", "-residuals", "-holdout", "-front")  # lines have no optimum; no pictures are there
    assert names == {f"nine{kind}.{form}" for kind in kinds for form in ("svg", "pdf")}
    assert all(f"figure: f/{name}" in err for name in names)
    assert (tmp_path / "f" / "nine.pdf").read_bytes().startswith(b"%PDF")
    code, out, _ = call("fit", "nine", "--reference", "--figures", "svg", "--out", "r", "--json")
    assert code == 0 and json.loads(out)["figures"] == ["r/nine.svg"]
    svg = (tmp_path / "r" / "nine.svg").read_text()
    assert "the paper's points and law" in svg and "hollow: paper/figure-3" in svg


def test_figures_that_cannot_be_drawn_are_refused(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    for words, said in (
        (("--figures", "pie"), "there is no figure 'pie'"),
        (("--figures", "law,gif"), "there is no figure 'gif'"),
        (("--figures", "optimum"), "no fit has an optimum"),
        (("--figures", "samples"), "no reconstructions are in the run folder"),
    ):
        code, _, err = call("fit", "nine", *words)
        assert code == 2 and said in err
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "nine", "--out", "f"),
        ("search", "nine", "--out", "f"),
        ("frontier", "nine", "-m", "psnr", "--out", "f"),
        ("correlate", "nine", "--against", "psnr", "--out", "f"),
        ("contours", "nine", "-m", "psnr", "--out", "f"),
    ],
)
def test_how_figures_are_drawn_is_not_said_where_none_are(
    call: Call, tmp_path: Path, words: tuple[str, ...]
) -> None:
    filled(tmp_path)
    code, out, err = call(*words, "--figures", "none")
    assert (code, out) == (2, "") and "--figures none and --out do not go together" in err


@pytest.mark.parametrize("word", ["gif", "law", "all"])
def test_a_command_with_one_figure_takes_formats_only(
    call: Call, tmp_path: Path, word: str
) -> None:
    filled(tmp_path)
    code, out, err = call("frontier", "nine", "-m", "psnr", "--figures", f"png,{word}")
    assert (code, out) == (2, "") and f"cannot be written as {word!r}" in err


# ------------------------------------------------------------------------------------------ status


def test_status_tells_the_laws_so_far_and_what_to_expect(call: Call, tmp_path: Path) -> None:
    filled(tmp_path, unfinished=(3, 9))
    code, out, _ = call("status", "nine", "--fits", "--predict")
    assert code == 0
    grid, laws, foreseen = out.split("\n\n")
    assert len(grid.splitlines()) == 10
    law = table(laws)[0]
    assert (law["fit"], law["cells"], law["of"]) == ("fidelity", "7", "9")
    assert float(law["slope_low"]) < 1.6 < float(law["slope_high"])
    expected = table(foreseen)
    assert [(row["cell"], row["fit"]) for row in expected] == [
        ("3", "distance"),
        ("3", "fidelity"),
        ("9", "distance"),
        ("9", "fidelity"),
    ]
    E = 16 * 16 * 64
    one = expected[1]
    assert float(one["low"]) < 10 + 1.6 * math.log2(E) < float(one["high"])
    assert one["outside"] == "True"
    code, out, _ = call("status", "nine", "--predict", "--json")
    said = json.loads(out)
    assert len(said["predicted"]) == 4 and said["laws"][0]["cells"] == 7 and said["outliers"] == []


def test_a_broken_run_is_named_while_the_study_runs(call: Call, tmp_path: Path) -> None:
    filled(tmp_path, unfinished=(9,), broken=5)
    code, out, err = call("status", "nine", "--fits")
    assert code == 0 and table(out.split("\n\n")[1])[0]["outliers"] == "5"
    assert "outlier: fidelity: p 8, c 16 (cell 5) has psnr" in err
    code, out, _ = call("fit", "nine", "--figures", "none", "--json")
    assert "outlier" in json.loads(out)["fits"][0]["warnings"]


def test_status_alone_repeats_what_was_fitted_last(call: Call, tmp_path: Path) -> None:
    filled(tmp_path, unfinished=(9,))
    _, _, err = call("status", "nine")
    assert "law " not in err
    call("fit", "nine", "--figures", "none")
    _, _, err = call("status", "nine")
    assert "law fidelity: psnr = " in err and ", n 8, as of 20" in err
    assert "sweepctl status nine --fits" in err
    code, _, err = call("status", "--fits")
    assert code == 2 and "about one study" in err


def test_nothing_measured_yet_is_no_error_for_status(call: Call, tmp_path: Path) -> None:
    filled(tmp_path, unfinished=tuple(range(1, 10)))
    code, out, _ = call("status", "nine", "--fits", "--predict")
    assert code == 0
    assert table(out.split("\n\n")[1])[0]["reason"] == "nothing was measured yet"
    code, _, err = call("fit", "nine")
    assert code == 2 and "nothing of nine was measured yet" in err


# --------------------------------------------------------------------------------------- relations


def test_correlate_frontier_and_contours(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    code, out, _ = call("correlate", "nine", "--against", "rfd_lite0", "--figures", "none")
    rows = table(out)
    assert code == 0 and {row["metric"] for row in rows} == {"psnr", "ssim"}
    assert all(0.8 < float(row["spearman"]) <= 1 for row in rows)
    code, out, _ = call(
        "correlate", "nine", "--against", "rfd_lite0", "--figures", "none", "--json"
    )
    assert json.loads(out)["relations"][0]["pearson"]["method"] in ("bca", "fisher")
    code, _, err = call("correlate", "nine", "--figures", "none")
    assert code == 2 and "no 'gfid' was measured" in err

    code, out, err = call("frontier", "nine", "--metric", "psnr", "--figures", "none")
    rows = table(out)
    assert code == 0 and "along the frontier: psnr = " in err and len(rows) == 9
    best = -math.inf
    for row in rows:  # ordered by cost
        assert (row["front"] == "True") == (float(row["psnr"]) > best)
        best = max(best, float(row["psnr"]))
    words = ("frontier", "nine", "-m", "psnr", "--cost", "tokens", "--where", "c = 4")
    code, out, _ = call(*words, "--figures", "none", "--json")
    said = json.loads(out)
    assert said["against"] == "tokens" and len(said["points"]) == 3 and said["law"]["x"] == "tokens"

    code, out, _ = call("contours", "nine", "--metric", "psnr", "--figures", "none", "--json")
    said = json.loads(out)
    assert code == 0 and said["over"] == ["p", "c"]
    slopes = {name: one["estimate"] for name, one in said["law"]["coefficients"].items()}
    assert slopes["slope p"] == pytest.approx(-3.2, abs=0.5)
    assert slopes["slope c"] == pytest.approx(1.6, abs=0.3)
    code, _, err = call("contours", "nine", "--metric", "psnr", "--over", "p")
    assert code == 2 and "is not two columns" in err


def test_the_paper_is_compared_without_a_database(call: Call) -> None:
    code, out, _ = call("frontier", "paper/figure-3", "-m", "rfid@COCO-2017 val",
                        "--cost", "tokens", "--figures", "none")  # fmt: skip
    assert code == 0 and sum(row["front"] == "True" for row in table(out)) == 3
    code, _, err = call("frontier", "paper/figure-3", "-m", "rfid", "--figures", "none")
    assert code == 2 and "say which: rfid@COCO-2017 val" in err


@pytest.mark.slow
def test_their_figures_are_drawn(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    words = ("--figures", "svg", "--out", "f")
    assert call("correlate", "nine", "--against", "rfd_lite0", *words)[0] == 0
    assert call("frontier", "nine", "-m", "rfd_lite0", *words)[0] == 0
    assert call("contours", "nine", "-m", "psnr", "--where", "c > 4", *words)[0] == 0
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        *("nine-correlate-rfd_lite0.svg", "nine-frontier-rfd_lite0.svg", "nine-contours-psnr.svg")
    }
    assert "only where c &gt; 4" in (tmp_path / "f" / "nine-contours-psnr.svg").read_text()


# ------------------------------------------------------------------------------------------ suggest


def test_what_was_predicted_stands_beside_what_was_measured(call: Call, tmp_path: Path) -> None:
    """The law of the other six cells, which is known, and cell 9, which lies 9 dB below it."""
    filled(tmp_path, broken=9)
    (tmp_path / "nine.yaml").write_text(STUDY)
    code, out, err = call("suggest", "nine.yaml", "--check", "p = 16", "--fit", "fidelity")
    rows = table(out)
    assert code == 0 and [row["cell"] for row in rows] == ["7", "8", "9"]
    assert [row["inside"] for row in rows] == ["yes", "yes", "no"] and "2 of 3 values" in err
    for row, E in zip(rows, (64, 256, 1024), strict=True):
        assert float(row["predicted"]) == pytest.approx(10 + 1.6 * math.log2(E), abs=0.8)
        assert float(row["low"]) < float(row["predicted"]) < float(row["high"])
    told = json.loads(call("suggest", "nine.yaml", "--check", "p = 16", "--json")[1])
    assert {row["fit"] for row in told["cells"]} == {"fidelity", "distance"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check", "p = 5"], "no measured cell of nine meets"),
        (["--check", "p = 16", "--hours", "1"], "chooses nothing"),
        (["--check", "p = 16", "--criterion", "V"], "chooses nothing"),
        (["--check", "p = 16", "--fit", "x"], "there is no fit 'x'"),
        (["--check", "1 = 1"], "nothing can be predicted for --check '1 = 1'"),
        (["--check", "p > 4 or c > 4"], "no law without these cells"),
    ],
)
def test_what_cannot_be_checked_is_said(
    call: Call, tmp_path: Path, words: list[str], message: str
) -> None:
    filled(tmp_path)
    (tmp_path / "nine.yaml").write_text(STUDY)
    code, out, err = call("suggest", "nine.yaml", *words)
    assert (code, out) == (2, "") and message in err


# ---------------------------------------------------------------------------------- exported points


def test_exported_points_are_judged_as_the_study_itself(call: Call, tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "nine.yaml").write_text(STUDY)
    assert call("export", "nine", "--long", "-o", "points.csv")[0] == 0
    code, out, err = call("fit", "nine.yaml", "--points", "points.csv", "--figures", "none")
    assert code == 0 and "27 values of points.csv" in err
    assert out == call("fit", "nine", "--figures", "none")[1]
    some = call(
        "fit", "nine.yaml", "--points", "points.csv", "--where", "p = 8", "--figures", "none"
    )
    assert {row["n"] for row in table(some[1].split("claim\t")[0])} == {"3"}


@pytest.mark.parametrize(
    ("column", "text", "said"),
    [
        ("task", None, "has no column 'task'"),
        ("task", "", "points.csv:2: task is missing"),
        ("value", "inf", "is not a finite number in cells 1"),
        ("n", "nan", "points.csv:2: n is 'nan', which is not a whole number"),
        ("n", "inf", "points.csv:2: n is 'inf', which is not a whole number"),
        ("cell", "1.5", "points.csv:2: cell is '1.5', which is not a whole number"),
    ],
)
def test_exported_points_that_were_spoilt_are_told(
    call: Call, tmp_path: Path, column: str, text: str | None, said: str
) -> None:
    filled(tmp_path)
    (tmp_path / "nine.yaml").write_text(STUDY)
    call("export", "nine", "--long", "-o", "points.csv")
    frame = pd.read_csv("points.csv", dtype=str, keep_default_na=False)
    if text is None:
        frame = frame.drop(columns=column)
    else:
        frame.loc[0, column] = text
    frame.to_csv("points.csv", index=False)
    code, out, err = call("fit", "nine.yaml", "--points", "points.csv", "--figures", "none")
    assert code == (0 if column == "value" else 2 if text is None else 1) and said in out + err


def test_exported_flags_are_read_as_flags(call: Call, tmp_path: Path) -> None:
    (tmp_path / "flags.csv").write_text(
        "cell,task,metric,dataset,protocol,n,value,flip,some\n"
        "1,a,psnr,photos,lite0,9,20,True,False\n2,b,psnr,photos,lite0,9,21,False,\n"
    )
    read = read_points(tmp_path / "flags.csv")
    assert list(read["flip"]) == [True, False] and list(read["some"]) == [False, None]


def test_a_value_that_is_not_there_meets_no_condition(call: Call, tmp_path: Path) -> None:
    """The paper's points state not everything; exported ones do, so a gap is no maybe."""
    filled(tmp_path)
    (tmp_path / "nine.yaml").write_text(STUDY)
    call("export", "nine", "--long", "-o", "points.csv")
    asked = ["fit", "nine.yaml", "--points", "points.csv", "--figures", "none", "--where"]
    code, _, err = call(*asked, "dit_parameters > 0")
    assert code == 2 and "no exported value meets --where 'dit_parameters > 0'" in err
    code, _, err = call("fit", "nine", "--points", "points.csv")
    assert code == 2 and "--points needs the file of the study" in err
