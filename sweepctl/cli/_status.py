"""`status`: how far studies are, the laws so far, and predictions of unfinished cells.

Fits need numpy and a statistics library, so they are made only when asked for (`--fits`,
`--predict`); otherwise what `fit` has recorded last is repeated, with its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweepctl.cli._options import Json
from sweepctl.cli._output import give, give_json, give_table, say, to_terminal, unicode
from sweepctl.cli._session import open_for_reading, run_folder, study_of
from sweepctl.cli._time_left import how_it_was_kept, kept_in_words, left_in_words, study_left
from sweepctl.cli._trials import searches, searches_in_words
from sweepctl.errors import UsageError
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.analyse import FitResult
    from sweepctl.design import Prediction
    from sweepctl.ledger import CellState, FitRecord, Ledger, TaskState
    from sweepctl.plan import Left
    from sweepctl.report import StageState


LAWS = ("fit", "cells", "of", "law", "slope_low", "slope_high", "r2", "outliers", "reason")
"""Columns of the laws so far: finished cells that the law rests on, of all that it will."""


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study's name.")] = None,
    fits: Annotated[
        bool,
        typer.Option("--fits", help="The laws so far, and the finished cells that are outliers."),
    ] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="What the laws so far predict for unfinished cells.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how far studies are: cells by stages, time left, what failed and where its log is.

    Example: sweepctl status quickstart --fits
    """
    if study is None and (fits or predict):
        raise UsageError("--fits and --predict are about one study", hint="name it")
    with open_for_reading() as ledger:
        if study is None:
            _status_of_all(ledger, as_json=as_json)
            return
        cells = ledger.cells.of(study)
        tasks = {task.fingerprint: task for cell in cells for task in cell.stages.values()}
        left = study_left(study, tasks, ledger)
        kept = how_it_was_kept(ledger.tasks.predictions(study))
        laws = _laws_so_far(study, cells, ledger, predict=predict) if fits or predict else None
        recorded = () if laws or as_json else ledger.fits.newest(study)
        found = searches(ledger, study)
    if as_json:
        known = left is None or not left.unknown
        seconds = 0.0 if left is None else left.seconds
        give_json(
            {
                "schema": 1,
                "study": study,
                "seconds_left": seconds if known else None,
                "left": left,
                "predictions": kept,
                "cells": cells,
                **({"searches": found} if found else {}),
                **(laws or {}),
            }
        )
        return
    _give_grid(cells)
    if laws is not None:
        _give_laws(laws, fits=fits, predict=predict)
    _say_progress(study, cells, left, run_folder())
    for line in searches_in_words(found):
        say(line)
    _say_recorded(study, recorded)
    if kept is not None:
        say(kept_in_words(kept))


def _status_of_all(ledger: Ledger, *, as_json: bool) -> None:
    columns = ("study", "cells", "tasks", "done", "running", "failed", "pending")
    rows = []
    for name in ledger.studies.names():
        states = [task.state for task in ledger.tasks.states(study=name).values()]
        counts = [states.count(state) for state in ("done", "running", "failed", "pending")]
        rows.append((name, len(ledger.cells.of(name)), len(states), *counts))
    if not rows and not as_json:
        say("no study was run yet; start with: sweepctl init my-study.yaml")
    give_table(columns, rows, "json" if as_json else "table")


def _give_grid(cells: Sequence[CellState]) -> None:
    from sweepctl.report import StageState, StatusCell, status_grid

    # The cell with most stages has them in the order of the flow.
    longest_first = sorted(cells, key=lambda cell: -len(cell.stages))
    stages = list(dict.fromkeys(stage for cell in longest_first for stage in cell.stages))
    states = {}
    for cell in cells:
        for stage, task in cell.stages.items():
            states[cell.index, stage] = StageState(state=task.shown, fraction=task.fraction)
    if to_terminal():
        rows = [
            StatusCell(number=cell.index, axes=dict(cell.axes), E=cell.values["E"])
            for cell in cells
        ]
        give(status_grid(rows, stages, states, unicode=unicode()))
        return
    axes = list(cells[0].axes) if cells else []
    give_table(
        ("cell", *axes, "E", *stages),
        [
            (
                cell.index,
                *cell.axes.values(),
                cell.values["E"],
                *(_in_a_word(states.get((cell.index, stage))) for stage in stages),
            )
            for cell in cells
        ],
        "table",
    )


def _in_a_word(state: StageState | None) -> str:
    if state is None:
        return ""
    if state.state != "running" or state.fraction is None:
        return state.state
    return f"running {100 * state.fraction:.0f}%"


def _tasks(cells: Sequence[CellState]) -> dict[str, TaskState]:
    return {task.id: task for cell in cells for task in cell.stages.values()}


def _say_progress(study: str, cells: Sequence[CellState], left: Left | None, folder: Path) -> None:
    from sweepctl.runs import attempt_folder

    tasks = _tasks(cells)
    states = [task.state for task in tasks.values()]
    counts = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("done", "running", "failed", "pending")
        if state in states
    )
    words = "" if left is None else left_in_words(left)
    time_left = f"; {words}{' on one slot' if left and left.slots == 1 else ''}" if words else ""
    pruned = sum(1 for cell in cells if cell.state == "pruned")
    cut = f" ({pruned} pruned)" if pruned else ""
    said = f"{many(len(cells), 'cell')}{cut}, {many(len(tasks), 'task')}: {counts}{time_left}"
    say(f"{study}: {said}")
    for task in tasks.values():
        if task.state == "failed":
            say(f"failed: {task.id} ({task.failure}): {task.message}")
            log = attempt_folder(folder / task.id, task.attempts) / "log.txt"
            say(f"  log: {log}  (sweepctl logs {task.id})")
    if "failed" in states:
        say(f"next: fix the cause, then sweepctl retry {study} and rerun")


def _laws_so_far(
    study: str, cells: Sequence[CellState], ledger: Ledger, *, predict: bool
) -> dict[str, Any]:
    """The laws of a study on what is finished, as plain data; with predictions when asked for.

    `laws` has one row per declared fit (`LAWS`), `outliers` one row per finished cell that the law
    fitted without it does not expect, `predicted` one row an unfinished cell and law.
    """
    from sweepctl.claims import fit_study
    from sweepctl.design import predict_cells

    frame = ledger.cells.frame(study)
    declared = study_of(study, ledger)
    settings = [{**cell.values, **cell.axes, "cell": cell.index} for cell in cells]
    if frame.empty:
        laws = [
            dict(zip(LAWS, (name, 0, len(cells), *[None] * 5, "nothing was measured yet"),
                     strict=True))
            for name in declared.fits
        ]  # fmt: skip
        return {"laws": laws, "outliers": [], "predicted": []}
    fits = fit_study(frame, declared.fits, ()).fits
    found: dict[str, Any] = {
        "laws": [_law(fit, settings) for fit in fits],
        "outliers": [
            {"fit": fit.name, "message": warning.message}
            for fit in fits
            for warning in fit.warnings
            if warning.code == "outlier"
        ],
        "predicted": [],
    }
    if predict:
        from sweepctl.report import prediction_table

        every: list[Prediction] = []
        for fit in fits:
            done = set(
                frame["cell"][(frame["metric"] == fit.metric) & (frame["dataset"] == fit.on)]
            )
            every += predict_cells([fit], [one for one in settings if one["cell"] not in done])
        table = prediction_table(sorted(every, key=lambda one: (one.cell, one.fit)))
        found["predicted"] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return found


def _law(fit: FitResult, settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from sweepctl.analyse import equation, outlier_cells
    from sweepctl.design import uses

    used = sorted({cell for point in fit.points for cell in point.cells})
    ends = fit.slope_interval() if fit.slope is not None else (None, None)
    outliers = sorted(outlier_cells([fit]))
    return {
        "fit": fit.name,
        "cells": len(used),
        "of": sum(uses(fit, cell) for cell in settings),
        "law": equation(fit) or None,
        "slope_low": ends[0],
        "slope_high": ends[1],
        "r2": fit.r2,
        "outliers": " ".join(map(str, outliers)) or None,
        "reason": None if fit.fitted else fit.reason,
    }


def _give_laws(found: dict[str, Any], *, fits: bool, predict: bool) -> None:
    """Print what `so_far` has found."""
    from sweepctl.report import prediction_table

    if fits:
        give("")
        if to_terminal():
            for law in found["laws"]:
                give(_in_a_line(law))
        else:
            give_table(LAWS, [tuple(law.values()) for law in found["laws"]], "table")
    for one in found["outliers"]:
        say(f"outlier: {one['fit']}: {one['message']}")
    if predict:
        give("")
        rows = [tuple(one.values()) for one in found["predicted"]]
        give_table(prediction_table(()).columns, rows, "table")


def _in_a_line(law: dict[str, Any]) -> str:
    head = f"{law['fit']}: {law['cells']} of {law['of']} cells"
    if law["law"] is None:
        return f"{head}, no law yet: {law['reason']}"
    text = f"{head}: {law['law']}, slope [{law['slope_low']:.3g}, {law['slope_high']:.3g}]"
    text += "" if law["r2"] is None else f", R2 {law['r2']:.3f}"
    return text + (f"; outliers: cell {law['outliers']}" if law["outliers"] else "")


def _say_recorded(study: str, records: Sequence[FitRecord]) -> None:
    """Repeat the laws that `fit` has recorded, with their time: cells may have come since."""
    laws = [one for one in records if one.law and not one.condition]
    for one in laws:
        ends = ""
        if one.slope_low is not None and one.slope_high is not None:
            ends = f", slope [{one.slope_low:.3g}, {one.slope_high:.3g}]"
        say(
            f"law {one.name}: {one.law}{ends}, n {one.n}, as of {one.created_at:%Y-%m-%d %H:%M} UTC"
        )
    if laws:
        say(f"laws as they are now: sweepctl status {study} --fits")
