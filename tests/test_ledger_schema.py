"""Does a database of any age open, upgrade or say why not, without ever losing a row?

Every released revision has a small database of its time in tests/data/ledger/<revision>.sql. After
a new revision, before the release:  python tests/test_ledger_schema.py  writes the one of the head.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger_plans import finish, make_plan, metric, submission

from sweepctl.errors import LedgerError, UnreachableError
from sweepctl.ledger import Ledger, _connect, _schema, _tables, _views, open_ledger, upgrade_ledger

STORED = Path(__file__).parent / "data" / "ledger"

VIEWS_OF_REVISION = {
    "0001_sweepctl_0.1.0": "9acd150604448b3b",
    "0002_sweepctl_0.1.0": "cddbab27b6c4911b",
    "0003_sweepctl_0.1.0": "cddbab27b6c4911b",
    "0004_sweepctl_0.1.0": "053243d28230c50f",
}
"""Digest of the views at each revision: whoever changes a view makes a revision (or, before the
first release of that revision, writes the new digest here)."""


def fill(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    for name in plan.cells[0].tasks.values():
        task = plan.tasks[name]
        finish(ledger, task, *([metric(20.0)] if task.kind == "reconstruct" else []))


@contextmanager
def engine_of(database: str) -> Iterator[sa.Engine]:
    engines = _connect.engines(_connect.locate(database, None), read_only=False)
    try:
        yield engines[1]
    finally:
        for engine in engines:
            engine.dispose()


def differences(database: str) -> list[object]:
    """What Alembic would change to make a database what the code says."""
    with engine_of(database) as engine, engine.begin() as connection:
        ours = {
            "include_name": lambda name, kind, parents: (
                kind != "table" or name.startswith(_tables.PREFIX)
            ),
            "version_table": _schema.VERSION_TABLE,
            "compare_type": True,
        }
        context = MigrationContext.configure(connection, opts=ours)
        return list(compare_metadata(context, _tables.metadata))


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Migrations of a later sweepctl: one more revision, which rebuilds a table."""
    folder = tmp_path / "migrations"
    shutil.copytree(_schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "r0005.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = '0005_sweepctl_0.9.0', '{_schema.HEAD}'\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('sweep_task', recreate='auto') as batch:\n"
        "        batch.add_column(sa.Column('priority', sa.Integer, server_default='3'))\n"
    )
    monkeypatch.setattr(_schema, "MIGRATIONS", folder)
    monkeypatch.setattr(_schema, "HEAD", "0005_sweepctl_0.9.0")
    return folder


# --- the schema is one thing ------------------------------------------------------------------


def test_head_is_the_last_revision_and_has_its_views() -> None:
    script = ScriptDirectory(str(_schema.MIGRATIONS))
    assert script.get_heads() == [_schema.HEAD]
    assert VIEWS_OF_REVISION[_schema.HEAD] == _views.views_digest()


def test_created_and_migrated_schemas_are_the_tables_of_the_code(database: str) -> None:
    open_ledger(database).close()
    assert differences(database) == []


def test_migrations_from_nothing_make_the_same(database: str) -> None:
    open_ledger(database).close()
    with engine_of(database) as engine, engine.begin() as connection:
        _views.drop_views(connection)
        _tables.metadata.drop_all(connection)
        connection.exec_driver_sql(f"DELETE FROM {_schema.VERSION_TABLE}")
        _schema._migrate(connection, _connect.locate(database, None))
    assert differences(database) == []
    with open_ledger(database) as ledger:
        fill(ledger)
        assert len(ledger.query("SELECT * FROM v_cell WHERE psnr = 20").rows) == 1


def revisions() -> list[str]:
    script = ScriptDirectory(str(_schema.MIGRATIONS))
    return [revision.revision for revision in script.walk_revisions()]


@pytest.mark.parametrize("revision", revisions())
def test_databases_of_every_revision_open_whole(revision: str, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((STORED / f"{revision}.sql").read_text())
    with open_ledger(str(path)) as ledger:
        assert ledger.query(f"SELECT version_num FROM {_schema.VERSION_TABLE}").rows == (
            (_schema.HEAD,),
        )
        assert [cell.state for cell in ledger.cells.of("small")] == ["done", "pending"]
        assert set(ledger.cells.frame("small")["value"]) == {20.0}
        assert set(ledger.tasks.states()) == set(make_plan().tasks)
        fill_again = make_plan(salt="more")
        ledger.studies.record(fill_again, submission(resolved={"more": 1}))
    assert differences(str(path)) == []
    assert (tmp_path / f"results.db.bak-{revision}").exists() == (revision != _schema.HEAD)


# --- upgrades ---------------------------------------------------------------------------------


def test_sqlite_upgrades_itself_after_a_backup(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with open_ledger("results.db") as ledger:
        fill(ledger)
    old = _schema.HEAD
    request.getfixturevalue("next_revision")
    with pytest.raises(LedgerError, match="older schema"):
        open_ledger("results.db", read_only=True)
    with open_ledger("results.db") as ledger:
        assert len(ledger.notices) == 1 and old in ledger.notices[0]
        assert ledger.query("SELECT DISTINCT priority FROM sweep_task").rows == ((3,),)
        assert ledger.query("SELECT count(*) FROM v_metric").rows == ((1,),)
    with open_ledger("results.db") as ledger:
        assert ledger.notices == ()
    backup = tmp_path / f"results.db.bak-{old}"
    assert backup.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT count(*) FROM v_metric").fetchone() == (1,)
        assert connection.execute("SELECT * FROM sweep_alembic_version").fetchone() == (old,)


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with open_ledger("results.db") as ledger:
        fill(ledger)
    old = _schema.HEAD
    folder: Path = request.getfixturevalue("next_revision")
    with (folder / "versions" / "r0005.py").open("a") as file:
        file.write("    op.execute('DELETE FROM sweep_cell_task')\n")
        file.write("    op.execute('DELETE FROM sweep_task')\n")
    with pytest.raises(LedgerError, match="rows would point to rows that are not there"):
        open_ledger("results.db")
    with closing(sqlite3.connect("results.db")) as connection:
        assert connection.execute("SELECT * FROM sweep_alembic_version").fetchone() == (old,)
        assert connection.execute("SELECT count(*) FROM v_metric").fetchone() == (1,)


def test_postgresql_is_upgraded_by_command_only(
    postgres_url: str, request: pytest.FixtureRequest
) -> None:
    with open_ledger(postgres_url) as ledger:
        fill(ledger)
    assert "newest schema" in upgrade_ledger(postgres_url)
    request.getfixturevalue("next_revision")
    with pytest.raises(LedgerError, match="sweepctl db upgrade"):
        open_ledger(postgres_url)
    assert "was upgraded" in upgrade_ledger(postgres_url)
    with open_ledger(postgres_url) as ledger:
        assert ledger.query("SELECT DISTINCT priority FROM sweep_task").rows == ((3,),)
        assert len(ledger.query("SELECT * FROM v_cell").rows) == 2


def test_a_newer_database_is_left_alone(database: str) -> None:
    with open_ledger(database) as ledger:
        fill(ledger)
    with engine_of(database) as engine, engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {_schema.VERSION_TABLE} SET version_num = '0099_sweepctl_7.3.0'"
        )
    for reading in (True, False):
        with pytest.raises(LedgerError, match=r"sweepctl>=7\.3\.0"):
            open_ledger(database, read_only=reading)
    with pytest.raises(LedgerError, match=r"Nothing was changed"):
        upgrade_ledger(database)


def test_other_tools_in_the_same_database(database: str) -> None:
    Path("results.db").touch()
    with engine_of(database) as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('v3.2.0.a')")
        connection.exec_driver_sql("CREATE TABLE studies (study_id INTEGER)")
    with open_ledger(database) as ledger:
        fill(ledger)
        assert ledger.query("SELECT * FROM alembic_version").rows == (("v3.2.0.a",),)
    assert differences(database) == []


def _open(arguments: tuple[str, int]) -> int:
    database, number = arguments
    with open_ledger(database) as ledger:
        return ledger.studies.record(make_plan(f"study-{number}"), submission())


def test_processes_that_create_at_the_same_time(database: str) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_open, [(database, number) for number in range(4)], chunksize=1) == [1] * 4
    with open_ledger(database) as ledger:
        assert len(ledger.studies.names()) == 4
        assert len(ledger.tasks.states()) == len(make_plan().tasks)


# --- databases that cannot be used ------------------------------------------------------------


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    path.write_text("p,c,psnr\n8,4,20\n")
    for reading in (True, False):
        with pytest.raises(LedgerError, match=r"mv .*results\.db"):
            open_ledger(str(path), read_only=reading)
    assert path.read_text() == "p,c,psnr\n8,4,20\n"


def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with open_ledger(str(path)) as ledger:
        fill(ledger)
    whole = path.read_bytes()
    torn = whole[:100] + b"\x00" * 4000 + os.urandom(len(whole) - 4100)
    path.write_bytes(torn)
    with pytest.raises(LedgerError, match="damaged"):
        open_ledger(str(path))
    assert path.read_bytes() == torn
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerError, match="damaged"), open_ledger(str(path)) as ledger:
        ledger.query("SELECT count(*) FROM sweep_task")
        ledger.cells.of("small")


def test_places_that_cannot_hold_a_database(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="mkdir -p"):
        open_ledger("no/such/folder/results.db")
    with pytest.raises(LedgerError, match="is a folder"):
        open_ledger(str(tmp_path))


def test_a_read_only_folder() -> None:
    # As somebody who is not root, since root may write anywhere.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_ledger(str(folder / "results.db")) as ledger:
            fill(ledger)
        (folder / "results.db").chmod(0o444)
        folder.chmod(0o555)
        # A process of its own: a fork of this one would inherit the locks of other threads.
        script = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import json; "
            f"import test_ledger_schema as t; print(json.dumps(t.as_nobody({name!r})))"
        )
        told = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert told.returncode == 0, told.stderr
        said, cells, rows, missing = json.loads(told.stdout)
        folder.chmod(0o755)
    assert "read-only for you" in said
    assert (cells, rows) == (2, 1)
    assert "cannot create" in missing


def as_nobody(folder: str) -> tuple[str, int, int, str]:
    """What somebody who is not root is told about a read-only folder; run by the test above."""
    with open_ledger(f"{folder}/results.db", read_only=True) as ledger:
        # Everything is imported now: nobody may not be allowed to read the interpreter's files.
        ledger.query("SELECT * FROM v_cell")
        ledger.cells.of("small")
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    said = []
    for name in ("results.db", "other.db"):
        try:
            open_ledger(f"{folder}/{name}").close()
        except LedgerError as error:
            said.append(str(error))
    with open_ledger(f"{folder}/results.db", read_only=True) as ledger:
        rows = ledger.query("SELECT * FROM v_cell WHERE state = 'done'").rows
        return said[0], len(ledger.cells.of("small")), len(rows), said[1]


def test_a_full_disk(tmp_path: Path) -> None:
    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 60")

    open_ledger("results.db").close()
    sa.event.listen(sa.Engine, "connect", limit)
    try:
        with open_ledger("results.db") as ledger:
            with pytest.raises(LedgerError, match="full"):
                ledger.studies.record(
                    make_plan(axes=[{"p": 8, "seed": seed} for seed in range(200)]), submission()
                )
            assert ledger.studies.names() == []
            assert ledger.tasks.states() == {}
            fill(ledger)
    finally:
        sa.event.remove(sa.Engine, "connect", limit)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        open_ledger("postgres://someone@127.0.0.1:1/db?connect_timeout=2")


def test_a_server_that_goes_away(postgres_url: str) -> None:
    import psycopg

    with open_ledger(postgres_url) as ledger:
        fill(ledger)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'sweepctl'"
            )
        assert len(ledger.cells.of("small")) == 2  # connected again


def test_a_locked_database_is_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connect, "BUSY_S", 0.3)
    with open_ledger("results.db") as ledger:
        fill(ledger)
        with closing(sqlite3.connect("results.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert len(ledger.cells.of("small")) == 2  # readers do not wait
            with (
                pytest.raises(LedgerError, match="locked by another process"),
                open_ledger("results.db") as second,
            ):
                second.tasks.reset(list(ledger.tasks.states()))


def test_network_file_systems_get_no_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    home = tmp_path / "home dir"
    home.mkdir()
    escaped = str(home).replace(" ", "\\040")
    mounts.write_text(f"/dev/root / ext4 rw 0 0\nserver:/export {escaped} nfs4 rw 0 0\n")
    monkeypatch.setattr(_connect, "MOUNTS", mounts)
    for folder, journal, notices in ((tmp_path, "wal", 0), (home, "truncate", 1)):
        path = str(folder / "results.db")
        with open_ledger(path) as ledger:
            fill(ledger)
            assert len(ledger.notices) == notices
        with engine_of(path) as engine, engine.begin() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == journal


def test_status_loads_neither_alembic_nor_pandas_nor_the_plan() -> None:
    with open_ledger("results.db") as ledger:
        fill(ledger)
    program = (
        "import sys\n"
        "from sweepctl.ledger import open_ledger\n"
        "with open_ledger('new.db') as ledger: pass\n"
        "with open_ledger(read_only=True) as ledger:\n"
        "    ledger.cells.of('small'); ledger.cells.results('small'); ledger.query('SELECT 1')\n"
        "heavy = 'alembic pandas torch numpy psycopg pydantic sqlalchemy.orm'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    root = str(Path(__file__).parent.parent)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert ended.stdout == "[]\n"


if __name__ == "__main__":
    STORED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        with open_ledger(f"{place}/results.db") as written:
            fill(written)
        with closing(sqlite3.connect(f"{place}/results.db")) as dumped:
            text = "\n".join(dumped.iterdump()) + "\n"
    (STORED / f"{_schema.HEAD}.sql").write_text(text)
