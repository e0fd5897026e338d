"""What `sweepctl fit-table` makes of good and of bad tables; and the paper's own points."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweepctl import cli
from sweepctl.paper import paper_names, paper_study, reference_points

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run the command line as `main` does; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return run


TABLE = ("fit-table", "points.csv")


def rows(n: int = 8, noise: float = 0.05) -> str:
    """loss = 3 E^-0.5 with a little noise, and a factor that halves it."""
    rng = np.random.default_rng(0)
    lines = ["E,p,loss"]
    for i in range(n):
        E, p = 2 ** (8 + i // 2), (8, 16)[i % 2]
        loss = 3 * E**-0.5 / (1 + i % 2) * math.exp(noise * rng.normal())
        lines.append(f"{E},{p},{loss!r}")
    return "\n".join(lines) + "\n"


def fitted(call: Call, text: str | bytes, *words: str) -> tuple[int, dict[str, Any], str]:
    """Fit a table and give exit code, the fit from the JSON (empty without), and stderr."""
    data = text if isinstance(text, bytes) else text.encode()
    Path("points.csv").write_bytes(data)
    options = words or ("--x", "E", "--form", "loglog")
    code, out, err = call(
        "fit-table", "points.csv", "--y", "loss", *options, "--figures", "none", "--json"
    )
    return code, (json.loads(out)["fits"][0] if out else {}), err


def test_a_law_and_a_factor_come_out_of_a_table(call: Call) -> None:
    code, fit, err = fitted(call, rows(16), "--x", "E", "--form", "loglog", "--factor", "p")
    assert code == 0 and err == ""
    assert fit["slope"]["estimate"] == pytest.approx(-0.5, abs=0.05)
    assert fit["coefficients"]["p 16"]["estimate"] == pytest.approx(-1, abs=0.15)
    assert fit["n"] == 16 and fit["on"] == "points.csv"
    code, out, _ = call("fit-table", "points.csv", "--y", "loss", "--x", "E", "--form", "power",
                        "--loss", "huber:1e-3", "--figures", "none")  # fmt: skip
    assert code == 0 and out.splitlines()[1].startswith("law\tloss\tpoints.csv")


def test_figures_are_drawn_where_told(call: Call) -> None:
    Path("points.csv").write_text(rows())
    words = ("--y", "loss", "--x", "E", "--form", "loglog", "--out", "drawn")
    code, _, err = call("fit-table", "points.csv", *words)
    assert code == 0 and "figure: drawn/points.svg" in err
    assert Path("drawn/points.png").stat().st_size > 10_000


@pytest.mark.parametrize("change", ["bom", "utf-16", "crlf", "semicolons", "tabs", "spaces"])
def test_files_as_programs_write_them_give_the_same_law(call: Call, change: str) -> None:
    plain = rows()
    _, wanted, _ = fitted(call, plain)
    text = {
        "bom": "\ufeff" + plain,
        "crlf": plain.replace("\n", "\r\n"),
        "semicolons": plain.replace(",", ";"),
        "tabs": plain.replace(",", "\t"),
        "spaces": plain.replace(",", " , ") + "\n\n",
    }.get(change, plain)
    code, fit, err = fitted(call, text.encode("utf-16") if change == "utf-16" else text.encode())
    assert code == 0, err
    assert fit["slope"] == wanted["slope"]


def test_columns_may_be_called_like_columns_of_ours(call: Call) -> None:
    _, wanted, _ = fitted(call, rows())
    for name in ("n", "value", "cell", "id", "E.E"):
        text = rows().replace("E,p,loss", f"{name},p,loss")
        code, fit, err = fitted(call, text, "--x", name, "--form", "loglog")
        assert code == 0, err
        assert fit["slope"] == wanted["slope"] and fit["x"] == name


def test_seeds_and_standard_errors_are_known_by_their_names(call: Call) -> None:
    lines = ["E,seed,loss,se"]
    lines += [
        f"{2**i},{seed},{2**-i * (1 + 0.1 * seed)!r},0.01" for i in range(5) for seed in (0, 1)
    ]
    code, fit, err = fitted(call, "\n".join(lines))
    assert code == 0, err
    assert fit["n"] == 5 and fit["seeds"] == [2, 2] and fit["noise"] > 0
    assert fit["weighting"] == "seeds and evaluation noise"


LINE = rows(6).splitlines()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "points.csv:1: the first line must name the columns"),
        ("E,p,loss\n", "no rows"),
        ("1,2,3\n4,5,6\n", "holds numbers (1, 2, 3); the first line must name"),
        ("E,E,loss\n1,2,3\n", "two columns are named 'E'"),
        ("E,,loss\n1,2,3\n", "column 2 has no name"),
        ("E,loss\n1,2,3\n", "points.csv:2: 3 values for 2 columns"),
        ('E,loss\n"1,2\n', "points.csv:2: unexpected end of data"),
        ('E,loss\n"1,024",2\n', "points.csv:2: E is '1,024': write a number without thousand"),
        ("E;loss\n1024;0,5\n", "points.csv:2: loss is '0,5': write a decimal point, 0.5"),
        ("E,loss\n1024,\n2048,1\n", "points.csv:2: loss is missing"),
        ("E,loss\n1024,N/A\n", "points.csv:2: loss is missing ('N/A')"),
        ("E,loss\n1024,high\n", "points.csv:2: loss is 'high', which is not a number"),
        ("E,loss\n1_024,1\n", "points.csv:2: E is '1_024', which is not a number"),
        (b"E,loss\n1,2\n3,4 \xb5m\n", "points.csv:3: byte 0xb5 is not UTF-8"),
        (b"E,loss\n1,2\n3,4\x00\n", "points.csv:3: holds a zero byte"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_by_line(
    call: Call, text: str | bytes, said: str
) -> None:
    code, fit, err = fitted(call, text)
    assert (code, fit) == (1, {})
    assert said in err and "Traceback" not in err


def bad(change: str) -> str:
    """The table with one thing wrong."""
    lines = list(LINE)
    if change in ("nan", "inf", "0", "-1"):
        lines[3] = lines[3].rpartition(",")[0] + f",{change}"
    elif change == "zero x":
        lines[3] = "0" + lines[3][lines[3].index(",") :]
    elif change == "constant x":
        lines = [lines[0]] + [
            f"256,{i}{line[line.rindex(',') :]}" for i, line in enumerate(lines[1:])
        ]
    elif change == "one point":
        lines = lines[:2]
    elif change == "few":
        lines = lines[:3]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "words", "warned"),
    [
        ("nan", (), "nonfinite_value"),
        ("inf", (), "nonfinite_value"),
        ("0", (), "nonpositive_value"),
        ("-1", (), "nonpositive_value"),
        ("zero x", (), "nonpositive_value"),
        ("constant x", (), "few_levels"),
        ("one point", (), "too_few_points"),
        ("few", (), "too_few_points"),
        ("", ("--x", "E", "--x", "twice", "--form", "loglog"), "collinear"),
        ("", ("--x", "E", "--form", "loglog", "--factor", "same"), "few_levels"),
        ("rising", ("--x", "E", "--form", "power"), "wrong_direction"),
    ],
)
def test_points_that_make_no_law_end_with_a_code(
    call: Call, change: str, words: tuple[str, ...], warned: str
) -> None:
    lines = bad(change).splitlines()
    lines[0] += ",twice,same"
    for i, line in enumerate(lines[1:], 1):
        values = line.split(",")
        if change == "rising":
            values[2] = values[0]
        lines[i] = ",".join([*values, str(2 * float(values[0])), "here"])
    code, fit, err = fitted(call, "\n".join(lines), *words)
    assert code == 1 and err.startswith(f"error: the law was not fitted: {warned}: ")
    assert fit["warnings"][0] == warned
    assert "cell" not in fit["messages"][0]  # a table has rows


def test_rows_that_repeat_are_counted_once_and_told(call: Call) -> None:
    code, fit, _ = fitted(call, "\n".join([*LINE, LINE[2]]))
    assert code == 0 and fit["n"] == 6 and "duplicate_rows" in fit["warnings"]
    assert "rows 7 repeat" in fit["messages"][fit["warnings"].index("duplicate_rows")]


def test_a_constant_y_is_told(call: Call) -> None:
    text = "E,loss\n" + "".join(f"{2**i},3\n" for i in range(6))
    code, fit, _ = fitted(call, text)
    assert code == 0 and fit["slope"]["estimate"] == pytest.approx(0, abs=1e-12)
    assert fit["r2"] is None and "few_levels" in fit["warnings"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit-table", "points.csv", "--y", "loss"), "Missing option '--x'"),
        (("fit-table", "points.csv", "--y", "loss", "--x", "E"), "Missing option '--form'"),
        (
            ("fit-table", "points.csv", "--y", "los", "--x", "E", "--form", "loglog"),
            "did you mean 'loss'?",
        ),
        (
            ("fit-table", "points.csv", "--y", "E", "--x", "E", "--form", "loglog"),
            "cannot explain itself",
        ),
        (("fit-table", "points.csv", "--y", "loss", "--x", "E", "--form", "log"), "form: "),
        (
            ("fit-table", "points.csv", "--y", "loss", "--x", "E", "--form", "quadratic"),
            "scale of metric",
        ),
        (
            (
                "fit-table",
                "points.csv",
                "--y",
                "loss",
                "--x",
                "E",
                "--form",
                "loglog",
                "--loss",
                "lad",
            ),
            "loss lad goes with power laws",
        ),
        (("fit", "points.csv"), "'points.csv' is a table, not a study"),
        (("fit", "points.csv"), "sweepctl fit-table points.csv --y COLUMN --x COLUMN"),
        (("fit", "points.csv", "--reference"), "sweepctl fit-table points.csv"),
        (("fit-table", "points.csv", "--reference"), "No such option"),
        (("fit", "quickstart", "--y", "loss"), "No such option"),
        (("fit-table", "quickstart", "--y", "y", "--x", "x", "--form", "loglog"), "is not a table"),
        (("fit", "paper/figure-3"), "sweepctl fit paper/figure-3 --reference"),
        (("fit", "paper/figure-33", "--reference"), "did you mean 'paper/figure-3'?"),
        (("fit", "paper/figure-3", "--reference", "--db", "x.db"), "not from a database"),
    ],
)
def test_options_that_do_not_go_together_are_exit_code_2(
    call: Call, words: tuple[str, ...], said: str
) -> None:
    Path("points.csv").write_text(rows())
    code, out, err = call(*words)
    assert (code, out) == (2, "") and said in err


# ------------------------------------------------------------------------------ the paper's points


def test_the_paper_s_figures_are_fitted_without_a_run(call: Call) -> None:
    code, out, err = call("fit", "paper/figure-3", "--reference", "--figures", "none", "--json")
    assert code == 0
    said = json.loads(out)
    assert {fit["name"]: round(fit["r2"], 2) for fit in said["fits"]} == said["printed_r2"]
    assert not Path("results.db").exists() and not Path("runs").exists()
    code, _, err = call("fit", "paper/figure-9", "--reference", "--figures", "none")
    assert code == 0 and "R2 as printed in the paper: rfid-ssim 0.92" in err


def test_every_paper_study_has_points_and_laws() -> None:
    assert len(paper_names()) == 14
    figures = set(reference_points()["figure"])
    for name in paper_names():
        study = paper_study(name)
        assert study.fits and set(study.figures) <= figures
        assert set(study.printed) <= set(study.fits)
        assert bool(study.claims) or study.printed
