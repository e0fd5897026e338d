"""Tables in files, read strictly: numbers, texts, and no guesses.

UTF-8 with or without a byte order mark, UTF-16 with one; columns separated by commas, semicolons or
tabs, whichever the line of names has most of, or as a first line `sep=;` says. Lines that begin
with # are comments, blank lines are skipped, and a first column without a name that holds whole
numbers is the index that a program wrote; `notes` says what was not read. What cannot be a number
where one is needed is said with file:line, because a value that is left out silently would bias
the law.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.errors import SweepctlError, UsageError

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_SEPARATOR = re.compile(r"sep=(.)\s*", re.I)
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.I)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}([,' \u00a0\u202f]\d{3})+(\.\d+)?")
_THOUSANDS_DOTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?")
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
        notes: what was not read, in sentences.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]
    notes: tuple[str, ...] = ()

    def values(
        self,
        numbers: Collection[str],
        *,
        texts: Collection[str] = (),
        errors: Collection[str] = (),
    ) -> dict[str, list[float | str | None]]:
        """All columns, as numbers where each of their texts is one or missing (None).

        Args:
            numbers: columns that hold a number in every row.
            texts: columns that hold something in every row.
            errors: columns with standard errors: numbers above 0, or missing.

        Raises:
            UsageError: one of `numbers` or `texts` is not a column.
            SweepctlError: a text in a column of `numbers` is not a number, or missing; a text
                in one of `texts` is missing; one in `errors` is not a standard error.
        """
        for name in (*numbers, *texts):
            if name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=1)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                raise UsageError(
                    f"{self.path} has no column {name!r}{meant}",
                    hint=f"its columns are: {', '.join(self.columns)}",
                )
        comma = self._with_decimal_comma()
        bad = [
            f"{self.path}:{line}: {name} {why}"
            for name in numbers
            for line, text in zip(self.lines, self.columns[name], strict=True)
            if (why := _why_no_number(text, comma))
        ]
        bad += [
            f"{self.path}:{line}: {name} {why}"
            for name in errors
            for line, text in zip(self.lines, self.columns[name], strict=True)
            if (why := _why_no_error(text))
        ]
        bad += [
            f"{self.path}:{line}: {name} is missing"
            for name in texts
            for line, text in zip(self.lines, self.columns[name], strict=True)
            if text.lower() in _MISSING
        ]
        if bad:
            raise _spoilt(bad)
        return {
            name: _read(texts, name in numbers or name in errors)
            for name, texts in self.columns.items()
        }

    def _with_decimal_comma(self) -> str:
        """A column whose numbers have decimal commas, empty without one."""
        for name, texts in self.columns.items():
            known = [text for text in texts if text.lower() not in _MISSING]
            if (
                any(map(_DECIMAL_COMMA.fullmatch, known))
                and not all(map(_THOUSANDS.fullmatch, known))
                and all(_DECIMAL_COMMA.fullmatch(one) or _NUMBER.fullmatch(one) for one in known)
            ):
                return name
        return ""


def _spoilt(bad: list[str]) -> SweepctlError:
    more = f"\n  ... and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    return SweepctlError(
        "\n  ".join(bad[:_SHOWN]) + more,
        hint="fix these rows or remove them; none is left out silently",
    )


def _why_no_number(text: str, comma: str = "") -> str:
    """Why a text is not a number; empty when it is one.

    Args:
        text: the text.
        comma: a column of the table that has decimal commas, so that a point may be one of
            thousands; empty without one.
    """
    if comma and _THOUSANDS_DOTS.fullmatch(text):
        plain = text.replace(".", "").replace(",", ".")
        return (
            f"is {text!r} and {comma} has decimal commas: write {plain} if the point separates "
            "thousands, and every number of the table with a decimal point"
        )
    if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return ""
    if text.lower() in _MISSING:
        return f"is missing ({text!r})" if text else "is missing"
    if _THOUSANDS.fullmatch(text):
        plain = re.sub(r"[,' \u00a0\u202f]", "", text)
        why = f"is {text!r}: write a number without thousand separators, {plain}"
        decimal = f", or a decimal point, {text.replace(',', '.')}"
        return why + (decimal if text.count(",") == 1 and "." not in text else "")
    if _DECIMAL_COMMA.fullmatch(text):
        return f"is {text!r}: write a decimal point, {text.replace(',', '.')}"
    if _THOUSANDS_DOTS.fullmatch(text):
        plain = text.replace(".", "").replace(",", ".")
        return f"is {text!r}: write a number without thousand separators, {plain}"
    return f"is {text!r}, which is not a number"


def _why_no_error(text: str, *, zero: bool = False) -> str:
    """Why a text is not a standard error; empty when it is one, or missing."""
    if text.lower() in _MISSING:
        return ""
    if why := _why_no_number(text):
        return why
    if 0 < float(text) < math.inf or (zero and float(text) == 0):
        return ""
    return f"is {text!r}: a standard error is a number above 0; leave it empty where it is unknown"


def _read(texts: list[str], needed: bool) -> list[float | str | None]:
    known = [text for text in texts if text.lower() not in _MISSING]
    if needed or all(map(_NUMBER.fullmatch, known)):
        return [None if text.lower() in _MISSING else _number(text) for text in texts]
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
    # Lines end as in files, not as in texts: a cell may hold a form feed or U+2028.
    lines = list(io.StringIO(_decoded(path, data), newline=""))
    first, separator, comments = _first_line(path, lines)
    separator = separator or max(",;\t", key=lines[first].count)
    reader = csv.reader(
        _without_comments(lines, first, separator, comments),
        delimiter=separator,
        strict=True,
        skipinitialspace=True,
    )
    try:
        rows = [(first + reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SweepctlError(f"{path}:{first + reader.line_num}: {error}") from error
    names, notes = _names(rows)
    _check_names(f"{path}:{first + 1}", [name for name in names if name is not None], comments)
    columns: dict[str, list[str]] = {name: [] for name in names if name is not None}
    places = []
    for line, row in rows[1:]:
        if not row or (len(row) == 1 and not row[0].strip()):
            continue  # a blank line is not a row
        if len(row) != len(names):
            shown = ", ".join(columns)
            raise SweepctlError(
                f"{path}:{line}: {len(row)} values for {len(names)} columns ({shown})",
                hint="a value that holds the separator needs double quotes, a column of row names "
                "a name, and a number a decimal point",
            )
        places.append(line)
        for name, text in zip(names, row, strict=True):
            if name is not None:
                columns[name].append(text.strip())
    if not places:
        raise SweepctlError(f"{path} has columns ({', '.join(columns)}) but no rows")
    notes += _of_comments(comments)
    return TableFile(path=path, columns=columns, lines=places, notes=tuple(notes))


def _first_line(path: Path, lines: list[str]) -> tuple[int, str, list[int]]:
    """The place of the line of names, the stated separator ("" without one), and comments."""
    separator, comments = "", []
    for place, line in enumerate(lines):
        if stated := _SEPARATOR.fullmatch(line):
            separator = stated[1]
        elif _is_comment(line, separator):
            comments.append(place + 1)
        elif line.strip():
            return place, separator, comments
    raise SweepctlError(f"{path}:1: the first line must name the columns")


def _is_comment(line: str, separator: str) -> bool:
    """Whether a line is a comment; a column can be called #."""
    rest = line.lstrip()
    return rest.startswith("#") and rest[1:2] not in (separator or ",;\t")


def _without_comments(
    lines: list[str], first: int, separator: str, comments: list[int]
) -> Iterator[str]:
    """The lines from the names on; comments are blank, so that places stay what they are."""
    quoted = False
    for place, line in enumerate(lines[first:], start=first + 1):
        if not quoted and _is_comment(line, separator):
            comments.append(place)
            yield "\n"
            continue
        quoted ^= line.count('"') % 2 == 1  # a value in quotes goes on in the next line
        yield line


def _of_comments(comments: list[int]) -> list[str]:
    if not comments:
        return []
    shown = ", ".join(map(str, comments[:_SHOWN])) + (" ..." if len(comments) > _SHOWN else "")
    noun = "line" if len(comments) == 1 else "lines"
    return [f"{noun} {shown} beginning with # not read"]


def _names(rows: Sequence[tuple[int, list[str]]]) -> tuple[list[str | None], list[str]]:
    """Names of the columns, None for one that is not read, and what is said of those."""
    names: list[str | None] = [name.strip() for name in rows[0][1]]
    body = [row for _, row in rows[1:] if len(row) == len(names)]
    notes = []
    for place, name in enumerate(names):
        if name or not body or len(names) == 1:
            continue
        values = [row[place].strip() for row in body]
        if not any(values):
            names[place] = None  # a separator at the end of every line
            notes.append(f"column {place + 1} has neither a name nor values and is not read")
        elif place == 0 and all(map(_WHOLE.fullmatch, values)):
            names[place] = None
            notes.append("column 1 has no name and only counts rows: it is not read")
    return names, notes


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
        f"{path}:{line}: se {why}"
        for line, text in zip(table.lines, table.columns.get("se", ()), strict=False)
        if (why := _why_no_error(text, zero=True))
    ]:
        raise _spoilt(bad)
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
            hint="save the file as UTF-8; for a file of an older Windows: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path} > utf8.csv",
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise SweepctlError(f"{path}:{line}: holds a zero byte", hint="save the file as UTF-8")
    return text


def _check_names(where: str, names: list[Any], comments: Sequence[int]) -> None:
    if "" in names:
        raise SweepctlError(
            f"{where}: column {names.index('') + 1} has no name",
            hint="name it, or remove it if it only counts rows",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SweepctlError(f"{where}: two columns are named {twice[0]!r}")
    if all(map(_NUMBER.fullmatch, names)):
        above = f"line {comments[-1]} begins with #, so it is a comment" if comments else ""
        raise SweepctlError(
            f"{where}: holds numbers ({', '.join(names)}); the first line must name the columns",
            hint=f"{above}: remove the # if it names the columns" if above else None,
        )
    if len(names) == 1:
        raise SweepctlError(
            f"{where}: one column only, {names[0]!r}",
            hint="columns are separated by commas, semicolons or tabs",
        )
