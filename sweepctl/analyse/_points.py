"""What are the points of a fit? Rows of measured values become configurations.

A configuration is everything but the seed. Rows of one task count once, however many cells share
it; rows that differ only in the seed are averaged on the fit's scale. Values that cannot share a
fit raise `NotFitted` with a code, which becomes a warning of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._results import FitWarning, Point, Scale, WarningCode
from sweepctl.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_NOT_SETTINGS = {"cell", "task", "metric", "dataset", "protocol", "n", "value"}


class NotFitted(Exception):
    """Carries the reason why the rows cannot be fitted from where it is seen to the result."""

    def __init__(self, code: WarningCode, message: str) -> None:
        super().__init__(message)
        self.warning = FitWarning(code=code, message=message)


def configurations(
    frame: pd.DataFrame, metric: str, on: str, x: str, scale: Scale
) -> tuple[list[Point], str, int]:
    """The configurations of one metric on one data set, ordered by x; protocol and sample count."""
    if not len(frame):
        raise NotFitted("too_few_points", f"no value of {metric} on {on} has been measured")
    rows = frame[(frame["metric"] == metric) & (frame["dataset"] == on)]
    if not len(rows):
        raise NotFitted("too_few_points", f"no value of {metric} on {on} has been measured")
    what = f"{metric} on {on} was measured"
    if len(protocols := sorted({str(value) for value in rows["protocol"]})) > 1:
        raise NotFitted(
            "mixed_protocols",
            f"{what} under {len(protocols)} protocols ({', '.join(protocols)}); "
            "their values cannot share a fit",
        )
    if len(counts := sorted({int(value) for value in rows["n"]})) > 1:
        raise NotFitted(
            "mixed_n_samples",
            f"{what} on {len(counts)} numbers of samples ({', '.join(map(str, counts))}); "
            "the bias of a metric depends on the number, so the values cannot share a fit",
        )
    x_column = column_of(rows.columns, x)
    measured = _measurements(rows.sort_values("cell", kind="stable").to_dict("records"))
    _check_values(measured, metric, x_column, scale)
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in measured:
        settings = {key: value for key, value in record.items() if _is_setting(key)}
        groups.setdefault(repr(sorted(settings.items(), key=lambda item: item[0])), []).append(
            record
        )
    points = [_point(group, x_column, scale) for group in groups.values()]
    points.sort(key=lambda point: (point.x, point.cells))
    return points, protocols[0], counts[0]


def _measurements(records: Iterable[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """One record a task: cells that share a task share one measurement, not several.

    A setting in which such cells differ did not reach the measurement; its values are joined to a
    text, so that it neither splits configurations nor passes for a number.
    """
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_task.setdefault(str(record["task"]), []).append(record)
    merged = []
    for task, shared in by_task.items():
        if len({record["value"] for record in shared}) > 1 and all(
            not _missing(record["value"]) for record in shared
        ):
            raise NotFitted("several_values", f"task {task} has several values of one metric")
        one = {key: None if _missing(value) else value for key, value in shared[0].items()}
        for key in one:
            if _is_setting(key) and len({repr(record[key]) for record in shared}) > 1:
                one[key] = " | ".join(sorted({str(record[key]) for record in shared}))
        one["cells"] = tuple(int(record["cell"]) for record in shared)
        merged.append(one)
    return merged


def _check_values(measured: Sequence[Mapping[str, Any]], metric: str, x: str, scale: Scale) -> None:
    def cells(bad: Sequence[Mapping[str, Any]]) -> str:
        numbers = sorted({cell for record in bad for cell in record["cells"]})
        shown = ", ".join(str(number) for number in numbers[:12])
        return f"cells {shown}{' ...' if len(numbers) > 12 else ''}"

    if bad := [r for r in measured if r["value"] is None or not math.isfinite(r["value"])]:
        raise NotFitted("nonfinite_value", f"{metric} is not a finite number in {cells(bad)}")
    if scale == "log2" and (bad := [r for r in measured if r["value"] <= 0]):
        least = min(r["value"] for r in bad)
        raise NotFitted(
            "nonpositive_value",
            f"{metric} has no logarithm in {cells(bad)} (smallest value {least:.3g}); "
            "leaving them out would bias the law",
        )
    if bad := [r for r in measured if r[x] is None]:
        raise NotFitted("nonfinite_value", f"{x} is not known in {cells(bad)}")
    if bad := [r for r in measured if isinstance(r[x], bool) or not isinstance(r[x], Real)]:
        raise UsageError(
            f"{x} is not one number for each value of {metric}: {bad[0][x]!r} in {cells(bad)}",
            hint="fit against a numeric column that reaches this metric, for example E",
        )
    if bad := [r for r in measured if not 0 < r[x] < math.inf]:
        raise NotFitted("nonpositive_value", f"{x} has no logarithm in {cells(bad)}")


def _point(group: Sequence[Mapping[str, Any]], x: str, scale: Scale) -> Point:
    ys = np.asarray([float(record["value"]) for record in group])
    ys = np.log2(ys) if scale == "log2" else ys
    return Point(
        settings={key: value for key, value in group[0].items() if _is_setting(key)},
        cells=tuple(sorted({cell for record in group for cell in record["cells"]})),
        seeds=len(group),
        x=float(group[0][x]),
        y=float(ys.mean()),
        low=float(ys.min()),
        high=float(ys.max()),
    )


def column_of(columns: Iterable[str], name: str) -> str:
    """The column a study means by a name: itself, or the only longer or shorter form of it.

    Raises:
        UsageError: no column or several columns fit.
    """
    names = [str(column) for column in columns if str(column) not in _NOT_SETTINGS]
    if name in names:
        return name
    fitting = [c for c in names if c.endswith(f".{name}") or name.endswith(f".{c}")]
    if len(fitting) == 1:
        return fitting[0]
    raise UsageError(
        f"{name!r} is {'not a' if not fitting else 'more than one'} column of the results; "
        f"there are {', '.join(sorted(fitting or names))}"
    )


def _is_setting(column: str) -> bool:
    return column not in _NOT_SETTINGS and column != "cells" and column.split(".")[-1] != "seed"


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>"


def place_of(point: Point) -> str:
    """A configuration in a few words; q only where it is not the 1 of every image."""
    keys = ("p", "c") if point.settings.get("q") == 1 else ("q", "p", "c")
    shown = [f"{key} {point.settings[key]}" for key in keys if point.settings.get(key)]
    return ", ".join(shown) or f"x = {point.x:g}"


def cells_of(point: Point) -> str:
    """Its cells, as people read them."""
    numbers = ", ".join(str(cell) for cell in point.cells)
    return f"cell {numbers}" if len(point.cells) == 1 else f"cells {numbers}"
