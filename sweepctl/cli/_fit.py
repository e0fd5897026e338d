"""`fit`: the laws and claims of a study, of exported points, and of the paper's own points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._figures import drawing
from sweepctl.cli._fit_output import TABLES, give_fitted
from sweepctl.cli._options import Figures, Json, Out, Save, Where
from sweepctl.cli._output import give_table, say
from sweepctl.cli._session import (
    database,
    looks_like_file,
    plan_file,
    run_folder,
    stated_database,
    study_of,
)
from sweepctl.cli._table_file import read_points
from sweepctl.errors import UsageError
from sweepctl.plain import many

if TYPE_CHECKING:
    import pandas as pd

    from sweepctl.paper import PaperStudy
    from sweepctl.plan import Plan
    from sweepctl.report import Fitted, Wanted
    from sweepctl.study import Study


def fit(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="Name of a study, its file as it is now, or paper/figure-3 with --reference.",
        ),
    ],
    paper: Annotated[
        str | None,
        typer.Argument(metavar="[PAPER]", help="With --reference: the figure to compare with."),
    ] = None,
    where: Where = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="The paper's own points, alone or with a study's."),
    ] = False,
    points: Annotated[
        Path | None,
        typer.Option("--points", metavar="TABLE", help="A study's points, by `export --long`."),
    ] = None,
    save: Save = None,
    figures: Figures = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit the laws of a study, judge its claims, draw figures.

    `fit paper/figure-3 --reference` fits the paper's own points, without database or training;
    `fit STUDY --reference` draws them with your own. `fit FILE --points TABLE` judges the laws and
    claims of a study file by points that were exported. Kinds of figures: law, samples, residuals,
    holdout, optimum, front.

    Example: sweepctl fit quickstart
    """
    from sweepctl.report import Wanted

    if what.endswith(TABLES):
        raise UsageError(
            f"{what!r} is a table, not a study",
            hint=f"sweepctl fit-table {what} --y COLUMN --x COLUMN --form loglog",
        )
    drawn = drawing(figures, out, kinds=True)
    wanted = Wanted(
        where=where,
        reference=reference,
        paper=paper,
        out=drawn.folder,
        kinds=drawn.kinds,
        formats=drawn.formats,
        keep=save,
    )
    if paper is not None and not reference:
        raise UsageError(f"{paper!r} is one word too many", hint="or is --reference missing?")
    if points is not None:
        _refuse("--points is all there is to fit", reference=reference)
        _fit_exported(what, points, wanted, as_json=as_json)
    elif reference and what.startswith("paper/") and not what.endswith((".yaml", ".yml")):
        _refuse("the paper's points come with sweepctl, not from a database")
        _fit_paper(what, wanted, as_json=as_json)
    elif made := _only_planned(what):
        if not reference or paper is not None:
            raise UsageError(
                f"nothing of {made.study_name} has been measured, so there is nothing to fit",
                hint=f"sweepctl run {what}; the paper's points: sweepctl fit {what} --reference",
            )
        _fit_planned(made, wanted, as_json=as_json)
    else:
        _fit_study(what, wanted, as_json=as_json)


def _only_planned(what: str) -> Plan | None:
    """The plan of a paper's study that is given by its file and of which nothing was measured."""
    from sweepctl.ledger import ledger_exists, open_ledger
    from sweepctl.paper import figure_or_table, paper_names

    if not looks_like_file(what) or what in paper_names():
        return None
    made = plan_file(Path(what), ())
    if not figure_or_table(made.study_name):
        return None
    if not ledger_exists(database()):
        return made
    with open_ledger(database(), create=False, read_only=True) as ledger:
        known = made.study_name in ledger.studies.names()
        return None if known and len(ledger.cells.frame(made.study_name)) else made


def _fit_planned(plan: Plan, wanted: Wanted, *, as_json: bool) -> None:
    """The laws of a paper's study on what the paper published of its cells."""
    from sweepctl.paper import as_published, figure_or_table
    from sweepctl.plan import design_rows
    from sweepctl.report import published

    name, study = plan.study_name, plan.study.study
    configs = {cell.index: cell.config for cell in plan.cells}
    rows = design_rows(plan)
    every = as_published(rows, configs, place=figure_or_table(name))
    frame = published(every, wanted.where)
    condition = (wanted.where or "").strip()
    title = f"{name}, the paper's own points"
    judged = _judged(frame, study, wanted, name, folder=f"{name}-reference", title=title)
    if not as_json:
        say(f"{name}: nothing was measured yet; these are the paper's own points")
        say(f"the paper has {len(every)} of the {many(len(rows), 'number')} this study measures")
    if condition:
        say(f"only points where {condition}")
    facts = {"study": name, "where": condition or None, "measured": 0, "published": len(every)}
    if not judged.analysis.fits and not as_json:
        shown = [*plan.axes, "metric", "dataset", "value"]
        give_table(shown, frame[shown].to_numpy().tolist(), "table")
        say("this study declares no laws; these are the numbers")
        return
    give_fitted(judged, facts, as_json=as_json)


def _fit_exported(what: str, points: Path, wanted: Wanted, *, as_json: bool) -> None:
    """The laws and claims of a study file on points that `sweepctl export --long` has written."""
    from sweepctl.report import exported

    if not looks_like_file(what):
        raise UsageError(
            f"--points needs the file of the study, and {what!r} is a name",
            hint=f"for example: sweepctl fit studies/{what}.yaml --points {points}",
        )
    made = plan_file(Path(what), ())
    name, study = made.study_name, made.study.study
    frame = exported(read_points(points), wanted.where)
    condition = (wanted.where or "").strip()
    judged = _judged(frame, study, wanted, name, folder=f"{name}-points", title=name)
    if not as_json:
        say(f"{name}: {many(len(frame), 'value')} of {points}")
    if condition:
        say(f"only values where {condition}")
    facts = {"study": name, "points": str(points), "where": condition or None}
    give_fitted(judged, facts, as_json=as_json)


def _judged(
    frame: pd.DataFrame,
    study: Study | PaperStudy,
    wanted: Wanted,
    name: str,
    *,
    folder: str,
    title: str,
) -> Fitted:
    """The laws and claims of a study on points that come from no database, drawn and kept."""
    from sweepctl.claims import fit_study
    from sweepctl.report import Fitted, draw_kinds, keep_fits

    condition = (wanted.where or "").strip()
    analysis = fit_study(frame, study.fits, study.claims)
    files: tuple[Path, ...] = ()
    if wanted.out is not None and analysis.fits:
        out = wanted.out / (folder + ("-where" if condition else ""))
        files = draw_kinds(analysis, frame, study.claims, out, wanted, title=title)
    return Fitted(analysis=analysis, files=files, kept=keep_fits(analysis, wanted, name, condition))


def _refuse(why: str, *, reference: bool = False) -> None:
    options = (("--reference", reference), ("--db", stated_database()))
    if given := [name for name, here in options if here]:
        raise UsageError(f"{', '.join(given)} cannot be used here: {why}")


def _fit_study(what: str, wanted: Wanted, *, as_json: bool) -> None:
    from sweepctl.ledger import open_ledger
    from sweepctl.paper import paper_names
    from sweepctl.report import fit_and_draw

    if what in paper_names():
        raise UsageError(
            f"{what!r} is not a study that was run", hint=f"sweepctl fit {what} --reference"
        )
    with open_ledger(database(), create=False) as ledger:
        asked = study_of(what, ledger)
        made = fit_and_draw(ledger, asked, wanted, runs=run_folder())
        submission = ledger.studies.submission(asked.study)
    name = asked.study
    if submission.about_overlap:
        say(f"note: {submission.about_overlap}")
    if made.condition:
        used, every = made.cells
        say(f"only cells where {made.condition}: {used} of {every} that were measured")
    facts = {
        "study": name,
        "where": made.condition or None,
        "cells": {
            "used": made.cells[0],
            "measured": made.cells[1],
            "overlapping": submission.overlapping,
        },
    }
    give_fitted(made, facts, as_json=as_json)
    say(f'next: sweepctl results {name} --sort=-E; sweepctl query "select * from v_fit"')


def _fit_paper(name: str, wanted: Wanted, *, as_json: bool) -> None:
    from sweepctl.paper import paper_frame, paper_study
    from sweepctl.report import published

    if wanted.paper is not None:
        raise UsageError(
            f"{wanted.paper!r} is one word too many", hint=f"sweepctl fit {name} --reference"
        )
    study = paper_study(name)
    frame = published(paper_frame(study), wanted.where)
    condition = (wanted.where or "").strip()
    judged = _judged(frame, study, wanted, name, folder=name.replace("/", "-"), title=name)
    facts: dict[str, Any] = {"study": name, "about": study.about, "where": condition or None}
    facts |= {"printed_r2": dict(study.printed)}
    if not as_json:
        say(f"{name}: {study.about}")
    if condition:
        say(f"only points where {condition}")
    give_fitted(judged, facts, as_json=as_json)
    if study.printed and not as_json and not condition:
        printed = ", ".join(f"{fit} {r2:.2f}" for fit, r2 in study.printed.items())
        say(f"R2 as printed in the paper: {printed}")
