"""`compare`: results next to the paper's numbers, point by point."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Json
from sweepctl.cli._output import give_json, give_table, say
from sweepctl.cli._session import looks_like_file, open_for_reading, plan_file
from sweepctl.errors import UsageError
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.paper import Aligned, ConfiguredValue


def compare(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="Name of a study, its file, or a paper's figure: paper/figure-3."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Compare your results with the paper's numbers, point by point.

    Points are aligned by design: stride, patch, channels, code length, then sizes and settings.
    Differences are in units of the paper's own run-to-run spread; pairs that cannot be compared
    have a reason.

    Example: sweepctl compare quickstart
    """
    from sweepctl.paper import align, figure_or_table, run_to_run

    name, own = _results(what)
    found = align(own, place=figure_or_table(name))
    metrics = dict.fromkeys(one.own.metric for one in found)
    yardsticks = {metric: run_to_run(metric) for metric in metrics}
    if as_json:
        give_json(
            {
                "schema": 1,
                "study": name,
                "spread": yardsticks,
                "points": [_plain(one) for one in found],
            }
        )
        return
    columns = (
        *("cell", "point", "metric", "on", "own", "paper", "place", "difference", "spreads"),
        *("comparable", "why"),
    )
    names = _telling([one.own for one in found])
    give_table(columns, [_row(one, names) for one in found], "table")
    _sum_up(found)
    for metric, spread in yardsticks.items():
        if spread is not None:
            say(
                f"{metric}: one spread is {_in_words(spread.sd, metric)}, from "
                f"{many(spread.configurations, 'configuration')} that the paper has more than once"
            )


def _results(what: str) -> tuple[str, list[ConfiguredValue]]:
    """Name of the study, and what was measured in it."""
    from sweepctl.paper import configured

    if what.startswith("paper/") and not what.endswith((".yaml", ".yml")):
        return what, _published(what)
    name = plan_file(Path(what), ()).study_name if looks_like_file(what) else what
    with open_for_reading() as ledger:
        states = {state.index: state.key for state in ledger.cells.of(name)}
        rows = ledger.cells.frame(name).to_dict("records")
        if not rows:
            raise UsageError(f"nothing of {name} has been measured", hint=f"sweepctl status {name}")
        configs = {
            cell: ledger.cells.config(name, states[cell]) for cell in {row["cell"] for row in rows}
        }
    return name, [
        configured(
            configs[row["cell"]],
            metric=row["metric"],
            dataset=row["dataset"],
            protocol=row["protocol"],
            n=None if row["n"] is None or math.isnan(row["n"]) else int(row["n"]),
            value=float(row["value"]),
            cell=int(row["cell"]),
        )
        for row in rows
    ]


def _published(what: str) -> list[ConfiguredValue]:
    """The paper's own numbers of a figure or table."""
    from sweepctl.paper import figure_or_table, paper_names, published

    every = published()
    numbered = [f"paper/{kind}-{i}" for kind in ("figure", "table") for i in range(1, 20)]
    places = {name: figure_or_table(name) for name in numbered}
    known = [name for name in numbered if any(one.stands_in(places[name]) for one in every)]
    if what in known:
        return [one for one in every if one.stands_in(places[what])]
    hint = f"one of: {', '.join(known)}"
    if what in paper_names():
        raise UsageError(f"{what} speaks of several figures; compare takes one of them", hint=hint)
    near = difflib.get_close_matches(what, known, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"the paper has no numbers to compare in {what!r}{meant}", hint=hint)


def _plain(one: Aligned) -> dict[str, Any]:
    """A pair for JSON: both numbers with all their factors."""

    def side(measured: ConfiguredValue) -> dict[str, Any]:
        return {
            "value": measured.value,
            "on": measured.on,
            "protocol": measured.protocol,
            "n": measured.n,
            "training_set": measured.training_set,
            "factors": dict(measured.factors),
        }

    paper = one.paper
    return {
        "cell": one.own.cell,
        "metric": one.own.metric,
        "own": side(one.own),
        "paper": None if paper is None else {"place": paper.place, **side(paper)},
        "scale": one.scale,
        "difference": one.difference,
        "spreads": one.spreads,
        "comparable": one.comparable,
        "reasons": list(one.reasons),
        "reservations": list(one.reservations),
        "also_published": [{"place": place, "value": value} for place, value in one.others],
    }


def _telling(points: Sequence[ConfiguredValue]) -> list[str]:
    """Factors that tell the points of a study apart."""
    names = dict.fromkeys(name for one in points for name in one.factors)
    return [name for name in names if len({one.factors.get(name) for one in points}) > 1]


def _row(one: Aligned, names: Sequence[str]) -> tuple[object, ...]:
    factors = one.own.factors
    point = ", ".join(
        f"{name} {factors[name]}" for name in names if factors.get(name) not in (None, ())
    )
    paper = one.paper
    return (
        one.own.cell,
        point,
        one.own.metric,
        one.own.on,
        float(f"{one.own.value:.5g}"),
        "" if paper is None else paper.value,
        "" if paper is None else paper.place.split(" (")[0],
        "" if one.difference is None else _in_words(one.difference, one.own.metric),
        "" if one.spreads is None else round(one.spreads, 2),
        "yes" if one.comparable else "no",
        "; ".join((*one.reasons, *(f"({words})" for words in one.reservations))),
    )


def _in_words(difference: float, metric: str) -> str:
    from sweepctl.analyse import effect, scale_of

    return effect(difference, metric, scale_of(metric))


def _sum_up(found: tuple[Aligned, ...]) -> None:
    pairs = [one for one in found if one.comparable]
    if not pairs:
        say(f"none of {many(len(found), 'number')} can be compared with the paper's; why says why")
        return
    say(f"{len(pairs)} of {many(len(found), 'number')} can be compared with the paper's")
    far = [(abs(one.spreads), one.own) for one in pairs if one.spreads is not None]
    far.sort(key=lambda one: one[0])
    if far:
        (middle, _), (most, own) = far[len(far) // 2], far[-1]
        say(
            f"typical distance {middle:.2g} spreads, largest {most:.2g} ({own.metric} of cell "
            f"{own.cell}); two single runs differ by 1.4"
        )
