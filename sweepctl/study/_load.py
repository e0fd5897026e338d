"""How does a file become a study? Bases merged, overrides applied, everything checked at once.

Bases are laid below by a plain deep merge: later wins, lists are replaced, `null` removes. Where a
setting of a cell can be null, as in `ema: null`, that is its value. Then the overrides of the
command line are applied, and `_check` judges the result. Every problem found is reported, each at
its place in the file it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sweepctl.errors import Problem, StudyError
from sweepctl.paths import get, keys_of, put
from sweepctl.study import _paths
from sweepctl.study._check import check, stop
from sweepctl.study._grid import StudyFile, resolved
from sweepctl.study._model import Config, Study
from sweepctl.study._yaml import Document, KeyPath, Mark, leaves, parse, read

MAX_BASES = 16
"""Most files a study may be merged from."""


def load_study(
    file: Path, *, overrides: Sequence[str] = (), datasets: Collection[str]
) -> StudyFile:
    """Read and check a study file.

    Args:
        file: the study file.
        overrides: texts "path=value" from the command line, applied in order.
        datasets: names of the data sets that exist.

    Raises:
        StudyError: with every problem found.
    """
    document = read(file, str(file))
    stop(document)
    if not isinstance(document.data, dict):
        raise StudyError(
            [document.problem((), "a study is a mapping of keys, not " + _kind(document.data))]
        )
    document = _with_bases(document, file, seen=(file.resolve(),))
    stop(document)
    for override in overrides:
        _override(document, override)
    stop(document)
    return check(document, tuple(overrides), datasets)


def _kind(value: object) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), f"{value!r}")


# --- bases and overrides ----------------------------------------------------------------------


def _with_bases(document: Document, file: Path, seen: tuple[Path, ...]) -> Document:
    """Put the document over its bases."""
    given = document.data.get("base")
    if given is None:
        return document
    names = given if isinstance(given, list) else [given]
    merged = Document(data={}, text=document.text)
    for index, name in enumerate(names):
        where: KeyPath = ("base", index) if isinstance(given, list) else ("base",)
        if not isinstance(name, str) or not name:
            document.problems.append(
                document.problem(where, f"base takes the path of a file, not {_kind(name)}")
            )
            continue
        path = file.parent / name
        try:
            resolved_path, there = path.resolve(), path.is_file()
        except (OSError, ValueError):
            resolved_path, there = path, False
        if resolved_path in seen or len(seen) >= MAX_BASES:
            document.problems.append(
                document.problem(where, f"base {name!r} leads back to itself or too deep")
            )
            continue
        if not there:
            document.problems.append(
                document.problem(
                    where, f"base {name[:200]!r} is not there (looked for {str(path)[:200]!r})"
                )
            )
            continue
        below = read(path, str(path))
        if not below.problems and not isinstance(below.data, dict):
            below.problems.append(below.problem((), "a base is a mapping of keys"))
        if not below.problems:
            below = _with_bases(below, path, (*seen, resolved_path))
        document.problems.extend(below.problems)
        if not below.problems:
            below.data.pop("base", None)
            _merge(merged, below, ())
    _merge(merged, document, ())
    merged.problems = document.problems
    return merged


def _merge(under: Document, over: Document, path: KeyPath) -> None:
    """Lay one document over another, in place; marks follow the values."""
    target, source = under.data, over.data
    for part in path:
        target, source = target[part], source[part]
    for key, value in source.items():
        below = (*path, key)
        if value is None and key in target and _removes(below):
            _forget(under, below)
            del target[key]
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(under, over, below)
        else:
            _forget(under, below)
            target[key] = value
            for marks, source_marks in ((under.values, over.values), (under.keys, over.keys)):
                for known, mark in source_marks.items():
                    if known[: len(below)] == below:
                        marks[known] = mark
    if path in over.values:
        under.values[path] = over.values[path]
    if path in over.keys:
        under.keys[path] = over.keys[path]


def _removes(path: KeyPath) -> bool:
    """Whether null takes away what is at a path; not where it is a value, as in `ema: null`."""
    leaf = ".".join(map(str, path))
    return leaf not in _paths.config_leaves() or not _paths.is_valid(leaf, None)


def _forget(document: Document, path: KeyPath) -> None:
    for marks in (document.values, document.keys):
        for known in [known for known in marks if known[: len(path)] == path]:
            del marks[known]


def _same_leaf(one: object, other: str) -> bool:
    return one == other or (resolved(one) is not None and resolved(one) == resolved(other))


def _override(document: Document, override: str) -> None:
    """Apply one "path=value" of the command line."""
    place = f"--set {override}"

    def refuse(message: str) -> None:
        document.problems.append(Problem(place=place, path="", message=message))

    name, sign, text = override.partition("=")
    name = name.strip()
    if not sign or not name:
        return refuse("an override is written path=value, for example stages.stage1.steps=1000")
    parsed = parse(text, place) if text.strip() else Document(data=None)
    if parsed.problems:
        return refuse(f"{text!r} is not a YAML value: {parsed.problems[0].message}")
    head, _, rest = name.partition(".")
    given = document.data.get("axes")
    axes = given if isinstance(given, dict) else {}
    if head == "axes" and rest:  # an axis may have dots in its name
        path: KeyPath = ("axes", next((axis for axis in axes if _same_leaf(axis, rest)), rest))
    elif head in Study.model_fields and head not in Config.model_fields:
        path = tuple(name.split("."))
    else:
        try:
            path = keys_of(_paths.resolve(name))
        except ValueError as error:
            return refuse(str(error))
        for axis in axes:
            known = resolved(axis)
            if known is not None and _paths.whole_leaf(known) == _paths.whole_leaf(".".join(path)):
                return refuse(f"{axis} is an axis here; set axes.{axis}=[...] instead")
        ruled = _paths.ruled_by(".".join(path))
        if ruled is not None and not isinstance(get(document.data, ruled), dict):
            put(document.data, ruled, {})  # the rule takes the place of a number
    target = document.data
    for part in path[:-1]:
        target = target.setdefault(part, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            return refuse(f"{name} leads through something that is not a mapping")
    _forget(document, path)
    if parsed.data is None and _removes(path):
        target.pop(path[-1], None)
        return None
    target[path[-1]] = parsed.data
    mark = Mark(file=place, line=0, column=0, width=1, source="")
    for below, _ in leaves(parsed.data, path):
        document.values[below] = mark
    document.values[path] = mark
    return None
