"""How do numbers go together? `correlate`, `frontier` and `contours` of a study or of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Db, FigureFormats, Json, Runs
from sweepctl.cli._session import (
    check_alone,
    finite,
    give_json,
    give_table,
    open_for_reading,
    run_folder,
    say,
)
from sweepctl.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

What = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study that was run, or paper/figure-3 and so on.")
]
Metric = Annotated[str, typer.Option("--metric", "-m", help="The metric.")]
On = Annotated[
    str | None, typer.Option("--on", help="Its data set, where it was measured on several.")
]
Where = Annotated[
    str | None, typer.Option("--where", help="Only these cells: SQL, as `results` takes it.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the figure; runs/figures by default.")
]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Numbers only.")]


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
    from sweepctl.report import (
        RELATIONS,
        correlation_figure,
        formats_of,
        relation_facts,
        relation_rows,
    )

    wanted = formats_of(formats)
    if no_figures:
        check_alone("--no-figures", {"--format": formats, "--out": out})
    frame = _frame(what, where, db)
    found = correlated(frame, against, on)
    files: Sequence[Path] = ()
    if not no_figures and any(one.spearman for one in found):
        place = _place(what, f"correlate-{against}", out, runs)
        words = {"title": what, "basis": _basis(where)}
        files = correlation_figure(found, place, formats=wanted, **words)
    if as_json:
        _give_json(what, where, {"relations": relation_facts(found)}, files)
    else:
        give_table(RELATIONS, relation_rows(found), "table")
    _tell(files)


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
    from sweepctl.analyse import Analysis
    from sweepctl.analyse import frontier as frontier_of
    from sweepctl.report import (
        equation,
        formats_of,
        front_columns,
        front_facts,
        front_figure,
        front_rows,
    )

    wanted = formats_of(formats)
    if no_figures:
        check_alone("--no-figures", {"--format": formats, "--out": out})
    frame = _frame(what, where, db)
    found = frontier_of(frame, metric, on, cost=cost)
    files: Sequence[Path] = ()
    if not no_figures and found.members:
        place = _place(what, f"frontier-{metric}", out, runs)
        words = {"title": what, "basis": _basis(where)}
        files = front_figure([found], place, formats=wanted, **words)
    if as_json:
        law = None
        if found.law is not None:
            law = Analysis(fits=(found.law,), claims=()).to_json()["fits"][0]
        _give_json(what, where, front_facts(found, law), files)
    else:
        give_table(front_columns(found), front_rows(found), "table")
    if found.law is not None:
        low, high = found.law.slope_interval()
        say(f"along the frontier: {equation(found.law)}, slope [{low:.3g}, {high:.3g}]")
    if found.reason:
        say(f"note: {found.reason}")
    _tell(files)


def contours(
    what: What,
    metric: Metric,
    over: Annotated[
        str, typer.Option("--over", help="Two columns of numbers: p,c or E,parameters ...")
    ] = "p,c",
    on: On = None,
    where: Where = None,
    out: Out = None,
    formats: FigureFormats = None,
    no_figures: NoFigures = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Fit a metric against two variables together and draw its level lines.

    The law is linear in the logarithms of both (of the metric, too, for distances); along a line
    it says the same quality. Exit code 2 where the cells cannot tell the two apart.

    Example: sweepctl contours quickstart --metric psnr --over p,c
    """
    from sweepctl.analyse import Analysis, surface
    from sweepctl.report import contour_figure, fits_text, formats_of

    wanted = formats_of(formats)
    if no_figures:
        check_alone("--no-figures", {"--format": formats, "--out": out})
    axes = tuple(name.strip() for name in over.split(","))
    if len(axes) != 2 or not all(axes) or axes[0] == axes[1]:
        raise UsageError(f"--over {over!r} is not two columns", hint="for example: --over p,c")
    found = surface(_frame(what, where, db), metric, (axes[0], axes[1]), on)
    files: Sequence[Path] = ()
    if not no_figures:
        place = _place(what, f"contours-{metric}", out, runs)
        files = contour_figure(found, place, title=what, basis=_basis(where), formats=wanted)
    analysis = Analysis(fits=(found.law,), claims=())
    if as_json:
        grid = {
            axes[0]: found.x.tolist(),
            axes[1]: found.y.tolist(),
            "values": found.values.tolist(),
        }
        facts = {"over": axes, "law": analysis.to_json()["fits"][0], "surface": grid}
        _give_json(what, where, facts, files)
    else:
        from sweepctl.cli._session import give, to_terminal, width

        give(fits_text(analysis, terminal=to_terminal(), width=width()))
    _tell(files)


def _frame(what: str, where: str | None, db: str | None) -> pd.DataFrame:
    """The measured values of a study, or the published ones, that meet a condition."""
    from sweepctl.report import measured, published

    if what.startswith("paper/"):
        from sweepctl.analyse import paper_frame, paper_study

        frame = published(paper_frame(paper_study(what)), where)
    else:
        with open_for_reading(db) as ledger:
            frame, (used, every) = measured(ledger, what, where)
        if where:
            say(f"only cells where {where}: {used} of {every} that were measured")
    return frame


def _place(what: str, kind: str, out: Path | None, runs: Path | None) -> Path:
    return (out or run_folder(runs) / "figures") / f"{what.replace('/', '-')}-{kind}"


def _basis(where: str | None) -> str:
    return f"only where {where}" if where else ""


def _give_json(what: str, where: str | None, facts: dict[str, Any], files: Sequence[Path]) -> None:
    said = {"schema": 1, "study": what, "where": where, **facts, "figures": list(files)}
    give_json(finite(said))


def _tell(files: Sequence[Path]) -> None:
    for file in files:
        say(f"figure: {file}")
