"""Which points of a search are possible, and by which one is it shown?

A plan shows a search by one point in each cell of the grid of axes, since nobody knows the others
yet. Of a space with few enough points all are worked out, as trials would be, and counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweepctl.errors import StudyError
from sweepctl.plan._expand import expand
from sweepctl.plan._identity import DataSet
from sweepctl.plan._model import Placed, Point, Trial
from sweepctl.study import Prune, Search, StudyFile

MOST_COUNTED = 5_000
"""Most points, of all searches of a study, that are worked out; each takes a fraction of a
millisecond."""

MOST_TRIED = 500
"""Most points that are looked at for one that is possible, where they are not counted."""

MOST_REASONS = 3
"""Most reasons that a notice names."""


@dataclass(slots=True, kw_only=True)
class Looked:
    """What was found about the points of a study's searches.

    Attributes:
        shown: of each combination of the axes the point that shows its search.
        possible: of each search that was counted, its possible points.
        reasons: why a point is not possible -> how many are not.
        repeats: points that make the same cell as others.
        points: of the space, or of the largest; None where they are too many to count them.
        is_finite: whether there is an end of the points of each search.
        start: the points of the file to start with, each with its outcome in every combination.
    """

    shown: list[Mapping[str, Any]] = field(default_factory=list)
    possible: list[int] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    points: int | None = None
    is_finite: bool = False
    start: list[tuple[Mapping[str, Any], list[Placed]]] = field(default_factory=list)

    def count(
        self,
        points: Sequence[Mapping[str, Any]],
        outcomes: Sequence[Placed],
        first: Mapping[str, Any] | None,
    ) -> Mapping[str, Any] | None:
        """Count the points of one search; `first`, or else the first that is possible."""
        keys = [one.key for one in outcomes if one.key]
        if not keys:
            return first  # this cell of the grid is left out, or nothing is possible
        self.possible.append(len(set(keys)))
        self.repeats += len(keys) - len(set(keys))
        self.reasons.update(one.why_not for one in outcomes if not one.key)
        possible = (point for point, one in zip(points, outcomes, strict=True) if one.key)
        return next(possible) if first is None else first


def look_at_points(
    study: StudyFile,
    search: Search,
    data: Mapping[str, DataSet],
    missing: Callable[[str], str | None],
) -> Looked:
    """Choose the point that shows each search of a study, and count those that are possible.

    Raises:
        StudyError: a point of `start_with` is possible in no combination of the axes.
    """
    factors = study.grid.factors
    paths = [path for factor in factors for path in factor.paths]
    combinations = [
        dict(zip(paths, itertools.chain(*rows), strict=True))
        for rows in itertools.product(*(factor.rows for factor in factors))
    ]
    searches = [search.at(axes) for axes in combinations]
    most = MOST_COUNTED // len(searches) + 1
    spaces = [list(itertools.islice(one.points(), most)) for one in searches]
    is_finite = all(one.is_finite for one in searches)
    counted = is_finite and all(len(points) < most for points in spaces)
    found = Looked(is_finite=is_finite, points=max(map(len, spaces)) if counted else None)

    def placed(axes: Mapping[str, Any], *some: Mapping[str, Any]) -> Sequence[Placed]:
        trials = [Trial(axes=axes, values=point) for point in some]
        return expand(study, data, missing, trials).placed

    is_possible = False
    for axes, points in zip(combinations, spaces, strict=True):
        first: Mapping[str, Any] | None = search.middle
        if not placed(axes, search.middle)[0].key:
            first = None
        if counted:
            first = found.count(points, placed(axes, *points), first)
        elif first is None:
            some = points[:MOST_TRIED]
            first = next((point for point in some if placed(axes, point)[0].key), None)
        is_possible = is_possible or first is not None
        found.shown.append(search.middle if first is None else first)
    if is_possible:  # else the study as a whole is wrong, and its cells say how
        found.start = [
            (point, [placed(axes, point)[0] for axes in combinations]) for point in search.start
        ]
        _check_start(study, found.start)
    return found


def _check_start(
    study: StudyFile, start: Sequence[tuple[Mapping[str, Any], Sequence[Placed]]]
) -> None:
    """Refuse a point that is written out and possible in no cell of the grid.

    Raises:
        StudyError: with every such point.
    """
    block = study.study.search
    assert block is not None
    places = [number for number, one in enumerate(block.start_with) if "study" not in one]
    problems = [
        study.document.problem(
            ("search", "start_with", number), f"this point is not possible: {outcomes[0].why_not}"
        )
        for number, (_, outcomes) in zip(places, start, strict=True)
        if not any(one.key for one in outcomes)
    ]
    if problems:
        raise StudyError(problems)


def about_points(study: StudyFile, search: Search, found: Looked) -> Iterator[str]:
    """How many points of a finite space are possible, and whether they are enough."""
    if not found.is_finite:
        return
    if found.points is None:
        yield f"the space has more than {MOST_COUNTED:,} points; the possible ones are not counted"
        return
    least, most = min(found.possible), max(found.possible)
    many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    searches = "" if len(found.possible) == 1 else ", in each search"
    why = [f"{reason} ({count:,})" for reason, count in found.reasons.most_common(MOST_REASONS)]
    further = len(found.reasons) - len(why)
    if further > 0:
        why.append(f"{further} further reasons")
    if found.repeats:
        why.append(f"the same cell as another point ({found.repeats:,})")
    every = f"all {many}" if least == found.points else f"{many} of the {found.points:,}"
    yield (
        f"{every} points of the space are possible{searches}"
        + (f"; not: {'; '.join(why)}" if why else "")
    )
    if least < search.trials:
        yield (
            f"trials is {search.trials:,}, and {'a' if most >= search.trials else 'the'} search "
            f"ends after {least:,}: then every possible point was tried"
        )
    for entry in study.grid.exclude:
        if not entry.stages and f"excluded by {entry.where}" not in found.reasons:
            yield f"{entry.where}: this exclude entry matches no point"


def about_search(search: Search, points: Sequence[Point]) -> Iterator[str]:
    """What the plan of a search shows, which is one point of each."""
    searches = f"{len(points)} searches" if len(points) > 1 else "a search"
    yield (
        f"{searches} of {search.trials:,} trials at most; each is shown here by one point, "
        "and what it costs is that of this point"
    )
    if search.prune is not None:
        yield _said_of_rungs(search, search.prune, points)


def _said_of_rungs(search: Search, prune: Prune, points: Sequence[Point]) -> str:
    """Where trials are measured on their way."""
    (objective,) = search.objectives
    stages = (point.config["stages"][prune.stage] for point in points)
    rungs = {prune.steps(int(stage["steps"])) for stage in stages if stage.get("steps")}
    steps = "; ".join(
        f"{', '.join(map(str, steps[:-1]))} of {steps[-1]:,}" for steps in sorted(rungs)
    )
    return (
        f"trials wait at steps {steps} of {prune.stage}, where {objective.metric} decides who "
        f"goes on ({prune.rule}, factor {prune.factor})"
    )
