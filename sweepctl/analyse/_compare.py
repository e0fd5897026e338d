"""Which of several laws describes and predicts best? One scale for all of them.

Laws of one metric may see it as log2 or raw; likelihoods are put on the metric's own unit (with the
Jacobian of the logarithm), errors of prediction on the metric's own scale, so that the numbers of
different forms can stand in one column. Prediction is tried twice: each configuration from all
others, and the largest x from the smaller ones, which is what a scaling law is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._bands import law_at
from sweepctl.analyse._laws import refitted
from sweepctl.analyse._results import FitResult, Point, Score
from sweepctl.analyse._scales import Scale, exp2, is_metric, scale_of
from sweepctl.errors import UsageError
from sweepctl.study import POWERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LN2 = math.log(2)


def compare(fits: Sequence[FitResult]) -> tuple[Score, ...]:
    """Score laws of one metric on the same configurations.

    Raises:
        UsageError: the laws are of different metrics, data sets or configurations; none was made.
    """
    made = [fit for fit in fits if fit.fitted]
    if not made:
        raise UsageError("there is no fitted law to compare")
    first = made[0]
    for fit in made[1:]:
        if (fit.metric, fit.on, fit.protocol) != (first.metric, first.on, first.protocol):
            raise UsageError(
                f"{fit.name} is of {fit.metric} on {fit.on}, {first.name} of {first.metric} on "
                f"{first.on}: only laws of one quantity can be compared"
            )
        if {point.cells for point in fit.points} != {point.cells for point in first.points}:
            raise UsageError(
                f"{fit.name} and {first.name} are fitted on different configurations; "
                "give them the same where"
            )
    scale = scale_of(first.metric) if is_metric(first.metric) else first.scale
    return tuple(_score(fit, scale) for fit in made)


def _score(fit: FitResult, scale: Scale) -> Score:
    n = fit.n
    parameters = len(fit.centered) + 1
    weights = np.asarray([point.weight for point in fit.points])
    residuals = np.asarray([point.y - point.fitted for point in fit.points])
    # Maximum likelihood divides by n; points of weight w have variance sigma^2 / w.
    variance = max(float(weights @ residuals**2) / n, 1e-300)
    likelihood = -0.5 * n * (math.log(2 * math.pi * variance) + 1) + 0.5 * float(
        np.log(weights).sum()
    )
    if fit.scale == "log2":
        # dlog2(y)/dy = 1 / (y ln 2)
        likelihood -= sum(point.y * _LN2 + math.log(_LN2) for point in fit.points)
    left = n - parameters - 1
    held, error = _holdout(fit, scale)
    return Score(
        fit=fit.name,
        parameters=parameters,
        log_likelihood=likelihood,
        aicc=2 * parameters * (1 + (parameters + 1) / left) - 2 * likelihood if left > 0 else None,
        bic=parameters * math.log(n) - 2 * likelihood,
        press_rmse=_press(fit, scale),
        holdout_rmse=error,
        holdout_n=held,
        scale=scale,
    )


def _press(fit: FitResult, scale: Scale) -> float | None:
    """Each configuration from all others; None when one cannot be left out."""
    errors = []
    for index, point in enumerate(fit.points):
        if math.isnan(point.leverage) or point.leverage > 1 - 1e-9:
            return None
        if fit.form in POWERS:
            rest = refitted(fit, [p for i, p in enumerate(fit.points) if i != index])
            if not rest.fitted:
                return None
            predicted = float(predicted_at(rest, [point])[0])
        else:
            predicted = point.y - (point.y - point.fitted) / (1 - point.leverage)
        errors.append(_on(point.y, fit.scale, scale) - _on(predicted, fit.scale, scale))
    return _rms(errors)


def _holdout(fit: FitResult, scale: Scale) -> tuple[int, float | None]:
    """The upper third of the values of x, predicted from the rest."""
    values = sorted({point.x for point in fit.points})
    if len(values) < 3:
        return 0, None
    cut = values[len(values) - max(1, len(values) // 3)]
    held = [point for point in fit.points if point.x >= cut]
    rest = refitted(fit, [point for point in fit.points if point.x < cut])
    if not rest.fitted or any(
        point.settings.get(factor) not in levels
        for factor, levels in rest.factors.items()
        for point in held
    ):
        return len(held), None
    predicted = predicted_at(rest, held)
    return len(held), _rms(
        [
            _on(point.y, fit.scale, scale) - _on(float(guess), fit.scale, scale)
            for point, guess in zip(held, predicted, strict=True)
        ]
    )


def predicted_at(fit: FitResult, points: Sequence[Point]) -> Array:
    """The law at configurations, on the fit's scale."""
    xs = np.asarray([point.xs for point in points], dtype=np.float64)
    return law_at(fit, xs, [point.settings for point in points])[0]


def _on(value: float, scale: Scale, wanted: Scale) -> float:
    if scale == wanted:
        return value
    if wanted == "raw":
        return exp2(value)
    return math.log2(value) if value > 0 else math.nan


def _rms(errors: Sequence[float]) -> float | None:
    value = math.sqrt(float(np.mean(np.square(errors))))
    # A raw law may predict a negative distance, which has no logarithm: no error can be stated.
    return value if math.isfinite(value) else None
