"""Where does a YAML file have blanks? Tabs and line breaks as YAML 1.2 has them.

ruamel's scanner refuses every tab outside of quotes and breaks lines at U+0085, U+2028 and U+2029,
as YAML 1.1 did. In YAML 1.2 a tab separates like a space and only cannot indent, and lines end at
carriage return, line feed or both.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.scanner import Scanner, ScannerError

_OLD_BREAKS = "\x85\u2028\u2029"
_PRIVATE = range(0xF0000, 0xFFFFE)
"""Characters without a meaning of their own (plane 15)."""


def lines_of(text: str) -> list[str]:
    """The lines of a YAML text, as its marks count them; without a byte order mark."""
    return re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))


def other_version(text: str) -> str | None:
    """The version that a text says it has (`%YAML 1.1`), None if that is 1.2 or it says none."""
    said = re.match(r"\ufeff?(?:[ \t]*(?:#[^\r\n]*)?[\r\n])*%YAML[ \t]+(\S+)", text)
    return None if said is None or said[1] == "1.2" else said[1]


class TooDeep(Exception):
    """More levels than are allowed; line and column from 0."""

    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.line, self.column = mark.line, mark.column


def composed(text: str, levels: int) -> tuple[Any, dict[int, str]]:
    """The root node of a YAML text, and how texts in it are translated to what was written.

    Args:
        text: the text.
        levels: most levels of nesting.

    Raises:
        YAMLError: it is not YAML 1.2.
        TooDeep: it is nested too deeply, at that place.
        ValueError: a scalar that says what it is and is not it.
    """
    # What ruamel takes for line breaks is replaced one by one, so that places stay what they are.
    free = (chr(code) for code in _PRIVATE if chr(code) not in text)
    stand_ins = {ord(old): next(free) for old in _OLD_BREAKS if old in text}
    loader: Any = YAML(typ="safe", pure=True)
    loader.Scanner, loader.Composer = _Scanner, _Composer
    loader.levels = levels
    node = loader.compose(text.translate(stand_ins))
    return node, {ord(new): chr(old) for old, new in stand_ins.items()}


class _Composer(Composer):  # type: ignore[misc, unused-ignore]
    """ruamel's composer without its warning of an anchor that is given again, as YAML allows."""

    def __init__(self, *of: Any, **more: Any) -> None:
        super().__init__(*of, **more)
        self.warn_double_anchors = False


class _Scanner(Scanner):  # type: ignore[misc, unused-ignore]
    """ruamel's scanner with the tabs of YAML 1.2."""

    # Levels are counted here already: ruamel's time grows with their square.

    def add_indent(self, column: int) -> Any:
        if len(self.indents) > self.loader.levels:
            raise TooDeep(self.reader.get_mark())
        return super().add_indent(column)

    def fetch_flow_collection_start(self, *of: Any, **more: Any) -> Any:
        if self.flow_level > self.loader.levels:
            raise TooDeep(self.reader.get_mark())
        return super().fetch_flow_collection_start(*of, **more)

    def scan_to_next_token(self) -> None:
        reader = self.reader
        while True:
            super().scan_to_next_token()
            if self.flow_level or reader.peek() != "\t":
                return
            length = 1
            while reader.peek(length) in " \t":
                length += 1
            if reader.peek(length) not in "#\r\n\0":
                lead = reader.buffer[reader.pointer - reader.column : reader.pointer]
                if not lead.strip(" \t\ufeff"):
                    where = reader.get_mark()
                    raise ScannerError(None, None, "a tab cannot indent; use spaces", where)
                self.allow_simple_key = False  # a mapping that begins here would be indented by it
            reader.forward(length)

    def scan_plain_spaces(self, indent: Any, start_mark: Any) -> Any:
        reader, length = self.reader, 0
        while reader.peek(length) in " \t":
            length += 1
        blank = reader.prefix(length)
        if "\t" not in blank:
            return super().scan_plain_spaces(indent, start_mark)
        reader.forward(length)
        rest = super().scan_plain_spaces(indent, start_mark)
        return [blank] if rest == [] else rest

    def scan_block_scalar_indicators(self, start_mark: Any) -> Any:
        reader, length = self.reader, 0
        while reader.peek(length) in "+-0123456789":
            length += 1
        if reader.peek(length) == "\t":
            at = reader.pointer + length
            reader.buffer = f"{reader.buffer[:at]} {reader.buffer[at + 1 :]}"
        return super().scan_block_scalar_indicators(start_mark)

    def scan_block_scalar_ignored_line(self, start_mark: Any) -> Any:
        while self.reader.peek() in " \t":
            self.reader.forward()
        return super().scan_block_scalar_ignored_line(start_mark)
