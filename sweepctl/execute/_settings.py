"""What is a run told, and what does it tell? Settings in, events on the way, a summary out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sweepctl.plan import Left, Plan, Task, Trial
from sweepctl.runs import AttemptOutcome
from sweepctl.study import Gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run; nothing of it changes a number.

    Attributes:
        folder: the run folder, `runs/`.
        where: "local", "inline", or a scheduler's address.
        workers: slots, or None for one per GPU, or each `threads` cores.
        threads: CPU threads of an attempt.
        decoders: samples that an attempt decodes at the same time; None for as many as the cores of
            its slot.
        device: torch device of an attempt, or "auto".
        grace_s: seconds an attempt has to write a checkpoint when it is stopped.
        retries: further attempts after an infrastructure failure.
        checkpoint_s: seconds between checkpoints, or "auto" for what their cost allows.
        skip_non_finite: updates that a training may leave out because they are not finite.
        timeout_s: seconds after which an attempt is ended, or None.
        memory: kind of training -> samples in memory together, "all" or "auto", and whether
            activations are recomputed, or "auto"; both "auto" for one that is absent.
        deterministic: whether GPUs use deterministic algorithms; CPUs always do.
        needs: kind of task -> how many GPUs a task gets; 1 for one that is absent.
        backoff_s: pause before the first retry; doubled each time, at most a minute.
        entry: what an attempt runs, "module:function".
        preload: what its fork server imports beforehand, "module:function".
        fail_fast: stop at the first task that fails for good.
    """

    folder: Path
    where: str = "local"
    workers: int | None = None
    threads: int = 1
    decoders: int | None = None
    device: str = "auto"
    grace_s: float = 30.0
    retries: int = 2
    checkpoint_s: float | str = "auto"
    skip_non_finite: int = 0
    timeout_s: float | None = None
    memory: Mapping[str, tuple[int | str, bool | str]] = field(default_factory=dict)
    deterministic: bool = False
    needs: Mapping[str, Gpus] = field(default_factory=dict)
    backoff_s: float = 1.0
    entry: str = "sweepctl.tasks:run"
    preload: str | None = "sweepctl.tasks:preload"
    fail_fast: bool = False


class Extend(Protocol):
    """How trials of a search become cells: the plan of some of them."""

    def __call__(self, trials: Sequence[Trial], first: int = 1) -> Plan:
        """The plan; its cells are numbered from `first`, `placed` says what each trial became."""


class Watcher(Protocol):
    """Who is told what happens; the command line prints it, tests collect it."""

    def started(self, total: int, done: int) -> None:
        """The run begins: tasks of the plan, and how many of them are done already."""

    def notice(self, text: str) -> None:
        """Something worth a line."""

    def grown(self, tasks: int, done: int) -> None:
        """A search has asked another trial: tasks there are now, and how many of them are done."""

    def submitted(self, task: Task, attempt: int) -> None:
        """An attempt was handed to the pool."""

    def progress(self, task: Task, event: Mapping[str, Any]) -> None:
        """The newest event of a running attempt."""

    def alive(self) -> None:
        """Said every few seconds while attempts run, whether or not they tell anything."""

    def left(self, left: Left) -> None:
        """How long the rest will take; said anew every few seconds while attempts run."""

    def ended(self, task: Task, outcome: AttemptOutcome, *, retry_in_s: float | None) -> None:
        """An attempt ended; `retry_in_s` says when it is tried again, None for never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run came to.

    Attributes:
        study: name of the study.
        tasks: tasks of the plan.
        done_before: of them, done when the run began (adopted ones included).
        adopted: results found on disk that a former driver had not recorded.
        finished: tasks this run finished.
        failed: (task id, failure class, message, log path) of tasks that failed for good.
        blocked: tasks that wait for a failed one.
        stopped_by: signal number that ended the run early, or None.
        seconds: wall time.
    """

    study: str
    tasks: int
    done_before: int
    adopted: int
    finished: int
    failed: tuple[tuple[str, str, str, str], ...] = ()
    blocked: int = 0
    stopped_by: int | None = None
    seconds: float = 0.0
