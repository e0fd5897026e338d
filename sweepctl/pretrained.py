"""Which pretrained files does this machine have? The command line's door to `vitok_core.weights`.

Light: nothing of torch is loaded. What goes wrong is said as one of our own errors; what is said of
a file is plain data, so that the command line need not know vitok_core.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sweepctl.errors import SweepctlError
from vitok_core import weights
from vitok_core.errors import VitokError


def files(names: Iterable[str] = (), *, verify: bool = False) -> list[dict[str, Any]]:
    """How pretrained files stand on this machine, as plain data; all of them without names.

    Raises:
        SweepctlError: there is none of a name.
    """
    with _explained():
        states = [
            dataclasses.asdict(weights.weights_state(name, verify=verify))
            for name in (names or weights.weights_names())
        ]
    return [one | {"path": None if one["path"] is None else str(one["path"])} for one in states]


def missing(name: str) -> str | None:
    """Why a pretrained file could not be used, in one line, or None."""
    return weights.weights_missing(name)


def fetch(name: str, progress: Callable[[int, int], None]) -> Path:
    """Download a pretrained file, unless it is here; its checked path.

    Raises:
        SweepctlError: no such name, no network, or another file came.
    """
    with _explained():
        return weights.fetch_weights(name, progress)


def add(name: str, file: Path) -> Path:
    """Take a copy of a user's file, if it is the pinned one; its new path.

    Raises:
        SweepctlError: no such name or file, or another file.
    """
    with _explained():
        return weights.add_weights(name, file)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What vitok_core can explain, as an error that the command line can show."""
    try:
        yield
    except VitokError as error:
        raise SweepctlError(str(error)) from error
