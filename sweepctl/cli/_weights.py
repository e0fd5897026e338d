"""Which pretrained files are here, and are they the right ones? The commands of `weights`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepctl.cli._session import give, give_json, give_table, many, say
from sweepctl.errors import SweepctlError


def show(*, as_json: bool) -> None:
    """Print every pretrained file and where it is."""
    from sweepctl.pretrained import files

    _print(files(), as_json=as_json)


def verify(names: Sequence[str], *, as_json: bool) -> None:
    """Read the files that are here and compare their hashes.

    Raises:
        SweepctlError: one is not the pinned file, or one that was named is not here.
    """
    from sweepctl.pretrained import files

    states = files(names, verify=True)
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


def fetch(name: str) -> None:
    """Download one file."""
    from sweepctl import pretrained

    told = [0]

    def progress(done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth > told[0]:
            told[0] = tenth
            say(f"{name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    give(str(pretrained.fetch(name, progress)))


def add(name: str, file: Path) -> None:
    """Take over a file of the user's."""
    from sweepctl import pretrained

    give(str(pretrained.add(name, file)))


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
