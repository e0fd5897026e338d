"""The numbers that the ViTok paper published, its claims, and measured numbers compared with them.

`reference_points` are facts read from the paper, never results of this program: their protocol is
"paper", so that they meet measured values in no fit.
"""

from __future__ import annotations

from sweepctl.paper._alignment import Aligned, align, as_published, run_to_run
from sweepctl.paper._compared import (
    PaperComparison,
    compared_with_paper,
    no_paper_points,
)
from sweepctl.paper._findings import PaperStudy, paper_frame, paper_names, paper_study
from sweepctl.paper._points import reference_edition, reference_points, reference_rows
from sweepctl.paper._values import ConfiguredValue, configured, figure_or_table, published

__all__ = [
    "Aligned",
    "ConfiguredValue",
    "PaperComparison",
    "PaperStudy",
    "align",
    "as_published",
    "compared_with_paper",
    "configured",
    "figure_or_table",
    "no_paper_points",
    "paper_frame",
    "paper_names",
    "paper_study",
    "published",
    "reference_edition",
    "reference_points",
    "reference_rows",
    "run_to_run",
]
