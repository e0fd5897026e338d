"""How do fits and verdicts read? Laws with intervals, meanings, doubts; claims with evidence.

A terminal gets sentences; a pipe gets one row a thing, tab-separated, every digit, nothing cut.
`unicode=False` replaces symbols by ASCII for terminals that cannot show them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from sweepctl.analyse import Analysis, ClaimResult, FitResult, equation, readable, unit_of
from sweepctl.report._tables import tab_separated

_VERDICTS: Mapping[str, tuple[str, str]] = {
    "supported": ("✓", "+"),
    "contradicted": ("✗", "-"),
    "undecided": ("?", "?"),
}

_FIT_COLUMNS = (
    "fit",
    "metric",
    "on",
    "protocol",
    "x",
    "form",
    "n",
    "seeds_min",
    "seeds_max",
    "df",
    "r2",
    "r2_low",
    "r2_high",
    "slope",
    "slope_low",
    "slope_high",
    "residual_sd",
    "equation",
    "meaning",
    "warnings",
)


# ---------------------------------------------------------------------------------------- fits


def fits_text(analysis: Analysis, *, terminal: bool, width: int = 100) -> str:
    """Every fit with its intervals, its meaning and the reasons to doubt it.

    Args:
        analysis: what `fit_study` gave.
        terminal: whether a person reads it; else one tab-separated row a fit.
        width: columns of the terminal.
    """
    if not terminal:
        return tab_separated(_FIT_COLUMNS, [_fit_row(fit) for fit in analysis.fits])
    if not analysis.fits:
        return "no fits\n"
    return "\n".join(_fit_block(fit, width) for fit in analysis.fits)


def _fit_row(fit: FitResult) -> list[object]:
    low, high = fit.slope_interval() if fit.slope else (None, None)
    return [
        fit.name,
        fit.metric,
        fit.on,
        fit.protocol,
        fit.x,
        fit.form,
        fit.n,
        *fit.seeds,
        fit.df,
        fit.r2,
        fit.r2_low,
        fit.r2_high,
        fit.slope.estimate if fit.slope else None,
        low,
        high,
        fit.sigma,
        equation(fit),
        fit.meaning,
        ",".join(warning.code for warning in fit.warnings),
    ]


def _fit_block(fit: FitResult, width: int) -> str:
    head = f"{fit.name}   {fit.metric} on {fit.on}   {fit.form}   n {fit.n}"
    head += f" ({_seeds(fit)})" if fit.n else ""
    lines = [head]
    if fit.slope is None:
        return head + "\n" + _wrapped("not fitted", fit.reason, width) + "\n"
    low, high = fit.slope_interval()
    lines.append(f"  {equation(fit)}")
    straight = fit.form in ("loglog", "semilog", "linear")
    where = "" if straight else f" at {fit.x} = {readable(2**fit.center)}"
    parts = [f"slope{where} {readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"]
    if fit.r2 is not None and fit.r2_low is not None and fit.r2_high is not None:
        parts.append(f"R2 {fit.r2:.3f} [{fit.r2_low:.3f}, {fit.r2_high:.3f}]")
    if fit.sigma is not None:
        unit = unit_of(fit.metric)
        size = f"x{2**fit.sigma:.3g}" if fit.scale == "log2" else f"{readable(fit.sigma)}{unit}"
        parts.append(f"residual sd {size}")
    lines.append("  " + "   ".join(parts))
    lines.append(textwrap.fill(fit.meaning, width, initial_indent="  ", subsequent_indent="  "))
    lines += [_wrapped(f"! {warning.code}", warning.message, width) for warning in fit.warnings]
    return "\n".join(lines) + "\n"


def _seeds(fit: FitResult) -> str:
    low, high = fit.seeds
    count = str(low) if low == high else f"{low} to {high}"
    return f"{count} seed{'s' if high > 1 else ''} each"


def _wrapped(label: str, text: str, width: int) -> str:
    return textwrap.fill(f"{label}: {text}", width, initial_indent="  ", subsequent_indent="    ")


# -------------------------------------------------------------------------------------- claims


def claims_text(
    analysis: Analysis, *, terminal: bool, width: int = 100, unicode: bool = True
) -> str:
    """Every claim with its verdict and what the verdict rests on.

    Args:
        analysis: what `fit_study` gave.
        terminal: whether a person reads it; else name, verdict, evidence, tab-separated.
        width: columns of the terminal.
        unicode: whether the terminal shows more than ASCII.
    """
    if not terminal:
        rows = [(claim.name, claim.verdict, claim.evidence) for claim in analysis.claims]
        return tab_separated(("claim", "verdict", "evidence"), rows)
    if not analysis.claims:
        return "no claims\n"
    return "\n".join(_claim_block(claim, width, unicode) for claim in analysis.claims)


def _claim_block(claim: ClaimResult, width: int, unicode: bool) -> str:
    symbol = _VERDICTS[claim.verdict][0 if unicode else 1]
    evidence = textwrap.fill(claim.evidence, width, initial_indent="    ", subsequent_indent="    ")
    return f"{symbol} {claim.verdict:<13}{claim.name}\n{evidence}\n"
