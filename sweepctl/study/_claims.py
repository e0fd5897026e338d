"""What is to be fitted, and what is claimed? The laws and the claims of a study file.

A `Fit` names numbers (a metric on a data set) and the form of a law; a claim names a fit or a
metric and says something that can turn out wrong. Each kind of claim has a key of its own (`slope`,
`fits`, `factor`, `optimum`, `monotone`, `against`, `holdout`), by which it is recognised.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from sweepctl.laws import FORMS, Scale
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

if TYPE_CHECKING:
    Form = str
else:
    Form = Literal[tuple(FORMS)]

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


_SEVERAL = tuple(form.name for form in FORMS.values() if form.several)


def _forms_in_words() -> str:
    """Each form with what it is, those of one kind together."""
    kinds: dict[str, list[str]] = {}
    for form in FORMS.values():
        kinds.setdefault(form.about, []).append(form.name)
    return "; ".join(f"{', '.join(names)}: {about}" for about, names in kinds.items()) + "."


class Fit(Strict):
    """A law to fit: one metric against one variable, or several."""

    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    x: Text | Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        "E",
        description=(
            "What it is fitted against: E, tokens, parameters, an axis, another metric; "
            f"a list for a law of several variables ({', '.join(_SEVERAL)})."
        ),
    )
    x_on: Text | None = Field(
        None, description="Data set of x when x is a metric; the same one by default."
    )
    form: Form = Field(description=_forms_in_words())
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
    scale: Scale | None = Field(
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
        form = FORMS[self.form]
        if len(set(self.xs)) < len(self.xs):
            raise ValueError(f"x names a variable twice: {', '.join(self.xs)}")
        if len(self.xs) > 1 and not form.several:
            raise ValueError(
                f"form {form.name} takes one variable; several go with {', '.join(_SEVERAL)}"
            )
        if self.factors and form.curve is not None:
            raise ValueError(
                f"form {form.name} takes no factors; use loglog or quadratic, or fit each value of "
                f"{self.factors[0]} by itself with where"
            )
        if len(set(self.factors)) < len(self.factors):
            raise ValueError(f"factors names an axis twice: {', '.join(self.factors)}")
        if self.interaction and not self.factors:
            raise ValueError("interaction needs factors, for example factors: [p]")
        if self.scale is not None and form.y_scale is not None:
            open_ = ", ".join(one.name for one in FORMS.values() if one.y_scale is None)
            raise ValueError(f"form {form.name} states its scale; scale goes with {open_}")
        if self.loss.kind != "squares" and form.curve is None:
            raise ValueError(
                f"loss {self.loss} goes with power laws; {form.name} is by least squares"
            )
        return self


# --- claims -----------------------------------------------------------------------------------


class AnyClaim(Strict):
    """A claim of any kind.

    A kind is one subclass here, listed in `CLAIM_KINDS`, and one test in `sweepctl.claims`. Fields
    named metric, against, on, against_on, fit, fits, x, given, factor, within and where are checked
    against the study by their names.

    Attributes:
        kind: what it is called in messages; holds a space, because no key of a study does.
        key: the key by which a claim of this kind is recognized.
        one_variable: whether the law it names may have one variable only.
    """

    kind: ClassVar[str]
    key: ClassVar[str]
    one_variable: ClassVar[bool] = False

    name: Text


def _sign_or_size(value: object) -> object:
    if isinstance(value, Comparison) or value in ("positive", "negative", None):
        return value
    parsed = parse_comparison(value)
    if parsed is None:
        raise ValueError("a claimed slope is positive, negative, or text like '<= -1'")
    return parsed


class SlopeClaim(AnyClaim):
    """A claim about a fit: the sign or size of its slope, how well it explains, or both."""

    kind = "slope claim"
    key = "slope"
    one_variable = True

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


class EqualSlopesClaim(AnyClaim):
    """A claim that several fits have one slope."""

    kind = "equal slopes claim"
    key = "fits"

    fits: Annotated[tuple[Text, ...], Field(min_length=2)] = Field(
        description="Names of the study's fits that are compared."
    )
    margin: Annotated[Number, Field(gt=0)] = Field(
        description="The largest difference of slopes that counts as none."
    )


class FactorClaim(AnyClaim):
    """A claim that an axis adds nothing to a metric once another variable is known."""

    kind = "factor claim"
    key = "factor"

    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    factor: Text = Field(description="The axis that is claimed to add nothing, for example p.")
    given: Text = Field("E", description="The variable that is held fixed.")
    margin: MarginText = Field(description="The largest difference that counts as none.")
    where: dict[str, Any] = Field(default_factory=dict, description="Only cells that match.")


class OptimumClaim(AnyClaim):
    """A claim that a law has its best value inside a range."""

    kind = "optimum claim"
    key = "optimum"

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


class MonotoneClaim(AnyClaim):
    """A claim that a metric only rises, or only falls, with a variable."""

    kind = "monotone claim"
    key = "monotone"

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


class TradeoffClaim(AnyClaim):
    """A claim that one metric gets worse where another gets better."""

    kind = "trade-off claim"
    key = "against"

    metric: Text = Field(description="Name of a measured metric.")
    on: Text = Field(description="Data set it was measured on.")
    against: Text = Field(description="The other metric.")
    against_on: Text | None = Field(
        None, description="Data set of the other metric; the same one by default."
    )
    where: dict[str, Any] = Field(default_factory=dict, description="Only cells that match.")


class HoldoutClaim(AnyClaim):
    """A claim that a law fitted on small x predicts large x."""

    kind = "hold-out claim"
    key = "holdout"
    one_variable = True

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


CLAIM_KINDS: dict[str, type[AnyClaim]] = {
    kind.kind: kind
    for kind in (
        SlopeClaim,
        EqualSlopesClaim,
        FactorClaim,
        OptimumClaim,
        MonotoneClaim,
        TradeoffClaim,
        HoldoutClaim,
    )
}
"""The kinds of claims by the tags that pydantic's errors hold.

`Study.model_rebuild(force=True)` makes study files take a kind that was added later.
"""


def _claim_kind(value: Any) -> str:
    # A mapping from a file, a model that was made already, or something that is not a claim at all.
    keys = set(value if isinstance(value, dict) else getattr(value, "__dict__", {}))
    for kind in CLAIM_KINDS.values():
        if kind.key in keys and kind is not SlopeClaim:
            return kind.kind
    # Only a factor's margin is easily written without its factor.
    return (FactorClaim if "margin" in keys else SlopeClaim).kind


class _OneOfTheKinds:
    """Makes pydantic read a claim as the kind that its keys say."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        kinds = tuple(Annotated[kind, Tag(kind.kind)] for kind in CLAIM_KINDS.values())
        return handler.generate_schema(
            Annotated[Union[kinds], Discriminator(_claim_kind)]  # noqa: UP007  # a tuple of types
        )


Claim = Annotated[AnyClaim, _OneOfTheKinds()]
