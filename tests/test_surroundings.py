"""Does the command line say clearly what is wrong around it, and leave everything as it was?

Each case calls the real `sweepctl` in a folder where something is missing, damaged, read-only or
unreachable: one error, the right exit code, no traceback, and not a byte of ledger and results
changed. At the end: 300 study files as people write them by mistake.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_command import SWEEPCTL, Ended, call, one_error
from fault_mutants import mutants

from studies import write
from sweepctl import cli
from sweepctl.cli._progress import PlainWatcher
from sweepctl.datasets import data_identities
from sweepctl.execute import Settings, run_study
from sweepctl.ledger import open_ledger
from sweepctl.plan import make_plan
from sweepctl.study import load_study
from vitok_core.files import sha256_of

STUDY = """\
format: 1
study: tiny
axes: {p: [8], c: [4, 8]}
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano}
stages: {stage1: {steps: 3, batch: 8, precision: fp32, loss: {lpips: 0}}}
evaluate: {reconstruction: {on: [photos-eval], images: 32, metrics: [psnr]}}
"""
QUICKSTART = Path(__file__).parent.parent / "studies" / "quickstart.yaml"
RUN = ("run", "tiny.yaml", "--cluster", "inline")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study: file, results.db, and runs/ left by attempts of no work."""
    folder = tmp_path_factory.mktemp("finished")
    file, data = write(folder, STUDY, "tiny.yaml"), data_identities()
    plan = make_plan(load_study(file, datasets=data), data=data)
    how = Settings(
        folder=folder / "runs", where="inline", entry="execute_entries:run", preload=None
    )
    nothing = {"code": "0" * 16, "commit": None, "dirty": None, "versions": {}}
    with open_ledger(str(folder / "results.db")) as ledger:
        summary = run_study(plan, ledger, how, PlainWatcher(quiet=True), provenance=nothing)
    assert summary.finished == 6
    return folder


@pytest.fixture
def there(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study's folder."""
    return Path(shutil.copytree(finished, tmp_path / "there"))


def contents(folder: Path) -> dict[str, str]:
    """Every file that matters and its SHA-256: not SQLite's passing ones, nor the driver's lock."""
    passing = ("-wal", "-shm", ".driver.lock")
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "tmp" and not path.name.endswith(passing)
    }


def check_refusal(folder: Path, ended: Ended, before: dict[str, str], code: int, said: str) -> None:
    assert ended.code == code, ended
    assert one_error(ended.err), ended.err
    assert re.search(said, ended.err), ended.err
    assert not ended.out
    assert contents(folder) == before


# --- the results database -----------------------------------------------------------------------


def no_database(folder: Path) -> None:
    (folder / "results.db").write_text("p,c,psnr\n8,4,20.1\n" * 100)


def cut_in_half(folder: Path) -> None:
    path = folder / "results.db"
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing_much(folder: Path) -> None:
    os.truncate(folder / "results.db", 10)


def newer(folder: Path) -> None:
    with sqlite3.connect(folder / "results.db") as connection:
        connection.execute("UPDATE sweep_alembic_version SET version_num = '0099_sweepctl_9.1.0'")
    connection.close()


def a_folder(folder: Path) -> None:
    (folder / "results.db").unlink()
    (folder / "results.db").mkdir()


def garbled(folder: Path) -> None:
    """Text of a row that is not UTF-8 any more."""
    with sqlite3.connect(folder / "results.db") as connection:
        connection.execute("UPDATE sweep_task SET label = CAST(x'ffc328' AS TEXT)")
    connection.close()


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(RUN, id="run"),
        pytest.param(("status", "tiny"), id="status", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_database, r"damaged or no database .* nothing was changed\n  hint: move it aside"),
        (cut_in_half, r"damaged or no database .* nothing was changed\n  hint: move it aside"),
        (cut_to_nothing_much, r"damaged or no database .* nothing was changed"),
        (garbled, r"damaged or no database .* nothing was changed"),
        (newer, r"newer schema 0099_sweepctl_9.1.0.*\n  hint: .*sweepctl>=9.1.0"),
        (a_folder, r"is a folder, not a results database\n  hint: name a file with --db"),
    ],
)
def test_a_database_that_cannot_be_used(
    there: Path, damage: Callable[[Path], None], said: str, words: tuple[str, ...]
) -> None:
    damage(there)
    before = contents(there)
    check_refusal(there, call(there, *words), before, 1, said)


def test_what_the_hint_says_brings_the_results_back(there: Path) -> None:
    lost = call(there, "results", "tiny").out
    no_database(there)
    (there / "results.db").rename(there / "results.db.damaged")
    again = call(there, *RUN)
    assert again.code == 0, again
    assert "start" not in again.err and again.out == lost


# --- places and names ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*RUN, "--db", "nowhere/results.db"), 1, r"folder .*nowhere .* does not exist"),
        ((*RUN, "--runs", "tiny.yaml"), 1, r"the run folder tiny.yaml is a file, not a folder"),
        ((*RUN, "--db", "mysql://u:secret@h/x"), 2, "asks for 'mysql'"),
        ((*RUN, "--db", "postgresql://u:secret@h:port/x"), 2, "URL given by --db cannot be read"),
        ((*RUN, "--db", "postgresql://u:secret@127.0.0.1:1/x"), 5, r"u:\*\*\*@.* does not answer"),
        (("status", "--db", "postgresql://u:secret@127.0.0.1:1/x"), 5, "does not answer"),
        (("status", "nope"), 2, r"no study 'nope'\n  hint: recorded studies: tiny"),
        (("results", "nope"), 2, r"no study 'nope'\n  hint: recorded studies: tiny"),
        (("fit", "nope"), 2, r"no study 'nope'\n  hint: recorded studies: tiny"),
        (("logs", "stage1-ffff"), 2, "no task begins with 'stage1-ffff'"),
        (("show", "stage1-"), 2, r"2 tasks begin with 'stage1-':\n  stage1-\w+  nano-nano/8 c4"),
        (("retry", "nope"), 2, "nope"),
        (("results", "tiny", "--where", "rfid < 3"), 2, "rfid"),
        (("query", "delete from v_cell"), 1, "cannot modify v_cell"),
    ],
)
def test_places_and_names_that_are_wrong(
    there: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    before = contents(there)
    ended = call(there, *words)
    check_refusal(there, ended, before, code, said)
    assert "secret" not in ended.err


@pytest.mark.slow
def test_a_password_in_the_environment_stays_there(there: Path) -> None:
    ended = call(there, "status", SWEEPCTL_DB="postgresql://u:secret@127.0.0.1:1/x")
    assert ended.code == 5 and one_error(ended.err) and "secret" not in ended.err


def test_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, STUDY, "tiny.yaml")
    ended = call(
        tmp_path, "run", "tiny.yaml", "--cluster", "tcp://127.0.0.1:1", "--quiet", seconds=20
    )
    assert ended.code == 5 and one_error(ended.err), ended
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in ended.err


def test_a_study_that_vanishes_between_two_commands(there: Path) -> None:
    assert call(there, "check", "tiny.yaml").code == 0
    (there / "tiny.yaml").unlink()
    before = contents(there)
    check_refusal(there, call(there, *RUN), before, 3, r"tiny.yaml:1:1: the file does not exist")
    assert call(there, "status", "tiny").code == 0, "what was recorded does not need the file"


# --- rights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plainly() -> tuple[str, ...]:
    """What a command is run through so that read-only is read-only, for root too."""
    if os.geteuid() != 0:
        return ()
    # Root without its capabilities, so that an interpreter in root's own folder can still be read.
    wrap = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    probe = [*wrap, sys.executable, "-c", "import sweepctl, sys; open('/proc/sys/kernel/x', 'w')"]
    if shutil.which("setpriv") is None:
        pytest.skip("root ignores rights, and there is no setpriv(1) to do without")
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if "Error: [Errno" not in done.stderr:
        pytest.skip(f"root ignores rights, and setpriv cannot change that: {done.stderr.strip()}")
    return wrap


@pytest.mark.slow
@pytest.mark.parametrize(
    ("closed", "mode", "words", "said"),
    [
        (".", 0o555, RUN, r"results.db cannot be written: the file or its folder is read-only"),
        ("results.db", 0o400, RUN, r"results.db cannot be written: the file or its folder is"),
        ("results.db", 0o000, ("status",), r"cannot read .*results.db: Permission denied"),
        ("runs", 0o555, RUN, r"cannot write in the run folder runs: Permission denied"),
    ],
)
def test_what_is_read_only(
    there: Path, plainly: tuple[str, ...], closed: str, mode: int, words: tuple[str, ...], said: str
) -> None:
    if closed == "runs":
        (there / "runs" / ".driver.lock").unlink()
    before = contents(there)
    (there / closed).chmod(mode)
    try:
        ended = call(there, *words, wrap=plainly)
    finally:
        (there / closed).chmod(0o755 if (there / closed).is_dir() else 0o600)
    check_refusal(there, ended, before, 1, said)


@pytest.mark.slow
def test_reading_needs_no_right_to_write(there: Path, plainly: tuple[str, ...]) -> None:
    (there / "results.db").chmod(0o400)
    there.chmod(0o555)
    try:
        ended = call(there, "results", "tiny", wrap=plainly)
    finally:
        there.chmod(0o755)
    assert ended.code == 0 and not ended.err and ended.out.count("\n") == 3


# --- output ---------------------------------------------------------------------------------------


def piped(folder: Path, line: str, *, buffered: bool) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; Python writes at once or when its buffer is full, as the user has it."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if not buffered:
        surroundings["PYTHONUNBUFFERED"] = "1"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_reader_that_has_gone(there: Path, reader: str, buffered: bool) -> None:
    columns = "a.name, b.value, c.log, d.label"
    words = f"query 'select {columns} from v_metric a, v_metric b, v_task c, v_task d'"
    line = f"{SWEEPCTL} {words} | {reader}; exit ${{PIPESTATUS[0]}}"
    done = piped(there, line, buffered=buffered)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("buffered", [True, False])
def test_an_output_that_is_full(there: Path, buffered: bool) -> None:
    done = piped(there, f"{SWEEPCTL} results tiny > /dev/full", buffered=buffered)
    assert done.returncode == 1 and one_error(done.stderr), done
    assert "error: the output cannot be written: No space left on device" in done.stderr


# --- studies as people write them -----------------------------------------------------------------


def check_as_main_does(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ended:
    monkeypatch.setattr(sys, "argv", ["sweepctl", "check", str(file)])
    with pytest.raises(SystemExit) as left:
        cli.main()
        sys.exit(0)
    said = capsys.readouterr()
    assert isinstance(left.value.code, int | None)
    return Ended(code=left.value.code or 0, out=said.out, err=said.err)


def check_verdict(file: Path, raw: bytes, ended: Ended) -> None:
    """Valid, or problems with places that are in the file."""
    assert "Traceback" not in ended.err
    if ended.code == 0:
        assert "is a valid study" in ended.out
        return
    assert ended.code == 3 and not ended.out, ended
    # YAML breaks lines at these; the places of an editor are not always those, so one may differ.
    lines = len(raw.decode(errors="replace").splitlines()) + 1
    places = re.findall(rf"^(?:error: )?{re.escape(str(file))}:(\d+):(\d+): ", ended.err, re.M)
    assert places, ended.err
    for line, column in places:
        assert 1 <= int(line) <= lines and int(column) >= 1, ended.err


@pytest.mark.slow
def test_three_hundred_studies_with_slips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[int] = Counter()
    for number, raw in enumerate(mutants(QUICKSTART.read_text(encoding="utf-8"), 300, seed=7)):
        file = tmp_path / f"slip-{number}.yaml"
        file.write_bytes(raw)
        ended = check_as_main_does(file, monkeypatch, capsys)
        check_verdict(file, raw, ended)
        counts[ended.code] += 1
    # A corpus of nothing but rubbish, or of nothing that is wrong, would test little.
    assert counts[0] >= 10 and counts[3] >= 150, counts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "claims: [it helps]\n",
        "claims: [[4]]\n",
        "fits: [law]\n",
        "axes: [p]\n",
        "a: &a [*a]\n",
        "? [1, 2]\n: 3\n",
        "base: slip.yaml\n",
        "axes: {p: [" + "4, " * 300 + "8]}\n",
        "- " * 200 + "x\n",
        "x: !!python/object/apply:os.system [id]\n",
    ],
    ids=range(11),
)
def test_studies_that_are_hard_to_read(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = text if not text or text[0] in "-?" else STUDY.split("axes:")[0] + text
    file = tmp_path / "slip.yaml"
    file.write_text(whole)
    ended = check_as_main_does(file, monkeypatch, capsys)
    check_verdict(file, whole.encode(), ended)
    assert ended.code == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_slips_through_the_real_command(tmp_path: Path, seed: int) -> None:
    (raw,) = mutants(QUICKSTART.read_text(encoding="utf-8"), 1, seed=seed)
    (tmp_path / "slip.yaml").write_bytes(raw)
    check_verdict(Path("slip.yaml"), raw, call(tmp_path, "check", "slip.yaml"))
