"""How does a law read in one sentence? What a doubling of x does to the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweepctl.analyse._results import Coefficient, Optimum
from sweepctl.analyse._scales import exp2, is_metric, readable, unit_of


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
    straight = named["form"] in ("loglog", "semilog", "linear")
    where = "" if straight else f"at {x} = {readable(at)}, "
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
