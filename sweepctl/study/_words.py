"""How is a wrong value put in plain words? pydantic's error types in the language of a study."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sweepctl.study._claims import CLAIM_KINDS
from sweepctl.study._model import Study
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


def in_words(error: Mapping[str, Any], model: type[BaseModel] = Study) -> str:
    """One of pydantic's errors of a model as a sentence: what was given, what is allowed."""
    kind, given, context = error["type"], error.get("input"), error.get("ctx") or {}
    if kind in _NEEDS:
        return f"{_NEEDS[kind]}, not {shown(given)}"
    if kind == "missing":
        return f"the key {error['loc'][-1]!r} is missing; give it a value or put it on an axis"
    if kind == "extra_forbidden":
        key = str(error["loc"][-1])
        allowed = _allowed_keys(error["loc"], model)
        if not allowed:
            return f"unknown key {key!r}"
        return f"unknown key {key!r}{did_you_mean(key, allowed)}; allowed: {', '.join(allowed)}"
    if kind == "literal_error":
        names = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"must be {context['expected']}, not {shown(given)}{did_you_mean(given, names)}"
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


def shown(value: object) -> str:
    """A value as the user would recognise it, cut to one line."""
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"{value!r}"[:60]


def _allowed_keys(loc: tuple[str | int, ...], root: type[BaseModel]) -> list[str]:
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
