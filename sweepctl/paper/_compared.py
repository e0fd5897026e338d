"""How do one's own points stand beside the paper's? Its points, its law, and the ratio at equal E.

The published numbers come from other data, other training and another protocol, so they never share
a fit with measured ones and no verdict is drawn from the pair: a figure shows them hollow, a table
gives the ratio (or the difference) to the paper's law at each x that its points span. Beyond them
there is no number, because there the paper has measured nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sweepctl.analyse import FitResult, Point, bands, fit_law
from sweepctl.errors import UsageError
from sweepctl.laws import Scale, exp2
from sweepctl.paper._findings import paper_names, paper_study
from sweepctl.paper._points import reference_points

if TYPE_CHECKING:
    import pandas as pd

    from sweepctl.study import Fit

_IMAGES = "ImageNet-1K"
"""The paper's main data sets bear it in their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPoint:
    """A configuration of one's own beside the paper's law at the same x.

    Attributes:
        cells: its cells.
        x: its x.
        own: its value, in the metric's unit.
        paper: the paper's law at x; None outside the paper's points.
        paper_low: lower end of the 95 % interval of that law.
        paper_high: upper end.
        distance: own / paper where the metric is fitted in log2, own - paper else; None outside.
    """

    cells: tuple[int, ...]
    x: float
    own: float
    paper: float | None
    paper_low: float | None
    paper_high: float | None
    distance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperComparison:
    """A fit of one's own and the paper's fit of the same metric against the same variable.

    Attributes:
        fit: name of one's own fit.
        paper: name of the paper's figure or finding: paper/figure-3.
        law: the paper's law on its own points.
        scale: log2 when `distance` is a ratio, raw when it is a difference.
        rows: one's own configurations.
    """

    fit: str
    paper: str
    law: FitResult
    scale: Scale
    rows: tuple[ComparedPoint, ...]


def compared_with_paper(
    fits: Sequence[FitResult], paper: str | None = None
) -> tuple[PaperComparison, ...]:
    """The paper's points beside fits of one's own, where the paper has the metric.

    Args:
        fits: one's own fits.
        paper: the paper's figure or finding to take; None takes, for each fit, the one with the
            same metric and variable that is nearest in data set, resolution and kind.

    Raises:
        UsageError: there is no such figure.
    """
    names = paper_names() if paper is None else (f"paper/{paper.removeprefix('paper/')}",)
    every = reference_points()
    candidates = []
    for name in names:
        study = paper_study(name)
        rows = every[every["figure"].isin(study.figures)].reset_index(drop=True)
        candidates += [_Candidate(name, label, law, rows) for label, law in study.fits.items()]
    found = [_beside(fit, candidates) for fit in fits]
    return tuple(one for one in found if one is not None)


class _Candidate(NamedTuple):
    """A law that the paper plots: its figure, its name there, what it says, the figure's rows."""

    figure: str
    label: str
    law: Fit
    rows: pd.DataFrame


def _beside(fit: FitResult, candidates: Sequence[_Candidate]) -> PaperComparison | None:
    fitting = [
        one
        for one in candidates
        if one.law.metric == fit.metric and one.law.xs == fit.xs and fit.points
    ]
    if not fitting:
        return None
    nearest = max(fitting, key=lambda one: _likeness(fit, one))
    theirs = fit_law(nearest.label, nearest.rows, nearest.law)
    return PaperComparison(
        fit=fit.name,
        paper=nearest.figure,
        law=theirs,
        scale=fit.scale,
        rows=tuple(_row(fit, theirs, point) for point in fit.points),
    )


def _likeness(fit: FitResult, one: _Candidate) -> tuple[bool, ...]:
    """What makes a figure of the paper the nearest one, most important first."""
    rows = one.rows[(one.rows["metric"] == fit.metric) & (one.rows["dataset"] == one.law.on)]
    frames = {(point.settings.get("frames") or 1) > 1 for point in fit.points}
    sizes = {point.settings.get("resolution") for point in fit.points}
    theirs = {int(value) for value in rows["resolution"].dropna()}
    return (
        {bool(value > 1) for value in rows["frames"].dropna()} <= frames,
        one.law.on.casefold() == fit.on.casefold(),
        "figure" in one.figure,
        bool(sizes & theirs),
        256 in theirs,
        one.law.on.startswith(_IMAGES),
    )


def _row(fit: FitResult, theirs: FitResult, point: Point) -> ComparedPoint:
    own = exp2(point.y) if fit.scale == "log2" else point.y
    row = ComparedPoint(
        cells=point.cells,
        x=point.x,
        own=own,
        paper=None,
        paper_low=None,
        paper_high=None,
        distance=None,
    )
    spanned = theirs.fitted and theirs.points[0].x <= point.x <= theirs.points[-1].x
    if not spanned or len(theirs.xs) > 1:
        return row
    band = bands(theirs, [point.x])
    paper = float(band.mean[0])
    return ComparedPoint(
        cells=point.cells,
        x=point.x,
        own=own,
        paper=paper,
        paper_low=float(band.mean_low[0]),
        paper_high=float(band.mean_high[0]),
        distance=own / paper if fit.scale == "log2" else own - paper,
    )


def no_paper_points(fits: Sequence[FitResult], paper: str | None) -> UsageError:
    """What is said when the paper has none of the metrics."""
    asked = ", ".join(dict.fromkeys(f"{fit.metric} against {', '.join(fit.xs)}" for fit in fits))
    where = "the paper" if paper is None else f"paper/{paper.removeprefix('paper/')}"
    return UsageError(
        f"{where} has no points of {asked or 'these fits'}",
        hint="it plots rfid, ris, psnr, ssim, rfvd, gfid and gis; see `sweepctl query "
        '"select distinct name, figure from v_reference"`',
    )
