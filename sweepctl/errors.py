"""What can go wrong, in words a user can act on.

The tree, with the exit code of `sweepctl` beside each leaf:

    SweepctlError            1   anything we can explain
    ├── UsageError           2   the command line asks for something that is not there
    ├── StudyError           3   the study file is wrong: every problem with file:line:column
    ├── TasksFailed          4   the run ended, some tasks did not
    ├── UnreachableError     5   the cluster or the database cannot be reached
    ├── LedgerError          1   the database is there but cannot be used as it is
    ├── RunFolderError       1   a file of a run is missing, damaged or not writable
    └── DriverBusy          75   another driver works in the same run folder

An error says what was given, what is allowed and what to do next. The command line catches
`SweepctlError` only and prints it without a traceback; anything else is a bug of ours and keeps its
traceback.
"""

from __future__ import annotations

from dataclasses import dataclass

from sweepctl.secrets import hidden


class SweepctlError(Exception):
    """Anything sweepctl can explain to its user.

    Args:
        message: what was given and why it cannot be done.
        hint: what to do next; printed on a line of its own.

    Passwords and tokens in either are hidden, whoever prints or stores it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = hidden(message)
        self.hint = None if hint is None else hidden(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class UsageError(SweepctlError):
    """The command line names something that does not exist or options that exclude each other."""

    exit_code = 2


PROBLEMS_SHOWN = 50
"""Most problems of a study that are printed; all of them are in `StudyError.problems`."""

SOURCE_SHOWN = 160
"""Most characters of a line of the study that are printed with a problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a study, with its place.

    Attributes:
        place: "file:line:column" (lines and columns from 1), or "--set" for the command line.
        path: dotted path into the study, empty for the file as a whole.
        message: what was given and what is allowed.
        source: the offending line of the file; empty when there is none.
        column: column of the caret in `source`, from 1.
        width: number of characters to underline, at least 1.
    """

    place: str
    path: str
    message: str
    source: str = ""
    column: int = 1
    width: int = 1

    def __str__(self) -> str:
        named = f"{self.path}: " if self.path else ""
        text = f"{self.place}: {named}{self.message}"
        if not self.source or hidden(self.source) != self.source:
            return text  # the line holds a password: its place has to do
        number = self.place.rsplit(":", 2)[-2].rjust(5)
        # Of a long line only the part around the caret helps.
        start = max(0, self.column - SOURCE_SHOWN // 2) if len(self.source) > SOURCE_SHOWN else 0
        source = "".join(map(_shown, self.source[start : start + SOURCE_SHOWN]))
        before = source[: self.column - 1 - start]
        width = min(self.width, SOURCE_SHOWN - len(before))
        # The caret line repeats the tabs of the source line so that both stay aligned.
        lead = "".join("\t" if char == "\t" else " " for char in before)
        return f"{text}\n{number} | {source}\n      | {lead}{'^' * width}"


def _shown(char: str) -> str:
    """A character of a source line as a terminal may have it: one column, no control codes."""
    return char if char.isprintable() or char == "\t" else "\ufffd"


class StudyError(SweepctlError):
    """A study file that cannot be run; carries every problem found, not only the first.

    Args:
        problems: the problems in the order of the file.
    """

    exit_code = 3

    def __init__(self, problems: list[Problem]) -> None:
        said = [str(problem) for problem in problems[:PROBLEMS_SHOWN]]
        if len(problems) > PROBLEMS_SHOWN:
            said.append(f"... and {len(problems) - PROBLEMS_SHOWN:,} more")
        super().__init__("\n".join(said))
        self.problems = problems


class TasksFailed(SweepctlError):
    """A run that ended with failed tasks; their descendants were not started."""

    exit_code = 4


class UnreachableError(SweepctlError):
    """The cluster or the database does not answer."""

    exit_code = 5


class LedgerError(SweepctlError):
    """The results database is corrupt, newer than this sweepctl, or refuses the statement."""


class RunFolderError(SweepctlError):
    """A file of a run folder is missing, damaged or cannot be written."""


class DriverBusy(SweepctlError):
    """Another `sweepctl run` works in the same run folder."""

    exit_code = 75
