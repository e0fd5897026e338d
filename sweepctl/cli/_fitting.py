"""Which law is it? `fit` for a study, for the paper's own points, and for any table of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Db, Json, Runs
from sweepctl.cli._session import (
    database,
    give,
    give_json,
    run_folder,
    say,
    study_of,
    to_terminal,
    unicode,
    width,
)
from sweepctl.cli._table_file import TABLES, read_table
from sweepctl.errors import SweepctlError, UsageError

if TYPE_CHECKING:
    from sweepctl.analyse import Analysis


def fit(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|FILE",
            help="Name of a study, its file as it is now, or a table (.csv, .tsv).",
        ),
    ],
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="The paper's own points: paper/figure-3, paper/finding-1."
        ),
    ] = False,
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
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the figures; runs/figures by default.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FOLDER", help="Keep fits, points, predictions, draws."),
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Numbers only.")] = False,
    db: Db = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Fit laws, judge claims, draw figures: of a study, of the paper's points, of a table.

    A table needs --y, --x and --form. --reference needs no database and no training.

    Example: sweepctl fit quickstart
    """
    words = {"y": y, "x": x, "form": form, "factor": factor, "scale": scale, "loss": loss}
    stated = {name: value for name, value in words.items() if value}
    folder = None if no_figures else out or run_folder(runs) / "figures"
    if what.endswith(TABLES):
        _refuse(reference, db, "a table has neither reference points nor a database")
        _fit_table(Path(what), stated, folder, save, as_json=as_json)
        return
    if stated:
        options = ", ".join(f"--{name}" for name in stated)
        raise UsageError(
            f"{options} go with a table, and {what!r} is none",
            hint=f"a table ends in {' or '.join(TABLES)}; the laws of a study stand in its file",
        )
    if reference:
        _refuse(False, db, "the paper's points come with sweepctl, not from a database")
        _fit_paper(what, folder, save, as_json=as_json)
        return
    _fit_study(what, db, run_folder(runs), folder, save, as_json=as_json)


def _refuse(reference: bool, db: str | None, why: str) -> None:
    given = [name for name, here in (("--reference", reference), ("--db", db)) if here]
    if given:
        raise UsageError(f"{', '.join(given)} cannot be used here: {why}")


def _fit_study(
    what: str,
    db: str | None,
    runs: Path,
    folder: Path | None,
    save: Path | None,
    *,
    as_json: bool,
) -> None:
    from sweepctl.analyse import paper_names
    from sweepctl.ledger import open_ledger
    from sweepctl.report import fit_and_draw

    if what in paper_names():
        raise UsageError(
            f"{what!r} is not a study that was run", hint=f"sweepctl fit {what} --reference"
        )
    with open_ledger(database(db), create=False) as ledger:
        asked = study_of(what, ledger)
        made = fit_and_draw(ledger, asked, runs=runs, out=folder)
    _print(made.analysis, {"study": asked.study}, made.files, save, as_json=as_json)
    name = asked.study
    say(f'next: sweepctl results {name} --sort=-E; sweepctl query "select * from v_cell"')


def _fit_paper(name: str, folder: Path | None, save: Path | None, *, as_json: bool) -> None:
    from sweepctl.analyse import fit_study, paper_frame, paper_study
    from sweepctl.report import draw

    study = paper_study(name)
    analysis = fit_study(paper_frame(study), study.fits, study.claims)
    out = None if folder is None else folder / name.replace("/", "-")
    files = () if out is None else draw(analysis, out, title=name)
    facts = {"study": name, "about": study.about, "printed_r2": dict(study.printed)}
    if not as_json:
        say(f"{name}: {study.about}")
    _print(analysis, facts, files, save, as_json=as_json)
    if study.printed and not as_json:
        printed = ", ".join(f"{fit} {r2:.2f}" for fit, r2 in study.printed.items())
        say(f"R2 as printed in the paper: {printed}")


def _fit_table(
    path: Path,
    stated: dict[str, Any],
    folder: Path | None,
    save: Path | None,
    *,
    as_json: bool,
) -> None:
    from sweepctl.analyse import Analysis, fit_table
    from sweepctl.report import draw
    from sweepctl.study import stated_fit

    missing = [f"--{name}" for name in ("y", "x", "form") if name not in stated]
    if missing:
        raise UsageError(
            f"a table needs {', '.join(missing)}",
            hint=f"for example: sweepctl fit {path} --y loss --x E --form loglog",
        )
    y, xs = stated.pop("y"), tuple(stated.pop("x"))
    factors = tuple(stated.pop("factor", ()))
    if y in (*xs, *factors):
        raise UsageError(f"the column {y!r} cannot explain itself")
    law = stated_fit({"metric": y, "on": path.name, "x": xs, "factors": factors, **stated})
    table = read_table(path)
    values = table.values((y, *xs), texts=factors)
    analysis = Analysis(fits=(fit_table(values, law),), claims=())
    made = analysis.fits[0]
    out = None if folder is None or not made.fitted else folder / path.stem
    files = () if out is None else draw(analysis, out, title=path.stem)
    _print(analysis, {"file": str(path), "rows": len(table.lines)}, files, save, as_json=as_json)
    if not made.fitted:
        raise SweepctlError(f"the law was not fitted: {made.warnings[0].code}: {made.reason}")


def _print(
    analysis: Analysis,
    facts: dict[str, Any],
    files: tuple[Path, ...],
    folder: Path | None,
    *,
    as_json: bool,
) -> None:
    from sweepctl.report import claims_text, fits_text, save

    kept = () if folder is None else save(analysis, folder)

    if as_json:
        give_json({"schema": 1, **facts, **analysis.to_json()})
    else:
        give(fits_text(analysis, terminal=to_terminal(), width=width()))
        if analysis.claims or "study" in facts:
            if to_terminal():
                give("")
            text = claims_text(analysis, terminal=to_terminal(), width=width(), unicode=unicode())
            give(text)
    for file in files:
        say(f"figure: {file}")
    if kept:
        say(f"kept: {len(kept)} files in {folder}")
