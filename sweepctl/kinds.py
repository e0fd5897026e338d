"""The kinds of tasks: one record per kind, from which every list of kinds or stages is derived.

A cell goes through the kinds in the order of `KINDS`. What is derived from the table is computed
when it is asked for, so a kind can be added from outside before the first plan is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the program has to know about one kind of task.

    Attributes:
        name: of the kind; part of each identity, of folder names and of a cell's stage names.
        work: what its tasks do: prepare data, train, compute something from weights, or measure.
        priority: which task is started first when several are ready; the lowest goes first.
        version: bumped by hand when the code of the kind changes what it computes; part of each
            identity.
        group: dotted path of its settings in the config; "" without settings of its own.
        switches: settings of which none is null in a cell that has the group; the first is the one
            that turns it on. Empty for a kind that every cell has.
        absent: what is said of a study in which no cell has it.
        in_only: whether `only` may name it; other kinds follow from those.
        weights: role that the weights it leaves play for the tasks that read them; "" without.
        measures: role of the weights that it measures; "" for kinds that do not measure.
        pictures: which pictures it leaves, by the names that the dashboard shows them under.
        in_ranks: whether several processes, each with a GPU of its own, can do one task together.
    """

    name: str
    work: Literal["prepare", "train", "compute", "measure"]
    priority: int
    version: int = 1
    group: str = ""
    switches: tuple[str, ...] = ()
    absent: str = ""
    in_only: bool = False
    weights: str = ""
    measures: str = ""
    pictures: tuple[str, ...] = ("original", "reconstruction")
    in_ranks: bool = False


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="prepare", work="prepare", priority=0, version=2),
        Kind(name="reference", work="prepare", priority=1, in_ranks=True),
        Kind(
            name="stage1",
            work="train",
            priority=7,
            group="stages.stage1",
            in_only=True,
            weights="tokenizer",
            in_ranks=True,
        ),
        Kind(
            name="stage2",
            work="train",
            priority=6,
            group="stages.stage2",
            switches=("stages.stage2.steps",),
            absent="no cell has stage 2",
            in_only=True,
            weights="tokenizer",
            in_ranks=True,
        ),
        Kind(
            name="latents",
            work="compute",
            priority=5,
            group="stages.latents",
            switches=("stages.dit.steps",),
            absent="no cell has a DiT",
            in_ranks=True,
        ),
        Kind(
            name="dit",
            work="train",
            priority=4,
            group="stages.dit",
            switches=("stages.dit.steps",),
            absent="no cell has a DiT",
            in_only=True,
            weights="dit",
            in_ranks=True,
        ),
        Kind(
            name="reconstruct",
            work="measure",
            priority=2,
            group="evaluate.reconstruction",
            in_only=True,
            measures="tokenizer",
            in_ranks=True,
        ),
        Kind(
            name="generate",
            work="measure",
            priority=3,
            group="evaluate.generation",
            switches=("evaluate.generation.images", "stages.dit.steps"),
            absent="no cell makes samples",
            in_only=True,
            measures="dit",
            pictures=("sample",),
            in_ranks=True,
        ),
    )
}
"""Name -> kind, in the order in which a cell goes through them.

Priority: first what all cells share, then what finishes a cell, then trainings from the end of the
flow to its beginning."""


def trainings(weights: str = "") -> tuple[str, ...]:
    """The kinds that train, in order; with a role, those whose weights play it."""
    kinds = [kind for kind in KINDS.values() if kind.work == "train"]
    return tuple([kind.name for kind in kinds if weights in ("", kind.weights)])


def in_ranks() -> tuple[str, ...]:
    """The kinds whose tasks several GPUs can do together, in order."""
    return tuple(kind.name for kind in KINDS.values() if kind.in_ranks)


def trainings_behind(name: str) -> tuple[str, ...]:
    """The trainings behind a number that a kind measures: up to the weights it looks at."""
    measured = KINDS[name].measures if name in KINDS else ""  # a ledger may know more kinds
    order = trainings()
    last = max(map(order.index, trainings(measured)), default=-1) if measured else -1
    return order[: last + 1]


def measuring() -> tuple[Kind, ...]:
    """The kinds that measure, in order."""
    return tuple(kind for kind in KINDS.values() if kind.work == "measure")


def measuring_kind(group: str) -> Kind:
    """The kind that measures by the settings of a group of `evaluate`, for example "generation"."""
    return next(kind for kind in measuring() if kind.group == f"evaluate.{group}")


def optional_groups() -> dict[str, Kind]:
    """Groups of the config that a cell may be without -> the kind they belong to.

    A group is on when none of the kind's `switches` is null. One that is off is part of no
    identity, whatever else stands in it.
    """
    return {kind.group: kind for kind in KINDS.values() if kind.switches}


# --- names of a cell's stages -----------------------------------------------------------------


def kind_of(stage: str) -> str:
    """The kind of a stage of a cell, for example "reconstruct" of "reconstruct:digits@100"."""
    return stage.partition("@")[0].partition(":")[0]


def final_measurements(stages: Mapping[str, str]) -> dict[str, str]:
    """Those of a cell's stages that measure it at its end, not at a rung of a search.

    Args:
        stages: name of the stage -> its task.
    """
    names = {kind.name for kind in measuring()}
    return {
        stage: task
        for stage, task in stages.items()
        if "@" not in stage and kind_of(stage) in names
    }
