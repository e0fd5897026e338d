"""What is asked? A study file, read, merged, validated and frozen, with the place of every value.

A study is one YAML file: the question, the axes, the config of a cell, what to measure, which laws
to fit and what is claimed. `load_study` gives a `StudyFile`; whatever is wrong with it comes at
once, each problem with file:line:column. Nothing here reads the clock, the network or a database.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sweepctl.errors import UsageError
from sweepctl.study._check_laws import stated_fit
from sweepctl.study._claims import (
    CLAIM_KINDS,
    AnyClaim,
    Claim,
    EqualSlopesClaim,
    FactorClaim,
    Fit,
    HoldoutClaim,
    Loss,
    MonotoneClaim,
    OptimumClaim,
    SlopeClaim,
    TradeoffClaim,
    parse_loss,
)
from sweepctl.study._grid import Conditional, Factor, Grid, Match, StudyFile
from sweepctl.study._load import load_study
from sweepctl.study._model import Config, Run, Study
from sweepctl.study._needs import WITHIN, Gpus, Needs
from sweepctl.study._paths import (
    Condition,
    added_later,
    is_valid,
    put_leaf,
    resolve,
    ruled_by,
    short_name,
    value_at,
    whole_leaf,
)
from sweepctl.study._search import Dimension, Keep, Objective, Prune, Search, settled
from sweepctl.study._search_block import SearchBlock
from sweepctl.study._site import DEVICE, OwnSet, Site, Workers, load_site
from sweepctl.study._values import NAME, Comparison, Margin, MarginText, Text, parse_comparison

__all__ = [
    "CLAIM_KINDS",
    "DEVICE",
    "WITHIN",
    "AnyClaim",
    "Claim",
    "Comparison",
    "Condition",
    "Conditional",
    "Config",
    "Dimension",
    "EqualSlopesClaim",
    "Factor",
    "FactorClaim",
    "Fit",
    "Gpus",
    "Grid",
    "HoldoutClaim",
    "Keep",
    "Loss",
    "Margin",
    "MarginText",
    "Match",
    "MonotoneClaim",
    "Needs",
    "Objective",
    "OptimumClaim",
    "OwnSet",
    "Prune",
    "Run",
    "Search",
    "SearchBlock",
    "Site",
    "SlopeClaim",
    "Study",
    "StudyFile",
    "Text",
    "TradeoffClaim",
    "Workers",
    "added_later",
    "init_study",
    "is_valid",
    "json_schema",
    "load_site",
    "load_study",
    "parse_comparison",
    "parse_loss",
    "put_leaf",
    "resolve",
    "ruled_by",
    "settled",
    "short_name",
    "stated_fit",
    "value_at",
    "whole_leaf",
]

SCHEMA_FILE = Path(__file__).parent.parent / "study.schema.json"
"""The JSON Schema that editors read; a test keeps it equal to `json_schema()`."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a study file.

    Only `format` and `study` are required: every other value may come from a base file, an axis or
    `fixed`, which a schema of one file cannot see.
    """
    schema = Study.model_json_schema(by_alias=True)
    for name, part in [("Study", schema), *schema["$defs"].items()]:
        if name in ("Study", "Data", "Tokenizer", "Stages", "Evaluate", "Reconstruction"):
            part.pop("required", None)
    schema["required"] = ["format", "study"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def init_study(file: Path) -> list[Path]:
    """Write a study to start from, and the schema beside it for the editor.

    Returns:
        the written files.

    Raises:
        UsageError: the file exists already or cannot be written.
    """
    name = file.stem.lower()
    if not re.match(NAME, name):
        raise UsageError(
            f"{file.name}: {name!r} cannot name a study",
            hint="use lower case letters, digits, dot, dash and underscore",
        )
    if file.exists():
        raise UsageError(f"{file} exists already", hint="choose another name, or remove it first")
    schema = file.with_name("study.schema.json")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_START.format(name=name), encoding="utf-8")
        schema.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error
    return [file, schema]


_START = """\
# yaml-language-server: $schema=./study.schema.json
format: 1
study: {name}
question: Is the number of floating points in the code (E) what limits reconstruction?

axes:                     # every combination is one cell
  p: [8, 16]              # patch side; short for tokenizer.p
  c: [4, 16]              # channels of a token
  seed: [0]

data: {{train: photos-train, resolution: 32, images: 4096}}
tokenizer: {{encoder: nano, decoder: nano}}
stages:
  stage1:
    steps: 200
    batch: 32
    precision: fp32
    optimiser: {{lr: 2e-3, warmup: 0.1}}
    loss: {{pixel: l2, kl: 1e-4, lpips: 0}}
evaluate:
  reconstruction: {{on: [photos-eval], images: 256, metrics: [psnr, ssim]}}

fits:
  fidelity: {{metric: psnr, on: photos-eval, x: E, form: semilog}}
claims:                   # write them before the run
  - {{name: PSNR rises with E, fit: fidelity, slope: positive}}
"""
