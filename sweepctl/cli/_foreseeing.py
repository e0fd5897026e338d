"""What do the finished cells say already? The laws so far, surprises, what unfinished cells get.

Fits need numpy and a statistics library, so `status` makes them only when asked (`--fits`,
`--predict`); without being asked it repeats what `fit` has recorded last, with its time, which
costs one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweepctl.cli._session import give, give_table, say, study_of, to_terminal

if TYPE_CHECKING:
    from sweepctl.analyse import FitResult
    from sweepctl.ledger import CellState, FitRecord, Ledger

LAWS = ("fit", "cells", "of", "law", "slope_low", "slope_high", "r2", "surprises", "reason")
"""Columns of the laws so far: finished cells that the law rests on, of all that it will."""


def so_far(
    study: str, cells: Sequence[CellState], ledger: Ledger, *, predict: bool
) -> dict[str, Any]:
    """The laws of a study on what is finished, as plain data; with predictions when asked for.

    `laws` has one row a declared fit (`LAWS`), `surprises` one row a finished cell that the law
    fitted without it does not expect, `foreseen` one row an unfinished cell and law.
    """
    from sweepctl.analyse import fit_study, foresee

    frame = ledger.frame(study)
    declared = study_of(study, ledger)
    settings = [{**cell.values, **cell.axes, "cell": cell.index} for cell in cells]
    if frame.empty:
        laws = [
            dict(zip(LAWS, (name, 0, len(cells), *[None] * 5, "nothing was measured yet"),
                     strict=True))
            for name in declared.fits
        ]  # fmt: skip
        return {"laws": laws, "surprises": [], "foreseen": []}
    fits = fit_study(frame, declared.fits, ()).fits
    found: dict[str, Any] = {
        "laws": [_law(fit, settings) for fit in fits],
        "surprises": [
            {"fit": fit.name, "message": warning.message}
            for fit in fits
            for warning in fit.warnings
            if warning.code == "surprise"
        ],
        "foreseen": [],
    }
    if predict:
        from sweepctl.report import FORESEEN, foreseen_rows

        for fit in fits:
            done = set(
                frame["cell"][(frame["metric"] == fit.metric) & (frame["dataset"] == fit.on)]
            )
            rows = foreseen_rows(
                foresee([fit], [one for one in settings if one["cell"] not in done])
            )
            found["foreseen"] += [dict(zip(FORESEEN, row, strict=True)) for row in rows]
        found["foreseen"].sort(key=lambda one: (one["cell"], one["fit"]))
    return found


def _law(fit: FitResult, settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from sweepctl.analyse import surprising_cells, uses
    from sweepctl.report import equation

    used = sorted({cell for point in fit.points for cell in point.cells})
    ends = fit.slope_interval() if fit.slope is not None else (None, None)
    surprising = sorted(surprising_cells([fit]))
    return {
        "fit": fit.name,
        "cells": len(used),
        "of": sum(uses(fit, cell) for cell in settings),
        "law": equation(fit) or None,
        "slope_low": ends[0],
        "slope_high": ends[1],
        "r2": fit.r2,
        "surprises": " ".join(map(str, surprising)) or None,
        "reason": None if fit.fitted else fit.reason,
    }


def give_so_far(found: dict[str, Any], *, fits: bool, predict: bool) -> None:
    """Print what `so_far` has found."""
    from sweepctl.report import FORESEEN

    if fits:
        give("")
        if to_terminal():
            for law in found["laws"]:
                give(_in_a_line(law))
        else:
            give_table(LAWS, [tuple(law.values()) for law in found["laws"]], "table")
    for one in found["surprises"]:
        say(f"surprise: {one['fit']}: {one['message']}")
    if predict:
        give("")
        rows = [tuple(one.values()) for one in found["foreseen"]]
        give_table(FORESEEN, rows, "table")


def _in_a_line(law: dict[str, Any]) -> str:
    head = f"{law['fit']}: {law['cells']} of {law['of']} cells"
    if law["law"] is None:
        return f"{head}, no law yet: {law['reason']}"
    text = f"{head}: {law['law']}, slope [{law['slope_low']:.3g}, {law['slope_high']:.3g}]"
    text += "" if law["r2"] is None else f", R2 {law['r2']:.3f}"
    return text + (f"; surprised by cell {law['surprises']}" if law["surprises"] else "")


def say_recorded(study: str, records: Sequence[FitRecord]) -> None:
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
