"""What the command line prints: data on stdout, everything else on stderr.

Tables are laid out for people on a terminal and tab-separated in a pipe.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweepctl.errors import UsageError
from sweepctl.plain import finite, to_json

if TYPE_CHECKING:
    from sweepctl.plan import Plan


def say(text: str) -> None:
    """Tell people something; never data."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def notices(*plans: Plan) -> None:
    """Tell what plans want people to know; what several of them miss is said once."""
    absent = {problem.message: problem for made in plans for problem in made.absent}
    for problem in absent.values():
        say(f"cannot be run here: {problem.place}: {problem.path}: {problem.message}")
    for made in plans:
        _notices(made)


def _notices(made: Plan) -> None:
    for notice in made.notices:
        say(f"note: {notice}")
    for dropped in made.dropped[:5]:
        values = ", ".join(
            f"{name} {'-' if value is None else value}" for name, value in dropped.axes.items()
        )
        say(f"note: no cell for {values}: {dropped.reason}")
    if len(made.dropped) > 5:
        say(f"note: {len(made.dropped) - 5} more combinations are no cells")


def shown(value: object) -> str:
    """A value of a config as it is printed: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def give(text: str) -> None:
    """Write data to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def give_json(value: object) -> None:
    """Write one JSON document to stdout; what is not a finite number is null."""
    give(to_json(finite(value), indent=1))


def to_terminal() -> bool:
    """Whether a person reads stdout."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def unicode() -> bool:
    """Whether stdout can show more than ASCII."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    return "utf" in encoding


def give_table(columns: Sequence[str], rows: Sequence[Sequence[object]], form: str) -> None:
    """Write a table as "table", "csv" or "json".

    Two columns of one name get numbers, bytes are written in hexadecimal, and JSON has null for
    what is not a finite number; each of these is said.
    """
    columns, rows = _writable(columns, rows, as_json=form == "json")
    if form == "json":
        give_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif form == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        from sweepctl.report import results_text

        give(results_text(columns, rows, terminal=to_terminal(), width=width(), unicode=unicode()))


def _writable(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, as_json: bool
) -> tuple[list[str], Sequence[Sequence[object]]]:
    """Columns and rows that a file can hold, and notices about what was changed for that."""
    names: list[str] = []
    for name in columns:
        free = (f"{name}_{number}" for number in itertools.count(2))
        taken = {*names, *columns} if name in names else set()
        names.append(next(one for one in free if one not in taken) if taken else name)
    if names != list(columns):
        twice = ", ".join(n for n, old in zip(names, columns, strict=True) if n != old)
        say(f"note: several columns have the same name; the later ones are called {twice}")
    by_column = list(zip(*rows, strict=True)) if rows else []
    blobs = [i for i, values in enumerate(by_column) if any(isinstance(v, bytes) for v in values)]
    if blobs:
        say(f"note: bytes are written in hexadecimal: {', '.join(names[i] for i in blobs)}")
        rows = [[v.hex() if isinstance(v, bytes) else v for v in row] for row in rows]
    unknown = [
        f"{name} ({count:,})"
        for name, values in zip(names, by_column, strict=False)
        if (count := sum(isinstance(v, float) and not math.isfinite(v) for v in values))
    ]
    if as_json and unknown:
        say(
            f"note: not finite and null in JSON, which has no word for it: {', '.join(unknown)}; "
            "-f csv keeps them"
        )
    return names, rows


def check_format(form: str) -> str:
    """One of the three formats.

    Raises:
        UsageError: another word was given.
    """
    if form not in ("table", "csv", "json"):
        raise UsageError(f"there is no format {form!r}", hint="table, csv or json")
    return form
