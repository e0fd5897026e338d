"""The kinds of values in a study file: numbers, counts, names, comparisons, margins.

Strict everywhere: 1.0 is not a whole number, "3" is not a number, true is not 1. What people like
to write short ("100k", ">= 0.9", "10%") is read here and nowhere else.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import types
import typing
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
)
from typing_extensions import Doc

from vitok_core import settings

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


def model_of(given: Any, name: str = "") -> type[Strict]:
    """The model of a class of `vitok_core.settings`: its keys, bounds and the line about each.

    Args:
        given: an instance, whose values are the defaults.
        name: of the model; that of the class without.
    """
    kind = type(given)
    name = name or kind.__name__
    fields: dict[str, Any] = {}
    for key, hint in settings.hints(kind).items():
        said = settings.said_of(hint, Doc)
        if said is None or settings.said_of(hint, settings.Elsewhere) is not None:
            continue
        default = getattr(given, key)
        if settings.group_in(hint) is not None:
            own = key.capitalize() if name == "Stages" else f"{name}{key.capitalize()}"
            model = model_of(default, own)
            fields[key] = (model, Field(model(), description=said.documentation))
        else:
            fields[key] = (_strict(hint), Field(default, description=said.documentation))
    return create_model(name, __base__=Strict, __doc__=kind.__doc__, **fields)


def _share_or_count(value: float) -> float:
    if not settings.ShareOrCount.allows(value):
        raise ValueError(f"must be a share below 1, or a whole number, not {value:g}")
    return value


@functools.cache
def _rule(given: settings.PerBatch) -> type[Strict]:
    """The model of a number that follows the batch."""
    said = f"At a batch of {given.samples}; it grows and shrinks with the batch of its stage."
    number = (Annotated[Number, Gt(0)], Field(description=said))
    fields: dict[str, Any] = {given.key: number}
    return create_model(f"Per{given.samples}", __base__=Strict, **fields)


def _strict(hint: Any) -> Any:
    """An annotation of a setting as a study reads it: strict, a count also as "100k"."""
    if typing.get_origin(hint) is Annotated:
        base, *remarks = typing.get_args(hint)
        if settings.said_of(hint, settings.ShareOrCount) is not None:
            remarks.append(AfterValidator(_share_or_count))
        rule = settings.said_of(hint, settings.PerBatch)
        if rule is not None:
            bounds = [one for one in remarks if isinstance(one, Ge | Gt | Le | Lt)]
            others = [one for one in remarks if one not in bounds]
            forms = Annotated[_strict(base), *bounds] | _rule(rule)
            return Annotated[forms, *others]
        if base is int and Annotated[int, *remarks[:2]] == settings.Count:
            return Annotated[Count, *remarks[2:]] if remarks[2:] else Count
        return Annotated[_strict(base), *remarks]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_strict, arguments))
    if origin is tuple:
        return tuple[tuple(map(_strict, arguments))]  # type: ignore[misc]
    return {int: Whole, float: Number, bool: Flag, str: Text}.get(hint, hint)


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
