"""The records that go into the ledger and come out of it, as frozen dataclasses.

Nothing of the database leaves the package: no connection, no SQLAlchemy row, no URL. Plans come in
as `sweepctl.plan` defines them, results and outcomes as `sweepctl.runs` does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

TaskStateName = Literal["pending", "running", "done", "failed"]
ShownState = Literal["pending", "blocked", "running", "done", "failed"]
AttemptStateName = Literal["running", "done", "failed", "stopped", "lost"]
CellStateName = Literal["pending", "running", "done", "pruned", "failed", "blocked"]

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """How a study is submitted: what is asked, and by which code.

    Attributes:
        text: the study file as given.
        resolved: the whole study after bases, defaults and overrides; plain JSON.
        overrides: the `--set` options as given.
        argv: the command line; recorded without passwords.
        question: the question the study asks.
        git_commit: commit of the working tree; empty outside of git.
        git_dirty: whether that tree had changes.
        version: version of sweepctl.
    """

    text: str
    resolved: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    question: str = ""
    git_commit: str = ""
    git_dirty: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(Submission):
    """A recorded submission.

    Attributes:
        study: name of the study.
        number: number of the submission, from 1.
        created_at: when it was recorded.
        overlapping: cells that are measured on data they are trained on, as the study allows.
    """

    study: str
    number: int
    created_at: dt.datetime
    overlapping: int = 0

    @property
    def about_overlap(self) -> str:
        """A sentence on cells that are measured on their training data; empty without one."""
        if not self.overlapping:
            return ""
        cells = "1 cell is" if self.overlapping == 1 else f"{self.overlapping:,} cells are"
        return (
            f"{cells} measured on data that are trained on (evaluate.allow_overlap): such numbers "
            "say nothing of other data"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySummary:
    """One study and how far it is.

    Attributes:
        name: name of the study.
        question: what it asks.
        cells: number of its cells.
        counts: state, blocked included -> number of tasks; a task of several cells counts once.
        submitted_at: when its newest submission was recorded.
    """

    name: str
    question: str
    cells: int
    counts: Mapping[str, int]
    submitted_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """Where a task stands.

    Attributes:
        fingerprint: tagged hash of its identity.
        id: name of the task and of its folder.
        kind: key into `sweepctl.tasks.TASKS`.
        label: what people call it.
        state: pending, running, done or failed.
        blocked: pending, and a task it needs has failed.
        failure: class of the last failure (`sweepctl.runs.Failure`), None without one.
        message: one line on the last failure; empty without one.
        attempts: number of the newest attempt, 0 for none.
        failed_attempts: attempts that failed since the task was last reset.
        flops: floating point operations expected of the task.
        samples: images or clips it goes through, 0 where there are none.
        step: newest training step of the newest attempt, None when it reported none.
        steps: steps that attempt will do.
        loss: newest loss of that attempt.
        started_at: when the newest attempt began.
        seconds: wall time of the newest attempt, 0 while it runs.
        host: host of the newest attempt.
        device: device of the newest attempt.
        ranks: processes of the newest attempt, each with a device of its own.
    """

    fingerprint: str
    id: str
    kind: str
    label: str
    state: TaskStateName
    blocked: bool
    failure: str | None
    message: str
    attempts: int
    failed_attempts: int
    flops: float
    samples: int
    step: int | None
    steps: int | None
    loss: float | None
    started_at: dt.datetime | None
    seconds: float
    host: str
    device: str
    ranks: int

    @property
    def shown(self) -> ShownState:
        """The state in one word: blocked, or else pending, running, done or failed."""
        return "blocked" if self.blocked else self.state

    @property
    def fraction(self) -> float | None:
        """Share of the steps that the newest attempt has done, 0 to 1; None where unknown."""
        return min(1.0, self.step / self.steps) if self.step and self.steps else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """Everything the ledger holds about what a task is; how it stands is in `state`.

    Attributes:
        state: where it stands.
        identity: canonical JSON of what changes its numbers.
        parents: (role, task id) of every task it reads.
        children: ids of the tasks that read it.
        cells: (study, number of the cell, stage) that use it, newest submissions only.
        created_at: when it was first recorded.
        finished_at: when it became done or failed.
    """

    state: TaskState
    identity: str
    parents: tuple[tuple[str, str], ...]
    children: tuple[str, ...]
    cells: tuple[tuple[str, int, str], ...]
    created_at: dt.datetime
    finished_at: dt.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """A task that another one was made from, or that was made from it.

    Attributes:
        id: name of the task.
        kind: its kind.
        label: what people call it.
        state: pending, blocked, running, done or failed.
        depth: steps between them, 1 for a parent or child.
    """

    id: str
    kind: str
    label: str
    state: ShownState
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field in which two identities differ.

    Attributes:
        path: dotted path of the field.
        recorded: value of the recorded task; `MISSING` when it has no such field.
        given: value of the identity that was asked for; `MISSING` when it has no such field.
    """

    path: str
    recorded: Any
    given: Any


MISSING = "(missing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a task.

    Attributes:
        task_id: the task.
        number: from 1.
        state: running, done, failed, stopped (asked to) or lost (its driver went away).
        failure: class of the failure, None without one.
        message: one line for people.
        started_at: when it was submitted to a worker.
        ended_at: when its end was recorded; None while it runs.
        seconds: wall time of the child.
        peak_memory_bytes: largest resident size of the child, 0 where it is not known.
        flops: floating point operations done, 0 where they are not counted.
        exit_code: of the child; negative for a signal; None when it is not known.
        host: host name.
        device: torch device.
        device_name: kind of device; empty where the attempt did not report it.
        predicted_s: how long the task was expected to take when the attempt began, in seconds.
        worker: name of the worker.
        code: hash of the code that ran it.
        log: path of its log file.
        step: newest training step reported.
        steps: steps it will do.
        loss: newest loss reported.
        values: other facts of its result (`TaskResult.values`).
        provenance: where its numbers come from (`TaskResult.provenance`).
    """

    task_id: str
    number: int
    state: AttemptStateName
    failure: str | None
    message: str
    started_at: dt.datetime
    ended_at: dt.datetime | None
    seconds: float
    peak_memory_bytes: int
    flops: float
    exit_code: int | None
    host: str
    device: str
    device_name: str
    predicted_s: float | None
    worker: str
    code: str
    log: str
    step: int | None
    steps: int | None
    loss: float | None
    values: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentAttempt:
    """The newest attempt of a task that runs or has ended, and where.

    Attributes:
        task_id: the task.
        kind: its kind.
        label: what people call it.
        state: running, done or failed.
        message: one line on the last failure; empty without one.
        host: host name; empty where it is not known.
        device: torch device; empty where it is not known.
        worker: name of the worker; empty where it is not known.
        step: newest training step reported.
        steps: steps it will do.
        loss: newest loss reported.
        since: when it started, or ended; None when the task never had an attempt.
    """

    task_id: str
    kind: str
    label: str
    state: TaskStateName
    message: str
    host: str
    device: str
    worker: str
    step: int | None
    steps: int | None
    loss: float | None
    since: dt.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How long a finished task was expected to take, and took.

    Attributes:
        task_id: the task.
        kind: its kind.
        predicted_s: expected when it was submitted, in seconds.
        seconds: wall time of its one attempt.
    """

    task_id: str
    kind: str
    predicted_s: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCost:
    """What the tasks of one kind have cost, over all studies; a task counts in each that uses it.

    Attributes:
        kind: kind of the tasks.
        tasks: number of tasks.
        tasks_done: number of tasks that are done.
        attempts: number of attempts.
        seconds: wall time of all ended attempts.
        seconds_lost: wall time of attempts that failed or whose driver went away.
        flops: floating point operations expected of all tasks.
        peak_memory_bytes: largest resident size of any attempt.
        file_bytes: bytes of the files of finished results.
    """

    kind: str
    tasks: int
    tasks_done: int
    attempts: int
    seconds: float
    seconds_lost: float
    flops: float
    peak_memory_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptProgress:
    """How far a running attempt is.

    Attributes:
        fingerprint: the task.
        attempt: number of the attempt.
        step: training step (or item) reached.
        steps: steps (or items) in all.
        loss: newest loss; None when there is none.
    """

    fingerprint: str
    attempt: int
    step: int
    steps: int
    loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellState:
    """One cell of the newest submission and how its tasks stand.

    Attributes:
        index: number of the cell in its study, from 1.
        key: hash of its config.
        axes: short axis name -> value, in the study's order.
        values: the derived values that are columns of `v_cell`, p to dit_macs.
        datasets: evaluation data sets in the study's order.
        until: training step up to which a search has promoted it, None for its end.
        state: failed when a task failed, blocked when one cannot start, running when one runs,
            pending when some are not done; else done, or pruned when it did not reach its end.
        stages: stage -> state of its task, in the order in which the stages run.
    """

    index: int
    key: str
    axes: Mapping[str, Scalar]
    values: Mapping[str, Any]
    datasets: tuple[str, ...]
    until: int | None
    state: CellStateName
    stages: Mapping[str, TaskState]

    def now(self, states: Mapping[str, TaskState]) -> CellState:
        """The cell with newer states of its tasks, by fingerprint."""
        stages = {stage: states.get(task.fingerprint, task) for stage, task in self.stages.items()}
        return replace(self, stages=stages, state=cell_state(stages.values(), self.until))


def cell_state(tasks: Iterable[TaskState], until: int | None) -> CellStateName:
    """The state of a cell by those of its tasks; `CellState` says what each means."""
    names = {task.shown for task in tasks}
    for name in ("failed", "blocked", "running"):
        if name in names:
            return cast("CellStateName", name)
    if names != {"done"}:
        return "pending"
    return "done" if until is None else "pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMetric:
    """One final number of a cell, with everything that it must not be read without.

    Attributes:
        cell: number of the cell.
        stage: what the measuring task is to the cell.
        task: id of that task.
        kind: its kind.
        name: name of the metric.
        dataset: data set it was measured on.
        protocol: protocol it was measured under.
        value: the number, in the metric's unit.
        n: samples behind it.
        se: standard error, None where none is known.
    """

    cell: int
    stage: str
    task: str
    kind: str
    name: str
    dataset: str
    protocol: str
    value: float
    n: int
    se: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows with named columns.

    Attributes:
        columns: names, in order.
        rows: one tuple per row, None where there is no value.
        truncated: whether there were more rows than the limit allowed.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """One saved fit.

    Attributes:
        study: name of the study.
        name: name of the fit in the study.
        number: counts the different results saved under this name, from 1.
        created_at: when it was saved.
        condition: the SQL condition on the cells; empty for all of them.
        law: the fitted law as an equation; None for a claim and where there is none.
        n: number of configurations; None for a claim.
        slope_low: lower end of the 95 % interval of the slope; None where it is not known.
        slope_high: upper end.
        folder: where its files are kept; None when they are not.
        result: the fit as plain JSON.
    """

    study: str
    name: str
    number: int
    created_at: dt.datetime
    condition: str = ""
    law: str | None = None
    n: int | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    folder: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
