"""Is a search right? What its models cannot see: names, values, conditions, what is measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sweepctl.study import _paths
from sweepctl.study._model import Study
from sweepctl.study._paths import not_among, or_any
from sweepctl.study._search import (
    MOST_POINTS,
    Dimension,
    as_config,
    dimension_of,
    in_order,
    is_counted,
    is_whole,
    named,
    settled,
    trained_always,
)
from sweepctl.study._search_block import SearchBlock, SpaceEntry
from sweepctl.study._words import in_words
from sweepctl.study._yaml import Document, KeyPath
from vitok_core.protocols import METRICS

_SPACE = ("search", "space")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a searched setting is declared.

    Attributes:
        where: of its first value.
        value: that value, for the models where the study itself has none.
        choices: of the list of its values; None between numbers.
        has_condition: whether it is searched at some points only, so that the study's own value,
            or the default, is used at the others.
    """

    where: KeyPath
    value: Any
    choices: KeyPath | None = None
    has_condition: bool = False


def space_places(document: Document) -> dict[str, Place]:
    """Path of each searched setting -> where it is declared."""
    found: dict[str, Place] = {}
    block = document.data.get("search")
    space = block.get("space") if isinstance(block, dict) else None
    for name, entry in space.items() if isinstance(space, dict) else ():
        try:
            path = _paths.resolve(str(name))
        except ValueError:
            continue  # said by `check_search`
        at: KeyPath = (*_SPACE, name)
        listed = entry.get("choice") if isinstance(entry, dict) else entry
        condition = isinstance(entry, dict) and bool(entry.get("if"))
        if isinstance(listed, list) and listed:
            lead = (*at, "choice") if isinstance(entry, dict) else at
            place = Place(where=(*lead, 0), value=listed[0], choices=lead, has_condition=condition)
        elif isinstance(entry, dict) and entry.get("low") is not None:
            place = Place(where=(*at, "low"), value=entry["low"], has_condition=condition)
        else:
            continue
        found.setdefault(path, place)
    return found


def check_search(
    document: Document, study: Study, axes: Mapping[str, KeyPath], datasets: Collection[str]
) -> None:
    """Add what is wrong with the search of a study whose models are right."""
    block = study.search
    if block is None:
        return
    dimensions = _check_space(document, block, axes)
    _check_measured(document, study, block, axes, datasets)
    _check_prune(document, study, block, axes)
    _check_sampler(document, block, dimensions)
    if not document.problems:  # a point is judged by the space it lies in
        _check_start(document, study, block)


def _check_space(
    document: Document, block: SearchBlock, axes: Mapping[str, KeyPath]
) -> dict[str, Dimension]:
    dimensions: dict[str, Dimension] = {}
    conditional: dict[str, tuple[KeyPath, SpaceEntry]] = {}
    for name, entry in block.space.items():
        where: KeyPath = (*_SPACE, name)

        def refuse(message: str, *below: str, at: KeyPath = where) -> None:
            document.problems.append(document.problem((*at, *below), message, prefer_key=not below))

        try:
            path = _paths.resolve(name)
        except ValueError as error:
            refuse(str(error))
            continue
        whole = _paths.whole_leaf(path)
        if whole in map(_paths.whole_leaf, axes):
            refuse(f"{path} is an axis, too; it is either searched or gridded")
        elif whole in map(_paths.whole_leaf, dimensions):
            refuse(f"{path} is searched twice")
        elif path == "seed" and entry.choice is None:
            refuse("the seed of a training is nothing to search; put seeds on an axis")
        elif _values_are_right(document, where, path, entry):
            free = entry.model_copy(update={"if_": {}})
            dimensions[path] = dimension_of(name, free)
            conditional[path] = (where, entry)
    for where, entry in conditional.values():
        _check_conditions(document, where, entry, dimensions, axes)
    _check_order(document, block, conditional, axes)
    return dimensions


def _check_order(
    document: Document,
    block: SearchBlock,
    conditional: Mapping[str, tuple[KeyPath, SpaceEntry]],
    axes: Mapping[str, KeyPath],
) -> None:
    """Conditions may not lead back to where they stand."""
    if len(document.problems) > 0 or len(conditional) < len(block.space):
        return
    dimensions = [dimension_of(name, entry, axes) for name, entry in block.space.items()]
    placed = {one.path for one in in_order(dimensions)}
    for path, (where, _) in conditional.items():
        if path not in placed:
            message = f"the condition of {path} leads back to itself"
            document.problems.append(document.problem((*where, "if"), message))


def _values_are_right(document: Document, where: KeyPath, path: str, entry: SpaceEntry) -> bool:
    """Whether the leaf takes the ends or the choices; says so where it does not."""
    before = len(document.problems)
    if entry.choice is not None:
        _check_choices(document, where, path, entry.choice)
        return len(document.problems) == before
    whole = is_whole(path)
    if whole is None:
        message = f"{path} holds no numbers; give a list of values"
        document.problems.append(document.problem(where, message, prefer_key=True))
        return False
    for bound in ("low", "high", "step"):
        value = getattr(entry, bound)
        if value is None:
            continue
        if whole and value != int(value):
            said = f"{path} holds whole numbers, and {value:g} is none"
            document.problems.append(document.problem((*where, bound), said))
        elif bound != "step":
            _validated(document, (*where, bound), path, int(value) if whole else value)
        if is_counted(path, entry) and value != int(value):
            said = f"high is {entry.high:g} steps, so {bound} is a whole number of them, too"
            document.problems.append(document.problem((*where, bound), f"{said}, not {value:g}"))
    return len(document.problems) == before


def _check_choices(document: Document, where: KeyPath, path: str, choices: tuple[Any, ...]) -> None:
    written = document.data["search"]["space"][where[-1]]
    lead: KeyPath = where if isinstance(written, list) else (*where, "choice")
    seen: list[Any] = []
    if not choices:
        document.problems.append(document.problem(lead, "a choice needs at least one value"))
    for index, value in enumerate(choices):
        made = _validated(document, (*lead, index), path, value)
        if why := _paths.not_varied(path, value):
            document.problems.append(document.problem((*lead, index), why))
        elif made is not _WRONG:
            if made in seen:
                said = f"{value!r} stands in this choice twice"
                document.problems.append(document.problem((*lead, index), said))
            seen.append(made)


_WRONG = object()


def _validated(document: Document, where: KeyPath, path: str, value: Any) -> Any:
    try:
        return as_config(path, value)
    except ValidationError as error:
        document.problems.append(document.problem(where, in_words(dict(error.errors()[0]))))
        return _WRONG


def _check_conditions(
    document: Document,
    where: KeyPath,
    entry: SpaceEntry,
    space: Mapping[str, Dimension],
    axes: Mapping[str, KeyPath],
) -> None:
    for other, wanted in entry.if_.items():
        at: KeyPath = (*where, "if", other)
        try:
            leaf = _paths.resolve(other)
        except ValueError as error:
            document.problems.append(document.problem(at, str(error), prefer_key=True))
            continue
        if leaf in axes:
            _check_axis_condition(document, at, leaf, wanted, axes[leaf])
            continue
        choice = space.get(leaf)
        if choice is None or choice.kind != "choice":
            message = (
                f"{leaf} is searched between numbers; a condition asks for a choice"
                if choice is not None
                else f"{leaf} is no choice of this space"
            )
            document.problems.append(document.problem(at, message, prefer_key=True))
            continue
        for value in wanted if isinstance(wanted, list | tuple) else (wanted,):
            made = _validated(document, at, leaf, value)
            if made is not _WRONG and made not in choice.choices:
                known = ", ".join(map(str, choice.choices))
                message = f"{value!r} is not one of the values of {leaf}: {known}"
                document.problems.append(document.problem(at, message))


def _check_axis_condition(
    document: Document, at: KeyPath, leaf: str, wanted: Any, where: KeyPath
) -> None:
    """A condition on an axis asks for some of its values."""
    levels: Any = document.data
    for part in where:
        levels = levels[part]
    known = [as_config(leaf, one) for one in levels if _paths.is_valid(leaf, one)]
    for value in wanted if isinstance(wanted, list | tuple) else (wanted,):
        made = _validated(document, at, leaf, value)
        if made is not _WRONG and made not in known:
            message = f"{value!r} is not one of the values of the axis {leaf}: "
            document.problems.append(document.problem(at, message + ", ".join(map(str, known))))


def _check_measured(
    document: Document,
    study: Study,
    block: SearchBlock,
    axes: Mapping[str, KeyPath],
    datasets: Collection[str],
) -> None:
    """Objectives and conditions may only speak of what every cell measures."""
    measured: dict[str, list[str]] = {}
    for group in ("reconstruction", "generation"):
        how = getattr(study.evaluate, group)
        on = list(or_any(how.on, datasets))
        measured.update(dict.fromkeys(or_any(how.metrics, METRICS), on))
        for name in ("metrics", "on"):
            path = f"evaluate.{group}.{name}"
            where = axes.get(path)
            if where is not None:
                message = "a search needs the same numbers of every cell; this cannot be an axis"
                document.problems.append(document.problem(where, message, prefer_key=True))
            for searched in block.space:
                if _is_name(searched) and _paths.resolve(searched) == path:
                    said = "a search needs the same numbers of every cell; this cannot be searched"
                    place: KeyPath = (*_SPACE, searched)
                    document.problems.append(document.problem(place, said, prefer_key=True))
    for key in ("objectives", "keep_if"):
        for index, entry in enumerate(getattr(block, key)):
            at: KeyPath = ("search", key, index)
            if entry.metric not in measured:
                said = not_among(entry.metric, list(measured), "measured metric")
                document.problems.append(document.problem((*at, "metric"), said))
            elif entry.on is not None and entry.on not in measured[entry.metric]:
                said = not_among(entry.on, measured[entry.metric], "data set of this metric")
                document.problems.append(document.problem((*at, "on"), said))
            elif not measured[entry.metric]:
                said = f"{entry.metric} is measured on no data set"
                document.problems.append(document.problem((*at, "metric"), said))
    if block.stop is not None and block.stop.value is not None and len(block.objectives) > 1:
        names = ", ".join(one.metric for one in block.objectives)
        said = (
            f"a value to stop at is that of one objective, and here are {len(block.objectives)} "
            f"({names}); leave one of them, or take value out"
        )
        document.problems.append(document.problem(("search", "stop", "value"), said))
    asked = [(entry.metric, entry.on) for entry in block.objectives]
    for index, one in enumerate(asked):
        if one in asked[:index]:
            said = f"{one[0]} is an objective twice"
            document.problems.append(document.problem(("search", "objectives", index), said))


def _check_prune(
    document: Document, study: Study, block: SearchBlock, axes: Mapping[str, KeyPath]
) -> None:
    """Rungs must be measured alike in all trials."""
    how = block.prune
    if how is None:
        return

    def refuse(message: str, *below: str) -> None:
        document.problems.append(
            document.problem(("search", "prune", *below), message, prefer_key=not below)
        )

    if len(block.objectives) > 1:
        names = ", ".join(one.metric for one in block.objectives)
        refuse(
            f"prune ranks trials by one objective, and here are {len(block.objectives)} ({names}); "
            "leave one of them, or take prune out"
        )
    if how.startup is not None and how.rule != "median":
        refuse("asha lets nobody go on anyway; startup belongs to rule: median", "startup")
    if document.problems:  # which trainings all trials have is judged by names that mean something
        return
    always = trained_always(study, block)
    if how.stage is not None and how.stage not in always:
        message = f"{how.stage} is no training of all trials that this objective is measured after"
        refuse(f"{message}; allowed here: {', '.join(always)}", "stage")
        return
    stage = how.stage or always[-1]
    path = f"stages.{stage}.steps"
    searched = {_paths.resolve(name): name for name in block.space}
    if path in searched:
        message = f"rungs are shares of {path}; with prune it cannot be searched, too"
        at: KeyPath = (*_SPACE, searched[path])
        document.problems.append(document.problem(at, message, prefer_key=True))
        return
    for steps in _steps_of(document, study, stage, axes):
        if steps // how.factor**how.rungs < 1:
            refuse(
                f"{steps} steps of {stage} are too few for {how.rungs} rungs at factor "
                f"{how.factor}: the first would be before step 1"
            )
            return


def _steps_of(
    document: Document, study: Study, stage: str, axes: Mapping[str, KeyPath]
) -> list[int]:
    """The numbers of steps that a training of the study may have."""
    place = axes.get(f"stages.{stage}.steps")
    if place is None:
        steps = [getattr(study.stages, stage).steps]
    else:
        found: Any = document.data
        for part in place:
            found = found[part]
        steps = list(found)
    return [one for one in steps if isinstance(one, int)]


def _check_sampler(
    document: Document, block: SearchBlock, dimensions: Mapping[str, Dimension]
) -> None:
    at: KeyPath = ("search", "sampler")
    if block.sampler == "cmaes":
        if len(block.objectives) > 1:
            message = "cmaes knows one objective; take tpe, gp or nsga2 for several"
            document.problems.append(document.problem(at, message))
        numbers = [
            one
            for name, entry in block.space.items()
            if not entry.if_
            and _is_name(name)
            and (one := dimensions.get(_paths.resolve(name))) is not None
            and one.kind != "choice"
        ]
        if dimensions and len(numbers) < 2:
            message = "cmaes searches numbers, two or more that are always there; take tpe or gp"
            document.problems.append(document.problem(at, message))
    if block.sampler == "grid" and dimensions:
        for name in block.space:
            one = dimensions.get(_paths.resolve(name)) if _is_name(name) else None
            if one is None:
                continue
            if one.count is None:
                message = "a grid needs values: give a step, or a list"
                place: KeyPath = (*_SPACE, name)
                document.problems.append(document.problem(place, message, prefer_key=True))
        points = math.prod(one.count or 0 for one in dimensions.values())
        if points > MOST_POINTS:
            message = f"a grid of {points:,} points; at most {MOST_POINTS:,}"
            document.problems.append(document.problem(at, message))


def _is_name(name: str) -> bool:
    try:
        _paths.resolve(name)
    except ValueError:
        return False
    return True


def _check_start(document: Document, study: Study, block: SearchBlock) -> None:
    search = settled(study.model_copy(update={"search": _without_start(block)}))
    assert search is not None
    paths = {dimension.path: dimension for dimension in search.space}
    for index, entry in enumerate(block.start_with):
        at: KeyPath = ("search", "start_with", index)
        if "study" in entry:
            if set(entry) != {"study"} or not isinstance(entry["study"], str):
                message = "write {study: NAME}, or a point: each searched setting with its value"
                document.problems.append(document.problem(at, message))
            continue
        before = len(document.problems)
        for name, value in entry.items():
            try:
                path = _paths.resolve(name)
            except ValueError as error:
                document.problems.append(document.problem((*at, name), str(error), prefer_key=True))
                continue
            if path not in paths:
                message = f"{path} is not searched; it cannot be part of a point"
                document.problems.append(document.problem((*at, name), message, prefer_key=True))
                continue
            made = _validated(document, (*at, name), path, value)
            if made is not _WRONG and not paths[path].holds(made):
                message = f"{value!r} is outside of the space of {path}"
                document.problems.append(document.problem((*at, name), message))
        if len(document.problems) > before:
            continue
        point = {path: as_config(path, value) for path, value in named(entry).items()}
        inside = search.narrowed(point)
        if inside is None:
            lacking = _paths.short_name(_first_lacking(search.space, point))
            document.problems.append(document.problem(at, f"{lacking} is missing at this point"))
        elif extra := sorted(point.keys() - inside.keys()):
            message = (
                f"{', '.join(map(_paths.short_name, extra))}: its condition does not hold here"
            )
            document.problems.append(document.problem(at, message))


def _without_start(block: SearchBlock) -> SearchBlock:
    return block.model_copy(update={"start_with": ()})


def _first_lacking(space: tuple[Dimension, ...], point: Mapping[str, Any]) -> str:
    seen: dict[str, Any] = {}
    for dimension in space:
        if dimension.is_on(seen):
            if dimension.path not in point:
                return dimension.path
            seen[dimension.path] = point[dimension.path]
    return space[0].path
