"""Is a secret that a user gives found in anything that sweepctl prints, stores or shows?

Four are planted: the password of a database URL, one in the site file, the key of a tracker and a
token in the environment. Every output is then searched for them, files byte by byte.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from studies import SMALL, write
from sweepctl.cli._progress import PlainWatcher
from sweepctl.cluster._isolated import child_environment
from sweepctl.datasets import data_identities
from sweepctl.errors import Problem, SweepctlError, UsageError
from sweepctl.execute import Settings, run_study
from sweepctl.ledger import open_ledger
from sweepctl.plan import make_plan
from sweepctl.secrets import command_line, hidden, known
from sweepctl.study import load_study
from sweepctl.tasks import TASKS
from sweepctl.trackers import RunInfo, Trackers
from sweepctl.ui import application

STORED = Path(__file__).parent / "data" / "ledger"
DATABASE, SITE, TRACKER, TOKEN = "dbpw-7Qx1", "sitepw-8Rk2", "trackerkey-9Zm3", "hubtoken-5Lp4"
SECRETS = (DATABASE, SITE, TRACKER, TOKEN)
URL = f"postgresql://me:{DATABASE}@127.0.0.1:1/results"
ENVIRONMENT = {"WANDB_API_KEY": TRACKER, "HF_TOKEN": TOKEN}
Call = Callable[..., tuple[int, str]]


def check(where: str, text: str | bytes) -> None:
    for secret in SECRETS:
        wanted = secret if isinstance(text, str) else secret.encode()
        assert wanted not in text, f"{secret} in {where}: {text[:2000]!r}"  # type: ignore[operator]


def check_files(folder: Path) -> None:
    looked = [path for path in folder.rglob("*") if path.is_file()]
    for path in looked:
        if path.suffix != ".yaml":  # the site file holds what its owner wrote
            check(str(path), path.read_bytes())
    assert any(path.name == "results.db" for path in looked)


# --- the forms of a password ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "postgresql://me:SECRET@h/db",
        "--db=postgresql+psycopg://me:SECRET@h:5432/db?sslmode=require",
        "postgresql://me:SEC/RET@x@h/db",
        "postgresql://me:SEC%40RET@h/db",
        "postgresql://me:my SECRET 'quoted'@h/db",
        "postgresql://h/db?user=me&password=SECRET&x=1",
        "postgresql://h/db?sslpassword=SECRET",
        "postgresql:/me:SECRET@h/db",
        "postgresql%3A%2F%2Fme%3ASECRET%40h%2Fdb",
        "https%253A%252F%252Fme%253ASECRET%2540h",
        "postgresql%3A%2F%2Fh%2Fdb%3Fpassword%3DSECRET",
        "host=h user=me password=SECRET dbname=x",
        "host=h password='my SECRET' dbname=x",
        "PGPASSWORD=SECRET",
        "WANDB_API_KEY=SECRET",
        "redis://:SECRET@h",
        "https://SECRET@github.com/somebody/something",
        "https://h/x?access_token=SECRET",
    ],
)
def test_no_form_of_a_password_is_kept(word: str) -> None:
    kept = command_line(["sweepctl", "run", word, "tiny.yaml"])
    assert "SEC" not in " ".join(kept) and "RET" not in " ".join(kept)
    assert kept[:2] == ("sweepctl", "run") and kept[3] == "tiny.yaml" and "***" in kept[2]
    if " " not in word:
        assert "SEC" not in hidden(f"it says: {word}, and ends")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@h:5432/db",
        "tcp://10.0.0.1:8786",
        "--set evaluate.tokens=3 --set tokenizer.encoder=nano",
        "stage1 on node7, psnr 20.5 at 12:30, mail me@example.org",
        "unknown key 'password'; allowed: database, runs",
        "/data/a@b/results.db?x=1",
    ],
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert hidden(text) == text and command_line([text]) == (text,)


def test_a_known_value_is_found_wherever_it_turns_up() -> None:
    values = known({**ENVIRONMENT, "SWEEPCTL_DB": URL, "PATH": "/usr/bin", "PGPASSWORD": "cat4"})
    assert values == {DATABASE, TRACKER, TOKEN, "cat4"}
    said = hidden(f"401 for {TOKEN!r}; key={TRACKER}|{DATABASE} cat4 concat4", values)
    assert said == "401 for '***'; key=***|*** *** concat4"


def test_secrets_do_not_reach_children_that_do_not_need_them() -> None:
    given = {"SWEEPCTL_DB": URL, "SWEEPCTL_UI_TOKEN": "t", "PGPASSWORD": "p", **ENVIRONMENT}
    assert child_environment(1, given).keys() & given.keys() == {"HF_TOKEN"}


# --- errors ---------------------------------------------------------------------------------------


def test_errors_hide_what_they_were_given() -> None:
    error = SweepctlError(f"cannot use {URL}", hint=f"see https://x/?token={TOKEN}")
    check("error", f"{error} {error.args} {error!r}")
    line = f"database: {URL}"
    problem = Problem(place="site.yaml:1:1", path="databse", message="unknown key", source=line)
    assert str(problem) == "site.yaml:1:1: databse: unknown key"


@pytest.mark.parametrize(
    "given",
    [
        f"postgresql://me:{DATABASE}@h:port/x",
        f"postgresql://me:{DATABASE}@x@127.0.0.1:1/x",
        f"postgresql:/me:{DATABASE}@h/x",
        f"me:{DATABASE}@h/x",
        f"host=127.0.0.1 port=1 password={DATABASE}",
        f"dbname=x password='{DATABASE} y'",
        f"mysql://me:{DATABASE}@h/x",
    ],
)
def test_a_place_that_cannot_be_read_is_not_repeated(
    given: str, tmp_path: Path, call_joined: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = call_joined("--db", given, "status")
    assert code == 2 and "error: the database URL given by --db" in said
    check("status --db", said)
    monkeypatch.setenv("SWEEPCTL_DB", given)
    code, said = call_joined("status")
    assert code == 2 and "error: the database URL given by SWEEPCTL_DB" in said
    check("status", said)
    assert not list(tmp_path.iterdir()), "no file is named by a password"


def test_a_password_on_the_command_line_is_warned_of(call_joined: Call) -> None:
    code, said = call_joined("--db", URL, "status")
    assert code == 5
    assert "warning: --db holds a password" in said and "SWEEPCTL_DB" in said and ".pgpass" in said
    check("status", said)
    assert "warning" not in call_joined("--db", URL.replace(f":{DATABASE}", ""), "status")[1]


@pytest.mark.parametrize(
    "text",
    [
        f"database: postgresql://me:{SITE}@127.0.0.1:1/x\n",
        f"databse: postgresql://me:{SITE}@127.0.0.1:1/x\n",
        f"database: {{url: postgresql://me:{SITE}@127.0.0.1:1/x}}\n",
        f"database: postgresql://me:{SITE}@127.0.0.1:1/x\n  runs: [\n",
        f"password: {SITE}\n",
        f"datasets: {{mine: {{folder: 'https://me:{SITE}@host/x'}}}}\n",
    ],
    ids=range(6),
)
def test_errors_about_a_site_file_do_not_quote_its_secrets(
    text: str, tmp_path: Path, call_joined: Call
) -> None:
    (tmp_path / "sweepctl.site.yaml").write_text(text)
    for words in (("status",), ("data", "list"), ("data", "list", "--json")):
        check(" ".join(words), call_joined(*words)[1])


def test_a_bug_leaves_its_traceback_without_secrets(
    call_joined: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_joined("--version")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        raise RuntimeError(f"a bug with {TOKEN} and {URL}")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert "Traceback" in said and "RuntimeError: a bug with ***" in said
    check("traceback", said)


class _Unwilling:
    def start(self, run: RunInfo) -> None:
        raise ValueError(f"API key must be 40 characters long, yours was {TRACKER}")


def test_what_a_tracker_says_is_noted_without_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", TRACKER)
    notes: list[str] = []
    unwilling: Any = _Unwilling()
    trackers = Trackers(["wandb"], note=notes.append, make=lambda name: unwilling)
    trackers.start(RunInfo(id="a", name="a", study="s", kind="stage1", config={}, folder=tmp_path))
    trackers.close()
    assert notes == [
        "the tracker wandb is removed, the study continues: "
        "API key must be 40 characters long, yours was ***"
    ]


# --- everything that a study leaves ---------------------------------------------------------------


def planted(folder: Path) -> Path:
    """A finished study and a failed one, run with secrets in every place that can hold one."""
    text = f"# sweepctl run --db {URL}\n{SMALL}"
    data = data_identities()
    how = Settings(folder=folder / "runs", where="inline", preload=None)
    argv = ["sweepctl", "run", "--db", URL, f"--set=title=https://me:{DATABASE}@h", "small.yaml"]
    nothing = {"code": "0" * 16, "commit": None, "dirty": None, "versions": {}}

    def unwilling(work: object) -> None:
        raise RuntimeError(f"403 for {TOKEN} and {TRACKER} at https://me:{SITE}@hub/{DATABASE}")

    with open_ledger(str(folder / "results.db")) as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        for kind in TASKS:
            patch.setitem(TASKS, kind, unwilling)
        for name in ("small", "failing"):
            file = write(folder, text.replace("study: small", f"study: {name}"), f"{name}.yaml")
            if name == "failing":
                changed = file.read_text().replace("steps: 10", "steps: 11")
                file.write_text(changed.replace("images: 64", "images: 65"))
            plan = make_plan(load_study(file, datasets=data), data=data)
            entry = "execute_entries:run" if name == "small" else "sweepctl.tasks:run"
            settings = Settings(**{**_fields(how), "entry": entry})
            summary = run_study(
                plan, ledger, settings, PlainWatcher(quiet=True), provenance=nothing, argv=argv
            )
            assert bool(summary.failed) == (name == "failing")
    return folder


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


FEW = (
    "show {task} --json",
    "status failing",
    "status failing --json",
    "logs {failed}",
    "results small -f json",
    "query select_*_from_sweep_submission",
    "query select_*_from_sweep_attempt -f json",
)
ALL = (
    *FEW,
    "check small.yaml",
    "plan small.yaml",
    "plan small.yaml --json",
    "suggest small",
    "show small 1",
    "show small 1 --json",
    "show {task}",
    "spec S-B/16 --resolution 256 --channels 16",
    "check failing.yaml",
    "plan failing.yaml",
    "status",
    "status small",
    "retry failing",
    "results small",
    "report small",
    "report failing -o failing.md",
    "plot small",
    "export small",
    "fit small",
    "fit small --json",
    "fit small --save",
    "correlate small",
    "frontier small",
    "compare small",
    "db views",
    "data list",
    "weights list",
    "run small.yaml -q",
)
"""A line per command; "_" stands for a blank in one word."""

PARTS = ("", "/live", "/figure.json", "/fits", "/point/1")
"""The pages of a study."""


def check_commands(lines: tuple[str, ...], rows: dict[Any, Any], call_joined: Call) -> None:
    works = 0
    for line in lines:
        words = line.format(task=rows["done"], failed=rows["failed"]).split()
        code, said = call_joined(
            *(word.replace("_", " ") if "*" in word else word for word in words)
        )
        check(line, said)
        works += code == 0
    assert works >= 0.7 * len(lines), "most commands have something to show"


@pytest.fixture
def rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[Any, Any]:
    """A folder with everything that was planted; gives a task of each state."""
    for name, value in {**ENVIRONMENT, "SWEEPCTL_DB": str(tmp_path / "results.db")}.items():
        monkeypatch.setenv(name, value)
    planted(tmp_path)
    site = f"database: postgresql://me:{SITE}@127.0.0.1:1/x\n"
    (tmp_path / "sweepctl.site.yaml").write_text(site)
    check("the run", "".join(capsys.readouterr()))
    with open_ledger(str(tmp_path / "results.db"), read_only=True) as ledger:
        return dict(ledger.query("SELECT state, min(id) FROM sweep_task GROUP BY state").rows)


def test_planted_secrets_are_not_in_what_a_study_leaves(
    rows: dict[Any, Any], tmp_path: Path, call_joined: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_commands(FEW, rows, call_joined)
    monkeypatch.delenv("SWEEPCTL_DB")
    code, said = call_joined("status")
    assert code == 5 and "me:***@127.0.0.1" in said
    check("a database that does not answer", said)
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection:
        check("a dump", "\n".join(connection.iterdump()))
        submitted = connection.execute("SELECT argv, study_text FROM sweep_submission").fetchall()
    assert submitted and all("me:***@" in argv and "me:***@" in text for argv, text in submitted)
    outcomes = "".join(path.read_text() for path in (tmp_path / "runs").rglob("outcome.json"))
    assert "403 for *** and ***" in outcomes
    check_files(tmp_path)


@pytest.mark.slow
def test_planted_secrets_are_in_no_output_of_any_command(
    rows: dict[Any, Any], tmp_path: Path, call_joined: Call
) -> None:
    check_commands(ALL, rows, call_joined)
    check_files(tmp_path)


@pytest.mark.slow
def test_planted_secrets_are_on_no_page(rows: dict[Any, Any], tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db"), read_only=True) as ledger:
        app: Any = application(ledger, tmp_path / "runs")
        browser = TestClient(app, base_url="http://localhost:8799")
        studies = [f"/study/{name}{part}" for name in ("small", "failing") for part in PARTS]
        tasks = [f"/task/{task}" for task in rows.values()]
        for path in ("/", "/live", "/cluster", "/cluster/live", *studies, *tasks):
            answer = browser.get(path)
            assert answer.status_code == 200, path
            check(path, answer.text)


# --- what an older sweepctl has left --------------------------------------------------------------


def test_old_rows_and_backups_are_cleaned_to_the_last_byte(tmp_path: Path) -> None:
    text = (STORED / "0002_sweepctl_0.1.0.sql").read_text()
    for name in ("results.db", "results.db.bak-0001_sweepctl_0.1.0"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.executescript(text)
            argv = f'["sweepctl","run","--db","{URL}","a.yaml"]'
            connection.execute("UPDATE sweep_submission SET argv = ?", (argv,))
            connection.execute("UPDATE sweep_task SET message = ?", (f"no answer of {URL}",))
            connection.execute("PRAGMA journal_mode = wal")
            connection.commit()
            before = connection.execute("SELECT count(*), max(label) FROM sweep_task").fetchone()
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        (notice,) = ledger.notices
        assert "passwords were removed from" in notice and "change them" in notice
        check_files(tmp_path)
        kept = ledger.query("SELECT argv FROM sweep_submission").rows[0][0]
    check_files(tmp_path)
    assert "postgresql://me:***@127.0.0.1:1/results" in str(kept) and "a.yaml" in str(kept)
    for path in tmp_path.glob("results.db*"):
        if not path.name.endswith((".lock", "-wal", "-shm")):
            with closing(sqlite3.connect(path)) as connection:
                asked = "SELECT count(*), max(label) FROM sweep_task"
                assert connection.execute(asked).fetchone() == before
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_upgrade_without_passwords_says_nothing_of_them(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection:
        connection.executescript((STORED / "0002_sweepctl_0.1.0.sql").read_text())
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        assert "password" not in ledger.notices[0]


def test_a_libpq_keyword_is_not_the_name_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        open_ledger("host=h password=x dbname=y")
    assert not list(tmp_path.iterdir())
