"""Which config value does a name in a study mean? Leaves, short names, did-you-mean."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from sweepctl.columns import DERIVED
from sweepctl.kinds import optional_groups
from sweepctl.paths import get, put
from sweepctl.study._model import FIXABLE, Config
from sweepctl.study._values import parse_comparison
from vitok_core.protocols import METRICS
from vitok_core.settings import LR_RULE, AddedLater


@cache
def config_leaves() -> dict[str, FieldInfo]:
    """Every leaf of a cell's config by its dotted path, in the order of the models."""
    leaves: dict[str, FieldInfo] = {}

    def walk(model: type[BaseModel], lead: str) -> None:
        for name, info in model.model_fields.items():
            annotation = info.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                walk(annotation, f"{lead}{name}.")
            else:
                leaves[f"{lead}{name}"] = info
                for form in get_args(annotation):
                    if isinstance(form, type) and issubclass(form, BaseModel):
                        walk(form, f"{lead}{name}.")

    walk(Config, "")
    return leaves


@cache
def ruled_by(path: str) -> str | None:
    """The leaf that a rule gives: `...lr` of the leaf `...lr.per_256`; None for other leaves."""
    lead = path.rpartition(".")[0]
    return lead if lead in config_leaves() else None


def whole_leaf(path: str) -> str:
    """The leaf whose value a leaf sets: itself, or the one that it is the rule of."""
    return ruled_by(path) or path


def put_leaf(tree: dict[str, Any], path: str, value: object) -> None:
    """Set a leaf of a cell's config, in place; a rule takes the place of the number it gives."""
    ruled = ruled_by(path)
    if ruled is None:
        put(tree, path, value)
    else:
        put(tree, ruled, {path.removeprefix(f"{ruled}."): value})


def not_varied(path: str, value: object) -> str | None:
    """Why a value cannot be one of several of an axis or a search: it is a rule; None where it can.

    Rules are varied by their number, which is what tables and laws then show.
    """
    rules = [leaf for leaf in config_leaves() if ruled_by(leaf) == path]
    if not isinstance(value, dict) or not rules:
        return None
    return f"a rule is varied by its number: write {short_name(rules[0])}: [...] instead"


def value_at(config: Mapping[str, Any], path: str) -> Any:
    """The value of a leaf of a cell's config; None where there is none.

    Of the rule of a rate it is the number that gives the rate which the cell has.
    """
    ruled = ruled_by(path)
    if ruled is None:
        return get(config, path)
    rate = get(config, ruled)
    if isinstance(rate, Mapping):
        return rate.get(path.removeprefix(f"{ruled}."))
    batch = get(config, f"{'.'.join(path.split('.')[:2])}.batch")
    return None if rate is None or batch is None else LR_RULE.number(rate, batch)


@cache
def added_later() -> dict[str, Any]:
    """Config path of each setting that was added to the format -> the value in force before."""
    return {
        path: remark.before
        for path, info in config_leaves().items()
        for remark in info.metadata
        if isinstance(remark, AddedLater) and path.startswith(remark.only)
    }


@cache
def leaf_adapter(path: str) -> TypeAdapter[Any]:
    """The validator of one leaf on its own."""
    info = config_leaves()[path]
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[(annotation, *info.metadata)]
    return TypeAdapter(annotation)


def is_valid(path: str, value: object) -> bool:
    """Whether a leaf may have a value at all, whatever the rest of the cell is."""
    try:
        leaf_adapter(path).validate_python(value)
    except ValueError:
        return False
    return True


@cache
def short_name(path: str) -> str:
    """What a path is called in tables: its shortest end that stands for it and for no number.

    The weight of LPIPS is `loss.lpips`: tables have a column `lpips` for what was measured.
    """
    steps = path.split(".")
    fewest = 1 if ruled_by(path) is None else 2  # lr.per_256, not per_256
    ends = [".".join(steps[-count:]) for count in range(fewest, len(steps))]
    free = (end for end in ends if end not in DERIVED and end not in METRICS)
    return next((end for end in free if _meant(end) == [path]), path)


@cache
def _meant(name: str) -> list[str]:
    """The paths that end in a name; of several, the one that every cell has, if there is one."""
    matches = [leaf for leaf in config_leaves() if leaf.endswith(f".{name}")]
    always = [leaf for leaf in matches if not leaf.startswith(_OPTIONAL)]
    return always if len(always) == 1 else matches


_OPTIONAL = tuple(f"{group}." for group in optional_groups())


def resolve(name: str) -> str:
    """The dotted path that a path or an end of one stands for.

    An end of several paths stands for the one that every cell has, if there is just one: `steps` is
    that of stage 1, and stage 2 has `stage2.steps`.

    Raises:
        ValueError: nothing, or more than one thing, has that name; says what there is.
    """
    leaves = config_leaves()
    if name in leaves:
        return name
    matches = _meant(name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"{name!r} could be {', '.join(matches)}; write more of the path")
    if name in DERIVED or name == "L":
        raise ValueError(_follows("tokens" if name == "L" else name))
    if name in METRICS:
        raise ValueError(f"{name} is a metric, which is measured and cannot be set")
    within = [leaf for leaf in leaves if f".{name}." in f".{leaf}"]
    if within:
        raise ValueError(f"{name!r} is a group, not a value; take one of {', '.join(within)}")
    known = [*leaves, *(short_name(leaf) for leaf in leaves)]
    raise ValueError(f"there is no {_cut(name)} in a cell's config{did_you_mean(name, known)}")


def _cut(given: object) -> str:
    """A name as messages show it."""
    said = repr(given)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 4]}...'"


def _follows(name: str) -> str:
    """Why a derived value cannot be set, and what can be said of it."""
    said = f"{name} cannot be set: it follows from other settings"
    if name in FIXABLE:
        return f"{said}; hold it at one value with `fixed: {{{name}: VALUE}}`, or vary p and c"
    return f"{said}; vary those"


def closest(given: object, allowed: Iterable[str]) -> str | None:
    """The allowed name that a near miss means, whatever its case; None for no near miss."""
    names = list(allowed)
    word = str(given)[:_LONGEST]
    folded = {_folded(name): name for name in reversed(names)}
    if _folded(word) in folded:
        return folded[_folded(word)]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return close[0] if close else None


_LONGEST = 100
"""Characters of a name that are compared; what is longer is no slip of a name."""


def _folded(name: str) -> str:
    return name.strip().casefold().replace("-", "_")


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for a near miss, else nothing."""
    close = closest(given, allowed)
    return "" if close is None or close == given else f" (did you mean {close!r}?)"


def not_among(given: object, allowed: Sequence[str], what: str) -> str:
    """The message for an unknown name: what was given, what is allowed, the likely slip."""
    return (
        f"unknown {what} {_cut(given)}{did_you_mean(given, allowed)}; known: {', '.join(allowed)}"
    )


def or_any(given: Collection[str], known: Collection[str]) -> Collection[str]:
    """The given names; of a wrong one any may be meant, and then these are all that are known.

    A slip in the name of a metric is a mistake there, and not once more wherever it is used.
    """
    return given if all(name in known for name in given) else {*given, *known}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One key of a match: a config path or a derived name, and what its value must be.

    Attributes:
        path: dotted config path, or one of `DERIVED`.
        anyof: values of which one must be equal; empty when `comparison` is used.
        comparison: operator and number, or None.
    """

    path: str
    anyof: tuple[object, ...]
    comparison: tuple[str, float] | None

    def holds(self, value: object) -> bool:
        """Whether a cell's value meets the condition."""
        if self.comparison is None:
            return any(_equal(value, wanted) for wanted in self.anyof)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        operator, number = self.comparison
        return {
            ">": value > number,
            ">=": value >= number,
            "<": value < number,
            "<=": value <= number,
        }[operator]


def _equal(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def condition(name: str, wanted: object) -> Condition:
    """Read one key of a match.

    Raises:
        ValueError: the name means nothing, or the value can never be met.
    """
    path = name if name in DERIVED else resolve(name)
    comparison = parse_comparison(wanted)
    if comparison is not None:
        return Condition(path=path, anyof=(), comparison=(comparison.operator, comparison.value))
    values = tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,)
    if not values:
        raise ValueError("an empty list matches nothing")
    for value in values:
        if isinstance(value, dict):
            raise ValueError("a match takes a value, a list of values, or text like '>= 1024'")
        if path in DERIVED and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{path} is a number; match it with a number or text like '>= 1024'")
        if path not in DERIVED:
            plain = tuple(value) if isinstance(value, list) else value
            leaf_adapter(path).validate_python(plain)
    return Condition(path=path, anyof=values, comparison=None)
