"""What is to be fitted, and what is claimed? The laws and the claims of a study file.

A `Fit` names numbers (a metric on a data set) and the form of a law; a claim names a fit or a
metric and says something that can turn out wrong. Each kind of claim has a key of its own (`slope`,
`fits`, `factor`, `optimum`, `monotone`, `against`, `holdout`), by which it is recognised.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    model_validator,
)

from sweepctl.study._values import (
    Comparison,
    ComparisonText,
    Flag,
    MarginText,
    Number,
    Strict,
    Text,
    parse_comparison,
)

Form = Literal[
    "loglog",
    "semilog",
    "linear",
    "quadratic",
    "cubic",
    "power",
    "power-shifted",
    "power-bounded",
    "power-break",
]
LINES = ("loglog", "semilog", "linear")
"""Forms of first degree: several variables, or a factor's interaction, are possible."""

CURVES = ("quadratic", "cubic")
"""Forms of higher degree in log2 x, with an optimum."""

POWERS = ("power", "power-shifted", "power-bounded", "power-break")
"""Forms that are not linear in their parameters; fitted on log y."""

_LOSS = re.compile(r"^\s*huber\s*:\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*$")


class Loss(Strict):
    """What a fit makes small: squares, Huber's loss with its bend at `delta`, or absolute values.

    `delta` is in units of the residual, which is the natural logarithm's for power laws.
    """

    kind: Literal["squares", "huber", "lad"]
    delta: float = 0.0

    def __str__(self) -> str:
        return f"huber:{self.delta:g}" if self.kind == "huber" else self.kind


def parse_loss(value: object) -> Loss:
    """The loss a text stands for.

    Raises:
        ValueError: it stands for none.
    """
    if isinstance(value, Loss):
        return value
    if value == "squares":
        return Loss(kind="squares")
    if value == "lad":
        return Loss(kind="lad")
    if isinstance(value, str) and (match := _LOSS.match(value)):
        delta = float(match[1])
        if 0 < delta < math.inf:
            return Loss(kind="huber", delta=delta)
    raise ValueError("a loss is 'squares', 'lad', or Huber's with its bend, like 'huber:1e-3'")


LossText = Annotated[
    Loss,
    BeforeValidator(parse_loss),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(squares|lad|huber:.+)$"}),
]


class Fit(Strict):
    """A law to fit: one metric against one variable, or several."""

    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    x: Text | Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        "E",
        description=(
            "What it is fitted against: E, tokens, parameters, an axis, another metric; "
            "a list for a law of several variables (loglog, semilog, linear, power)."
        ),
    )
    x_on: Text | None = Field(
        None, description="Data set of x when x is a metric; the same one by default."
    )
    form: Form = Field(
        description=(
            "loglog: log2 y on log2 x; semilog: y on log2 x; linear: y on x, distances in log2; "
            "quadratic, cubic: y (log2 for distances) on powers of log2 x; "
            "power: floor + a x^-b; power-shifted: floor + a (x + s)^-b; "
            "power-bounded: between a floor and a ceiling; power-break: an exponent that changes."
        )
    )
    where: dict[str, Any] = Field(
        default_factory=dict,
        description="Only cells that match: a value, a list of values, or text like '>= 1024'.",
    )
    factors: tuple[Text, ...] = Field(
        (), description="Axes with an effect of their own for each value, for example p."
    )
    interaction: Flag = Field(
        False, description="Whether each value of a factor has a slope of its own, too."
    )
    scale: Literal["log2", "raw"] | None = Field(
        None,
        description="Scale of y in linear, quadratic and cubic; the metric's own by default.",
    )
    loss: LossText = Field(
        Loss(kind="squares"),
        description="squares, lad, or 'huber:DELTA'; other than squares for power laws only.",
    )

    @property
    def xs(self) -> tuple[str, ...]:
        """The variables."""
        return (self.x,) if isinstance(self.x, str) else self.x

    @model_validator(mode="after")
    def _fits_together(self) -> Fit:
        form = self.form
        if len(set(self.xs)) < len(self.xs):
            raise ValueError(f"x names a variable twice: {', '.join(self.xs)}")
        if len(self.xs) > 1 and form not in (*LINES, "power"):
            raise ValueError(
                f"form {form} takes one variable; several go with {', '.join(LINES)} and power"
            )
        if self.factors and form in POWERS:
            raise ValueError(
                f"form {form} takes no factors; use loglog or quadratic, or fit each value of "
                f"{self.factors[0]} by itself with where"
            )
        if len(set(self.factors)) < len(self.factors):
            raise ValueError(f"factors names an axis twice: {', '.join(self.factors)}")
        if self.interaction and not self.factors:
            raise ValueError("interaction needs factors, for example factors: [p]")
        if self.scale is not None and form not in ("linear", *CURVES):
            raise ValueError(f"form {form} states its scale; scale goes with linear and quadratic")
        if self.loss.kind != "squares" and form not in POWERS:
            raise ValueError(f"loss {self.loss} goes with power laws; {form} is by least squares")
        return self


# --- claims -----------------------------------------------------------------------------------


def _sign_or_size(value: object) -> object:
    if isinstance(value, Comparison) or value in ("positive", "negative", None):
        return value
    parsed = parse_comparison(value)
    if parsed is None:
        raise ValueError("a claimed slope is positive, negative, or text like '<= -1'")
    return parsed


class SlopeClaim(Strict):
    """A claim about a fit: the sign or size of its slope, how well it explains, or both."""

    name: Text
    fit: Text = Field(description="Name of one of the study's fits.")
    slope: Annotated[
        Literal["positive", "negative"] | Comparison | None,
        BeforeValidator(_sign_or_size),
        PlainSerializer(lambda value: value if value is None else str(value)),
        WithJsonSchema({"type": "string"}),
    ] = Field(None, description="Claimed sign (positive, negative) or size, like '<= -1'.")
    r2: ComparisonText | None = Field(None, description="Claimed R2, for example '>= 0.9'.")

    @model_validator(mode="after")
    def _says_something(self) -> SlopeClaim:
        if self.slope is None and self.r2 is None:
            raise ValueError("claims nothing; give it slope: negative, r2: '>= 0.9', or both")
        return self


class EqualSlopesClaim(Strict):
    """A claim that several fits have one slope."""

    name: Text
    fits: Annotated[tuple[Text, ...], Field(min_length=2)] = Field(
        description="Names of the study's fits that are compared."
    )
    margin: Annotated[Number, Field(gt=0)] = Field(
        description="The largest difference of slopes that counts as none."
    )


class FactorClaim(Strict):
    """A claim that an axis adds nothing to a metric once another variable is known."""

    name: Text
    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    factor: Text = Field(description="The axis that is claimed to add nothing, for example p.")
    given: Text = Field("E", description="The variable that is held fixed.")
    margin: MarginText = Field(description="The largest difference that counts as none.")
    where: dict[str, Any] = Field(default_factory=dict, description="Only cells that match.")


class OptimumClaim(Strict):
    """A claim that a law has its best value inside a range."""

    name: Text
    fit: Text = Field(description="Name of a quadratic or cubic fit.")
    optimum: Literal["minimum", "maximum"] = Field(description="Which of the two it is.")
    between: tuple[Number, Number] | None = Field(
        None, description="Where, in units of x; the measured range by default."
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> OptimumClaim:
        if self.between is not None and not 0 < self.between[0] < self.between[1]:
            raise ValueError("between needs two rising numbers above 0")
        return self


class MonotoneClaim(Strict):
    """A claim that a metric only rises, or only falls, with a variable."""

    name: Text
    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    x: Text = Field("E", description="The variable.")
    monotone: Literal["rising", "falling"] = Field(description="The claimed direction.")
    within: Text | None = Field(
        None, description="An axis: the claim is about each of its values by itself."
    )
    margin: MarginText | None = Field(
        None, description="The largest step back that counts as none; 0 by default."
    )
    where: dict[str, Any] = Field(default_factory=dict, description="Only cells that match.")


class TradeoffClaim(Strict):
    """A claim that one metric gets worse where another gets better."""

    name: Text
    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    against: Text = Field(description="The other metric.")
    against_on: Text | None = Field(
        None, description="Data set of the other metric; the same one by default."
    )
    where: dict[str, Any] = Field(default_factory=dict, description="Only cells that match.")


class HoldoutClaim(Strict):
    """A claim that a law fitted on small x predicts large x."""

    name: Text
    fit: Text = Field(description="Name of one of the study's fits.")
    holdout: ComparisonText = Field(
        description="Which x is held out and predicted, for example '> 8192'."
    )
    margin: MarginText = Field(
        description="The largest root-mean-square error that still counts as a prediction."
    )

    @model_validator(mode="after")
    def _looks_up(self) -> HoldoutClaim:
        if self.holdout.operator not in (">", ">="):
            raise ValueError("holdout is the upper end of x: write it as '> 8192' or '>= 8192'")
        return self


def _claim_kind(value: Any) -> str:
    # A mapping from a file, a model that was made already, or something that is no claim at all.
    keys = set(value if isinstance(value, dict) else getattr(value, "__dict__", {}))
    # The names of the kinds have a space: no key looks like that.
    for key in ("fits", "factor", "optimum", "monotone", "against", "holdout"):
        if key in keys:
            return _KINDS[key]
    # Only a factor's margin is easily written without its factor.
    return "factor claim" if "margin" in keys else "slope claim"


_KINDS = {
    "fits": "equal slopes claim",
    "factor": "factor claim",
    "optimum": "optimum claim",
    "monotone": "monotone claim",
    "against": "trade-off claim",
    "holdout": "hold-out claim",
}

CLAIM_KINDS: dict[str, type[Strict]] = {
    "slope claim": SlopeClaim,
    "equal slopes claim": EqualSlopesClaim,
    "factor claim": FactorClaim,
    "optimum claim": OptimumClaim,
    "monotone claim": MonotoneClaim,
    "trade-off claim": TradeoffClaim,
    "hold-out claim": HoldoutClaim,
}
"""The kinds of claims by the tags that pydantic's errors hold."""

Claim = Annotated[
    Annotated[SlopeClaim, Tag("slope claim")]
    | Annotated[EqualSlopesClaim, Tag("equal slopes claim")]
    | Annotated[FactorClaim, Tag("factor claim")]
    | Annotated[OptimumClaim, Tag("optimum claim")]
    | Annotated[MonotoneClaim, Tag("monotone claim")]
    | Annotated[TradeoffClaim, Tag("trade-off claim")]
    | Annotated[HoldoutClaim, Tag("hold-out claim")],
    Discriminator(_claim_kind),
]
AnyClaim = (
    SlopeClaim
    | EqualSlopesClaim
    | FactorClaim
    | OptimumClaim
    | MonotoneClaim
    | TradeoffClaim
    | HoldoutClaim
)
"""A claim of any kind, for annotations."""
