"""The site file: where this machine keeps its database, folders, data sets and workers.

Studies are portable and hold no paths, hosts or secrets; those live here. Which file applies is
found by the command line, whose options win over it.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from sweepctl.clusters import find_cluster
from sweepctl.errors import Problem, StudyError, SweepctlError, UsageError
from sweepctl.study._values import NAME, Flag, Number, Strict, Text, Whole
from sweepctl.study._words import in_words
from sweepctl.study._yaml import read
from vitok_core.sources import SOURCES

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
"""What a device may be called."""


def _is_place(place: str) -> str:
    if not place.strip() or re.search(r"[\x00-\x1f\x7f]", place):
        raise ValueError(f"needs the name of a place, not {place[:60]!r}")
    return place


Place = Annotated[Text, AfterValidator(_is_place)]
"""A path, a pattern of paths or a URL."""


class Workers(Strict):
    """Where attempts run.

    Attributes:
        where: "local" (worker processes here), "inline" (in this process), or a scheduler's
            address, tcp://... or tls://...
        count: slots of "local"; by default one per GPU, else one for each `threads` cores.
        threads: CPU threads an attempt may use.
        decoders: pictures or clips an attempt decodes at the same time, when it prepares or streams
            a data set; by default one for each core of its slot (the machine's cores, divided by
            the slots there).
        device: torch device of an attempt: "auto" takes a GPU when there is one.
        grace_s: seconds an attempt has to write a checkpoint when it is stopped.
    """

    where: Text = "local"
    count: Annotated[Whole, Field(ge=1, le=4096)] | None = None
    threads: Annotated[Whole, Field(ge=1, le=1024)] = 1
    decoders: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    device: Text = "auto"
    grace_s: Annotated[Number, Field(gt=0)] = 30.0

    @field_validator("where")
    @classmethod
    def _known_cluster(cls, where: str) -> str:
        find_cluster(where)
        return where

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(DEVICE, device):
            raise ValueError(f"a device is auto, cpu, cuda or cuda:NUMBER, not {device[:60]!r}")
        return device


class _OwnSet(Strict):
    """A data set of the user's. Relative paths start at the site file.

    One key more says of what kind it is and where, see `vitok_core.sources`.

    Attributes:
        crop: how a picture becomes a square: "adm" as in guided diffusion and DiT, or "center" as
            in torchvision.
        labels: whether classes are read; without, every label is 0.
        broken: share of the files that may be broken; they are skipped and listed.
        split: of a Hugging Face data set.
        revision: commit of a Hugging Face repository, 40 hex digits.
        image: column of the pictures of a Hugging Face data set.
        label: column of its labels.
    """

    crop: Annotated[
        Literal["adm", "center"],
        # As the first version spelled it; such site files stay valid.
        BeforeValidator(lambda value: "center" if value == "centre" else value),
    ] = "adm"
    labels: Flag = True
    broken: Annotated[Number, Field(ge=0, le=1)] = 0.01
    split: Text | None = None
    revision: Text | None = None
    image: Text = "image"
    label: Text = "label"

    @model_validator(mode="after")
    def _one_source(self) -> _OwnSet:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a data set has one of {', '.join(SOURCES)}, and here is "
                f"{' and '.join(given) or 'none'}"
            )
        return self

    _written: Problem | None = PrivateAttr(None)

    def mistake(self, message: str) -> SweepctlError:
        """What is wrong with this entry, as an error at its place if it stands in a file."""
        if self._written is None:
            return UsageError(message)
        return StudyError([dataclasses.replace(self._written, message=message)])

    @property
    def kind(self) -> str:
        """Which of the keys of `SOURCES` it has."""
        return next(name for name in SOURCES if getattr(self, name) is not None)

    @property
    def place(self) -> str:
        """Where it is."""
        return str(getattr(self, self.kind))

    def seen_from(self, folder: Path) -> _OwnSet:
        """The same with an absolute place; relative ones start at `folder`."""
        if SOURCES[self.kind].on_a_hub and not self.place.startswith(("/", ".", "~")):
            return self
        if "://" in self.place:
            return self  # refused by whoever reads it
        return self.model_copy(
            update={self.kind: str(folder.absolute() / Path(self.place).expanduser())}
        )


if TYPE_CHECKING:
    OwnSet = _OwnSet
else:
    _PLACES: dict[str, Any] = dict.fromkeys(SOURCES, (Place | None, None))
    OwnSet = create_model("OwnSet", __base__=_OwnSet, __doc__=_OwnSet.__doc__, **_PLACES)


class Site(Strict):
    """What the site file may say.

    Attributes:
        database: URL of the ledger, or the path of a SQLite file.
        runs: folder of the task folders.
        datasets: the user's data sets, by the name that studies call them.
        workers: where attempts run.
    """

    database: Place | None = None
    runs: Place | None = None
    datasets: dict[Annotated[str, Field(pattern=NAME)], OwnSet] = Field(default_factory=dict)
    workers: Workers = Workers()


def load_site(file: Path) -> Site:
    """Read a site file.

    Raises:
        StudyError: the file is missing or wrong, with every problem found.
    """
    document = read(file, str(file), "site file")
    if document.problems:
        raise StudyError(document.problems)
    try:
        site = Site.model_validate(document.data)
    except ValidationError as error:
        problems: list[Problem] = []
        for wrong in error.errors():
            of_key = wrong["loc"][-1:] == ("[key]",)
            where = wrong["loc"][:-1] if of_key else wrong["loc"]
            prefer_key = of_key or wrong["type"] == "extra_forbidden"
            said = in_words(dict(wrong), Site)
            problems.append(document.problem(where, said, prefer_key=prefer_key))
        raise StudyError(problems) from None
    own: dict[str, OwnSet] = {}
    for name, one in site.datasets.items():
        try:
            own[name] = one.seen_from(file.parent)
        except RuntimeError:
            said = (
                f"{one.place} has no meaning: this user has no home folder; write the path in full"
            )
            raise StudyError([document.problem(("datasets", name, one.kind), said)]) from None
    for name, one in own.items():
        one._written = document.problem(("datasets", name), "", prefer_key=True)
    return site.model_copy(update={"datasets": own})
