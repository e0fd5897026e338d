"""What do the numbers mean? Laws with intervals, checks of the laws, verdicts on the claims.

A long frame of measured values comes in, frozen results go out; no database, no plots, no clock.
A study goes through four steps. First rows become configurations: rows that differ only in the
seed are averaged on the fit's scale, because seeds are repeated measures and counting them as
points makes every interval too narrow. Then least squares on log2 x, with t intervals that hold at
ten points. Then the law is doubted: curvature, lack of fit at equal x, uneven scatter, single
points that carry the slope. Last the claims are judged by intervals, never by p > 0.05: what the
data cannot decide is `undecided`, with the smallest effect that this design could have seen.

Values that must not meet in one fit (protocols, sample counts, zeros under a logarithm) are refused
with a warning code and a sentence; a study still gets all its other fits. statsmodels and scipy are
imported where they are used, so importing this module stays cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweepctl.analyse._laws import bands, fit_law
from sweepctl.analyse._points import column_of
from sweepctl.analyse._results import (
    Analysis,
    Bands,
    ClaimResult,
    Coefficient,
    FitResult,
    FitWarning,
    FTest,
    Optimum,
    Point,
    Scale,
    Verdict,
    WarningCode,
    fit_named,
    readable,
    scale_of,
    unit_of,
)
from sweepctl.analyse._verdicts import factor_verdict, slope_verdict
from sweepctl.study import FactorClaim, Fit, SlopeClaim

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Analysis",
    "Bands",
    "ClaimResult",
    "Coefficient",
    "FTest",
    "FitResult",
    "FitWarning",
    "Optimum",
    "Point",
    "Scale",
    "Verdict",
    "WarningCode",
    "bands",
    "column_of",
    "fit_study",
    "readable",
    "scale_of",
    "unit_of",
]


def fit_study(
    frame: pd.DataFrame, fits: Mapping[str, Fit], claims: Sequence[SlopeClaim | FactorClaim]
) -> Analysis:
    """Fit every law of a study and judge every claim.

    Args:
        frame: one row a measured value: cell, task, metric, dataset, protocol, n, value, and one
            column an axis or derived value (p, q, c, encoder, decoder, resolution, seed, tokens,
            E, compression, parameters, macs, ...). Cells that share a task count once.
        fits: the study's fits by name.
        claims: the study's claims.

    Raises:
        UsageError: a fit or claim names a column, metric or fit that does not exist.
    """
    results = tuple(fit_law(name, frame, fit) for name, fit in fits.items())
    verdicts = tuple(
        factor_verdict(claim, frame)
        if isinstance(claim, FactorClaim)
        else slope_verdict(claim, fit_named(claim.fit, results))
        for claim in claims
    )
    return Analysis(fits=results, claims=verdicts)
