"""`logs`: print a task's log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweepctl.cli._options import TaskPrefix
from sweepctl.cli._output import say
from sweepctl.cli._session import open_for_reading, run_folder
from sweepctl.errors import RunFolderError, UsageError
from sweepctl.plain import many

if TYPE_CHECKING:
    from sweepctl.ledger import Ledger


def logs(
    task: TaskPrefix,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log as it grows, to its end.")
    ] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Last lines; 0 for all.")] = 100,
    attempt: Annotated[
        int | None, typer.Option("--attempt", "-a", min=1, help="Number; the newest by default.")
    ] = None,
) -> None:
    """Print a task's log.

    Example: sweepctl logs stage1-0f3a -f
    """
    from sweepctl.runs import attempt_folder

    with open_for_reading() as ledger:
        found = ledger.tasks.find(task)
        tries = ledger.attempts.of(found.state.fingerprint)
        if not tries:
            raise UsageError(f"{found.state.id} was never started, so it has no log")
        number = attempt or tries[-1].number
        if number > tries[-1].number:
            raise UsageError(f"{found.state.id} has {many(len(tries), 'attempt')}, not {number}")
        path = attempt_folder(run_folder() / found.state.id, number) / "log.txt"
        recorded = next((one.log for one in tries if one.number == number), "")
        if not path.exists() and recorded:
            path = Path(recorded)
        say(f"{path}")
        place = _print_tail(path, tail)
        while follow and _is_running(ledger, found.state.fingerprint, number):
            time.sleep(0.5)
            place = _print_from(path, place)
        if follow:
            _print_from(path, place)


def _is_running(ledger: Ledger, fingerprint: str, number: int) -> bool:
    tries = {one.number: one for one in ledger.attempts.of(fingerprint)}
    return number in tries and tries[number].state == "running"


def _print_tail(path: Path, lines: int) -> int:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return 0  # dispatched, not started yet
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from error
    shown = b"".join(text.splitlines(keepends=True)[-lines:]) if lines else text
    sys.stdout.write(shown.decode(errors="replace"))
    sys.stdout.flush()
    return len(text)


def _print_from(path: Path, place: int) -> int:
    try:
        with path.open("rb") as file:
            file.seek(place)
            text = file.read()
    except OSError:
        return place  # not there yet, or moved away: what was printed stays printed
    if text:
        sys.stdout.write(text.decode(errors="replace"))
        sys.stdout.flush()
    return place + len(text)
