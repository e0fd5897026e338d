"""The results of a study: laws fitted, claims judged, both recorded, figures drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import equation, front
from sweepctl.claims import Analysis, fit_study
from sweepctl.errors import UsageError
from sweepctl.figures import (
    Figure,
    SheetRow,
    fronts,
    hold_outs,
    laws,
    optima,
    residuals,
    sheet,
    write,
)
from sweepctl.ledger import Ledger, matching
from sweepctl.paper import PaperComparison, compared_with_paper, no_paper_points
from sweepctl.report._save import save
from sweepctl.study import AnyClaim, Study, TradeoffClaim

if TYPE_CHECKING:
    import pandas as pd

SHEET_ROWS = 12
"""Most cells on a reconstruction sheet; of more, those evenly spread over E are taken."""

SHEET_COLUMNS = 9
"""Most pictures a cell shows on the sheet."""

FIGURES = ("law", "samples", "residuals", "holdout", "optimum", "front")
"""Kinds of figures that `fit` draws."""

USUAL = ("law", "samples")
"""Those it draws by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a fit should do.

    Attributes:
        where: SQL condition on the cells, as `results` takes it; None for all of them.
        reference: whether the paper's points are shown next to your own.
        paper: the paper's figure to take; None for the nearest one of each fit.
        out: folder of the figures; None draws nothing.
        kinds: of `FIGURES`.
        formats: png, svg, pdf.
        keep: folder of the kept fits; None keeps nothing.
    """

    where: str | None = None
    reference: bool = False
    paper: str | None = None
    out: Path | None = None
    kinds: Sequence[str] = USUAL
    formats: Sequence[str] = ("png", "svg")
    keep: Path | None = None


def kinds_of(text: str | None) -> tuple[str, ...]:
    """Kinds of figures from a list with commas; the usual ones for None.

    Raises:
        UsageError: one of them is unknown.
    """
    kinds = USUAL if text is None else tuple(part.strip() for part in text.split(","))
    if unknown := [kind for kind in kinds if kind not in (*FIGURES, "all")]:
        raise UsageError(
            f"there is no figure {unknown[0]!r}", hint=f"all, or some of {', '.join(FIGURES)}"
        )
    return kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The outcome of a fit.

    Attributes:
        analysis: the laws and the verdicts.
        files: the figures.
        condition: the condition on the cells; empty for all.
        cells: measured cells that were used, and how many there are.
        comparisons: the paper's points.
        kept: folder of each kept fit by its name.
    """

    analysis: Analysis
    files: tuple[Path, ...] = ()
    condition: str = ""
    cells: tuple[int, int] = (0, 0)
    comparisons: tuple[PaperComparison, ...] = ()
    kept: Mapping[str, Path]


def fit_and_draw(ledger: Ledger, study: Study, wanted: Wanted, *, runs: Path) -> Fitted:
    """Fit a study's laws, judge its claims, record both in the ledger, and draw them.

    Args:
        ledger: an open ledger.
        study: the study; its fits and claims may be newer than its results.
        wanted: which cells, which figures, what is kept.
        runs: the run folder, for the pictures of the sheet.

    Raises:
        UsageError: the study is unknown, nothing of it was measured yet, no measured cell meets
            the condition, the paper has nothing to compare with, or a folder cannot be written.
    """
    frame, cells = measured(ledger, study.study, wanted.where)
    condition = (wanted.where or "").strip()
    analysis = fit_study(frame, study.fits, study.claims)
    comparisons = paper_comparisons(analysis, wanted)
    kept = keep_fits(analysis, wanted, study.study, condition, comparisons)
    _record(ledger, study.study, analysis, condition, kept)
    files: tuple[Path, ...] = ()
    if wanted.out is not None:
        name = study.study + ("" if not condition else "-where")
        files = draw_kinds(
            analysis,
            frame,
            study.claims,
            wanted.out / name,
            wanted,
            title=study.study,
            comparisons=comparisons,
            samples=lambda: _sheet_rows(frame, study, runs),
        )
    return Fitted(
        analysis=analysis,
        files=files,
        condition=condition,
        cells=cells,
        comparisons=comparisons,
        kept=kept,
    )


def measured(ledger: Ledger, study: str, where: str | None) -> tuple[pd.DataFrame, tuple[int, int]]:
    """The values of a study's cells that meet a condition, and how many cells of how many.

    Raises:
        UsageError: nothing was measured yet, or none of it meets the condition.
    """
    frame = ledger.cells.frame(study)
    if frame.empty:
        raise UsageError(
            f"nothing of {study} was measured yet",
            hint=f"sweepctl status {study} says how far it is",
        )
    every = len(set(frame["cell"]))
    if not (where or "").strip():
        return frame, (every, every)
    rows = ledger.cells.results(study, where=where, columns=["cell"]).rows
    chosen = frame[frame["cell"].isin({row[0] for row in rows})].reset_index(drop=True)
    if chosen.empty:
        raise UsageError(
            f"no measured cell of {study} meets --where {where!r}",
            hint=f"sweepctl results {study} --where {where!r} shows what it chooses",
        )
    return chosen, (len(set(chosen["cell"])), every)


def published(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """The rows of published numbers that meet a condition; what one does not state excludes none.

    Raises:
        UsageError: the condition cannot be used, or leaves nothing.
    """
    return _meeting(frame, where, "published number", unknown=True)


def exported(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """The rows of exported values that meet a condition; a value that is not there meets none.

    Raises:
        UsageError: the condition cannot be used, or leaves nothing.
    """
    return _meeting(frame, where, "exported value", unknown=False)


def _meeting(frame: pd.DataFrame, where: str | None, what: str, *, unknown: bool) -> pd.DataFrame:
    if not (where or "").strip():
        return frame
    names = [str(name) for name in frame.columns]
    plain = frame.astype("object").where(frame.notna(), None)
    places = matching(names, plain.to_numpy().tolist(), where or "", unknown=unknown)
    if not places:
        raise UsageError(f"no {what} meets --where {where!r}")
    return frame.iloc[places].reset_index(drop=True)


def paper_comparisons(analysis: Analysis, wanted: Wanted) -> tuple[PaperComparison, ...]:
    """The paper's points next to your own, when they are wanted.

    Raises:
        UsageError: the paper has none of the metrics.
    """
    if not wanted.reference:
        return ()
    found = compared_with_paper(analysis.fits, wanted.paper)
    if not found:
        raise no_paper_points(analysis.fits, wanted.paper)
    return found


def keep_fits(
    analysis: Analysis,
    wanted: Wanted,
    of: str,
    condition: str,
    comparisons: Sequence[PaperComparison] = (),
) -> Mapping[str, Path]:
    """Keep the fits as files when that is wanted; gives the folder of each."""
    if wanted.keep is None:
        return {}
    formats = wanted.formats if wanted.out is not None else ()
    return save(
        analysis, wanted.keep, of=of, condition=condition, comparisons=comparisons, formats=formats
    )


def _record(
    ledger: Ledger, study: str, analysis: Analysis, condition: str, kept: Mapping[str, Path]
) -> None:
    """One row per law and per claim in the ledger."""
    said = analysis.to_json()
    for fit, plain in zip(analysis.fits, said["fits"], strict=True):
        slope = None if fit.slope is None else (fit.slope.estimate, *fit.slope_interval())
        folder = kept.get(fit.name)
        ledger.fits.save(
            study,
            fit.name,
            plain,
            condition=condition,
            law=equation(fit) or None,
            n=fit.n,
            slope=slope,
            r2=fit.r2,
            folder=None if folder is None else str(folder.absolute()),
        )
    for claim in said["claims"]:
        ledger.fits.save(study, f"claim: {claim['name']}", claim, condition=condition)


def draw_kinds(
    analysis: Analysis,
    frame: pd.DataFrame | None,
    claims: Sequence[AnyClaim],
    out: Path,
    wanted: Wanted,
    *,
    title: str,
    comparisons: Sequence[PaperComparison] = (),
    samples: Callable[[], list[SheetRow]] | None = None,
) -> tuple[Path, ...]:
    """Draw the wanted kinds of figures: `out`.png for the laws, `out`-residuals.png and so on.

    "all" draws whatever applies; a kind that is named and cannot be drawn is an error.

    Raises:
        UsageError: a kind that is named cannot be drawn, or the folder cannot be written.
    """
    every = "all" in wanted.kinds
    kinds = FIGURES if every else tuple(dict.fromkeys(wanted.kinds))
    said: dict[str, Any] = {"title": title, "condition": (wanted.where or "").strip()}

    def trade_offs() -> Figure:
        found = [
            front(frame, claim.metric, claim.on, claim.against, claim.against_on or claim.on,
                  claim.where)
            for claim in claims
            if isinstance(claim, TradeoffClaim) and frame is not None
        ]  # fmt: skip
        if not found:
            raise UsageError("no claim is a trade-off of two metrics, so there is no front")
        return fronts(found, **said)

    builders: Mapping[str, Callable[[], Figure]] = {
        "law": lambda: laws(analysis.fits, comparisons=comparisons, **said),
        "residuals": lambda: residuals(analysis.fits, **said),
        "holdout": lambda: hold_outs(analysis.fits, **said),
        "optimum": lambda: optima(analysis.fits, **said),
        "front": trade_offs,
    }
    optional = every or tuple(wanted.kinds) == USUAL
    files: list[Path] = []
    for kind in kinds:
        place = out if kind == "law" else out.with_name(f"{out.name}-{kind}")
        try:
            if kind == "samples":
                files.append(_sheet(samples, place))
                continue
            made = builders[kind]()
        except UsageError as error:
            if not optional or error.message.startswith("cannot write"):
                raise
        else:
            files += write(made, place, wanted.formats)
    return tuple(files)


def _sheet(samples: Callable[[], list[SheetRow]] | None, place: Path) -> Path:
    rows = samples() if samples is not None else []
    if not rows:
        raise UsageError("no reconstructions are in the run folder")
    return sheet(rows, place.with_name(f"{place.name}.png"))


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
