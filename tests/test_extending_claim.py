"""A kind of claim costs one model and one test: one is added here, from outside, and judged.

This file is its own toy: run as a script it adds the kind and becomes the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import Field, ValidationError

from sweepctl.analyse import FitResult, readable, scale_of
from sweepctl.claims import TESTS, ClaimResult
from sweepctl.study import CLAIM_KINDS, AnyClaim, MarginText, Study, Text

if TYPE_CHECKING:
    import pandas as pd

# --- the model and the test -----------------------------------------------------------------------


class SpreadClaim(AnyClaim):
    """A claim that a metric hardly varies over the cells."""

    kind = "spread claim"
    key = "spread"

    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    spread: MarginText = Field(description="The largest value minus the smallest one, at most.")


def spread_verdict(
    claim: SpreadClaim, frame: pd.DataFrame, fits: Sequence[FitResult]
) -> ClaimResult:
    chosen = (frame["metric"] == claim.metric) & (frame["dataset"] == claim.on)
    values = frame["value"][chosen]
    spread = float(values.max() - values.min())
    return ClaimResult(
        name=claim.name,
        verdict="supported" if spread <= claim.spread.value else "contradicted",
        evidence=f"{claim.metric} varies by {readable(spread)} over {len(values)} cells",
        details={"spread": spread, "scale": scale_of(claim.metric)},
    )


if __name__ == "__main__":
    CLAIM_KINDS[SpreadClaim.kind] = SpreadClaim
    TESTS[SpreadClaim] = spread_verdict
    Study.model_rebuild(force=True)
    from sweepctl.cli import main

    main()

# --- the test of the test -------------------------------------------------------------------------

CLAIMS = """claims:
  - {name: PSNR is flat, metric: psnr, on: photos-eval, spread: 1}
  - {name: SSIM is flat, metric: ssim, on: photos-eval, spread: 10}
  - {name: E helps, fit: fidelity, slope: positive}
"""


def sweepctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
    )


def test_a_kind_of_claim_is_one_model_and_one_test(tmp_path: Path) -> None:
    from test_fit_cli import STUDY, filled

    filled(tmp_path)
    file = tmp_path / "nine.yaml"
    file.write_text(STUDY.partition("claims:")[0] + CLAIMS)
    done = sweepctl(tmp_path, "fit", "nine.yaml", "--figures", "none", "--json")
    assert done.returncode == 0, done.stderr
    flat, small, helps = json.loads(done.stdout)["claims"]
    assert (flat["verdict"], small["verdict"]) == ("contradicted", "supported")
    assert flat["details"]["spread"] > 1 and "over 9 cells" in flat["evidence"]
    assert helps["verdict"] == "supported"
    # What every claim is checked for is checked here, too, without a word about the new kind.
    file.write_text(file.read_text().replace("metric: ssim, on", "metric: ssin, on"))
    done = sweepctl(tmp_path, "check", "nine.yaml")
    assert done.returncode == 3 and "claims.1.metric" in done.stderr and "'ssim'" in done.stderr
    schema = json.loads(sweepctl(tmp_path, "schema").stdout)
    assert "SpreadClaim" in schema["$defs"]


def test_without_it_the_key_is_unknown() -> None:
    claim = {"name": "flat", "metric": "psnr", "on": "photos-eval", "spread": 1}
    with pytest.raises(ValidationError, match="Extra inputs"):
        Study.model_validate({"format": 1, "study": "x", "claims": [claim]})
