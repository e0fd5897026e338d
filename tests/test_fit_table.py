"""What `sweepctl fit-table` makes of good and of bad tables; and the paper's own points."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweepctl.analyse import FitResult, fit_table
from sweepctl.errors import UsageError
from sweepctl.paper import paper_names, paper_study, reference_points
from sweepctl.study import Fit

Call = Callable[..., tuple[int, str, str]]


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


# ----------------------------------------------------------------- which columns are settings

LEVELS, SEEDS = (64, 128, 256, 512, 1024), range(4)


def repeated(**more: Sequence[Any]) -> dict[str, list[Any]]:
    """Five configurations with four seeds each, which scatter less than means around a law."""
    rng = np.random.default_rng(1)
    off = {E: 0.6 * rng.normal() for E in LEVELS}
    psnr = [10 + 2.7 * math.log2(E) + off[E] + 0.02 * rng.normal() for E in LEVELS for _ in SEEDS]
    columns: dict[str, list[Any]] = {"E": [E for E in LEVELS for _ in SEEDS], "psnr": psnr}
    return columns | {name: list(values) for name, values in more.items()}


def law_of(columns: dict[str, list[Any]], **more: Any) -> FitResult:
    stated = {"metric": "psnr", "on": "t", "x": "E", "form": "semilog"} | more
    return fit_table(columns, Fit.model_validate(stated))


SEED = [seed for _ in LEVELS for seed in SEEDS]
ROW = range(20)
OTHER = {
    "Name": [f"sunny-water-{i}" for i in ROW],
    "Created": [f"2026-01-01T00:{i // 2:02d}:00" for i in ROW],  # two runs began together
    "lpips": [0.1 + 0.001 * (i // 3) for i in ROW],
    "val_loss": [round(0.1 + 0.001 * i, 2) for i in ROW],
    "eval/PSNR": [20 + 0.1 * i for i in ROW],
    "metrics.rfid": [9 - 0.1 * i for i in ROW],
    "gradient_norm": [0.1 + 0.001 * i for i in ROW],
    "Runtime": [3600.0 + i // 2 for i in ROW],
    "Start Time": [1.7e9 + i // 4 for i in ROW],
    "hostname": [f"node{i % 3}" for i in ROW],
    "index": [i % 4 for i in ROW],
    "Unnamed: 0": list(ROW),
    "_step": [1000.0] * 20,
}


def test_every_name_of_a_seed_gives_the_same_interval() -> None:
    wanted = law_of(repeated(seed=SEED))
    assert wanted.n == 5 and wanted.seeds == (4, 4) and wanted.slope is not None
    assert wanted.slope_interval() == pytest.approx((1.69, 3.58), abs=0.01)
    assert [w.code for w in wanted.warnings] == ["influential_point"]
    for name in (
        *("Seed", "SEED", "config.seed", "config/seed", "rng_seed", "rngSeed", "RNG-Seed", "seeds"),
        *("random_state", "seed_id", "Seed number", "run", "run_id", "runId", "Run ID", "run name"),
        *("trial", "trial_number", "replicate", "repeat", "train.run", "Unnamed: 0"),
    ):
        law = law_of(repeated(**{name: SEED}))
        assert (law.n, law.seeds, law.slope) == (5, (4, 4), wanted.slope), name
        said = law.warnings[0]
        assert said.code == "columns_left_out" and name in said.message
        assert "the 20 rows are 5 configurations" in said.message


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_setting_does_not_make_configurations(name: str) -> None:
    wanted = law_of(repeated(seed=SEED))
    law = law_of(repeated(seed=SEED, **{name: OTHER[name]}))
    assert (law.n, law.seeds, law.slope) == (5, (4, 4), wanted.slope)
    if name != "_step":  # which is a setting that does not vary
        assert law.warnings[0].code == "columns_left_out" and name in law.warnings[0].message
    alone = law_of(repeated(**{name: OTHER[name]}))
    assert alone.n == 5 and alone.slope == wanted.slope


def test_a_setting_that_the_law_does_not_name_is_said() -> None:
    gpu, port = [i % 4 for i in ROW], [5000 + i % 4 for i in ROW]
    for more, which in (
        ({"gpu": gpu}, "gpu"),
        ({"loss_name": ["l1", "l2", "lad", "kl"] * 5}, "loss_name"),
        ({"gpu": gpu, "port": port}, "gpu and port"),  # each keeps what the other one splits
        ({"seed": SEED, "gpu": gpu}, "gpu"),
    ):
        law = law_of(repeated(**more))
        (said,) = [w.message for w in law.warnings if w.code == "seeds_as_rows"]
        assert law.n == 20 and f"20 points are 5 configurations that differ in {which}:" in said
    kept = law_of(repeated(seed=SEED, p=[8] * 10 + [16] * 10))
    assert kept.n == 6 and "6 points are 5 configurations that differ in p" in (
        kept.warnings[0].message
    )
    factor = law_of(repeated(seed=SEED, gpu=gpu), factors=["gpu"])
    assert factor.n == 20 and "seeds_as_rows" not in [w.code for w in factor.warnings]


def test_settings_that_are_written_differently_are_the_same() -> None:
    p = [8, 8.0, np.int64(8), np.float64(8)] * 5
    assert law_of(repeated(p=p, seed=SEED)).n == 5
    assert law_of(repeated(p=p[:10] + [None, math.nan] * 5, seed=SEED)).n == 6


def test_a_column_that_numbers_seeds_is_not_a_variable() -> None:
    for more in ({"x": "Seed"}, {"factors": ["Seed"]}):
        with pytest.raises(UsageError, match="'Seed' numbers seeds"):
            law_of(repeated(Seed=SEED), **more)
    # What is named is a variable, whatever else its name says.
    assert law_of(repeated(run=SEED), factors=["run"]).n == 20


@pytest.mark.parametrize(
    ("name", "values", "code", "said"),
    [
        ("protocol", ("adm", "lite0"), "mixed_protocols", "under 2 protocols (adm, lite0)"),
        ("Protocol", ("adm", None), "mixed_protocols", "(adm, unknown)"),
        ("n", (1000, 5000), "mixed_n_samples", "2 numbers of samples (1000, 5000)"),
        ("n", (1000.0, None), "mixed_n_samples", "(unknown, 1000)"),
        ("dataset", ("photos", "clips"), "mixed_datasets", "on 2 data sets (clips, photos)"),
        ("on", ("photos", "clips"), "mixed_datasets", "--where \"on = 'clips'\""),
        ("metric", ("psnr", "ssim"), "mixed_datasets", "holds 2 metrics (psnr, ssim)"),
    ],
)
def test_what_cannot_share_a_fit_in_a_study_cannot_in_a_table(
    name: str, values: tuple[Any, Any], code: str, said: str
) -> None:
    law = law_of(repeated(seed=SEED, **{name: values * 10}))
    assert not law.fitted and law.warnings[0].code == code and said in law.reason
    same = law_of(repeated(seed=SEED, **{name: values[:1] * 20}))
    assert same.n == 5 and same.fitted
    if code != "mixed_n_samples":
        as_factor = law_of(repeated(seed=SEED, **{name: values * 10}), factors=[name])
        assert as_factor.n == 10


def test_neither_parameters_nor_noise_are_numbers_of_samples() -> None:
    for name, values in (("N", [10, 20]), ("n", [0.5, 1.5])):
        law = law_of(repeated(seed=SEED, **{name: values * 10}))
        assert law.fitted and law.n == 10


@pytest.mark.parametrize("name", ["se", "SE", "psnr_se", "stderr", "standard_error"])
def test_standard_errors_are_numbers_above_0(name: str) -> None:
    law = law_of(repeated(**{"seed": SEED, name: [0.3] * 20}))
    assert law.weighting == "" and law.n == 5 and law.noise is not None
    noise = [point.noise for point in law.points]
    assert noise == pytest.approx([math.hypot(0.3, law.noise / 2)] * 5)
    for bad in (-0.3, 0, "0,3", math.inf):
        errors = [0.3] * 6 + [bad] + [0.3] * 13
        with pytest.raises(UsageError, match=f"row 7: {name} is .* above 0, or missing"):
            law_of(repeated(**{"seed": SEED, name: errors}))
    absent = law_of(repeated(**{"seed": SEED, name: [None] * 4 + [0.3] * 16}))
    assert "evaluation_error_missing" in [w.code for w in absent.warnings]


def csv_of(columns: dict[str, list[Any]]) -> str:
    lines = [",".join(columns)]
    lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    return "\n".join(lines) + "\n"


def test_what_is_left_out_is_said_on_the_command_line(call: Call) -> None:
    columns = repeated(Name=OTHER["Name"], rng_seed=SEED, gpu=[i % 2 for i in ROW])
    Path("points.csv").write_text(csv_of(columns))
    words = ("--y", "psnr", "--x", "E", "--form", "semilog", "--figures", "none")
    code, _, err = call(*TABLE, *words)
    assert code == 0
    assert (
        "note: left out of the settings: rng_seed (the runs of a configuration); Name (dif" in err
    )
    assert "note: 10 points are 5 configurations that differ in gpu" in err


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        ("sep", ""),
        ("sep tab", ""),
        ("comments", "lines 1, 4, 7 beginning with # not read"),
        ("index", "column 1 has no name and only counts rows: it is not read"),
        ("last", "column 4 has neither a name nor values and is not read"),
        ("blank", ""),
        ("quoted", ""),
        ("a column #", "left out of the settings: # (when, where or in which order"),
        ("form feed", ""),
    ],
)
def test_what_programs_add_to_tables_is_read(call: Call, change: str, noted: str) -> None:
    _, wanted, _ = fitted(call, rows())
    lines = rows().splitlines()
    if change == "sep":
        lines = ["sep=;", *(line.replace(",", ";") for line in lines)]
    elif change == "sep tab":
        lines = ["sep=\t", *(line.replace(",", "\t") for line in lines)]
    elif change == "comments":
        lines = ["# made by hand", *lines[:2], "  # 1,2,3", *lines[2:4], "#64,8,0.5", *lines[4:]]
    elif change in ("index", "a column #"):
        first = "" if change == "index" else "#"
        lines = [f"{first},{lines[0]}", *(f"{i},{line}" for i, line in enumerate(lines[1:]))]
    elif change == "last":
        lines = [f"{line}," for line in lines]
    elif change == "blank":
        lines = ["", " ", lines[0], "", *lines[1:5], "  ", *lines[5:], "", " "]
    elif change == "quoted":
        lines = [",".join(f'"{one}"' for one in line.split(",")) for line in lines]
    else:
        lines = [f"{lines[0]},note", *(f"{line},a\x0cb\u2028" for line in lines[1:])]
    code, fit, err = fitted(call, "\n".join(lines))
    assert code == 0, err
    assert fit["slope"] == wanted["slope"] and fit["n"] == wanted["n"]
    assert noted in err + " ".join(fit["messages"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("E;p;loss\n1024;8;0,5\n", "points.csv:2: loss is '0,5': write a decimal point, 0.5"),
        ("sep=;\nE;loss\n1024;0,512\n", "points.csv:3: loss is '0,512': write a decimal point"),
        ("E;lr;loss\n1.024;0,01;2\n", "points.csv:2: E is '1.024' and lr has decimal commas: wr"),
        ("E;loss\n1.024.000;2\n", "E is '1.024.000': write a number without thousand separators"),
        ("E;loss\n1.024,5;2\n", "points.csv:2: E is '1.024,5': write a number without"),
        ("E;loss\n1,024;2\n", "without thousand separators, 1024, or a decimal point, 1.024"),
        ("E,loss\n1024,0,5\n", "points.csv:2: 3 values for 2 columns (E, loss)"),
        ("E loss\n1 2\n", "points.csv:1: one column only, 'E loss'"),
        ("E|loss\n1|2\n", "separated by commas, semicolons or tabs"),
        (",E,loss\na,1,2\n", "points.csv:1: column 1 has no name\n  hint: name it, or remove it"),
        ("# E,loss\n1,2\n", "line 1 begins with #, so it is a comment: remove the # if it names"),
        ("#E,loss\n# 1,2\n", "points.csv:1: the first line must name the columns"),
        ("E,loss,se\n1,2,0.1\n2,3,high\n", "points.csv:3: se is 'high', which is not a number"),
        ("E,loss,se\n1,2,-0.1\n", "points.csv:2: se is '-0.1': a standard error is a number abo"),
        ("E,loss,loss_se\n1,2,0\n", "points.csv:2: loss_se is '0': a standard error is a number"),
        ("E,loss,SE\n1,2,inf\n", "points.csv:2: SE is 'inf': a standard error"),
        ("E;loss;se\n1;2;0,1\n", "points.csv:2: se is '0,1': write a decimal point, 0.1"),
        ("E,loss\n1,2 dB\n", "points.csv:2: loss is '2 dB', which is not a number"),
        ("E,loss\n1,50%\n", "loss is '50%', which is not a number"),
        ("E,loss\n1,\u22122\n", "points.csv:2: loss is '\u22122', which is not a number"),
        (
            "E;Qualit\xe4t;loss\n1;gut;2\n".encode("cp1252"),
            "points.csv:1: byte 0xe4 is not UTF-8\n  hint: save the file as UTF-8; for a file of "
            "an older Windows: iconv -f WINDOWS-1252 -t UTF-8 points.csv",
        ),
        ("E,loss\n1,2\n".encode("utf-16-le"), "holds a zero byte"),
    ],
)
def test_a_table_of_another_country_or_program_is_refused_with_what_to_do(
    call: Call, text: str | bytes, said: str
) -> None:
    code, fit, err = fitted(call, text)
    assert (code, fit) == (1, {})
    assert said in err and "Traceback" not in err


def test_a_folder_called_like_a_table_is_named(call: Call) -> None:
    for name in ("points.csv", "points"):
        Path(name).mkdir()
        code, _, err = call("fit-table", name, "--y", "loss", "--x", "E", "--form", "loglog")
        assert code == 2 and f"{name} is a folder, not a table" in err


def test_a_kept_table_is_fitted_as_it_was(call: Call) -> None:
    # Every row of points.csv is a configuration: with weights no column is looked at as a seed.
    columns = repeated(seed=SEED, c=[i // 4 for i in ROW])
    Path("points.csv").write_text(csv_of(columns))
    words = ("--y", "psnr", "--x", "E", "--form", "semilog", "--figures", "none")
    code, out, _ = call(*TABLE, *words, "--json", "--save", "kept")
    first = json.loads(out)
    folder = Path(*first["kept"].values())
    code, out, err = call(
        "fit-table", str(folder / "points.csv"), *words, "--weight", "weight", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["fits"][0]["slope"]["estimate"] == pytest.approx(
        first["fits"][0]["slope"]["estimate"], rel=1e-12
    )


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
