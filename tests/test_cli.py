"""Does the command line say what happened, in the right place, with the right exit code?"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import SMALL, write
from sweepctl import cli

REAL = SMALL.replace("metrics: [psnr, rfd_lite0]", "metrics: [psnr, ssim]").replace(
    "steps: 10", "steps: 3"
)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small real study that was run in this process."""
    folder = tmp_path_factory.mktemp("finished")
    write(folder, REAL, "small.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["sweepctl", "run", "small.yaml", "--cluster", "inline", "-q"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        assert ended.value.code in (0, None)
    return folder


@pytest.fixture
def there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_a_new_user_finds_the_way(call: Call, tmp_path: Path) -> None:
    code, out, err = call("init", "mine.yaml")
    assert code == 0 and out.splitlines() == ["mine.yaml", "study.schema.json"]
    assert err == "next: sweepctl plan mine.yaml\n"
    code, out, err = call("check", "mine.yaml")
    assert (code, out) == (0, "mine.yaml: mine is a valid study of 4 cells\n")
    code, out, err = call("plan", "mine.yaml")
    assert code == 0 and "4 cells, 10 tasks, 10 to run" in err
    assert out.splitlines()[0].startswith("stage\tcells\ttasks\tshared\tcached\tnew\tblocked")
    # Planning writes nothing: no database, no run folder.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "study.schema.json"]


def test_an_invalid_study_is_exit_code_3(call: Call, tmp_path: Path) -> None:
    write(tmp_path, SMALL.replace("steps: 10", "stepps: 10"), "bad.yaml")
    code, out, err = call("run", "bad.yaml")
    assert (code, out) == (3, "")
    assert err.startswith("error: bad.yaml:9:12: stages.stage1.stepps: unknown key 'stepps'")
    assert not (tmp_path / "results.db").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["results", "nothing"], 1, "results.db"),
        (["status"], 1, "results.db"),
        (["run"], 2, "Missing argument"),
        (["run", "none.yaml", "--device", "gpu"], 2, "there is no device 'gpu'"),
        (["run", "none.yaml"], 3, "none.yaml:1:1: the file does not exist"),
        (["frobnicate"], 2, "No such command"),
        (["query", "select 1", "--db", "oracle://x/y"], 2, "oracle"),
        (["query", "select 1", "--db", "postgresql://u:geheim@127.0.0.1:1/x"], 5, "127.0.0.1"),
        (["init", "Bad Name!.yaml"], 2, "cannot name a study"),
    ],
)
def test_mistakes_on_the_command_line(call: Call, words: list[str], code: int, said: str) -> None:
    got, out, err = call(*words)
    assert got == code and out == "" and said in err
    assert "geheim" not in err and "Traceback" not in err


@pytest.mark.usefixtures("there")
def test_the_first_run_keeps_the_published_numbers(call: Call) -> None:
    code, out, _ = call("query", "select count(*) as n, max(protocol) as p from v_reference")
    assert (code, out) == (0, "n\tp\n900\tpaper\n")


def test_running_again_does_nothing(call: Call, there: Path) -> None:
    code, out, err = call("run", "small.yaml", "--cluster", "inline")
    assert code == 0
    assert "nothing to do: all 10 tasks of small are done" in err and "start" not in err
    assert out.splitlines()[0].split("\t")[:4] == ["cell", "p", "c", "E"]
    assert [line.split("\t")[3] for line in out.splitlines()[1:]] == ["64", "256", "256", "1024"]


def test_results_and_query(call: Call, there: Path) -> None:
    code, out, _ = call("results", "small", "--where", "p = 8 and psnr > 0", "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["p"], row["E"]) for row in rows] == [(8, 64), (8, 256)]
    code, out, _ = call("results", "small", "--columns", "c,psnr", "--sort=-c", "-f", "csv")
    table = list(csv.reader(io.StringIO(out)))
    assert table[0] == ["c", "psnr"] and [row[0] for row in table[1:]] == ["16", "16", "4", "4"]
    code, out, _ = call("query", "select p, count(*) as n from v_cell group by p", "-f", "json")
    assert json.loads(out) == [{"p": 4, "n": 2}, {"p": 8, "n": 2}]
    code, out, err = call("query", "select * from v_metric", "--limit", "3")
    assert code == 0 and len(out.splitlines()) == 4 and "cut after 3 rows" in err
    code, out, err = call("results", "small", "--where", "1; drop table sweep_task")
    assert code != 0 and out == ""
    code, out, err = call("results", "small", "-f", "xml")
    assert code == 2 and "table, csv or json" in err


@pytest.mark.parametrize(
    "sql",
    [
        "insert into sweep_study(name) values ('x')",
        "delete from sweep_task",
        "attach 'other.db' as o",
        "pragma user_version = 7",
        "create table x(y)",
    ],
)
def test_query_cannot_write(call: Call, there: Path, sql: str) -> None:
    before = (there / "results.db").read_bytes()
    code, out, err = call("query", sql)
    assert code == 1 and out == "" and "not authorized" in err
    assert (there / "results.db").read_bytes() == before
    assert not (there / "other.db").exists()


def test_status_show_why_and_logs(call: Call, there: Path) -> None:
    code, out, err = call("status", "small")
    assert code == 0 and out.splitlines()[1].endswith("\tdone") and "10 done" in err
    code, out, _ = call("status", "small", "--json")
    assert json.loads(out)["cells"][0]["state"] == "done"
    code, out, _ = call("status")
    assert out.splitlines()[1].split("\t") == ["small", "4", "10", "10", "0", "0", "0"]
    code, out, err = call("show", "small.yaml", "--cell", "2")
    rows = dict(line.split("\t", 1) for line in out.splitlines())
    assert rows["tokenizer.c"] == "16\tsmall.yaml:5:6"
    assert rows["stages.stage1.flip"] == "true\tdefault"
    code, out, _ = call("show", "small", "-c", "2", "--json")
    assert json.loads(out)["derived"]["E"] == 1024
    task = json.loads(out)["tasks"]["stage1"]
    code, out, err = call("show", "small", "-c", "5")
    assert code == 2 and "there is no cell 5; the study has 4 cells" in err
    code, out, _ = call("show", task)
    assert f"{task}  nano-nano/4 c16 32px seed 0" in out and "which differs in" in out
    code, out, _ = call("show", task, "--json")
    assert call("why", task)[0] == 2 and "sweepctl show" in call("why", task)[2]
    # Two others are as close: the one with another c, and the one with another p.
    nearest = json.loads(out)["differences"]
    assert [one["path"] in ("config.tokenizer.c", "config.tokenizer.p") for one in nearest] == [
        True
    ]
    code, out, err = call("logs", task, "--follow")
    assert code == 0 and "step 3  steps 3  loss" in out and err.strip().endswith("log.txt")
    code, out, err = call("logs", "stage1")
    assert code == 2 and task in err  # ambiguous: the candidates are listed
    code, out, err = call("logs", task, "--attempt", "9")
    assert code == 2 and "1 attempt" in err


def test_fit_prints_laws_and_draws(call: Call, there: Path, tmp_path: Path) -> None:
    code, out, err = call("fit", "small", "--out", str(tmp_path / "figures"))
    assert code == 0
    assert "law\tpsnr\tphotos-eval" in out and "E helps\t" in out
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert figures == ["small-samples.png", "small.png", "small.svg"]
    assert str(tmp_path / "figures" / "small.png") in err
    code, out, _ = call("fit", "small", "--figures", "none", "--json")
    said = json.loads(out)
    fit = said["fits"][0]
    assert set(fit) >= {"name", "metric", "on", "form", "n", "r2", "coefficients", "warnings"}
    assert set(said["claims"][0]) >= {"name", "verdict", "evidence"}
    # Fits may be edited after the run: the file as it is now is what is fitted.
    write(there, REAL.replace("law:", "other:").replace("fit: law", "fit: other"), "new.yaml")
    code, out, _ = call("fit", "new.yaml", "--figures", "none")
    assert code == 0 and "other\tpsnr" in out


def test_plan_gives_the_reason_of_a_rerun(call: Call, there: Path) -> None:
    _, out, _ = call("plan", "small.yaml", "--set", "steps=4", "--json")
    said = json.loads(out)
    assert [(line["stage"], line["new"]) for line in said["stages"]] == [
        ("prepare", 0),
        ("stage1", 4),
        ("reconstruct", 4),
    ]
    assert said["reasons"][0]["why"] == "changed: config.stage1.steps: 3 -> 4"
    assert said["stages"][1]["hours"] > 0  # calibrated by the attempts that were recorded


def test_spec_counts_a_tokenizer_without_a_study(call: Call) -> None:
    code, out, err = call("spec", "S-B/16", "-r", "256", "-c", "16", "--set", "lengths=64,256")
    assert code == 0 and err.startswith("S-B/16 at 256 px: 1 x 16 x 16 tubelets")
    table = list(csv.DictReader(io.StringIO(out), dialect="excel-tab"))
    assert [row["part"] for row in table] == [
        *("encoder", "decoder", "tokenizer"),
        *("cut to 64", "cut to 256"),
    ]
    assert [(row["tokens"], row["E"]) for row in table[2:]] == [
        *(("256", "4096"), ("64", "1024"), ("256", "4096")),
    ]
    assert float(table[2]["GFLOPs"]) == pytest.approx(2 * float(table[2]["GMACs"]), rel=1e-3)
    code, out, _ = call("spec", "S-B/4x8", "-r", "128", "-s", "frames=16", "--dit", "L", "--json")
    said = json.loads(out)
    assert code == 0 and said["code"] == {"tokens": 1024, "E": 16384, "compression": 48.0}
    assert [part["part"] for part in said["parts"]][-1] == "DiT-L"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["S-B/15"], "p = 15 does not divide the resolution 256; possible are 1, 2, 4"),
        (["S-B"], "write encoder-decoder/p as in S-B/16"),
        (["S-B/16", "--set", "norm=batch"], "choose one of layernorm, rmsnorm"),
        (["S-B/16", "--classes", "10"], "need a DiT"),
        (["S-B/16", "-s", "lengths=1,x"], "for example --set lengths=64,128,256"),
        (["S-B/16", "-s", "qk_norm=yes"], "for example --set qk_norm=true"),
        (["S-B/16", "-s", "depth=3"], "--set depth=3: not a setting"),
        (["S-B/16", "-s", "target=v"], "need a DiT"),
        (["S-B/16", "--resolution", "big"], "valid integer"),
    ],
)
def test_a_spec_that_cannot_be_is_exit_code_2(call: Call, words: list[str], said: str) -> None:
    code, out, err = call("spec", *words)
    assert (code, out) == (2, "") and said in err


def test_retry_names_what_it_resets(call: Call, there: Path) -> None:
    code, out, err = call("retry", "small")
    assert (code, out) == (0, "") and "0 failed tasks" in err


def test_the_site_file_says_where_things_are(
    call: Call, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("status")[0] == 1  # no results.db here
    write(tmp_path, f"database: {there / 'results.db'}\n", "sweepctl.site.yaml")
    assert call("status")[1].splitlines()[1].startswith("small")
    monkeypatch.setenv("SWEEPCTL_DB", "other.db")  # wins over the file
    assert "other.db" in call("status")[2]
    monkeypatch.setenv("SWEEPCTL_SITE", "none.yaml")
    monkeypatch.delenv("SWEEPCTL_DB")
    code, _, err = call("status")
    assert code == 3 and "none.yaml:1:1: the file does not exist" in err


def test_schema_and_views(call: Call) -> None:
    _, out, _ = call("schema")
    assert json.loads(out)["title"] == "Study"
    _, out, _ = call("db", "views")
    assert "v_cell:" in out and "rfd_lite0" in out
    _, out, _ = call("--version")
    assert out.startswith("sweepctl ")
