"""What `correlate`, `frontier` and `contours` share: their values and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepctl.cli._output import give_json, say
from sweepctl.cli._session import open_for_reading

if TYPE_CHECKING:
    import pandas as pd


def measured_frame(what: str, where: str | None) -> pd.DataFrame:
    """The measured values of a study, or the published ones, that meet a condition."""
    from sweepctl.report import measured, published

    if what.startswith("paper/"):
        from sweepctl.paper import paper_frame, paper_study

        frame = published(paper_frame(paper_study(what)), where)
    else:
        with open_for_reading() as ledger:
            frame, (used, every) = measured(ledger, what, where)
        if where:
            say(f"only cells where {where}: {used} of {every} that were measured")
    return frame


def metric_and_data_set(text: str) -> tuple[str, str | None]:
    """METRIC or METRIC@DATASET in its parts."""
    metric, _, dataset = text.partition("@")
    return metric, dataset or None


def give_relation(
    what: str, where: str | None, facts: dict[str, Any], files: Sequence[Path]
) -> None:
    """Print what was found as one JSON document."""
    said = {"schema": 1, "study": what, "where": where, **facts, "figures": list(files)}
    give_json(said)
