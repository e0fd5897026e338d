"""Is a study right? The models first, then what they cannot see: names, axes, fits, claims.

The first value of each axis is put into the config and the whole is validated; every further value
is validated on its own. Problems are collected in the document, each at its place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from sweepctl.errors import Problem, StudyError
from sweepctl.paths import get, keys_of, put
from sweepctl.study import _paths
from sweepctl.study._check_laws import check_laws
from sweepctl.study._check_search import Place, check_search, space_places
from sweepctl.study._grid import Conditional, Factor, Grid, Match, StudyFile, resolved
from sweepctl.study._model import STAGES, Config, Study
from sweepctl.study._paths import Condition, closest, not_among, or_any
from sweepctl.study._words import allowed_keys, in_words, is_of_form
from sweepctl.study._yaml import Document, KeyPath
from vitok_core.protocols import METRICS, PROTOCOLS, MetricGroup, not_in_group
from vitok_core.spec import DIT_SIZES, SIZES


def stop(document: Document) -> None:
    """Raise what was found so far, in reading order.

    Raises:
        StudyError: there are problems.
    """
    if document.problems:
        raise StudyError(sorted(document.problems, key=_reading_order))


def _reading_order(problem: Problem) -> tuple[str, int, int]:
    file, line, column = (["", "0", "0", *problem.place.rsplit(":", 2)])[-3:]
    return (file, int(line), int(column)) if line.isdigit() and column.isdigit() else ("", 0, 0)


def check(document: Document, overrides: tuple[str, ...], datasets: Collection[str]) -> StudyFile:
    """Validate a merged document.

    Raises:
        StudyError: with every problem found.
    """
    data = document.data
    factors, axis_places = _factors(document)
    fixed = data.get("fixed") if isinstance(data.get("fixed"), dict) else {}
    searched = space_places(document)
    solved = _solved(data, axis_places, searched, fixed)

    filled = _copy(data)
    placed: dict[KeyPath, KeyPath] = {}
    for path, where in axis_places.items():
        values = _at(data, where)
        if isinstance(values, list) and values:
            _paths.put_leaf(filled, path, values[0])
            placed[keys_of(path)] = (*where, 0)
    for path in solved:
        put(filled, path, 1)
    for path, place in searched.items():
        if path in axis_places or _keeps_its_value(document, path, place):
            continue
        _paths.put_leaf(filled, path, place.value)
        placed[keys_of(path)] = place.where

    study: Study | None = None
    try:
        study = Study.model_validate(filled)
    except ValidationError as error:
        found = _of_the_meant_form([dict(problem) for problem in error.errors()], filled)
        given = {keys_of(path) for path in axis_places} | {
            (*one["loc"][:-1], closest(one["loc"][-1], allowed_keys(one["loc"], Study)))
            for one in found
            if one["type"] == "extra_forbidden"
        }
        unread = _unread(document, searched)
        for problem in found:
            # What is wrong with an axis, or with the name of a key, is said there and only there.
            named_elsewhere = problem["type"] == "missing" and problem["loc"] in given
            if not named_elsewhere and ".".join(map(str, problem["loc"])) not in unread:
                document.problems.append(_in_place(document, problem, filled, placed))
    # Of an axis that is not a list the models said so; its place gives no values.
    lists = {path: at for path, at in axis_places.items() if isinstance(_at(data, at), list)}
    _check_axis_values(document, lists)
    _check_known(document, filled, lists, searched, datasets)
    exclude, only, when = _matches(document, datasets)
    if study is not None:
        _check_fits(document, study, axis_places, datasets)
        check_search(document, study, axis_places, datasets)
    stop(document)
    assert study is not None
    template = study.model_dump(mode="json", include=set(Config.model_fields))
    grid = Grid(
        template=template,
        factors=tuple(_normal(factor) for factor in factors),
        exclude=exclude,
        only=only,
        fixed=dict(study.fixed.items()),
        solved=solved,
        when=when,
    )
    return StudyFile(study=study, grid=grid, document=document, overrides=overrides)


def _unread(document: Document, searched: Mapping[str, Place]) -> set[str]:
    """Paths of searched settings of which no value could be read: said where they are searched."""
    block = document.data.get("search")
    space = block.get("space") if isinstance(block, dict) else None
    names = map(resolved, space) if isinstance(space, dict) else ()
    return {path for path in names if path is not None and path not in searched}


def _keeps_its_value(document: Document, path: str, place: Place) -> bool:
    """Whether the models see a searched setting as the study or its default has it.

    That is what a trial has where the condition of the setting does not hold. What every trial
    sets is put there for the models only; no cell has it.
    """
    if not place.has_condition:
        return False
    whole = _paths.whole_leaf(path)
    if get(document.data, whole, _NONE) is not _NONE:
        return True
    if not _paths.config_leaves()[whole].is_required():
        return True
    message = (
        f"{path} has no value where its condition does not hold, and there is no default; "
        f"give {path} a value outside of the search"
    )
    document.problems.append(document.problem((*place.where[:3], "if"), message, prefer_key=True))
    return False


_NONE = object()


def _normal(factor: Factor) -> Factor:
    """The levels as the models read them, so that 1 and 1.0, 2000 and "2k" are one value."""
    adapters = [_paths.leaf_adapter(path) for path in factor.paths]
    rows = tuple(
        tuple(
            adapter.dump_python(adapter.validate_python(value), mode="json")
            for adapter, value in zip(adapters, row, strict=True)
        )
        for row in factor.rows
    )
    return Factor(paths=factor.paths, rows=rows)


def _copy(value: Any) -> Any:
    return {key: _copy(below) for key, below in value.items()} if isinstance(value, dict) else value


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _of_the_meant_form(errors: list[dict[str, Any]], filled: Any) -> list[dict[str, Any]]:
    """The errors without those of forms of a setting that were not meant.

    A setting that may be a word, a number or a mapping has errors of each form. Those of a form
    whose type is right say enough; where none is, one error says what the forms are.
    """
    forms: dict[KeyPath, dict[str, list[dict[str, Any]]]] = {}
    kept: list[dict[str, Any]] = []
    other_forms: list[tuple[KeyPath, dict[str, Any]]] = []
    found_at = [_in_data(error["loc"], filled) for error in errors]
    inside = {path for path, rest in found_at if len(rest) > 1}  # of a mapping, which is meant
    for error, (path, rest) in zip(errors, found_at, strict=True):
        if not rest or error["type"] in ("missing", "extra_forbidden"):
            kept.append(error)
        elif error["type"] == "model_type" or (
            path in inside and len(rest) == 1 and is_of_form(error)
        ):
            # A mapping that is not there, or another form than the mapping that is.
            other_forms.append((path, error))
        else:
            forms.setdefault(path, {}).setdefault(str(rest[0]), []).append(error)
    for path, by_form in forms.items():
        right = [
            found
            for found in by_form.values()
            if not all(len(one["loc"]) == len(path) + 1 and is_of_form(one) for one in found)
        ]
        mappings = [error for at, error in other_forms if at == path]
        words = [
            one for found in by_form.values() for one in found if one["type"] != "literal_error"
        ]
        if mappings and not right and not words:
            ((first, *_), *_) = by_form.values()
            kept.append({**first, "type": "forms", "ctx": {"errors": [first, mappings[0]]}})
        elif right or len(by_form) == 1:
            kept += (right or list(by_form.values()))[0]
        else:
            ((first, *_), *_) = by_form.values()
            every = [one for found in by_form.values() for one in found]
            kept.append({**first, "type": "forms", "ctx": {"errors": every}})
    for path, error in other_forms:  # what none of the forms takes is still a mistake
        if not any(_in_data(one["loc"], filled)[0][: len(path)] == path for one in kept):
            kept.append(error)
    return sorted(kept, key=lambda error: errors.index(error) if error in errors else len(errors))


def _in_data(loc: tuple[str | int, ...], data: Any) -> tuple[KeyPath, tuple[str | int, ...]]:
    """How far a place leads into the data; and the rest, a form of the setting and what follows."""
    path: KeyPath = ()
    for number, part in enumerate(loc):
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not inside:
            return path, loc[number:]
        path, data = (*path, part), data[part]
    return path, ()


def _in_place(
    document: Document,
    error: dict[str, Any],
    filled: dict[str, Any],
    placed: Mapping[KeyPath, KeyPath],
) -> Problem:
    """One of pydantic's errors as a problem at its place, in plain words."""
    path: KeyPath = ()
    here: Any = filled
    for part in error["loc"]:
        # Parts that are not in the data are union tags and the key of a missing field.
        if (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        ):
            path, here = (*path, part), here[part]
    for config_path, where in placed.items():
        if path[: len(config_path)] == config_path:
            path = (*where, *path[len(config_path) :])
            break
    prefer_key = error["type"] in ("extra_forbidden", "missing") or error["loc"][-1:] == ("[key]",)
    return document.problem(path, in_words(error), prefer_key=prefer_key)


def _factors(document: Document) -> tuple[tuple[Factor, ...], dict[str, KeyPath]]:
    """The factors of the product and, for each axis path, where it is declared."""
    data = document.data
    factors: list[Factor] = []
    places: dict[str, KeyPath] = {}

    def declare(name: object, where: KeyPath) -> str | None:
        try:
            path = _paths.resolve(str(name))
        except ValueError as error:
            document.problems.append(document.problem(where, str(error), prefer_key=True))
            return None
        twice = [one for one in places if _paths.whole_leaf(one) == _paths.whole_leaf(path)]
        if twice:
            said = f"{path} is an axis twice"
            if twice != [path]:
                said = f"{path} and {twice[0]} set the same value; only one of them can be an axis"
            document.problems.append(document.problem(where, said, prefer_key=True))
            return None
        places[path] = where
        return path

    axes = data.get("axes")
    for name, values in axes.items() if isinstance(axes, dict) else ():
        path = declare(name, ("axes", name))
        if path and isinstance(values, list):
            factors.append(Factor(paths=(path,), rows=tuple((value,) for value in values)))
    groups = data.get("zip")
    for index, group in enumerate(groups if isinstance(groups, list) else ()):
        if not isinstance(group, dict) or not group:
            continue
        paths = [declare(name, ("zip", index, name)) for name in group]
        columns = list(group.values())
        if not all(isinstance(column, list) for column in columns):
            continue  # the models say so
        lengths = {name: len(column) for name, column in group.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            document.problems.append(
                document.problem(("zip", index), f"axes that move together need one length: {said}")
            )
            continue
        if all(paths):
            rows = tuple(zip(*columns, strict=True))
            factors.append(Factor(paths=tuple(str(path) for path in paths), rows=rows))
    return tuple(factors), places


def _solved(
    data: dict[str, Any],
    axes: Mapping[str, KeyPath],
    searched: Mapping[str, object],
    fixed: Mapping[str, Any],
) -> tuple[str, ...]:
    """Which of p and c follow from the fixed values: those given in no other way."""
    if not fixed:
        return ()
    tokenizer = data.get("tokenizer")
    given = tokenizer if isinstance(tokenizer, dict) else {}
    return tuple(
        path
        for path in ("tokenizer.p", "tokenizer.c")
        if path not in axes
        and path.removeprefix("tokenizer.") not in given
        and path not in searched
    )


def _check_axis_values(document: Document, places: Mapping[str, KeyPath]) -> None:
    for path, where in places.items():
        values = _at(document.data, where)
        for index, value in enumerate(values):
            if index > 0:  # the first one was checked with the whole study
                try:
                    _paths.leaf_adapter(path).validate_python(value)
                except ValidationError as error:
                    said = in_words(dict(error.errors()[0]))
                    document.problems.append(document.problem((*where, index), said))
            if why := _paths.not_varied(path, value):
                document.problems.append(document.problem((*where, index), why))
            if where[0] == "axes" and value in values[:index]:
                document.problems.append(
                    document.problem((*where, index), f"{value!r} stands on this axis twice")
                )


def _check_known(
    document: Document,
    filled: dict[str, Any],
    places: Mapping[str, KeyPath],
    searched: Mapping[str, Place],
    datasets: Collection[str],
) -> None:
    """Names that must exist: sizes, data sets, metrics, protocols."""
    for path, (allowed, what) in _known(datasets).items():
        place = searched.get(path)
        where = places.get(path) or (None if place is None else place.choices)
        spots: list[tuple[KeyPath, Any]] = []
        if where is not None:
            spots = [
                ((*where, index), value) for index, value in enumerate(_at(document.data, where))
            ]
        if where is None or (place is not None and place.has_condition):
            value = get(filled, path, _NONE)
            spots += [(keys_of(path), value)] if value is not _NONE else []
        for spot, value in spots:
            for below, name in _texts(spot, value):
                if why := _not_known(path, name, allowed, what):
                    document.problems.append(document.problem(below, why))


def _known(datasets: Collection[str]) -> dict[str, tuple[list[str], str]]:
    return {
        "data.train": (sorted(datasets), "data set"),
        "tokenizer.encoder": (list(SIZES), "size"),
        "tokenizer.decoder": (list(SIZES), "size"),
        "stages.dit.size": (list(DIT_SIZES), "DiT size"),
        "evaluate.reconstruction.on": (sorted(datasets), "data set"),
        "evaluate.reconstruction.metrics": (_metrics_of("reconstruction"), "metric"),
        "evaluate.reconstruction.protocol": (list(PROTOCOLS), "protocol"),
        "evaluate.generation.on": (sorted(datasets), "data set"),
        "evaluate.generation.metrics": (_metrics_of("generation"), "metric"),
        "evaluate.generation.protocol": (list(PROTOCOLS), "protocol"),
    }


def _metrics_of(group: MetricGroup) -> list[str]:
    return [name for name, metric in METRICS.items() if metric.group == group]


def _not_known(path: str, name: str, allowed: list[str], what: str) -> str | None:
    """Why a config value is no name that exists there, or None."""
    if name in allowed:
        return None
    if what == "metric" and name in METRICS:
        group: MetricGroup = "generation" if "generation" in path else "reconstruction"
        return not_in_group(name, group)
    return not_among(name, allowed, what)


def _texts(path: KeyPath, value: object) -> list[tuple[KeyPath, str]]:
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, list):
        return [((*path, index), item) for index, item in enumerate(value) if isinstance(item, str)]
    return []


def _matches(
    document: Document, datasets: Collection[str]
) -> tuple[tuple[Match, ...], dict[str, tuple[Match, ...]], tuple[Conditional, ...]]:
    data = document.data

    def match(entry: object, where: KeyPath, *, stages_allowed: bool = False) -> Match | None:
        if not isinstance(entry, dict):
            return None
        stages: tuple[str, ...] = ()
        conditions: list[Condition] = []
        for name, wanted in entry.items():
            if stages_allowed and name == "only":
                stages = tuple(wanted) if isinstance(wanted, list) else (str(wanted),)
                for stage in stages:
                    if stage not in STAGES:
                        document.problems.append(
                            document.problem((*where, name), not_among(stage, STAGES, "stage"))
                        )
                continue
            try:
                conditions.append(_paths.condition(str(name), wanted))
            except ValidationError as error:
                said = in_words(dict(error.errors()[0]))
                document.problems.append(document.problem((*where, name), said))
            except ValueError as error:
                document.problems.append(
                    document.problem((*where, name), str(error), prefer_key=True)
                )
        if not conditions:
            if not entry or entry.keys() == {"only"}:
                document.problems.append(document.problem(where, "this entry matches nothing"))
            return None
        mark = document.mark(where)
        return Match(
            where=mark.place if mark else "--set", conditions=tuple(conditions), stages=stages
        )

    def each(key: KeyPath) -> list[tuple[KeyPath, Any]]:
        try:
            entries = _at(data, key)
        except (KeyError, TypeError):
            return []
        if not isinstance(entries, list):
            return []
        return [((*key, index), entry) for index, entry in enumerate(entries)]

    exclude = [match(entry, where, stages_allowed=True) for where, entry in each(("exclude",))]
    only = {}
    for stage in data["only"] if isinstance(data.get("only"), dict) else ():
        found = [match(entry, where) for where, entry in each(("only", stage))]
        only[str(stage)] = tuple(one for one in found if one)
    when = []
    for where, entry in each(("when",)):
        if not isinstance(entry, dict):
            continue
        matched = match(entry.get("if"), (*where, "if")) if entry.get("if") else None
        values = _when_values(document, entry.get("set"), (*where, "set"), datasets)
        if matched is not None:
            when.append(Conditional(match=matched, values=values))
    return tuple(one for one in exclude if one), only, tuple(when)


def _when_values(
    document: Document, entry: object, where: KeyPath, datasets: Collection[str]
) -> tuple[tuple[str, Any], ...]:
    values = []
    for name, value in entry.items() if isinstance(entry, dict) else ():
        try:
            path = _paths.resolve(str(name))
            adapter = _paths.leaf_adapter(path)
            checked = adapter.dump_python(adapter.validate_python(value), mode="json")
        except ValidationError as error:
            said = in_words(dict(error.errors()[0]))
            document.problems.append(document.problem((*where, name), said))
            continue
        except ValueError as error:
            document.problems.append(document.problem((*where, name), str(error), prefer_key=True))
            continue
        allowed, what = _known(datasets).get(path, (None, ""))
        for below, text in _texts((*where, name), value):
            if allowed is not None and (why := _not_known(path, text, allowed, what)):
                document.problems.append(document.problem(below, why))
        values.append((path, checked))
    return tuple(values)


def _check_fits(
    document: Document, study: Study, axes: Mapping[str, KeyPath], datasets: Collection[str]
) -> None:
    """Fits and claims may only speak of what is measured and declared."""
    named: dict[str, set[str]] = {"metrics": set(), "on": set()}
    for group in ("reconstruction", "generation"):
        for name, into in named.items():
            into.update(getattr(getattr(study.evaluate, group), name))
            path = f"evaluate.{group}.{name}"
            for value in _at(document.data, axes[path]) if path in axes else ():
                into.update(text for _, text in _texts((), value))
    check_laws(
        document,
        study,
        axes,
        metrics=or_any(named["metrics"], METRICS),
        datasets=or_any(named["on"], datasets),
    )
