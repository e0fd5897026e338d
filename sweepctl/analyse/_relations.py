"""How do metrics go with each other, and with cost? Correlations, trade-offs, frontiers, surfaces.

A cheap metric is of use when it ranks configurations as the dear one does: `correlate` says how
surely, by bootstrap of configurations. Of two metrics, or of a metric and a cost, those that no
other configuration beats in both are the front; on a cost it is the frontier that compute-optimal
choices lie on, and a law may be fitted to it. A surface is a metric as a law of two variables; its
level lines are the configurations that come to the same quality.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._bands import law_at
from sweepctl.analyse._laws import fit_law, refitted
from sweepctl.analyse._points import NotFitted, column_of, configurations
from sweepctl.analyse._results import FitResult, Point
from sweepctl.analyse._scales import better_of, is_metric, scale_of, unscaled
from sweepctl.analyse._validation import with_outliers
from sweepctl.errors import UsageError
from sweepctl.laws import exp2
from sweepctl.statistics import front_of
from sweepctl.study import Fit

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DRAWS = 5_000
"""Bootstrap resamples of a correlation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A correlation with its 95 % interval.

    Attributes:
        value: from -1 to 1.
        low: lower end.
        high: upper end.
        method: bca (bias-corrected and accelerated bootstrap of configurations), or fisher
            (Fisher's transformation) where resamples do not vary, as with ranks that all agree.
    """

    value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """How one metric goes with another.

    Attributes:
        metric: the metric.
        on: its data set.
        against: the metric it is compared with.
        against_on: its data set.
        n: configurations that have both.
        spearman: correlation of the ranks of goodness: 1 says that both rank alike.
        pearson: correlation of the goodness on the metrics' own scales (log2 for distances).
        points: the configurations: x is the other metric, y this one on its scale.
        reason: why there is no number; empty when there is.
    """

    metric: str
    on: str
    against: str
    against_on: str
    n: int
    spearman: Estimate | None = None
    pearson: Estimate | None = None
    points: tuple[Point, ...] = ()
    reason: str = ""


def correlate(
    frame: pd.DataFrame,
    against: str,
    on: str | None = None,
    *,
    where: Mapping[str, Any] | None = None,
) -> tuple[Relation, ...]:
    """How every other metric of a frame goes with one metric, the closest first.

    Args:
        frame: one row per measured value, as `fit_study` takes it.
        against: the metric to go with.
        on: its data set; may be left out when it is measured on one only.
        where: only rows that match, as in a fit.

    Raises:
        UsageError: the metric was not measured, or on several data sets and `on` does not say
            which.
    """
    against_on = data_set_of(frame, against, on)
    pairs = dict.fromkeys(zip(frame["metric"], frame["dataset"], strict=True))
    found = [
        _relation(frame, str(metric), str(dataset), against, against_on, where or {})
        for metric, dataset in sorted(pairs)
        if (metric, dataset) != (against, against_on) and is_metric(str(metric))
    ]
    return tuple(sorted(found, key=lambda one: -abs(one.spearman.value) if one.spearman else 1.0))


def data_set_of(frame: pd.DataFrame, metric: str, on: str | None) -> str:
    """The data set a metric was measured on.

    Raises:
        UsageError: the metric was not measured, not there, or on several and `on` is None.
    """
    sets = sorted({str(name) for name in frame["dataset"][frame["metric"] == metric]})
    if not sets:
        known = ", ".join(sorted(set(frame["metric"].astype(str))))
        raise UsageError(f"no {metric!r} was measured", hint=f"measured are: {known or 'none'}")
    if on is None and len(sets) > 1:
        raise UsageError(
            f"{metric} was measured on {', '.join(sets)}", hint=f"say which: {metric}@{sets[0]}"
        )
    if on is not None and on not in sets:
        raise UsageError(f"{metric} was not measured on {on!r}", hint=f"but on {', '.join(sets)}")
    return sets[0] if on is None else on


def _relation(
    frame: pd.DataFrame,
    metric: str,
    on: str,
    against: str,
    against_on: str,
    where: Mapping[str, Any],
) -> Relation:
    named: dict[str, Any] = {
        "metric": metric,
        "on": on,
        "against": against,
        "against_on": against_on,
    }
    try:
        points = paired(frame, metric, on, against, against_on, where)
    except NotFitted as refusal:
        return Relation(**named, n=0, reason=refusal.warning.message)
    good = goodness(points, metric, against)
    if len(points) < 5 or any(len(np.unique(column)) < 2 for column in good.T):
        reason = f"{len(points)} configurations with both; a correlation needs 5 that differ"
        return Relation(**named, n=len(points), points=points, reason=reason)
    return Relation(
        **named,
        n=len(points),
        points=points,
        spearman=_estimate(good, _ranked),
        pearson=_estimate(good, _straight),
    )


def paired(
    frame: pd.DataFrame,
    metric: str,
    on: str,
    against: str,
    against_on: str,
    where: Mapping[str, Any],
) -> tuple[Point, ...]:
    """The configurations that have both metrics: x is `against`, y is `metric` on its scale.

    A configuration without a value of `against` is left out.

    Raises:
        NotFitted: the rows cannot share a comparison.
    """

    def joined(y: str, y_on: str, x: str, x_on: str) -> tuple[Point, ...]:
        named: dict[str, Any] = {"where": where, "x_on": x_on, "x_scales": (scale_of(x),)}
        return configurations(frame, y, y_on, (x,), scale_of(y), partial=True, **named).points

    try:
        return joined(metric, on, against, against_on)
    except NotFitted as refusal:
        if refusal.warning.code != "several_values":
            raise
    # One tokenizer, several guidance scales: each generation is a configuration of its own.
    turned = [_turned(point, metric, against) for point in joined(against, against_on, metric, on)]
    return tuple(sorted(turned, key=lambda point: (point.x, point.cells)))


def _turned(point: Point, metric: str, against: str) -> Point:
    """The same configuration with its axes exchanged."""
    x = exp2(point.y) if scale_of(against) == "log2" else point.y
    y = math.log2(point.x) if scale_of(metric) == "log2" else point.x
    return replace(point, x=x, xs=(x,), y=y, low=y, high=y)


def goodness(points: Sequence[Point], metric: str, against: str) -> Array:
    """Both metrics on their scales, turned so that more is better; shape (n, 2)."""
    sign = 1.0 if better_of(metric) == "higher" else -1.0
    other = 1.0 if better_of(against) == "higher" else -1.0
    xs = np.asarray([point.x for point in points], dtype=np.float64)
    xs = np.log2(xs) if scale_of(against) == "log2" else xs
    return np.column_stack([sign * np.asarray([point.y for point in points]), other * xs])


def _straight(values_BN2: Array) -> Array:
    """Pearson's correlation of each resample; NaN where a column is constant."""
    centered = values_BN2 - values_BN2.mean(axis=1, keepdims=True)
    top = (centered[:, :, 0] * centered[:, :, 1]).sum(axis=1)
    bottom = np.sqrt((centered**2).sum(axis=1).prod(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(bottom > 1e-300, top / bottom, np.nan)
    return np.clip(found, -1.0, 1.0)


def _ranked(values_BN2: Array) -> Array:
    from scipy.stats import rankdata

    return _straight(rankdata(values_BN2, axis=1))


def _estimate(good: Array, statistic: Callable[[Array], Array]) -> Estimate:
    """BCa interval; Fisher's where the resamples do not allow one."""
    from scipy.special import ndtr, ndtri

    n = len(good)
    value = float(statistic(good[None])[0])
    seed = hashlib.sha256(np.ascontiguousarray(good).tobytes()).digest()[:8]
    chosen = np.random.default_rng(list(seed)).integers(0, n, (DRAWS, n))
    drawn = statistic(good[chosen])
    drawn = drawn[np.isfinite(drawn)]
    left = statistic(np.stack([np.delete(good, i, axis=0) for i in range(n)]))
    below = float(np.mean(drawn < value) + np.mean(drawn == value) / 2) if len(drawn) else 0.0
    if abs(value) > 1 - 1e-12 or not 0 < below < 1 or not np.isfinite(left).all():
        _, low, high = rank_interval(good) if statistic is _ranked else _fisher(value, n)
        return Estimate(value=value, low=low, high=high, method="fisher")
    bias, spread = float(ndtri(below)), left.mean() - left
    squares = float((spread**2).sum())
    bent = float((spread**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    ends = []
    for z in (float(ndtri(0.025)), float(ndtri(0.975))):
        place = float(ndtr(bias + (bias + z) / (1 - bent * (bias + z))))
        ends.append(float(np.quantile(drawn, place)))
    return Estimate(value=value, low=min(ends), high=max(ends), method="bca")


def _fisher(value: float, n: int) -> tuple[float, float, float]:
    inside = min(max(value, -1 + 1e-12), 1 - 1e-12)
    half = 1.959963984540054 / math.sqrt(n - 3)
    return value, math.tanh(math.atanh(inside) - half), math.tanh(math.atanh(inside) + half)


# --------------------------------------------------------------------------------- front, frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Configurations that no other one beats in both of two things.

    Attributes:
        metric: the metric of the y axis.
        on: its data set.
        against: the other metric, or the cost.
        against_on: its data set; empty for a cost.
        points: all configurations: x is `against`, y is `metric` on its scale.
        members: places in `points` of those on the front, in the order of x.
        law: the law along the front, for a cost; None for two metrics.
        reason: why there is no law, or no front; empty else.
    """

    metric: str
    on: str
    against: str
    against_on: str
    points: tuple[Point, ...]
    members: tuple[int, ...]
    law: FitResult | None = None
    reason: str = ""


def front(
    frame: pd.DataFrame,
    metric: str,
    on: str,
    against: str,
    against_on: str,
    where: Mapping[str, Any] | None = None,
) -> Front:
    """The Pareto front of two metrics."""
    named: dict[str, Any] = {
        "metric": metric,
        "on": on,
        "against": against,
        "against_on": against_on,
    }
    try:
        points = paired(frame, metric, on, against, against_on, where or {})
    except NotFitted as refusal:
        return Front(**named, points=(), members=(), reason=refusal.warning.message)
    costs = (-goodness(points, metric, against)).tolist()
    members = sorted(front_of(costs), key=lambda i: points[i].x)
    return Front(**named, points=points, members=tuple(members))


def frontier(
    frame: pd.DataFrame, metric: str, on: str | None = None, *, cost: str = "training_flops"
) -> Front:
    """The best that each budget buys, and the law along it.

    The law is fitted to the configurations of the frontier (log2 of the cost, the metric on its
    scale). They were selected for being good, so luck is selected with them: where configurations
    have few seeds, the frontier and its law are too good, the more so the more there are.

    Args:
        frame: one row per measured value, as `fit_study` takes it.
        metric: the metric.
        on: its data set; may be left out when it is measured on one only.
        cost: the column that is to be small.

    Raises:
        UsageError: the metric was not measured, its direction is not known, or the cost is no
            column or the metric itself.
    """
    dataset = data_set_of(frame, metric, on)
    _check_other(metric, (cost,))
    if not is_metric(cost):
        column_of(frame.columns, cost)
    better = better_of(metric)
    scale = scale_of(metric)
    stated = Fit.model_validate(
        {
            "metric": metric,
            "on": dataset,
            "x": cost,
            "form": "loglog" if scale == "log2" else "semilog",
        }
    )
    every = fit_law("frontier", frame, stated)
    named: dict[str, Any] = {
        "metric": metric,
        "on": dataset,
        "against": cost,
        "against_on": "",
        "points": every.points,
    }
    if not every.points:
        return Front(**named, members=(), reason=every.reason)
    sign = -1.0 if better == "higher" else 1.0
    costs = [(sign * point.y, point.x) for point in every.points]
    members = tuple(sorted(front_of(costs), key=lambda i: every.points[i].x))
    law = refitted(every, [every.points[i] for i in members])
    return Front(
        **named,
        members=members,
        law=law if law.fitted else None,
        reason="" if law.fitted else f"no law along the frontier: {law.reason}",
    )


# ----------------------------------------------------------------------------------------- surface


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A metric as a law of two variables.

    Attributes:
        law: the law; its first two variables span the surface.
        x: grid of the first variable; shape (A,).
        y: grid of the second one; shape (B,).
        values: the metric, in its unit; shape (B, A).
    """

    law: FitResult
    x: Array
    y: Array
    values: Array


def surface(
    frame: pd.DataFrame, metric: str, axes: tuple[str, str], on: str | None = None
) -> Surface:
    """Fit a metric against two variables together (their logarithms) and span a grid.

    Raises:
        UsageError: the metric was not measured, is one of the variables, or the law cannot be
            fitted, as a name may be no column of numbers; says why.
    """
    dataset = data_set_of(frame, metric, on)
    _check_other(metric, axes)
    form = "loglog" if scale_of(metric) == "log2" else "semilog"
    stated = Fit.model_validate({"metric": metric, "on": dataset, "x": list(axes), "form": form})
    law = with_outliers(fit_law(f"{metric} over {' and '.join(axes)}", frame, stated))
    if not law.fitted:
        code = law.warnings[0].code if law.warnings else "not_fitted"
        raise UsageError(f"{metric} has no law in {' and '.join(axes)}: {code}: {law.reason}")
    first, second = (
        np.geomspace(min(p.xs[i] for p in law.points), max(p.xs[i] for p in law.points), 81)
        for i in range(2)
    )
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    mean, _ = law_at(law, grid, None)
    return Surface(
        law=law,
        x=first,
        y=second,
        values=unscaled(mean, law.scale).reshape(len(second), len(first)),
    )


def _check_other(metric: str, variables: Sequence[str]) -> None:
    if metric in variables:
        raise UsageError(
            f"the metric {metric!r} cannot explain itself",
            hint="name a column of the results, for example E, or another metric",
        )


def in_unit(point: Point, metric: str) -> float:
    """A configuration's value in the metric's unit."""
    return exp2(point.y) if scale_of(metric) == "log2" else point.y


def rank_interval(good: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Rank correlation and its 95 % interval (Bonett & Wright 2000)."""
    from scipy.stats import norm, rankdata

    ranks = np.stack([rankdata(column) for column in good.T])
    rho = float(np.corrcoef(ranks)[0, 1])
    inside = min(max(rho, -1 + 1e-12), 1 - 1e-12)
    error = math.sqrt((1 + inside**2 / 2) / (len(good) - 3))
    half = float(norm.ppf(0.975)) * error
    return rho, math.tanh(math.atanh(inside) - half), math.tanh(math.atanh(inside) + half)
