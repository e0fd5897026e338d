"""What is searched, and what for? The `search` block of a study with every name settled.

A grid answers "how does it depend on x", a search "what is best": trials are asked one after the
other, each by what the ones before it came to. `settled` turns a checked block into a `Search`, in
which every name is a config path and every bound has the type of its leaf. A trial is a point of
the space; it becomes an ordinary cell.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from sweepctl.kinds import KINDS, measuring_kind, trainings
from sweepctl.study import _paths
from sweepctl.study._search_block import Rule, Sampler, SearchBlock, SpaceEntry
from sweepctl.study._values import Comparison
from vitok_core.protocols import METRICS, MetricGroup
from vitok_core.settings import ShareOrCount

if TYPE_CHECKING:
    from sweepctl.study._model import Study

MOST_POINTS = 100_000
"""Most points of a grid that is searched whole, as many as a study may have cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        path: dotted config path.
        kind: "int", "float" or "choice".
        low, high: first and last value of a number.
        log: whether it is searched on a logarithmic scale.
        step: distance of the values, None for any; with `log` the logarithmic draw is rounded.
        choices: the values of a choice, as the config has them.
        given: (path of a choice, values) when it is searched only with one of these.
        given_axes: (path of an axis, values) when it is searched only in these cells of the grid.
    """

    path: str
    kind: Literal["int", "float", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    given: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    given_axes: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def is_on(self, values: Mapping[str, Any]) -> bool:
        """Whether it is searched at a point, given by what is searched there before it.

        A setting whose condition names one that is not searched at this point is not searched
        either, whatever value that one has then.
        """
        return all(path in values and values[path] in wanted for path, wanted in self.given)

    def holds(self, value: object) -> bool:
        """Whether a value is one of this dimension."""
        if self.kind == "choice":
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low <= value <= self.high or (self.kind == "int" and value != int(value)):
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-9 * max(1.0, steps)

    @property
    def count(self) -> int | None:
        """How many values it has, or None when there is no end of them."""
        if self.kind == "choice":
            return len(self.choices)
        step = self.step or (1 if self.kind == "int" else None)
        return None if step is None else round((self.high - self.low) / step) + 1

    @property
    def levels(self) -> Iterator[Any]:
        """Its values in their order; without an end of them the middle, the first, the last."""
        if self.kind == "choice":
            return iter(self.choices)
        if self.count is None:
            return iter((self.middle, self.low, self.high))
        step = self.step or 1
        made = (self.low + step * index for index in range(self.count))
        return (int(one) if self.kind == "int" else float(one) for one in made)

    def nearest(self, value: float) -> Any:
        """The nearest of the values, which have a distance, to a number between low and high."""
        assert self.step is not None
        near = self.low + self.step * round((value - self.low) / self.step)
        return int(near) if self.kind == "int" else float(near)

    @property
    def middle(self) -> Any:
        """A value in the middle; the first one of a choice."""
        if self.kind == "choice":
            return self.choices[0]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step is not None:
            middle = self.low + self.step * round((middle - self.low) / self.step)
        return round(middle) if self.kind == "int" else float(f"{middle:.4g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is made small or large.

    Attributes:
        metric: its name.
        group: "reconstruction" or "generation".
        dataset: what it is measured on.
        minimise: whether less is better.
    """

    metric: str
    group: MetricGroup
    dataset: str
    minimise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """A condition on a measured number: the metric, its group and data set, the comparison."""

    metric: str
    group: MetricGroup
    dataset: str
    comparison: Comparison

    def violation(self, value: float) -> float:
        """How far a value is from what is wanted; 0 or less when the condition is met."""
        above = self.comparison.operator in (">", ">=")
        by = self.comparison.value - value if above else value - self.comparison.value
        if by == 0 and self.comparison.operator in (">", "<"):
            return math.ulp(abs(value))
        return by


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """How poor trials are ended early.

    Attributes:
        rule: who goes on from a rung.
        factor: from rung to rung, and to the end, a training gets so many times longer.
        rungs: steps before the end at which trials are measured.
        startup: of rule median, trials that go on from a rung anyway.
        stage: the training that is cut.
    """

    rule: Rule
    factor: int
    rungs: int
    startup: int
    stage: str

    def steps(self, whole: int) -> tuple[int, ...]:
        """The rungs of a training of `whole` steps, the first one first, and its end."""
        return tuple(round(whole / self.factor**left) for left in range(self.rungs, -1, -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search with every name settled.

    Attributes:
        sampler: how the next point is chosen.
        trials: most trials.
        at_once: trials that are open at the same time.
        seed: of the sampler.
        space: what is searched; a dimension stands after the choices it depends on.
        objectives: what is made small or large.
        keep_if: conditions on what is measured.
        prune: how poor trials are ended early, None for not at all.
        start: points to try first, path -> value, as written.
        start_studies: studies whose finished cells are tried after those.
        flat: ended trials without an improvement after which it ends, None for never.
        hours: of workers after which it ends, None for never.
        value: of its objective at which it ends, None for none.
    """

    sampler: Sampler
    trials: int
    at_once: int
    seed: int
    space: tuple[Dimension, ...]
    objectives: tuple[Objective, ...]
    keep_if: tuple[Keep, ...]
    prune: Prune | None
    start: tuple[Mapping[str, Any], ...]
    start_studies: tuple[str, ...]
    flat: int | None
    hours: float | None
    value: float | None = None

    def at(self, axes: Mapping[str, Any]) -> Search:
        """The search of one cell of the grid of axes, config path -> value.

        Its space is without the settings whose condition on an axis does not hold there.
        """
        space = tuple(
            dimension
            for dimension in self.space
            if all(axes[path] in wanted for path, wanted in dimension.given_axes)
        )
        return self if space == self.space else replace(self, space=space)

    @property
    def is_finite(self) -> bool:
        """Whether there is an end of its points."""
        return all(dimension.count is not None for dimension in self.space)

    def points(self) -> Iterator[dict[str, Any]]:
        """The points of a finite space, the first setting slowest; of another one some of them.

        A setting without an end of values has its middle, its first and its last one then.
        """
        return self._points({}, 0)

    def _points(self, point: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
        if index == len(self.space):
            yield dict(point)
            return
        dimension = self.space[index]
        if not dimension.is_on(point):
            yield from self._points(point, index + 1)
            return
        for value in dimension.levels:
            yield from self._points({**point, dimension.path: value}, index + 1)

    def searched_part(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of the values of a trial those that are searched at its point, in the space's order.

        The others are of settings whose condition does not hold there.
        """
        point: dict[str, Any] = {}
        for dimension in self.space:
            if dimension.is_on(point) and dimension.path in values:
                point[dimension.path] = values[dimension.path]
        return point

    def narrowed(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The part of a point that is of this space, in its order; None when it is not in it."""
        point: dict[str, Any] = {}
        for dimension in self.space:
            if not dimension.is_on(point):
                continue
            if dimension.path not in values or not dimension.holds(values[dimension.path]):
                return None
            value = values[dimension.path]
            point[dimension.path] = float(value) if dimension.kind == "float" else value
        return point

    @property
    def middle(self) -> dict[str, Any]:
        """The first point to start with, or one in the middle of the space."""
        if self.start:
            return dict(self.start[0])
        point: dict[str, Any] = {}
        for dimension in self.space:
            if dimension.is_on(point):
                point[dimension.path] = dimension.middle
        return point


def is_whole(path: str) -> bool | None:
    """Whether a leaf holds whole numbers; None when it holds no numbers."""
    kinds = _kinds(_paths.config_leaves()[path].annotation)
    if float in kinds:
        return False
    return True if int in kinds else None


def is_counted(path: str, entry: SpaceEntry) -> bool:
    """Whether numbers of a leaf that may be a share or a count, as a warm-up, are counts here."""
    remarks = _paths.config_leaves()[path].metadata
    either = any(isinstance(one, ShareOrCount) for one in remarks)
    return either and entry.high is not None and entry.high >= 1


def _kinds(annotation: Any) -> set[Any]:
    """The plain types in an annotation; those within a tuple are not values of it."""
    if typing.get_origin(annotation) is tuple:
        return {tuple}
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _kinds(arguments[0])
    if typing.get_origin(annotation) is Literal:
        return {str}
    return set().union(*map(_kinds, arguments)) if arguments else {annotation}


def as_config(path: str, value: Any) -> Any:
    """A value as the models read it and a cell's config has it.

    Raises:
        ValidationError: the leaf takes no such value.
    """
    adapter = _paths.leaf_adapter(path)
    plain = tuple(value) if isinstance(value, list) else value
    return adapter.dump_python(adapter.validate_python(plain), mode="json")


def dimension_of(name: str, entry: SpaceEntry, axes: Collection[str] = ()) -> Dimension:
    """One entry of the space, settled.

    Args:
        name: path or short name.
        entry: what the study says of it.
        axes: config paths of the study's axes, which conditions may look at as well.

    Raises:
        ValueError: a name that means nothing, or a value that the leaf does not take.
    """
    path = _paths.resolve(name)
    given: list[tuple[str, tuple[Any, ...]]] = []
    given_axes: list[tuple[str, tuple[Any, ...]]] = []
    for other, wanted in entry.if_.items():
        leaf = _paths.resolve(other)
        some = wanted if isinstance(wanted, list | tuple) else (wanted,)
        condition = (leaf, tuple(as_config(leaf, one) for one in some))
        (given_axes if leaf in axes else given).append(condition)
    if entry.choice is not None:
        return Dimension(
            path=path,
            kind="choice",
            choices=tuple(as_config(path, value) for value in entry.choice),
            given=tuple(given),
            given_axes=tuple(given_axes),
        )
    assert entry.low is not None and entry.high is not None
    whole = is_whole(path)
    number = int if whole else float
    step = 1.0 if entry.step is None and is_counted(path, entry) else entry.step
    return Dimension(
        path=path,
        kind="int" if whole else "float",
        low=number(entry.low),
        high=number(entry.high),
        log=entry.log,
        step=None if step is None else number(step),
        given=tuple(given),
        given_axes=tuple(given_axes),
    )


def in_order(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Dimensions, each after the choices it depends on; those of a circle are left out."""
    placed: dict[str, Dimension] = {}
    waiting = list(dimensions)
    while waiting:
        free = next((one for one in waiting if all(path in placed for path, _ in one.given)), None)
        if free is None:
            break
        placed[free.path] = free
        waiting.remove(free)
    return tuple(placed.values())


def settled(study: Study) -> Search | None:
    """The search of a study that was checked, None without one."""
    block = study.search
    if block is None:
        return None
    axes = {_paths.resolve(name) for name in itertools.chain(study.axes, *study.zip)}
    space = in_order([dimension_of(name, entry, axes) for name, entry in block.space.items()])
    start = []
    for written in block.given:
        start.append({path: as_config(path, value) for path, value in named(written).items()})
    made = Search(
        sampler=block.sampler,
        trials=block.trials,
        at_once=block.at_once,
        seed=block.seed,
        space=space,
        objectives=tuple(
            Objective(
                metric=one.metric,
                group=METRICS[one.metric].group,
                dataset=one.on or main_dataset(study, one.metric),
                minimise=(one.direction or _better(one.metric)) == "minimize",
            )
            for one in block.objectives
        ),
        keep_if=tuple(
            Keep(
                metric=one.metric,
                group=METRICS[one.metric].group,
                dataset=one.on or main_dataset(study, one.metric),
                comparison=one.is_,
            )
            for one in block.keep_if
        ),
        prune=_pruned(study, block),
        start=(),
        start_studies=tuple(str(one["study"]) for one in block.start_with if "study" in one),
        flat=None if block.stop is None else block.stop.flat,
        hours=None if block.stop is None else block.stop.hours,
        value=None if block.stop is None else block.stop.value,
    )
    return replace(made, start=tuple(made.narrowed(point) or {} for point in start))


STARTUP = 4
"""Trials that go on from a rung of rule median anyway, unless the study says how many."""


def _pruned(study: Study, block: SearchBlock) -> Prune | None:
    if block.prune is None:
        return None
    how = block.prune
    return Prune(
        rule=how.rule,
        factor=how.factor,
        rungs=how.rungs,
        startup=how.startup or STARTUP,
        stage=how.stage or trained_always(study, block)[-1],
    )


def trained_always(study: Study, block: SearchBlock) -> tuple[str, ...]:
    """The trainings of what the first objective measures that every trial has, in their order."""
    measured = measuring_kind(METRICS[block.objectives[0].metric].group).measures
    varied = itertools.chain(block.space, study.axes, *study.zip)
    free = {_paths.resolve(name) for name in varied}
    stages = trainings(measured)
    always = tuple(
        name
        for name in stages
        if not KINDS[name].switches
        or (getattr(study.stages, name).steps is not None and f"stages.{name}.steps" not in free)
    )
    return always or stages[:1]


def named(point: Mapping[str, Any]) -> dict[str, Any]:
    """A written point by the paths that its names stand for.

    Raises:
        ValueError: a name means nothing.
    """
    return {_paths.resolve(name): value for name, value in point.items()}


def main_dataset(study: Study, metric: str) -> str:
    """The first data set that a metric is measured on."""
    group: MetricGroup = METRICS[metric].group
    return str(getattr(study.evaluate, group).on[0])


def _better(metric: str) -> str:
    return "minimize" if METRICS[metric].better == "lower" else "maximize"
