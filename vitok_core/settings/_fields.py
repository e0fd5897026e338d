"""What is said about a setting: remarks in its annotation, bounds, reading it from plain data."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt

from vitok_core.errors import SpecError
from vitok_core.spec import Flops, Memory, NetworkPrecision

Count = Annotated[int, Ge(1), Le(10**12)]
"""A number of things, at least one."""

Weight = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedLater:
    """Of a setting that the first study files did not have.

    Attributes:
        before: the value in force before it existed; never change it.
        only: config path of the group in which it came later, "" for all: settings that groups
            share may be as old as one of the groups.
    """

    before: Any
    only: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Of a setting that is no key of its group in a study.

    Attributes:
        path: config path of the setting that it follows.
    """

    path: str


@dataclass(frozen=True, slots=True)
class ShareOrCount:
    """Of a number that is a share of something below 1, and from 1 a whole number of it."""

    @staticmethod
    def allows(value: float) -> bool:
        """Whether a value is either."""
        return value < 1 or value == int(value)


@dataclass(frozen=True, slots=True)
class PerBatch:
    """Of a rate that a study may also give by a rule, such as {per_256: 1e-4}.

    Attributes:
        samples: of the batch that the rule's number is meant for.
    """

    samples: int

    @property
    def key(self) -> str:
        """Name of the rule's number."""
        return f"per_{self.samples}"

    def rate(self, number: float, batch: int) -> float:
        """The rate of a batch: number * batch / samples.

        Of the decimal numbers that people write, so that it is the float that they would write.
        """
        return float(Fraction(repr(number)) * batch / self.samples)

    def number(self, rate: float, batch: int) -> float:
        """The rule's number that gives a rate."""
        return float(Fraction(repr(rate)) * self.samples / batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A loss term that compares reconstructions with their originals, frame by frame.

    Attributes:
        title: what people call it.
        backbone: key into `vitok_core.protocols.BACKBONES` of the network it looks through, ""
            for none.
        option: the setting of `Loss` that chooses the backbone instead, "" where there is no
            choice.
        smallest: side in pixels of the smallest image it takes, besides its backbone's.
        flops: (backbone, side in pixels) to the operations of one frame, both passes.
        memory: (backbone, side in pixels, precision of its backbone) to the memory of one frame in
            training.
    """

    title: str
    backbone: str = ""
    option: str = ""
    smallest: int = 1
    flops: Callable[[str, int], Flops] = lambda backbone, side: Flops()
    memory: Callable[[str, int, NetworkPrecision], Memory] = lambda backbone, side, precision: (
        Memory(fixed=0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Why settings cannot be used.

    Attributes:
        path: config path of the setting to change, for example "stages.stage1.loss.kl".
        message: what is wrong, and what to do about it.
        when: (setting, its value, other setting, its value) where the second follows from the
            first, so that cells with the first need the second; None where it does not.
    """

    path: str
    message: str
    when: tuple[str, Any, str, Any] | None = None


Settings = TypeVar("Settings")


_HINTS: dict[type, dict[str, Any]] = {}


def hints(kind: type) -> dict[str, Any]:
    """Annotation of every field of a settings class, in their order."""
    if kind not in _HINTS:
        found = typing.get_type_hints(kind, include_extras=True)
        _HINTS[kind] = {one.name: found[one.name] for one in dataclasses.fields(kind)}
    return _HINTS[kind]


def said_of(hint: Any, what: type[Settings]) -> Settings | None:
    """The `Term`, `AddedLater` or other remark of one type in an annotation; None without."""
    remarks = getattr(hint, "__metadata__", ())
    return next((one for one in remarks if isinstance(one, what)), None)


def group_in(hint: Any) -> type | None:
    """The settings class that an annotation stands for; None for a single setting."""
    base = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    return base if isinstance(base, type) and dataclasses.is_dataclass(base) else None


def before_added(kind: type) -> dict[str, Any]:
    """Settings of a class that were added later -> the values before, nested as its groups are."""
    found: dict[str, Any] = {}
    for name, hint in hints(kind).items():
        group, remark = group_in(hint), said_of(hint, AddedLater)
        if group is not None and (below := before_added(group)):
            found[name] = below
        elif remark is not None:
            found[name] = remark.before
    return found


def from_plain(kind: type[Settings], plain: Mapping[str, Any]) -> Settings:
    """The settings that plain data describe; what is absent has its default.

    Args:
        kind: a class of this package.
        plain: name -> value, nested as the groups are; lists for tuples.

    Raises:
        SpecError: a name that is no setting of this kind.
    """
    made: Settings = _from_plain(kind, plain, None)
    return made


def _from_plain(kind: Any, plain: Mapping[str, Any], default: Any) -> Any:
    known = _groups(kind)
    values: dict[str, Any] = {}
    for name, value in plain.items():
        if name not in known:
            raise SpecError(name, f"{name!r} is not a setting; there are {', '.join(known)}")
        group = known[name]
        if group is not None:
            value = _from_plain(group, value, getattr(default or _default(kind), name))
        elif type(value) is list:
            value = tuple(value)
        values[name] = value
    return kind(**values) if default is None else dataclasses.replace(default, **values)


@functools.cache
def _groups(kind: type) -> dict[str, type | None]:
    return {name: group_in(hint) for name, hint in hints(kind).items()}


@functools.cache
def _default(kind: type) -> Any:
    return kind()


def check_bounds(settings: Any, *names: str) -> None:
    """Refuse a value that its own annotation does not allow, in any group.

    Args:
        settings: an instance of a class of this package.
        names: the settings to check; all without.

    Raises:
        SpecError: of the first one; `field` names it.
    """
    for name, hint in hints(type(settings)).items():
        value = getattr(settings, name)
        if names and name not in names:
            continue
        if group_in(hint) is not None:
            check_bounds(value)
        elif not _fits(hint, value):
            raise SpecError(name, f"{name} = {value!r}: must be {_allowed(hint)}")


_BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    Ge: ("at least", lambda value, bound: value >= bound.ge),
    Gt: ("above", lambda value, bound: value > bound.gt),
    Le: ("at most", lambda value, bound: value <= bound.le),
    Lt: ("below", lambda value, bound: value < bound.lt),
}


def _fits(hint: Any, value: Any) -> bool:
    if hasattr(hint, "__metadata__"):
        bounds = [one for one in hint.__metadata__ if type(one) in _BOUNDS]
        return (
            _fits(hint.__origin__, value)
            and all(_BOUNDS[type(b)][1](value, b) for b in bounds)
            and (said_of(hint, ShareOrCount) is None or ShareOrCount.allows(value))
        )
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(one, value) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(map(_fits, arguments, value))
        )
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if hint is type(None):
        return value is None
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _allowed(hint: Any) -> str:
    if hasattr(hint, "__metadata__"):
        bounds = [one for one in hint.__metadata__ if type(one) in _BOUNDS]
        said = " and ".join(f"{_BOUNDS[type(b)][0]} {getattr(b, b.__slots__[0])}" for b in bounds)
        either = "" if said_of(hint, ShareOrCount) is None else ", and whole from 1"
        return " ".join(filter(None, (_allowed(hint.__origin__), said))) + either
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(map(_allowed, arguments))
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        return f"{len(arguments)} values, each {_allowed(arguments[0])}"
    named = {int: "a whole number", float: "a number", bool: "true or false", type(None): "None"}
    return named.get(hint, "a text")


def raise_first(mistakes: Iterator[Mistake]) -> None:
    for mistake in mistakes:
        raise SpecError(mistake.path.rpartition(".")[2], mistake.message)
