"""Execution of a study: the driver submits what is ready, records, retries, resumes.

The graph lives in the ledger; the pool only runs attempts. The loop submits no more than the free
slots can start, records every outcome in one transaction, and blocks only the descendants of what
failed. Starting again after anything (a kill, a crash, an edited study) is the normal way to
continue: results found on disk are adopted, attempts that a dead driver left behind are closed, and
a training resumes from its last checkpoint.

    _settings   settings, events and summary of a run    _lock       one driver per run folder
    _driver     the loop                                 _searching  trials of a search meanwhile
    _identity   which search it is                       _placement  which task starts next
    _ready      what workers see before it begins        _ranks      how many processes a task gets
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from sweepctl.errors import RunFolderError, StudyError, TasksFailed
from sweepctl.execute._driver import Driver
from sweepctl.execute._lock import driver_lock
from sweepctl.execute._ready import Check, checks
from sweepctl.execute._searching import Searching
from sweepctl.execute._settings import Extend, RunSummary, Settings, Watcher
from sweepctl.ledger import Ledger, Submission
from sweepctl.paper import reference_edition, reference_rows
from sweepctl.plan import Plan
from sweepctl.runs import NOT_ITS_FAULT

__all__ = [
    "Check",
    "Extend",
    "RunSummary",
    "Settings",
    "Watcher",
    "checks",
    "raise_for_failures",
    "run_study",
]


def run_study(
    plan: Plan,
    ledger: Ledger,
    settings: Settings,
    watcher: Watcher,
    *,
    provenance: Mapping[str, Any],
    argv: Sequence[str] = (),
    extend: Extend | None = None,
) -> RunSummary:
    """Record a plan and run every task of it that is not done.

    Args:
        plan: the plan.
        ledger: an open ledger.
        settings: how to run.
        watcher: who is told.
        provenance: what is kept with every attempt: "code" (hash of the code), "commit", "dirty"
            and "versions".
        argv: the command line, for the record.
        extend: makes the plan of trials; a study with a search needs it.

    Raises:
        StudyError: the study needs what this machine does not have.
        DriverBusy: another driver works in the run folder.
        RunFolderError: the run folder cannot be written, or the disk is full.
        UnreachableError: the cluster cannot be reached.
        LedgerError: the results database cannot be written.
    """
    if plan.absent:
        raise StudyError(list(plan.absent))
    with driver_lock(settings.folder):
        searching = None
        if plan.study.search is not None:
            if extend is None:
                raise ValueError("a study with a search is run with a way to plan its trials")
            searching = Searching(plan, ledger, extend)
            plan = searching.plan
        ledger.studies.record(plan, _submission(plan, provenance, argv))
        ledger.fits.keep_reference(reference_edition(), reference_rows)
        if searching is not None:
            searching.begin()
        try:
            return Driver(plan, ledger, settings, watcher, provenance, searching).run()
        except OSError as error:
            raise _disk_full(error) or error from None


def _submission(plan: Plan, provenance: Mapping[str, Any], argv: Sequence[str]) -> Submission:
    from sweepctl import __version__

    study = plan.study
    return Submission(
        text=study.text,
        resolved=study.study.model_dump(mode="json", by_alias=True),
        overrides=study.overrides,
        argv=tuple(argv),
        question=study.study.question,
        git_commit=provenance.get("commit") or "",
        git_dirty=bool(provenance.get("dirty")),
        version=__version__,
    )


def raise_for_failures(summary: RunSummary) -> None:
    """Turn failed tasks of a run into the error that the command line reports.

    Raises:
        TasksFailed: some task failed for good.
    """
    if not summary.failed:
        return
    lines = [
        f"{task}: {failure}: {message}\n    log: {log}"
        for task, failure, message, log in summary.failed
    ]
    waiting = f", {summary.blocked} more wait for them" if summary.blocked else ""
    by_itself = all(failure in NOT_ITS_FAULT for _, failure, _, _ in summary.failed)
    raise TasksFailed(
        f"{len(lines)} of {summary.tasks} tasks failed{waiting}\n  " + "\n  ".join(lines),
        hint="fix the cause and rerun: these are tried again by themselves"
        if by_itself
        else f"fix the cause, then `sweepctl retry {summary.study}` and rerun",
    )


def _disk_full(error: OSError) -> RunFolderError | None:
    """The error to show for a full disk met outside of a task, or None for other errors."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return RunFolderError(
        "the disk is full", hint="free some space and run the same command again; nothing is lost"
    )
