"""What becomes of values that JSON has no word for, and of stored JSON that is damaged?"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from ui_ledger import Place, fill

from sweepctl.ui import application

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return fill(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def call(filled: Place, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line in the folder of the results; gives exit code, stdout and stderr."""
    monkeypatch.chdir(filled.folder)

    return call


def test_infinities_are_null_in_json_and_said(call: Call) -> None:
    sql = "select 9e999 as up, -9e999 as down, 1.5 as number union all select 2, 9e999, null"
    code, out, err = call("query", "-f", "json", sql)
    assert code == 0
    assert json.loads(out) == [
        {"up": None, "down": None, "number": 1.5},
        {"up": 2, "down": None, "number": None},
    ]
    assert "not finite and null in JSON, which has no word for it: up (1), down (2)" in err
    code, out, err = call("query", "-f", "csv", sql)
    assert (code, err) == (0, "") and out.splitlines()[1] == "inf,-inf,1.5"


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_bytes_are_written_in_hexadecimal_and_said(call: Call, form: str) -> None:
    code, out, err = call("query", "-f", form, "select x'00ff' as blob, 'text' as word")
    assert code == 0 and "00ff" in out and "text" in out and "b'" not in out
    assert "note: bytes are written in hexadecimal: blob" in err


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_no_column_of_two_with_one_name_is_lost(call: Call, form: str) -> None:
    sql = "select 1 as p, 2 as p, 3 as p_2, 4 as p, 5 as P"
    code, out, err = call("query", "-f", form, sql)
    if form == "json":
        (row,) = json.loads(out)
    else:
        (row,) = csv.DictReader(io.StringIO(out), delimiter="," if form == "csv" else "\t")
    assert code == 0
    assert {name: int(value) for name, value in row.items()} == {
        "p": 1, "p_3": 2, "p_2": 3, "p_4": 4, "P": 5,
    }  # fmt: skip
    assert "several columns have the same name; the later ones are called p_3, p_4" in err


def test_a_text_that_is_no_json_is_the_statement_s_mistake(call: Call) -> None:
    code, _, err = call("query", "select json_extract('{', '$.a')")
    assert code == 1 and "malformed JSON" in err and "json_valid" in err
    assert "damaged" not in err


@pytest.fixture
def change(filled: Place) -> Iterator[Callable[[str, str], None]]:
    """Change the database by a statement; afterwards it is as before."""
    database, kept = Path(filled.database), filled.folder / "kept.db"

    def run(sql: str, value: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(sql, (value,))
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(database, kept)
    yield run
    for tail in ("-wal", "-shm"):
        Path(str(database) + tail).unlink(missing_ok=True)
    shutil.copy(kept, database)


TASK = ("show", "small/1")
EVERY = (
    ("status", "small"),
    ("status", "small", "--json"),
    ("results", "small"),
    ("fit", "small", "--figures", "none"),
    ("export", "small", "-o", "out.csv"),
    ("report", "small", "-o", "out.md"),
    TASK,
)


@pytest.mark.parametrize(
    ("table", "column", "value", "commands", "said"),
    [
        ("sweep_cell", "axes", '{"p": 8,', EVERY, "axes is not JSON (Expecting"),
        ("sweep_cell", "axes", "null", (("results", "small"),), "axes is not an object"),
        ("sweep_cell", "datasets", '{"a": 1}', (("status", "small"),), "datasets is not a list"),
        ("sweep_cell", "config", "", (TASK,), "config is not JSON"),
        ("sweep_task", "identity", '{"x', (TASK,), "identity is not JSON (Unterminated"),
        ("sweep_task", "identity", "7", (TASK,), "identity is not an object"),
        ("sweep_attempt", "result_values", "[]", (TASK,), "result_values is not an object"),
        ("sweep_attempt", "provenance", "{'a': 1}", (TASK,), "provenance is not JSON"),
        (
            *("sweep_submission", "resolved", "planted-secret"),
            (("fit", "small", "--figures", "none"), TASK),
            "resolved is not JSON",
        ),
    ],
)
def test_damaged_json_names_table_row_and_column(
    call: Call,
    change: Callable[[str, str], None],
    table: str,
    column: str,
    value: str,
    commands: tuple[tuple[str, ...], ...],
    said: str,
) -> None:
    change(f"UPDATE {table} SET {column} = ? WHERE rowid % 2 = 1", value)
    for words in commands:
        code, out, err = call(*words)
        assert code == 1 and out == "", words
        assert f"results.db holds damaged JSON:\n  {table}, row " in err and said in err
        assert "restore the database from a backup, or move it aside and run again" in err
        assert "Traceback" not in err and "planted-secret" not in err


def test_an_older_database_with_damaged_json_is_not_upgraded(
    call: Call, change: Callable[[str, str], None], filled: Place
) -> None:
    change("UPDATE sweep_submission SET argv = ?", "[")
    change("UPDATE sweep_alembic_version SET version_num = ?", "0002_sweepctl_0.1.0")
    before = Path(filled.database).read_bytes()
    code, _, err = call("db", "upgrade")
    assert code == 1 and "sweep_submission, row study small, number 1: argv is not JSON" in err
    assert Path(filled.database).read_bytes() == before
    assert not list(filled.folder.glob("*.bak-*"))


def test_the_dashboard_says_which_row_is_damaged(
    change: Callable[[str, str], None], filled: Place
) -> None:
    change("UPDATE sweep_cell SET axes = ? WHERE rowid = 1", "{")
    app = application(filled.reading(), filled.runs)
    browser = TestClient(app, base_url="http://localhost:8799")  # type: ignore[arg-type]
    page = browser.get("/study/small")
    assert page.status_code == 503
    assert "sweep_cell, row study small" in page.text and "axes is not JSON" in page.text


def test_many_damaged_rows_are_counted(
    call: Call, change: Callable[[str, str], None], filled: Place
) -> None:
    change("UPDATE sweep_attempt SET provenance = ? WHERE true", "{")
    code, _, err = call(*TASK)
    with closing(sqlite3.connect(filled.database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM sweep_attempt").fetchone()
    assert code == 1 and err.count("provenance is not JSON") == 5
    assert f"... and {count - 5} more" in err


def test_infinite_results_are_null_in_every_json(
    call: Call, change: Callable[[str, str], None], tmp_path: Path
) -> None:
    one = "(SELECT min(task) FROM sweep_metric)"
    change(f"UPDATE sweep_metric SET value = 9e999 WHERE name <> ? AND task = {one}", "-")
    for words in (
        ("status", "small", "--json"),
        ("results", "small", "-f", "json"),
        ("show", "small/1", "--json"),
        ("fit", "small", "--figures", "none", "--json"),
        ("query", "-f", "json", "select * from v_metric"),
    ):
        code, out, err = call(*words)
        assert code in (0, 1) and "Traceback" not in err, (words, err)
        json.loads(out, parse_constant=pytest.fail)
    file = tmp_path / "out.json"
    code, _, err = call("export", "small", "-o", str(file))
    assert code == 0 and "values not finite: null in JSON; .csv and .parquet keep them" in err
    json.loads(file.read_text(), parse_constant=pytest.fail)
