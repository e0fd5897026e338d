"""How do fits and verdicts read? Laws with intervals, meanings, doubts; claims with evidence.

A terminal gets sentences; a pipe gets one row a thing, tab-separated, every digit, nothing cut.
`unicode=False` replaces symbols by ASCII for terminals that cannot show them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from sweepctl.analyse import Analysis, ClaimResult, FitResult, readable, unit_of
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


def equation(fit: FitResult) -> str:
    """The law as people write it: "log2 rfid = 17.3 - 1.38 log2 E"; empty when not fitted."""
    if not fit.coefficients:
        return ""
    if fit.y_center or "floor" in fit.coefficients:
        return _power_equation(fit)
    left = f"log2 {fit.metric}" if fit.scale == "log2" else fit.metric
    text = f"{left} ="
    for index, (name, coefficient) in enumerate(fit.coefficients.items()):
        value, term = coefficient.estimate, _term(fit, name)
        sign = "-" if value < 0 else "+" if index else ""
        text += f" {sign}{' ' if index else ''}{readable(abs(value))}"
        text += f" {term}" if term else ""
    return text


def _term(fit: FitResult, name: str) -> str:
    """What a coefficient is multiplied with; a level of a factor stands in brackets."""
    power, _, rest = name.partition(" ")
    scales = dict(zip(fit.xs, fit.x_scales, strict=True))
    first = f"log2 {fit.x}" if fit.x_scale == "log2" else fit.x
    terms = {"intercept": "", "slope": first, "linear": first}
    terms |= {"quadratic": f"({first})^2", "cubic": f"({first})^3"}
    if power not in terms:
        return f"[{name}]"
    if rest in scales:
        return f"log2 {rest}" if scales[rest] == "log2" else rest
    return f"[{rest}] {terms[power]}" if rest else terms[power]


def _power_equation(fit: FitResult) -> str:
    """ "rfid = 0.1 + 2950 E^-0.91", with the shape written out where it has more numbers."""
    number = {name: readable(one.estimate) for name, one in fit.coefficients.items()}
    text = f"{fit.metric} = {number['floor']} + "
    if fit.form == "power":
        ends = [f" {x}" for x in fit.xs] if len(fit.xs) > 1 else [""]
        parts = zip(fit.xs, ends, strict=True)
        return text + " + ".join(
            f"{number[f'amplitude{end}']} {x}^-{number[f'exponent{end}']}" for x, end in parts
        )
    if fit.form == "power-shifted":
        return f"{text}{number['amplitude']} ({fit.x} + {number['shift']})^-{number['exponent']}"
    if fit.form == "power-bounded":
        span = readable(fit.coefficients["ceiling"].estimate - fit.coefficients["floor"].estimate)
        return f"{text}{span} / (1 + ({fit.x} / {number['midpoint']})^{number['exponent']})"
    first, after = (
        fit.coefficients["exponent"].estimate,
        fit.coefficients["exponent after"].estimate,
    )
    sharpness = fit.coefficients["sharpness"].estimate
    return (
        f"{text}{number['amplitude']} {fit.x}^-{number['exponent']} "
        f"(1 + ({fit.x} / {number['break']})^{readable(1 / sharpness)})"
        f"^{readable((first - after) * sharpness)}"
    )


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
