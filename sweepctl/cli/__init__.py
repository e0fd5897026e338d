"""The command line: one file per command, named after it.

stdout is data, stderr everything else. In a pipe tables are tab-separated and nothing is cut.
Exit codes: 0 done, 1 error, 2 usage, 3 invalid study, 4 some tasks failed, 5 cluster or database
unreachable, 75 another driver works in the run folder, 130 Ctrl-C.

Only typer and this package are imported at start; a command imports what it needs.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Annotated, TextIO

import typer

from sweepctl.cli import _data, _db, _weights
from sweepctl.cli._check import check
from sweepctl.cli._compare import compare
from sweepctl.cli._contours import contours
from sweepctl.cli._correlate import correlate
from sweepctl.cli._doctor import doctor
from sweepctl.cli._export import export
from sweepctl.cli._fit import fit
from sweepctl.cli._fit_table import fit_table
from sweepctl.cli._frontier import frontier
from sweepctl.cli._init import init
from sweepctl.cli._logs import logs
from sweepctl.cli._options import Db, Runs
from sweepctl.cli._output import say
from sweepctl.cli._parsing import Command, Commands
from sweepctl.cli._plan import plan
from sweepctl.cli._plot import plot
from sweepctl.cli._query import query
from sweepctl.cli._report import report
from sweepctl.cli._results import results
from sweepctl.cli._retry import retry
from sweepctl.cli._run import run
from sweepctl.cli._schema import schema
from sweepctl.cli._search import search
from sweepctl.cli._session import Places, settle
from sweepctl.cli._show import show
from sweepctl.cli._spec import spec
from sweepctl.cli._status import status
from sweepctl.cli._suggest import suggest
from sweepctl.cli._ui import ui
from sweepctl.errors import SweepctlError
from sweepctl.secrets import hidden, known, passwords

COMMANDS: tuple[Callable[..., None], ...] = (
    *(init, check, schema, plan, suggest, show, spec, doctor, run, status, logs, retry),
    *(results, query, ui, report, plot, export),
    *(fit, fit_table, search, correlate, frontier, contours, compare),
)
"""The commands in the order of the help; each is in the file of its name."""

GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "db": ("Manage the results database.", {"upgrade": _db.upgrade, "views": _db.views}),
    "weights": (
        "Manage the pretrained files that metrics and losses need.",
        {
            "list": _weights.list_files,
            "fetch": _weights.fetch,
            "add": _weights.add,
            "verify": _weights.verify,
        },
    ),
    "data": (
        "Manage the data sets that studies name.",
        {"list": _data.list_datasets, "scan": _data.scan, "show": _data.show},
    ),
}
"""Group -> what it is about, and its commands; each group is in the file of its name."""

app = typer.Typer(
    name="sweepctl",
    cls=Commands,
    help="Run scaling-law studies of visual tokenizers: one file in, runs, SQL and laws out.",
    epilog=(
        "Start with: sweepctl init my-study.yaml; sweepctl plan my-study.yaml; "
        "sweepctl run my-study.yaml; sweepctl fit my-study"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command(cls=Command)(_command)
for _name, (_about, _commands) in GROUPS.items():
    _group = typer.Typer(help=_about, rich_markup_mode=None, no_args_is_help=True)
    for _word, _command in _commands.items():
        _group.command(_word, cls=Command)(_command)
    app.add_typer(_group, name=_name)

_OUTPUT_FAILS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _version(show: bool) -> None:
    if show:
        from sweepctl import __version__

        typer.echo(f"sweepctl {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    db: Db = None,
    runs: Runs = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Settle what holds for every command."""
    if db is not None and passwords([db]):
        say(
            "warning: --db holds a password, which lists of processes and the shell's history "
            "show; set SWEEPCTL_DB instead, or leave it out and write it into ~/.pgpass"
        )
    settle(Places(db=db, runs=runs))


def main() -> None:
    """Run the command line; errors we can explain become one message and an exit code."""
    stdout = sys.stdout
    code: str | int | None = 0
    try:
        try:
            app()
        except SystemExit as ended:
            code = ended.code
            if _was_interrupted(ended):
                sys.stderr.write("stopped by Ctrl-C\n")
        finally:
            sys.excepthook = _unexpected  # only now: typer puts its own in place
        stdout.flush()  # here a failure can be explained, at exit it cannot
    except SweepctlError as error:
        sys.stderr.write(f"error: {_without_secrets(str(error))}\n")
        code = error.exit_code
    except OSError as error:
        if error.errno not in _OUTPUT_FAILS or error.filename is not None:
            raise
        code = 0
        if error.errno != errno.EPIPE:
            sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
            code = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # for the flush at exit
    if sys.stdout is not stdout and _nobody_reads(stdout):
        code = 0  # typer has met the broken pipe before us and calls it a failure
    sys.exit(code)


def _without_secrets(text: str) -> str:
    return hidden(text, known(os.environ, sys.argv))


def _unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of a bug of ours as Python does, but without secrets."""
    sys.stderr.write(_without_secrets("".join(traceback.format_exception(kind, error, trace))))


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what ended a command that has no word of its own for it, as `run` has."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _nobody_reads(stdout: TextIO) -> bool:
    """Whether stdout is a pipe whose reader has gone (`| head` has seen enough)."""
    poll = select.poll()
    poll.register(stdout, 0)
    return bool(poll.poll(0))
