"""What does the law say of x that it was not shown? Fitted below a cut, held against the rest.

Ordered by x, because a scaling law is used beyond its largest run; a random split would ask it to
interpolate, which every curve can. The claim `holdout` judges the same errors against a margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._bands import bands
from sweepctl.analyse._laws import refitted
from sweepctl.analyse._results import FitResult, Point
from sweepctl.analyse._scales import Scale, exp2

if TYPE_CHECKING:
    from sweepctl.study import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A held-out configuration.

    Attributes:
        point: the configuration.
        measured: its value, in the metric's unit.
        predicted: the law fitted on the rest.
        low: lower end of the 95 % interval of one new configuration there.
        high: upper end.
    """

    point: Point
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the value lies inside the interval."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOut:
    """A law tested on what it did not see.

    Attributes:
        rest: the law without the held-out configurations.
        held: the held-out configurations, in the order of x.
        cut: smallest (or largest) x that was held out, in words: ">= 8192".
        rms: root mean square error on `scale`.
        bias: mean error (measured - predicted) on `scale`.
        scale: scale of both errors.
        reason: why there is no test; empty when there is one.
    """

    rest: FitResult
    held: tuple[Predicted, ...]
    cut: str
    rms: float | None
    bias: float | None
    scale: Scale
    reason: str = ""


def hold_out(fit: FitResult, cut: Comparison | None = None) -> HoldOut:
    """Fit a law without some x and predict them.

    Args:
        fit: the law.
        cut: which x are held out; the upper third of its distinct values when None.
    """
    values = sorted({point.x for point in fit.points})
    edge = values[len(values) - max(1, len(values) // 3)] if values else 0.0

    def is_held(point: Point) -> bool:
        return point.x >= edge if cut is None else cut.holds(point.x)

    said = f">= {edge:.10g}" if cut is None else str(cut)
    rest = refitted(fit, [point for point in fit.points if not is_held(point)])
    held = [point for point in fit.points if is_held(point)]
    reason = ""
    if not fit.fitted:
        reason = fit.reason
    elif not held:
        reason = f"no configuration has {fit.x} {said}"
    elif not rest.fitted:
        reason = f"without {fit.x} {said} there is no law: {rest.reason}"
    elif any(p.settings.get(name) not in rest.factors[name] for p in held for name in rest.factors):
        reason = f"with {fit.x} {said} go all configurations of a level of a factor"
    if reason:
        return HoldOut(
            rest=rest, held=(), cut=said, rms=None, bias=None, scale=fit.scale, reason=reason
        )
    found = tuple(_predicted(rest, point) for point in held)
    errors = np.asarray([_on(one.measured, fit) - _on(one.predicted, fit) for one in found])
    return HoldOut(
        rest=rest,
        held=found,
        cut=said,
        rms=float(np.sqrt(np.mean(errors**2))),
        bias=float(errors.mean()),
        scale=fit.scale,
    )


def _predicted(rest: FitResult, point: Point) -> Predicted:
    at = dict(zip(rest.xs[1:], point.xs[1:], strict=True))
    at |= {factor: point.settings[factor] for factor in rest.factors}
    band = bands(rest, [point.x], at)
    return Predicted(
        point=point,
        measured=exp2(point.y) if rest.scale == "log2" else point.y,
        predicted=float(band.mean[0]),
        low=float(band.low[0]),
        high=float(band.high[0]),
    )


def _on(value: float, fit: FitResult) -> float:
    return float(np.log2(value)) if fit.scale == "log2" else value
