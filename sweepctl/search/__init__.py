"""The next point of a search: Optuna's samplers over the ledger's own rows.

The only importer of Optuna. There is one truth, the ledger: which points were asked, in which
order, and what their cells measured. From that an `Asker` is made, here in memory, and asked; the
driver records each answer, runs it as an ordinary cell and reports its result. After a restart the
same history gives the same next point. Optuna's own storage is only written, for other tools.

    _asking     from a history to the next point       _front      hypervolume, stagnation
    _pruning    which trial is promoted from a rung
    _summary    what a search has found; trials as Optuna's storage
"""

from __future__ import annotations

from sweepctl.search._asking import (
    Asked,
    Asker,
    Ended,
    Past,
    chosen_by,
    ended,
    frozen,
    grid,
    most_trials,
)
from sweepctl.search._front import far_corner, hypervolume, since_improved
from sweepctl.search._pruning import TrialProgress, best_waiting, promoted
from sweepctl.search._summary import Found, export, summarise

__all__ = [
    "Asked",
    "Asker",
    "Ended",
    "Found",
    "Past",
    "TrialProgress",
    "best_waiting",
    "chosen_by",
    "ended",
    "export",
    "far_corner",
    "frozen",
    "grid",
    "hypervolume",
    "most_trials",
    "promoted",
    "since_improved",
    "summarise",
]
