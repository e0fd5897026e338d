"""What will an unfinished cell come to? The law so far at its settings, with its interval.

The interval is that of a new configuration with one seed: the law's own doubt and the scatter
together. A cell that the fit would not have used (another data set's condition, an unknown level of
a factor) gets no prediction; one beyond the finished x gets one that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from sweepctl.analyse._bands import bands
from sweepctl.analyse._points import column_of, matches
from sweepctl.analyse._results import FitResult
from sweepctl.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What a law expects of a cell.

    Attributes:
        cell: number of the cell.
        fit: name of the fit.
        metric: its metric.
        on: its data set.
        value: the law at the cell, in the metric's unit.
        low: lower end of the 95 % interval of one run there.
        high: upper end.
        outside: whether the cell lies outside the finished x.
    """

    cell: int
    fit: str
    metric: str
    on: str
    value: float
    low: float
    high: float
    outside: bool


def foresee(fits: Sequence[FitResult], cells: Sequence[Mapping[str, Any]]) -> tuple[Foreseen, ...]:
    """Predict cells from laws.

    Args:
        fits: the laws; those that were not made, or whose variable is another metric, predict
            nothing.
        cells: settings of each cell by column, with its number under `cell`.
    """
    return tuple(
        one
        for cell in cells
        for fit in fits
        if fit.fitted and (one := _foreseen(fit, cell)) is not None
    )


def uses(fit: FitResult, cell: Mapping[str, Any]) -> bool:
    """Whether a cell meets the fit's own condition."""
    try:
        return all(
            matches(cell[column_of(cell, name)], wanted) for name, wanted in fit.where.items()
        )
    except UsageError:
        return False  # a condition on what a cell does not have


def _foreseen(fit: FitResult, cell: Mapping[str, Any]) -> Foreseen | None:
    try:
        xs = [cell[column_of(cell, x)] for x in fit.xs]
        factors = {name: cell[column_of(cell, name)] for name in fit.factors}
    except UsageError:
        return None  # a variable that is a metric
    numbers = all(isinstance(x, Real) and not isinstance(x, bool) for x in xs)
    known = all(level in fit.factors[name] for name, level in factors.items())
    if not uses(fit, cell) or not numbers or not known:
        return None
    if any(x <= 0 for x, scale in zip(xs, fit.x_scales, strict=True) if scale == "log2"):
        return None
    at = dict(zip(fit.xs[1:], map(float, xs[1:]), strict=True)) | factors
    band = bands(fit, [float(xs[0])], at)
    return Foreseen(
        cell=int(cell["cell"]),
        fit=fit.name,
        metric=fit.metric,
        on=fit.on,
        value=float(band.mean[0]),
        low=float(band.low[0]),
        high=float(band.high[0]),
        outside=bool(band.outside[0]),
    )
