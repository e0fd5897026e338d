"""Are metrics and backbones added through their records alone, from outside the two packages?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studies import write

TOY = '''
"""A metric of pairs, a backbone and a metric of its features: what their authors write."""

import numpy as np
import torch
from torch import nn

from vitok_core.protocols import BACKBONES, METRICS, Backbone, Metric

BACKBONES["means"] = Backbone(
    name="means",
    features="means",
    width=3,
    weights=(),
    maker="toy:Means",
    about="The mean of each color.",
)
METRICS["darkening"] = Metric(
    name="darkening",
    better="lower",
    scale="raw",
    of="pairs",
    reference=False,
    needs=1,
    bounds=(-255, 255),
    function="toy:darkening",
    about="How much darker a reconstruction is, in steps of 255.",
)
METRICS["rshift"] = Metric(
    name="rshift",
    better="lower",
    scale="log2",
    features="means",
    bounds=(0, None),
    function="toy:shift",
    rules={"most": "kid_subset"},
    about="Distance of the mean colors of two sets of images.",
)


class Means(nn.Module):
    def __init__(self, backbone):
        super().__init__()

    def forward(self, images):
        return images.float().mean(dim=(2, 3))


def darkening(originals, reconstructions):
    return (originals.double() - reconstructions.double()).mean(dim=(1, 2, 3))


def shift(originals, others, *, most):
    return np.linalg.norm(originals[:most].mean(0) - others[:most].mean(0))
'''

RUN = """
import sys

import toy
from sweepctl.cli import main

sys.exit(main())
"""

STUDY = """\
format: 1
study: toys
data: {train: photos-train, resolution: 16, images: 16}
tokenizer: {encoder: nano, decoder: nano, p: 8, c: 4}
stages:
  stage1: {steps: 3, batch: 8, precision: fp32, loss: {lpips: 0}}
evaluate:
  reconstruction: {on: [photos-eval], images: 12, metrics: [psnr, darkening, rshift]}
"""


def sweepctl(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(folder / "run.py"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # trains, for three steps
def test_a_metric_and_a_backbone_from_outside_are_planned_and_measured(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "run.py").write_text(RUN)
    write(tmp_path, STUDY, "toys.yaml")
    sweepctl(tmp_path, "run", "toys.yaml", "--cluster", "inline", "-q")
    sql = "select name, n, value from v_metric"
    lines = sweepctl(tmp_path, "query", sql).splitlines()[1:]
    found = {name: (int(n), float(value)) for name, n, value in (one.split() for one in lines)}
    assert found.keys() == {"psnr", "darkening", "rshift"}
    assert {n for n, _ in found.values()} == {12}
    assert -255 <= found["darkening"][1] <= 255
    assert 0 <= found["rshift"][1] <= 255 * 3**0.5
    assert len([*(tmp_path / "runs").glob("reference-*")]) == 1
    # The identity of the task that measured holds the toy's record.
    (task,) = (path for path in (tmp_path / "runs").glob("reconstruct-*"))
    record = json.loads((task / "task.json").read_text())["identity"]["protocol"]
    assert record["record"] == 2 and record["kid_subset"] == 256
    assert record["backbones"]["means"]["width"] == 3
