"""Does docs/findings.md say what the tests show? `python tests/test_findings.py` writes it anew."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sweepctl.analyse import FitResult, readable
from sweepctl.claims import Analysis, fit_study
from sweepctl.paper import paper_frame, paper_names, paper_study

PAGE = Path(__file__).resolve().parent.parent / "docs" / "findings.md"

HEAD = """\
# The paper's five findings, tested on the paper's own points

This page is written by `python tests/test_findings.py`; a test holds it in step. Nothing was
trained for it. The points are those that the ViTok paper plots (every one of them is in
`v_reference`, with where it was read), the laws are those that are drawn through them, and each
finding, told in our words, is split into claims that can turn out wrong. The tests are those of
every study: [results.md](results.md) says what they ask. What counts as nothing is 10 % of rFID and
gFID, which is what a tenth of a doubling of E buys in rFID, and 0.25 dB of PSNR, the same tenth.

```sh
sweepctl fit paper/finding-1 --reference --figures none    # the same numbers, with all digits
sweepctl fit paper/figure-3 --reference                  # a figure's laws, drawn
sweepctl query "select figure, count(*) as n from v_reference group by figure"
```

Every point is one training run: the paper has no seeds. Scatter at equal E is therefore all there
is to tell an effect from noise. "undecided" does not mean wrong: these points cannot tell.
"""


def analysed(name: str) -> Analysis:
    study = paper_study(name)
    return fit_study(paper_frame(study), study.fits, study.claims)


def page() -> str:
    parts = [HEAD]
    for name in paper_names():
        if "finding" in name:
            parts.append(section(name, analysed(name)))
    return "\n".join(parts)


def section(name: str, analysis: Analysis) -> str:
    study = paper_study(name)
    counts = Counter(claim.verdict for claim in analysis.claims)
    told = ", ".join(
        f"{counts[verdict]} {verdict}"
        for verdict in ("supported", "contradicted", "undecided")
        if counts[verdict]
    )
    figures = " and ".join(study.figures)
    lines = [f"## Finding {name[-1]}", "", study.about, ""]
    lines += [f"{len(analysis.claims)} claims on the points of figure {figures}: {told}.", ""]
    lines += ["| Claim | Verdict | Evidence |", "| --- | --- | --- |"]
    lines += [
        f"| {claim.name} | **{claim.verdict}** | {claim.evidence} |" for claim in analysis.claims
    ]
    lines += ["", "| Law | n | R2 | Slope a doubling | To be doubted for |"]
    lines += ["| --- | --- | --- | --- | --- |", *map(row, analysis.fits)]
    return "\n".join(lines) + "\n"


def row(fit: FitResult) -> str:
    assert fit.slope is not None and fit.r2 is not None
    low, high = fit.slope_interval()
    r2 = f"{fit.r2:.2f} [{fit.r2_low:.2f}, {fit.r2_high:.2f}]"
    slope = f"{readable(fit.slope.estimate)} [{readable(low)}, {readable(high)}]"
    if fit.x_scale == "raw":
        slope += f" (a unit of {fit.x})"
    elif fit.form == "quadratic":
        slope += f" at {fit.x} = {readable(2**fit.center)}"
    doubts = ", ".join(dict.fromkeys(f"`{warning.code}`" for warning in fit.warnings))
    law = f"`{fit.name}`: {fit.metric} over {fit.x}, {fit.form}"
    return f"| {law} | {fit.n} | {r2} | {slope} | {doubts} |"


def test_the_page_says_what_the_tests_show() -> None:
    assert PAGE.read_text() == page(), "run: python tests/test_findings.py"


@pytest.mark.parametrize("name", [name for name in paper_names() if "finding" in name])
def test_a_finding_is_put_to_claims_that_can_be_judged(name: str) -> None:
    """Every law exists and no claim is undecided because it could not be put."""
    analysis = analysed(name)
    assert len(analysis.claims) >= 3 and all(fit.fitted for fit in analysis.fits)
    for claim in analysis.claims:
        assert claim.details, f"{claim.name}: {claim.evidence}"


def test_some_findings_change_under_honest_tests() -> None:
    verdicts = {
        (name[-1], claim.name): claim.verdict
        for name in paper_names()
        if "finding" in name
        for claim in analysed(name).claims
    }
    assert verdicts["1", "the law predicts larger codes"] == "contradicted"
    assert verdicts["2", "p adds nothing to gFID"] == "contradicted"
    assert verdicts["2", "also with guidance 3"] == "undecided"
    assert verdicts["3", "a larger encoder raises gFID"] == "undecided"
    assert verdicts["4", "a larger decoder lowers rFID"] == "undecided"
    assert verdicts["5", "rfid costs ssim"] == "supported"


if __name__ == "__main__":
    PAGE.write_text(page())
