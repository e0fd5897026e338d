"""`why`: what a task is."""

from __future__ import annotations

from sweepctl.cli._options import Db, Json, TaskPrefix
from sweepctl.cli._output import give, give_json, shown
from sweepctl.cli._session import open_for_reading


def why(task: TaskPrefix, db: Db = None, as_json: Json = False) -> None:
    """Say what a task is, how it stands, and how it differs from the nearest recorded one.

    Example: sweepctl why stage1-0f3a
    """
    with open_for_reading(db) as ledger:
        found = ledger.tasks.find(task)
        tries = ledger.attempts.of(found.state.fingerprint)
        near = ledger.tasks.closest(found.state.kind, found.identity)
    nearest = None if near is None else near[0].state.id
    changed = () if near is None else near[1]
    if as_json:
        give_json(
            {
                "schema": 1,
                "task": found,
                "attempts": tries,
                "nearest": nearest,
                "differences": changed,
            }
        )
        return
    state = found.state
    give(f"{state.id}  {state.label}\nstate     {'blocked' if state.blocked else state.state}")
    for one in tries:
        end = f"{one.failure}: {one.message}" if one.failure else one.message
        give(f"attempt   {one.number}  {one.state}  {one.seconds:.1f} s  {end}".rstrip())
    for role, parent in found.parents:
        give(f"needs     {parent}  ({role})")
    for name, cell, stage in found.cells[:8]:
        give(f"used by   {name} cell {cell} ({stage})")
    if nearest is None:
        give(f"nearest   no other {state.kind} task was recorded")
        return
    give(f"nearest   {nearest}, which differs in")
    for difference in changed:
        give(
            f"          {difference.path}: {shown(difference.recorded)} there, "
            f"{shown(difference.given)} here"
        )
