"""`correlate`: how reliably cheap metrics rank configurations as an expensive one does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._options import Db, FigureFormats, Json, NoFigures, On, Out, Runs, What, Where
from sweepctl.cli._output import give_table
from sweepctl.cli._relation import figure_place, give_relation, measured_frame, say_figures
from sweepctl.cli._session import check_alone


def correlate(
    what: What,
    against: Annotated[
        str, typer.Option("--against", help="The metric that the others should tell of.")
    ] = "gfid",
    on: On = None,
    where: Where = None,
    out: Out = None,
    formats: FigureFormats = None,
    no_figures: NoFigures = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Say how surely each cheap metric ranks configurations as a dear one does.

    Spearman's and Pearson's correlation of goodness (1: both rank alike), with 95 % intervals by
    bootstrap of the configurations.

    Example: sweepctl correlate quickstart --against psnr
    """
    from sweepctl.analyse import correlate as correlated
    from sweepctl.figures import correlations, formats_of, write
    from sweepctl.report import relation_facts, relation_table

    wanted = formats_of(formats)
    if no_figures:
        check_alone("--no-figures", {"--format": formats, "--out": out})
    frame = measured_frame(what, where, db)
    found = correlated(frame, against, on)
    files: Sequence[Path] = ()
    if not no_figures and any(one.spearman for one in found):
        place = figure_place(what, f"correlate-{against}", out, runs)
        files = write(correlations(found, title=what, condition=where or ""), place, wanted)
    if as_json:
        give_relation(what, where, {"relations": relation_facts(found)}, files)
    else:
        table = relation_table(found)
        give_table(table.columns, table.rows, "table")
    say_figures(files)
