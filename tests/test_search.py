"""Does a search ask the same trials whatever happens to its driver, and find what is best?"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import NoPostgres, cluster
from test_execute import PROVENANCE, Collected, behave

from studies import DATA, SMALL, load
from sweepctl.errors import StudyError, UsageError
from sweepctl.execute import RunSummary, Settings, run_study
from sweepctl.ledger import Ledger, TrialRecord, open_ledger
from sweepctl.plan import DataSet, Plan, Trial, make_plan
from sweepctl.search import (
    Asker,
    Ended,
    Past,
    ended,
    export,
    far_corner,
    hypervolume,
    most_trials,
    since_improved,
)
from sweepctl.statistics import dominates, front_of
from sweepctl.study import Search, StudyFile

BLOCK = """\
search:
  sampler: SAMPLER
  trials: 8
  space:
    stage1.loss.lpips: {low: 0.05, high: 2, log: true}
    stage1.loss.pixel: [l1, l2]
    stage1.optimiser.lr: {low: 1e-4, high: 1e-3}
    stage1.steps: {low: 10, high: 100, step: 10}
  objectives: [{metric: psnr}]
  start_with:
    - {stage1.loss.lpips: 1, stage1.loss.pixel: l1, lr: 2e-4, stage1.steps: 50}
"""
SEARCH = (
    SMALL.replace("axes:\n  p: [4, 8]\n  c: [4, 16]\n", BLOCK)
    .replace("nano, decoder", "nano, p: 4, c: 4, decoder")
    .replace("metrics: [psnr, rfd_lite0]", "metrics: [psnr]")
    .replace("fits:\n  law: {metric: psnr, on: photos-eval, form: semilog}\n", "")
    .replace("claims:\n  - {name: E helps, fit: law, slope: positive}\n", "")
)


def written(sampler: str = "tpe", *changes: tuple[str, str]) -> str:
    text = SEARCH.replace("SAMPLER", sampler)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def search_of(folder: Path, text: str) -> Search:
    found = load(folder, text).search
    assert found is not None
    return found


# --- what a file may say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("stage1.loss.pixel: [", "stage1.loss.pixl: [", "8:5", "did you mean"),
        ("pixel: [l1, l2]", "pixel: [l1, l3]", "8:29", "must be 'l1', 'l2' or 'charbonnier'"),
        ("pixel: [l1, l2]", "pixel: [l1, l1]", "8:29", "stands in this choice twice"),
        ("pixel: [l1, l2]", "pixel: []", "8:24", "at least one value"),
        ("low: 0.05", "low: -1", "7:24", "logarithmic scale begins above 0"),
        ("low: 0.05", "low: 3", "7:24", "low must be below high"),
        ("high: 1e-3}", "high: 1e-3, if: {tokenizer.norm: rmsnorm}}", "9:55", "no choice"),
        ("high: 1e-3}", "high: 1e-3, if: {pixel: l3}}", "9:62", "must be 'l1'"),
        ("high: 1e-3}", "high: 1e-3, if: {stage1.steps: 20}}", "9:55", "asks for a choice"),
        ("[l1, l2]", "{choice: [l1], if: {pixel: l1}}", "8:43", "leads back to itself"),
        ("high: 1e-3}", "hihg: 1e-3}", "9:38", "did you mean 'high'"),
        ("low: 10,", "low: 10.5,", "10:25", "whole number"),
        ("step: 10", "step: 40", "10:19", "miss 100"),
        ("metric: psnr}", "metric: ssim}", "11:25", "unknown measured metric 'ssim'"),
        ("metric: psnr}", "metric: psnr, on: photos}", "11:35", "photos-eval"),
        ("lr: 2e-4, stage1", "stage1", "13:7", "lr is missing"),
        ("lr: 2e-4", "lr: 0.5", "13:57", "outside of the space"),
        ("lr: 2e-4", "lr: 2e-4, p: 4", "13:63", "is not searched"),
        ("tpe", "grid", "7:5", "a grid needs values"),
        ("[{metric: psnr}]", "[{metric: psnr}, {metric: psnr}]", "11:32", "twice"),
    ],
)
def test_a_mistake_in_a_search_has_its_place(
    tmp_path: Path, old: str, new: str, place: str, said: str
) -> None:
    with pytest.raises(StudyError) as caught:
        load(tmp_path, written("tpe", (old, new)))
    places = {one.place.split(":", 1)[1]: one.message for one in caught.value.problems}
    assert place in places, str(caught.value)
    assert said in places[place]


def test_what_is_searched_is_no_axis(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="either searched or gridded"):
        load(tmp_path, written("tpe", ("search:", "axes: {lr: [1e-4]}\nsearch:")))
    with pytest.raises(StudyError, match="one objective"):
        two = ("[{metric: psnr}]", "[{metric: psnr}, {metric: ssim}]")
        load(tmp_path, written("cmaes", two, ("metrics: [psnr]", "metrics: [psnr, ssim]")))


# --- the same history, the same next point ------------------------------------------------------


def measured(point: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """A landscape with an optimum inside of the space, and one number against it."""
    lpips = math.log(point.get("stages.stage1.loss.lpips", 1.0))
    steps = point["stages.stage1.steps"] / 100
    lr = point.get("stages.stage1.optimiser.lr", 0.0) * 1000
    bonus = 1.0 if point["stages.stage1.loss.pixel"] == "l1" else 0.0
    return {
        ("psnr", "photos-eval"): bonus - (lpips + 1) ** 2 - (steps - 0.5) ** 2 - (lr - 0.4) ** 2,
        ("ssim", "photos-eval"): lpips + steps,
    }


def asked(search: Search, count: int, at_once: int, *, again: bool) -> list[dict[str, Any]]:
    """The points of a search; `again` makes the asker anew, from JSON, before every question."""
    asker = Asker(search, search.start)
    past: list[Past] = []
    waiting: list[int] = []
    while len(past) < count:
        while len(waiting) < at_once and len(past) < count:
            if again:
                asker = Asker(search, search.start, past)
            one = asker.ask()
            kept = json.loads(json.dumps({"point": one.point, "sampler": one.sampler}))
            past.append(Past(**kept))
            waiting.append(one.number)
        number = waiting.pop(0)
        point = past[number].point
        came = ended(search, {} if number in (3, 7) else measured(point))
        asker.tell(number, came)
        past[number] = Past(point=point, sampler=past[number].sampler, ended=came)
    return [dict(one.point) for one in past]


@pytest.mark.slow  # imports Optuna, and torch for gp
@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "cmaes", "qmc", "random"])
@pytest.mark.parametrize("conditional", [False, True])
def test_an_asker_made_anew_asks_the_same(tmp_path: Path, sampler: str, conditional: bool) -> None:
    changes = [("metrics: [psnr]", "metrics: [psnr, ssim]")]
    if conditional:
        changes.append(("high: 1e-3}", "high: 1e-3, if: {stage1.loss.pixel: l1}}"))
    if sampler != "cmaes":
        changes.append(
            (
                "[{metric: psnr}]",
                '[{metric: psnr}, {metric: ssim}]\n  keep_if: [{metric: ssim, is: "> -1"}]',
            )
        )
    search = search_of(tmp_path, written(sampler, *changes))
    count = {"gp": 13, "nsga2": 55}.get(sampler, 16)
    for at_once in (1, 3):
        first = asked(search, count, at_once, again=False)
        assert first == asked(search, count, at_once, again=True)
        assert first[0] == search.start[0]
        assert all(search.narrowed(point) == point for point in first)


def test_a_grid_is_seen_whole_and_once(tmp_path: Path) -> None:
    text = written(
        "grid",
        ("    stage1.loss.lpips: {low: 0.05, high: 2, log: true}\n", ""),
        ("    stage1.optimiser.lr: {low: 1e-4, high: 1e-3}\n", ""),
        ("stage1.loss.lpips: 1, ", ""),
        ("lr: 2e-4, ", ""),
    )
    search = search_of(tmp_path, text.replace("trials: 8", "trials: 100"))
    assert most_trials(search, search.start) == 20
    points = asked(search, 20, 1, again=True)
    assert points[0] == search.start[0]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 20


def test_tpe_comes_nearer_than_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        search = search_of(tmp_path, written(sampler))
        points = asked(search, 40, 1, again=False)
        best[sampler] = max(measured(point)["psnr", "photos-eval"] for point in points)
    assert best["tpe"] > best["random"]
    assert best["tpe"] > 0.8  # of 1


def test_what_is_not_finite_or_not_measured_is_a_failure(tmp_path: Path) -> None:
    keep = ("trials: 8", 'trials: 8\n  keep_if: [{metric: psnr, is: ">= 20"}]')
    search = search_of(tmp_path, written("tpe", keep))
    key = ("psnr", "photos-eval")
    assert ended(search, {}).values is None
    assert ended(search, {key: math.nan}).values is None
    assert ended(search, {key: math.inf}).values is None
    assert ended(search, {key: 19.0}) == Ended(values=(19.0,), violations=(1.0,))
    assert not ended(search, {key: 19.0}).is_kept
    assert ended(search, {key: 21.0}).costs(search) == (-21.0,)


# --- fronts ---------------------------------------------------------------------------------------

Points = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 3), max_size=12)


@given(Points)
@settings(max_examples=60, deadline=None)
def test_a_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    best = front_of(points)
    for index, one in enumerate(points):
        beaten = any(dominates(other, one) for other in points)
        assert (index in best) == (not beaten)
    # Unit cubes counted one by one: coordinates are whole numbers.
    corner = (7.0, 7.0, 7.0)
    cubes = sum(
        any(all(a <= b for a, b in zip(one, cube, strict=True)) for one in points)
        for cube in ((x, y, z) for x in range(7) for y in range(7) for z in range(7))
    )
    assert hypervolume(points, corner) == cubes
    assert far_corner(points) == (
        tuple(map(max, *points)) if len(points) > 1 else (points or [()])[0]
    )


def test_a_search_is_flat_since_its_last_improvement() -> None:
    costs = [(3.0, 3.0), (2.0, 4.0), None, (3.0, 3.0), (4.0, 4.0)]
    assert since_improved(costs) == 3
    assert since_improved([*costs, (1.0, 9.0)]) == 0
    assert since_improved([]) == 0


# --- with the driver ------------------------------------------------------------------------------


def extender(study: StudyFile) -> Any:
    def extend(trials: Sequence[Trial], first: int = 1) -> Plan:
        return make_plan(study, data=DATA, trials=trials, first=first)

    return extend


def go(
    folder: Path, text: str, ledger: Ledger, watcher: Collected | None = None, **changes: Any
) -> RunSummary:
    study = load(folder, text)
    how = {"where": "inline", "preload": None, "backoff_s": 0.01, **changes}
    return run_study(
        make_plan(study, data=DATA),
        ledger,
        Settings(folder=folder / "runs", entry="execute_entries:run", **how),
        watcher or Collected(),
        provenance=PROVENANCE,
        extend=extender(study),
    )


def sequence(ledger: Ledger) -> list[dict[str, Any]]:
    return [dict(trial.point) for trial in ledger.searches.trials("small")]


def test_trials_are_ordinary_cells(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        summary = go(tmp_path, written("random"), ledger)
        assert (summary.failed, summary.done_before) == ((), 0)
        trials = ledger.searches.trials("small")
        assert [trial.number for trial in trials] == list(range(8))
        table = ledger.cells.results("small", columns=["cell", "state", "loss.lpips", "psnr"])
        assert [row[:2] for row in table.rows] == [(n, "done") for n in range(1, 9)]
        assert [row[2] for row in table.rows] == [
            trial.point["stages.stage1.loss.lpips"] for trial in trials
        ]
        assert all(row[3] is not None for row in table.rows)
        rows = ledger.query("select trial, cell from v_trial where study = 'small'").rows
        assert rows == tuple((n, n + 1) for n in range(8))
        again = go(tmp_path, written("random"), ledger)
        assert (again.finished, again.done_before) == (0, summary.tasks)
        # More trials, two at once: the same search goes on.
        before = sequence(ledger)
        more = written("random", ("trials: 8", "trials: 10\n  at_once: 2"))
        go(tmp_path, more, ledger)
        assert sequence(ledger)[:8] == before and len(sequence(ledger)) == 10
        # Another seed is another search; its first point is known, and not run again.
        other = go(tmp_path, written("random", ("trials: 8", "trials: 2\n  seed: 1")), ledger)
        assert len(sequence(ledger)) == 2
        assert other.finished == 2  # stage 1 and reconstruction of the second


def test_a_search_in_each_cell_of_the_grid(tmp_path: Path) -> None:
    text = written("random", ("search:", "axes: {c: [4, 16]}\nsearch:"), ("p: 4, c: 4", "p: 4"))
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        go(tmp_path, text, ledger)
        searches = ledger.searches.of("small")
        assert [dict(one.axes) for one in searches] == [{"tokenizer.c": 4}, {"tokenizer.c": 16}]
        assert len(ledger.searches.trials("small", [searches[0].key])) == 8
        rows = ledger.query("select c, count(*) from v_cell group by c order by c").rows
        assert rows == ((4, 8), (16, 8))


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    behave(tmp_path, stage1="error")
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        summary = go(tmp_path, written("random", ("trials: 8", "trials: 3")), ledger)
        assert len(summary.failed) == 3
        assert len(sequence(ledger)) == 3


def test_a_point_that_is_no_cell_is_refused_and_the_search_goes_on(tmp_path: Path) -> None:
    text = written(
        "grid",
        ("    stage1.loss.lpips: {low: 0.05, high: 2, log: true}\n", "    p: [4, 5, 8]\n"),
        ("    stage1.optimiser.lr: {low: 1e-4, high: 1e-3}\n", ""),
        ("    stage1.steps: {low: 10, high: 100, step: 10}\n", ""),
        ("    - {stage1.loss.lpips: 1, stage1.loss.pixel: l1, lr: 2e-4, stage1.steps: 50}\n", ""),
        ("  start_with:\n", ""),
        ("p: 4, c: 4", "c: 4"),
    )
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        go(tmp_path, text, ledger)
        trials = ledger.searches.trials("small")
        assert len(trials) == 6  # the whole grid; the search asked for 8
        refused = [trial for trial in trials if trial.why_not]
        assert [trial.point["tokenizer.p"] for trial in refused] == [5, 5]
        assert "32" in refused[0].why_not
        go(tmp_path, text, ledger)
        assert len(ledger.searches.trials("small")) == 6


def test_a_search_starts_with_finished_cells_of_another_study(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        go(tmp_path, written("random", ("study: small", "study: first")), ledger)
        second = written("random", ("  start_with:\n", "  start_with:\n    - {study: first}\n"))
        summary = go(tmp_path, second.replace("seed: 0", "seed: 0"), ledger)
        first = [dict(trial.point) for trial in ledger.searches.trials("first")]
        # The point of the file comes first; it is one of theirs. Nothing had to be run.
        assert sequence(ledger) == first
        assert summary.finished == 0
        with pytest.raises(UsageError, match="does not know"):
            third = second.replace("study: first", "study: nowhere").replace(
                "study: small", "study: third"
            )
            go(tmp_path, third, ledger)


def test_a_search_ends_when_it_is_flat_or_has_taken_its_hours(tmp_path: Path) -> None:
    with open_ledger(str(tmp_path / "results.db")) as ledger:
        watcher = Collected()
        flat = written("random", ("trials: 8", "trials: 200\n  stop: {flat: 4}"))
        go(tmp_path, flat, ledger, watcher)
        asked_so_far = len(sequence(ledger))
        assert 5 <= asked_so_far < 200
        assert any("4 trials in a row have improved nothing" in said for said in watcher.notices)
        values = {row[0]: row[1] for row in ledger.query("select cell, psnr from v_cell").rows}
        best = max(values, key=lambda cell: values[cell])
        assert best == asked_so_far - 4
        hours = written("random", ("trials: 8", "trials: 200\n  stop: {hours: 1e-9}"))
        behave(tmp_path, stage1="done")
        go(tmp_path, hours, ledger)
        assert len(sequence(ledger)) == asked_so_far  # attempts of the tests take no time


class _Dies(Collected):
    """A watcher by which the driver dies at some moment."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left_to_live = after

    def _age(self) -> None:
        self.left_to_live -= 1
        if self.left_to_live == 0:
            raise KeyboardInterrupt

    def notice(self, text: str) -> None:
        self._age()

    def submitted(self, task: Any, attempt: int) -> None:
        self._age()

    def ended(self, task: Any, outcome: Any, *, retry_in_s: float | None) -> None:
        self._age()


@pytest.mark.parametrize("sampler", ["random", pytest.param("tpe", marks=pytest.mark.slow)])
def test_a_driver_that_dies_at_any_moment_asks_the_same(tmp_path: Path, sampler: str) -> None:
    text = written(sampler, ("trials: 8", "trials: 13"))
    with open_ledger(str(tmp_path / "whole.db")) as ledger:
        go(tmp_path, text, ledger)
        whole = sequence(ledger)
    draw = random.Random(3)
    with open_ledger(str(tmp_path / "torn.db")) as ledger:
        torn = tmp_path / "torn"
        for _ in range(8):
            try:
                go(torn, text, ledger, _Dies(draw.randint(1, 14)))
            except KeyboardInterrupt:
                continue
        go(torn, text, ledger)
        assert sequence(ledger) == whole
        numbers = [trial.number for trial in ledger.searches.trials("small")]
        assert numbers == list(range(13))
        done = ledger.query("select count(*) from v_cell where state = 'done'").rows
        assert done == ((13,),)


_SCRIPT = """
import sys
from pathlib import Path
from test_search import go, written
from sweepctl.ledger import open_ledger
folder, at_once, trials = Path(sys.argv[1]), *sys.argv[2:4]
text = written("tpe", ("trials: 8", f"trials: {trials}\\n  at_once: {at_once}"))
with open_ledger(str(folder / "results.db")) as ledger:
    where = "inline" if at_once == "1" else "local"
    go(folder, text, ledger, where=where, workers=int(at_once))
"""


@pytest.mark.slow  # worker processes, killed three times
@pytest.mark.parametrize(("at_once", "count"), [(1, 20), (2, 12)])
def test_a_search_killed_three_times_loses_and_doubles_nothing(
    tmp_path: Path, at_once: int, count: int
) -> None:
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    for folder in (whole := tmp_path / "whole", torn := tmp_path / "torn"):
        folder.mkdir()
    command = [sys.executable, "-c", _SCRIPT]
    if at_once == 1:
        subprocess.run([*command, str(whole), "1", "20"], env=environment, check=True, timeout=200)
    draw = random.Random(at_once)
    for _ in range(3):
        driver = subprocess.Popen([*command, str(torn), str(at_once), str(count)], env=environment)
        wanted = _count(torn) + draw.randint(2, count // 4)
        deadline = time.monotonic() + 100
        while _count(torn) < wanted and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    subprocess.run(
        [*command, str(torn), str(at_once), str(count)], env=environment, check=True, timeout=200
    )
    with open_ledger(str(torn / "results.db")) as ledger:
        after = ledger.searches.trials("small")
        assert [trial.number for trial in after] == list(range(count))
        done = "select count(*) from v_cell where state = 'done'"
        assert ledger.query(done).rows == ((count,),)
        doubled = (
            "select max(n) from (select count(*) as n from v_cell_task "
            "where stage = 'stage1' group by task) as counted"
        )
        assert ledger.query(doubled).rows == ((1,),)
        if at_once == 1:
            with open_ledger(str(whole / "results.db")) as other:
                assert sequence(ledger) == sequence(other)


def _count(folder: Path) -> int:
    if not (folder / "results.db").exists():
        return 0
    try:
        with open_ledger(str(folder / "results.db"), create=False, read_only=True) as ledger:
            return len(ledger.searches.trials("small"))
    except Exception:  # noqa: BLE001  # being made just now
        return 0


# --- what was found -------------------------------------------------------------------------------


def say(*words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> tuple[int, str, str]:
    from sweepctl.cli import main

    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["sweepctl", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), *capsys.readouterr()


def test_optunas_tables_go_into_no_file_that_holds_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_ledger("results.db") as ledger:
        go(tmp_path, written("random"), ledger)
    open_ledger("other.db").close()
    Path("linked.db").symlink_to("results.db")
    Path("notes.txt").write_text("the notes of a year")
    Path("folder").mkdir()
    before = {name: Path(name).read_bytes() for name in ("results.db", "other.db", "notes.txt")}
    for file, reason in (
        ("results.db", "results.db holds sweepctl's own results"),
        ("linked.db", "linked.db holds sweepctl's own results"),
        ("other.db", "other.db holds sweepctl's own results"),
        ("notes.txt", "it does not begin like a SQLite database"),
        ("folder", "is a folder"),
    ):
        words = ("export", "small", "--optuna", file)
        code, out, err = say(*words, monkeypatch=monkeypatch, capsys=capsys)
        assert (code, out) == (2, "") and reason in err
        assert "hint: choose another file with --optuna" in err and "run again" not in err
    assert {name: Path(name).read_bytes() for name in before} == before


@pytest.mark.slow  # Optuna's file, figures; test_docs.py runs the commands by default
def test_the_best_and_the_front_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from functools import partial

    ask = partial(say, monkeypatch=monkeypatch, capsys=capsys)
    monkeypatch.chdir(tmp_path)
    with open_ledger("results.db") as ledger:
        go(tmp_path, written("random"), ledger)
        values = [row[0] for row in ledger.query("select psnr from v_cell order by cell").rows]
    code, out, err = ask("search", "small", "--best", "--format", "json")
    (best,) = json.loads(out)
    assert code == 0 and "8 trials, 8 measured" in err
    assert best["psnr"] == max(values) and best["trial"] == values.index(max(values))
    code, out, _ = ask("search", "small", "--trials", "--where", "psnr > 0.5", "--columns", "trial")
    assert [int(line) for line in out.split()[1:]] == [
        number for number, value in enumerate(values) if value > 0.5
    ]
    code, out, _ = ask("search", "small", "--figures", "none", "--json")
    (found,) = json.loads(out)["searches"]
    assert found["best"][0]["trial"] == best["trial"]
    assert found["growth"][-1][1] == max(values)
    assert sum(found["importances"]["psnr"].values()) == pytest.approx(1.0)
    assert ask("search", "small", "--best", "--pareto")[0] == 2
    code, out, _ = ask("export", "small", "--optuna", "search.db")
    assert code == 0 and Path("search.db").stat().st_size > 0
    assert ask("export", "small", "--optuna", "search.db", "-o", "a.csv")[0] == 2
    # A study without a search says so.
    with open_ledger("results.db") as ledger:
        go_grid(tmp_path, ledger)
    for command in (("search", "grid", "--best"), ("search", "grid")):
        code, _, err = ask(*command)
        assert code == 2 and "is a grid" in err


def go_grid(folder: Path, ledger: Ledger) -> None:
    study = load(folder, SMALL.replace("study: small", "study: grid"))
    how = Settings(
        folder=folder / "runs", where="inline", entry="execute_entries:run", preload=None
    )
    run_study(make_plan(study, data=DATA), ledger, how, Collected(), provenance=PROVENANCE)


@pytest.mark.slow  # Optuna's file, figures; test_docs.py runs the commands by default
def test_a_front_of_two_objectives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from functools import partial

    ask = partial(say, monkeypatch=monkeypatch, capsys=capsys)
    monkeypatch.chdir(tmp_path)
    text = written(
        "random",
        ("metrics: [psnr]", "metrics: [psnr, ssim]"),
        ("[{metric: psnr}]", "[{metric: psnr}, {metric: psnr, on: other-eval}]"),
        ("on: [photos-eval]", "on: [photos-eval, other-eval]"),
        ("trials: 8", 'trials: 12\n  keep_if: [{metric: psnr, is: ">= 0.3"}]'),
        ("metrics: [psnr, ssim]", "metrics: [psnr]"),
    )
    monkeypatch.setitem(DATA, "other-eval", DataSet(identity={"data": "other-eval"}, video=False))
    with open_ledger("results.db") as ledger:
        go(tmp_path, text, ledger)
        names = ["photos-eval", "other-eval"]
        asked = "select cell, value from v_metric where dataset = '{}' order by cell"
        first, second = (
            [row[1] for row in ledger.query(asked.format(name)).rows] for name in names
        )
    assert ask("search", "small", "--best")[0] == 2
    code, out, _ = ask("search", "small", "--pareto", "--format", "json")
    pairs = list(zip(first, second, strict=True))
    expected = {
        number
        for number, one in enumerate(pairs)
        if one[0] >= 0.3
        and not any(
            other[0] >= max(one[0], 0.3) and other[1] >= one[1] and other != one for other in pairs
        )
    }
    rows = json.loads(out)
    assert {row["trial"] for row in rows} == expected
    assert all(row["kept"] for row in rows)
    code, _, err = ask("search", "small", "--figures", "svg")
    assert code == 0 and "figure: runs/figures/small-search.svg" in err
    drawn = Path("runs/figures/small-search.svg").read_text()
    assert "hypervolume of the front so far" in drawn and "misses a condition" in drawn


# --- Optuna's own storage -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        with cluster() as url:
            yield url
    except NoPostgres as error:
        pytest.skip(str(error))


def pasts(search: Search, trials: Sequence[TrialRecord]) -> list[Past]:
    return [
        Past(
            point=trial.point,
            sampler=trial.sampler,
            ended=ended(search, {("psnr", "photos-eval"): float(trial.number)})
            if trial.number
            else Ended(values=None),
        )
        for trial in trials
    ]


@pytest.mark.slow  # a PostgreSQL server, and Optuna's tables in it
def test_one_postgres_holds_the_ledger_and_optunas_tables(tmp_path: Path, server: str) -> None:
    import optuna

    text = written("tpe")
    url = server.replace("postgresql://", "postgresql+psycopg://")
    with open_ledger(server) as ledger:
        go(tmp_path, text, ledger)
        search = search_of(tmp_path, text)
        trials = pasts(search, ledger.searches.trials("small"))
        for _ in range(2):  # the second time it is replaced
            assert export(search, trials, name="small", url=url) == 8
    with open_ledger(server) as ledger:  # opens, and goes on
        go(tmp_path, written("tpe", ("trials: 8", "trials: 9")), ledger)
        assert len(sequence(ledger)) == 9
        storage = optuna.storages.RDBStorage(url)
        study = optuna.load_study(study_name="small", storage=storage)
        assert [trial.params for trial in study.trials] == sequence(ledger)[:8]
        assert study.best_value == 7.0
        assert study.trials[0].state == optuna.trial.TrialState.FAIL
        storage.engine.dispose()
