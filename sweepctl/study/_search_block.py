"""What may a `search` block say? The models of the file; `_search` settles what they mean.

A setting is searched between two numbers or among a list of values; what is made small or large,
and which conditions the best must meet, is named by metric and data set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sweepctl.kinds import trainings
from sweepctl.study._values import (
    ComparisonText,
    Count,
    Flag,
    Number,
    Strict,
    Text,
    Whole,
    read_count,
)

Rule = Literal["asha", "median"]
Sampler = Literal["tpe", "gp", "nsga2", "cmaes", "qmc", "random", "grid"]

if TYPE_CHECKING:
    Training = str
else:
    Training = Literal[trainings()]


def _listed(value: object) -> object:
    """A plain list is a choice."""
    return {"choice": value} if isinstance(value, list | tuple) else value


Bound = Annotated[Number, BeforeValidator(read_count)]


_NORMAL = {"mean", "std", "mu", "sigma", "stddev", "sd"}
_OTHERS = {
    "distribution",
    "dist",
    "type",
    "q",
    "min",
    "max",
    "values",
    "value",
    "probabilities",
    "base",
}


def _in_our_words(entry: dict[str, Any]) -> str:
    """How a setting that is written as another tool has it is written here; "" where it is not."""
    if not (_NORMAL | _OTHERS) & entry.keys():
        return ""
    kind = str(entry.get("distribution", entry.get("dist", entry.get("type", ""))))
    if "normal" in kind or _NORMAL & entry.keys():
        return (
            "there is no normal distribution; give the ends of the range that matters, for example "
            "the mean minus and plus two deviations: {low: 1e-5, high: 1e-3, log: true}"
        )
    if "value" in entry:
        return f"one value is not searched: give {entry['value']} outside of the search"
    if isinstance(listed := entry.get("values"), list):
        return f"a choice is written as a list: [{', '.join(map(str, listed))}]"
    ends = {
        "low": entry.get("low", entry.get("min", "1")),
        "high": entry.get("high", entry.get("max", "64")),
    }
    log = {"log": "true"} if "log" in kind or entry.get("log") else {}
    step = {"step": entry["q"]} if "q" in entry else {}
    said = ", ".join(f"{name}: {value}" for name, value in (ends | log | step).items())
    return f"a range is written with low and high, and with log and step where wanted: {{{said}}}"


MOST_STEPS = 10**9
"""Most steps from low to high; more are no steps to a floating point number of 16 digits."""


class SpaceEntry(Strict):
    """One setting that is searched: numbers from low to high, or a choice."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    low: Bound | None = Field(None, description="Smallest value.")
    high: Bound | None = Field(None, description="Largest value.")
    log: Flag = Field(False, description="Search on a logarithmic scale.")
    step: Bound | None = Field(
        None,
        description="Distance of the values; null for any value. With log, values are drawn on "
        "the logarithmic scale and rounded to the nearest step.",
    )
    choice: tuple[Any, ...] | None = Field(
        None, description="The values to choose from; a plain list says the same."
    )
    if_: dict[str, Any] = Field(
        default_factory=dict,
        alias="if",
        description="Searched only where another choice, or an axis, has this value, or one of "
        "these; elsewhere it has the study's own value, or the default.",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_of_another_tool(cls, entry: Any) -> Any:
        if isinstance(entry, dict) and (said := _in_our_words(entry)):
            raise ValueError(said)
        return entry

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> SpaceEntry:
        if self.choice is not None:
            if self.low is not None or self.high is not None or self.step is not None or self.log:
                raise ValueError("a choice has no low, high, step or log; give one or the other")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or a choice of values")
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must be below high")
        if self.log and self.low <= 0:
            raise ValueError(
                f"low is {self.low:g}; a logarithmic scale begins above 0: give a smallest value "
                "above 0, or leave log out"
            )
        if self.step is not None:
            steps = (self.high - self.low) / self.step if self.step > 0 else 0.5
            if steps > MOST_STEPS:
                raise ValueError(
                    f"steps of {self.step:g} from {self.low:g} to {self.high:g} are too many; at "
                    f"most {MOST_STEPS:,}, or leave step out"
                )
            if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
                raise ValueError(f"steps of {self.step:g} from {self.low:g} miss {self.high:g}")
        return self


class ObjectiveEntry(Strict):
    """One number to make small or large."""

    metric: Text = Field(description="Name of a metric that every cell measures.")
    on: Text | None = Field(None, description="Its data set; null for the main one.")
    direction: Literal["minimize", "maximize"] | None = Field(
        None, description="null: what is better for this metric."
    )


class KeepEntry(Strict):
    """A condition that the best trial must meet, and that samplers lean to."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    metric: Text = Field(description="Name of a metric that every cell measures.")
    on: Text | None = Field(None, description="Its data set; null for the main one.")
    is_: ComparisonText = Field(alias="is", description="What it must be, for example '>= 25'.")


class Stop(Strict):
    """When a search ends before all its trials are made."""

    flat: Annotated[Whole, Field(ge=1)] | None = Field(
        None,
        description="After so many ended trials in a row that improved no best value or front.",
    )
    hours: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="When its tasks have taken so many hours of workers' time."
    )
    value: Number | None = Field(
        None,
        description="When a trial that meets keep_if reaches this value of the objective; with a "
        "single objective.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Stop:
        if self.flat is None and self.hours is None and self.value is None:
            raise ValueError("give flat, hours or value, or several of them")
        return self


class PruneBlock(Strict):
    """Trials are measured at early steps of a training, and the better ones go on from there."""

    rule: Rule = Field(
        "asha",
        description="Who goes on: of n trials at a rung the best n // factor (asha), or who is no "
        "worse than the median there (median).",
    )
    factor: Annotated[Whole, Field(ge=2, le=100)] = Field(
        3, description="From rung to rung a training gets so many times longer."
    )
    rungs: Annotated[Whole, Field(ge=1, le=8)] = Field(
        2, description="Steps before the end at which a trial is measured."
    )
    startup: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="Median only: so many trials go on from a rung anyway; 4 by default."
    )
    stage: Training | None = Field(
        None, description="The training that is cut; null for the last one that all trials have."
    )


class SearchBlock(Strict):
    """A search for the best settings; one in each cell of the axes' grid."""

    sampler: Sampler = Field("tpe", description="How the next point is chosen.")
    trials: Count = Field(description="Most trials of a search.")
    at_once: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        1, description="Trials that are open at the same time."
    )
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = Field(
        0, description="Seed of the sampler; not of the training."
    )
    space: Annotated[
        dict[str, Annotated[SpaceEntry, BeforeValidator(_listed)]], Field(min_length=1)
    ] = Field(description="Path or short name -> low and high, or a list of values.")
    objectives: Annotated[tuple[ObjectiveEntry, ...], Field(min_length=1, max_length=6)] = Field(
        description="What is made small or large; of several the best compromises are found."
    )
    keep_if: tuple[KeepEntry, ...] = Field((), description="Conditions on what is measured.")
    start_with: tuple[dict[str, Any], ...] = Field(
        (),
        description="Points to try first; {study: NAME} takes those of its finished cells.",
    )
    prune: PruneBlock | None = Field(
        None, description="End poor trials early; needs a single objective."
    )
    stop: Stop | None = Field(None, description="When to end early; null for never.")

    @property
    def given(self) -> list[dict[str, Any]]:
        """The points that are written out in `start_with`."""
        return [entry for entry in self.start_with if "study" not in entry]
