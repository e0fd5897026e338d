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

from sweepctl.cli import (
    _asking,
    _comparing,
    _data,
    _fitting,
    _looking,
    _planning,
    _reading,
    _relating,
    _running,
    _searching,
    _sharing,
    _showing,
    _spec,
    _suggesting,
    _weights,
)
from sweepctl.cli._options import (
    Db,
    File,
    Format,
    Json,
    Name,
    Runs,
    Sets,
    TaskPrefix,
)
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
pretrained = typer.Typer(
    help="Look after the pretrained files that metrics and losses need.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(pretrained, name="weights")
datasets = typer.Typer(
    help="Look after the data sets that studies name.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(datasets, name="data")

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
    _asking.init(file)


@app.command()
def check(file: File, overrides: Sets = None) -> None:
    """Check a study file; every mistake comes with file:line:column.

    Example: sweepctl check studies/quickstart.yaml
    """
    _asking.check(file, overrides or ())


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors.

    Example: sweepctl schema > study.schema.json
    """
    _asking.schema()


app.command()(_planning.plan)
app.command()(_suggesting.suggest)


@app.command()
def show(
    point: Annotated[
        list[str],
        typer.Argument(
            metavar="POINT...",
            help="STUDY/7, STUDY p=8 c=16, a task's id; or a study file. A metric may follow.",
        ),
    ],
    cell: Annotated[
        int | None, typer.Option("--cell", "-c", min=1, help="Number of the cell.")
    ] = None,
    overrides: Sets = None,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Show where a point comes from: its tasks, files with SHA-256, commands, config, other uses.

    Of a study file, which was perhaps never run: a cell's config and where each value came from.

    Example: sweepctl show quickstart p=8 c=16
    """
    _showing.show(point, cell, overrides or (), db, runs, as_json=as_json)


app.command()(_spec.spec)


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
    tracker: Annotated[
        list[str] | None,
        typer.Option("--tracker", help="Tell tensorboard, wandb or trackio, too; can be repeated."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors and results only.")] = False,
) -> None:
    """Run a study, or go on with it: only what is not done yet is run.

    Example: sweepctl run studies/quickstart.yaml
    """
    _running.run(
        file,
        overrides or (),
        db,
        runs,
        where=cluster,
        workers=workers,
        threads=threads,
        device=device,
        fail_fast=fail_fast,
        trackers=tracker or (),
        quiet=quiet,
    )


@app.command()
def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study's name.")] = None,
    fits: Annotated[
        bool, typer.Option("--fits", help="The laws so far, and finished cells that surprise them.")
    ] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="What the laws so far expect of unfinished cells.")
    ] = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Show how far studies are: cells by stages, time left, what failed and where its log is.

    Example: sweepctl status quickstart --fits
    """
    _looking.status(study, db, runs, fits=fits, predict=predict, as_json=as_json)


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
    _looking.logs(task, db, runs, follow=follow, tail=tail, attempt=attempt)


@app.command()
def why(task: TaskPrefix, db: Db = None, as_json: Json = False) -> None:
    """Say what a task is, how it stands, and how it differs from the nearest recorded one.

    Example: sweepctl why stage1-0f3a
    """
    _looking.why(task, db, as_json=as_json)


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
    _looking.retry(what, db)


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
    trials: Annotated[
        bool, typer.Option("--trials", help="Of a search: its trials, as they were asked.")
    ] = False,
    best: Annotated[bool, typer.Option("--best", help="Of a search: its best trial.")] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Of a search: the trials that no other one beats.")
    ] = False,
    form: Format = "table",
    db: Db = None,
) -> None:
    """Print a study's results, one row a cell.

    Example: sweepctl results quickstart --where "p = 8 and E >= 256" --sort=-psnr
    """
    _reading.results(
        study,
        db,
        where=where,
        columns=columns,
        sort=sort,
        form=form,
        trials=trials,
        best=best,
        pareto=pareto,
    )


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

    Views: v_cell, v_cell_task, v_task, v_metric, v_cost, v_lineage, v_fit, v_trial,
    v_reference. Their columns: `sweepctl db views`.

    Example: sweepctl query "select p, c, E, psnr from v_cell where study = 'quickstart'"
    """
    _reading.query(sql, db, form=form, limit=limit)


app.command()(_sharing.ui)
app.command()(_sharing.report)
app.command()(_sharing.plot)
app.command()(_sharing.export)
app.command()(_fitting.fit)
app.command()(_searching.search)
app.command()(_relating.correlate)
app.command()(_relating.frontier)
app.command()(_relating.contours)


app.command()(_comparing.compare)


@database.command("upgrade")
def upgrade(db: Db = None) -> None:
    """Bring the database to the newest schema; a SQLite file is copied before.

    Example: sweepctl db upgrade --db postgresql://host/results
    """
    _reading.upgrade(db)


@database.command("views")
def views(as_json: Json = False) -> None:
    """Print the views and what their columns mean.

    Example: sweepctl db views
    """
    _reading.views(as_json=as_json)


WeightsName = Annotated[str, typer.Argument(metavar="NAME", help="A name of `weights list`.")]


@pretrained.command("list")
def weights_list(as_json: Json = False) -> None:
    """Print every pretrained file: whether it is here, where from, size, licence.

    Example: sweepctl weights list
    """
    _weights.show(as_json=as_json)


@pretrained.command("fetch")
def weights_fetch(name: WeightsName) -> None:
    """Download a file from its publisher, check it, and print where it is kept.

    SWEEPCTL_OFFLINE=1 forbids it. A file that is here already is checked only.

    Example: sweepctl weights fetch lite0
    """
    _weights.fetch(name)


@pretrained.command("add")
def weights_add(
    name: WeightsName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy of the pinned file.")],
) -> None:
    """Check a file that was got elsewhere, copy it, and print where it is kept.

    Example: sweepctl weights add lite0 efficientnet-lite0-57934424.pth
    """
    _weights.add(name, file)


@pretrained.command("verify")
def weights_verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All that are here by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the files that are here and compare their SHA-256 with the pinned ones.

    Example: sweepctl weights verify
    """
    _weights.verify(names or (), as_json=as_json)


DataName = Annotated[
    str, typer.Argument(metavar="NAME", help="A data set under `datasets:` in the site file.")
]


@datasets.command("list")
def data_list(as_json: Json = False) -> None:
    """Print every data set that a study can name here: built-in ones and your own.

    Example: sweepctl data list
    """
    _data.show_all(as_json=as_json)


@datasets.command("scan")
def data_scan(
    name: DataName,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=256, help="Files read at the same time.")
    ] = 4,
    as_json: Json = False,
) -> None:
    """List and hash a data set, or what has changed of it, so that studies can name it.

    Reads every file once. When it is interrupted, the next scan goes on.

    Example: sweepctl data scan imagenet-train
    """
    _data.scan(name, threads, as_json=as_json)


@datasets.command("show")
def data_show(name: DataName, as_json: Json = False) -> None:
    """Print what the last scan of a data set found, and what it left out.

    Example: sweepctl data show imagenet-train
    """
    _data.show(name, as_json=as_json)


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
