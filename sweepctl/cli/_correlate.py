"""`correlate`: how reliably cheap metrics rank configurations as an expensive one does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._figures import drawing, say_figures
from sweepctl.cli._options import Figures, Json, NameOrPaper, Out, Where
from sweepctl.cli._output import give_table
from sweepctl.cli._relation import give_relation, measured_frame, metric_and_data_set


def correlate(
    what: NameOrPaper,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="The metric that the others should predict; METRIC@DATASET of several data sets.",
        ),
    ] = "gfid",
    where: Where = None,
    figures: Figures = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show how reliably each cheap metric ranks configurations as an expensive one does.

    Spearman's and Pearson's correlation of goodness (1: both rank alike), with 95 % intervals by
    bootstrap of the configurations.

    Example: sweepctl correlate quickstart --against psnr
    """
    from sweepctl.analyse import correlate as correlated
    from sweepctl.figures import correlations, write
    from sweepctl.report import relation_facts, relation_table

    drawn = drawing(figures, out)
    metric, on = metric_and_data_set(against)
    frame = measured_frame(what, where)
    found = correlated(frame, metric, on)
    files: Sequence[Path] = ()
    place = drawn.place(f"{what}-correlate-{metric}")
    if place and any(one.spearman for one in found):
        figure = correlations(found, title=what, condition=where or "")
        files = write(figure, place, drawn.formats)
    if as_json:
        give_relation(what, where, {"relations": relation_facts(found)}, files)
    else:
        table = relation_table(found)
        give_table(table.columns, table.rows, "table")
    say_figures(files)
