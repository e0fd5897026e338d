"""Does the report say what `results` and `fit` say, in one file that needs nothing else?"""

from __future__ import annotations

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ui_ledger import STUDY, Place, fill, value_of

from sweepctl.errors import UsageError
from sweepctl.ui import Reader, terminal_plot, write_report


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return fill(tmp_path_factory.mktemp("report"))


@pytest.fixture
def at_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(place.folder)
    return place


def say(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    from sweepctl.cli import main

    monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class Table(HTMLParser):
    """The exact values of the cells' table, row by row, and every address in the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.targets: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets += [given[name] or "" for name in ("href", "src") if name in given]
        if tag == "tr":
            self.rows.append([])
        if tag == "td" and "data-value" in given:
            self.rows[-1].append(given["data-value"] or "")


def test_the_report_is_one_small_file_with_the_numbers_of_results(
    place: Place, tmp_path: Path
) -> None:
    out = tmp_path / "small.html"
    with place.reading() as ledger:
        table = ledger.cells.results("small", sort="E,cell")
        assert write_report(ledger, place.runs, "small", out, command="sweepctl report") == (out,)
    assert out.stat().st_size < 5 * 2**20
    html = out.read_text()
    page = Table(html)
    columns = [name for name in table.columns if not name.endswith("_se") and name != "state"]
    places = [table.columns.index(name) for name in columns]
    wanted = [
        ["" if row[i] is None else repr(row[i]) if isinstance(row[i], float) else str(row[i])
         for i in places]
        for row in table.rows
    ]  # fmt: skip
    assert [row for row in page.rows if row] == wanted
    assert all(one.startswith("data:") for one in page.targets), page.targets
    assert "supported" in html and "Does E help?" in html
    assert "sweepctl run study.yaml" in html


def test_the_report_may_run_only_its_own_scripts(place: Place, tmp_path: Path) -> None:
    import base64
    import hashlib

    out = tmp_path / "small.html"
    with place.reading() as ledger:
        write_report(ledger, place.runs, "small", out)
    html = out.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy and "default-src &#39;none&#39;" in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(scripts) == 2
    for text in scripts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert digest in policy[1]


def test_its_figures_hold_every_cell(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "small.html"
    with place.reading() as ledger:
        write_report(ledger, place.runs, "small", out)
    data = re.search(r'<script type="application/json" id="data-1">(.*?)</script>', out.read_text())
    assert data
    figure = json.loads(data[1])
    drawn = {
        cell: y
        for trace in figure["data"]
        if "customdata" in trace
        for cell, y in zip(trace["customdata"], trace["y"], strict=True)
    }
    assert drawn == {cell.index: value_of(cell) for cell in place.plan.cells}


def test_a_study_without_results_has_a_report(tmp_path: Path) -> None:
    bare = fill(tmp_path, cells=0)
    with bare.reading() as ledger:
        write_report(ledger, bare.runs, "small", tmp_path / "bare.html")
        with pytest.raises(UsageError, match="nothing was measured yet"):
            write_report(ledger, bare.runs, "small", tmp_path / "bare.png", form="png")
    assert "nothing was measured yet" in (tmp_path / "bare.html").read_text()


def test_markdown_has_the_tables_and_says_where_they_come_from(
    place: Place, tmp_path: Path
) -> None:
    out = tmp_path / "small.md"
    with place.reading() as ledger:
        write_report(ledger, place.runs, "small", out, form="md", command="sweepctl report small")
    text = out.read_text()
    assert "| E helps | supported |" in text
    assert "n = 32" in text and "protocol lite0" in text and "sweepctl report small" in text
    results = text.partition("## Results")[2]
    assert sum(line.startswith("| ") for line in results.splitlines()) == 2 + 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "begin"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?x")]
)
def test_figures_for_papers_come_with_a_caption(
    place: Place, tmp_path: Path, form: str, begin: bytes
) -> None:
    out = tmp_path / f"small.{form}"
    with place.reading() as ledger:
        files = write_report(ledger, place.runs, "small", out, form=form, command="made so")
    assert files == (out, tmp_path / "small.caption.txt")
    assert out.read_bytes().startswith(begin)
    caption = files[1].read_text()
    for said in ("n = 4 configurations", "protocol lite0", "95 % interval", "made so"):
        assert said in caption


# --- the terminal -------------------------------------------------------------------------------


def test_the_plot_shows_points_law_and_its_meaning(place: Place) -> None:
    with place.reading() as ledger:
        drawn = terminal_plot(Reader(ledger, place.runs), "small", columns=80, lines=24)
    lines = drawn.splitlines()
    assert "each doubling of E adds" in lines[0]
    assert "o p 4" in lines[-1] and "x p 8" in lines[-1] and "law" in lines[-1]
    body = "\n".join(lines[1:-1])
    assert body.count("o") >= 1 and body.count("x") >= 1
    assert "\x1b" not in drawn
    assert max(map(len, lines[1:])) <= 80


def test_the_plot_knows_its_figures(place: Place) -> None:
    with place.reading() as ledger:
        reader = Reader(ledger, place.runs)
        assert terminal_plot(reader, "small", show="rfd_lite0").startswith("rfd_lite0")
        with pytest.raises(UsageError, match="no fit or metric 'nope'"):
            terminal_plot(reader, "small", show="nope")


def test_a_plot_without_a_name_has_every_law(tmp_path: Path) -> None:
    two = STUDY.replace(
        "fits:\n", "fits:\n  far: {metric: rfd_lite0, on: photos-eval, form: loglog}\n"
    )
    with fill(tmp_path, text=two).reading() as ledger:
        reader = Reader(ledger, tmp_path / "runs")
        both = terminal_plot(reader, "small", columns=80, lines=24)
        assert both.count("on photos-eval, n 4:") == 2
        assert terminal_plot(reader, "small", show="far").count("on photos-eval, n 4:") == 1


# --- export -------------------------------------------------------------------------------------


def test_csv_and_json_are_the_results(
    at_work: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert say(monkeypatch, "export", "small", "-o", str(tmp_path / "r.csv")) == 0
    assert say(monkeypatch, "export", "small", "-o", str(tmp_path / "r.json")) == 0
    with at_work.reading() as ledger:
        table = ledger.cells.results("small", columns=["*"], sort="cell")
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    records = json.loads((tmp_path / "r.json").read_text())
    assert len(rows) == len(records) == 4
    for given, record, row in zip(rows, records, table.rows, strict=True):
        whole = dict(zip(table.columns, row, strict=True))
        assert record == whole
        assert float(given["psnr"]) == whole["psnr"]
        assert given["encoder"] == whole["encoder"]


def test_parquet_has_the_same_values_in_columns_of_one_type(
    at_work: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    out = tmp_path / "r.parquet"
    assert say(monkeypatch, "export", "small", "-o", str(out), "--where", "p = 4") == 0
    frame = pd.read_parquet(out)
    assert list(frame["psnr"]) == [value_of(cell) for cell in at_work.plan.cells[:2]]
    assert frame["E"].dtype == "int64"


def test_the_long_form_has_protocol_n_and_error(
    at_work: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "r.csv"
    words = ("export", "small", "--long", "--where", "metric = 'psnr'", "-o", str(out))
    assert say(monkeypatch, *words) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 4
    assert {(row["protocol"], row["n"], row["se"]) for row in rows} == {("lite0", "32", "0.25")}


@pytest.mark.parametrize(
    "words",
    [
        ("export", "small", "-o", "results.txt"),
        ("export", "nothing", "-o", "results.csv"),
        ("export", "small", "-o", "r.csv", "--where", "nonsense ="),
        ("report", "small", "-o", "report.docx"),
        ("report", "nothing"),
        ("plot", "nothing"),
        ("ui", "--db", "missing.db"),
        ("ui", "--host", "256.1.1.1"),
    ],
)
def test_mistakes_are_told_in_one_message(
    at_work: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    assert say(monkeypatch, *words) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said


@pytest.mark.parametrize("words", [("--port", "8799"), ("--host", "127.0.0.1"), ("--name", "me")])
@pytest.mark.usefixtures("at_work")
def test_a_unix_socket_has_neither_port_nor_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    assert say(monkeypatch, "ui", "--socket", "missing/ui.sock", *words) == 2
    assert f"--socket and {words[0]} do not go together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "file", "option"),
    [
        ("export", "results.csv", "another file with -o"),
        ("report", "report.html", "another file with -o"),
        ("report", "report.md", "another file with -o"),
        ("report", "report.pdf", "another folder with --out"),
    ],
)
@pytest.mark.parametrize("folder", ["/proc", "/proc/missing"])
@pytest.mark.usefixtures("at_work")
def test_a_file_that_cannot_be_written_is_to_be_another_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    file: str,
    option: str,
    folder: str,
) -> None:
    assert say(monkeypatch, command, "small", "-o", f"{folder}/{file}") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot write ") and f"hint: choose {option}" in said
