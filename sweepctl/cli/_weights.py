"""`weights`: the pretrained files that metrics and losses need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sweepctl.cli._options import Json
from sweepctl.cli._output import give, give_json, give_table, say
from sweepctl.errors import SweepctlError
from sweepctl.plain import many

WeightsName = Annotated[str, typer.Argument(metavar="NAME", help="A name of `weights list`.")]


def list_files(as_json: Json = False) -> None:
    """Print every pretrained file: whether it is here, where from, size, licence.

    Example: sweepctl weights list
    """
    from sweepctl.pretrained import files

    _print(files(), as_json=as_json)


def fetch(name: WeightsName) -> None:
    """Download a file from its publisher, check it, and print where it is kept.

    SWEEPCTL_OFFLINE=1 forbids it. A file that is here already is checked only.

    Example: sweepctl weights fetch lite0
    """
    from sweepctl import pretrained

    told = [0]

    def progress(done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth > told[0]:
            told[0] = tenth
            say(f"{name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    give(str(pretrained.fetch(name, progress)))


def add(
    name: WeightsName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy of the pinned file.")],
) -> None:
    """Check a file that was got elsewhere, copy it, and print where it is kept.

    Example: sweepctl weights add lite0 efficientnet-lite0-57934424.pth
    """
    from sweepctl import pretrained

    give(str(pretrained.add(name, file)))


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All that are here by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the files that are here and compare their SHA-256 with the pinned ones.

    Example: sweepctl weights verify
    """
    from sweepctl.pretrained import files

    states = files(names or (), verify=True)
    _print(states, as_json=as_json)
    wrong = [state for state in states if state["verified"] is False]
    if wrong:
        raise SweepctlError(
            "; ".join(f"{one['path']} is not the pinned file of {one['name']}" for one in wrong),
            hint="; ".join(f"remove {one['path']}, then run: {one['get']}" for one in wrong),
        )
    absent = [state["name"] for state in states if state["path"] is None]
    if names and absent:
        raise SweepctlError(
            f"not on this machine: {', '.join(absent)}",
            hint="sweepctl weights list says how to get them",
        )
    say(f"{many(len(states) - len(absent), 'file')} verified, {len(absent)} not here")


def _print(states: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    if as_json:
        give_json({"schema": 1, "weights": states})
        return
    columns = ("name", "from", "bytes", "sha256", "licence", "state", "get it by")
    give_table(columns, [_row(state) for state in states], "table")


def _row(state: Mapping[str, Any]) -> tuple[object, ...]:
    here = state["path"] is not None
    said = {None: "here" if here else "not here", True: "verified", False: "ANOTHER FILE"}
    return (
        state["name"],
        state["source"] or "",
        "" if state["size_bytes"] is None else state["size_bytes"],
        state["sha256"][:16],
        state["licence"],
        said[state["verified"]],
        "" if here else state["get"],
    )
