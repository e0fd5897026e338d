"""Which law do the points follow? One fit from its words to a result that can be judged.

The form decides the scale of y, the scale of x and who does the work: lines and curves are linear
in their parameters (least squares on a design), power laws are not (`_power`). What makes a fit
impossible is said in a warning instead of an error, so that a study still gets its other fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._checks import influence, line_warnings, tests_of
from sweepctl.analyse._noise import one_seed_weights
from sweepctl.analyse._optimum import optimum_of, optimum_warnings
from sweepctl.analyse._points import NotFitted, column_of, configurations
from sweepctl.analyse._power import power_result
from sweepctl.analyse._power_fit import fit_power
from sweepctl.analyse._regression import (
    Design,
    Regression,
    coefficient,
    detectable,
    order,
    r2_interval,
    regress,
)
from sweepctl.analyse._results import Coefficient, FitResult, FitWarning, Optimum, Point, wider
from sweepctl.analyse._scales import is_metric, scale_of
from sweepctl.analyse._words import meaning
from sweepctl.laws import FORMS, LawForm, Scale
from sweepctl.study import Fit, Loss, parse_loss

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def fit_law(name: str, frame: pd.DataFrame, fit: Fit) -> FitResult:
    """Fit one law, or say in a warning why it cannot be fitted.

    Raises:
        UsageError: `where` or `factors` names a column that does not exist.
    """
    form = FORMS[fit.form]
    scale = form.y_scale or fit.scale or scale_of(fit.metric)
    x_scales = tuple(_x_scale(x, form) for x in fit.xs)
    named: dict[str, Any] = {
        "name": name,
        "metric": fit.metric,
        "on": fit.on,
        "x": fit.xs[0],
        "form": fit.form,
        "scale": scale,
        "xs": fit.xs,
        "x_scales": x_scales,
        "x_on": fit.x_on or "",
        "where": dict(fit.where),
        "interaction": fit.interaction,
        "loss": str(fit.loss),
    }
    try:
        found = configurations(
            frame,
            fit.metric,
            fit.on,
            fit.xs,
            scale,
            where=fit.where,
            x_on=fit.x_on,
            x_scales=x_scales,
        )
        named |= {
            "protocol": found.protocol,
            "n_samples": found.n_samples,
            "n": len(found.points),
            "seeds": (min(p.seeds for p in found.points), max(p.seeds for p in found.points)),
            "points": found.points,
            "noise": found.noise,
            "weighting": found.weighting,
        }
        if form.curve is None:
            named["factors"] = {
                column: _levels(found.points, column)
                for column in (column_of(frame.columns, factor) for factor in fit.factors)
            }
        result = _result(named, found.points, fit.loss, found.warnings)
        if not found.only_errors:
            return result
        points, named["weighting"], more = one_seed_weights(
            found.points, lambda weighted: _around(named, weighted, fit.loss)
        )
        if not named["weighting"]:
            return replace(result, warnings=(*more, *result.warnings))
        return _result(named, points, fit.loss, found.warnings)
    except NotFitted as refusal:
        return FitResult(**named, warnings=(refusal.warning,))


def _result(
    named: Mapping[str, Any], points: Sequence[Point], loss: Loss, warnings: Sequence[FitWarning]
) -> FitResult:
    if FORMS[named["form"]].curve is not None:
        return power_result(named, points, loss, warnings)
    return linear_result(named, points, warnings)


def _around(named: Mapping[str, Any], points: Sequence[Point], loss: Loss) -> tuple[Array, Array]:
    """The matrix of a law, linearised at its optimum, and its residuals on the fit's scale."""
    if FORMS[named["form"]].curve is None:
        regression = regress(points, _design(named, points))
        return regression.rows, regression.residuals
    xs, ys = ([getattr(point, name) for point in points] for name in ("xs", "y"))
    weights = np.asarray([point.weight for point in points])
    fit, _, _ = fit_power(str(named["form"]), np.asarray(xs), np.exp2(ys), weights, loss)
    return fit.slopes / math.log(2), fit.residuals / math.log(2)


def _x_scale(x: str, form: LawForm) -> Scale:
    return form.x_scale or (scale_of(x) if is_metric(x) else "raw")


def _levels(points: Sequence[Point], column: str) -> tuple[Any, ...]:
    values = {point.settings.get(column) for point in points}
    if None in values:
        raise NotFitted("nonfinite_value", f"{column} is not known for every configuration")
    joined = [value for value in values if isinstance(value, str) and " | " in value]
    if joined:
        raise NotFitted("few_levels", f"{column} does not reach this metric: cells share values")
    if len(values) < 2:
        raise NotFitted("few_levels", f"factor {column} has one value only: {values.pop()}")
    return tuple(sorted(values, key=order))


def linear_result(
    named: Mapping[str, Any], points: Sequence[Point], warnings: Sequence[FitWarning]
) -> FitResult:
    """A law that is linear in its parameters, with everything it says about itself.

    Args:
        named: fields of the result that are known already; `form`, `xs`, `x_scales`, `factors` and
            `interaction` say what is fitted.
        points: the configurations.
        warnings: warnings that are known already.

    Raises:
        NotFitted: the points do not suffice.
    """
    design = _design(named, points)
    needed = design.columns + 1
    if len(points) < needed:
        what = f"{len(points)} of the {needed} configurations that this {named['form']} law needs"
        raise NotFitted("too_few_points", what)
    values = [len({point.xs[i] for point in points}) for i in range(len(design.xs))]
    for x, count, degree in zip(
        design.xs, values, (design.degree, *[1] * (len(values) - 1)), strict=True
    ):
        if count <= degree:
            what = f"{x} has {count} distinct values; a {named['form']} law needs {degree + 1}"
            raise NotFitted("few_levels", what)
    rows = design.rows([point.xs for point in points], [point.settings for point in points])
    rank = int(np.linalg.matrix_rank(rows / np.maximum(np.abs(rows).max(axis=0), 1e-300)))
    if rank < design.columns:
        what = " and ".join([*design.xs, *design.levels])
        raise NotFitted(
            "collinear",
            f"the effects of {what} cannot be told apart here: {design.columns} coefficients, "
            f"but the configurations hold only {rank} independent comparisons",
        )
    found = list(warnings)
    if min(values) < 4:
        few = design.xs[values.index(min(values))]
        message = f"{few} has only {min(values)} distinct values: the form is taken on trust"
        found.append(FitWarning(code="few_levels", message=message))
    return _described(named, points, regress(points, design), found)


def _design(named: Mapping[str, Any], points: Sequence[Point]) -> Design:
    xs = np.asarray([point.xs for point in points], dtype=np.float64)
    seen = [
        np.log2(xs[:, i]) if scale == "log2" else xs[:, i]
        for i, scale in enumerate(named["x_scales"])
    ]
    return Design(
        xs=named["xs"],
        powers=FORMS[named["form"]].powers,
        scales=named["x_scales"],
        centers=tuple(float(values.mean()) for values in seen),
        levels=named["factors"],
        interaction=named["interaction"],
    )


def _described(
    named: Mapping[str, Any],
    points: Sequence[Point],
    regression: Regression,
    warnings: list[FitWarning],
) -> FitResult:
    """Everything a fit says about itself."""
    design, df, total = regression.design, regression.df, regression.total
    towards = design.slope()
    flat = total <= 1e-24 * max(float((regression.weights * regression.y**2).sum()), 1e-300)
    r2 = None if flat else 1 - regression.ssr / total
    r2_low, r2_high = (None, None) if r2 is None else r2_interval(r2, design.columns - 1, df)
    if flat:
        message = f"{named['metric']} has the same value everywhere: there is nothing to explain"
        warnings.append(FitWarning(code="few_levels", message=message))
    slope = regression.interval(towards)
    forced = float(regression.leverage.max()) > 1 - 1e-9
    hc3 = None if forced else regression.interval(towards, robust=True)
    tests = tests_of(regression)
    warnings += line_warnings(tests, regression)
    cook, influential = influence(regression, slope, points)
    optimum = None
    if design.degree > 1:
        optimum = _optimum(regression)
        if optimum is not None:
            warnings += optimum_warnings(optimum, points, named["x"])
    described = tuple(
        replace(point, fitted=float(y - e), cook=distance, leverage=float(h))
        for point, y, e, distance, h in zip(
            points, regression.y, regression.residuals, cook, regression.leverage, strict=True
        )
    )
    return FitResult(
        **{**named, "points": described},
        df=df,
        r2=r2,
        r2_low=r2_low,
        r2_high=r2_high,
        sigma=math.sqrt(max(regression.ssr, 0.0) / df),
        coefficients=_from_zero(regression),
        slope=slope,
        hc3_slope=hc3,
        least_slope=detectable(df) * slope.se,
        optimum=optimum,
        meaning=meaning(named, slope, wider(slope, hc3), optimum, design.centers[0]),
        tests=tests,
        warnings=(*warnings, *influential),
        center=design.centers[0],
        centers=design.centers,
        centered=tuple(float(value) for value in regression.params),
        covariance=tuple(tuple(float(v) for v in row) for row in regression.covariance),
    )


def _from_zero(regression: Regression) -> dict[str, Coefficient]:
    """Coefficients in powers of log2 x instead of powers of (log2 x - center)."""
    shift = regression.design.from_zero()
    estimates = shift @ regression.params
    variances = np.diag(shift @ regression.covariance @ shift.T)
    return {
        name: coefficient(float(estimate), float(variance), regression.df)
        for name, estimate, variance in zip(
            regression.design.names(), estimates, variances, strict=True
        )
    }


def _optimum(regression: Regression) -> Optimum | None:
    """The optimum of the law at the average level of every factor."""
    design = regression.design
    # Row j picks the coefficient of u^j, averaged over levels where they differ.
    picked = np.zeros((design.degree + 1, design.columns))
    picked[:, : design.degree + 1] = np.eye(design.degree + 1)
    start = design.base
    for values in design.levels.values():
        for _ in values[1:]:
            for power in range(design.block):
                picked[power, start + power] = 1 / len(values)
            start += design.block
    effects = regression.rows[:, design.base :] @ regression.params[design.base :]
    return optimum_of(
        regression.u,
        regression.y - effects,
        picked @ regression.params,
        picked @ regression.covariance @ picked.T,
        regression.df,
        design.centers[0],
    )


def refitted(fit: FitResult, points: Sequence[Point], *, name: str | None = None) -> FitResult:
    """The same law on other points: a part of them, or simulated ones.

    The weights of the points are kept; a law that they do not allow comes back with the reason.
    """
    named: dict[str, Any] = {
        "name": name or fit.name,
        "metric": fit.metric,
        "on": fit.on,
        "x": fit.x,
        "form": fit.form,
        "scale": fit.scale,
        "xs": fit.xs,
        "x_scales": fit.x_scales,
        "x_on": fit.x_on,
        "where": fit.where,
        "interaction": fit.interaction,
        "loss": fit.loss,
        "protocol": fit.protocol,
        "n_samples": fit.n_samples,
        "n": len(points),
        "seeds": fit.seeds,
        "points": tuple(points),
        "noise": fit.noise,
        "weighting": fit.weighting,
    }
    try:
        if not points:
            raise NotFitted("too_few_points", "no configuration is left")
        if fit.law.curve is not None:
            return power_result(named, points, parse_loss(fit.loss), ())
        return linear_result(named | {"factors": _present(fit, points)}, points, ())
    except NotFitted as refusal:
        return FitResult(**named, warnings=(refusal.warning,))


def _present(fit: FitResult, points: Sequence[Point]) -> dict[str, tuple[Any, ...]]:
    return {
        factor: tuple(
            level for level in levels if any(point.settings[factor] == level for point in points)
        )
        for factor, levels in fit.factors.items()
    }
