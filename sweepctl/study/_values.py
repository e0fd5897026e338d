"""What kinds of values may a study file hold? Numbers, counts, names, comparisons, margins.

Strict everywhere: 1.0 is no whole number, "3" is no number, true is no 1. What people like to write
short ("100k", ">= 0.9", "10%") is read here and nowhere else.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names become folders, columns and captions, so they are short and plain."""

_COUNT = re.compile(r"^(\d+(?:\.\d+)?)([kM])$")


def read_count(value: object) -> object:
    """Read "100k" and "4M" beside plain integers."""
    if isinstance(value, str) and (match := _COUNT.match(value)):
        number = float(match[1]) * {"k": 1_000, "M": 1_000_000}[match[2]]
        if number == int(number):
            return int(number)
    return value


Count = Annotated[
    int,
    Field(strict=True, ge=1, le=10**12),
    BeforeValidator(read_count),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": _COUNT.pattern},
            ]
        }
    ),
]
"""A whole number from 1; "100k" and "4M" are understood."""

Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Scalar = bool | int | float | str | None | tuple[bool | int | float | str, ...]


class Strict(BaseModel):
    """Base of every part of a study: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Comparison(Strict):
    """A comparison with a number, written as text: ">= 0.9"."""

    operator: Literal[">", ">=", "<", "<="]
    value: float

    def holds(self, number: float) -> bool:
        """Whether the number meets the comparison."""
        return {
            ">": number > self.value,
            ">=": number >= self.value,
            "<": number < self.value,
            "<=": number <= self.value,
        }[self.operator]

    def __str__(self) -> str:
        return f"{self.operator} {self.value:g}"


_COMPARISON = re.compile(r"^\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*$")


def parse_comparison(text: object) -> Comparison | None:
    """The comparison a text stands for, or None when it is none."""
    match = _COMPARISON.match(text) if isinstance(text, str) else None
    return None if match is None else Comparison(operator=match[1], value=float(match[2]))


def _comparison(value: object) -> object:
    if isinstance(value, Comparison):
        return value
    parsed = parse_comparison(value)
    if parsed is None:
        raise ValueError(f"{value!r} is not a comparison; write it as text like '>= 0.9'")
    return parsed


ComparisonText = Annotated[
    Comparison,
    BeforeValidator(_comparison),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _COMPARISON.pattern}),
]


class Margin(Strict):
    """The largest difference that counts as none: "10%" or a number in the metric's unit.

    `value` is the fraction (0.1 for "10%") when `percent` is true, else the number itself.
    """

    value: float
    percent: bool

    def __str__(self) -> str:
        return f"{self.value * 100:g}%" if self.percent else f"{self.value:g}"


_MARGIN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


def _margin(value: object) -> object:
    if isinstance(value, Margin):
        return value
    if isinstance(value, str) and (match := _MARGIN.match(value)) and float(match[1]) > 0:
        return Margin(value=float(match[1]) / 100, percent=True)
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    ):
        return Margin(value=float(value), percent=False)
    raise ValueError("a margin is '10%' or a number above 0")


MarginText = Annotated[
    Margin,
    BeforeValidator(_margin),
    PlainSerializer(lambda margin: str(margin) if margin.percent else margin.value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _MARGIN.pattern},
                {"type": "number", "exclusiveMinimum": 0},
            ]
        }
    ),
]
