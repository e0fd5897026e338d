"""`search`: what a search has found, its trials, and figures with sample grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._figures import Drawing, drawing, say_figures
from sweepctl.cli._options import Columns, Figures, Format, Json, Name, Out, Sort, Where
from sweepctl.cli._output import check_format, give_json, give_table, say
from sweepctl.cli._results import names_of
from sweepctl.cli._session import check_alone, open_for_reading, run_folder
from sweepctl.errors import UsageError
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.cli._trials import Made
    from sweepctl.figures import SheetRow
    from sweepctl.ledger import Ledger, SearchRecord
    from sweepctl.search import Found
    from sweepctl.study import Search

SHEET_ROWS, SHEET_COLUMNS = 6, 10
"""Most trials of the front on a sheet, evenly along it, and pictures of each."""


TRIALS = "Tables of trials, without figures"


def search(
    study: Name,
    trials: Annotated[
        bool,
        typer.Option("--trials", help="All trials in the order of asking.", rich_help_panel=TRIALS),
    ] = False,
    best: Annotated[
        bool,
        typer.Option("--best", help="The best trial of one objective.", rich_help_panel=TRIALS),
    ] = False,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto", help="The trials that no other one beats.", rich_help_panel=TRIALS
        ),
    ] = False,
    where: Where = None,
    columns: Columns = None,
    sort: Sort = None,
    form: Format = "table",
    figures: Figures = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show what a search has found: its front, how that grew, which settings matter.

    Draws the front (with one objective the best so far), the hypervolume over the trials, the
    importance of each setting, a slice along each, and a sheet of reconstructions along the front.
    --trials, --best and --pareto print trials instead, as a table that --where, --columns, --sort
    and --format shape.

    Example: sweepctl search mini-search-losses
    """
    check_format(form)
    if trials + best + pareto > 1:
        raise UsageError(
            "--trials, --best and --pareto are mutually exclusive", hint="choose one of them"
        )
    table: dict[str, object] = {"--where": where, "--columns": columns, "--sort": sort}
    table["--format"] = None if form == "table" else form
    if trials or best or pareto:
        option = "--trials" if trials else "--best" if best else "--pareto"
        check_alone(option, {"--figures": figures, "--out": out, "--json": as_json or None})
        _give_trials(study, columns, best=best, pareto=pareto, where=where, sort=sort, form=form)
        return
    if given := [name for name, value in table.items() if value is not None]:
        raise UsageError(
            f"{', '.join(given)} shape a table of trials", hint="add --trials, --best or --pareto"
        )
    _give_front(study, drawing(figures, out), as_json=as_json)


def _give_trials(
    study: str,
    columns: str | None,
    *,
    best: bool,
    pareto: bool,
    where: str | None,
    sort: str | None,
    form: str,
) -> None:
    from sweepctl.cli._trials import table
    from sweepctl.ledger import narrowed

    with open_for_reading() as ledger:
        whole = table(ledger, study, best=best, pareto=pareto)
        shown = narrowed(whole, where=where, columns=names_of(columns), sort=sort)
    give_table(shown.columns, shown.rows, form)


def _give_front(study: str, drawn: Drawing, *, as_json: bool) -> None:
    from sweepctl.cli._trials import searched, trials
    from sweepctl.search import summarise

    with open_for_reading() as ledger:
        what = searched(ledger, study)
        made = trials(ledger, study, what)
        records = ledger.searches.of(study)
        shown = []
        for record in records:
            mine = [one for one in made if one.record.search == record.key]
            found = summarise(what, [one.past for one in mine])
            name = f"{study}-search" + (f"-{record.position + 1}" if len(records) > 1 else "")
            files: list[Path] = []
            if (place := drawn.place(name)) and found.growth:
                files = _draw(ledger, study, record, what, mine, found, place, drawn.formats)
            shown.append(_facts(record, what, mine, found, files))
    if as_json:
        give_json({"schema": 1, "study": study, "searches": shown})
        return
    _give(what, shown)


def _facts(
    record: SearchRecord,
    search: Search,
    made: Sequence[Made],
    found: Found,
    files: Sequence[Path],
) -> dict[str, Any]:
    from sweepctl.cli._trials import facts
    from sweepctl.study import short_name

    names = [one.metric for one in search.objectives]
    best = []
    for place in found.front:
        one = made[place]
        assert one.ended is not None and one.ended.values is not None
        point = {short_name(path): value for path, value in one.record.point.items()}
        values = dict(zip(names, one.ended.values, strict=True))
        best.append({"trial": one.record.number, "cell": one.cell, "point": point} | values)
    return {
        "axes": {short_name(path): value for path, value in record.axes.items()},
        **facts(search, made),
        "best": best,
        "growth": [[made[place].record.number, value] for place, value in found.growth],
        "importances": {
            name: {short_name(path): share for path, share in shares.items()}
            for name, shares in zip(names, found.importances, strict=True)
        },
        "figures": list(files),
    }


def _give(search: Search, shown: Sequence[Mapping[str, Any]]) -> None:
    from sweepctl.cli._trials import stop_in_words
    from sweepctl.study import short_name

    paths = [short_name(dimension.path) for dimension in search.space]
    names = [one.metric for one in search.objectives]
    axes = list(shown[0]["axes"]) if shown else []
    rows = [
        (
            *facts["axes"].values(),
            one["trial"],
            one["cell"],
            *(one["point"].get(path) for path in paths),
            *(one[name] for name in names),
        )
        for facts in shown
        for one in facts["best"]
    ]
    give_table([*axes, "trial", "cell", *paths, *names], rows, "table")
    for facts in shown:
        where = ", ".join(f"{name} {value}" for name, value in facts["axes"].items())
        lead = f"{where}: " if where else ""
        pruned = f", {facts['pruned']} pruned" if facts["pruned"] else ""
        vain = facts["trials"] - facts["counted"]
        of_no_use = f", {vain} repeated or not possible" if vain else ""
        say(
            f"{lead}{many(facts['trials'], 'trial')}, {facts['measured']} measured{pruned}"
            f"{of_no_use}"
        )
        if stop := stop_in_words(facts):
            say(f"{lead}{stop}")
        for metric, shares in facts["importances"].items():
            if shares:
                said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
                say(f"{lead}what matters for {metric}: {said}")
        say_figures(facts["figures"])


def _draw(
    ledger: Ledger,
    study: str,
    record: SearchRecord,
    search: Search,
    made: Sequence[Made],
    found: Found,
    place: Path,
    formats: Sequence[str],
) -> list[Path]:
    from sweepctl.figures import Tried, searched, sheet, write
    from sweepctl.study import short_name

    given = [dict(point) for point in record.start]
    shown = [
        Tried(
            number=one.record.number,
            values=one.ended.values,
            settings={short_name(path): value for path, value in one.searched.items()},
            is_best=index in found.front,
            is_given=dict(one.searched) in given,
            is_kept=one.ended.is_kept,
        )
        for index, one in enumerate(made)
        if one.ended is not None and one.ended.values is not None
    ]
    where = ", ".join(f"{short_name(path)} {value}" for path, value in record.axes.items())
    figure = searched(
        shown,
        [one.metric for one in search.objectives],
        {short_name(one.path): one.log for one in search.space},
        [(made[index].record.number, value) for index, value in found.growth],
        [
            {short_name(path): share for path, share in shares.items()}
            for shares in found.importances
        ],
        title=f"{study}: search" + (f" at {where}" if where else ""),
        basis=f"{len(shown)} measured trials   ·   {search.sampler}",
    )
    files = write(figure, place, formats)
    rows = _sheet_rows(ledger, study, search, [made[index] for index in found.front])
    if rows:
        files.append(sheet(rows, place.with_name(f"{place.name}-samples.png")))
    return files


def _sheet_rows(ledger: Ledger, study: str, search: Search, best: Sequence[Made]) -> list[SheetRow]:
    """Reconstructions of trials along the front, those whose pictures are in the run folder."""
    import numpy as np

    from sweepctl.figures import SheetRow
    from sweepctl.study import short_name

    if len(best) > SHEET_ROWS:
        best = [best[round(k * (len(best) - 1) / (SHEET_ROWS - 1))] for k in range(SHEET_ROWS)]
    stage = f"reconstruct:{search.objectives[0].dataset}"
    tasks = {cell.index: cell.stages.get(stage) for cell in ledger.cells.of(study)}
    rows: list[SheetRow] = []
    for order, one in enumerate(best):
        task = tasks.get(one.cell or 0)
        if task is None or one.ended is None or one.ended.values is None:
            continue
        folder = run_folder() / task.id
        try:
            originals = np.load(folder / "originals.npy", allow_pickle=False)
            made = np.load(folder / "reconstructions.npy", allow_pickle=False)
        except (OSError, ValueError):
            continue  # measured on another machine, or its files were removed
        values = "  ".join(
            f"{objective.metric} {value:.4g}"
            for objective, value in zip(search.objectives, one.ended.values, strict=True)
        )
        point = "  ".join(
            f"{short_name(path)} {_short(value)}" for path, value in one.record.point.items()
        )
        row = SheetRow(
            label=f"trial {one.record.number}  {values}  {point}",
            E=float(order),  # rows are ordered along the front
            originals=originals[:SHEET_COLUMNS],
            reconstructions=made[:SHEET_COLUMNS],
        )
        if not rows or np.array_equal(row.originals, rows[0].originals):
            rows.append(row)
    return rows


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
