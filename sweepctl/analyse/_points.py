"""What are the points of a fit? Rows of measured values become configurations with weights.

A configuration is everything but the seed. Rows of one task count once, however many cells share
it; rows that differ only in the seed are averaged on the fit's scale. A variable of a law is a
column, or another metric measured on the same configuration. Weights come from what is known of the
noise: the scatter between seeds, pooled over all configurations, and the evaluation's own standard
error where the rows carry one (column `se`, in the metric's unit). Where every configuration has
one seed only the law can say the rest of the scatter, so those weights are `_noise`'s. Values that
cannot share a fit raise `NotFitted` with a code, which becomes a warning of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._results import FitWarning, Point, WarningCode
from sweepctl.analyse._scales import is_metric
from sweepctl.errors import UsageError
from sweepctl.laws import Scale
from sweepctl.study import parse_comparison

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_NOT_SETTINGS = {
    *("cell", "task", "metric", "dataset", "protocol", "n", "value", "se", "cells"),
    # where a published number comes from
    *("id", "source", "kind", "figure_or_table", "figure", "note", "value_high"),
}
_REPEATS = {"run", "repeat", "replicate", "replica", "rep", "trial", "attempt", "checkpoint"}
"""Columns that number repeated measurements of one configuration, as `seed` does."""
_JOINT = " | "
"""Between the values of a setting that did not reach a measurement which several cells share."""


class NotFitted(Exception):
    """Carries the reason why the rows cannot be fitted from where it is seen to the result."""

    def __init__(self, code: WarningCode, message: str) -> None:
        super().__init__(message)
        self.warning = FitWarning(code=code, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configurations:
    """The points of a fit.

    Attributes:
        points: ordered by the variables, then by cells; with weights that are 1 on average.
        protocol: protocol of all values.
        n_samples: samples behind each value; None when that is not known.
        noise: standard deviation between seeds, pooled; None when no configuration has two.
        weighting: what the weights come from; empty when all are equal.
        only_errors: whether the evaluation's errors are all that is known of the noise, so that
            weights need the law.
        warnings: about the rows themselves.
    """

    points: tuple[Point, ...]
    protocol: str
    n_samples: int | None
    noise: float | None
    weighting: str
    only_errors: bool
    warnings: tuple[FitWarning, ...]


def configurations(
    frame: pd.DataFrame,
    metric: str,
    on: str,
    xs: Sequence[str],
    scale: Scale,
    *,
    where: Mapping[str, Any] | None = None,
    x_on: str | None = None,
    x_scales: Sequence[Scale] = (),
    partial: bool = False,
) -> Configurations:
    """The configurations of one metric on one data set, ordered by x.

    Args:
        frame: one row per measured value, as `fit_study` takes it.
        metric: the metric.
        on: its data set.
        xs: the variables: columns, or metrics.
        scale: scale of y.
        where: column -> value, list of values, or comparison as text; only such rows are used.
        x_on: data set of variables that are metrics; `on` when None.
        x_scales: scale of each variable; log2 when not given. A logarithm needs positive values.
        partial: whether configurations without a value of a metric in `xs` are left out instead of
            refused.

    Raises:
        NotFitted: the rows cannot share a fit, or a variable is no column or not a number.
        UsageError: a name in `where` means no column.
    """
    rows, protocol, n_samples = _rows(frame, metric, on, where or {}, strict=True)
    scales: tuple[Scale, ...] = tuple(x_scales) or tuple("log2" for _ in xs)
    columns = [None if _is_other(frame, x) else _variable_column(rows.columns, x) for x in xs]
    measured = _measurements(rows.sort_values("cell", kind="stable").to_dict("records"))
    _check_values(measured, metric, scale)
    for column, x_scale in zip(columns, scales, strict=True):
        if column is not None:
            _check_x(measured, metric, column, x_scale)
    groups, warnings = _grouped(measured)
    others = [
        None if column is not None else _others(frame, x, x_on or on, where or {}, x_scale)
        for x, column, x_scale in zip(xs, columns, scales, strict=True)
    ]
    if partial:
        groups = [
            group
            for group in groups
            if all(other is None or _agreeing(group[0], other) for other in others)
        ]
        if not groups:
            raise NotFitted("too_few_points", f"no configuration has {metric} and {', '.join(xs)}")
    points = []
    for group in groups:
        values = tuple(
            float(group[0][column]) if column is not None else _joined(group[0], other or (), x)
            for x, column, other in zip(xs, columns, others, strict=True)
        )
        points.append(_point(group, values, scale))
    errors = np.asarray([_evaluation_error(group, scale) for group in groups])
    weighted, noise, weighting = _weighted(points, groups, scale, errors)
    weighted.sort(key=lambda point: (point.xs, point.cells))
    if len(missing := np.flatnonzero(np.isnan(errors))) and len(missing) < len(errors):
        message = (
            f"{len(missing)} of {len(errors)} configurations have no standard error of their "
            f"evaluation ({_cells([record for i in missing for record in groups[i]])}), so no "
            "such error weighs in; measure all of them the same way"
        )
        warnings.append(FitWarning(code="evaluation_error_missing", message=message))
    return Configurations(
        points=tuple(weighted),
        protocol=protocol,
        n_samples=n_samples,
        noise=noise,
        weighting=weighting,
        only_errors=noise is None and len(errors) > 0 and bool((errors > 0).all()),
        warnings=tuple(warnings),
    )


def _rows(
    frame: pd.DataFrame, metric: str, on: str, where: Mapping[str, Any], *, strict: bool
) -> tuple[pd.DataFrame, str, int | None]:
    """The rows of a metric on a data set that match, their protocol and number of samples."""
    nothing = f"no value of {metric} on {on} has been measured"
    if not len(frame):
        raise NotFitted("too_few_points", nothing)
    rows = frame[(frame["metric"] == metric) & (frame["dataset"] == on)]
    if not len(rows):
        raise NotFitted("too_few_points", nothing)
    for name, wanted in where.items():
        column = name if name in _NOT_SETTINGS else column_of(frame.columns, name)
        kept = [
            matches(value, wanted) or (not strict and _missing(value)) for value in rows[column]
        ]
        rows = rows[kept]
        if not len(rows):
            raise NotFitted(
                "too_few_points", f"no value of {metric} on {on} has {name} {_shown(wanted)}"
            )
    what = f"{metric} on {on} was measured"
    if len(protocols := sorted({str(value) for value in rows["protocol"]})) > 1:
        raise NotFitted(
            "mixed_protocols",
            f"{what} under {len(protocols)} protocols ({', '.join(protocols)}); "
            "their values cannot share a fit",
        )
    counts = {None if _missing(value) else int(value) for value in rows["n"]}
    if len(counts) > 1:
        known = ", ".join(
            "unknown" if n is None else str(n) for n in sorted(counts, key=lambda n: n or 0)
        )
        raise NotFitted(
            "mixed_n_samples",
            f"{what} on {len(counts)} numbers of samples ({known}); "
            "the bias of a metric depends on the number, so the values cannot share a fit",
        )
    return rows, protocols[0], counts.pop()


def _shown(wanted: Any) -> str:
    if isinstance(wanted, list | tuple):
        return " or ".join(str(value) for value in wanted)
    return str(wanted)


def matches(value: Any, wanted: Any) -> bool:
    """Whether a value meets one condition of a fit's `where`."""
    if _missing(value):
        return False
    comparison = parse_comparison(wanted)
    if comparison is not None:
        return isinstance(value, Real) and comparison.holds(float(value))
    allowed = wanted if isinstance(wanted, list | tuple) else (wanted,)
    return any(
        (value is one) if isinstance(one, bool) or isinstance(value, bool) else value == one
        for one in allowed
    )


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
        for key in one if len(shared) > 1 else ():
            if _is_setting(key) and len({repr(record[key]) for record in shared}) > 1:
                one[key] = _JOINT.join(sorted({str(record[key]) for record in shared}))
        one["cells"] = tuple(int(record["cell"]) for record in shared)
        merged.append(one)
    return merged


def _cells(bad: Sequence[Mapping[str, Any]]) -> str:
    numbers = sorted({cell for record in bad for cell in record["cells"]})
    shown = ", ".join(str(number) for number in numbers[:12])
    return f"cells {shown}{' ...' if len(numbers) > 12 else ''}"


def _check_values(measured: Sequence[Mapping[str, Any]], metric: str, scale: Scale) -> None:
    if bad := [r for r in measured if r["value"] is None or not math.isfinite(r["value"])]:
        raise NotFitted("nonfinite_value", f"{metric} is not a finite number in {_cells(bad)}")
    if scale == "log2" and (bad := [r for r in measured if r["value"] <= 0]):
        least = min(r["value"] for r in bad)
        raise NotFitted(
            "nonpositive_value",
            f"{metric} has no logarithm in {_cells(bad)} (smallest value {least:.3g}); "
            "leaving them out would bias the law",
        )


def _check_x(measured: Sequence[Mapping[str, Any]], metric: str, x: str, scale: Scale) -> None:
    if bad := [r for r in measured if r[x] is None]:
        what = f"{x} has no value in {_cells(bad)}; `where: {{{x}: '>= 0'}}` leaves them out"
        raise NotFitted("nonfinite_value", what)
    if bad := [r for r in measured if isinstance(r[x], bool) or not isinstance(r[x], Real)]:
        raise NotFitted(
            "several_values",
            f"{x} is not one number for each value of {metric}: {bad[0][x]!r} in {_cells(bad)}; "
            "fit against a numeric column that reaches this metric, for example E",
        )
    if bad := [r for r in measured if not math.isfinite(r[x])]:
        raise NotFitted("nonfinite_value", f"{x} is not a finite number in {_cells(bad)}")
    if scale == "log2" and (bad := [r for r in measured if r[x] <= 0]):
        raise NotFitted("nonpositive_value", f"{x} has no logarithm in {_cells(bad)}")
    if scale == "raw" and (bad := [r for r in measured if abs(r[x]) > 1e150]):
        what = f"{x} is too large to be squared in {_cells(bad)}; use a form in log2 x"
        raise NotFitted("nonfinite_value", what)


def _grouped(
    measured: Sequence[dict[str, Any]],
) -> tuple[list[list[dict[str, Any]]], list[FitWarning]]:
    """Measurements by configuration, and doubts about rows that repeat."""
    names = [key for key in measured[0] if _is_setting(key)]
    seeds = [key for key in measured[0] if key.split(".")[-1] == "seed"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    warnings, repeated, seen = [], [], set()
    for record in measured:
        key = _key(record, names)
        # The same number of the same seed is one measurement written down twice.
        run = (key, _key(record, seeds), record["value"])
        known = bool(seeds) and all(record[name] is not None for name in seeds)
        if known and run in seen:
            repeated.append(record)
            continue
        seen.add(run)
        groups.setdefault(key, []).append(record)
    if repeated:
        message = f"{_cells(repeated)} repeat the value of another row of their configuration"
        warnings.append(FitWarning(code="duplicate_rows", message=message + "; counted once"))
    for column in measured[0]:
        if column.rsplit(".", 1)[-1].lower() not in _REPEATS:
            continue
        others = [name for name in names if name != column]
        merged = len({_key(record, others) for record in measured})
        if merged < len(groups):
            message = (
                f"{len(groups)} points are {merged} configurations that differ in {column}: rows "
                f"that only repeat a configuration make every interval too narrow; call {column} "
                "seed to average them"
            )
            warnings.append(FitWarning(code="seeds_as_rows", message=message))
    return list(groups.values()), warnings


def _key(record: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Values that can be compared; True is not 1, as it is not in the database."""
    return tuple(
        value
        if isinstance(value, str | int | float) and not isinstance(value, bool)
        else repr(value)
        for value in map(record.__getitem__, names)
    )


def _point(group: Sequence[Mapping[str, Any]], xs: tuple[float, ...], scale: Scale) -> Point:
    ys = _ys(group, scale)
    y, low, high = (
        (float(ys[0]),) * 3 if len(ys) == 1 else map(float, (ys.mean(), ys.min(), ys.max()))
    )
    return Point(
        settings={key: value for key, value in group[0].items() if _is_setting(key)},
        cells=tuple(sorted({cell for record in group for cell in record["cells"]})),
        seeds=len(group),
        x=xs[0],
        xs=xs,
        y=y,
        low=low,
        high=high,
    )


def _ys(group: Sequence[Mapping[str, Any]], scale: Scale) -> Any:
    ys = np.asarray([float(record["value"]) for record in group])
    return np.log2(ys) if scale == "log2" else ys


# ---------------------------------------------------------------------------- metrics as variables


def _is_other(frame: pd.DataFrame, name: str) -> bool:
    """Whether a variable is a metric: a measured one wins over a column of its name."""
    if len(frame) and bool((frame["metric"] == name).any()):
        return True
    return name not in frame.columns and is_metric(name)


def _others(
    frame: pd.DataFrame, metric: str, on: str, where: Mapping[str, Any], scale: Scale
) -> list[tuple[Mapping[str, Any], float]]:
    """Settings and value of each configuration of a metric that serves as a variable.

    What such a row does not have (a tokenizer's rFID has no guidance scale) cannot exclude it.
    """
    rows, _, _ = _rows(frame, metric, on, where, strict=False)
    measured = _measurements(rows.sort_values("cell", kind="stable").to_dict("records"))
    _check_values(measured, metric, scale)
    found: list[tuple[Mapping[str, Any], float]] = []
    for group in _grouped(measured)[0]:
        mean = float(_ys(group, scale).mean())
        found.append((group[0], 2.0**mean if scale == "log2" else mean))
    return found


def _agreeing(
    record: Mapping[str, Any], others: Sequence[tuple[Mapping[str, Any], float]]
) -> list[float]:
    """The values of another metric whose settings all agree with a configuration's.

    A setting that is not known (in published numbers) agrees with any, but equal comes first: in
    one's own studies nothing is unknown, and no stage 2 is not 100k steps of it. A setting that did
    not reach a measurement has its values joined (`_measurements`) and agrees with each of them.
    """

    def agrees(other: Mapping[str, Any], *, strictly: bool) -> bool:
        shared = [key for key in record if _is_shared(key) and key in other]
        return all(
            record[key] == other[key]
            or not _values_of(record[key]).isdisjoint(_values_of(other[key]))
            or (not strictly and (record[key] is None or other[key] is None))
            for key in shared
        )

    equal = [value for settings, value in others if agrees(settings, strictly=True)]
    return equal or [value for settings, value in others if agrees(settings, strictly=False)]


def _values_of(value: object) -> set[str]:
    return set(str(value).split(_JOINT))


def _joined(
    record: Mapping[str, Any], others: Sequence[tuple[Mapping[str, Any], float]], metric: str
) -> float:
    """The value of another metric at a configuration: the one whose known settings all agree."""
    found = _agreeing(record, others)
    if len(found) == 1:
        return found[0]
    cells = _cells([record])
    if not found:
        raise NotFitted("nonfinite_value", f"{metric} is not known in {cells}")
    raise NotFitted(
        "several_values",
        f"{metric} has {len(found)} values for {cells}; choose one by where",
    )


# ----------------------------------------------------------------------------------------- weights


def _weighted(
    points: Sequence[Point],
    groups: Sequence[Sequence[Mapping[str, Any]]],
    scale: Scale,
    errors: NDArray[np.float64],
) -> tuple[list[Point], float | None, str]:
    """Points with weights from the noise that is known.

    var(mean) = s^2 / seeds + se^2: s is pooled over all configurations because two or three seeds
    say little about their own scatter; the evaluation's error is that of one set of samples, which
    all seeds share, so averaging over seeds does not reduce it.
    """
    repeated = [_ys(group, scale) for group in groups if len(group) > 1]
    within = sum(float(((ys - ys.mean()) ** 2).sum()) for ys in repeated)
    df = sum(len(group) - 1 for group in groups)
    noise = math.sqrt(within / df) if df else None
    known = bool(np.isfinite(errors).all()) and len(errors) > 0
    if noise is None and not known:
        return list(points), None, ""
    seeds = np.asarray([float(point.seeds) for point in points])
    variance = (noise or 0.0) ** 2 / seeds + (errors**2 if known else 0.0)
    standard = np.sqrt(variance)
    # Evaluation error alone would make points exact that no second seed has ever vouched for; with
    # the scatter that a law finds it does not (`_noise`).
    usable = noise is not None and float(variance.min()) > 0
    even = float(np.ptp(variance)) <= 1e-12 * float(variance.max())
    weights = 1 / variance if usable and not even else np.ones(len(points))
    weights = weights / weights.mean()
    weighting = ""
    if usable and not even:
        weighting = "seeds and evaluation noise" if known else "seeds"
    return (
        [
            replace(point, weight=float(weight), noise=float(error))
            for point, weight, error in zip(points, weights, standard, strict=True)
        ],
        noise,
        weighting,
    )


def _evaluation_error(group: Sequence[Mapping[str, Any]], scale: Scale) -> float:
    """Standard error of the evaluation on the fit's scale; NaN when a row does not say it."""
    errors = []
    for record in group:
        error = record.get("se")
        if error is None:
            return math.nan
        value = abs(float(record["value"])) * math.log(2) if scale == "log2" else 1.0
        errors.append(float(error) / value)
    return math.sqrt(float(np.mean(np.square(errors))))


# ------------------------------------------------------------------------------------------- names


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


def _variable_column(columns: Iterable[str], name: str) -> str:
    """As `column_of`; a variable that is no column spoils its own fit and none of the others."""
    try:
        return column_of(columns, name)
    except UsageError as error:
        raise NotFitted("nonfinite_value", str(error)) from error


def is_reserved(column: str) -> bool:
    """Whether a column of that name says something else than a setting."""
    return column in _NOT_SETTINGS


def _is_setting(column: str) -> bool:
    return column not in _NOT_SETTINGS and column.split(".")[-1] != "seed"


def _is_shared(column: str) -> bool:
    """Whether two metrics of one configuration agree in it; what training costs, they need not."""
    return _is_setting(column) and column != "training_flops"


def _missing(value: object) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (not isinstance(value, int) and str(value) == "<NA>")


def place_of(point: Point) -> str:
    """A configuration in a few words; q only where it is not the 1 of every image."""
    keys = ("p", "c") if point.settings.get("q") == 1 else ("q", "p", "c")
    shown = [f"{key} {point.settings[key]}" for key in keys if point.settings.get(key)]
    return ", ".join(shown) or f"x = {point.x:g}"


def cells_of(point: Point) -> str:
    """Its cells, as people read them."""
    numbers = ", ".join(str(cell) for cell in point.cells)
    return f"cell {numbers}" if len(point.cells) == 1 else f"cells {numbers}"
