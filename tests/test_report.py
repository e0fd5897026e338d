"""Do figures, sheets and texts say what the numbers say, the same way every time?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweepctl.analyse import equation
from sweepctl.claims import Analysis, fit_study
from sweepctl.errors import UsageError
from sweepctl.figures import SheetRow, laws, sheet, write
from sweepctl.report import (
    StageState,
    StatusCell,
    claims_text,
    fits_text,
    results_text,
    status_grid,
)
from sweepctl.study import Fit, SlopeClaim


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    rng = np.random.default_rng(0)
    rows = []
    for p in (2, 4, 8):
        for c in (4, 16, 64):
            for seed in range(2):
                e = 1024 // p**2 * c
                row = {"task": f"t{len(rows)}", "p": p, "c": c, "seed": seed, "E": e, "n": 1024}
                row |= {"dataset": "photos-eval", "protocol": "lite0"}
                distance = 2 ** (9 - 0.71 * math.log2(e) + 0.1 * rng.normal())
                row |= {"cell": len(rows) // 2}
                rows.append(row | {"metric": "rfd_lite0", "value": distance})
                decibels = 8 + 1.6 * math.log2(e) + 0.3 * rng.normal()
                rows.append(row | {"metric": "psnr", "value": decibels})
    fits = {
        "law": Fit(metric="rfd_lite0", on="photos-eval", form="loglog"),
        "fidelity": Fit(metric="psnr", on="photos-eval", form="semilog"),
        "absent": Fit(metric="ssim", on="photos-eval", form="semilog"),
    }
    claims = [
        SlopeClaim(name="E predicts distance", fit="law", slope="negative"),
        SlopeClaim(name="E raises distance", fit="law", slope="positive"),
        SlopeClaim(name="E raises SSIM", fit="absent", slope="positive"),
    ]
    return fit_study(pd.DataFrame(rows), fits, claims)


# --------------------------------------------------------------------------------------- pictures


def test_a_figure_is_a_wide_png_and_the_same_svg_each_time(
    analysis: Analysis, tmp_path: Path
) -> None:
    from PIL import Image

    drawn = laws(analysis.fits, title="figure-3")
    png, svg = write(drawn, tmp_path / "a" / "figure-3.v2")
    assert (png.name, svg.name) == ("figure-3.v2.png", "figure-3.v2.svg")
    with Image.open(png) as picture:
        assert picture.width == 1600
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50
    again = write(laws(analysis.fits, title="figure-3"), tmp_path / "again")
    assert again[0].read_bytes() == png.read_bytes()
    assert again[1].read_bytes() == svg.read_bytes()
    text = svg.read_text()
    assert "<dc:date>" not in text and "Matplotlib v" not in text


def test_a_figure_leaves_matplotlib_as_it_was(analysis: Analysis, tmp_path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 31.0}):
        one = write(laws([analysis.fit("law")]), tmp_path / "one")[1].read_bytes()
        assert mpl.rcParams["font.size"] == 31.0
    assert write(laws([analysis.fit("law")]), tmp_path / "two")[1].read_bytes() == one


def test_figures_of_nothing_are_refused(analysis: Analysis, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no fit named 'lw'"):
        laws([analysis.fit("lw")])
    with pytest.raises(UsageError, match="no fits"):
        laws(())
    assert not list(tmp_path.iterdir())
    assert write(laws([analysis.fit("absent")]), tmp_path / "absent")[0].exists()


def test_a_sheet_holds_every_pixel_in_the_order_of_E(tmp_path: Path) -> None:
    from PIL import Image

    originals = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    marks = {4096: 200, 64: 60, 512: 120}
    rows = [
        SheetRow(
            label=f"E={e}  p 16 c 16",
            E=e,
            originals=originals,
            reconstructions=np.full_like(originals, shade),
        )
        for e, shade in marks.items()
    ]
    with Image.open(sheet(rows, tmp_path / "sheet.png")) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    tops = []
    for e in sorted(marks):
        ys, _ = np.nonzero((pixels == marks[e]).all(axis=2))
        assert len(ys) > 3 * 32 * 32 * 4  # enlarged, three of them
        tops.append(int(np.median(ys)))
    assert tops == sorted(tops)
    # An enlarged original is a block of equal pixels for each of its own.
    factor = round(112 / 32)
    tile = np.repeat(np.repeat(originals[0], factor, axis=0), factor, axis=1)
    found = any(
        np.array_equal(pixels[y : y + len(tile), x : x + len(tile)], tile)
        for y in range(60)
        for x in range(pixels.shape[1] - len(tile))
        if np.array_equal(pixels[y, x : x + factor], tile[0, :factor])
    )
    assert found


def test_a_sheet_of_clips_draws_frames_of_a_clip_side_by_side(tmp_path: Path) -> None:
    from PIL import Image

    # Clip k, frame t is one flat colour of its own.
    clips = np.zeros((5, 7, 112, 112, 3), dtype=np.uint8)
    clips[..., 0] = (40 * np.arange(1, 6))[:, None, None, None]
    clips[..., 1] = (30 * np.arange(1, 8))[:, None, None]
    row = SheetRow(label="E=64", E=64, originals=clips, reconstructions=255 - clips)
    with Image.open(sheet([row], tmp_path / "sheet.png")) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    starts = {}
    for clip in range(5):
        for frame in range(7):
            for side, first in (("original", clips), ("reconstruction", 255 - clips)):
                ys, xs = np.nonzero((pixels == first[clip, frame, 0, 0]).all(axis=2))
                if len(ys) >= 112 * 112:
                    starts[side, clip, frame] = int(xs.min())
    # Three clips of four frames, from the first to the last, above each other in both rows.
    shown = [(clip, frame) for clip in range(3) for frame in (0, 2, 4, 6)]
    assert [key[1:] for key in sorted(starts) if key[0] == "original"] == shown
    assert all(starts["original", *one] == starts["reconstruction", *one] for one in shown)
    steps = np.diff([starts["original", *one] for one in shown]) - 112
    assert steps.tolist() == [1, 1, 1, 6, 1, 1, 1, 6, 1, 1, 1]


def test_sheets_of_mismatched_pictures_are_refused(tmp_path: Path) -> None:
    good = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    row = SheetRow(label="a", E=1, originals=good, reconstructions=good)
    with pytest.raises(UsageError, match="at least one"):
        sheet([], tmp_path / "s.png")
    short = SheetRow(label="b", E=2, originals=good, reconstructions=good[:1])
    with pytest.raises(UsageError, match="'b'"):
        sheet([row, short], tmp_path / "s.png")
    other = SheetRow(label="b", E=2, originals=good + 1, reconstructions=good)
    with pytest.raises(UsageError, match="other originals"):
        sheet([row, other], tmp_path / "s.png")
    floats = SheetRow(label="f", E=1, originals=good, reconstructions=good.astype(np.float32))  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UsageError, match="float32"):
        sheet([floats], tmp_path / "s.png")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------- text


def test_results_in_a_pipe_keep_every_digit_and_one_line_a_row() -> None:
    value = 0.1 + 0.2
    text = results_text(
        ["p", "rfd", "note"], [[8, value, "two\tparts\nhere"], [16, None, math.nan]], terminal=False
    )
    lines = text.split("\n")
    assert lines == ["p\trfd\tnote", f"8\t{value!r}\ttwo\\tparts\\nhere", "16\t\t", ""]


def test_results_on_a_terminal_are_aligned() -> None:
    text = results_text(["p", "metric"], [[8, 1.23456789], [16, None]], terminal=True)
    assert text.splitlines() == [" p  metric", "──  ──────", " 8   1.235", "16"]
    assert "-" in results_text(["p"], [[8]], terminal=True, unicode=False).splitlines()[1]
    assert results_text(["p"], [], terminal=True) == "no rows\n"
    assert results_text(["p", "q"], [], terminal=False) == "p\tq\n"


def test_a_narrow_terminal_gets_constant_columns_once_and_nothing_is_cut() -> None:
    columns = ["cell", "encoder_size_of_the_model", "dataset_it_was_measured_on", "value"]
    rows = [[i, "small", "photos-eval", i / 7] for i in range(3)]
    wide = results_text(columns, rows, terminal=True, width=200)
    narrow = results_text(columns, rows, terminal=True, width=40)
    assert "in every row" not in wide
    assert "in every row: encoder_size_of_the_model small," in " ".join(narrow.split())
    assert narrow.count("photos-eval") == 1
    assert all(len(line) <= 40 for line in narrow.splitlines())


def test_fits_read_as_sentences(analysis: Analysis) -> None:
    text = fits_text(analysis, terminal=True, width=100)
    law = analysis.fit("law")
    assert law.slope is not None
    assert equation(law) in text and equation(law).startswith("log2 rfd_lite0 = 8.93 - 0.7")
    assert f"slope {law.slope.estimate:.3g} [" in text
    assert law.meaning in " ".join(text.split())
    assert "(2 seeds each)" in text
    assert "not fitted: no value of ssim on photos-eval has been measured" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_fits_and_claims_in_a_pipe_are_tables(analysis: Analysis) -> None:
    header, *rows = [line.split("\t") for line in fits_text(analysis, terminal=False).splitlines()]
    assert [len(row) for row in rows] == [len(header)] * 3
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    law = analysis.fit("law")
    assert law.slope is not None
    assert float(by_name["law"]["slope"]) == law.slope.estimate
    assert by_name["absent"]["slope"] == "" and by_name["absent"]["warnings"] == "too_few_points"
    header, *rows = [
        line.split("\t") for line in claims_text(analysis, terminal=False).splitlines()
    ]
    assert header == ["claim", "verdict", "evidence"]
    assert [row[1] for row in rows] == ["supported", "contradicted", "undecided"]


def test_claims_carry_symbol_word_and_evidence(analysis: Analysis) -> None:
    text = claims_text(analysis, terminal=True, width=80)
    assert "✓ supported    E predicts distance" in text
    assert "✗ contradicted E raises distance" in text
    assert "? undecided    E raises SSIM" in text
    assert claims_text(analysis, terminal=True, unicode=False).isascii()


def test_the_status_grid_shows_each_state() -> None:
    cells = [
        StatusCell(number=0, axes={"p": 8, "c": 4}, E=4096),
        StatusCell(number=1, axes={"p": 16}, E=None),
    ]
    states = {
        (0, "stage1"): StageState(state="done"),
        (0, "eval"): StageState(state="running", fraction=0.459),
        (1, "stage1"): StageState(state="failed"),
        (1, "eval"): StageState(state="blocked"),
    }
    lines = status_grid(cells, ["stage1", "eval", "dit"], states).splitlines()
    assert lines[0].split() == ["cell", "p", "c", "E", "stage1", "eval", "dit"]
    assert lines[2].split() == ["0", "8", "4", "4096", "✓", "▶", "45%"]
    assert lines[3].split() == ["1", "16", "✗", "⊘"]
    assert lines[-1] == "✓ done 1   ▶ running 1   ✗ failed 1   ⊘ blocked 1"
    plain = status_grid(cells, ["stage1", "eval"], states, unicode=False)
    assert plain.isascii() and "FAILED" in plain and "> 45%" in plain
    nearly = {(0, "stage1"): StageState(state="running", fraction=0.9999)}
    assert "99%" in status_grid(cells[:1], ["stage1"], nearly)
    assert status_grid([], ["stage1"], {}) == "no cells\n"


def test_power_laws_and_raw_variables_are_drawn_and_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for c, e in enumerate(2.0 ** np.arange(6, 16)):
        row = {"cell": c, "task": f"t{c}", "c": c, "seed": 0, "E": e, "n": 1024}
        row |= {"dataset": "photos-eval", "protocol": "lite0"}
        distance = (0.3 + 200 * e**-0.8) * 2 ** (0.05 * rng.normal())
        rows.append(row | {"metric": "rfd_lite0", "value": distance})
        rows.append(row | {"metric": "psnr", "value": 9 + 1.5 * c + 0.2 * rng.normal()})
    on = "photos-eval"
    fits = {
        "floor": Fit(metric="rfd_lite0", on=on, form="power"),
        "across": Fit(metric="rfd_lite0", on=on, x="psnr", form="linear"),
        "cubic": Fit(metric="psnr", on=on, form="cubic"),
    }
    drawn = fit_study(pd.DataFrame(rows), fits, [])
    assert all(fit.fitted for fit in drawn.fits)
    assert all(path.stat().st_size > 10_000 for path in write(laws(drawn.fits), tmp_path / "laws"))
    text = fits_text(drawn, terminal=True)
    assert "E^-0.8" in text and "floor 0.29" in text and "each further dB of psnr" in text
