"""Which study files do people write by mistake? A seeded corpus of mutations of a good one.

A mutant is the good file after one to four slips of the kinds that hands, editors, merges and
encodings make: tokens lost, doubled or swapped, values of another type, YAML's special words,
indentation, other alphabets, huge numbers, raw bytes. The same seed gives the same corpus.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_TOKEN = re.compile(r"[A-Za-z0-9_.+/-]+|[^\sA-Za-z0-9_.+/-]|[ \t]+|\n")

_VALUES = (
    *("null", "~", "true", "no", "on", "''", '""', "[]", "{}", "-", "0", "-1", "1.5", "'8'", "8.0"),
    *("[4, [8]]", "{a: 1}", "stage1", "psnr", "photos-eval", "0x10", "0o17", "1_000", "4M", "1.5k"),
    *(".inf", "-.inf", ".nan", "1e400", "1e-400", "10" * 30, "9" * 19, "-9223372036854775809"),
    *("2024-01-01", "12:30:45", "<<", "=", "?", "\u00b2", "\u0664", "1e5", "1e-5", "+4", "04"),
)
_SPECIALS = (
    *("&a ", "*a", "&a [*a]", "!!int ", "!!binary ", "!!python/name:os.system ", "! ", "%YAML 1.1"),
    *("\n---\n", "\n...\n", "<<: *a", "? ", ": ", "- ", "| ", ">\n", "#", "@", "`", "'", '"'),
    *("{", "}", "[", "]", ",", "\t", "\x00", "\x07", "\x85", "\u2028", "\ufeff", "\r", "\\"),
    *("\u540d\u524d: 1", "\u00e9", "\U0001f600", "\u202e", "e\u0301", "p\u200b", "\ud7ff"),
)


def mutants(text: str, count: int, seed: int) -> list[bytes]:
    """`count` different damaged versions of a study, as the bytes of their files.

    Args:
        text: the good study.
        count: how many.
        seed: of every choice.
    """
    draw = random.Random(seed)
    found: dict[bytes, None] = {}
    while len(found) < count:
        tokens = _TOKEN.findall(text)
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
            tokens = draw.choice(_SLIPS)(draw, tokens)
        raw = "".join(tokens).encode()
        if draw.random() < 0.04:
            raw = _raw_damage(draw, raw)
        if raw != text.encode():
            found[raw] = None
    return list(found)


def _place(draw: random.Random, tokens: list[str]) -> int:
    """The index of a token that is not blank."""
    full = [index for index, token in enumerate(tokens) if token.strip()]
    return draw.choice(full) if full else 0


def _delete(draw: random.Random, tokens: list[str]) -> list[str]:
    at = _place(draw, tokens)
    return tokens[:at] + tokens[at + draw.choice((1, 1, 1, 2, 6)) :]


def _duplicate(draw: random.Random, tokens: list[str]) -> list[str]:
    at = _place(draw, tokens)
    return tokens[: at + 1] + tokens[at : at + draw.choice((1, 1, 3, 6))] + tokens[at + 1 :]


def _replace(draw: random.Random, tokens: list[str]) -> list[str]:
    at = _place(draw, tokens)
    return [*tokens[:at], draw.choice(_VALUES), *tokens[at + 1 :]]


def _exchange(draw: random.Random, tokens: list[str]) -> list[str]:
    one, other = _place(draw, tokens), _place(draw, tokens)
    if not tokens:
        return tokens
    tokens = list(tokens)
    tokens[one], tokens[other] = tokens[other], tokens[one]
    return tokens


def _insert(draw: random.Random, tokens: list[str]) -> list[str]:
    at = _place(draw, tokens)
    return [*tokens[:at], draw.choice(_SPECIALS), *tokens[at:]]


def _misspell(draw: random.Random, tokens: list[str]) -> list[str]:
    at = _place(draw, tokens)
    word = tokens[at] if tokens else ""
    cut = draw.randrange(len(word)) if word else 0
    slip = word[:cut] + draw.choice(("", "x", "S", "-")) + word[cut + 1 :]
    return [*tokens[:at], slip, *tokens[at + 1 :]]


def _renumber(draw: random.Random, tokens: list[str]) -> list[str]:
    """Another size of number, where a number stands."""
    places = [index for index, token in enumerate(tokens) if token[:1].isdigit()]
    if not places:
        return tokens
    at = draw.choice(places)
    number = draw.choice(("0", "-" + tokens[at], tokens[at] + "000000", "1" + "0" * 50, "0.1", "3"))
    return [*tokens[:at], number, *tokens[at + 1 :]]


def _indent(draw: random.Random, tokens: list[str]) -> list[str]:
    lines = "".join(tokens).split("\n")
    at = draw.randrange(len(lines))
    blank = len(lines[at]) - len(lines[at].lstrip())
    lead = draw.choice(("", " ", "   ", "\t", " " * (blank + 2), " " * max(0, blank - 1)))
    lines[at] = lead + lines[at].lstrip()
    return _TOKEN.findall("\n".join(lines))


def _move_line(draw: random.Random, tokens: list[str]) -> list[str]:
    lines = "".join(tokens).split("\n")
    line = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.choice((0, 1, 1, 2))):  # lost, moved, or there twice
        lines.insert(draw.randrange(len(lines) + 1), line)
    return _TOKEN.findall("\n".join(lines))


_SLIPS: tuple[Callable[[random.Random, list[str]], list[str]], ...] = (
    *(_delete, _duplicate, _replace, _replace, _exchange),
    *(_insert, _misspell, _renumber, _indent, _move_line),
)


def _raw_damage(draw: random.Random, raw: bytes) -> bytes:
    """What editors and transfers do to a whole file."""
    at = draw.randrange(len(raw)) if raw else 0
    return draw.choice(
        (
            raw[:at],
            raw[:at] + b"\xff\xfe" + raw[at:],
            raw.replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + raw,
            raw.decode(errors="replace").encode("utf-16"),
            raw[:at] + b"\xc3" + raw[at + 1 :],
            b"",
        )
    )
