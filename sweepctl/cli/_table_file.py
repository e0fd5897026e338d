"""Tables in files, read strictly: numbers, texts, and no guesses.

UTF-8 with or without a byte order mark, UTF-16 with one; columns separated by commas, semicolons or
tabs, whichever the first line has. What cannot be a number where one is needed is said with
file:line, because a value that is left out silently would bias the law.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import SweepctlError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.I)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}([,' \u00a0\u202f]\d{3})+(\.\d+)?")
_MISSING = {"", "na", "n/a", "null", "none", "-", "?"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SHOWN = 10
_COUNTED = ("cell", "n", "value")
_NAMED = ("metric", "dataset", "protocol", "task")
_FLAGS = {"True": True, "False": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """A table as it is in the file.

    Attributes:
        path: the file.
        columns: texts of each column, all of one length.
        lines: line of the file in which each row begins.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def values(
        self, numbers: Collection[str], *, texts: Collection[str] = ()
    ) -> dict[str, list[float | str | None]]:
        """All columns; those in `numbers` as numbers, others where each of their texts is one.

        Raises:
            UsageError: one of `numbers` or `texts` is not a column.
            SweepctlError: a text in a column of `numbers` is not a number, or missing; a text
                in one of `texts` is missing.
        """
        for name in (*numbers, *texts):
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=1)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                raise UsageError(
                    f"{self.path} has no column {name!r}{meant}",
                    hint=f"its columns are: {', '.join(self.columns)}",
                )
        bad = [
            f"{self.path}:{line}: {name} {why}"
            for name in numbers
            for line, text in zip(self.lines, self.columns[name], strict=True)
            if (why := _why_no_number(text))
        ]
        bad += [
            f"{self.path}:{line}: {name} is missing"
            for name in texts
            for line, text in zip(self.lines, self.columns[name], strict=True)
            if text.lower() in _MISSING
        ]
        if bad:
            raise _spoilt(bad)
        return {name: _read(texts, name in numbers) for name, texts in self.columns.items()}


def _spoilt(bad: list[str]) -> SweepctlError:
    more = f"\n  ... and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    return SweepctlError(
        "\n  ".join(bad[:_SHOWN]) + more,
        hint="fix these rows or remove them; none is left out silently",
    )


def _why_no_number(text: str) -> str:
    """Why a text is not a number; empty when it is one."""
    if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return ""
    if text.lower() in _MISSING:
        return f"is missing ({text!r})" if text else "is missing"
    if _THOUSANDS.fullmatch(text):
        plain = re.sub(r"[,' \u00a0\u202f]", "", text)
        return f"is {text!r}: write a number without thousand separators, {plain}"
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return f"is {text!r}: write a decimal point, {text.replace(',', '.')}"
    return f"is {text!r}, which is not a number"


def _read(texts: list[str], needed: bool) -> list[float | str | None]:
    if needed or all(_NUMBER.fullmatch(text) for text in texts):
        return [_number(text) for text in texts]
    return [None if text.lower() in _MISSING else text for text in texts]


def read_table(path: Path) -> TableFile:
    """Read a table with a line of names and at least one row.

    Raises:
        SweepctlError: the file cannot be read, or is not such a table; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SweepctlError(f"cannot read {path}: {error.strerror}") from error
    lines = _decoded(path, data).splitlines(keepends=True)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not lines[0].strip():
        raise SweepctlError(f"{path}:1: the first line must name the columns")
    separator = max(",;\t", key=lines[0].count)
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SweepctlError(f"{path}:{reader.line_num}: {error}") from error
    names = [name.strip() for name in rows[0][1]]
    _check_names(path, names)
    columns: dict[str, list[str]] = {name: [] for name in names}
    places = []
    for line, row in rows[1:]:
        if not row:
            continue  # an empty line is not a row
        if len(row) != len(names):
            raise SweepctlError(
                f"{path}:{line}: {len(row)} values for {len(names)} columns ({', '.join(names)})",
                hint="a value that holds the separator needs double quotes",
            )
        places.append(line)
        for name, text in zip(names, row, strict=True):
            columns[name].append(text.strip())
    if not places:
        raise SweepctlError(f"{path} has columns ({', '.join(names)}) but no rows")
    return TableFile(path=path, columns=columns, lines=places)


def read_points(path: Path) -> pd.DataFrame:
    """The measured values of a study as `sweepctl export --long` writes them, in long form.

    Raises:
        UsageError: a column is missing that says what was measured, or of which cell.
        SweepctlError: the file cannot be read, is not a table, or a value in it is not a number.
    """
    import pandas as pd

    table = read_table(path)
    read = table.values(_COUNTED, texts=_NAMED)
    if bad := [
        f"{path}:{line}: {name} is {text!r}, which is not a whole number"
        for name in ("cell", "n")
        for line, text in zip(table.lines, table.columns[name], strict=True)
        if not float(text).is_integer()
    ]:
        raise _spoilt(bad)
    return pd.DataFrame(
        {
            name: read[name] if name in _COUNTED else _plain(name, texts)
            for name, texts in table.columns.items()
        }
    )


def _plain(name: str, texts: list[str]) -> list[Any]:
    """The values of a column: numbers where all that are there are, None where none is."""
    known = [text for text in texts if text.lower() not in _MISSING]
    if known and set(known) <= _FLAGS.keys():
        return [_FLAGS.get(text) for text in texts]
    if name in _NAMED or not all(map(_NUMBER.fullmatch, known)):
        return [text or None for text in texts]
    missing = math.nan if name == "se" else None
    return [missing if text.lower() in _MISSING else _number(text) for text in texts]


def _number(text: str) -> int | float:
    return int(text) if _WHOLE.fullmatch(text) else float(text)


def _decoded(path: Path, data: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SweepctlError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not {encoding.upper()}",
            hint="save the file as UTF-8",
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise SweepctlError(f"{path}:{line}: holds a zero byte", hint="save the file as UTF-8")
    return text


def _check_names(path: Path, names: list[str]) -> None:
    if "" in names:
        raise SweepctlError(f"{path}:1: column {names.index('') + 1} has no name")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SweepctlError(f"{path}:1: two columns are named {twice[0]!r}")
    if all(_NUMBER.fullmatch(name) for name in names):
        raise SweepctlError(
            f"{path}:1: holds numbers ({', '.join(names)}); the first line must name the columns"
        )
