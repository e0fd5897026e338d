"""Which law is it? `fit` for a study, for the paper's own points, and for any table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Db, FigureFormats, Json, Runs
from sweepctl.cli._output import (
    give,
    give_json,
    give_table,
    many,
    say,
    to_terminal,
    unicode,
    width,
)
from sweepctl.cli._session import (
    check_alone,
    database,
    looks_like_file,
    plan_file,
    run_folder,
    study_of,
)
from sweepctl.cli._table_file import TABLES, read_points, read_table
from sweepctl.errors import SweepctlError, UsageError

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
            metavar="STUDY|FILE",
            help="Name of a study, its file as it is now, or a table (.csv, .tsv).",
        ),
    ],
    paper: Annotated[
        str | None,
        typer.Argument(metavar="[PAPER]", help="With --reference: the figure to compare with."),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="Only these cells: SQL, as `results` takes it.")
    ] = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="The paper's own points, alone or next to a study's."),
    ] = False,
    points: Annotated[
        Path | None,
        typer.Option("--points", metavar="TABLE", help="A study's points, by `export --long`."),
    ] = None,
    y: Annotated[
        str | None, typer.Option("--y", metavar="COLUMN", help="Of a table: what is fitted.")
    ] = None,
    x: Annotated[
        list[str] | None,
        typer.Option("--x", metavar="COLUMN", help="Of a table: a variable; can be repeated."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--form", help="Of a table: loglog, semilog, quadratic, power, ..."),
    ] = None,
    factor: Annotated[
        list[str] | None,
        typer.Option("--factor", metavar="COLUMN", help="Of a table: each value has an effect."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="Of a table: log2 or raw, for a quadratic y.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", help="Of a table: squares, huber:1e-3 or lad.")
    ] = None,
    interaction: Annotated[
        bool, typer.Option("--interaction", help="Of a table: each value has a slope of its own.")
    ] = False,
    weight: Annotated[
        str | None,
        typer.Option("--weight", metavar="COLUMN", help="Of a table: 1 / variance of each row."),
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option("--figures", help="law,samples,residuals,holdout,optimum,front or all."),
    ] = None,
    formats: FigureFormats = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the figures; runs/figures by default.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep each fit in a folder of its own: fits/<id>/.")
    ] = False,
    fits: Annotated[
        Path | None, typer.Option("--fits", metavar="FOLDER", help="Where --save keeps them; fits.")
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Numbers only.")] = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Fit laws, judge claims, draw figures: of a study, of the paper's points, of a table.

    A table needs --y, --x and --form. `fit paper/figure-3 --reference` fits the paper's own points,
    without database or training; `fit STUDY --reference` draws them next to your own. `fit FILE
    --points TABLE` judges the laws and claims of a study file by points that were exported.

    Example: sweepctl fit quickstart
    """
    from sweepctl.figures import formats_of
    from sweepctl.report import Wanted, kinds_of

    if no_figures:
        check_alone("--no-figures", {"--figures": figures, "--format": formats, "--out": out})
    if fits is not None and not save:
        raise UsageError("--fits says where fits are kept, so it goes with --save")
    words: dict[str, Any] = {"y": y, "x": x, "form": form, "factor": factor, "scale": scale}
    words |= {"loss": loss, "interaction": interaction, "weight": weight}
    stated = {name: value for name, value in words.items() if value}
    wanted = Wanted(
        where=where,
        reference=reference,
        paper=paper,
        out=None if no_figures else out or run_folder(runs) / "figures",
        kinds=kinds_of(figures),
        formats=formats_of(formats),
        keep=(fits or Path("fits")) if save else None,
    )
    if paper is not None and not reference:
        raise UsageError(f"{paper!r} is one word too many", hint="or is --reference missing?")
    if what.endswith(TABLES):
        if points is not None:
            raise UsageError("--points goes with a study file, whose laws it is about")
        _refuse(reference, db, "a table has neither reference points nor a database")
        _fit_table(Path(what), stated, wanted, as_json=as_json)
        return
    if stated:
        options = ", ".join(f"--{name}" for name in stated)
        raise UsageError(
            f"{options} go with a table, and {what!r} is none",
            hint=f"a table ends in {' or '.join(TABLES)}; the laws of a study stand in its file",
        )
    if points is not None:
        _refuse(reference, db, "--points is all there is to fit")
        _fit_exported(what, points, wanted, as_json=as_json)
        return
    if reference and what.startswith("paper/") and not what.endswith((".yaml", ".yml")):
        _refuse(False, db, "the paper's points come with sweepctl, not from a database")
        _fit_paper(what, wanted, as_json=as_json)
        return
    if made := _only_planned(what, db):
        if not reference or paper is not None:
            raise UsageError(
                f"nothing of {made.study_name} has been measured, so there is nothing to fit",
                hint=f"sweepctl run {what}; the paper's points: sweepctl fit {what} --reference",
            )
        _fit_planned(made, wanted, as_json=as_json)
        return
    _fit_study(what, db, run_folder(runs), wanted, as_json=as_json)


def _only_planned(what: str, db: str | None) -> Plan | None:
    """The plan of a paper's study that is given by its file and of which nothing was measured."""
    from sweepctl.ledger import ledger_exists, open_ledger
    from sweepctl.paper import figure_or_table, paper_names

    if not looks_like_file(what) or what in paper_names():
        return None
    made = plan_file(Path(what), ())
    if not figure_or_table(made.study_name):
        return None
    if not ledger_exists(database(db)):
        return made
    with open_ledger(database(db), create=False, read_only=True) as ledger:
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
    _print(judged, facts, as_json=as_json)


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
    _print(judged, facts, as_json=as_json)


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


def _refuse(reference: bool, db: str | None, why: str) -> None:
    given = [name for name, here in (("--reference", reference), ("--db", db)) if here]
    if given:
        raise UsageError(f"{', '.join(given)} cannot be used here: {why}")


def _fit_study(what: str, db: str | None, runs: Path, wanted: Wanted, *, as_json: bool) -> None:
    from sweepctl.ledger import open_ledger
    from sweepctl.paper import paper_names
    from sweepctl.report import fit_and_draw

    if what in paper_names():
        raise UsageError(
            f"{what!r} is not a study that was run", hint=f"sweepctl fit {what} --reference"
        )
    with open_ledger(database(db), create=False) as ledger:
        asked = study_of(what, ledger)
        made = fit_and_draw(ledger, asked, wanted, runs=runs)
    name = asked.study
    if made.condition:
        used, every = made.cells
        say(f"only cells where {made.condition}: {used} of {every} that were measured")
    facts = {
        "study": name,
        "where": made.condition or None,
        "cells": {"used": made.cells[0], "measured": made.cells[1]},
    }
    _print(made, facts, as_json=as_json)
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
    _print(judged, facts, as_json=as_json)
    if study.printed and not as_json and not condition:
        printed = ", ".join(f"{fit} {r2:.2f}" for fit, r2 in study.printed.items())
        say(f"R2 as printed in the paper: {printed}")


def _fit_table(path: Path, stated: dict[str, Any], wanted: Wanted, *, as_json: bool) -> None:
    from sweepctl.analyse import fit_table
    from sweepctl.claims import Analysis
    from sweepctl.report import Fitted, draw_kinds, keep_fits
    from sweepctl.study import stated_fit

    missing = [f"--{name}" for name in ("y", "x", "form") if name not in stated]
    if missing:
        raise UsageError(
            f"a table needs {', '.join(missing)}",
            hint=f"for example: sweepctl fit {path} --y loss --x E --form loglog",
        )
    y, xs = stated.pop("y"), tuple(stated.pop("x"))
    factors, weight = tuple(stated.pop("factor", ())), stated.pop("weight", None)
    if y in (*xs, *factors):
        raise UsageError(f"the column {y!r} cannot explain itself")
    law = stated_fit({"metric": y, "on": path.name, "x": xs, "factors": factors, **stated})
    table = read_table(path)
    needed = (y, *xs) if weight is None else (y, *xs, weight)
    values = table.values(needed, texts=factors)
    condition = (wanted.where or "").strip()
    numbers = _rows_where(values, condition)
    chosen = {name: [column[i - 1] for i in numbers] for name, column in values.items()}
    analysis = Analysis(fits=(fit_table(chosen, law, weight=weight, numbers=numbers),), claims=())
    made = analysis.fits[0]
    files: tuple[Path, ...] = ()
    if wanted.out is not None and made.fitted:
        files = draw_kinds(analysis, None, (), wanted.out / path.stem, wanted, title=path.stem)
    kept = keep_fits(analysis, wanted, path.stem, condition)
    if condition:
        say(f"only rows where {condition}: {len(numbers)} of {len(table.lines)}")
    facts = {"file": str(path), "rows": len(numbers), "where": condition or None}
    _print(Fitted(analysis=analysis, files=files, kept=kept), facts, as_json=as_json)
    if not made.fitted:
        raise SweepctlError(f"the law was not fitted: {made.warnings[0].code}: {made.reason}")


def _rows_where(values: Mapping[str, Sequence[Any]], condition: str) -> list[int]:
    """Numbers of the rows, from 1, that meet a condition."""
    from sweepctl.ledger import matching

    rows = list(zip(*values.values(), strict=True))
    if not condition:
        return list(range(1, len(rows) + 1))
    found = [place + 1 for place in matching(list(values), rows, condition)]
    if not found:
        raise UsageError(f"no row of the table meets --where {condition!r}")
    return found


def _print(made: Fitted, facts: dict[str, Any], *, as_json: bool) -> None:
    from sweepctl.report import claims_text, fits_text, paper_table

    analysis, compared = made.analysis, paper_table(made.comparisons)
    if as_json:
        said = {
            "figures": made.files,
            "kept": dict(made.kept),
            "paper_comparison": [
                dict(zip(compared.columns, row, strict=True)) for row in compared.rows
            ],
        }
        give_json({"schema": 1, **facts, **analysis.to_json(), **said})
    else:
        give(fits_text(analysis, terminal=to_terminal(), width=width()))
        if analysis.claims or "study" in facts:
            if to_terminal():
                give("")
            text = claims_text(analysis, terminal=to_terminal(), width=width(), unicode=unicode())
            give(text)
        if compared.rows:
            if to_terminal():
                give("")
            give_table(compared.columns, compared.rows, "table")
    for one in made.comparisons:
        say(f"{one.fit} compared with {one.paper} ({one.law.on}): other data, protocol `paper`")
    for file in made.files:
        say(f"figure: {file}")
    for folder in made.kept.values():
        say(f"kept: {folder}")
