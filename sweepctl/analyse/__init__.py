"""What do the numbers mean? Laws with intervals, checks of the laws, verdicts on the claims.

A long frame of measured values comes in, frozen results go out; no database, no plots, no clock.
A study goes through four steps. First rows become configurations: rows that differ only in the
seed are averaged on the fit's scale, because seeds are repeated measures and counting them as
points makes every interval too narrow. Then a law is fitted: least squares on log2 x, or a power
law with a floor by variable projection, with intervals that hold at ten points. Then the law is
doubted: curvature, lack of fit at equal x, a slope that depends on the range, uneven scatter,
single points that carry the slope, floors and optima that the points do not pin down. Last the
claims are judged by intervals, never by p > 0.05: what the data cannot decide is `undecided`, with
the smallest effect that this design could have seen.

Values that must not meet in one fit (protocols, sample counts, zeros under a logarithm) are refused
with a warning code and a sentence; a study still gets all its other fits. The numbers that the
ViTok paper published come as `reference_points`. scipy is imported where it is used, so importing
this module stays cheap.
"""

from __future__ import annotations

from sweepctl.analyse._bands import bands, law_at
from sweepctl.analyse._bootstrap import bootstrap
from sweepctl.analyse._families import Family
from sweepctl.analyse._laws import fit_law, linear_result, refitted
from sweepctl.analyse._points import (
    Configurations,
    NotFitted,
    column_of,
    configurations,
    matches,
    place_of,
)
from sweepctl.analyse._power import slope_gradient
from sweepctl.analyse._regression import design_of, detectable, order
from sweepctl.analyse._relations import (
    Estimate,
    Front,
    Relation,
    Surface,
    correlate,
    front,
    frontier,
    in_unit,
    rank_interval,
    surface,
)
from sweepctl.analyse._results import (
    FitResult,
    Point,
    Score,
    WarningCode,
    fit_named,
)
from sweepctl.analyse._scales import (
    better_of,
    effect,
    exactly,
    is_metric,
    readable,
    scale_of,
    unit_of,
    unscaled,
)
from sweepctl.analyse._table import error_column, fit_table
from sweepctl.analyse._validation import (
    HoldOut,
    compare,
    hold_out,
    left_out,
    outlier_cells,
    predicted_at,
    with_outliers,
)
from sweepctl.analyse._words import equation

__all__ = [
    "Configurations",
    "Estimate",
    "Family",
    "FitResult",
    "Front",
    "HoldOut",
    "NotFitted",
    "Point",
    "Relation",
    "Score",
    "Surface",
    "WarningCode",
    "bands",
    "better_of",
    "bootstrap",
    "column_of",
    "compare",
    "configurations",
    "correlate",
    "design_of",
    "detectable",
    "effect",
    "equation",
    "error_column",
    "exactly",
    "fit_law",
    "fit_named",
    "fit_table",
    "front",
    "frontier",
    "hold_out",
    "in_unit",
    "is_metric",
    "law_at",
    "left_out",
    "linear_result",
    "matches",
    "order",
    "outlier_cells",
    "place_of",
    "predicted_at",
    "rank_interval",
    "readable",
    "refitted",
    "scale_of",
    "slope_gradient",
    "surface",
    "unit_of",
    "unscaled",
    "with_outliers",
]
