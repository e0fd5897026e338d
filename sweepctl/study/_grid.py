"""What is expanded? The grid of a study with every name resolved, and the study file as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweepctl.errors import Problem
from sweepctl.paths import keys_of
from sweepctl.study import _paths
from sweepctl.study._model import Study
from sweepctl.study._paths import Condition
from sweepctl.study._search import Search, settled
from sweepctl.study._yaml import Document, KeyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor of the product: an axis, or several that move together.

    Attributes:
        paths: dotted config paths, one for an axis, several for a `zip` group.
        rows: the factor's levels; each has one value a path.
    """

    paths: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A partial match of a cell: all its conditions must hold.

    Attributes:
        where: place in the file, for messages.
        conditions: the conditions.
        stages: stages an `exclude` entry is limited to; empty for the whole cell.
    """

    where: str
    conditions: tuple[Condition, ...]
    stages: tuple[str, ...] = ()

    def holds(self, value_of: Callable[[str], object]) -> bool:
        """Whether a cell, given by a function from path to value, is matched."""
        return all(condition.holds(value_of(condition.path)) for condition in self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """Values (dotted path, value) that the matched cells get."""

    match: Match
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is expanded, with every name resolved to a config path.

    Attributes:
        template: a cell's config as plain data, defaults filled in.
        factors: the factors of the product, slowest first.
        exclude: cells, or stages of cells, to leave out.
        only: stage -> matches of the cells it is run for.
        fixed: derived name -> value all cells must have.
        solved: the paths of {tokenizer.p, tokenizer.c} that follow from `fixed`.
        when: conditional values, applied in the order of the file.
    """

    template: Mapping[str, Any]
    factors: tuple[Factor, ...]
    exclude: tuple[Match, ...]
    only: Mapping[str, tuple[Match, ...]]
    fixed: Mapping[str, float]
    solved: tuple[str, ...]
    when: tuple[Conditional, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFile:
    """A study and where it came from.

    Attributes:
        study: the validated study; its config part holds the first value of each axis.
        grid: what is expanded.
        document: the merged plain data with the place of every value.
        overrides: the `--set` options in their order.
    """

    study: Study
    grid: Grid
    document: Document
    overrides: tuple[str, ...]

    @property
    def text(self) -> str:
        """The study file as written, without its bases."""
        return self.document.text

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study.study

    def axis_key(self, path: str) -> KeyPath | None:
        """Where the axis of a config path, or its search, is declared in the document, or None."""
        for key in self.document.data.get("axes") or {}:
            if resolved(key) == path:
                return ("axes", key)
        for index, group in enumerate(self.document.data.get("zip") or []):
            for key in group:
                if resolved(key) == path:
                    return ("zip", index, key)
        for key in (self.document.data.get("search") or {}).get("space") or {}:
            if resolved(key) == path:
                return ("search", "space", key)
        return None

    def _axis_of(self, path: str) -> KeyPath | None:
        """As `axis_key`, also where it is the rule of the value that is varied."""
        rules = (one for one in _paths.config_leaves() if _paths.ruled_by(one) == path)
        return next(filter(None, map(self.axis_key, (path, *rules))), None)

    @property
    def search(self) -> Search | None:
        """What is searched, None for a study that is a grid."""
        return settled(self.study)

    def problem(self, path: str, message: str, value: object = None) -> Problem:
        """A problem with a cell's value: at the axis value, else where the config sets it."""
        where = self._axis_of(path)
        if where is not None:
            declared: Any = self.document.data
            for part in where:
                declared = declared[part]
            if isinstance(declared, list) and value in declared:
                where = (*where, declared.index(value))
            return self.document.problem(where, message)
        return self.document.problem(keys_of(path), message)

    def origin(self, path: str) -> str:
        """Where a config value was set: "file:line:column", "--set ..." or "default"."""
        where = self._axis_of(path) or keys_of(path)
        mark = self.document.values.get(where)
        return "default" if mark is None else mark.place


def resolved(name: object) -> str | None:
    """The config path a name stands for, or None when it stands for none."""
    try:
        return _paths.resolve(name) if isinstance(name, str) else None
    except ValueError:
        return None
