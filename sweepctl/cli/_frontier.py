"""`frontier`: the best that each training budget buys, and the law along it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._figures import drawing, say_figures
from sweepctl.cli._options import Figures, Json, Metric, NameOrPaper, Out, Where
from sweepctl.cli._output import give_table, say
from sweepctl.cli._relation import give_relation, measured_frame, metric_and_data_set


def frontier(
    what: NameOrPaper,
    metric: Metric,
    cost: Annotated[
        str, typer.Option("--cost", help="The column that should be small: tokens, parameters ...")
    ] = "training_flops",
    where: Where = None,
    figures: Figures = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show the best that each training budget buys, and the law along it.

    A configuration is on the frontier when none is both better and at most as expensive. They
    are chosen for being good, so luck is selected, too: with few seeds the law is too good.

    Example: sweepctl frontier quickstart --metric psnr
    """
    from sweepctl.analyse import equation
    from sweepctl.analyse import frontier as frontier_of
    from sweepctl.claims import Analysis
    from sweepctl.figures import fronts, write
    from sweepctl.report import front_facts, front_table

    drawn = drawing(figures, out)
    name, on = metric_and_data_set(metric)
    frame = measured_frame(what, where)
    found = frontier_of(frame, name, on, cost=cost)
    files: Sequence[Path] = ()
    place = drawn.place(f"{what}-frontier-{name}")
    if place and found.members:
        figure = fronts([found], title=what, condition=where or "")
        files = write(figure, place, drawn.formats)
    if as_json:
        law = None
        if found.law is not None:
            law = Analysis(fits=(found.law,), claims=()).to_json()["fits"][0]
        give_relation(what, where, front_facts(found, law), files)
    else:
        table = front_table(found)
        give_table(table.columns, table.rows, "table")
    if found.law is not None:
        low, high = found.law.slope_interval()
        say(f"along the frontier: {equation(found.law)}, slope [{low:.3g}, {high:.3g}]")
    if found.reason:
        say(f"note: {found.reason}")
    say_figures(files)
