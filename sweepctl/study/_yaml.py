"""What does a YAML file say, and where does it say it? Plain data with the place of every value.

YAML 1.2 by ruamel.yaml, composed into nodes and turned into plain data here: that keeps positions,
finds duplicate keys, refuses tags and merge keys, and counts what aliases expand to, so that
neither a nested bomb nor a self-reference can eat the machine. `1e-4` is a float and `no` is a
text, as people mean them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweepctl.errors import Problem

MAX_BYTES = 256 * 1024
"""Largest study file; a study of 10,000 cells needs a few hundred bytes."""

MAX_VALUES = 100_000
"""Most values a file may hold once its aliases are expanded."""

MAX_DEPTH = 32
"""Deepest nesting; the format itself needs six levels."""

MAX_DIGITS = 40
"""Longest whole number; a study needs 13 digits."""

START = "`sweepctl init` writes a study to start from"

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The place of a key or value: file name as given, line and column from 1, its source line."""

    file: str
    line: int
    column: int
    width: int
    source: str

    @property
    def place(self) -> str:
        """The mark as "file:line:column"; of an override, the override itself."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(slots=True, kw_only=True)
class Document:
    """Plain data and the marks of its parts.

    Attributes:
        data: dicts with text keys, lists and scalars.
        values: path -> mark of the value there.
        keys: path -> mark of the key that leads there.
        problems: what is wrong so far; the data is only usable when it is empty.
        text: the file as written.
    """

    data: Any = None
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    text: str = ""

    def mark(self, path: KeyPath, *, prefer_key: bool = False) -> Mark | None:
        """The mark of a path, or of the nearest part above it."""
        first, second = (self.keys, self.values) if prefer_key else (self.values, self.keys)
        for length in range(len(path), -1, -1):
            mark = first.get(path[:length]) or second.get(path[:length])
            if mark is not None:
                return mark
        return None

    def problem(self, path: KeyPath, message: str, *, prefer_key: bool = False) -> Problem:
        """A problem at a path of this document."""
        mark = self.mark(path, prefer_key=prefer_key)
        if mark is None:
            return Problem(place="--set", path=dotted(path), message=message)
        return Problem(
            place=mark.place,
            path=dotted(path),
            message=message,
            source=mark.source,
            column=mark.column,
            width=mark.width,
        )


def dotted(path: KeyPath) -> str:
    """A path as people write it: stages.stage1.steps, claims.0."""
    return ".".join(str(part) for part in path)


def read(file: Path, shown: str, kind: str = "study") -> Document:
    """Read a YAML file; whatever is wrong with it stands in `problems`.

    Args:
        file: the file.
        shown: its name in messages.
        kind: "study" or "site file", for messages; a site file may be empty.
    """
    document = Document()

    def refuse(message: str) -> Document:
        document.problems.append(Problem(place=f"{shown}:1:1", path="", message=message))
        return document

    try:
        if not file.is_file():
            wrong = "is a folder" if file.is_dir() else "does not exist"
            return refuse(f"the file {wrong}" + (f"; {START}" if kind == "study" else ""))
        size = file.stat().st_size
        if size > MAX_BYTES:
            return refuse(f"the file has {size:,} bytes; a {kind} has at most {MAX_BYTES:,}")
        raw = file.read_bytes()
    except OSError as error:
        return refuse(f"the file cannot be read: {error.strerror}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        document.problems.append(
            Problem(
                place=f"{shown}:{line}:{column}",
                path="",
                message="not UTF-8 text; save the file in that encoding",
            )
        )
        return document
    return parse(text, shown, kind)


def parse(text: str, shown: str, kind: str = "study") -> Document:
    """Turn YAML text into a document; see `read`."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    from sweepctl.study._scanner import TooDeep, composed, lines_of, other_version

    document = Document(text=text)
    lines = lines_of(text)

    def at(line: int, column: int, message: str, width: int = 1) -> None:
        source = lines[line] if line < len(lines) else ""
        document.problems.append(
            Problem(
                place=f"{shown}:{line + 1}:{column + 1}",
                path="",
                message=message,
                source=source,
                column=column + 1,
                width=width,
            )
        )

    if (version := other_version(text)) is not None:
        line = next(number for number, one in enumerate(lines) if one.startswith("%YAML"))
        at(line, 0, f"a {kind} is YAML 1.2, and this line says {version}; remove it")
        return document
    try:
        node, written = composed(text, MAX_DEPTH)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "not YAML"
        at(mark.line if mark else 0, mark.column if mark else 0, f"not YAML: {said}")
        return document
    except YAMLError as error:
        position = getattr(error, "position", None)
        before = text[:position] if isinstance(position, int) else ""
        line = before.count("\n")
        reason = getattr(error, "reason", None) or str(error).split("\n")[0]
        at(line, len(before) - (before.rfind("\n") + 1), f"not YAML: {reason}")
        return document
    except TooDeep as error:
        at(error.line, error.column, f"nested too deeply; a {kind} has at most {MAX_DEPTH} levels")
        return document
    except ValueError as error:
        # ruamel resolves some scalars while it composes, and says no by ValueError.
        at(0, 0, f"not YAML: {error}")
        return document
    if node is None:
        if kind == "study":
            at(0, 0, f"the file is empty; {START}")
        else:
            document.data = {}
        return document
    _Builder(document, shown, lines, kind, written).build(node, (), 0)
    return document


class _Builder:
    """Turns composed nodes into plain data and notes where everything stands."""

    def __init__(
        self,
        document: Document,
        shown: str,
        lines: list[str],
        kind: str,
        written: Mapping[int, str],
    ) -> None:
        self.document = document
        self.shown = shown
        self.lines = lines
        self.kind = kind
        self.written = written  # see `composed`
        self.values_left = MAX_VALUES
        self.open_nodes: set[int] = set()

    def mark(self, node: Any) -> Mark:
        start, end = node.start_mark, node.end_mark
        source = self.lines[start.line] if start.line < len(self.lines) else ""
        same_line = end.line == start.line
        width = (end.column if same_line else len(source)) - start.column
        return Mark(
            file=self.shown,
            line=start.line + 1,
            column=start.column + 1,
            width=max(1, width),
            source=source,
        )

    def refuse(self, node: Any, path: KeyPath, message: str) -> None:
        mark = self.mark(node)
        self.document.problems.append(
            Problem(
                place=mark.place,
                path=dotted(path),
                message=message,
                source=mark.source,
                column=mark.column,
                width=mark.width,
            )
        )

    def build(self, node: Any, path: KeyPath, depth: int) -> None:
        self.document.data = self.value(node, path, depth)

    def value(self, node: Any, path: KeyPath, depth: int) -> Any:
        if self.values_left == 0:
            return None
        self.values_left -= 1
        if self.values_left == 0:
            self.refuse(node, path, f"more than {MAX_VALUES:,} values once aliases are expanded")
            return None
        self.document.values[path] = self.mark(node)
        if not isinstance(node.value, list):
            return self.scalar(node, path)
        if depth >= MAX_DEPTH:
            most = f"a {self.kind} has at most {MAX_DEPTH} levels"
            self.refuse(node, path, f"nested too deeply; {most}")
            return None
        if id(node) in self.open_nodes:
            self.refuse(node, path, "an alias that contains itself")
            return None
        self.open_nodes.add(id(node))
        try:
            is_mapping = node.id == "mapping"
            if is_mapping and node.tag == "tag:yaml.org,2002:map":
                return self.mapping(node, path, depth)
            if not is_mapping and node.tag == "tag:yaml.org,2002:seq":
                return [
                    self.value(item, (*path, index), depth + 1)
                    for index, item in enumerate(node.value)
                ]
            self.refuse(node, path, self.no_tag(node))
            return None
        finally:
            self.open_nodes.discard(id(node))

    def mapping(self, node: Any, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node.value, list):
                self.refuse(key_node, path, "a key must be plain text, not a list or mapping")
                continue
            key = str(key_node.value).translate(self.written)
            below = (*path, key)
            if _NO_TEXT.search(key):
                self.refuse(key_node, path, "a key with a NUL or half of a surrogate pair")
                continue
            if key == "<<" and key_node.style is None:
                self.refuse(key_node, below, self.no_merging)
                continue
            if key in result:
                first = self.document.keys[below].line
                self.refuse(key_node, below, f"the key {key!r} stands here twice (line {first})")
                continue
            self.document.keys[below] = self.mark(key_node)
            result[key] = self.value(value_node, below, depth + 1)
        return result

    @property
    def no_merging(self) -> str:
        said = "merge keys (<<) are not part of YAML 1.2 and are not read"
        if self.kind != "study":
            return f"{said}; write the keys out"
        return (
            f"{said}; `base` does this: put the shared settings into a file of their own, laid out "
            "like a study, and name it with `base: FILE` at the top"
        )

    def no_tag(self, node: Any) -> str:
        return f"the tag {node.tag} is not allowed in a {self.kind}; leave it out"

    def scalar(self, node: Any, path: KeyPath) -> Any:
        text, tag = node.value.translate(self.written), node.tag.removeprefix(_TAGS)
        if _NO_TEXT.search(text):
            self.refuse(node, path, "holds a NUL or half of a surrogate pair, which are no text")
            return None
        if tag in ("str", "timestamp"):
            return text
        if tag in _WORDS:
            if text.lower() in _WORDS[tag]:
                return _WORDS[tag][text.lower()]
            self.refuse(node, path, self.no_tag(node))
        elif tag == "int":
            return self.whole(node, path, text)
        elif tag == "float":
            try:
                number = float(text.replace("_", ""))
            except ValueError:  # for example .inf and .nan, which Python's float() does not read
                number = math.nan
            if math.isfinite(number):
                return number
            self.refuse(node, path, f"{text[:MAX_DIGITS]} is not a finite number")
        else:
            self.refuse(node, path, self.no_tag(node))
        return None

    def whole(self, node: Any, path: KeyPath, text: str) -> int | None:
        """An integer of YAML 1.2: decimal (leading zeros and underscores allowed), 0o, 0x, 0b."""
        plain = text.replace("_", "")
        digits = plain.lstrip("+-").lower()
        if len(digits) > MAX_DIGITS:
            said = f"a number of {len(digits):,} digits; a {self.kind} has at most {MAX_DIGITS}"
            self.refuse(node, path, said)
            return None
        try:
            return int(plain, 0) if digits[:2] in ("0o", "0x", "0b") else int(plain, 10)
        except ValueError:
            self.refuse(node, path, f"{text!r} is not a whole number")
            return None


_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What double quotes can escape and neither files nor databases can keep."""

_TAGS = "tag:yaml.org,2002:"
_WORDS: dict[str, dict[str, Any]] = {
    "null": {"": None, "~": None, "null": None},
    "bool": {"true": True, "false": False},
}
"""What scalars may say that are one of few words."""


def leaves(data: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every value of plain data that is not a mapping, with its path."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, data
