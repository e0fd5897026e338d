"""A small study as text, for tests that change one thing about it."""

from __future__ import annotations

from pathlib import Path

from sweepctl.plan import DataSet, Plan, make_plan
from sweepctl.study import StudyFile, load_study

DATA = {
    name: DataSet(identity={"data": name}, video=name.startswith("clips"))
    for name in ("photos-train", "photos-eval", "clips-train", "clips-eval")
}

SMALL = """\
format: 1
study: small
axes:
  p: [4, 8]
  c: [4, 16]
data: {train: photos-train, resolution: 32, images: 64}
tokenizer: {encoder: nano, decoder: nano}
stages:
  stage1: {steps: 10, batch: 8, precision: fp32, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [photos-eval], images: 32, metrics: [psnr, rfd_lite0]}
fits:
  law: {metric: psnr, on: photos-eval, form: semilog}
claims:
  - {name: E helps, fit: law, slope: positive}
"""


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def load(folder: Path, text: str, *overrides: str) -> StudyFile:
    return load_study(write(folder, text), overrides=overrides, datasets=DATA)


def plan_of(folder: Path, text: str = SMALL, *overrides: str) -> Plan:
    return make_plan(load(folder, text, *overrides), data=DATA)
