"""How is a wrong value put in plain words? pydantic's error types in the language of a study."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from sweepctl.study._claims import CLAIM_KINDS
from sweepctl.study._model import Config, Study
from sweepctl.study._paths import did_you_mean

_NEEDS = {
    "int_type": "needs a whole number",
    "int_parsing": "needs a whole number",
    "int_from_float": "needs a whole number",
    "float_type": "needs a number",
    "float_parsing": "needs a number",
    "finite_number": "needs a finite number",
    "bool_type": "needs true or false",
    "bool_parsing": "needs true or false",
    "string_type": "needs a text",
    "dict_type": "needs a mapping (key: value)",
    "model_type": "needs a mapping (key: value)",
    "model_attributes_type": "needs a mapping (key: value)",
    "tuple_type": "needs a list",
    "list_type": "needs a list",
    "none_required": "needs null",
}


def is_of_form(error: Mapping[str, Any]) -> bool:
    """Whether an error of pydantic says that a value is of another form than asked for."""
    return error["type"] in _NEEDS or error["type"] == "literal_error"


def in_words(error: Mapping[str, Any], model: type[BaseModel] = Study) -> str:
    """One of pydantic's errors of a model as a sentence: what was given, what is allowed."""
    kind, given, context = error["type"], error.get("input"), error.get("ctx") or {}
    if kind == "forms":
        words = [e["ctx"]["expected"] for e in context["errors"] if "expected" in e.get("ctx", {})]
        others = [_NEEDS[one["type"]] for one in context["errors"] if one["type"] in _NEEDS]
        said = ", or ".join([*words, *(other.removeprefix("needs ") for other in others)])
        hints = (_instead(one["type"], given) for one in context["errors"])
        return f"must be {said}, not {shown(given)}{next(filter(None, hints), '')}"
    if kind in _NEEDS:
        return f"{_NEEDS[kind]}, not {shown(given)}{_instead(kind, given)}"
    if kind == "missing":
        return _missing(error["loc"])
    if kind == "extra_forbidden":
        return _unknown(error["loc"], model)
    if kind == "literal_error":
        names = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        close = did_you_mean(given, names) if isinstance(given, str) else ""
        quotes = "; leave the quotes out" if f"{given}" == context["expected"] else ""
        return f"must be {context['expected']}, not {shown(given)}{quotes or close}"
    for bound, sign in (
        ("greater_than_equal", "at least {ge}"),
        ("greater_than", "above {gt}"),
        ("less_than_equal", "at most {le}"),
        ("less_than", "below {lt}"),
    ):
        if kind == bound:
            return f"must be {sign.format(**context)}, not {shown(given)}"
    if kind in ("too_short", "too_long"):
        some = context.get("min_length", context.get("max_length"))
        bound = "at least" if kind == "too_short" else "at most"
        entries = "entry" if some == 1 else "entries"
        return f"needs {bound} {some} {entries}, has {context['actual_length']}"
    if kind == "string_pattern_mismatch":
        return (
            f"{shown(given)} is not a name; use lower case letters, digits, dot, dash and "
            "underscore, at most 64, starting with a letter or digit"
        )
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {shown(given)}"


def _instead(kind: str, given: object) -> str:
    """What to write instead of a value of another type, where that is likely."""
    if kind in _LISTS and given is not None:
        if not isinstance(given, str):
            return f"; write [{_yaml(given)}]"
        entries = ", ".join(part.strip() for part in given.split(","))
        return f"; write [{entries}]" if entries and len(entries) < _SHORT else "; write [...]"
    if kind in _NUMBERS and isinstance(given, str):
        if _NUMBER.fullmatch(given):
            return "; leave the quotes out"
        if _NUMBER.fullmatch(given.replace(",", ".", 1)):
            return "; write a decimal point"
        if (with_unit := _WITH_UNIT.fullmatch(given)) is not None:
            share = f"as a share: {float(with_unit[1].replace('_', '')) / 100:g}"
            return f"; write {share if given[-1] == '%' else f'{with_unit[1]} without the unit'}"
    return ""


def _yaml(value: object) -> str:
    """A value as YAML writes it in one line, cut where it is long."""
    if isinstance(value, dict):
        said = "{" + ", ".join(f"{key}: {_yaml(below)}" for key, below in value.items()) + "}"
        return said if len(said) < _SHORT else "{...}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"[:_SHORT]


_SHORT = 60
_LISTS = ("tuple_type", "list_type")
_NUMBERS = ("int_type", "int_parsing", "float_type", "float_parsing")
_NUMBER = re.compile(r"[-+]?\d[\d_]*(\.\d*)?([eE][-+]?\d+)?")
_WITH_UNIT = re.compile(r"([-+]?\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?)\s?(?:[a-zA-Z]{1,7}|%)")


def _missing(loc: Sequence[str | int]) -> str:
    """What to do about a key that must be there."""
    key = loc[-1]
    if key == "format":
        return "the key 'format' is missing; add `format: 1` as the first line"
    if key == "study":
        return "the key 'study' is missing; add `study: NAME`"
    if loc[0] not in Config.model_fields:
        return f"the key {key!r} is missing here; add it"
    if len(loc) == 1:
        return f"the key {key!r} is missing; add it, or name a `base` that has it"
    return f"the key {key!r} is missing; give it a value or put it on an axis"


def _unknown(loc: Sequence[str | int], model: type[BaseModel]) -> str:
    """What a key that nobody knows may have meant: a near miss, or a key of another place."""
    key = str(loc[-1])
    name = repr(key) if len(key) <= _SHORT else f"{key[:_SHORT]!r}..."
    allowed = allowed_keys(loc, model)
    if not allowed:
        return f"unknown key {name}"
    close = did_you_mean(key, allowed)
    if not close and (places := list(_places_of(key, model))[:3]):
        close = f" (it belongs to {' or '.join(places)})"
    return f"unknown key {name}{close}; allowed: {', '.join(allowed)}"


def _places_of(key: str, model: type[BaseModel], lead: str = "") -> Iterator[str]:
    """The groups below a model that have a key of this name."""
    for name, info in model.model_fields.items():
        below = _group_in(info.annotation)
        if below is None:
            continue
        group = f"{lead}{info.alias or name}"
        if key in {one.alias or own for own, one in below.model_fields.items()}:
            yield group
        yield from _places_of(key, below, f"{group}.")


def _group_in(annotation: Any) -> type[BaseModel] | None:
    return (
        annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    )


def shown(value: object) -> str:
    """A value as the user would recognise it, cut to one line."""
    if isinstance(value, str):
        return f"the text {value[:_SHORT]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"{value!r}"[:_SHORT]


def allowed_keys(loc: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """The keys that are known where an unknown one stands, found by walking the models."""
    model: type[BaseModel] | None = root
    for part in loc[:-1]:
        if part in CLAIM_KINDS:
            model = CLAIM_KINDS[str(part)]
        elif model is not None:
            for name, info in model.model_fields.items():
                if part in (name, info.alias):
                    model = _model_in(info.annotation)
                    break
    if model is None:
        return []
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model inside an annotation: Model, dict[str, Model], Model | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
