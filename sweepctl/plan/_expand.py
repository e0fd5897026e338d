"""Which cells does a study have? The product of its factors, solved, filtered and checked.

For each combination, in this order: axis values are put into the config, p or c is solved from
`fixed`, conditional values are applied, cells that miss `fixed` are dropped and named, excluded
cells are left out, and what remains must be a tokenizer that can be built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweepctl.errors import Problem, StudyError
from sweepctl.plan._identity import DataSet, canonical, fingerprint, lasting
from sweepctl.plan._mistakes import Mistake, mistakes
from sweepctl.study import DERIVED, Factor, Grid, StudyFile, short_name
from vitok_core.errors import SpecError
from vitok_core.spec import IMAGE_CHANNELS, TokenizerSpec

MAX_CELLS = 100_000
"""Most combinations a study may expand to; a tenth of it is already a large cluster's year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell before tasks are made of it.

    Attributes:
        key: hash of the lasting config.
        axes: short axis name -> value.
        config: the resolved config, plain data.
        lasting: the part of it that identifies; see `_identity.lasting`.
        spec: the tokenizer it describes.
        tokens: of the code that is measured: all, or the length that is evaluated.
        stages_left_out: stages this cell is excluded from.
    """

    key: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    lasting: Mapping[str, Any]
    spec: TokenizerSpec
    tokens: int
    stages_left_out: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A combination that is no cell: its axis values and the reason."""

    axes: Mapping[str, Any]
    reason: str


@dataclass(slots=True, kw_only=True)
class Expansion:
    """The cells of a study, what was dropped and what a user should be told."""

    points: list[Point] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def expand(
    study: StudyFile,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None] = lambda name: None,
) -> Expansion:
    """All cells of a study, in the order of its axes (the first axis varies slowest).

    Args:
        study: the study.
        data: the data sets by name.
        missing: why a pretrained file cannot be used, or None.

    Raises:
        StudyError: too many combinations, a cell that cannot be run, or no cell left.
    """
    grid = study.grid
    count = math.prod(len(factor.rows) for factor in grid.factors)
    if count > MAX_CELLS:
        sizes = " x ".join(str(len(factor.rows)) for factor in grid.factors)
        message = f"{sizes} = {count:,} combinations; a study has at most {MAX_CELLS:,}"
        raise StudyError([study.document.problem(("axes",), message, prefer_key=True)])
    _check_solvable(study)

    result = Expansion()
    problems: dict[tuple[str, str], Problem] = {}
    seen: dict[str, int] = {}
    matched: set[str] = set()
    for rows in itertools.product(*(factor.rows for factor in grid.factors)):
        axes, config = _assign(grid, rows)
        cell = _Cell(config)
        reason = cell.solve(grid)
        if reason is None:
            cell.condition(grid)
            reason = cell.miss(grid)
        if reason is not None:
            result.dropped.append(Dropped(axes=axes, reason=reason))
            continue
        left_out, excluded = cell.exclusions(grid, matched)
        if excluded:
            result.dropped.append(Dropped(axes=axes, reason=f"excluded by {excluded}"))
            continue
        found = cell.mistakes(data, missing)
        for path, message in found:
            value = _value(cell.config, path)
            problems.setdefault((path, repr(value)), study.problem(path, message, value))
        if found:
            continue
        identified = lasting(cell.config)
        key = fingerprint(canonical(identified))
        if key in seen:
            reason = f"the same as cell {seen[key]}"
            result.dropped.append(Dropped(axes=axes, reason=reason))
            continue
        result.points.append(
            Point(
                key=key,
                axes=axes,
                config=cell.config,
                lasting=identified,
                spec=cell.spec,
                tokens=cell.tokens,
                stages_left_out=left_out,
            )
        )
        seen[key] = len(result.points)
    if problems:
        raise StudyError(list(problems.values()))
    if not result.points:
        reasons = "; ".join(sorted({dropped.reason for dropped in result.dropped})[:3])
        message = f"no cell is left of {count:,} combinations: {reasons}"
        where = "fixed" if grid.fixed else "exclude" if grid.exclude else "axes"
        raise StudyError([study.document.problem((where,), message, prefer_key=True)])
    for entry in grid.exclude:
        if entry.where not in matched:
            result.notices.append(f"{entry.where}: this exclude entry matches no cell")
    return result


def _assign(grid: Grid, rows: tuple[tuple[Any, ...], ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    axes: dict[str, Any] = {}
    config = dict(grid.template)
    for factor, row in zip(grid.factors, rows, strict=True):
        for path, value in zip(factor.paths, row, strict=True):
            axes[short_name(path)] = value
            _put(config, path, value)
    return axes, config


def _put(config: dict[str, Any], path: str, value: object) -> None:
    """Set a value in place, copying the mappings that lead to it: the template stays as it is."""
    *lead, last = path.split(".")
    here = config
    for part in lead:
        here[part] = dict(here[part])
        here = here[part]
    here[last] = value


def _check_solvable(study: StudyFile) -> None:
    """Refuse `fixed` values that can never be met or leave too much open."""
    fixed, solved, problems = study.grid.fixed, study.grid.solved, []
    for name, value in fixed.items():
        if value <= 0 or (name != "compression" and value != int(value)):
            problems.append(
                study.document.problem(("fixed", name), f"{name} must be a whole number above 0")
            )
    if "tokenizer.p" in solved and "tokens" not in fixed and "tokenizer.c" in solved:
        names = " and ".join(fixed)
        message = f"{names} cannot give both p and c; put one of them on an axis or give its value"
        problems.append(study.document.problem(("fixed",), message, prefer_key=True))
    if "tokenizer.c" in solved and not {"E", "compression"} & fixed.keys():
        message = "tokens do not give c; put c on an axis, give its value, or fix E"
        problems.append(study.document.problem(("fixed",), message, prefer_key=True))
    if problems:
        raise StudyError(problems)


def _value(config: Mapping[str, Any], path: str) -> Any:
    here: Any = config
    for part in path.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


class _Cell:
    """One combination while it is being worked out."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.error: SpecError | None = None
        self._derive()

    def _derive(self) -> None:
        data, tokenizer = self.config["data"], self.config["tokenizer"]
        self.spec = TokenizerSpec(
            **{**tokenizer, "lengths": tuple(tokenizer["lengths"])},
            resolution=data["resolution"],
            frames=data["frames"],
        )
        try:
            self.spec.check()
        except SpecError as error:
            self.error = error
        else:
            self.error = None

    @property
    def tokens(self) -> int:
        """Tokens of the code that is measured: all, or the length that is evaluated."""
        length: int | None = self.config["evaluate"]["reconstruction"]["length"]
        return self.spec.tokens if length is None else length

    def value_of(self, path: str) -> object:
        """A config value, or a derived one; None where the tokenizer cannot be built."""
        if path in DERIVED:
            return None if self.error else derived(self.spec, self.tokens)[path]
        return _value(self.config, path)

    def mistakes(
        self, data: Mapping[str, DataSet], missing: Callable[[str], str | None]
    ) -> list[Mistake]:
        """What makes the cell impossible."""
        return list(mistakes(self.config, self.spec, self.error, data, missing))

    def solve(self, grid: Grid) -> str | None:
        """Fill p and c from the fixed values; the reason when that cannot be."""
        fixed, spec = grid.fixed, self.spec
        if not grid.solved:
            return None
        volume = spec.frames * spec.resolution**2
        code = fixed.get("E")
        if code is None and "compression" in fixed:
            code = IMAGE_CHANNELS * volume / fixed["compression"]
        if "tokenizer.p" in grid.solved:
            length = self.config["evaluate"]["reconstruction"]["length"]
            if spec.latent_tokens is not None or length is not None:
                return f"p does not decide the {self.tokens} tokens of this code; give p a value"
            tokens = fixed.get("tokens")
            if tokens is None:
                assert code is not None  # _check_solvable
                tokens = code / spec.c
            side = math.sqrt(tokens * spec.q / spec.frames)
            p = spec.resolution / side
            if side != int(side) or p != int(p):
                return f"no p gives {tokens:g} tokens at {spec.resolution} px"
            _put(self.config, "tokenizer.p", int(p))
            self._derive()
        if "tokenizer.c" in grid.solved:
            # With c unknown, only what is wrong besides it counts here.
            if self.error is not None and self.error.field != "c":
                return None  # reported as what it is
            assert code is not None  # _check_solvable
            c = code / self.tokens
            if c != int(c) or c < 1:
                return f"no whole c gives E = {code:g} with {self.tokens} tokens"
            _put(self.config, "tokenizer.c", int(c))
            self._derive()
        return None

    def condition(self, grid: Grid) -> None:
        """Apply the conditional values whose match holds, in the order of the file."""
        for conditional in grid.when:
            if conditional.match.holds(self.value_of):
                for path, value in conditional.values:
                    _put(self.config, path, value)
                self._derive()

    def miss(self, grid: Grid) -> str | None:
        """Why this cell misses the fixed values, or None."""
        if self.error is not None or not grid.fixed:
            return None
        values = derived(self.spec, self.tokens)
        for name, wanted in grid.fixed.items():
            has = values[name]
            if has != wanted:
                return f"{name} is {has:g}, not {wanted:g}"
        return None

    def exclusions(self, grid: Grid, matched: set[str]) -> tuple[frozenset[str], str]:
        """Stages this cell is left out of, and the place of the entry that excludes it whole."""
        left_out: set[str] = set()
        for entry in grid.exclude:
            if entry.holds(self.value_of):
                matched.add(entry.where)
                if not entry.stages:
                    return frozenset(), entry.where
                left_out.update(entry.stages)
        for stage, entries in grid.only.items():
            if not any(entry.holds(self.value_of) for entry in entries):
                left_out.add(stage)
        return frozenset(left_out), ""


def derived(spec: TokenizerSpec, tokens: int) -> dict[str, Any]:
    """The values of `DERIVED` for a tokenizer whose code is measured at a number of tokens."""
    code = tokens * spec.c
    return {
        "tokens": tokens,
        "E": code,
        "compression": IMAGE_CHANNELS * spec.frames * spec.resolution**2 / code,
        "parameters": spec.parameters,
        "macs": spec.macs,
        "encoder_parameters": spec.encoder_parameters,
        "decoder_parameters": spec.decoder_parameters,
        "encoder_macs": spec.encoder_macs,
        "decoder_macs": spec.decoder_macs,
    }


def axis_names(factors: tuple[Factor, ...]) -> tuple[str, ...]:
    """Short names of all axes, in the order of the study."""
    return tuple(short_name(path) for factor in factors for path in factor.paths)
