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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweepctl.analyse._alignment import Aligned, Spread, align, as_published, run_to_run
from sweepctl.analyse._bands import bands
from sweepctl.analyse._beside import Beside, BesideRow, beside_paper, nothing_beside
from sweepctl.analyse._bootstrap import bootstrap
from sweepctl.analyse._compare import compare
from sweepctl.analyse._equation import equation
from sweepctl.analyse._forecast import (
    ClaimForecast,
    FitForecast,
    Forecast,
    Stated,
    forecast,
)
from sweepctl.analyse._foresee import Foreseen, foresee, uses
from sweepctl.analyse._hold_out import HoldOut, Predicted, hold_out
from sweepctl.analyse._judge import verdict_of
from sweepctl.analyse._laws import fit_law, refitted
from sweepctl.analyse._left_out import LeftOut, left_out, surprising_cells, with_surprises
from sweepctl.analyse._paper import PaperStudy, paper_frame, paper_names, paper_study
from sweepctl.analyse._points import column_of
from sweepctl.analyse._published import Measured, configured, place_of, published
from sweepctl.analyse._reference import reference_edition, reference_points, reference_rows
from sweepctl.analyse._relations import (
    Estimate,
    Front,
    Relation,
    Surface,
    correlate,
    data_set_of,
    front,
    frontier,
    in_unit,
    surface,
)
from sweepctl.analyse._results import (
    Analysis,
    Bands,
    ClaimResult,
    Coefficient,
    Draws,
    FitResult,
    FitWarning,
    FTest,
    Optimum,
    Point,
    Score,
    Verdict,
    WarningCode,
)
from sweepctl.analyse._scales import Scale, better_of, effect, readable, scale_of, unit_of
from sweepctl.analyse._suggest import Criterion, Expectation, Suggested, Suggestion, suggest
from sweepctl.analyse._table import fit_table
from sweepctl.study import AnyClaim, Fit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Aligned",
    "Analysis",
    "Bands",
    "Beside",
    "BesideRow",
    "ClaimForecast",
    "ClaimResult",
    "Coefficient",
    "Criterion",
    "Draws",
    "Estimate",
    "Expectation",
    "FTest",
    "FitForecast",
    "FitResult",
    "FitWarning",
    "Forecast",
    "Foreseen",
    "Front",
    "HoldOut",
    "LeftOut",
    "Measured",
    "Optimum",
    "PaperStudy",
    "Point",
    "Predicted",
    "Relation",
    "Scale",
    "Score",
    "Spread",
    "Stated",
    "Suggested",
    "Suggestion",
    "Surface",
    "Verdict",
    "WarningCode",
    "align",
    "as_published",
    "bands",
    "beside_paper",
    "better_of",
    "bootstrap",
    "column_of",
    "compare",
    "configured",
    "correlate",
    "data_set_of",
    "effect",
    "equation",
    "fit_law",
    "fit_study",
    "fit_table",
    "forecast",
    "foresee",
    "front",
    "frontier",
    "hold_out",
    "in_unit",
    "left_out",
    "nothing_beside",
    "paper_frame",
    "paper_names",
    "paper_study",
    "place_of",
    "published",
    "readable",
    "reference_edition",
    "reference_points",
    "reference_rows",
    "refitted",
    "run_to_run",
    "scale_of",
    "suggest",
    "surface",
    "surprising_cells",
    "unit_of",
    "uses",
    "with_surprises",
]


def fit_study(frame: pd.DataFrame, fits: Mapping[str, Fit], claims: Sequence[AnyClaim]) -> Analysis:
    """Fit every law of a study and judge every claim.

    Args:
        frame: one row a measured value: cell, task, metric, dataset, protocol, n, value, and one
            column an axis or derived value (p, q, c, encoder, decoder, resolution, seed, tokens,
            E, compression, parameters, macs, ...); `se`, the evaluation's standard error of the
            value, where it is known. Cells that share a task count once.
        fits: the study's fits by name.
        claims: the study's claims.

    Raises:
        UsageError: a fit or claim names a metric or fit that does not exist, or a column that does
            not, but as a variable: that law is then not fitted, the others are.
    """
    results = tuple(with_surprises(fit_law(name, frame, fit)) for name, fit in fits.items())
    verdicts = tuple(verdict_of(claim, frame, results) for claim in claims)
    return Analysis(fits=results, claims=verdicts)
