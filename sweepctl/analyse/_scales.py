"""How is a metric seen by fits, and how are its numbers written? Scales, units, digits.

Ratio-scaled distances are fitted in log2, decibels and scores raw, as in the figures of the ViTok
paper. Metrics that are measured here say so themselves (`vitok_core.protocols.METRICS`); those that
may come as published numbers only stand in the table below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from sweepctl.errors import UsageError
from sweepctl.laws import Scale, exp2
from vitok_core.protocols import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Better = Literal["lower", "higher"]

PUBLISHED: Mapping[str, tuple[Scale, Better]] = {
    "rfid": ("log2", "lower"),
    "gfid": ("log2", "lower"),
    "rfvd": ("log2", "lower"),
    "gfvd": ("log2", "lower"),
    "ris": ("raw", "higher"),
    "gis": ("raw", "higher"),
}
"""Scale and direction of the metrics that the ViTok paper prints and that may not be measured here
(its psnr and ssim are among `METRICS`)."""


def scale_of(metric: str) -> Scale:
    """How fits see a metric: ratio-scaled distances in log2, decibels and scores raw.

    Raises:
        UsageError: the metric is neither measured here nor a published one.
    """
    if metric in METRICS:
        return METRICS[metric].scale
    if metric in PUBLISHED:
        return PUBLISHED[metric][0]
    raise UsageError(
        f"the scale of metric {metric!r} is not known; known are "
        f"{', '.join([*METRICS, *PUBLISHED])}",
        hint="use form: loglog or semilog, which state the scale",
    )


def unit_of(metric: str) -> str:
    """The unit of a metric with a space before it; empty for a pure number."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f" {unit}" if unit else ""


def exactly(value: float) -> str:
    """A level that was measured at, such as E = 8192: not rounded."""
    return f"{value:.10g}"


def readable(value: float) -> str:
    """A number with three significant digits, without an exponent where people expect none."""
    if 999.5 <= abs(value) < 1e7:
        return f"{float(f'{value:.3g}'):.0f}"
    return f"{value:.3g}"


def better_of(metric: str) -> Better:
    """Whether a lower or a higher value of a metric is the better one.

    Raises:
        UsageError: the metric is neither measured here nor a published one.
    """
    if metric in METRICS:
        return METRICS[metric].better
    scale_of(metric)  # says what is known
    return PUBLISHED[metric][1]


def is_metric(name: str) -> bool:
    """Whether a name is a metric's."""
    return name in METRICS or name in PUBLISHED


def unscaled(values: Array, scale: Scale) -> Array:
    """From a fit's scale to the metric's unit; infinite where floats end."""
    with np.errstate(over="ignore"):
        return np.exp2(values) if scale == "log2" else values


def effect(difference: float, metric: str, scale: Scale) -> str:
    """A difference on a fit's scale as people read it: a ratio under log2, else with its unit."""
    if scale == "log2":
        return f"x{readable(exp2(difference))}"
    return f"{'+' if difference >= 0 else ''}{readable(difference)}{unit_of(metric)}"
