"""How do comparisons read? One's points beside the paper's, correlations, frontiers, predictions.

A table of plain values each, for a person or for a pipe, and the same as plain data for JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from sweepctl.analyse import Beside, Estimate, Foreseen, Front, Relation, in_unit

BESIDE = (
    *("fit", "metric", "cells", "x", "own", "paper", "paper_low", "paper_high"),
    *("distance", "as", "reference", "reference_on"),
)
"""Columns of `beside_rows`; distance is own / paper (ratio) or own - paper (difference)."""

RELATIONS = (
    *("metric", "on", "n", "spearman", "spearman_low", "spearman_high"),
    *("pearson", "pearson_low", "pearson_high", "reason"),
)
"""Columns of `relation_rows`."""

FORESEEN = ("cell", "fit", "metric", "on", "value", "low", "high", "outside")
"""Columns of `foreseen_rows`."""


def beside_rows(beside: Iterable[Beside]) -> list[tuple[Any, ...]]:
    """One's own configurations beside the paper's law at the same x."""
    return [
        (
            one.fit,
            one.law.metric,
            " ".join(map(str, row.cells)),
            row.x,
            row.own,
            row.paper,
            row.paper_low,
            row.paper_high,
            row.distance,
            "ratio" if one.scale == "log2" else "difference",
            one.paper,
            one.law.on,
        )
        for one in beside
        for row in one.rows
    ]


def relation_rows(relations: Iterable[Relation]) -> list[tuple[Any, ...]]:
    """Both correlations of each metric, with their intervals."""
    return [
        (one.metric, one.on, one.n, *_ends(one.spearman), *_ends(one.pearson), one.reason)
        for one in relations
    ]


def _ends(found: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else (found.value, found.low, found.high)


def front_columns(front: Front) -> tuple[str, ...]:
    """Columns of `front_rows`."""
    settings = _settings(front)
    return ("cells", *settings, front.against, front.metric, "front")


def front_rows(front: Front, *, every: bool = True) -> list[tuple[Any, ...]]:
    """The configurations in the order of x, and whether each is on the front."""
    settings = _settings(front)
    members = set(front.members)
    return [
        (
            " ".join(map(str, point.cells)),
            *(point.settings.get(name) for name in settings),
            point.x,
            in_unit(point, front.metric),
            index in members,
        )
        for index, point in enumerate(front.points)
        if every or index in members
    ]


def _settings(front: Front) -> list[str]:
    """What tells the configurations apart, without what follows from it."""
    from sweepctl.study import DERIVED

    hidden = {*DERIVED, "training_flops", front.against, front.metric}
    names = dict.fromkeys(name for point in front.points for name in point.settings)
    return [
        name
        for name in names
        if name not in hidden and len({str(p.settings.get(name)) for p in front.points}) > 1
    ]


def foreseen_rows(foreseen: Iterable[Foreseen]) -> list[tuple[Any, ...]]:
    """What the laws expect of unfinished cells."""
    return [tuple(getattr(one, name) for name in FORESEEN) for one in foreseen]


def front_facts(front: Front, law: dict[str, Any] | None) -> dict[str, Any]:
    """A front as plain data."""
    rows = [dict(zip(front_columns(front), row, strict=True)) for row in front_rows(front)]
    return {
        "metric": front.metric,
        "on": front.on,
        "against": front.against,
        "against_on": front.against_on or None,
        "points": rows,
        "law": law,
        "reason": front.reason or None,
    }


def relation_facts(relations: Iterable[Relation]) -> list[dict[str, Any]]:
    """Correlations as plain data."""
    return [
        {
            "metric": one.metric,
            "on": one.on,
            "against": one.against,
            "against_on": one.against_on,
            "n": one.n,
            "spearman": None if one.spearman is None else dataclasses.asdict(one.spearman),
            "pearson": None if one.pearson is None else dataclasses.asdict(one.pearson),
            "reason": one.reason or None,
        }
        for one in relations
    ]
