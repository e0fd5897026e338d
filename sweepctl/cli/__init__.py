"""How is it said? The command line: each command parses, makes one call and prints.

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
from pathlib import Path
from typing import Annotated, TextIO

import typer

from sweepctl.cli import _commands
from sweepctl.errors import SweepctlError

app = typer.Typer(
    name="sweepctl",
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
database = typer.Typer(
    help="Look after the results database.", rich_markup_mode=None, no_args_is_help=True
)
app.add_typer(database, name="db")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A study file.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study that was run.")]
FileOrName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study, or its file as it is now.")
]
TaskPrefix = Annotated[
    str, typer.Argument(metavar="TASK", help="A task's id, or the beginning of it.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Override a value; can be repeated."),
]
Db = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Results database: a path or URL. [SWEEPCTL_DB]"),
]
Runs = Annotated[
    Path | None, typer.Option("--runs", metavar="FOLDER", help="Run folder; by default runs/.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Format = Annotated[str, typer.Option("--format", "-f", help="table, csv or json.")]


_OUTPUT_FAILS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _version(asked: bool) -> None:
    if asked:
        from sweepctl import __version__

        typer.echo(f"sweepctl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options that stand before the command."""


@app.command()
def init(file: File) -> None:
    """Write a study to start from, with the schema for your editor.

    Example: sweepctl init studies/my-question.yaml
    """
    _commands.init(file)


@app.command()
def check(file: File, overrides: Sets = None) -> None:
    """Check a study file; every mistake comes with file:line:column.

    Example: sweepctl check studies/quickstart.yaml
    """
    _commands.check(file, overrides or ())


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors.

    Example: sweepctl schema > study.schema.json
    """
    _commands.schema()


@app.command()
def plan(file: File, overrides: Sets = None, db: Db = None, as_json: Json = False) -> None:
    """Show what a run would do and cost; writes nothing.

    Example: sweepctl plan studies/quickstart.yaml --set steps=800
    """
    _commands.plan(file, overrides or (), db, as_json=as_json)


@app.command()
def show(
    study: FileOrName,
    cell: Annotated[int, typer.Option("--cell", "-c", min=1, help="Number of the cell.")],
    overrides: Sets = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Show a cell's resolved config and where each value came from.

    Example: sweepctl show studies/quickstart.yaml --cell 1
    """
    _commands.show(study, cell, overrides or (), db, as_json=as_json)


@app.command()
def run(
    file: File,
    overrides: Sets = None,
    db: Db = None,
    runs: Runs = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="local, inline, or a Dask scheduler's tcp:// address."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", min=1, help="Worker processes.")
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors and results only.")] = False,
) -> None:
    """Run a study, or go on with it: only what is not done yet is run.

    Example: sweepctl run studies/quickstart.yaml
    """
    _commands.run(
        file,
        overrides or (),
        db,
        runs,
        where=cluster,
        workers=workers,
        threads=threads,
        device=device,
        fail_fast=fail_fast,
        quiet=quiet,
    )


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study's name.")] = None,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Show how far studies are: cells by stages, time left, what failed and where its log is.

    Example: sweepctl status quickstart
    """
    _commands.status(study, db, runs, as_json=as_json)


@app.command()
def logs(
    task: TaskPrefix,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the log grows, to its end.")
    ] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Last lines; 0 for all.")] = 100,
    attempt: Annotated[
        int | None, typer.Option("--attempt", "-a", min=1, help="Number; the newest by default.")
    ] = None,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Print a task's log.

    Example: sweepctl logs stage1-0f3a -f
    """
    _commands.logs(task, db, runs, follow=follow, tail=tail, attempt=attempt)


@app.command()
def why(task: TaskPrefix, db: Db = None, as_json: Json = False) -> None:
    """Say what a task is, how it stands, and how it differs from the nearest recorded one.

    Example: sweepctl why stage1-0f3a
    """
    _commands.why(task, db, as_json=as_json)


@app.command()
def retry(
    what: Annotated[
        str, typer.Argument(metavar="STUDY|TASK", help="A study, or the beginning of a task's id.")
    ],
    db: Db = None,
) -> None:
    """Give failed tasks another attempt; `sweepctl run` then makes it.

    Example: sweepctl retry quickstart
    """
    _commands.retry(what, db)


@app.command()
def results(
    study: Name,
    where: Annotated[
        str | None, typer.Option("--where", help="SQL condition over the columns.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns to print, comma-separated.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="Columns to sort by; a minus for descending.")
    ] = "E,p",
    form: Format = "table",
    db: Db = None,
) -> None:
    """Print a study's results, one row a cell.

    Example: sweepctl results quickstart --where "p = 8 and E >= 256" --sort=-psnr
    """
    _commands.results(study, db, where=where, columns=columns, sort=sort, form=form)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the views.")],
    form: Format = "table",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Most rows; more are cut, with a notice.")
    ] = 10_000,
    db: Db = None,
) -> None:
    """Ask the results database in SQL; it can only be read.

    Views: v_cell, v_cell_task, v_task, v_metric, v_cost, v_lineage, v_fit. Their columns:
    `sweepctl db views`.

    Example: sweepctl query "select p, c, E, psnr from v_cell where study = 'quickstart'"
    """
    _commands.query(sql, db, form=form, limit=limit)


@app.command()
def fit(
    study: FileOrName,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the figures; runs/figures by default.")
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Numbers only.")] = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Fit a study's laws, judge its claims, draw its figures.

    Example: sweepctl fit quickstart
    """
    _commands.fit(study, db, runs, out, draw=not no_figures, as_json=as_json)


@database.command("upgrade")
def upgrade(db: Db = None) -> None:
    """Bring the database to the newest schema; a SQLite file is copied before.

    Example: sweepctl db upgrade --db postgresql://host/results
    """
    _commands.upgrade(db)


@database.command("views")
def views(as_json: Json = False) -> None:
    """Print the views and what their columns mean.

    Example: sweepctl db views
    """
    _commands.views(as_json=as_json)


def main() -> None:
    """Run the command line; errors we can explain become one message and an exit code."""
    stdout = sys.stdout
    code: str | int | None = 0
    try:
        try:
            app()
        except SystemExit as ended:
            code = ended.code
        stdout.flush()  # here a failure can be explained, at exit it cannot
    except SweepctlError as error:
        sys.stderr.write(f"error: {error}\n")
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


def _nobody_reads(stdout: TextIO) -> bool:
    """Whether stdout is a pipe whose reader has gone (`| head` has seen enough)."""
    poll = select.poll()
    poll.register(stdout, 0)
    return bool(poll.poll(0))
