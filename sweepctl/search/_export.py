"""How do trials get into Optuna's own storage? Written whole, for optuna-dashboard and its kin.

Nothing reads it back: the ledger stays the truth. Optuna's tables have other names than sweepctl's,
so one PostgreSQL database can hold both.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sweepctl.errors import LedgerError
from sweepctl.search._asking import Past, directions, frozen
from sweepctl.study import Search


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
        notes: what stands beside each trial, for people.

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
