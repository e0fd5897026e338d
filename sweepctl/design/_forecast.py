"""What will a planned design be able to say? Its fits and claims, simulated before it is run.

Every draw invents the values that the planned runs could measure (a law, plus noise that is new in
each run) and puts them through the very fits and verdicts of the study. What comes out is how wide
the intervals will be and how often each claim will be decided. The law is stated, or taken from
pilot runs, or from the paper's figure 3, or flat, in that order; the noise is stated or taken from
seeds of pilot runs. Where the study fits a line, a stated law may still bend, and the other way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse import (
    FitResult,
    NotFitted,
    bands,
    column_of,
    configurations,
    fit_law,
    is_metric,
    law_at,
    matches,
    readable,
    scale_of,
    unscaled,
)
from sweepctl.claims import ClaimResult, Verdict, verdict_of
from sweepctl.errors import UsageError
from sweepctl.laws import Scale
from sweepctl.paper import reference_points
from sweepctl.study import AnyClaim, Fit

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_PAPER_SET = "ImageNet-1K val"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A law that the user expects: a line or a parabola over log2 x, and the level of y.

    Attributes:
        slope: dy / dlog2 x in the middle of the design; log2 y for metrics that are fitted so. Of a
            parabola with an optimum it follows and is not used.
        level: y in the metric's unit in the middle of the design, or at the optimum; None when it
            is not known.
        bend: coefficient of the square of log2 x: above 0 for a minimum; 0 for a line.
        optimum: x of the parabola's extremum; None for a line.
    """

    slope: float = 0.0
    level: float | None = None
    bend: float = 0.0
    optimum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitForecast:
    """What a fit will say.

    Attributes:
        name: name of the fit.
        quantity: slope, or exponent for power laws.
        n: configurations.
        seeds: runs of a configuration, on average.
        expected: the quantity as it was simulated, median of the estimates.
        half_width: half of the 95 % interval, median over the draws; NaN when it was never made.
        one_seed_more: the same with one further seed of every configuration.
        least: smallest slope that is seen with 80 % power; NaN for exponents.
        made: share of draws in which the fit could be made, 0 to 1.
        reason: why it could not, in the last draw in which it could not.
    """

    name: str
    quantity: str
    n: int
    seeds: float
    expected: float
    half_width: float
    one_seed_more: float
    least: float
    made: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimForecast:
    """How often a claim will be decided, as shares of the draws; and what an open one said last."""

    name: str
    supported: float
    contradicted: float
    undecided: float
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a design can say.

    Attributes:
        fits: in the order of the study.
        claims: in the order of the study.
        draws: simulated studies.
        assumed: one sentence a metric and data set: the law and the noise that were simulated.
    """

    fits: tuple[FitForecast, ...]
    claims: tuple[ClaimForecast, ...]
    draws: int
    assumed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Truth:
    """The rows of one metric on one data set: which they are, their law and their noise.

    Attributes:
        rows: places in the frame, shape (n,).
        runs: number of the run that each row is measured on, shape (n,).
        y: the law at each row, on `scale`, shape (n,).
        scale: scale of law and noise.
        noise: standard deviation from run to run on `scale`.
    """

    rows: NDArray[np.intp]
    runs: NDArray[np.intp]
    y: Array
    scale: Scale
    noise: float


def forecast(
    design: pd.DataFrame,
    fits: Mapping[str, Fit],
    claims: Sequence[AnyClaim],
    *,
    noise: Mapping[str, float] | None = None,
    stated: Mapping[str, Stated] | None = None,
    pilot: pd.DataFrame | None = None,
    draws: int = 400,
    seed: int = 0,
) -> Forecast:
    """Simulate the fits and claims of a study on its design.

    Args:
        design: one row a value that will be measured, as `fit_study` takes it; values are ignored.
        fits: the study's fits by name.
        claims: the study's claims.
        noise: standard deviation between runs by metric, on the metric's scale of fits (log2 for
            distances); the key "" stands for every metric.
        stated: expected laws by the name of a fit.
        pilot: values that were measured already, for laws and noise that are not stated.
        draws: number of simulated studies.
        seed: of the draws.

    Raises:
        UsageError: there is nothing to forecast, or the noise of a metric is not known.
    """
    if not fits and not claims:
        raise UsageError("the study has no fits and no claims, so there is nothing to forecast")
    unknown = sorted(set(stated or {}) - set(fits))
    if unknown:
        raise UsageError(f"there is no fit {unknown[0]!r}; the study's fits are: {', '.join(fits)}")
    truths, assumed = [], []
    known = design.assign(value=1.0).reset_index(drop=True)
    for metric, on in _measured(fits, claims):
        truth, words = _truth(known, metric, on, fits, noise or {}, stated or {}, pilot)
        truths.append(truth)
        assumed.append(words)
    rng = np.random.default_rng(seed)
    results: list[tuple[FitResult, ...]] = []
    verdicts: list[tuple[ClaimResult, ...]] = []
    for _ in range(draws):
        values = np.ones(len(known))
        for truth in truths:
            error = truth.noise * rng.standard_normal(int(truth.runs.max()) + 1)
            values[truth.rows] = unscaled(truth.y + error[truth.runs], truth.scale)
        frame = known.assign(value=values)
        made = tuple(fit_law(name, frame, fit) for name, fit in fits.items())
        results.append(made)
        verdicts.append(tuple(verdict_of(claim, frame, made) for claim in claims))
    return Forecast(
        fits=tuple(_fit_forecast(list(column)) for column in zip(*results, strict=True)),
        claims=tuple(_claim_forecast(list(column)) for column in zip(*verdicts, strict=True)),
        draws=draws,
        assumed=tuple(assumed),
    )


# --- what is simulated ------------------------------------------------------------------------


def _measured(fits: Mapping[str, Fit], claims: Sequence[AnyClaim]) -> list[tuple[str, str]]:
    """Every metric and data set that a fit or claim reads."""
    pairs: dict[tuple[str, str], None] = {}
    for fit in fits.values():
        pairs[fit.metric, fit.on] = None
        pairs |= {(x, fit.x_on or fit.on): None for x in fit.xs if is_metric(x)}
    for claim in claims:
        metric, on = getattr(claim, "metric", None), getattr(claim, "on", None)
        if metric is not None and on is not None:
            pairs[metric, on] = None
        if (other := getattr(claim, "against", None)) is not None and on is not None:
            pairs[other, getattr(claim, "against_on", None) or on] = None
    return list(pairs)


def _truth(
    design: pd.DataFrame,
    metric: str,
    on: str,
    fits: Mapping[str, Fit],
    noise: Mapping[str, float],
    stated: Mapping[str, Stated],
    pilot: pd.DataFrame | None,
) -> tuple[_Truth, str]:
    scale = scale_of(metric)
    chosen = (design["metric"] == metric) & (design["dataset"] == on)
    rows = design[chosen]
    if not len(rows):
        raise UsageError(f"the plan does not measure {metric} on {on}")
    spread, noise_source = _noise(metric, on, scale, noise, pilot)
    own = {name: fit for name, fit in fits.items() if (fit.metric, fit.on) == (metric, on)}
    y, law = _law(rows, metric, on, scale, own, stated, pilot)
    size = f"x{2**spread:.3g}" if scale == "log2" else readable(spread)
    truth = _Truth(
        rows=np.flatnonzero(chosen.to_numpy()),
        runs=np.unique(rows["task"].to_numpy().astype(str), return_inverse=True)[1].ravel(),
        y=y,
        scale=scale,
        noise=spread,
    )
    return truth, f"{metric} on {on}: {law}; noise of a run {size} ({noise_source})"


def _noise(
    metric: str, on: str, scale: Scale, noise: Mapping[str, float], pilot: pd.DataFrame | None
) -> tuple[float, str]:
    for key in (metric, ""):
        if key in noise:
            return noise[key], "stated"
    if pilot is not None and len(pilot):
        try:
            found = configurations(pilot, metric, on, ("E",), scale).noise
        except NotFitted:
            found = None
        if found:
            return found, "from the seeds of runs that are done"
    raise UsageError(
        f"the noise of {metric} on {on} is not known: no configuration of the study was run with "
        "two seeds yet",
        hint=f"state it: --noise {metric}=0.1 (standard deviation from run to run"
        + (", in log2: 0.14 is 10 %)" if scale == "log2" else ", in the metric's unit)"),
    )


def _law(
    rows: pd.DataFrame,
    metric: str,
    on: str,
    scale: Scale,
    fits: Mapping[str, Fit],
    stated: Mapping[str, Stated],
    pilot: pd.DataFrame | None,
) -> tuple[Array, str]:
    """The law at the rows on the metric's scale, and where it comes from."""
    for name, fit in fits.items():
        if name in stated:
            u = np.log2(rows[column_of(rows.columns, fit.xs[0])].to_numpy(dtype=float))
            level = stated[name].level
            if level is not None and scale == "log2" and not level > 0:
                raise UsageError(f"{metric} has no logarithm at the stated level {level:g}")
            middle = 0.0 if level is None else (math.log2(level) if scale == "log2" else level)
            return _stated_law(u, middle, stated[name], name)
    plain = {
        name: fit
        for name, fit in fits.items()
        if len(fit.xs) == 1 and not fit.factors and not is_metric(fit.xs[0])
    }
    if pilot is not None and len(pilot):
        for name, fit in plain.items():
            found = fit_law(name, pilot, fit)
            if found.fitted:
                said = f"law of the runs that are done (fit {name})"
                return _on_scale(found, rows, scale), said
    if metric in ("rfid", "ris", "ssim", "psnr"):
        form = "loglog" if scale == "log2" else "semilog"
        fit = Fit.model_validate({"metric": metric, "on": _PAPER_SET, "form": form})
        found = fit_law("paper", reference_points("3"), fit)
        said = f"the paper's law over E (figure 3), slope {readable(found.centered[1])}"
        return _on_scale(found, rows, scale), said
    return np.zeros(len(rows)), "no law is known, so it is simulated as flat (state one)"


def _stated_law(u: Array, middle: float, stated: Stated, name: str) -> tuple[Array, str]:
    law: Array
    if stated.optimum is None:
        law = middle + stated.slope * (u - u.mean())
        at = f" around {readable(stated.level)}" if stated.level is not None else ""
        return law, f"slope {readable(stated.slope)}{at} (stated for {name})"
    law = middle + stated.bend * (u - math.log2(stated.optimum)) ** 2
    kind = "minimum" if stated.bend > 0 else "maximum"
    of = f" of {readable(stated.level)}" if stated.level is not None else ""
    at = f"{kind}{of} at {readable(stated.optimum)}"
    return law, f"{at}, bend {readable(stated.bend)} (stated for {name})"


def _on_scale(law: FitResult, rows: pd.DataFrame, scale: Scale) -> Array:
    """A law of one variable at the rows, on a scale."""
    xs = rows[column_of(rows.columns, law.x)].to_numpy(dtype=float)[:, None]
    y, _ = law_at(law, xs, None)
    if law.scale == scale:
        return y
    if scale == "raw":
        return np.exp2(y)
    if float(y.min()) <= 0:
        raise UsageError(f"the law of {law.metric} is not positive on the whole design; state one")
    logs: Array = np.log2(y)
    return logs


# --- what comes of it -------------------------------------------------------------------------


def _fit_forecast(results: list[FitResult]) -> FitForecast:
    made = [one for one in results if one.fitted]
    power = bool(made) and "exponent" in made[0].coefficients
    ends, estimates = [], []
    for one in made:
        if power:
            exponent = one.coefficients["exponent"]
            ends.append((exponent.low, exponent.high))
            estimates.append(exponent.estimate)
        else:
            assert one.slope is not None
            ends.append(one.slope_interval())
            estimates.append(one.slope.estimate)
    seeds = [point.seeds for point in results[0].points] or [0]
    runs = float(np.mean(seeds))
    half = float(np.median([(high - low) / 2 for low, high in ends])) if ends else math.nan
    least = [one.least_slope for one in made if one.least_slope is not None]
    return FitForecast(
        name=results[0].name,
        quantity="exponent" if power else "slope",
        n=results[0].n,
        seeds=runs,
        expected=float(np.median(estimates)) if estimates else math.nan,
        half_width=half,
        one_seed_more=half * math.sqrt(runs / (runs + 1)),
        least=float(np.median(least)) if least and results[0].law.is_line else math.nan,
        made=len(made) / len(results),
        reason=next((one.reason for one in reversed(results) if not one.fitted), ""),
    )


def _claim_forecast(verdicts: list[ClaimResult]) -> ClaimForecast:
    def share(verdict: Verdict) -> float:
        return sum(one.verdict == verdict for one in verdicts) / len(verdicts)

    open_ = [one.evidence for one in verdicts if one.verdict == "undecided"]
    return ClaimForecast(
        name=verdicts[0].name,
        supported=share("supported"),
        contradicted=share("contradicted"),
        undecided=share("undecided"),
        example=open_[-1] if open_ else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
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


def predict_cells(
    fits: Sequence[FitResult], cells: Sequence[Mapping[str, Any]]
) -> tuple[Prediction, ...]:
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
        if fit.fitted and (one := _prediction(fit, cell)) is not None
    )


def uses(fit: FitResult, cell: Mapping[str, Any]) -> bool:
    """Whether a cell meets the fit's own condition."""
    try:
        return all(
            matches(cell[column_of(cell, name)], wanted) for name, wanted in fit.where.items()
        )
    except UsageError:
        return False  # a condition on what a cell does not have


def _prediction(fit: FitResult, cell: Mapping[str, Any]) -> Prediction | None:
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
    return Prediction(
        cell=int(cell["cell"]),
        fit=fit.name,
        metric=fit.metric,
        on=fit.on,
        value=float(band.mean[0]),
        low=float(band.low[0]),
        high=float(band.high[0]),
        outside=bool(band.outside[0]),
    )
