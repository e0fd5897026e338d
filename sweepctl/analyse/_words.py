"""A law in words: its equation, and what a doubling of x does to the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweepctl.analyse._results import Coefficient, FitResult, Optimum
from sweepctl.analyse._scales import exp2, is_metric, readable, unit_of
from sweepctl.laws import FORMS, Curve


def equation(fit: FitResult) -> str:
    """The law as people write it: "log2 rfid = 17.3 - 1.38 log2 E"; empty when not fitted."""
    if not fit.coefficients:
        return ""
    if fit.law.curve is not None:
        return _curve_equation(fit, fit.law.curve)
    left = f"log2 {fit.metric}" if fit.scale == "log2" else fit.metric
    text = f"{left} ="
    for index, (name, coefficient) in enumerate(fit.coefficients.items()):
        value, term = coefficient.estimate, _term(fit, name)
        sign = "-" if value < 0 else "+" if index else ""
        text += f" {sign}{' ' if index else ''}{readable(abs(value))}"
        text += f" {term}" if term else ""
    return text


def _term(fit: FitResult, name: str) -> str:
    """What a coefficient is multiplied with; a level of a factor stands in brackets."""
    power, _, rest = name.partition(" ")
    scales = dict(zip(fit.xs, fit.x_scales, strict=True))
    first = f"log2 {fit.x}" if fit.x_scale == "log2" else fit.x
    terms = {"intercept": "", "slope": first, "linear": first}
    terms |= {"quadratic": f"({first})^2", "cubic": f"({first})^3"}
    if power not in terms:
        return f"[{name}]"
    if rest in scales:
        return f"log2 {rest}" if scales[rest] == "log2" else rest
    return f"[{rest}] {terms[power]}" if rest else terms[power]


def _curve_equation(fit: FitResult, curve: Curve) -> str:
    """ "rfid = 0.1 + 2950 E^-0.91", with the shape written out where it has more numbers."""
    parts = []
    for x in fit.xs:
        end = f" {x}" if len(fit.xs) > 1 else ""
        number = {
            name.removesuffix(end): one.estimate
            for name, one in fit.coefficients.items()
            if name.endswith(end)
        }
        parts.append(curve.equation(number, x, readable))
    return f"{fit.metric} = {readable(fit.coefficients['floor'].estimate)} + {' + '.join(parts)}"


def meaning(
    named: Mapping[str, Any],
    slope: Coefficient,
    interval: tuple[float, float],
    optimum: Optimum | None,
    center: float,
) -> str:
    """A law in one sentence: what a doubling of x, or one more of it, does to the metric."""
    metric, x = named["metric"], named["x"]
    doubling = named["x_scales"][0] == "log2"
    at = exp2(center) if doubling else center
    where = "" if FORMS[named["form"]].is_line else f"at {x} = {readable(at)}, "
    unit = unit_of(x) if is_metric(x) else ""
    step = f"each doubling of {x}" if doubling else f"each further {unit.strip() or '1'} of {x}"
    if named["scale"] == "log2":
        ends = [exp2(end) for end in interval]
        change = f"multiplies {metric} by {readable(exp2(slope.estimate))} {_between(ends)}"
    else:
        sign = 1 if slope.estimate >= 0 else -1
        ends = sorted(sign * end for end in interval)
        amount = f"{readable(abs(slope.estimate))} {_between(ends)}{unit_of(metric)}"
        change = f"adds {amount} to {metric}" if sign > 0 else f"takes {amount} from {metric}"
    others = f" at equal {', '.join(named['xs'][1:])}" if len(named["xs"]) > 1 else ""
    text = f"{where}{step}{others} {change}"
    if optimum is None or optimum.low is None or optimum.high is None:
        return text
    place = _between([optimum.low, optimum.high])
    return f"{text}; {optimum.kind} at {x} = {readable(optimum.x)} {place}"


def _between(ends: Sequence[float]) -> str:
    return f"[{', '.join(readable(end) for end in ends)}]"


def floor_in_words(floor: Coefficient, metric: str) -> str:
    """The floor of a curve, or the most that it can be."""
    unit = unit_of(metric)
    if floor.low <= 0:
        return f"floor not identified, at most {readable(floor.high)}{unit}"
    return f"floor {readable(floor.estimate)} [{readable(floor.low)}, {readable(floor.high)}]{unit}"
