"""Is a user's own SQL read-only for real, and does it say the same on both databases?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_plans import SmallPlan, finish, make_plan, metric, submission

from sweepctl.errors import LedgerError, UsageError
from sweepctl.ledger import VIEWS, Ledger, SearchRecord, TrialRecord, open_ledger
from sweepctl.runs import Fitted

ANYTHING_ELSE = [
    "INSERT INTO sweep_study VALUES ('x', '', '', '2025-01-01')",
    "UPDATE sweep_task SET state = 'done'",
    "DELETE FROM sweep_fit",
    "DROP TABLE sweep_fit",
    "DROP VIEW v_cell",
    "CREATE TABLE mine (a INTEGER)",
    "CREATE TEMP TABLE mine (a INTEGER)",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE TABLE mine AS SELECT * FROM v_cell",
    "ALTER TABLE sweep_fit RENAME TO mine",
    "ATTACH DATABASE 'new.db' AS new",
    "DETACH DATABASE main",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "SELECT * FROM pragma_table_info('sweep_task')",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "ANALYZE",
    "REINDEX",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "WITH gone AS (DELETE FROM sweep_fit RETURNING *) SELECT * FROM gone",
    "WITH one AS (SELECT 1) INSERT INTO sweep_study SELECT 'x', '', '', '2025-01-01' FROM one",
    "SELECT load_extension('evil.so')",
    "SELECT fts3_tokenizer('simple', x'00')",
    "SELECT 1; DELETE FROM sweep_fit",
    "SELECT 1; SELECT 2",
    "SELECT * INTO mine FROM sweep_study",
    "SELECT * FROM sweep_study FOR UPDATE",
    "SELECT nextval('sweep_numbers')",
    "SELECT setval('sweep_numbers', 5)",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT lo_export(1, 'written.txt')",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY sweep_study TO 'written.txt'",
    "COPY (SELECT 1) TO PROGRAM 'touch written.txt'",
    "SET TRANSACTION READ WRITE",
    "RESET ROLE",
    "DO $$ BEGIN DELETE FROM sweep_fit; END $$",
    "CALL something()",
    "LISTEN mine",
    "NOTIFY mine",
    "EXPLAIN ANALYZE DELETE FROM sweep_fit",
    "",
    "   -- nothing",
    "nonsense",
]


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    with open_ledger(database) as opened:
        plan = make_plan()
        opened.studies.record(plan, submission())
        for task in plan.tasks.values():
            finish(opened, task, *([metric(20.0)] if task.kind == "reconstruct" else []))
        opened.fits.save("small", "law", {"slope": 1})
        opened.searches.begin("small", [SearchRecord(key="one", position=0, axes={})])
        trial = TrialRecord(search="one", number=0, point={"lr": 1e-4}, cell=plan.cells[0].key)
        opened.searches.add_trial(SmallPlan(study_name="small", cells=(), tasks={}), trial)
        published = dict.fromkeys(VIEWS["v_reference"][1]) | {"id": 1, "source": "paper"}
        published |= {"place": "Table 1", "name": "psnr", "value": 30.0, "protocol": "paper"}
        opened.fits.keep_reference("one", lambda: [published])
        fitted = Fitted(device_name="A", memory_bytes=80, ranks=1, micro_batch=4, recompute=False)
        opened.fitted.keep(next(iter(plan.tasks)), "configuration", fitted)
        yield opened


@pytest.fixture
def _sequence(database: str) -> None:
    """Something that a SELECT could write to on PostgreSQL."""
    if database.startswith("postgresql"):
        import psycopg

        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE SEQUENCE sweep_numbers")


def everything(ledger: Ledger) -> list[tuple[object, ...]]:
    tables = (
        "study",
        "submission",
        "cell",
        "cell_task",
        "task",
        "attempt",
        "metric",
        "file",
        "fit",
        "reference",
        "search",
        "trial",
    )
    counts = ", ".join(f"(SELECT count(*) FROM sweep_{name})" for name in tables)
    states = "SELECT state, count(*) FROM sweep_task GROUP BY state"
    return [*ledger.query(f"SELECT {counts}").rows, *ledger.query(states).rows]


@pytest.mark.usefixtures("_sequence")
def test_whatever_is_more_than_a_select_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    before, files = everything(ledger), set(tmp_path.iterdir())
    for sql in ANYTHING_ELSE:
        with pytest.raises(LedgerError) as raised:
            ledger.query(sql)
        assert "v_cell" in str(raised.value), sql  # what to do instead
    assert everything(ledger) == before
    journals = {tmp_path / f"results.db-{name}" for name in ("wal", "shm")}
    assert set(tmp_path.iterdir()) | journals == files | journals
    for sql in ("SELECT 1", "SELECT * FROM sweep_study"):  # the same ledger still reads
        assert len(ledger.query(sql).rows) == 1
    assert ledger.tasks.reset([]) == []  # and still writes


@pytest.mark.usefixtures("_sequence")
def test_a_refusal_is_told_from_a_mistake(ledger: Ledger, database: str) -> None:
    refused = ["DELETE FROM sweep_fit", "SELECT 1; DELETE FROM sweep_fit"]
    if database.startswith("postgresql"):
        refused += ["SELECT nextval('sweep_numbers')", "SELECT pg_read_file('/etc/passwd')"]
    else:
        refused += ["ATTACH 'x' AS x", "VACUUM INTO 'x'", "SELECT load_extension('x')"]
    for sql in refused:
        with pytest.raises(LedgerError, match="refuses"):
            ledger.query(sql)


def test_views_are_what_their_documentation_says(ledger: Ledger) -> None:
    for view, (about, columns) in VIEWS.items():
        table = ledger.query(f"SELECT * FROM {view}")
        assert table.columns == tuple(columns), view
        assert len(table.rows) > 0, view
        assert about.startswith("One row")


def test_an_axis_with_the_name_of_a_metric_has_a_column_of_its_own(tmp_path: Path) -> None:
    plan = make_plan(axes=({"psnr": 0.5}, {"psnr": 1.0}))  # as the weight of LPIPS and LPIPS
    with open_ledger(str(tmp_path / "results.db")) as opened:
        opened.studies.record(plan, submission())
        for task in plan.tasks.values():
            finish(opened, task, *([metric(20.0)] if task.kind == "reconstruct" else []))
        table = opened.cells.results(
            "small", where="axis_psnr > 0.6", columns=["axis_psnr", "psnr"]
        )
        assert table.rows == ((1.0, 20.0),)


def test_the_question_of_the_readme(ledger: Ledger) -> None:
    table = ledger.query("select p, c, E, psnr, axes ->> 'lr' as lr from v_cell order by E")
    assert table.columns == ("p", "c", "E", "psnr", "lr")
    assert [tuple(row[:4]) for row in table.rows] == [(16, 4, 64, 20.0), (8, 4, 256, 20.0)]
    assert [float(row[4]) for row in table.rows] == [1e-3, 1e-4]
    mean = ledger.query("SELECT avg(value), sum(v_metric.n), max(created_at) FROM v_metric, v_fit")
    assert mean.rows[0][:2] == (20.0, 64)
    assert len(mean.rows[0][2]) == len("2025-01-01 00:00:00.000000")
    assert ledger.query("SELECT 'a%b', '100%s', ':name'").rows == (("a%b", "100%s", ":name"),)
    assert ledger.query("VALUES (1), (2)").rows == ((1,), (2,))
    assert ledger.query("SELECT 1;").rows == ((1,),)
    assert ledger.query("SELECT 1 -- one").rows == ((1,),)


def test_rows_and_time_are_limited(ledger: Ledger) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    table = ledger.query(f"{many} LIMIT 50", limit_rows=20)
    assert (len(table.rows), table.truncated) == (20, True)
    table = ledger.query(f"{many} LIMIT 20", limit_rows=20)
    assert (len(table.rows), table.truncated) == (20, False)
    with pytest.raises(LedgerError, match=r"stopped after 0\.2 s"):
        ledger.query(f"SELECT count(*) FROM ({many}) x", timeout_s=0.2)
    with pytest.raises(UsageError):
        ledger.query("SELECT 1", limit_rows=0)


def test_mistakes_are_met_with_names(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match=r"no such table: v_cel; did you mean 'v_cell'"):
        ledger.query("SELECT * FROM v_cel")
    with pytest.raises(LedgerError, match=r"no such column: psnrr; did you mean 'psnr' \(v_cell\)"):
        ledger.query("SELECT psnrr FROM v_cell")
    with pytest.raises(LedgerError, match="'value' is a column of v_metric"):
        ledger.query("SELECT value FROM v_cell")
    with pytest.raises(LedgerError, match="v_lineage"):
        ledger.query("SELEC 1")


def test_a_huge_value_does_not_take_the_memory(ledger: Ledger, database: str) -> None:
    if database.startswith("postgresql"):
        pytest.skip("the server has limits of its own")
    with pytest.raises(LedgerError, match="too big"):
        ledger.query("SELECT zeroblob(1000000000)")


def test_a_reader_may_query(database: str, ledger: Ledger) -> None:
    with open_ledger(database, read_only=True) as reader:
        assert len(reader.query("SELECT * FROM v_cell").rows) == 2
        with pytest.raises(LedgerError):
            reader.query("DELETE FROM sweep_fit")
