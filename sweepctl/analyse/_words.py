"""A law in words: its equation, and what a doubling of x does to the metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweepctl.analyse._results import Coefficient, FitResult, Optimum
from sweepctl.analyse._scales import is_metric, readable, unit_of
from sweepctl.laws import FORMS, Scales, between


def equation(fit: FitResult) -> str:
    """The law as people write it: "log2 rfid = 17.3 - 1.38 log2 E"; empty when not fitted."""
    if not fit.coefficients:
        return ""
    seen = Scales(metric=fit.metric, scale=fit.scale, xs=fit.xs, x_scales=fit.x_scales)
    numbers = {name: one.estimate for name, one in fit.coefficients.items()}
    return fit.law.equation(seen, numbers, readable)


def meaning(
    named: Mapping[str, Any],
    slope: Coefficient,
    interval: tuple[float, float],
    optimum: Optimum | None,
    center: float,
) -> str:
    """A law in one sentence: what its slope means, and where its optimum is."""
    seen = Scales(**{name: named[name] for name in ("metric", "scale", "xs", "x_scales")})
    x = seen.xs[0]
    text = FORMS[named["form"]].slope_in_words(
        seen,
        slope.estimate,
        interval,
        center,
        readable,
        (unit_of(seen.metric), unit_of(x) if is_metric(x) else ""),
    )
    if optimum is None or optimum.low is None or optimum.high is None:
        return text
    place = between([optimum.low, optimum.high], readable)
    return f"{text}; {optimum.kind} at {x} = {readable(optimum.x)} {place}"


def floor_in_words(floor: Coefficient, metric: str) -> str:
    """The floor of a curve, or the most that it can be."""
    unit = unit_of(metric)
    if floor.low <= 0:
        return f"floor not identified, at most {readable(floor.high)}{unit}"
    return f"floor {readable(floor.estimate)} [{readable(floor.low)}, {readable(floor.high)}]{unit}"
