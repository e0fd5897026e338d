"""What does a search cost beside its trials? python bench/search.py

Milliseconds of one more trial after 10, 100, 1,000 and 5,000 finished ones: asked and told by
sweepctl (its sampler in memory; then with the plan of the trial and its record in the ledger, as
the driver does it), made anew after a restart, by Optuna with its own SQLite storage, and by Optuna
with none, which is what the sampler alone takes. The same space of four settings, tpe and random.
The median of a few, each after the other in one process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna

from sweepctl.datasets import data_identities
from sweepctl.ledger import SearchRecord, Submission, TrialRecord, open_ledger
from sweepctl.plan import Trial, make_plan
from sweepctl.search import Asker, Ended, Past, export, frozen
from sweepctl.search._asking import directions
from sweepctl.study import Search, StudyFile, load_study

SIZES = (10, 100, 1_000, 5_000)
REPEATS = 5

STUDY = """\
format: 1
study: bench
search:
  sampler: SAMPLER
  trials: 10000
  space:
    stage1.loss.lpips: {low: 0.05, high: 2, log: true}
    stage1.loss.pixel: [l1, l2]
    stage1.optimiser.lr: {low: 1e-4, high: 1e-3}
    stage1.steps: {low: 100, high: 1000}
  objectives: [{metric: psnr}]
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano, p: 4, c: 4}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr]}
"""


def milliseconds(what: Callable[[], object]) -> float:
    took = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        what()
        took.append((time.perf_counter() - started) * 1e3)
    return statistics.median(took)


def value(point: dict[str, object]) -> float:
    return -((float(point["stages.stage1.loss.lpips"]) - 0.3) ** 2)  # type: ignore[arg-type]


def history(search: Search, count: int) -> list[Past]:
    """Finished trials, drawn at random."""
    drawn = Asker(search_like(search, "random"))
    past = []
    for _ in range(count):
        one = drawn.ask()
        past.append(Past(point=one.point, ended=Ended(values=(value(one.point),))))
    return past


def search_like(search: Search, sampler: str) -> Search:
    from dataclasses import replace

    return replace(search, sampler=sampler)  # type: ignore[arg-type]


def in_sqlite(search: Search, folder: Path) -> str:
    """Optuna's own storage in a file that is there for all sizes."""
    url = f"sqlite:///{folder}/optuna.db"
    if not (folder / "optuna.db").exists():
        export(search, (), name="bench", url=url)
    return url


def in_memory(search: Search) -> optuna.storages.InMemoryStorage:
    """No storage at all: what is left is the sampler."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="bench", storage=storage, directions=directions(search))
    return storage


def with_optuna(
    search: Search, past: list[Past], storage: str | optuna.storages.InMemoryStorage
) -> float:
    """One ask and tell by Optuna alone, with a storage that is filled up to the history."""
    filled = optuna.load_study(study_name="bench", storage=storage)
    filled.add_trials([frozen(search, one) for one in past[len(filled.trials) :]])
    samplers = optuna.samplers
    sampler = (
        samplers.TPESampler(seed=0, multivariate=True)
        if search.sampler == "tpe"
        else samplers.RandomSampler(seed=0)
    )
    study = optuna.load_study(study_name="bench", storage=storage, sampler=sampler)

    def one() -> None:
        trial = study.ask()
        point: dict[str, object] = {}
        for dim in search.space:
            if dim.kind == "choice":
                point[dim.path] = trial.suggest_categorical(dim.path, list(dim.choices))
            elif dim.kind == "int":
                point[dim.path] = trial.suggest_int(dim.path, int(dim.low), int(dim.high))
            else:
                point[dim.path] = trial.suggest_float(dim.path, dim.low, dim.high, log=dim.log)
        study.tell(trial, value(point))

    one()  # the first one reads the whole storage
    return milliseconds(one)


def with_ledger(study: StudyFile, search: Search, past: list[Past], folder: Path) -> float:
    """One ask and tell with its plan and its record, as the driver does it."""
    data = data_identities(None)
    asker = Asker(search, (), past)
    empty = make_plan(study, data=data, trials=())
    with open_ledger(str(folder / f"ledger-{search.sampler}-{len(past)}.db")) as ledger:
        ledger.studies.record(empty, Submission(text="", resolved={}))
        ledger.searches.begin("bench", [SearchRecord(key="k", position=0, axes={})])

        def one() -> None:
            asked = asker.ask()
            plan = make_plan(study, data=data, trials=[Trial(axes={}, values=asked.point)])
            record = TrialRecord(
                search="k",
                number=asked.number,
                point=asked.point,
                cell=plan.placed[0].key,
                sampler=asked.sampler,
            )
            ledger.searches.add_trial(plan, record)
            asker.tell(asked.number, Ended(values=(value(asked.point),)))

        one()
        return milliseconds(one)


def main() -> None:
    warnings.simplefilter("ignore")
    print(
        "ms a trial   finished   sampler   in memory   with plan and ledger   Optuna SQLite"
        "   rebuilt"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in SIZES:
            past: list[Past] = []
            for sampler in ("random", "tpe"):
                file = folder / "study.yaml"
                file.write_text(STUDY.replace("SAMPLER", sampler), encoding="utf-8")
                study = load_study(file, overrides=(), datasets=data_identities(None))
                search = study.search
                assert search is not None
                past = past or history(search, size)
                started = time.perf_counter()
                asker = Asker(search, (), past)
                rebuilt = (time.perf_counter() - started) * 1e3

                def one(asker: Asker = asker) -> None:
                    asked = asker.ask()
                    asker.tell(asked.number, Ended(values=(value(asked.point),)))

                one()
                memory = milliseconds(one)
                kept = with_ledger(study, search, past, folder)
                own = with_optuna(search, past, in_sqlite(search, folder))
                alone = with_optuna(search, past, in_memory(search))
                print(
                    f"{sampler:<10}{size:>11,}{alone:>10.1f}{memory:>12.1f}{kept:>23.1f}{own:>16.1f}"
                    f"{rebuilt:>10.0f}   {own / memory:.1f} x and {own / kept:.1f} x less",
                    flush=True,
                )


if __name__ == "__main__":
    main()
