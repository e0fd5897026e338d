"""The numbers that the ViTok paper published, its claims, and measured numbers compared with them.

`reference_points` are facts read from the paper, never results of this program: their protocol is
"paper", so that they meet measured values in no fit.
"""

from __future__ import annotations

from sweepctl.paper._alignment import Aligned, Spread, align, as_published, run_to_run
from sweepctl.paper._compared import Beside, BesideRow, beside_paper, nothing_beside
from sweepctl.paper._findings import PaperStudy, paper_frame, paper_names, paper_study
from sweepctl.paper._points import reference_edition, reference_points, reference_rows
from sweepctl.paper._values import Measured, configured, place_of, published

__all__ = [
    "Aligned",
    "Beside",
    "BesideRow",
    "Measured",
    "PaperStudy",
    "Spread",
    "align",
    "as_published",
    "beside_paper",
    "configured",
    "nothing_beside",
    "paper_frame",
    "paper_names",
    "paper_study",
    "place_of",
    "published",
    "reference_edition",
    "reference_points",
    "reference_rows",
    "run_to_run",
]
