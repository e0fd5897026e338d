"""Which further cells could a study have? Its axes with values between and around those it has.

The first plan has the study's own cells, then every further one that can be built: a combination of
axis values, of values between them where an axis is numeric, or of further seeds. Between whole
numbers lie powers of two and three halves of them; between others the geometric (or, with a 0 or a
negative number, the arithmetic) mean of neighbours. Whatever the study itself would refuse or
exclude is left out, so a candidate can be pasted into the study as it is.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweepctl.errors import StudyError, UsageError
from sweepctl.plan._expand import expand
from sweepctl.plan._identity import DataSet
from sweepctl.study import Factor, StudyFile, is_valid, short_name

MOST = 20_000
"""Most combinations that are tried; each costs about a fifth of a millisecond."""

_SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """A study's own cells and those that it could have, as one factor.

    Attributes:
        study: a study whose plan has a cell for each row, in their order.
        own: how many of them are the study's own.
    """

    study: StudyFile
    own: int

    def block(self, further: Sequence[int]) -> str:
        """A `zip:` block that gives the study's own cells and some of the others.

        It goes in place of the study's `axes:` and `zip:`.

        Args:
            further: numbers of the others, from `own` + 1.
        """
        factor = self.study.grid.factors[0]
        rows = [*factor.rows[: self.own], *(factor.rows[cell - 1] for cell in further)]
        lines, lead = ["zip:"], "- "
        for path, values in zip(factor.paths, zip(*rows, strict=True), strict=True):
            lines.append(f"  {lead}{short_name(path)}: [{', '.join(map(_yaml, values))}]")
            lead = "  "
        return "\n".join(lines) + "\n"


def candidates(
    study: StudyFile,
    *,
    data: Mapping[str, DataSet],
    within: Mapping[str, tuple[float, float]],
    seeds: int = 0,
) -> Candidates:
    """The cells of a study and all that it could have.

    Args:
        study: the study.
        data: the data sets by name.
        within: bounds by the axis's short name or path; the range of its values where none is
            given.
        seeds: most further seeds of any configuration, 0 for none.

    Raises:
        UsageError: a bound belongs to no numeric axis, or there are too many combinations.
    """
    factors = study.grid.factors
    paths = [path for factor in factors for path in factor.paths]
    if not paths:
        raise UsageError(
            "the study has one cell and no axes, so there is nothing to choose from",
            hint="put what may vary on an axis",
        )
    levels = [_levels(factor, _bounds(factors, within)) for factor in factors]
    count = math.prod(len(rows) for rows in levels)
    if count > MOST:
        raise UsageError(
            f"{count:,} combinations of values could be chosen from; at most {MOST:,} are tried",
            hint="narrow an axis: --within c=8..32",
        )
    seen: set[str] = set()

    def cells(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        found = []
        for row in rows:
            key = _key(study, paths, row, data)
            if key is not None and key not in seen:
                seen.add(key)
                found.append(row)
        return found

    own = cells(map(_joined, itertools.product(*(factor.rows for factor in factors))))
    new = cells(map(_joined, itertools.product(*levels)))
    if seeds:
        if _SEED not in paths:
            paths.append(_SEED)
            first = study.grid.template[_SEED]
            own, new = ([(*row, first) for row in rows] for rows in (own, new))
        new += cells(_further_seeds([*own, *new], paths.index(_SEED), seeds))
    return Candidates(study=_of_rows(study, paths, [*own, *new]), own=len(own))


def _joined(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(itertools.chain.from_iterable(parts))


def _bounds(
    factors: Sequence[Factor], within: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    names = {
        name: factor.paths[0]
        for factor in factors
        if len(factor.paths) == 1 and _numeric(factor) and factor.paths[0] != _SEED
        for name in (factor.paths[0], short_name(factor.paths[0]))
    }
    found = {}
    for name, ends in within.items():
        if name not in names:
            known = ", ".join(dict.fromkeys(short_name(path) for path in names.values())) or "none"
            raise UsageError(
                f"--within {name}: it is no numeric axis of the study; there are: {known}",
                hint="a zip group keeps its values, seeds are chosen by --seeds-too",
            )
        found[names[name]] = ends
    return found


def _numeric(factor: Factor) -> bool:
    return all(_number(row[0]) for row in factor.rows)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _levels(factor: Factor, bounds: Mapping[str, tuple[float, float]]) -> list[tuple[Any, ...]]:
    """The rows of a factor, with values between; those outside stated bounds left out."""
    path = factor.paths[0]
    if len(factor.paths) > 1 or not _numeric(factor):
        return list(factor.rows)
    values = [row[0] for row in factor.rows]
    if path == _SEED:
        return [(values[0],)]
    stated = bounds.get(path)
    low, high = stated or (min(values), max(values))
    between: list[Any] = _whole(low, high) if _all_whole(values) else _means(values, stated)
    # Expanding a cell does not look at each leaf, because a study that was loaded has been checked.
    every = sorted({*values, *(value for value in between if is_valid(path, value))})
    return [(value,) for value in every if low <= value <= high]


def _all_whole(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int) for value in values)


def _whole(low: float, high: float) -> list[int]:
    """2^k and 3 * 2^k inside the bounds, and the bounds themselves."""
    found = {int(end) for end in (low, high) if end == int(end)}
    step = 1
    while step <= high:
        found |= {value for value in (step, 3 * step) if low <= value <= high}
        step *= 2
    return sorted(found)


def _means(values: Sequence[float], stated: tuple[float, float] | None) -> list[float]:
    """Between neighbours, stated bounds being such, their mean; three digits will do."""
    ends = sorted({*values, *(stated or ())})
    positive = ends[0] > 0
    return [
        float(f"{math.sqrt(a * b) if positive else (a + b) / 2:.3g}")
        for a, b in itertools.pairwise(ends)
    ] + [float(end) for end in stated or ()]


def _of_rows(study: StudyFile, paths: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> StudyFile:
    factor = Factor(paths=tuple(paths), rows=tuple(rows))
    return dataclasses.replace(study, grid=dataclasses.replace(study.grid, factors=(factor,)))


def _key(
    study: StudyFile, paths: Sequence[str], row: tuple[Any, ...], data: Mapping[str, DataSet]
) -> str | None:
    """The key of the cell that a combination is; None where it is none that could be run."""
    try:
        return expand(_of_rows(study, paths, [row]), data).points[0].key
    except StudyError:
        return None


def _further_seeds(
    rows: Iterable[tuple[Any, ...]], at: int, seeds: int
) -> Iterator[tuple[Any, ...]]:
    """Each configuration with the smallest seeds that it does not have yet."""
    taken: dict[str, tuple[tuple[Any, ...], set[int]]] = {}
    for row in rows:
        rest = json.dumps((*row[:at], *row[at + 1 :]), default=list, sort_keys=True)
        taken.setdefault(rest, (row, set()))[1].add(row[at])
    for row, used in taken.values():
        free = (seed for seed in itertools.count() if seed not in used)
        for seed in itertools.islice(free, seeds):
            yield (*row[:at], seed, *row[at + 1 :])


def _yaml(value: Any) -> str:
    """A value as YAML 1.2 reads it back: JSON, with texts bare that need no quotes."""
    if isinstance(value, str) and value.isidentifier() and value.lower() not in _WORDS:
        return value
    return json.dumps(value, default=list)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
