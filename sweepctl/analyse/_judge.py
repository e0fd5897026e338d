"""Which test belongs to which claim? Every kind of claim is sent to its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweepctl.analyse._factors import factor_verdict
from sweepctl.analyse._predictions import holdout_verdict, tradeoff_verdict
from sweepctl.analyse._results import ClaimResult, FitResult, fit_named
from sweepctl.analyse._shapes import monotone_verdict, optimum_verdict
from sweepctl.analyse._verdicts import equal_slopes_verdict, slope_verdict
from sweepctl.study import (
    AnyClaim,
    EqualSlopesClaim,
    FactorClaim,
    HoldoutClaim,
    MonotoneClaim,
    OptimumClaim,
    SlopeClaim,
)

if TYPE_CHECKING:
    import pandas as pd


def verdict_of(claim: AnyClaim, frame: pd.DataFrame, fits: Sequence[FitResult]) -> ClaimResult:
    """The verdict on a claim of any kind.

    Raises:
        UsageError: the claim names a fit or column that does not exist.
    """
    if isinstance(claim, SlopeClaim):
        return slope_verdict(claim, fit_named(claim.fit, fits))
    if isinstance(claim, EqualSlopesClaim):
        return equal_slopes_verdict(claim, [fit_named(name, fits) for name in claim.fits])
    if isinstance(claim, FactorClaim):
        return factor_verdict(claim, frame)
    if isinstance(claim, OptimumClaim):
        return optimum_verdict(claim, fit_named(claim.fit, fits))
    if isinstance(claim, MonotoneClaim):
        return monotone_verdict(claim, frame)
    if isinstance(claim, HoldoutClaim):
        return holdout_verdict(claim, fit_named(claim.fit, fits))
    return tradeoff_verdict(claim, frame)
