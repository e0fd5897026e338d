"""The cells of a study: the product of its factors, solved, filtered and checked.

For each combination, in this order: axis values are put into the config, p or c is solved from
`fixed`, conditional values are applied, cells that miss `fixed` are dropped and named, excluded
cells are left out, and what remains must be a tokenizer that can be built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweepctl import paths
from sweepctl.columns import COLUMNS, DERIVED, derive
from sweepctl.errors import Problem, StudyError
from sweepctl.kinds import Kind, optional_groups
from sweepctl.plan._identity import (
    ALLOW_OVERLAP,
    DataSet,
    canonical,
    fingerprint,
    group_of,
    groups_off,
    lasting,
)
from sweepctl.plan._mistakes import (
    Mistake,
    absences,
    means_nothing,
    mistakes,
    overlaps,
    ruled_out,
    short_averages,
    short_ramps,
)
from sweepctl.plan._model import Dropped, Placed, Point, Trial, code_of
from sweepctl.study import (
    Factor,
    Grid,
    Search,
    StudyFile,
    put_leaf,
    ruled_by,
    short_name,
    value_at,
)
from vitok_core.errors import SpecError
from vitok_core.settings import LR_RULE, Stages, following, from_plain, rates
from vitok_core.spec import IMAGE_CHANNELS, DiTSpec, TokenizerSpec

MAX_CELLS = 100_000
"""Most combinations a study may expand to; a tenth of it is already a large cluster's year."""


@dataclass(slots=True, kw_only=True)
class Expansion:
    """The cells of a study, what was dropped, what a user should be told, what is not here."""

    points: list[Point] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    absent: list[Problem] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)

    def drop(self, axes: Mapping[str, Any], reason: str, key: str = "") -> None:
        """Note a combination that is no cell of its own; `key` is that of the cell it is."""
        self.dropped.append(Dropped(axes=axes, reason=reason))
        self.placed.append(Placed(key=key, why_not="" if key else reason))


def expand(
    study: StudyFile,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None] = lambda name: None,
    trials: Sequence[Trial] | None = None,
    shown: Sequence[Mapping[str, Any]] = (),
) -> Expansion:
    """All cells of a study, in the order of its axes (the first axis varies slowest).

    Args:
        study: the study.
        data: the data sets by name.
        missing: why a pretrained file cannot be used, or None.
        trials: what a search has asked so far: the cells are these. One that cannot be run is
            dropped with the reason, which is not an error. None for a grid, or for a search that is
            shown by one point.
        shown: that point for each combination of the axes; without, the first that the search
            starts with, or one in the middle of its space.

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
    expander = _Expander(study, data, missing, are_trials=trials is not None)
    for combination in _combinations(grid, study.search, trials, shown):
        expander.take(combination)
    if trials is None:
        expander.check(count)
    expander.result.absent.extend(expander.absent.values())
    return expander.result


class _Expander:
    """The state of an expansion: what was found in the combinations so far."""

    def __init__(
        self,
        study: StudyFile,
        data: Mapping[str, DataSet],
        missing: Callable[[str], str | None],
        *,
        are_trials: bool,
    ) -> None:
        self.study = study
        self.data = data
        self.missing = missing
        self.are_trials = are_trials
        self.varied = axis_paths(study.grid.factors, study.search)
        self.result = Expansion()
        self.problems: dict[tuple[str, str], Problem] = {}
        self.absent: dict[tuple[str, str], Problem] = {}
        self.seen: dict[str, int] = {}
        self.matched: set[str] = set()
        self.used: set[str] = set()  # optional groups that are on in some cell
        self.noticed: dict[str, None] = {}

    def take(self, combination: _Combination) -> None:
        """Turn one combination into a cell, or note why it is none."""
        study, grid, result = self.study, self.study.grid, self.result
        cell = _Cell(combination.config, self.data)
        reason = cell.solve(grid)
        if reason is None:
            cell.rule_out(combination.unsearched)
            cell.condition(grid)
            reason = cell.miss(grid)
        axes = combination.axes | {
            short_name(path): value_at(cell.config, path) for path in combination.unsearched
        }
        if reason is not None:
            result.drop(axes, reason)
            return
        left_out, excluded = cell.exclusions(grid, self.matched)
        if excluded:
            result.drop(axes, f"excluded by {excluded}")
            return
        found = cell.mistakes(self.data)
        if found:
            if self.are_trials:
                result.drop(axes, "; ".join(message for _, message in found))
                return
            for path, message in found:
                value = paths.get(cell.config, path)
                self.problems.setdefault((path, repr(value)), study.problem(path, message, value))
            return
        if cell.config["evaluate"]["allow_overlap"] and not overlaps(cell.config, self.data):
            # Recorded only where it is so, which is what results say.
            paths.put(cell.config, ALLOW_OVERLAP, False)
        off = groups_off(cell.config)
        self.used.update(optional_groups().keys() - set(off))
        self.noticed.update(dict.fromkeys(short_averages(cell.stages, off)))
        self.noticed.update(dict.fromkeys(short_ramps(cell.stages, off)))
        point = cell.point(_without_effect(self.varied, axes, off), left_out)
        if point.key in self.seen:
            result.drop(axes, f"the same as cell {self.seen[point.key]}", point.key)
            return
        for path, message in absences(cell.config, cell.stages, self.data, self.missing):
            value = paths.get(cell.config, path)
            self.absent.setdefault((path, message), study.problem(path, message, value))
        result.points.append(point)
        self.seen[point.key] = len(result.points)
        result.placed.append(Placed(key=point.key))

    def check(self, count: int) -> None:
        """Refuse what cannot be run, and note what a user of this study should know.

        Raises:
            StudyError: a cell that cannot be run, or none is left of the `count` combinations.
        """
        study, result = self.study, self.result
        if not self.problems and result.points:
            result.notices.extend(self.noticed)
            if study.search is None:  # a choice may turn on what is off in the middle of the space
                self.problems.update(_in_vain(study, self.used))
                self.problems.update(_without_meaning(study, result.points))
                result.notices.extend(_idle_groups(study, self.used))
        if self.problems:
            raise StudyError(list(self.problems.values()))
        if not result.points:
            raise StudyError([_no_cell(study, count, result.dropped)])
        for entry in study.grid.exclude if study.search is None else ():  # it has other points
            if entry.where not in self.matched:
                result.notices.append(f"{entry.where}: this exclude entry matches no cell")


def _no_cell(study: StudyFile, count: int, dropped: Sequence[Dropped]) -> Problem:
    reasons = "; ".join(sorted({one.reason for one in dropped})[:3])
    message = f"no cell is left of {count:,} combinations: {reasons}"
    if study.search is not None:
        message = f"no point of the search is possible: {reasons}"
    where = "fixed" if study.grid.fixed else "exclude" if study.grid.exclude else "axes"
    return study.document.problem((where,), message, prefer_key=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Combination:
    """Values that are put together: those of the axes and of the point of a search.

    Attributes:
        axes: short name -> value.
        config: that of the study with these values.
        unsearched: paths whose condition does not hold at the point; the config has the study's
            own value of them, or the default.
    """

    axes: dict[str, Any]
    config: dict[str, Any]
    unsearched: tuple[str, ...] = ()


def _combinations(
    grid: Grid,
    search: Search | None,
    trials: Sequence[Trial] | None,
    shown: Sequence[Mapping[str, Any]],
) -> Iterator[_Combination]:
    """The combinations of a grid, or the trials of a search."""
    if trials is None:
        every = itertools.product(*(factor.rows for factor in grid.factors))
        for number, rows in enumerate(every):
            axes, config = _assign(grid, rows)
            if search is None:
                yield _Combination(axes=axes, config=config)
            else:
                point = shown[number] if shown else search.middle
                yield _at_point(search, _by_path(grid, rows), point, axes, config)
        return
    assert search is not None
    for trial in trials:
        axes, config = {}, dict(grid.template)
        for path, value in trial.axes.items():
            axes[short_name(path)] = value
            put_leaf(config, path, value)
        yield _at_point(search, trial.axes, trial.values, axes, config)


def _by_path(grid: Grid, rows: tuple[tuple[Any, ...], ...]) -> dict[str, Any]:
    every = (path for factor in grid.factors for path in factor.paths)
    return dict(zip(every, itertools.chain(*rows), strict=True))


def _at_point(
    search: Search,
    gridded: Mapping[str, Any],
    values: Mapping[str, Any],
    axes: dict[str, Any],
    config: dict[str, Any],
) -> _Combination:
    """A combination with the values of a point, which are those that are searched there."""
    point = search.at(gridded).searched_part(values)
    for path, value in point.items():
        put_leaf(config, path, value)
    every = [dimension.path for dimension in search.space]
    return _Combination(
        axes=axes | {short_name(path): point.get(path) for path in every},
        config=config,
        unsearched=tuple(path for path in every if path not in point),
    )


def _assign(grid: Grid, rows: tuple[tuple[Any, ...], ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    axes: dict[str, Any] = {}
    config = dict(grid.template)
    for factor, row in zip(grid.factors, rows, strict=True):
        for path, value in zip(factor.paths, row, strict=True):
            axes[short_name(path)] = value
            put_leaf(config, path, value)
    return axes, config


def _without_effect(
    varied: Sequence[str], axes: dict[str, Any], off: tuple[str, ...]
) -> dict[str, Any]:
    """The axis values of a cell, None for those of groups that it is without."""
    if not off:
        return axes
    return axes | {short_name(path): None for path in varied if group_of(path) in off}


def _in_vain(study: StudyFile, used: set[str]) -> Iterator[tuple[tuple[str, str], Problem]]:
    """Axes of groups that no cell has, and samples that no DiT makes."""
    groups = optional_groups()
    for factor in study.grid.factors:
        for path in factor.paths:
            group = group_of(path)
            if group is None or group in used:
                continue
            kind = _lacking(groups[group], used)
            if path != kind.switches[0]:
                message = f"{path} has no effect: {kind.absent}; give {kind.switches[0]} a number"
                yield (path, ""), study.problem(path, message)
    images = "evaluate.generation.images"
    if "stages.dit" not in used and paths.get(study.grid.template, images) is not None:
        message = "samples are made by a DiT, and no cell has one; give stages.dit.steps a number"
        yield (images, ""), study.problem(images, message)


def _lacking(kind: Kind, used: set[str]) -> Kind:
    """Of a kind that no cell has: the one whose absence is the reason, itself or what it needs."""
    groups = optional_groups()
    needed = (groups[group] for switch in kind.switches if (group := group_of(switch)) is not None)
    return next((one for one in needed if one is not kind and one.group not in used), kind)


def _without_meaning(
    study: StudyFile, points: Sequence[Point]
) -> Iterator[tuple[tuple[str, str], Problem]]:
    """Axes of settings that change nothing in any cell, because of what else it says."""
    for factor in study.grid.factors:
        for path in factor.paths:
            reasons = [means_nothing(path, point.stages) for point in points]
            if reasons[0] is not None and None not in reasons:
                message = f"{path} has an effect on no cell: {reasons[0]}"
                yield (path, ""), study.problem(path, message)


def _idle_groups(study: StudyFile, used: set[str]) -> Iterator[str]:
    """A word for each group that has settings in the study's own file and is on in no cell.

    A base may say how a stage is trained that only some of the studies over it have.
    """
    marks = study.document.values
    own = marks[("study",)].place.rsplit(":", 2)[0]
    for group, kind in optional_groups().items():
        lead = tuple(group.split("."))
        if group not in used and any(
            path[: len(lead)] == lead and mark.place.rsplit(":", 2)[0] in (own, "--set")
            for path, mark in marks.items()
        ):
            yield f"{group} has settings without effect: {kind.absent} ({kind.switches[0]} is null)"


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


class _Cell:
    """One combination while it is being worked out."""

    def __init__(self, config: dict[str, Any], data: Mapping[str, DataSet]) -> None:
        self.config = config
        self.data = data
        self.rules: dict[str, dict[str, float]] = {}
        self.error: SpecError | None = None
        self.dit: DiTSpec | None = None
        self.dit_error: SpecError | None = None
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
        self.dit = self.dit_error = None
        settled = {"stages": self.config["stages"]}
        for path, _, rate in list(rates(settled["stages"])):
            paths.put(settled, path, rate)
        self.stages = from_plain(Stages, settled["stages"])
        if self.error is None and self.stages.dit.steps is not None:
            try:
                self.dit = self.stages.dit.spec(self.spec, self.data[data["train"]].classes)
            except SpecError as error:
                self.dit_error = error

    @property
    def tokens(self) -> int:
        """Tokens of the code that is measured: all, or the length that is evaluated."""
        length: int | None = self.config["evaluate"]["reconstruction"]["length"]
        return self.spec.tokens if length is None else length

    def value_of(self, path: str) -> object:
        """A config value, or a derived one; None where the tokenizer cannot be built."""
        if path in DERIVED:
            return None if self.error else COLUMNS[path].read(self.counted())
        ruled = ruled_by(path)
        if ruled is not None and ruled in self.rules:  # exactly what it says
            return self.rules[ruled][path.removeprefix(f"{ruled}.")]
        return value_at(self.config, path)

    def counted(self) -> dict[str, object]:
        """What derived values are read from; see `sweepctl.columns`."""
        return {"code": code_of(self.spec, self.tokens), "tokenizer": self.spec, "dit": self.dit}

    def point(self, axes: Mapping[str, Any], left_out: frozenset[str]) -> Point:
        """The finished cell.

        Args:
            axes: its axis values by short name.
            left_out: stages it is excluded from.
        """
        identified = lasting(self.config)
        return Point(
            key=fingerprint(canonical(identified)),
            axes=axes,
            config=self.config,
            rules=self.rules,
            lasting=identified,
            stages=self.stages,
            spec=self.spec,
            dit=self.dit,
            derived=derive(self.config, self.counted()),
            stages_left_out=left_out,
        )

    def mistakes(self, data: Mapping[str, DataSet]) -> list[Mistake]:
        """What makes the cell impossible."""
        errors = (self.error, self.dit_error)
        found = list(mistakes(self.config, self.stages, self.spec, errors, data))
        for path in self.rules:  # numbers were looked at when the study was read
            rate = paths.get(self.config, path)
            if rate > 1 and group_of(path) not in groups_off(self.config):
                said = f"lr = {rate:g} at this batch is above 1; lower {LR_RULE.key}"
                found.append((path, said))
        return found

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
            paths.put(self.config, "tokenizer.p", int(p))
            self._derive()
        if "tokenizer.c" in grid.solved:
            # With c unknown, only what is wrong besides it counts here.
            if self.error is not None and self.error.field != "c":
                return None  # reported as what it is
            assert code is not None  # _check_solvable
            c = code / self.tokens
            if c != int(c) or c < 1:
                return f"no whole c gives E = {code:g} with {self.tokens} tokens"
            paths.put(self.config, "tokenizer.c", int(c))
            self._derive()
        return None

    def rule_out(self, unsearched: Sequence[str]) -> None:
        """Give settings that are not searched here the value that the others leave them.

        A KL that is searched for Gaussian codes only has weight 0 where the code is none, and not
        the default that such a code refuses.
        """
        for _ in unsearched:  # a generator is looked at once the tokenizer can be built
            errors = (self.error, self.dit_error)
            forced = dict(ruled_out(self.stages, self.spec, errors, groups_off(self.config)))
            mine = [path for path in unsearched if path in forced]
            if not mine:
                return
            for path in mine:
                paths.put(self.config, path, forced[path])
            self._derive()

    def condition(self, grid: Grid) -> None:
        """Apply the conditional values whose match holds, in the order of the file.

        Then what follows other settings gets its value: rates that are rules, and ends of rates.
        """
        for conditional in grid.when:
            if conditional.match.holds(self.value_of):
                for path, value in conditional.values:
                    put_leaf(self.config, path, value)
                self._derive()
        for path, number, rate in list(rates(self.config["stages"])):
            self.rules[path] = {LR_RULE.key: number}
            paths.put(self.config, path, rate)
        for path, rate in following(self.stages):
            paths.put(self.config, path, rate)

    def miss(self, grid: Grid) -> str | None:
        """Why this cell misses the fixed values, or None."""
        if self.error is not None or not grid.fixed:
            return None
        counted = self.counted()
        for name, wanted in grid.fixed.items():
            has = COLUMNS[name].read(counted)
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


def axis_paths(factors: tuple[Factor, ...], search: Search | None = None) -> tuple[str, ...]:
    """Paths of all axes, in the order of the study, then of what is searched."""
    gridded = [path for factor in factors for path in factor.paths]
    searched = [] if search is None else [dimension.path for dimension in search.space]
    return (*gridded, *searched)


def axis_names(factors: tuple[Factor, ...], search: Search | None = None) -> tuple[str, ...]:
    """Short names of all axes; see `axis_paths`."""
    return tuple(map(short_name, axis_paths(factors, search)))
