"""What comes out of an analysis? Laws, warnings, verdicts: frozen, plain, ready for strict JSON.

Nothing is computed here. Every number says its unit or scale: "the fit's scale" is log2 of the
metric under `log2`, the metric's own unit under `raw`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sweepctl.errors import UsageError
from vitok_core.protocols import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Scale = Literal["log2", "raw"]
Verdict = Literal["supported", "contradicted", "undecided"]
WarningCode = Literal[
    # the fit was not made
    "too_few_points",
    "mixed_protocols",
    "mixed_n_samples",
    "nonpositive_value",
    "nonfinite_value",
    "several_values",
    # the fit was made and should be doubted
    "few_levels",
    "curvature",
    "lack_of_fit",
    "heteroscedastic",
    "influential_point",
    "optimum_unbounded",
    "optimum_outside_data",
]

PUBLISHED_SCALES: Mapping[str, Scale] = {
    "rfid": "log2",
    "gfid": "log2",
    "rfvd": "log2",
    "gfvd": "log2",
    "ris": "raw",
    "gis": "raw",
    "rssim": "raw",
    "rpsnr": "raw",
}
"""Scales of metrics that only come as published reference points (ViTok paper, figures 3 to 15)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """An estimated number with its interval.

    Attributes:
        estimate: the least-squares estimate.
        low: lower end of the interval (95 % unless said otherwise).
        high: upper end.
        se: standard error.
    """

    estimate: float
    low: float
    high: float
    se: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitWarning:
    """Why a fit was not made or should be doubted: a stable code and a sentence with numbers."""

    code: WarningCode
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FTest:
    """One F test: name, statistic (infinite where the denominator is 0), both df, p in [0, 1]."""

    name: str
    statistic: float
    df1: int
    df2: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration: what the fit sees of all runs that differ only in the seed.

    Attributes:
        settings: axes and derived values of the configuration by column; seeds left out.
        cells: numbers of its cells, ascending.
        seeds: number of measurements behind the mean.
        x: the variable, not logged.
        y: mean of the measurements on the fit's scale.
        low: smallest measurement on the fit's scale.
        high: largest measurement.
        fitted: the law at x, on the fit's scale; NaN when the fit was not made.
        cook: Cook's distance; NaN when the fit was not made or nothing is left without the point.
    """

    settings: Mapping[str, Any]
    cells: tuple[int, ...]
    seeds: int
    x: float
    y: float
    low: float
    high: float
    fitted: float = math.nan
    cook: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """Where a quadratic law has its extremum, in units of x.

    Attributes:
        kind: minimum or maximum.
        x: the estimate.
        low: lower end of the 95 % Fieller interval; None when the interval is unbounded.
        high: upper end; None when the interval is unbounded.
        cubic: the extremum nearest to x when a cubic is fitted instead, None when it has none; a
            large shift says that the valley is not symmetric and x is biased.
    """

    kind: Literal["minimum", "maximum"]
    x: float
    low: float | None
    high: float | None
    cubic: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A fitted law, or the reason why there is none.

    Attributes:
        name: name in the study.
        metric: fitted metric.
        on: data set.
        x: the variable; the law is in log2 of it.
        form: loglog, semilog or quadratic.
        scale: scale of y in the fit.
        protocol: protocol of all values; empty when there are none or several.
        n_samples: samples (images) behind each value; None when there are none or several.
        n: number of configurations.
        seeds: smallest and largest number of seeds of a configuration.
        df: residual degrees of freedom.
        r2: share of the variance explained; None when not fitted or y does not vary.
        r2_low: lower end of the 90 % interval of R2 (noncentral F).
        r2_high: upper end.
        sigma: residual standard deviation on the fit's scale; None when not fitted.
        coefficients: intercept and slope, or intercept, linear and quadratic, with log2 x from 0.
        slope: dy/dlog2 x at the mean of log2 x (everywhere, for a line); None when not fitted.
        hc3_slope: the same with HC3 standard errors and t; only when `heteroscedastic`.
        least_slope: the smallest slope this design sees with 80 % power (two-sided 5 %).
        optimum: extremum of a quadratic law.
        meaning: the law in one sentence.
        tests: checks that could be made.
        warnings: reasons to doubt, or the reason why there is no fit.
        points: the configurations, ordered by x.
        center: mean of log2 x; `covariance` belongs to powers of (log2 x - center).
        centered: coefficients in powers of (log2 x - center), lowest first.
        covariance: of `centered`.
    """

    name: str
    metric: str
    on: str
    x: str
    form: str
    scale: Scale
    protocol: str = ""
    n_samples: int | None = None
    n: int = 0
    seeds: tuple[int, int] = (0, 0)
    df: int = 0
    r2: float | None = None
    r2_low: float | None = None
    r2_high: float | None = None
    sigma: float | None = None
    coefficients: Mapping[str, Coefficient] = field(default_factory=dict)
    slope: Coefficient | None = None
    hc3_slope: Coefficient | None = None
    least_slope: float | None = None
    optimum: Optimum | None = None
    meaning: str = ""
    tests: tuple[FTest, ...] = ()
    warnings: tuple[FitWarning, ...] = ()
    points: tuple[Point, ...] = ()
    center: float = 0.0
    centered: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()

    def slope_interval(self) -> tuple[float, float]:
        """95 % interval of the slope that verdicts use: the wider of OLS and HC3.

        Raises:
            UsageError: the fit was not made.
        """
        if self.slope is None:
            raise UsageError(f"fit {self.name!r} has no slope: {self.warnings[0].message}")
        return wider(self.slope, self.hc3_slope)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """A verdict and what it rests on.

    Attributes:
        name: name in the study.
        verdict: supported, contradicted or undecided.
        evidence: one or two sentences with the numbers.
        details: the numbers as plain data; units as in the evidence.
    """

    name: str
    verdict: Verdict
    evidence: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """A law on a grid of x, in the metric's unit; all arrays of shape (len(x),).

    Under a log2 scale `mean` is the geometric mean (the median), not the mean, of y at x.

    Attributes:
        x: the grid.
        mean: the law.
        mean_low: lower end of the 95 % interval of the law.
        mean_high: upper end.
        low: lower end of the 95 % interval of one new configuration.
        high: upper end.
        outside: True where x lies outside the fitted points.
    """

    x: Array
    mean: Array
    mean_low: Array
    mean_high: Array
    low: Array
    high: Array
    outside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All fits and verdicts of a study, each in the order of the study file."""

    fits: tuple[FitResult, ...]
    claims: tuple[ClaimResult, ...]

    def fit(self, name: str) -> FitResult:
        """The fit of that name.

        Raises:
            UsageError: there is none.
        """
        return fit_named(name, self.fits)

    def to_json(self) -> dict[str, Any]:
        """The analysis as plain data for strict JSON: what is not a finite number is null."""
        fits: list[dict[str, Any]] = [_fit_json(fit) for fit in self.fits]
        claims = [
            {
                "name": claim.name,
                "verdict": claim.verdict,
                "evidence": claim.evidence,
                "details": _plain(claim.details),
            }
            for claim in self.claims
        ]
        return {"fits": fits, "claims": claims}


def scale_of(metric: str) -> Scale:
    """How fits see a metric: ratio-scaled distances in log2, decibels and scores raw.

    Raises:
        UsageError: the metric is neither measured here nor a published one.
    """
    if metric in METRICS:
        return METRICS[metric].scale
    if metric in PUBLISHED_SCALES:
        return PUBLISHED_SCALES[metric]
    raise UsageError(
        f"the scale of metric {metric!r} is not known; known are "
        f"{', '.join([*METRICS, *PUBLISHED_SCALES])}",
        hint="use form: loglog or semilog, which state the scale",
    )


def unit_of(metric: str) -> str:
    """The unit of a metric with a space before it; empty for a pure number."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f" {unit}" if unit else ""


def exp2(value: float) -> float:
    """2**value, infinite instead of an error where floats end."""
    return math.inf if value >= 1024 else 2.0**value


def readable(value: float) -> str:
    """A number with three significant digits, without an exponent where people expect none."""
    if 1000 <= abs(value) < 1e7:
        return f"{float(f'{value:.3g}'):.0f}"
    return f"{value:.3g}"


def fit_named(name: str, fits: Sequence[FitResult]) -> FitResult:
    """The fit of that name; UsageError when there is none."""
    for fit in fits:
        if fit.name == name:
            return fit
    names = ", ".join(fit.name for fit in fits) or "none"
    raise UsageError(f"there is no fit named {name!r}; the study's fits are: {names}")


def _fit_json(fit: FitResult) -> dict[str, Any]:
    data = asdict(fit)
    data["warnings"] = [warning.code for warning in fit.warnings]
    data["messages"] = [warning.message for warning in fit.warnings]
    plain: dict[str, Any] = _plain(data)
    return plain


def _plain(value: Any) -> Any:
    """Plain data for strict JSON; what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def wider(slope: Coefficient, other: Coefficient | None) -> tuple[float, float]:
    """The hull of one or two intervals."""
    if other is None:
        return slope.low, slope.high
    return min(slope.low, other.low), max(slope.high, other.high)
