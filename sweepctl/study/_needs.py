"""How many GPUs does a task get? A number, a rule by the size of the task, or a time to end within.

    gpus: 8
    gpus: {1: "parameters < 100e6", 8: otherwise}
    gpus: {within: 12 h}

The first line of a rule that holds decides. Nothing of this is part of a task's identity.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from sweepctl.study._values import Comparison, Strict, parse_comparison

MOST_GPUS = 1024
"""Most GPUs that a task may ask for."""

WITHIN = (1, 2, 4, 8)
"""Numbers of GPUs that are tried, in order, where a time is given."""

Measure = Literal["parameters", "batch", "tokens"]
"""What a rule may compare, of a training: parameters of the model, samples of a step, tokens of a
sample."""

_OTHERWISE = "otherwise"
_RULE = re.compile(r"^\s*(parameters|batch|tokens)\s*([<>]=?.*)$")
_TIME = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|min|h|d)\s*$")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Size(Strict):
    """A comparison of a training's size with a number: "parameters < 100e6"."""

    of: Measure
    than: Comparison

    def __str__(self) -> str:
        return f"{self.of} {self.than}"


class Gpus(Strict):
    """How many GPUs a task gets.

    Attributes:
        cases: numbers in the order in which their conditions are looked at; the last has none.
        within_s: seconds within which the task is to end; None where `cases` say the number.
        written: as the study has it.
    """

    cases: tuple[tuple[int, Size | None], ...] = ()
    within_s: float | None = None
    written: Any = 1

    @property
    def by_size(self) -> bool:
        """Whether the number follows from the size of a training."""
        return len(self.cases) > 1


def parse_gpus(value: object) -> object:
    """Read one of the three forms.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, Gpus):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Gpus(cases=((_number(value), None),), written=value)
    if isinstance(value, dict) and "within" in value:
        if len(value) > 1:
            others = ", ".join(str(key) for key in value if key != "within")
            raise ValueError(f"`within` stands alone, without {others}")
        return Gpus(within_s=_time(value["within"]), written=value)
    if isinstance(value, dict) and value:
        return Gpus(cases=tuple(_cases(value)), written=value)
    raise ValueError(
        'gpus is a number, a rule such as {1: "parameters < 100e6", 8: otherwise}, or '
        f"{{within: 12 h}}, not {value!r}"[:300]
    )


def _cases(rule: dict[Any, Any]) -> list[tuple[int, Size | None]]:
    cases = [(_number(key), _condition(key, said)) for key, said in rule.items()]
    last = len(cases) - 1
    for index, (_, condition) in enumerate(cases):
        if (condition is None) != (index == last):
            raise ValueError(
                "the last line of a rule is `otherwise`, and no other; here "
                + ", ".join(f"{one}: {size or _OTHERWISE}" for one, size in cases)
            )
    return cases


def _condition(number: object, said: object) -> Size | None:
    if said == _OTHERWISE:
        return None
    match = _RULE.match(said) if isinstance(said, str) else None
    than = None if match is None else parse_comparison(match[2])
    if match is None or than is None:
        raise ValueError(
            f"{said!r} of {number} GPUs is no condition; write parameters, batch or tokens, then "
            '<, <=, > or >= and a number, such as "parameters < 100e6"; or otherwise'
        )
    return Size(of=match[1], than=than)


def _number(given: object) -> int:
    """A number of GPUs; keys of a mapping are texts."""
    text = str(given)
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_GPUS:
        raise ValueError(f"a number of GPUs is a whole number from 1 to {MOST_GPUS}, not {given!r}")
    return int(text)


def _time(given: object) -> float:
    match = _TIME.match(given) if isinstance(given, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"within takes a time above 0 such as 12 h, 30 min or 2 d, not {given!r}")
    return float(match[1]) * _SECONDS[match[2]]


GpusText = Annotated[
    Gpus,
    BeforeValidator(parse_gpus),
    PlainSerializer(lambda gpus: gpus.written, return_type=Any),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_GPUS},
                {
                    "type": "object",
                    "properties": {"within": {"type": "string", "pattern": _TIME.pattern}},
                    "required": ["within"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "patternProperties": {"^[0-9]{1,4}$": {"type": "string"}},
                    "minProperties": 1,
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""`Gpus` as a study writes it."""


class Needs(Strict):
    """What a task of one kind gets to run on."""

    gpus: GpusText = Field(
        1,
        validate_default=True,
        description=(
            "GPUs that compute one task together (on CPUs: slots): a number; a rule by size such "
            'as {1: "parameters < 100e6", 8: otherwise}, of parameters, batch or tokens; or '
            "{within: 12 h} for the smallest of 1, 2, 4 and 8 that is expected to end in that time."
        ),
    )
