"""Which keys may a study file hold? The frozen models of a study, without any file reading.

`Config` is what a cell is made of: every leaf of it can be an axis. `Study` adds what stands around
it: the question, the axes, the fits, the claims and how to run. Unknown keys are errors everywhere.
The defaults of stage 1 are the paper's (section 2.3 and appendix A of the ViTok paper).
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names become folders, columns and captions, so they are short and plain."""

STAGES = ("stage1", "reconstruct")
"""Stages that `only` can speak of; data preparation follows from them."""

DERIVED = ("tokens", "E", "compression", "parameters", "macs")
"""Values that follow from the config by `vitok_core.spec`; usable in matches and as x of a fit."""

_COUNT = re.compile(r"^(\d+(?:\.\d+)?)([kM])$")


def _count(value: object) -> object:
    """Read "100k" and "4M" beside plain integers."""
    if isinstance(value, str) and (match := _COUNT.match(value)):
        number = float(match[1]) * {"k": 1_000, "M": 1_000_000}[match[2]]
        if number == int(number):
            return int(number)
    return value


Count = Annotated[
    int,
    Field(strict=True, ge=1, le=10**12),
    BeforeValidator(_count),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": _COUNT.pattern},
            ]
        }
    ),
]
"""A whole number from 1; "100k" and "4M" are understood."""

Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Scalar = bool | int | float | str | None | tuple[bool | int | float | str, ...]


class Strict(BaseModel):
    """Base of every part of a study: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- what a cell is made of -------------------------------------------------------------------


class Data(Strict):
    """Which images the tokenizer is trained on."""

    train: Text = Field(description="Name of the training data set.")
    resolution: Annotated[Whole, Field(ge=8, le=4096)] = Field(description="Image side in pixels.")
    images: Count = Field(description="Number of training images.")


class Tokenizer(Strict):
    """The tokenizer's shape, in the paper's names."""

    encoder: Text = Field(description="Encoder size: S, B, L or one of the small ones for CPUs.")
    decoder: Text = Field(description="Decoder size, independent of the encoder's.")
    q: Annotated[Whole, Field(ge=1, le=64)] = Field(1, description="Temporal stride in frames.")
    p: Annotated[Whole, Field(ge=1, le=512)] = Field(description="Patch side in pixels.")
    c: Annotated[Whole, Field(ge=1, le=4096)] = Field(description="Channels of a token.")


class Optimiser(Strict):
    """AdamW with warm-up and cosine decay."""

    lr: Annotated[Number, Field(gt=0, le=1)] = Field(
        4e-4, description="Peak learning rate. The paper's 1e-4 a batch of 256 is 4e-4 at 1024."
    )
    betas: Annotated[
        tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]],
        Field(description="AdamW's beta 1 and beta 2."),
    ] = (0.9, 0.95)
    weight_decay: Annotated[Number, Field(ge=0, le=1)] = Field(
        1e-4, description="Applied to all parameters."
    )
    warmup: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.03, description="Share of the steps over which the rate rises linearly."
    )
    final_lr: Annotated[Number, Field(ge=0, le=1)] = Field(
        1e-5, description="Learning rate at the end of the cosine."
    )
    clip: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="Largest norm of the gradient; longer ones are scaled down."
    )


class Stage1Loss(Strict):
    """Weights of the per-element losses of stage 1 (equation 1 of the paper)."""

    pixel: Literal["l1", "l2"] = Field("l2", description="Pixel loss, mean over elements.")
    kl: Annotated[Number, Field(ge=0)] = Field(
        1e-3, description="Weight of the KL to a unit Gaussian, mean over tokens and channels."
    )
    lpips: Annotated[Number, Field(ge=0)] = Field(
        1.0, description="Weight of the perceptual distance LPIPS."
    )
    lpips_net: Literal["alex", "vgg"] = Field(
        "vgg", description="Its trunk: vgg is the paper's, alex is ten times faster on a CPU."
    )


class Stage1(Strict):
    """Stage 1: the auto-encoder without an adversary."""

    steps: Count = Field(100_000, description="Optimiser steps.")
    batch: Count = Field(1024, description="Images a step, over all devices.")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Arithmetic of the model.")
    flip: Flag = Field(True, description="Mirror each training image with probability one half.")
    optimiser: Optimiser = Optimiser()
    loss: Stage1Loss = Stage1Loss()


class Stages(Strict):
    """The training stages."""

    stage1: Stage1 = Stage1()


class Reconstruction(Strict):
    """How a trained tokenizer is measured."""

    on: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Evaluation data sets; the first one is the study's main one."
    )
    images: Count = Field(description="Number of images of each data set.")
    metrics: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Names of metrics, for example psnr."
    )
    protocol: Text = Field("lite0", description="Name of the protocol the metrics follow.")


class Evaluate(Strict):
    """What is measured."""

    reconstruction: Reconstruction


class Config(Strict):
    """Everything that decides a cell's numbers; each leaf can be an axis."""

    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = Field(
        0, description="Seed of initialisation, data order and noise."
    )
    data: Data
    tokenizer: Tokenizer
    stages: Stages = Stages()
    evaluate: Evaluate


# --- what stands around it --------------------------------------------------------------------


class Comparison(Strict):
    """A comparison with a number, written as text: ">= 0.9"."""

    operator: Literal[">", ">=", "<", "<="]
    value: float

    def holds(self, number: float) -> bool:
        """Whether the number meets the comparison."""
        return {
            ">": number > self.value,
            ">=": number >= self.value,
            "<": number < self.value,
            "<=": number <= self.value,
        }[self.operator]

    def __str__(self) -> str:
        return f"{self.operator} {self.value:g}"


_COMPARISON = re.compile(r"^\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*$")


def parse_comparison(text: object) -> Comparison | None:
    """The comparison a text stands for, or None when it is none."""
    match = _COMPARISON.match(text) if isinstance(text, str) else None
    return None if match is None else Comparison(operator=match[1], value=float(match[2]))


def _comparison(value: object) -> object:
    if isinstance(value, Comparison):
        return value
    parsed = parse_comparison(value)
    if parsed is None:
        raise ValueError(f"{value!r} is not a comparison; write it as text like '>= 0.9'")
    return parsed


ComparisonText = Annotated[
    Comparison,
    BeforeValidator(_comparison),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _COMPARISON.pattern}),
]


class Margin(Strict):
    """The largest difference that counts as none: "10%" or a number in the metric's unit.

    `value` is the fraction (0.1 for "10%") when `percent` is true, else the number itself.
    """

    value: float
    percent: bool

    def __str__(self) -> str:
        return f"{self.value * 100:g}%" if self.percent else f"{self.value:g}"


_MARGIN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


def _margin(value: object) -> object:
    if isinstance(value, Margin):
        return value
    if isinstance(value, str) and (match := _MARGIN.match(value)) and float(match[1]) > 0:
        return Margin(value=float(match[1]) / 100, percent=True)
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    ):
        return Margin(value=float(value), percent=False)
    raise ValueError("a margin is '10%' or a number above 0")


MarginText = Annotated[
    Margin,
    BeforeValidator(_margin),
    PlainSerializer(lambda margin: str(margin) if margin.percent else margin.value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _MARGIN.pattern},
                {"type": "number", "exclusiveMinimum": 0},
            ]
        }
    ),
]


class Fit(Strict):
    """A law to fit: one metric against one variable."""

    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    x: Text = Field("E", description="What it is fitted against: E, tokens, parameters, an axis.")
    form: Literal["loglog", "semilog", "quadratic"] = Field(
        description=(
            "loglog: log2 y on log2 x; semilog: y on log2 x; "
            "quadratic: y (log2 for distances) on log2 x and its square."
        )
    )


class SlopeClaim(Strict):
    """A claim about a fit: the sign of its slope, how well it explains, or both."""

    name: Text
    fit: Text = Field(description="Name of one of the study's fits.")
    slope: Literal["positive", "negative"] | None = Field(None, description="Claimed sign.")
    r2: ComparisonText | None = Field(None, description="Claimed R2, for example '>= 0.9'.")

    @model_validator(mode="after")
    def _says_something(self) -> SlopeClaim:
        if self.slope is None and self.r2 is None:
            raise ValueError("claims nothing; give it slope: negative, r2: '>= 0.9', or both")
        return self


class FactorClaim(Strict):
    """A claim that an axis adds nothing to a metric once another variable is known."""

    name: Text
    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    factor: Text = Field(description="The axis that is claimed to add nothing, for example p.")
    given: Text = Field("E", description="The variable that is held fixed.")
    margin: MarginText = Field(description="The largest difference that counts as none.")


def _claim_kind(value: Any) -> str:
    # A mapping from a file, a model that was made already, or something that is no claim at all.
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    # The names of the kinds have a space: no key looks like that.
    return "factor claim" if {"factor", "margin"} & set(keys) else "slope claim"


Claim = Annotated[
    Annotated[SlopeClaim, Tag("slope claim")] | Annotated[FactorClaim, Tag("factor claim")],
    Discriminator(_claim_kind),
]


class Run(Strict):
    """How the study is run; never part of a task's identity."""

    retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        2, description="Further attempts after a lost worker, a kill or a lack of memory."
    )
    checkpoint_s: Annotated[Number, Field(gt=0)] = Field(
        60.0, description="Seconds between checkpoints of a training."
    )
    timeout_s: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Seconds after which an attempt is ended; none by default."
    )


class When(Strict):
    """Values for the cells that match."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    if_: dict[str, Any] = Field(alias="if", min_length=1, description="What a cell must match.")
    set_: dict[str, Any] = Field(alias="set", min_length=1, description="Values it then gets.")


class Study(Config):
    """A whole study file."""

    format: Literal[1] = Field(description="Version of this file format.")
    study: Annotated[Text, Field(pattern=NAME)] = Field(
        description="Name of the study: lower case, digits, dot, dash, underscore."
    )
    question: Text = Field("", description="The question this study answers.")
    base: Text | tuple[Text, ...] | None = Field(
        None, description="Files merged below this one, relative to it; later ones win."
    )
    axes: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="Path or short name -> values; every combination is run."
    )
    zip: tuple[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], ...] = Field(
        (), description="Groups of axes that move together."
    )
    exclude: tuple[dict[str, Any], ...] = Field(
        (), description="Cells that match an entry are left out; `only: [stage]` limits it."
    )
    only: dict[Literal["stage1", "reconstruct"], tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="A stage is run only for cells that match an entry."
    )
    fixed: dict[Literal["E", "tokens", "compression"], float] = Field(
        default_factory=dict, description="Derived values held fixed: c or p is solved from them."
    )
    when: tuple[When, ...] = Field((), description="Values for the cells that match.")
    fits: dict[Annotated[str, Field(pattern=NAME)], Fit] = Field(
        default_factory=dict, description="Laws to fit, by name."
    )
    claims: tuple[Claim, ...] = Field((), description="Claims to test, written before the run.")
    run: Run = Run()

    @field_validator("claims")
    @classmethod
    def _claims_have_names_of_their_own(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        names = [claim.name for claim in claims]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two claims are named {name!r}; give each a name of its own")
        return claims
