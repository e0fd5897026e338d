"""`contours`: a metric fitted against two variables together, as level lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._figures import drawing, say_figures
from sweepctl.cli._options import Figures, Json, Metric, NameOrPaper, Out, Where
from sweepctl.cli._output import give, to_terminal, width
from sweepctl.cli._relation import give_relation, measured_frame, metric_and_data_set
from sweepctl.errors import UsageError


def contours(
    what: NameOrPaper,
    metric: Metric,
    over: Annotated[
        str, typer.Option("--over", help="Two columns of numbers: p,c or E,parameters ...")
    ] = "p,c",
    where: Where = None,
    figures: Figures = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a metric against two variables together and draw its level lines.

    The law is linear in the logarithms of both (of the metric, too, for distances); along a
    line the quality is the same. Exit code 2 where the cells cannot tell the two apart.

    Example: sweepctl contours quickstart --metric psnr --over p,c
    """
    from sweepctl.analyse import surface
    from sweepctl.claims import Analysis
    from sweepctl.figures import contours as figure_of
    from sweepctl.figures import write
    from sweepctl.report import fits_text

    drawn = drawing(figures, out)
    axes = tuple(name.strip() for name in over.split(","))
    if len(axes) != 2 or not all(axes) or axes[0] == axes[1]:
        raise UsageError(f"--over {over!r} is not two columns", hint="for example: --over p,c")
    name, on = metric_and_data_set(metric)
    found = surface(measured_frame(what, where), name, (axes[0], axes[1]), on)
    files: Sequence[Path] = ()
    if place := drawn.place(f"{what}-contours-{name}"):
        figure = figure_of(found, title=what, condition=where or "")
        files = write(figure, place, drawn.formats)
    analysis = Analysis(fits=(found.law,), claims=())
    if as_json:
        grid = {
            axes[0]: found.x.tolist(),
            axes[1]: found.y.tolist(),
            "values": found.values.tolist(),
        }
        facts = {"over": axes, "law": analysis.to_json()["fits"][0], "surface": grid}
        give_relation(what, where, facts, files)
    else:
        give(fits_text(analysis, terminal=to_terminal(), width=width()))
    say_figures(files)
