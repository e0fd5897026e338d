"""`run`: run a study, show its progress and print its results."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import File, Sets
from sweepctl.cli._output import give_table, notices, say
from sweepctl.cli._session import database, plan_file, planner, pool_settings
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.execute import Watcher
    from sweepctl.ledger import Ledger
    from sweepctl.plan import Plan


def run(
    file: File,
    overrides: Sets = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="local, inline, or a Dask scheduler's tcp:// address."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Slots: tasks of one GPU that run at once."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads of an attempt.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Start nothing new after a failure.")
    ] = False,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker", help="Also log to tensorboard, wandb or trackio; can be repeated."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors and results only.")] = False,
) -> None:
    """Run a study, or resume it: only what is not done yet is run.

    Example: sweepctl run studies/quickstart.yaml
    """
    from sweepctl import execute
    from sweepctl.cli._progress import LiveWatcher, PlainWatcher
    from sweepctl.ledger import open_ledger
    from sweepctl.tasks import software

    where = pool_settings(cluster, workers, threads, device)
    if tracker:
        from sweepctl.trackers import check_trackers

        check_trackers(tracker)
    made = plan_file(file, overrides or (), to_run=True)
    if not quiet:
        notices(made)
    how = made.study.study.run
    settings = dataclasses.replace(
        where,
        retries=how.retries,
        checkpoint_s=how.checkpoint_s,
        skip_non_finite=how.skip_non_finite,
        timeout_s=how.timeout_s,
        memory=how.memory,
        deterministic=how.deterministic,
        needs=how.gpus,
        fail_fast=fail_fast,
    )
    live = sys.stderr.isatty() and not quiet
    with open_ledger(database()) as ledger:
        for notice in ledger.notices:
            say(f"note: {notice}")
        provenance = software()
        with (
            LiveWatcher() if live else PlainWatcher(quiet=quiet) as shown,
            _tracked(shown, tracker or (), made.study_name, settings.folder) as watcher,
        ):
            summary = execute.run_study(
                made,
                ledger,
                settings,
                watcher,
                provenance=provenance,
                argv=sys.argv,
                extend=planner(made.study),
            )
        if summary.stopped_by is None and not summary.failed:
            _after_run(ledger, made, summary, quiet)
    _hint_of_run(summary, file, quiet)
    execute.raise_for_failures(summary)
    if summary.stopped_by is not None:
        sys.exit(128 + summary.stopped_by)


@contextlib.contextmanager
def _tracked(watcher: Watcher, names: Sequence[str], study: str, folder: Path) -> Iterator[Watcher]:
    """The watcher, or one around it that also logs to experiment trackers."""
    if not names:
        yield watcher
        return
    from sweepctl.cli._progress import TrackingWatcher
    from sweepctl.trackers import Trackers, quiet_environment

    quiet_environment()
    with contextlib.closing(Trackers(names, note=watcher.notice)) as trackers:
        yield TrackingWatcher(watcher, trackers, study, folder.absolute())


def _after_run(ledger: Ledger, made: Plan, summary: Any, quiet: bool) -> None:
    if summary.finished == 0 and summary.adopted == 0:
        if not quiet:
            say(f"nothing to do: all {summary.tasks} tasks of {made.study_name} are done")
        if summary.tasks > 200:
            return  # a long table that nobody requested would scroll everything away
    table = ledger.cells.results(made.study_name, sort="E,p")
    give_table(table.columns, table.rows, "table")


def _hint_of_run(summary: Any, file: Path, quiet: bool) -> None:
    if quiet:
        return
    if summary.stopped_by is not None:
        say(f"stopped; resume with: sweepctl run {shlex.quote(str(file))}")
        return
    if summary.finished:
        say(f"{many(summary.finished, 'task')} in {summary.seconds:.0f} s")
    if not summary.failed:
        say(f"next: sweepctl fit {summary.study}; sweepctl results {summary.study}")
