"""`doctor`: is everything there that runs need, on every machine?"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweepctl.cli._options import Json
from sweepctl.cli._output import give_json, give_table, say
from sweepctl.cli._session import database, plan_file, pool_settings
from sweepctl.errors import SweepctlError, UnreachableError
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.execute import Check


def doctor(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A study file.")] = None,
    as_json: Json = False,
) -> None:
    """Show what each worker of the site file sees: GPUs, disk, versions, data sets, weights.

    Example: sweepctl doctor studies/quickstart.yaml
    """
    from sweepctl import execute
    from sweepctl.cluster import open_pool

    made = None if file is None else plan_file(file, ())
    settings = pool_settings()
    database_is, code = _of_database(), 1
    if isinstance(database_is, UnreachableError):
        code = database_is.exit_code
    rows = [_row("database", database_is)]
    for problem in made.absent if made else ():
        rows.append(
            execute.Check(name="study", where="driver", state="wrong", said=problem.message)
        )
    # What this machine sees needs no worker processes.
    here = settings.where in ("local", "inline")
    try:
        with open_pool("inline" if here else settings.where, entry=settings.entry) as pool:
            for notice in pool.notices:
                rows.append(execute.Check(name="pool", where="driver", state="note", said=notice))
            rows += execute.checks(pool, settings, made, closely=True)
    except UnreachableError as error:
        rows.append(_row("workers", error))
        code = error.exit_code
    except SweepctlError as error:
        rows.append(_row("run folder", error))
    bad = [row for row in rows if row.state in ("warning", "wrong")]
    if as_json:
        give_json({"well": not bad, "checks": [dataclasses.asdict(row) for row in rows]})
    else:
        columns = ("check", "where", "state", "said")
        give_table(columns, [(r.name, r.where, r.state, r.said) for r in rows], "table")
        say("all is well" if not bad else f"{many(len(bad), 'thing')} to look at")
    if bad:
        sys.exit(code)


def _row(name: str, found: str | SweepctlError) -> Check:
    from sweepctl.execute import Check

    if isinstance(found, str):
        return Check(name=name, where="driver", state="ok", said=found)
    said = found.message if found.hint is None else f"{found.message}: {found.hint}"
    return Check(name=name, where="driver", state="wrong", said=said)


def _of_database() -> str | SweepctlError:
    from sweepctl.ledger import ledger_exists, open_ledger

    url = database()
    try:
        if not ledger_exists(url):
            return "there is none yet; the first run makes it"
        with open_ledger(url, create=False, read_only=True) as ledger:
            return f"{ledger.shown} is read"
    except SweepctlError as error:
        return error
