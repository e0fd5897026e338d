"""Does the ledger keep what happened, once and whole? Every test runs on both databases."""

from __future__ import annotations

import datetime as dt
import itertools
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ledger_plans
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_plans import by_kind, finish, make_plan, metric, outcome, result, submission

from studies import plan_of
from sweepctl.errors import LedgerError, UnreachableError, UsageError
from sweepctl.ledger import (
    MISSING,
    VIEWS,
    AttemptProgress,
    Ledger,
    ledger_exists,
    open_ledger,
)
from vitok_core.protocols import METRICS


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    with open_ledger(database) as opened:
        yield opened


def rows(ledger: Ledger, sql: str) -> list[tuple[object, ...]]:
    return list(ledger.query(sql).rows)


# --- plans ------------------------------------------------------------------------------------


def test_a_plan_is_recorded_once(ledger: Ledger) -> None:
    plan = make_plan()
    assert ledger.studies.record(plan, submission()) == 1
    assert ledger.studies.record(plan, submission(argv=("again",))) == 1
    assert rows(ledger, "SELECT count(*) FROM sweep_submission") == [(1,)]
    assert ledger.studies.names() == ["small"]
    states = ledger.tasks.states()
    assert set(states) == set(plan.tasks)
    assert {state.state for state in states.values()} == {"pending"}


def test_asking_for_something_else_is_another_submission(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    assert ledger.studies.record(plan, submission(overrides=("a=1",))) == 2
    assert ledger.studies.record(plan, submission()) == 3  # equal to the first, not to the newest
    assert rows(ledger, "SELECT count(*) FROM v_cell") == [(2,)]


def test_the_same_question_planned_by_newer_code_brings_the_plan_up(ledger: Ledger) -> None:
    ledger.studies.record(make_plan(), submission())
    newer = make_plan(salt="stage version 2")
    assert ledger.studies.record(newer, submission()) == 1
    assert set(ledger.tasks.states(study="small")) == set(newer.tasks)


def test_an_edited_study_keeps_what_is_done_and_shows_its_new_cells_only(ledger: Ledger) -> None:
    before = make_plan(axes=[{"p": 8}, {"p": 16}])
    ledger.studies.record(before, submission())
    for task in before.tasks.values():
        finish(ledger, task, *([metric(20.0)] if task.kind == "reconstruct" else []))
    after = make_plan(axes=[{"p": 16}, {"p": 32}])
    ledger.studies.record(after, submission(resolved={"study": "small", "p": [16, 32]}))
    cells = ledger.cells.of("small")
    assert [(cell.index, cell.axes["p"], cell.state) for cell in cells] == [
        (1, 16, "done"),
        (2, 32, "pending"),
    ]
    assert list(ledger.cells.frame("small")["p"]) == [16]
    assert rows(ledger, "SELECT cell, p, psnr FROM v_cell ORDER BY cell") == [
        (1, 16, 20.0),
        (2, 32, None),
    ]
    assert ledger.studies.submission("small").resolved == {"study": "small", "p": [16, 32]}
    assert ledger.cells.config("small", cells[1].key)["tokenizer"] == {"p": 32, "c": 4}
    with pytest.raises(UsageError, match="no cell"):
        ledger.cells.config("small", "other")
    back = submission(resolved={"study": "small", "p": "as before"})
    ledger.studies.record(before, back)
    assert [cell.axes["p"] for cell in ledger.cells.of("small")] == [8, 16]


def test_studies_share_tasks(ledger: Ledger) -> None:
    first, second = make_plan("first"), make_plan("second")
    ledger.studies.record(first, submission())
    for task in first.tasks.values():
        finish(ledger, task)
    ledger.studies.record(second, submission())
    assert {state.state for state in ledger.tasks.states(study="second").values()} == {"done"}
    assert rows(ledger, "SELECT count(*) FROM v_task") == [(len(first.tasks),)]


def test_a_real_plan_is_recorded_and_explained(ledger: Ledger, tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    ledger.studies.record(plan, submission())
    assert set(ledger.tasks.states(study="small")) == set(plan.tasks)
    cell = ledger.cells.of("small")[0]
    assert cell.axes == dict(plan.cells[0].axes)
    assert list(cell.stages) == list(plan.cells[0].tasks)
    recorded = {(one.stage, one.fingerprint) for one in ledger.cells.recorded("small")}
    assert recorded == {pair for cell in plan.cells for pair in cell.tasks.items()}
    assert ledger.cells.recorded("never heard of") == []


def test_values_keep_their_type_and_order(ledger: Ledger) -> None:
    axes = {"z": True, "a": 0.1, "m": "text", "none": None, "big": 2**40}
    ledger.studies.record(make_plan(axes=[axes]), submission())
    (cell,) = ledger.cells.of("small")
    assert list(cell.axes.items()) == list(axes.items())
    assert cell.values["compression"] == 48.0
    (state, *_) = ledger.tasks.states().values()
    assert state.flops == 3e19  # past the integers of a database


# --- attempts ---------------------------------------------------------------------------------


def test_an_attempt_from_start_to_result(ledger: Ledger, tmp_path: Path) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "reconstruct")[0]
    attempt = ledger.attempts.start(
        task.fingerprint, folder=tmp_path / task.id, provenance={"code": "abc", "commit": "f00"}
    )
    assert attempt == 1
    assert ledger.attempts.start(task.fingerprint) is None
    ledger.attempts.progress(
        [AttemptProgress(fingerprint=task.fingerprint, attempt=1, step=5, steps=9, loss=0.5)]
    )
    running = ledger.tasks.states([task.fingerprint])[task.fingerprint]
    assert (running.state, running.step, running.steps, running.loss) == ("running", 5, 9, 0.5)
    assert running.started_at is not None
    assert abs(running.started_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)

    values = (metric(21.5), metric(20.0, step=100), metric(0.8, name="ssim"))
    assert ledger.attempts.finish(outcome(task, peak_memory_bytes=2**33), result(task, *values))
    (kept,) = ledger.attempts.of(task.fingerprint)
    assert (kept.state, kept.device, kept.code, kept.host) == ("done", "cpu", "abc", "node1")
    assert kept.log == str(tmp_path / task.id / "attempts/1/log.txt")
    assert kept.provenance == {"code": "abc", "commit": "f00", "device": "cpu", "torch": "2.14"}
    assert kept.peak_memory_bytes == 2**33
    measured = "SELECT name, step, value FROM v_metric ORDER BY name, step"
    assert sorted(rows(ledger, measured), key=str) == sorted(
        [("psnr", None, 21.5), ("psnr", 100, 20.0), ("ssim", None, 0.8)], key=str
    )
    assert ledger.tasks.code_counts(list(plan.tasks)) == {"abc": 1}
    (speed,) = ledger.tasks.speeds()
    assert (speed.kind, speed.device, speed.flops, speed.seconds) == ("reconstruct", "cpu", 3e19, 2)


def test_speeds_are_those_of_whole_tasks_on_a_kind_of_device(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    one, other = by_kind(plan, "stage1")
    for number, state in ((1, "stopped"), (2, "done")):
        assert ledger.attempts.start(one.fingerprint, predicted_s=9.0) == number
        done = result(one, attempt=number, provenance={"device": "cuda:1", "device_name": "L4"})
        ended = outcome(one, number, state, seconds=3.0)
        assert ledger.attempts.finish(ended, done if state == "done" else None)
    # What a killed attempt had done is not known: such a task tells no speed.
    for number, state in ((1, "failed"), (2, "done")):
        assert ledger.attempts.start(other.fingerprint) == number
        how = {"failure": "killed"} if state == "failed" else {}
        ended = outcome(other, number, state, **how)
        done = result(other, attempt=number)
        assert ledger.attempts.finish(ended, done if state == "done" else None, retry=True)
    (speed,) = ledger.tasks.speeds()
    assert (speed.kind, speed.device, speed.seconds) == ("stage1", "L4", 6.0)
    assert ledger.tasks.predictions("small") == []  # it took a second attempt
    third = by_kind(plan, "prepare")[0]
    assert ledger.attempts.start(third.fingerprint, predicted_s=4.0) == 1
    assert ledger.attempts.finish(outcome(third), result(third))
    (kept,) = ledger.tasks.predictions("small")
    assert (kept.task_id, kept.predicted_s, kept.seconds) == (third.id, 4.0, 2.0)
    assert {name: set(parents) for name, parents in ledger.tasks.parents("small").items()} == {
        name: {parent for _, parent in task.parents}
        for name, task in plan.tasks.items()
        if task.parents
    }


def test_seconds_of_a_speed_are_those_of_one_device(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "stage1")[0]
    # Stopped on four devices after 3 s, ended on one after 2 more.
    assert ledger.attempts.start(task.fingerprint, provenance={"ranks": 4}) == 1
    assert ledger.tasks.states([task.fingerprint])[task.fingerprint].ranks == 4
    assert ledger.attempts.finish(outcome(task, 1, "stopped", seconds=3.0))
    assert ledger.attempts.start(task.fingerprint, provenance={"ranks": 1}) == 2
    assert ledger.attempts.finish(outcome(task, 2), result(task, attempt=2))
    (speed,) = ledger.tasks.speeds()
    assert speed.seconds == 4 * 3.0 + 2.0


def test_failing_stopping_and_trying_again(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "prepare")[0]
    name = task.fingerprint

    def state() -> tuple[object, ...]:
        found = ledger.tasks.states([name])[name]
        return found.state, found.failure, found.attempts, found.failed_attempts

    assert ledger.attempts.start(name) == 1
    lost = outcome(task, 1, "failed", failure="worker_lost", message="gone\x00 \ud800")
    assert ledger.attempts.finish(lost, retry=True)
    assert state() == ("pending", "worker_lost", 1, 1)
    assert ledger.attempts.start(name) == 2
    assert ledger.attempts.finish(outcome(task, 2, "stopped"))
    assert state() == ("pending", None, 2, 1)
    assert ledger.attempts.start(name) == 3
    failed = outcome(task, 3, "failed", failure="error", message="ValueError: no")
    assert ledger.attempts.finish(failed)
    assert state() == ("failed", "error", 3, 2)

    blocked = {one.fingerprint for one in ledger.tasks.states().values() if one.blocked}
    assert blocked == set(plan.tasks) - {name}
    assert {cell.state for cell in ledger.cells.of("small")} == {"failed"}
    assert set(rows(ledger, "SELECT state FROM v_cell")) == {("failed",)}
    counted = "SELECT state, count(*) FROM v_task GROUP BY state ORDER BY state"
    assert rows(ledger, counted) == [("blocked", len(plan.tasks) - 1), ("failed", 1)]

    assert ledger.tasks.reset(list(plan.tasks)) == [name]
    assert state() == ("pending", None, 3, 0)
    assert not any(one.blocked for one in ledger.tasks.states().values())


def test_a_late_driver_changes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "reconstruct")[0]
    name = task.fingerprint
    ledger.attempts.start(name, folder=tmp_path / "mine" / task.id)
    assert ledger.attempts.lose_running(logs_under=tmp_path / "min") == []
    assert ledger.attempts.lose_running(logs_under=tmp_path / "mine") == [name]
    late = outcome(task, 1), result(task, metric(1.0))
    assert not ledger.attempts.finish(*late)
    assert ledger.attempts.start(name) == 2
    assert not ledger.attempts.finish(*late)
    ledger.attempts.progress([AttemptProgress(fingerprint=name, attempt=1, step=1, steps=2)])
    assert ledger.tasks.states([name])[name].step is None
    assert ledger.attempts.finish(outcome(task, 2), result(task, metric(2.0), attempt=2))
    assert not ledger.attempts.finish(outcome(task, 2), result(task, metric(3.0), attempt=2))
    assert [one.state for one in ledger.attempts.of(name)] == ["lost", "done"]
    assert set(rows(ledger, "SELECT value FROM v_metric")) == {(2.0,)}


def test_a_result_on_disk_is_adopted_once(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "reconstruct")[0]
    ledger.attempts.start(task.fingerprint)
    found = result(task, metric(2.0), attempt=4)  # of a driver with another database
    assert ledger.attempts.adopt(task.fingerprint, found)
    assert not ledger.attempts.adopt(task.fingerprint, found)
    assert [(one.number, one.state) for one in ledger.attempts.of(task.fingerprint)] == [
        (1, "lost"),
        (4, "done"),
    ]
    assert not ledger.attempts.finish(outcome(task, 1), result(task, metric(9.0)))
    assert ledger.tasks.reset([task.fingerprint]) == []
    assert ledger.tasks.reset([task.fingerprint], done=True) == [task.fingerprint]
    assert rows(ledger, "SELECT * FROM v_metric") == []
    assert ledger.attempts.start(task.fingerprint) == 5


def test_results_that_cannot_be_true_are_refused_whole(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task, other = by_kind(plan, "reconstruct")
    ledger.attempts.start(task.fingerprint)
    with pytest.raises(LedgerError, match="belongs to"):
        ledger.attempts.finish(outcome(task), result(other))
    with pytest.raises(LedgerError, match="not finite"):
        ledger.attempts.finish(
            outcome(task), result(task, metric(1.0), metric(float("nan"), "ssim"))
        )
    with pytest.raises(LedgerError, match="step below 0"):
        ledger.attempts.finish(outcome(task), result(task, metric(1.0, step=-1)))
    with pytest.raises(LedgerError, match="no task"):
        ledger.attempts.start("s1:unknown")
    assert ledger.tasks.states([task.fingerprint])[task.fingerprint].state == "running"
    assert rows(ledger, "SELECT * FROM v_metric") == []
    assert ledger.attempts.finish(
        outcome(task), result(task, values={"loss": float("inf"), "note": "a\x00b"})
    )
    assert ledger.attempts.of(task.fingerprint)[0].values == {"loss": "inf", "note": "a\ufffdb"}


def test_only_one_of_many_gets_a_task(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"p": 8, "seed": seed} for seed in range(10)])
    ledger.studies.record(plan, submission())

    def take_all(_: int) -> list[str]:
        return [name for name in plan.tasks if ledger.attempts.start(name) is not None]

    with ThreadPoolExecutor(4) as pool:
        taken = list(itertools.chain.from_iterable(pool.map(take_all, range(4))))
    assert sorted(taken) == sorted(plan.tasks)


_salts = itertools.count()
_MOVES = st.lists(
    st.tuples(
        st.sampled_from(["start", "done", "retry", "fail", "stop", "lose", "adopt", "reset"]),
        st.integers(0, 2),
        st.integers(1, 4),
    ),
    max_size=14,
)


@given(moves=_MOVES)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_states_partition_and_follow_the_picture(
    ledger: Ledger, moves: list[tuple[str, int, int]]
) -> None:
    """Whatever is tried in whatever order, the ledger is where its docstring's picture says."""
    plan = make_plan(axes=[{"p": 8}], salt=str(next(_salts)))
    ledger.studies.record(plan, submission())
    tasks = list(plan.tasks.values())
    expected = {task.fingerprint: ("pending", 0) for task in tasks}
    for move, which, attempt in moves:
        task = tasks[which]
        name = task.fingerprint
        state, newest = expected[name]
        held = state == "running" and attempt == newest
        if move == "start":
            got = ledger.attempts.start(name)
            assert got == (newest + 1 if state == "pending" else None)
            expected[name] = ("running", newest + 1) if state == "pending" else (state, newest)
        elif move == "lose":
            assert (name in ledger.attempts.lose_running()) == (state == "running")
            expected = {
                key: ("pending" if old == "running" else old, count)
                for key, (old, count) in expected.items()
            }
        elif move == "adopt":
            took = ledger.attempts.adopt(name, result(task, metric(1.0), attempt=attempt))
            assert took == (state != "done")
            expected[name] = ("done", max(newest, attempt) if took else newest)
        elif move == "reset":
            ledger.tasks.reset([name])
            expected[name] = ("pending" if state == "failed" else state, newest)
        else:
            done = result(task, metric(1.0), attempt=attempt) if move == "done" else None
            said = {"done": "done", "stop": "stopped"}.get(move, "failed")
            ended = outcome(task, attempt, said)
            assert ledger.attempts.finish(ended, done, retry=move == "retry") == held
            if held:
                ends = {"done": "done", "fail": "failed"}.get(move, "pending")
                expected[name] = (ends, newest)
    states = ledger.tasks.states(list(plan.tasks))
    assert {name: (one.state, one.attempts) for name, one in states.items()} == expected
    for name, one in states.items():
        attempts = ledger.attempts.of(name)
        running = [entry.number for entry in attempts if entry.state == "running"]
        assert running == ([one.attempts] if one.state == "running" else [])
        assert sum(entry.state == "done" for entry in attempts) == (one.state == "done")


# --- what is read -----------------------------------------------------------------------------


def measured(ledger: Ledger, datasets: tuple[str, ...] = ("photos",)) -> None:
    plan = make_plan(axes=[{"p": 8, "lr": 1e-4}, {"p": 16, "lr": 1e-3}], datasets=datasets)
    ledger.studies.record(plan, submission())
    for cell in plan.cells[:1]:
        for stage, name in cell.tasks.items():
            kind, _, dataset = stage.partition(":")
            values = [metric(float(cell.axes["p"]), dataset=dataset), metric(0.5, "fid", dataset)]
            values.append(metric(3.0, dataset=dataset, step=100))  # not the end of training
            finish(ledger, plan.tasks[name], *(values if kind == "reconstruct" else []))


def test_frame_is_long_and_typed(ledger: Ledger) -> None:
    measured(ledger)
    frame = ledger.cells.frame("small")
    columns = " ".join(frame.columns)
    assert columns == (
        "cell p lr q c encoder decoder resolution frames seed tokens E compression parameters "
        "macs encoder_parameters decoder_parameters encoder_macs decoder_macs dit_parameters "
        "dit_macs training_flops metric dataset protocol n value se task"
    )
    assert list(frame["metric"]) == ["fid", "psnr"]
    row = frame.iloc[1]
    assert (row.cell, row.lr, row.E, row.n, row.value, row.protocol) == (
        1,
        1e-4,
        256,
        32,
        8.0,
        "lite0",
    )
    assert row.task.startswith("reconstruct-")


def test_a_list_on_an_axis_is_a_level_like_any_other(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"lengths": []}, {"lengths": [2, 8]}])
    ledger.studies.record(plan, submission())
    for task in by_kind(plan, "reconstruct"):
        finish(ledger, task, metric(20.0))
    assert set(ledger.cells.frame("small")["lengths"]) == {"[]", "[2, 8]"}
    found = ledger.cells.results("small", where="lengths = '[2, 8]'")
    assert [row[found.columns.index("lengths")] for row in found.rows] == [[2, 8]]


def test_an_empty_frame_has_its_columns(ledger: Ledger) -> None:
    ledger.studies.record(make_plan(), submission())
    frame = ledger.cells.frame("small")
    assert len(frame) == 0
    assert {"lr", "E", "value"} <= set(frame.columns)


def test_an_axis_named_like_a_column_keeps_both(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"value": 3, "E": 7}])
    ledger.studies.record(plan, submission())
    finish(ledger, by_kind(plan, "reconstruct")[0], metric(20.0))
    frame = ledger.cells.frame("small")
    assert (frame["axis_value"][0], frame["value"][0], frame["E"][0]) == (3, 20.0, 7)
    assert ledger.cells.results("small").columns == (
        "cell",
        "axis_value",
        "E",
        "tokens",
        "parameters",
        "state",
        "psnr",
    )


def test_results_filter_and_sort(ledger: Ledger) -> None:
    measured(ledger)
    table = ledger.cells.results("small")
    names = ("cell", "p", "lr", "E", "tokens", "parameters", "state", "fid", "psnr")
    assert table.columns == names
    assert [row[0] for row in table.rows] == [1, 2]
    assert table.rows[1][-3:] == ("pending", None, None)
    narrow = ledger.cells.results("small", where="p = 16 and lr > 5e-4 -- why", columns=["P", "e"])
    assert narrow.columns == ("p", "E")
    assert narrow.rows == ((16, 64),)
    assert [row[0] for row in ledger.cells.results("small", sort="E").rows] == [2, 1]
    assert [row[0] for row in ledger.cells.results("small", sort="-psnr").rows] == [1, 2]
    assert ledger.cells.results("small", where="encoder = 'B'").rows == ()


def test_standard_errors_are_columns_that_one_can_ask_for(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"p": 8, "lr": 1e-4}, {"p": 16, "lr": 1e-3}], datasets=("photos",))
    ledger.studies.record(plan, submission())
    for stage, name in plan.cells[0].tasks.items():
        values = [metric(8.0, se=0.25), metric(0.5, "fid")]
        finish(ledger, plan.tasks[name], *(values if stage.startswith("reconstruct") else []))
    assert "psnr_se" not in ledger.cells.results("small").columns
    asked = ledger.cells.results("small", columns=["psnr", "psnr_se"], where="psnr_se < 1")
    assert asked.rows == ((8.0, 0.25),)
    with pytest.raises(UsageError, match="fid_se"):
        ledger.cells.results("small", columns=["fid_se"])


def test_results_tell_data_sets_and_protocols_apart(ledger: Ledger) -> None:
    measured(ledger, ("photos", "coco"))
    columns = ledger.cells.results("small").columns
    assert columns[-4:] == ("fid@photos", "psnr@photos", "fid@coco", "psnr@coco")
    assert len(ledger.cells.results("small", where='"psnr@coco" = 8').rows) == 1
    assert rows(ledger, "SELECT dataset, protocol FROM v_cell WHERE psnr = 8") == [
        ("photos", "lite0")
    ]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lrr > 1", "did you mean 'lr'"),
        ("encoder = S", "no such column"),
        ("p = 16; DROP TABLE results", "near"),
        ("p = 16) UNION SELECT load_extension('x') --", "load_extension"),
        ("cell IN (SELECT writefile('x', 'y'))", "writefile"),
    ],
)
def test_conditions_that_cannot_be_used(ledger: Ledger, where: str, said: str) -> None:
    ledger.studies.record(make_plan(), submission())
    with pytest.raises(UsageError, match=said):
        ledger.cells.results("small", where=where)


def test_names_that_are_not_there(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="no study has been recorded"):
        ledger.cells.of("small")
    ledger.studies.record(make_plan(), submission())
    with pytest.raises(UsageError, match="did you mean 'small'"):
        ledger.cells.frame("smal")
    with pytest.raises(UsageError, match="did you mean 'E'"):
        ledger.cells.results("small", sort="-EE")
    with pytest.raises(UsageError, match="there is no column 'fid'"):
        ledger.cells.results("small", columns=["fid"])


def test_tasks_are_found_by_what_people_have_at_hand(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "stage1")[0]
    for prefix in (
        task.id,
        task.id[:12],
        task.fingerprint,
        task.fingerprint[3:12],
        f"runs/{task.id}/",
    ):
        assert ledger.tasks.find(prefix).state.id == task.id
    record = ledger.tasks.find(task.id)
    assert [role for role, _ in record.parents] == ["data"]
    assert [child.partition("-")[0] for child in record.children] == ["reconstruct"]
    assert record.cells == (("small", 1, "stage1"),)
    with pytest.raises(UsageError, match="2 tasks begin with 'stage1'") as raised:
        ledger.tasks.find("stage1")
    assert all(one.id in str(raised.value) for one in by_kind(plan, "stage1"))
    # Numbers of cells are no beginnings of fingerprints, though some would fit.
    digit = next((i for i in range(10) if any(f":{i}" in name for name in plan.tasks)), 1)
    with pytest.raises(UsageError, match="no study 'smal'; did you mean 'small'"):
        ledger.tasks.find(f"smal/{digit}")
    with pytest.raises(UsageError, match=rf"'small/{digit}' is a cell, and"):
        ledger.tasks.find(f"small/{digit}")
    for nothing in ("zzz", "", "%", "_"):
        with pytest.raises(UsageError, match="no task begins"):
            ledger.tasks.find(nothing)


def test_the_nearest_task_and_what_differs(ledger: Ledger) -> None:
    plan = make_plan(axes=[{"p": 8, "lr": 1e-4, "c": 4}, {"p": 16, "lr": 1e-3, "c": 8}])
    ledger.studies.record(plan, submission())
    near, _ = by_kind(plan, "stage1")
    asked = ledger_plans.make_task(
        "stage1", {"p": 8, "lr": 1e-4, "c": 4.0, "new": []}, dict(near.parents)
    )
    found = ledger.tasks.closest("stage1", asked.identity)
    assert found is not None
    assert found[0].state.fingerprint == near.fingerprint
    assert sorted((one.path, one.recorded, one.given) for one in found[1]) == [
        ("config.c", 4, 4.0),
        ("config.new", MISSING, []),
        ("config.salt", "", MISSING),
    ]
    again = ledger.tasks.closest("stage1", near.identity)
    assert again is not None and again[0].state.fingerprint != near.fingerprint
    assert ledger.tasks.closest("stage2", asked.identity) is None
    assert ledger.tasks.closest("stage1", asked.identity, state="done") is None


def test_fits_are_kept_when_they_change(ledger: Ledger) -> None:
    ledger.studies.record(make_plan(), submission())
    assert ledger.fits.save("small", "law", {"slope": 1.0}) == 1
    assert ledger.fits.save("small", "law", {"slope": 1.0}) == 1
    assert ledger.fits.save("small", "law", {"slope": 2.0}) == 2
    ((name, number, slope),) = [
        (f.name, f.number, f.result["slope"]) for f in ledger.fits.newest("small")
    ]
    assert (name, number, slope) == ("law", 2, 2.0)
    assert rows(ledger, "SELECT fit, number, result ->> 'slope' FROM v_fit")[0][:2] == ("law", 2)
    with pytest.raises(LedgerError, match="no study"):
        ledger.fits.save("other", "law", {})


def test_cost_and_lineage(ledger: Ledger) -> None:
    plan = make_plan()
    ledger.studies.record(plan, submission())
    task = by_kind(plan, "stage1")[0]
    ledger.attempts.start(task.fingerprint)
    ledger.attempts.finish(outcome(task, 1, "failed", failure="killed", seconds=5.0), retry=True)
    ledger.attempts.start(task.fingerprint)
    ledger.attempts.finish(outcome(task, 2, seconds=7.0), result(task, attempt=2))
    costs = "tasks, tasks_done, attempts, seconds, seconds_lost, flops_done, file_bytes"
    assert rows(ledger, f"SELECT {costs} FROM v_cost WHERE kind = 'stage1'") == [
        (2, 1, 2, 12.0, 5.0, 3e19, 100)
    ]
    last = by_kind(plan, "reconstruct")[0]
    line = f"SELECT ancestor_kind, depth FROM v_lineage WHERE task = '{last.id}' ORDER BY depth, 1"
    assert rows(ledger, line) == [("prepare", 1), ("stage1", 1)]


def test_metric_columns_are_those_of_the_records() -> None:
    _, columns = VIEWS["v_cell"]
    assert tuple(name for name in columns if name in METRICS) == (
        *("psnr", "ssim", "lpips", "rfd_lite0", "rkid_lite0", "rfid", "gfd_lite0", "gfid", "gis"),
    )


# --- how it is opened -------------------------------------------------------------------------


def test_where_the_database_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger() as ledger:
        assert ledger.shown == str(tmp_path / "results.db")
    assert stat.S_IMODE((tmp_path / "results.db").stat().st_mode) == 0o600
    monkeypatch.setenv("SWEEPCTL_DB", "sqlite:///from_environment.db")
    with open_ledger(folder=tmp_path) as ledger:
        assert ledger.shown == str(tmp_path / "from_environment.db")
    for name in ("a b#?%.db", "ü.db"):
        with open_ledger(name) as ledger:
            ledger.studies.record(make_plan(), submission())
            assert len(ledger.query("SELECT * FROM v_cell").rows) == 2
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:secret@host/db",
        "postgresql://user:secret@host:port/db",
        "postgresql://user:secret@127.0.0.1:1/db?password=secret&connect_timeout=2",
        "sqlite:///:memory:",
        "sqlite://",
    ],
)
def test_urls_that_cannot_be_used_never_show_a_password(url: str) -> None:
    with pytest.raises((UsageError, UnreachableError)) as raised:
        open_ledger(url)
    assert "secret" not in str(raised.value)


def test_reading_only(database: str) -> None:
    with open_ledger(database) as ledger:
        ledger.studies.record(make_plan(), submission())
    assert ledger_exists(database)
    with open_ledger(database, read_only=True) as ledger:
        assert len(ledger.cells.of("small")) == 2
        with pytest.raises(LedgerError, match="for reading only"):
            ledger.tasks.reset([])


def test_reading_what_is_not_there(database: str, tmp_path: Path) -> None:
    assert not ledger_exists(database)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LedgerError, match="sweepctl run"):
        open_ledger(database, read_only=True)
    with pytest.raises(LedgerError, match="sweepctl run"):
        open_ledger(database, create=False)
