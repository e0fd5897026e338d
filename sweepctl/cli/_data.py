"""`data`: the data sets that studies name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sweepctl.cli._options import Json
from sweepctl.cli._output import give, give_json, give_table, say, shown
from sweepctl.cli._session import site

TOLD_S = 5.0
"""Seconds between two lines of progress."""


DataName = Annotated[
    str, typer.Argument(metavar="NAME", help="A data set under `datasets:` in the site file.")
]


def list_datasets(as_json: Json = False) -> None:
    """Print every data set that a study can name here: built-in ones and your own.

    Example: sweepctl data list
    """
    from sweepctl.datasets import states

    rows = states(site().datasets)
    if as_json:
        give_json({"schema": 1, "datasets": rows})
        return
    columns = ("name", "kind", "samples", "classes", "bytes", "state", "place")
    give_table(columns, [_cells(row) for row in rows], "table")
    missing = [row["name"] for row in rows if not row["scanned"]]
    if missing:
        say(f"next: sweepctl data scan {missing[0]}")


def scan(
    name: DataName,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=256, help="Files read at the same time.")
    ] = 4,
    as_json: Json = False,
) -> None:
    """List and hash a data set, or what has changed of it, so that studies can name it.

    Reads every file once. When it is interrupted, the next scan resumes.

    Example: sweepctl data scan imagenet-train
    """
    from sweepctl import datasets

    last = [time.monotonic()]

    def progress(at: Any) -> None:
        if time.monotonic() - last[0] >= TOLD_S:
            last[0] = time.monotonic()
            rate = at.size_bytes / max(at.seconds, 1e-9) / 1e6
            say(
                f"{name}: {at.units:,} files, {at.samples:,} samples, "
                f"{at.size_bytes / 1e9:.2f} GB, {rate:.0f} MB/s"
            )

    try:
        facts = datasets.scan(name, site().datasets, threads=threads, progress=progress)
    except KeyboardInterrupt:
        say(f"stopped; resume with: sweepctl data scan {name}")
        raise
    _give(facts, as_json=as_json)
    say(f"next: name {name} in a study, under data.train or evaluate.reconstruction.on")


def show(name: DataName, as_json: Json = False) -> None:
    """Print what the last scan of a data set found, and what it left out.

    Example: sweepctl data show imagenet-train
    """
    from sweepctl.datasets import scanned

    _give(scanned(name, site().datasets), as_json=as_json)


def _give(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        give_json({"schema": 1, **facts})
        return
    for key, value in facts.items():
        if key == "left_out":
            for why, names in value.items():
                give(f"left out: {names['count']:,} {why}: {', '.join(names['first'])}")
        else:
            give(f"{key}: {shown(value)}")


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    built_in = row["content"] is None and row["scanned"]
    state = "built in" if built_in else "scanned" if row["scanned"] else "not scanned"
    return (
        row["name"],
        row["kind"],
        *("" if row[key] is None else row[key] for key in ("samples", "classes", "bytes")),
        state,
        "" if built_in else row["place"],
    )
