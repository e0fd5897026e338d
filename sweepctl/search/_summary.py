"""What a search has found: the front, how it grew, which settings matter; trials for other tools.

The hypervolume is that between the front and the worst value of each objective among all trials, so
it grows with every improvement and is compared within one search only. Importances are those of
PED-ANOVA: how far the best tenth of the trials differs, in one setting, from all of them.

`export` writes the trials to Optuna's own storage, for optuna-dashboard and similar tools. Nothing
reads it back: the ledger stays the truth. Optuna's tables have other names than sweepctl's, so one
PostgreSQL database can hold both.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.errors import LedgerError
from sweepctl.search._asking import Past, directions, frozen
from sweepctl.search._front import Costs, far_corner, hypervolume
from sweepctl.statistics import front_of
from sweepctl.study import Search

FEWEST = 4
"""Trials without which nothing is said of importances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search has found.

    Attributes:
        front: places of the trials that no other one beats, along the first objective; with one
            objective the best one alone.
        growth: (place of a trial, value after it) for every trial that counts: the best value so
            far with one objective, else the hypervolume of the front so far.
        importances: for each objective, path -> share of 1, the largest first; empty with too few
            trials.
    """

    front: tuple[int, ...]
    growth: tuple[tuple[int, float], ...]
    importances: tuple[dict[str, float], ...]


def summarise(search: Search, trials: Sequence[Past]) -> Found:
    """The front, growth and importances of a search, by its trials in their order."""
    kept: list[tuple[int, Costs]] = []
    for place, trial in enumerate(trials):
        costs = None if trial.ended is None else trial.ended.costs(search)
        if costs is not None:
            kept.append((place, costs))
    costs_of = [costs for _, costs in kept]
    best = sorted(front_of(costs_of), key=lambda index: costs_of[index])
    if len(search.objectives) == 1:
        best = best[:1]
    return Found(
        front=tuple(kept[index][0] for index in best),
        growth=tuple(_growth(search, kept)),
        importances=tuple(
            _importances(search, trials, index) for index in range(len(search.objectives))
        ),
    )


def _growth(search: Search, kept: Sequence[tuple[int, Costs]]) -> list[tuple[int, float]]:
    grown: list[tuple[int, float]] = []
    corner = far_corner([costs for _, costs in kept])
    held: list[Costs] = []
    for place, costs in kept:
        held.append(costs)
        held = [held[index] for index in front_of(held)]
        if len(search.objectives) > 1:
            grown.append((place, hypervolume(held, corner)))
        else:
            sign = 1.0 if search.objectives[0].minimise else -1.0
            grown.append((place, sign * held[0][0]))
    return grown


def _importances(search: Search, trials: Sequence[Past], objective: int) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sign = 1.0 if search.objectives[objective].minimise else -1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and meant for people at a notebook
        study = optuna.create_study(direction="minimize")
        for trial in trials:
            if trial.ended is not None and trial.ended.values is not None:
                made = frozen(search, trial)
                study.add_trial(
                    optuna.create_trial(
                        value=sign * trial.ended.values[objective],
                        params=made.params,
                        distributions=made.distributions,
                    )
                )
        if len(study.trials) < FEWEST:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {path: float(share) for path, share in found.items()}


def export(
    search: Search,
    trials: Sequence[Past],
    *,
    name: str,
    url: str,
    notes: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Write the trials of a search as one of Optuna's studies; one of that name is replaced.

    Args:
        search: the search.
        trials: its trials, in their order.
        name: what the study is called there.
        url: SQLAlchemy URL of the database, for example sqlite:///search.db.
        notes: what is written with each trial, for people.

    Returns:
        How many trials were written.

    Raises:
        LedgerError: the database cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, and meant for people at a notebook
        try:
            storage = optuna.storages.RDBStorage(url)
            if name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=name, storage=storage)
            study = optuna.create_study(
                storage=storage, study_name=name, directions=directions(search)
            )
            metrics = [f"{one.metric}@{one.dataset}" for one in search.objectives]
            study.set_metric_names(metrics)
            for index, trial in enumerate(trials):
                made = frozen(search, trial)
                for key, value in dict(notes[index] if notes else {}).items():
                    made.set_user_attr(key, value)
                study.add_trial(made)
        except Exception as error:  # whatever a driver or a server of another's making says
            if type(error).__module__.split(".")[0] not in ("sqlalchemy", "optuna", "psycopg"):
                raise
            said = str(error).splitlines()[0]
            raise LedgerError(f"Optuna's storage cannot be written: {said}") from error
        finally:
            if "storage" in locals():
                storage.engine.dispose()
    return len(trials)
