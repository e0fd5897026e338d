"""`retry`: give failed tasks another attempt."""

from __future__ import annotations

from typing import Annotated

import typer

from sweepctl.cli._output import give, say
from sweepctl.cli._session import database
from sweepctl.plain import many


def retry(
    what: Annotated[
        str, typer.Argument(metavar="STUDY|TASK", help="A study, or the beginning of a task's id.")
    ],
) -> None:
    """Give failed tasks another attempt at the next `sweepctl run`.

    Example: sweepctl retry quickstart
    """
    from sweepctl.ledger import open_ledger

    with open_ledger(database(), create=False) as ledger:
        if what in ledger.studies.names():
            states = ledger.tasks.states(study=what).values()
        else:
            states = [ledger.tasks.find(what).state]  # type: ignore[assignment]  # a list will do
        again = [state for state in states if state.state == "failed"]
        ledger.tasks.reset([state.fingerprint for state in again])
    for state in again:
        give(state.id)
    say(f"{many(len(again), 'failed task')} of {what} will be tried again by `sweepctl run`")
