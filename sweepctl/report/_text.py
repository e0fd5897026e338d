"""Laws, verdicts and comparisons in words and tables.

A terminal gets sentences; a pipe gets one row per law or claim, tab-separated, with every digit.
`unicode=False` replaces symbols by ASCII for terminals that cannot show them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sweepctl.analyse import (
    Estimate,
    FitResult,
    Front,
    Relation,
    equation,
    in_unit,
    readable,
    unit_of,
)
from sweepctl.claims import Analysis, ClaimResult
from sweepctl.columns import DERIVED
from sweepctl.design import Prediction
from sweepctl.ledger import Table
from sweepctl.paper import PaperComparison
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
    """Every fit with its intervals, its meaning and its warnings.

    Args:
        analysis: what `fit_study` gave.
        terminal: whether a person reads it; else one tab-separated row per fit.
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
    where = "" if fit.law.is_line else f" at {fit.x} = {readable(2**fit.center)}"
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


# ----------------------------------------------------------------------------------- comparisons


def paper_table(comparisons: Iterable[PaperComparison]) -> Table:
    """Your own configurations next to the paper's law at the same x.

    `distance` is own / paper where `as` is ratio, own - paper where it is difference.
    """
    columns = (
        *("fit", "metric", "cells", "x", "own", "paper", "paper_low", "paper_high"),
        *("distance", "as", "reference", "reference_on"),
    )
    rows = [
        (
            *(one.fit, one.law.metric, " ".join(map(str, row.cells)), row.x),
            *(row.own, row.paper, row.paper_low, row.paper_high, row.distance),
            *("ratio" if one.scale == "log2" else "difference", one.paper, one.law.on),
        )
        for one in comparisons
        for row in one.rows
    ]
    return Table(columns=columns, rows=tuple(rows))


def relation_table(relations: Iterable[Relation]) -> Table:
    """Both correlations of each metric, with their intervals."""
    columns = (
        *("metric", "on", "n", "spearman", "spearman_low", "spearman_high"),
        *("pearson", "pearson_low", "pearson_high", "reason"),
    )
    rows = [
        (one.metric, one.on, one.n, *_ends(one.spearman), *_ends(one.pearson), one.reason)
        for one in relations
    ]
    return Table(columns=columns, rows=tuple(rows))


def _ends(found: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else (found.value, found.low, found.high)


def relation_facts(relations: Iterable[Relation]) -> list[dict[str, Any]]:
    """Correlations as plain data."""
    names = ("metric", "on", "against", "against_on", "n")
    return [
        {
            **{name: getattr(one, name) for name in names},
            "spearman": None if one.spearman is None else asdict(one.spearman),
            "pearson": None if one.pearson is None else asdict(one.pearson),
            "reason": one.reason or None,
        }
        for one in relations
    ]


def front_table(front: Front) -> Table:
    """The configurations in the order of x, and whether each is on the front."""
    hidden = {*DERIVED, "training_flops", front.against, front.metric}
    values: dict[str, set[str]] = {}
    for point in front.points:
        for name, value in point.settings.items():
            values.setdefault(name, set()).add(str(value))
    # What tells the configurations apart, without what follows from it.
    settings = [name for name, seen in values.items() if name not in hidden and len(seen) > 1]
    rows = [
        (
            " ".join(map(str, point.cells)),
            *(point.settings.get(name) for name in settings),
            *(point.x, in_unit(point, front.metric), index in front.members),
        )
        for index, point in enumerate(front.points)
    ]
    columns = ("cells", *settings, front.against, front.metric, "front")
    return Table(columns=columns, rows=tuple(rows))


def front_facts(front: Front, law: dict[str, Any] | None) -> dict[str, Any]:
    """A front as plain data."""
    table = front_table(front)
    return {
        "metric": front.metric,
        "on": front.on,
        "against": front.against,
        "against_on": front.against_on or None,
        "points": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "law": law,
        "reason": front.reason or None,
    }


def prediction_table(predicted: Iterable[Prediction]) -> Table:
    """What the laws expect of unfinished cells."""
    columns = ("cell", "fit", "metric", "on", "value", "low", "high", "outside")
    rows = tuple(tuple(getattr(one, name) for name in columns) for one in predicted)
    return Table(columns=columns, rows=rows)
