"""What does a study come to? Its numbers fitted, its claims judged, its pictures drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import Analysis, fit_study
from sweepctl.errors import UsageError
from sweepctl.ledger import Ledger
from sweepctl.report._figure import draw, writing
from sweepctl.report._sheet import SheetRow, sheet
from sweepctl.study import Study

if TYPE_CHECKING:
    import pandas as pd

SHEET_ROWS = 12
"""Most cells on a reconstruction sheet; of more, those evenly spread over E are taken."""

SHEET_COLUMNS = 9
"""Most pictures a cell shows on the sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What `fit_and_draw` has made: the analysis and the files it has written."""

    analysis: Analysis
    files: tuple[Path, ...]


def fit_and_draw(ledger: Ledger, study: Study, *, runs: Path, out: Path | None) -> Fitted:
    """Fit a study's laws, judge its claims, keep both in the ledger, and draw them.

    Args:
        ledger: an open ledger.
        study: the study; its fits and claims may be newer than its results.
        runs: the run folder, for the pictures of the sheet.
        out: folder of the figures: <study>.png, <study>.svg and <study>-samples.png; None draws
            nothing.

    Raises:
        UsageError: the study is unknown, nothing of it was measured yet, or `out` cannot be
            written.
    """
    frame = ledger.frame(study.study)
    if frame.empty:
        raise UsageError(
            f"nothing of {study.study} was measured yet",
            hint=f"sweepctl status {study.study} says how far it is",
        )
    analysis = fit_study(frame, study.fits, study.claims)
    said = analysis.to_json()
    for fit in said["fits"]:
        ledger.save_fit(study.study, fit["name"], fit)
    for claim in said["claims"]:
        ledger.save_fit(study.study, f"claim: {claim['name']}", claim)
    files: tuple[Path, ...] = ()
    if out is not None:
        files += draw(analysis, out / study.study, title=study.study) if study.fits else ()
        if rows := _sheet_rows(frame, study, runs):
            with writing(out):
                files += (sheet(rows, out / f"{study.study}-samples.png"),)
    return Fitted(analysis=analysis, files=files)


def _sheet_rows(frame: pd.DataFrame, study: Study, runs: Path) -> list[SheetRow]:
    """Originals and reconstructions of the cells whose arrays are in the run folder."""
    dataset = study.evaluate.reconstruction.on[0]
    measured = frame[frame["dataset"] == dataset]
    cells: dict[int, dict[str, Any]] = {}
    for raw in measured.to_dict("records"):
        record = {str(name): value for name, value in raw.items()}
        cell = cells.setdefault(int(record["cell"]), dict(record))
        cell[f"metric {record['metric']}"] = record["value"]
    ordered = sorted(cells.values(), key=lambda cell: (cell["E"], cell["cell"]))
    rows = [row for cell in _spread(ordered, SHEET_ROWS) if (row := _row(cell, study, runs))]
    # Cells of another resolution or data set show other originals: the largest group is drawn.
    groups: dict[tuple[Any, bytes], list[SheetRow]] = {}
    for row in rows:
        groups.setdefault((row.originals.shape, row.originals.tobytes()), []).append(row)
    return max(groups.values(), key=len, default=[])


def _row(cell: dict[str, Any], study: Study, runs: Path) -> SheetRow | None:
    import numpy as np

    folder = runs / str(cell["task"])
    try:
        originals = np.load(folder / "originals.npy", allow_pickle=False)
        reconstructions = np.load(folder / "reconstructions.npy", allow_pickle=False)
    except (OSError, ValueError):
        return None  # measured on another machine, or its files were removed: no row, no picture
    axes = "  ".join(f"{name} {cell[name]}" for name in _axis_names(study) if name in cell)
    label = f"E = {cell['E']:g}  {axes}"
    if "metric psnr" in cell:
        label += f"  PSNR {cell['metric psnr']:.1f} dB"
    return SheetRow(
        label=label,
        E=float(cell["E"]),
        originals=originals[:SHEET_COLUMNS],
        reconstructions=reconstructions[:SHEET_COLUMNS],
    )


def _axis_names(study: Study) -> Iterable[str]:
    from sweepctl.study import resolve, short_name

    names = [*study.axes, *(name for group in study.zip for name in group)]
    return [short_name(resolve(name)) for name in names]


def _spread(cells: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    if len(cells) <= most:
        return cells
    return [cells[round(place * (len(cells) - 1) / (most - 1))] for place in range(most)]
