"""What a plan is made of: its cells, its tasks, and the records that lead to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweepctl.columns import Derived
from sweepctl.errors import Problem
from sweepctl.plan._operations import Cost
from sweepctl.study import StudyFile
from vitok_core.settings import Stages
from vitok_core.spec import IMAGE_CHANNELS, DiTSpec, TokenizerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The size of the code of one sample.

    Attributes:
        tokens: of the code, or of its beginning that a masked tokenizer keeps.
        E: tokens * c, its floating points.
        compression: values of the sample for one of the code.
    """

    tokens: int
    E: int
    compression: float


def code_of(spec: TokenizerSpec, tokens: int) -> Code:
    """The code of a tokenizer, measured at a number of tokens."""
    values = IMAGE_CHANNELS * spec.frames * spec.resolution**2
    return Code(tokens=tokens, E=tokens * spec.c, compression=values / (tokens * spec.c))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell before tasks are made of it.

    Attributes:
        key: hash of the lasting config.
        axes: short axis name -> value.
        config: the resolved config, plain data.
        rules: config path of each learning rate that follows its batch -> its rule,
            as {per_256: 1e-4}.
        lasting: the part of it that identifies; see `_identity.lasting`.
        stages: the settings of its stages, as the config has them.
        spec: the tokenizer it describes.
        dit: the generator of its codes, None without.
        derived: the typed values that become columns.
        stages_left_out: stages this cell is excluded from.
    """

    key: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    rules: Mapping[str, Mapping[str, float]]
    lasting: Mapping[str, Any]
    stages: Stages
    spec: TokenizerSpec
    dit: DiTSpec | None
    derived: Derived
    stages_left_out: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A combination that is not a cell: its axis values and the reason."""

    axes: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point that a search has asked for.

    Attributes:
        axes: config path -> value, the cell of the grid of axes that the search belongs to.
        values: config path -> value of what is searched.
    """

    axes: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The outcome of planning a trial: the key of its cell, or "" and why it has none."""

    key: str
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One node of the graph.

    Attributes:
        fingerprint: "s1:" and 32 hex digits; equal for tasks with equal numbers.
        kind: key into `sweepctl.kinds.KINDS`.
        label: for people, for example "nano-nano/8 c16 seed 0".
        identity: the canonical JSON behind the fingerprint.
        parents: (role, fingerprint) of each parent, sorted by role.
        cost: what it takes.
        continues: (id of a task, share of this one's operations it has done) of trainings of the
            same settings and fewer steps that this one can resume from; the furthest first. No part
            of the identity: the weights are the same.
    """

    fingerprint: str
    kind: str
    label: str
    identity: str
    parents: tuple[tuple[str, str], ...]
    cost: Cost
    continues: tuple[tuple[str, float], ...] = ()

    @property
    def cost_left(self) -> Cost:
        """What it takes when it resumes from the furthest of those."""
        if not self.continues:
            return self.cost
        return self.cost.scaled(1 - self.continues[0][1])

    @property
    def id(self) -> str:
        """Name of the task and of its folder: the kind and 16 of the hex digits."""
        return f"{self.kind}-{self.fingerprint[3:19]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One point of a study.

    Attributes:
        index: its number in the study, from 1.
        key: hash of its config; unique in a study and stable when others come and go.
        axes: short axis name -> value.
        config: the resolved config, plain data.
        rules: config path of each learning rate that follows its batch -> its rule,
            as {per_256: 1e-4}.
        derived: the values that become columns.
        tasks: stage -> fingerprint; the stage is the name of a kind, with ":" and the data set
            where there is one per data set; at a rung of a search with "@" and the step after that.
        datasets: evaluation data sets, the main one first.
        until: training step that a search has promoted it to; None for its end.
    """

    index: int
    key: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    derived: Derived
    tasks: Mapping[str, str]
    datasets: tuple[str, ...]
    until: int | None = None
    rules: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All cells and tasks of a study.

    Attributes:
        study: the study and its source.
        axes: short names of the axes, in order.
        cells: the cells, in order.
        tasks: fingerprint -> task; parents stand before children.
        dropped: combinations that are not cells, with the reason.
        notices: remarks for the user.
        absent: what it needs and this machine does not have (data sets, pretrained files), at its
            place in the study; it can be looked at here, and not run.
        weights: names of the pretrained files that it needs, here or not.
        placed: of a search, the outcome of each trial it was made of.
    """

    study: StudyFile
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    tasks: Mapping[str, Task]
    dropped: tuple[Dropped, ...] = ()
    notices: tuple[str, ...] = ()
    absent: tuple[Problem, ...] = ()
    weights: tuple[str, ...] = ()
    placed: tuple[Placed, ...] = ()

    @property
    def study_name(self) -> str:
        """Name of the study."""
        return self.study.name
