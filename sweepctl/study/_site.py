"""Where does this machine keep things? The user's site file: database, folders, workers.

Studies are portable and hold no paths, hosts or secrets; those live here. Which file applies is
found by the command line, whose options win over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from sweepctl.errors import Problem, StudyError
from sweepctl.study._model import Number, Strict, Text, Whole
from sweepctl.study._words import in_words
from sweepctl.study._yaml import read

DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
"""What a device may be called."""


class Workers(Strict):
    """Where attempts run.

    Attributes:
        where: "local" (worker processes here), "inline" (in this process), or a scheduler's
            address, tcp://... or tls://...
        count: worker processes of "local"; by default one a GPU, else one for each `threads` cores.
        threads: CPU threads an attempt may use.
        device: torch device of an attempt: "auto" takes a GPU when there is one.
        grace_s: seconds an attempt has to write a checkpoint when it is stopped.
    """

    where: Annotated[Text, Field(pattern=r"^(local|inline|(tcp|tls)://.+)$")] = "local"
    count: Annotated[Whole, Field(ge=1, le=4096)] | None = None
    threads: Annotated[Whole, Field(ge=1, le=1024)] = 1
    device: Annotated[Text, Field(pattern=DEVICE)] = "auto"
    grace_s: Annotated[Number, Field(gt=0)] = 30.0


class Site(Strict):
    """What the site file may say.

    Attributes:
        database: URL of the ledger, or the path of a SQLite file.
        runs: folder of the task folders.
        workers: where attempts run.
    """

    database: Text | None = None
    runs: Text | None = None
    workers: Workers = Workers()


def load_site(file: Path) -> Site:
    """Read a site file.

    Raises:
        StudyError: the file is missing or wrong, with every problem found.
    """
    document = read(file, str(file))
    if document.problems:
        raise StudyError(document.problems)
    try:
        return Site.model_validate(document.data)
    except ValidationError as error:
        problems: list[Problem] = []
        for wrong in error.errors():
            prefer_key = wrong["type"] == "extra_forbidden"
            said = in_words({**wrong, "loc": ("", *wrong["loc"])})
            problems.append(document.problem(wrong["loc"], said, prefer_key=prefer_key))
        raise StudyError(problems) from None
