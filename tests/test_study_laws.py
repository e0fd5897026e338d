"""Are fits and claims read as they are meant, and wrong ones named at their place?"""

from __future__ import annotations

from pathlib import Path

import pytest

from studies import SMALL, load
from sweepctl.errors import StudyError
from sweepctl.study import (
    EqualSlopesClaim,
    FactorClaim,
    HoldoutClaim,
    MonotoneClaim,
    OptimumClaim,
    SlopeClaim,
    TradeoffClaim,
)

LAWS = """\
fits:
  law: {metric: psnr, on: photos-eval, form: semilog, where: {p: 4, c: '>= 4'}}
  other: {metric: rfd_lite0, on: photos-eval, x: [E, c], form: power, loss: 'huber:1e-3'}
  curve: {metric: rfd_lite0, on: photos-eval, form: quadratic, factors: [p], interaction: true}
  across: {metric: rfd_lite0, on: photos-eval, x: psnr, form: linear}
claims:
  - {name: a, fit: law, slope: '>= 0.5', r2: '>= 0.9'}
  - {name: b, fits: [law, curve], margin: 0.1}
  - {name: c, metric: psnr, on: photos-eval, factor: p, given: E, margin: 5%, where: {c: [4, 16]}}
  - {name: d, fit: curve, optimum: minimum, between: [64, 1024]}
  - {name: e, metric: psnr, on: photos-eval, x: E, monotone: rising, within: p}
  - {name: f, metric: psnr, on: photos-eval, against: rfd_lite0}
  - {name: g, fit: law, holdout: '> 512', margin: 1}
"""
BEFORE = SMALL[: SMALL.index("fits:")]


def test_every_kind_of_claim_is_recognised_by_its_key(tmp_path: Path) -> None:
    study = load(tmp_path, BEFORE + LAWS).study
    kinds = [type(claim) for claim in study.claims]
    assert kinds == [
        *(SlopeClaim, EqualSlopesClaim, FactorClaim, OptimumClaim),
        *(MonotoneClaim, TradeoffClaim, HoldoutClaim),
    ]
    assert study.fits["other"].xs == ("E", "c") and str(study.fits["other"].loss) == "huber:0.001"
    assert study.fits["law"].where == {"p": 4, "c": ">= 4"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("where: {p: 4, c", "where: {p: x, c", "fits.law.where.p: needs a whole number"),
        ("where: {p: 4, c", "where: {pp: 4, c", "fits.law.where.pp: there is no 'pp'"),
        ("x: [E, c]", "x: [E, cc]", "fits.other.x.1: unknown variable 'cc'"),
        ("x: [E, c]", "x: [E, steps]", "fits.other.x.1: stages.stage1.steps is no axis of this"),
        ("x: E, mono", "x: steps, mono", "claims.4.x: stages.stage1.steps is no axis of this"),
        ("x: psnr", "x: rfd_lite0", "fits.across.x: the metric 'rfd_lite0' cannot explain itself"),
        ("factors: [p]", "factors: [encoder]", "fits.curve.factors.0: 'encoder' is not an axis"),
        ("x: psnr", "x: psnrr", "fits.across.x: unknown variable 'psnrr'"),
        ("form: linear", "form: linear, x_on: photos", "fits.across.x_on: unknown data set"),
        ("form: semilog", "form: semilog, x_on: photos-eval", "fits.law.x_on: x_on goes with an x"),
        ("huber:1e-3", "huber", "fits.other.loss: a loss is 'squares', 'lad', or Huber's"),
        ("form: power,", "form: quadratic,", "fits.other: form quadratic takes one variable"),
        ("'>= 0.5'", "'about 1'", "a claimed slope is positive, negative, or text like '<= -1'"),
        ("fits: [law, curve]", "fits: [law, curv]", "claims.1.fits: unknown fit 'curv'"),
        ("factor: p", "factor: encoder", "claims.2.factor: 'encoder' is not an axis"),
        ("fit: curve, opt", "fit: law, opt", "claims.3.fit: fit 'law' is semilog, which has no"),
        ("between: [64", "between: [6400", "between needs two rising numbers above 0"),
        ("within: p", "within: encoder", "claims.4.within: 'encoder' is not an axis"),
        ("against: rfd_lite0", "against: ssim", "claims.5.against: unknown metric among those"),
        ("'> 512'", "'< 512'", "holdout is the upper end of x"),
        ("fit: law, holdout", "fit: other, holdout", "claims.6.fit: fit 'other' has 2 variables"),
        ("holdout:", "hold:", "unknown key 'hold'"),
    ],
)
def test_wrong_laws_and_claims_are_named_at_their_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in LAWS
    with pytest.raises(StudyError) as caught:
        load(tmp_path, BEFORE + LAWS.replace(old, new, 1))
    assert said in str(caught.value)
