"""`frontier`: the best that each training budget buys, and the law along it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._options import (
    Db,
    FigureFormats,
    Json,
    Metric,
    NoFigures,
    On,
    Out,
    Runs,
    What,
    Where,
)
from sweepctl.cli._output import give_table, say
from sweepctl.cli._relation import figure_place, give_relation, measured_frame, say_figures
from sweepctl.cli._session import check_alone


def frontier(
    what: What,
    metric: Metric,
    cost: Annotated[
        str, typer.Option("--cost", help="The column that should be small: tokens, parameters ...")
    ] = "training_flops",
    on: On = None,
    where: Where = None,
    out: Out = None,
    formats: FigureFormats = None,
    no_figures: NoFigures = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Show the best that each training budget buys, and the law along it.

    A configuration is on the frontier when none is at once better and no dearer. They are chosen
    for being good, so luck is chosen with them: with few seeds the law is too good.

    Example: sweepctl frontier quickstart --metric psnr
    """
    from sweepctl.analyse import equation
    from sweepctl.analyse import frontier as frontier_of
    from sweepctl.claims import Analysis
    from sweepctl.figures import formats_of, fronts, write
    from sweepctl.report import front_facts, front_table

    wanted = formats_of(formats)
    if no_figures:
        check_alone("--no-figures", {"--format": formats, "--out": out})
    frame = measured_frame(what, where, db)
    found = frontier_of(frame, metric, on, cost=cost)
    files: Sequence[Path] = ()
    if not no_figures and found.members:
        place = figure_place(what, f"frontier-{metric}", out, runs)
        files = write(fronts([found], title=what, condition=where or ""), place, wanted)
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
