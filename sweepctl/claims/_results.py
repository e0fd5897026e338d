"""Verdicts on claims, and the result of a whole study: its laws and its verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sweepctl.analyse import FitResult, fit_named
from sweepctl.plain import finite

Verdict = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """A verdict and what it rests on.

    Attributes:
        name: name in the study.
        verdict: supported, contradicted or undecided.
        evidence: one or two sentences with the numbers.
        details: the numbers as plain data; units as in the evidence.
    """

    name: str
    verdict: Verdict
    evidence: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All fits and verdicts of a study, each in the order of the study file."""

    fits: tuple[FitResult, ...]
    claims: tuple[ClaimResult, ...]

    def fit(self, name: str) -> FitResult:
        """The fit of that name.

        Raises:
            UsageError: there is none.
        """
        return fit_named(name, self.fits)

    def to_json(self) -> dict[str, Any]:
        """The analysis as plain data for strict JSON: what is not a finite number is null."""
        claims = [
            {
                "name": claim.name,
                "verdict": claim.verdict,
                "evidence": claim.evidence,
                "details": finite(claim.details),
            }
            for claim in self.claims
        ]
        return {"fits": [fit.to_json() for fit in self.fits], "claims": claims}
