"""Which cells should be run next? Those that narrow a law's intervals most for what they cost.

A law is a matrix of its derivatives in its parameters (exact for lines and curves, linearised at
the fitted parameters for power laws), so how sure it will be follows from where is measured, before
anything is. A configuration of r runs tells as much as 1 / (t^2 + s^2 / r): s is the noise from run
to run, t what configurations differ by beyond it, which no further seed averages out. Two
criteria, both linear algebra on the same matrix:

    V   the mean variance of the law over every configuration that could be chosen
    D   the volume of the parameters' joint confidence region

Runs are chosen greedily, by gain for their cost and by gain alone, the better of the two is then
bettered by exchanging one run for another until no exchange helps (Fedorov 1972, with costs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sweepctl.analyse import (
    Family,
    FitResult,
    NotFitted,
    Point,
    configurations,
    design_of,
    fit_law,
    is_metric,
    law_at,
    slope_gradient,
)
from sweepctl.errors import UsageError
from sweepctl.laws import FORMS
from sweepctl.statistics import t_quantile
from sweepctl.study import Fit

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Criterion = Literal["V", "D"]

NOISES = (1e-50, 1e50)
"""Bounds of the noise: its fourth power is still a number that is not 0."""

_LN2 = math.log(2)
_EXCHANGES = 200
"""Most exchanges; each betters the criterion, so far fewer are the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """How sure a law is, or will be: halves of 95 % intervals on the fit's scale.

    Attributes:
        n: configurations.
        slope: of the slope at the middle of x.
        law: of the law itself, root mean square over all configurations that could be chosen.
    """

    n: int
    slope: float
    law: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """One run that is worth its cost.

    Attributes:
        cell: its number among the candidates.
        settings: its configuration, by column.
        xs: its variables.
        runs: which run of its configuration it will be, from 1.
        cost: in the unit of the budget.
        after: how sure the law will be after this run and those before it in the list.
    """

    cell: int
    settings: Mapping[str, Any]
    xs: tuple[float, ...]
    runs: int
    cost: float
    after: Expectation


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What to run next, the run with the highest gain for its cost first.

    Attributes:
        fit: name of the fit.
        criterion: V or D.
        noise: standard deviation from run to run on the fit's scale.
        scatter: what configurations differ by beyond it.
        noise_source: where both come from, in words.
        before: how sure the law is once the study's own cells have run.
        runs: the runs.
        cost: of all of them.
        considered: runs that could have been chosen.
    """

    fit: str
    criterion: Criterion
    noise: float
    scatter: float
    noise_source: str
    before: Expectation
    runs: tuple[Suggested, ...]
    cost: float
    considered: int


@dataclass(slots=True, kw_only=True)
class _Choice:
    """What can be chosen: G configurations with their derivatives, and the runs of each.

    Attributes:
        rows_GK: derivatives of the law, scaled to a largest size of 1.
        slope_K: derivatives of the slope, scaled alike.
        runs: runs that each configuration has without any choice, shape (G,).
        offers: for each configuration the numbers and costs of further runs, in their order.
        costs_GR: costs of further runs in their order; infinite behind the last one.
        noise, scatter: variances.
    """

    rows_GK: Array
    slope_K: Array
    runs: NDArray[np.int_]
    offers: list[list[tuple[int, float]]]
    costs_GR: Array
    noise: float
    scatter: float

    def weights(self, taken: NDArray[np.int_]) -> Array:
        """Information of each configuration with so many further runs."""
        runs = self.runs + taken
        found: Array = np.where(
            runs > 0, 1 / (self.scatter + self.noise / np.maximum(runs, 1)), 0.0
        )
        return found


def suggest(
    name: str,
    fit: Fit,
    candidates: pd.DataFrame,
    own: int,
    costs: Mapping[int, float],
    budget: float,
    *,
    measured: pd.DataFrame | None = None,
    noise: float | None = None,
    criterion: Criterion = "V",
) -> Suggestion:
    """Choose the runs that narrow a law's intervals most within a budget.

    Args:
        name: name of the fit.
        fit: the fit.
        candidates: one row a value that could be measured, as `plan.design_rows` gives them: of the
            study's own cells and of further ones.
        own: cells up to this number are the study's own: they will be run anyway.
        costs: cost of each further cell, above 0.
        budget: most that all chosen cells may cost together.
        measured: values that are there already, as `Ledger.frame` gives them.
        noise: standard deviation from run to run on the fit's scale, instead of what the seeds say.
        criterion: V or D.

    Raises:
        UsageError: the noise is not known, a power law has no parameters yet, nothing fits into the
            budget, or the fit is against another metric.
    """
    if metric := next((x for x in fit.xs if is_metric(x)), None):
        raise UsageError(
            f"fit {name!r} is against {metric}, which is measured itself and cannot be chosen",
            hint="take a fit against E or another size",
        )
    rows = candidates.assign(value=1.0)
    law = _law(name, fit, measured, rows[rows["cell"] <= own])
    run, beyond, noise_source = _noise(law, noise)
    try:
        points = configurations(
            rows, fit.metric, fit.on, fit.xs, law.scale, where=fit.where, x_scales=law.x_scales
        ).points
    except NotFitted as refusal:
        raise UsageError(f"fit {name!r}: {refusal.warning.message}") from refusal
    points = tuple(
        point
        for point in points
        if all(point.settings.get(factor) in levels for factor, levels in law.factors.items())
    )
    measuring = rows[(rows["metric"] == fit.metric) & (rows["dataset"] == fit.on)]
    tasks = dict(zip(measuring["cell"], measuring["task"], strict=True))
    choice = _choice(law, points, tasks, own, costs, run**2, beyond**2)
    order = _chosen(choice, budget, criterion)
    if not order:
        least = min((cost for offer in choice.offers for _, cost in offer), default=math.nan)
        what = (
            f"the least of them costs {least:.3g}, and {budget:.3g} may be spent"
            if math.isfinite(least)
            else "there is no valid cell beside those that it has"
        )
        raise UsageError(
            f"nothing can be suggested for fit {name!r}: {what}",
            hint="give a larger budget, wider bounds (--within c=4..256), or --seeds-too",
        )
    taken = np.zeros(len(points), dtype=np.int_)
    found = []
    for place in order:
        cell, cost = choice.offers[place][taken[place]]
        taken[place] += 1
        found.append(
            Suggested(
                cell=cell,
                settings=points[place].settings,
                xs=points[place].xs,
                runs=int(choice.runs[place] + taken[place]),
                cost=cost,
                after=_expectation(choice, taken),
            )
        )
    return Suggestion(
        fit=name,
        criterion=criterion,
        noise=run,
        scatter=beyond,
        noise_source=noise_source,
        before=_expectation(choice, np.zeros_like(taken)),
        runs=tuple(found),
        cost=math.fsum(one.cost for one in found),
        considered=sum(len(offer) for offer in choice.offers),
    )


# --- what is known ----------------------------------------------------------------------------


def _law(name: str, fit: Fit, measured: pd.DataFrame | None, planned: pd.DataFrame) -> FitResult:
    """The law as it stands; for lines and curves that are not measured yet, their design alone."""
    if measured is not None and len(measured):
        law = fit_law(name, measured, fit)
        if law.fitted:
            return law
        reason = law.reason
    else:
        reason = "nothing of the study has been measured"
    if FORMS[fit.form].curve is not None:
        raise UsageError(
            f"where to measure a {fit.form} law depends on the law, and fit {name!r} has none: "
            f"{reason}",
            hint="run some cells first, or ask for a loglog fit of the same metric",
        )
    # A line's derivatives are its design, whatever the values are.
    invented = planned.assign(value=1 + np.arange(len(planned)) % 7)
    law = fit_law(name, invented, fit)
    if not law.fitted:
        raise UsageError(f"the study's own cells cannot be fitted by {name!r}: {law.reason}")
    return replace(law, sigma=None, noise=None)


def _noise(law: FitResult, stated: float | None) -> tuple[float, float, str]:
    """Noise of a run, scatter beyond it, and where they come from."""
    run = stated if stated is not None else law.noise
    noise_source = "stated" if stated is not None else "between seeds"
    if run is None:
        if law.sigma is None:
            raise UsageError(
                f"the noise of fit {law.name!r} is not known, because nothing was measured yet",
                hint="state it: --noise 0.1 (standard deviation from run to run on the fit's "
                "scale; in log2, 0.14 is 10 %)",
            )
        return law.sigma, 0.0, "scatter around the law; no configuration has a second seed"
    low, high = NOISES
    if not low <= run <= high:
        raise UsageError(
            f"the noise of a run must be a number from {low:g} to {high:g}, not {run:g}",
            hint="--noise 0.1 states it: the standard deviation from run to run on the fit's scale",
        )
    if law.sigma is None:
        return run, 0.0, noise_source
    average = float(np.mean([1 / point.seeds for point in law.points]))
    beyond = math.sqrt(max(law.sigma**2 - run**2 * average, 0.0))
    return run, beyond, f"{noise_source}, and scatter around the law"


def _choice(
    law: FitResult,
    points: Sequence[Point],
    tasks: Mapping[int, str],
    own: int,
    costs: Mapping[int, float],
    noise: float,
    scatter: float,
) -> _Choice:
    xs = np.asarray([point.xs for point in points])
    _, rows = law_at(law, xs, [point.settings for point in points])
    slope = _slope_of(law)
    if law.law.curve is not None:
        rows, slope = rows / _LN2, slope  # log2 y, as sigma is
    # Parameters that do not move (a floor on its bound) have no column.
    sizes = np.abs(rows).max(axis=0)
    free = sizes > 0
    # Cells that share their measuring task are one run of one configuration.
    runs = [{tasks[cell]: cell for cell in reversed(point.cells)} for point in points]
    ran = np.asarray([sum(cell <= own for cell in one.values()) for one in runs])
    offers = [
        [(cell, costs[cell]) for cell in sorted(one.values()) if cell > own and costs[cell] > 0]
        for one in runs
    ]
    padded = np.full((len(points), 1 + max(map(len, offers), default=0)), math.inf)
    for place, offer in enumerate(offers):
        padded[place, : len(offer)] = [cost for _, cost in offer]
    return _Choice(
        rows_GK=rows[:, free] / sizes[free],
        slope_K=slope[free] / sizes[free],
        runs=ran,
        offers=offers,
        costs_GR=padded,
        noise=noise,
        scatter=scatter,
    )


def _slope_of(law: FitResult) -> Array:
    """Derivatives of the slope in the parameters of `centered`."""
    if law.law.curve is None:
        return design_of(law).slope()
    family = Family(form=law.form, v_NM=np.zeros((1, len(law.xs))))
    slopes: Array = slope_gradient(family, np.asarray(law.centered)[None])[0]
    return slopes


# --- what is chosen ---------------------------------------------------------------------------


def _information(choice: _Choice, taken: NDArray[np.int_]) -> Array:
    """The information matrix, with a trace of prior knowledge so that it can be inverted."""
    weights = choice.weights(taken)
    matrix = (choice.rows_GK * weights[:, None]).T @ choice.rows_GK
    size = max(float(np.trace(matrix)), 1 / (choice.scatter + choice.noise))
    found: Array = matrix + 1e-9 * size * np.eye(len(matrix))
    return found


def _score(choice: _Choice, taken: NDArray[np.int_], criterion: Criterion) -> float:
    """The logarithm of the criterion; lower is better."""
    matrix = _information(choice, taken)
    if criterion == "D":
        return -float(np.linalg.slogdet(matrix)[1]) / len(matrix)
    inverse = np.linalg.inv(matrix)
    return math.log(float(np.einsum("gk,kj,gj->g", choice.rows_GK, inverse, choice.rows_GK).mean()))


def _gains(
    choice: _Choice, taken: NDArray[np.int_], criterion: Criterion
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """How much one further run of each configuration betters the criterion, and its cost."""
    more = choice.weights(taken + 1) - choice.weights(taken)
    inverse = np.linalg.inv(_information(choice, taken))
    towards = choice.rows_GK @ inverse
    own = np.einsum("gk,gk->g", towards, choice.rows_GK)
    if criterion == "D":
        gains = np.log1p(more * own) / len(inverse)
    else:
        region = choice.rows_GK.T @ choice.rows_GK / len(choice.rows_GK)
        now = float(np.trace(inverse @ region))
        less = more * np.einsum("gk,kj,gj->g", towards, region, towards) / (1 + more * own)
        gains = -np.log1p(-np.minimum(less / now, 1 - 1e-12))
    costs = choice.costs_GR[np.arange(len(taken)), taken]
    return gains, costs, np.isfinite(costs)


def _greedy(
    choice: _Choice, budget: float, criterion: Criterion, *, by_cost: bool
) -> NDArray[np.int_]:
    taken = np.zeros(len(choice.offers), dtype=np.int_)
    spent = 0.0
    while True:
        gains, costs, left = _gains(choice, taken, criterion)
        open_ = left & (spent + costs <= budget * (1 + 1e-12))
        if not open_.any():
            return taken
        worth = np.where(open_, gains / costs if by_cost else gains, -np.inf)
        best = int(np.argmax(worth))
        if gains[best] <= 0:
            return taken
        taken[best] += 1
        spent += float(costs[best])


def _spent(choice: _Choice, taken: NDArray[np.int_]) -> float:
    used = np.arange(choice.costs_GR.shape[1]) < taken[:, None]
    return float(choice.costs_GR[used].sum())


def _exchanged(
    choice: _Choice, taken: NDArray[np.int_], budget: float, criterion: Criterion
) -> NDArray[np.int_]:
    """Exchange runs one for one, and add what then still fits, until nothing gets better."""
    best = _score(choice, taken, criterion)
    for _ in range(_EXCHANGES):
        better = None
        for place in np.flatnonzero(taken):
            without = taken.copy()
            without[place] -= 1
            gains, costs, left = _gains(choice, without, criterion)
            spent = _spent(choice, without)
            open_ = left & (spent + costs <= budget * (1 + 1e-12))
            if not open_.any():
                continue
            other = int(np.argmax(np.where(open_, gains, -np.inf)))
            score = _score(choice, without, criterion) - float(gains[other])
            if other != place and score < best - 1e-9:
                best, better = score, without
                better[other] += 1
        if better is None:
            return taken
        taken = _filled(choice, better, budget, criterion)
        best = _score(choice, taken, criterion)
    return taken


def _filled(
    choice: _Choice, taken: NDArray[np.int_], budget: float, criterion: Criterion
) -> NDArray[np.int_]:
    """With whatever still fits into the budget."""
    spent = _spent(choice, taken)
    while True:
        gains, costs, left = _gains(choice, taken, criterion)
        open_ = left & (spent + costs <= budget * (1 + 1e-12)) & (gains > 0)
        if not open_.any():
            return taken
        place = int(np.argmax(np.where(open_, gains / costs, -np.inf)))
        taken = taken.copy()
        taken[place] += 1
        spent += float(costs[place])


def _chosen(choice: _Choice, budget: float, criterion: Criterion) -> list[int]:
    """Configurations to run, one entry a run, the highest gain for its cost first."""
    found = [
        _exchanged(choice, _greedy(choice, budget, criterion, by_cost=by_cost), budget, criterion)
        for by_cost in (True, False)
    ]
    best = min(found, key=lambda taken: _score(choice, taken, criterion))
    order: list[int] = []
    taken = np.zeros_like(best)
    while (taken < best).any():
        gains, costs, _ = _gains(choice, taken, criterion)
        worth = np.where(taken < best, gains / costs, -np.inf)
        place = int(np.argmax(worth))
        taken[place] += 1
        order.append(place)
    return order


def _expectation(choice: _Choice, taken: NDArray[np.int_]) -> Expectation:
    """Halves of the intervals with so many further runs; infinite where nothing decides."""
    n = int(((choice.runs + taken) > 0).sum())
    df = n - choice.rows_GK.shape[1]
    if df < 1:
        return Expectation(n=n, slope=math.inf, law=math.inf)
    inverse = np.linalg.inv(_information(choice, taken))
    t = t_quantile(df)
    variance = np.einsum("gk,kj,gj->g", choice.rows_GK, inverse, choice.rows_GK)
    return Expectation(
        n=n,
        slope=t * math.sqrt(max(float(choice.slope_K @ inverse @ choice.slope_K), 0.0)),
        law=t * math.sqrt(float(variance.mean())),
    )
