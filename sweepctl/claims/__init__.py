"""Claims judged by intervals: one test per kind of claim, and the judge of a whole study.

A claim is decided only by an interval that lies wholly on one side, never by p > 0.05. What
the data cannot decide is `undecided`, with the smallest effect that this design could have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import FitResult, fit_law, with_outliers
from sweepctl.claims._factors import factor_verdict
from sweepctl.claims._predictions import holdout_verdict, tradeoff_verdict
from sweepctl.claims._results import Analysis, ClaimResult, Verdict
from sweepctl.claims._shapes import monotone_verdict, optimum_verdict
from sweepctl.claims._slopes import equal_slopes_verdict, slope_verdict
from sweepctl.study import (
    AnyClaim,
    EqualSlopesClaim,
    FactorClaim,
    Fit,
    HoldoutClaim,
    MonotoneClaim,
    OptimumClaim,
    SlopeClaim,
    TradeoffClaim,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TESTS", "Analysis", "ClaimResult", "Verdict", "fit_study", "verdict_of"]


Test = Callable[[Any, "pd.DataFrame", Sequence[FitResult]], ClaimResult]
"""Judges one claim by the measured values and by the study's laws."""

TESTS: dict[type[AnyClaim], Test] = {
    SlopeClaim: slope_verdict,
    EqualSlopesClaim: equal_slopes_verdict,
    FactorClaim: factor_verdict,
    OptimumClaim: optimum_verdict,
    MonotoneClaim: monotone_verdict,
    TradeoffClaim: tradeoff_verdict,
    HoldoutClaim: holdout_verdict,
}
"""The test of each kind of claim."""


def verdict_of(claim: AnyClaim, frame: pd.DataFrame, fits: Sequence[FitResult]) -> ClaimResult:
    """The verdict on a claim of any kind.

    Raises:
        UsageError: the claim names a fit or column that does not exist.
    """
    return TESTS[type(claim)](claim, frame, fits)


def fit_study(frame: pd.DataFrame, fits: Mapping[str, Fit], claims: Sequence[AnyClaim]) -> Analysis:
    """Fit every law of a study and judge every claim.

    Args:
        frame: one row per measured value: cell, task, metric, dataset, protocol, n, value, and one
            column an axis or derived value (p, q, c, encoder, decoder, resolution, seed, tokens,
            E, compression, parameters, macs, ...); `se`, the evaluation's standard error of the
            value, where it is known. Cells that share a task count once.
        fits: the study's fits by name.
        claims: the study's claims.

    Raises:
        UsageError: a fit or claim names a metric or fit that does not exist, or a column that does
            not, but as a variable: that law is then not fitted, the others are.
    """
    results = tuple(with_outliers(fit_law(name, frame, fit)) for name, fit in fits.items())
    verdicts = tuple(verdict_of(claim, frame, results) for claim in claims)
    return Analysis(fits=results, claims=verdicts)
