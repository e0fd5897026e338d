"""Results of fits: laws, points, intervals, warnings. Frozen, plain, ready for strict JSON.

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
from sweepctl.laws import FORMS, LawForm, Scale
from sweepctl.plain import finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

WarningCode = Literal[
    # the fit was not made
    "too_few_points",
    "mixed_protocols",
    "mixed_n_samples",
    "mixed_datasets",
    "nonpositive_value",
    "nonfinite_value",
    "several_values",
    "collinear",
    "wrong_direction",
    "not_converged",
    # the fit was made and is to be read with care
    "few_levels",
    "columns_left_out",
    "seeds_as_rows",
    "duplicate_rows",
    "evaluation_error_missing",
    "evaluation_error_shared",
    "curvature",
    "range_dependent_slope",
    "lack_of_fit",
    "heteroscedastic",
    "influential_point",
    "outlier",
    "optimum_unbounded",
    "optimum_outside_data",
    "optimum_shifts",
    "asymptote_not_identified",
    "exponent_at_bound",
    "extrapolation",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """An estimated number with its interval.

    Attributes:
        estimate: the least-squares estimate.
        low: lower end of the interval (95 % unless said otherwise); -inf when it is unbounded.
        high: upper end; inf when it is unbounded.
        se: standard error; NaN where none is defined, as at a bound.
        method: t, hc3, wild-t (wild bootstrap-t), profile (likelihood), delta or bound.
    """

    estimate: float
    low: float
    high: float
    se: float
    method: str = "t"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitWarning:
    """Why a fit was not made or is read with care: a stable code and a sentence with numbers."""

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
        x: the (first) variable, not logged; the geometric mean of the seeds' when it is a metric.
        xs: all variables, in the order of the fit.
        y: mean of the measurements on the fit's scale.
        low: smallest measurement on the fit's scale.
        high: largest measurement.
        fitted: the law at x, on the fit's scale; NaN when the fit was not made.
        cook: Cook's distance; NaN when the fit was not made or nothing is left without the point.
        leverage: weight of the point in its own fitted value, 0 to 1; NaN when not fitted.
        weight: weight in the fit; 1 on average.
        noise: known standard error of y, from seeds and evaluation; NaN when nothing is known.
    """

    settings: Mapping[str, Any]
    cells: tuple[int, ...]
    seeds: int
    x: float
    y: float
    low: float
    high: float
    xs: tuple[float, ...] = ()
    fitted: float = math.nan
    cook: float = math.nan
    leverage: float = math.nan
    weight: float = 1.0
    noise: float = math.nan


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
        delta_low: lower end of the 95 % delta interval, which is tidy even where the data do not
            pin the optimum down: for comparison, never for a verdict.
        delta_high: upper end.
    """

    kind: Literal["minimum", "maximum"]
    x: float
    low: float | None
    high: float | None
    cubic: float | None
    delta_low: float = math.nan
    delta_high: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well a law describes and predicts, on a scale that laws of one metric share.

    Attributes:
        fit: name of the fit.
        parameters: number of estimated numbers, the scatter included.
        log_likelihood: of the values in the metric's own unit (with the Jacobian of a log scale).
        aicc: Akaike's criterion, corrected for few points; None when there are too few for it.
        bic: Bayesian criterion.
        press_rmse: root mean square of leave-one-out errors on `scale`.
        holdout_rmse: root mean square error on the largest x, predicted from the rest; None when
            the rest cannot be fitted.
        holdout_n: number of configurations held out.
        scale: scale of both errors.
    """

    fit: str
    parameters: int
    log_likelihood: float
    aicc: float | None
    bic: float
    press_rmse: float | None
    holdout_rmse: float | None
    holdout_n: int
    scale: Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A fitted law, or the reason why there is none.

    Attributes:
        name: name in the study.
        metric: fitted metric.
        on: data set.
        x: the (first) variable.
        form: form of the law, as in a study.
        scale: scale of y in the fit.
        xs: all variables.
        x_scales: how the law sees each of them.
        x_on: data set of x when it is a metric; empty else.
        where: the condition on the cells, as in the study.
        factors: levels of each factor, the first one being the base.
        interaction: whether the slope differs by level.
        loss: squares, lad or huber:DELTA.
        weighting: what the weights come from; empty when all are equal.
        noise: pooled standard deviation between seeds on the fit's scale; None without seeds.
        protocol: protocol of all values; empty when there are none or several.
        n_samples: samples (images) behind each value; None when there are none or several.
        n: number of configurations.
        seeds: smallest and largest number of seeds of a configuration.
        df: residual degrees of freedom.
        r2: share of the variance explained; None when not fitted or y does not vary.
        r2_low: lower end of the 90 % interval of R2 (noncentral F).
        r2_high: upper end.
        sigma: residual standard deviation on the fit's scale; None when not fitted.
        coefficients: intercept, slope (of each variable), quadratic, cubic, with log2 x from 0;
            differences of factor levels to the base; floor, amplitude, exponent of power laws, in
            units of the metric and of x.
        slope: dy/dlog2 x (dy/dx for a raw x) at the mean of log2 x, of the first variable, averaged
            over levels (everywhere, for a line); None when not fitted.
        hc3_slope: the same with HC3 standard errors and t; for laws by linear least squares.
        least_slope: the smallest slope this design sees with 80 % power (two-sided 5 %).
        optimum: extremum of a quadratic law.
        meaning: the law in one sentence.
        tests: checks that could be made.
        warnings: reasons to doubt, or the reason why there is no fit.
        points: the configurations, ordered by x.
        center: mean of log2 x (of x when raw); `covariance` belongs to powers of (log2 x - center).
        centers: the same for every variable.
        centered: coefficients as they were fitted: in powers of (log2 x - center), lowest first;
            for power laws floor, amplitudes and shape with x and y divided by their
            geometric means.
        covariance: of `centered`.
        y_center: natural log of the geometric mean of y, for power laws.
        at_bound: which of `centered` lie on a bound, so that they have no standard error.
    """

    name: str
    metric: str
    on: str
    x: str
    form: str
    scale: Scale
    xs: tuple[str, ...] = ()
    x_scales: tuple[Scale, ...] = ()
    x_on: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)
    factors: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    interaction: bool = False
    loss: str = "squares"
    weighting: str = ""
    noise: float | None = None
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
    centers: tuple[float, ...] = ()
    centered: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    y_center: float = 0.0
    at_bound: tuple[bool, ...] = ()

    @property
    def law(self) -> LawForm:
        """The record of its form."""
        return FORMS[self.form]

    @property
    def x_scale(self) -> Scale:
        """How the law sees its (first) variable."""
        return self.x_scales[0] if self.x_scales else "log2"

    @property
    def fitted(self) -> bool:
        """Whether there is a law."""
        return bool(self.coefficients)

    @property
    def reason(self) -> str:
        """Why there is no law."""
        return self.warnings[0].message if self.warnings else "it has no coefficients"

    def slope_interval(self) -> tuple[float, float]:
        """95 % interval of the slope that verdicts use.

        The hull of the t and the HC3 interval, for power laws the HC3 interval where there is one.
        At 9 to 30 points they cover 94 to 97 % whether the scatter is even or not. Waiting for the
        test of uneven scatter to reject would cover 88 %: at 15 points it mostly does not reject.

        Raises:
            UsageError: the fit was not made.
        """
        if self.slope is None:
            raise UsageError(f"fit {self.name!r} has no slope: {self.reason}")
        return deciding(self.form, self.slope, self.hc3_slope)

    def to_json(self) -> dict[str, Any]:
        """The law as plain data for strict JSON, warnings as codes and as messages."""
        data = asdict(self)
        data["warnings"] = [warning.code for warning in self.warnings]
        data["messages"] = [warning.message for warning in self.warnings]
        as_plain: dict[str, Any] = finite(data)
        return as_plain


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
        far: True where x lies more than a factor of 10 outside of them: not to be believed.
    """

    x: Array
    mean: Array
    mean_low: Array
    mean_high: Array
    low: Array
    high: Array
    outside: NDArray[np.bool_]
    far: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Wild bootstrap of a fit.

    Attributes:
        names: the parameters, in the order of `FitResult.centered`.
        values: draws of them, shape (draws, parameters).
        slopes: draws of the slope; shape (draws,).
        intervals: bootstrap-t intervals of the slope and, for power laws, of floor and exponents.
        seed: seed of the draws, a hash of the data.
        failed: draws that did not converge and were left out.
    """

    names: tuple[str, ...]
    values: Array
    slopes: Array
    intervals: Mapping[str, Coefficient]
    seed: int
    failed: int


def fit_named(name: str, fits: Sequence[FitResult]) -> FitResult:
    """The fit of that name; UsageError when there is none."""
    for fit in fits:
        if fit.name == name:
            return fit
    names = ", ".join(fit.name for fit in fits) or "none"
    raise UsageError(f"there is no fit named {name!r}; the study's fits are: {names}")


def deciding(form: str, slope: Coefficient, hc3: Coefficient | None) -> tuple[float, float]:
    """The interval that verdicts use; see `FitResult.slope_interval`."""
    if FORMS[form].curve is not None and hc3 is not None:
        return hc3.low, hc3.high
    return wider(slope, hc3)


def wider(slope: Coefficient, other: Coefficient | None) -> tuple[float, float]:
    """The hull of one or two intervals."""
    if other is None:
        return slope.low, slope.high
    return min(slope.low, other.low), max(slope.high, other.high)
