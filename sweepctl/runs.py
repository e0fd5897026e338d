"""What does a task leave on disk? The files of a task, their names and how they are written.

Files are the truth of an attempt, the ledger is the truth of the study. One folder a task:

    runs/<task id>/
        task.json                frozen when the task is first submitted
        attempts/<n>/log.txt     everything the child process printed
        attempts/<n>/log-<r>.txt     the same of process r of several, from 1
        attempts/<n>/events.jsonl    progress, one JSON object a line
        attempts/<n>/outcome.json    how the attempt ended, in the child's own words
        attempts/<n>/started     which worker took the attempt; no second one may
        attempts/<n>/stop        exists when the attempt is asked to checkpoint and stop
        fitted.json              how many samples of a training fitted the device
        fitted.json              how many samples of a training fitted the device
        checkpoints/             resume state, see vitok_core.train
        result.json              written once, by the attempt that finished the task
        ...                      weights, arrays and pictures named in result.json

Every file is written under a temporary name, fsynced and renamed, so a reader never sees half of
one. What crosses a process border is one of the dataclasses below, as JSON.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweepctl.errors import RunFolderError, UsageError
from sweepctl.plain import to_json
from vitok_core.files import sha256_of, write_bytes

RESULT_SCHEMA = 1

Failure = Literal[
    "error",
    "non_finite",
    "out_of_memory",
    "disk_full",
    "no_device",
    "killed",
    "worker_lost",
    "timeout",
]
"""Why an attempt failed; key of `FAILURES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureClass:
    """What follows from a class of failure.

    Attributes:
        when: what happened, for people.
        is_retried: whether another attempt may well succeed: it is made in the same run, after a
            pause.
        is_reset: whether it says nothing about the task, so that the next `run` tries it again
            without `sweepctl retry`.
    """

    when: str
    is_retried: bool = False
    is_reset: bool = False


FAILURES: Mapping[Failure, FailureClass] = {
    "error": FailureClass(when="an exception: trying again would give the same"),
    "non_finite": FailureClass(when="loss or gradient is not a number; no update was made"),
    "out_of_memory": FailureClass(
        when="torch or Python said so, or the kernel killed it for memory", is_retried=True
    ),
    "disk_full": FailureClass(when="ENOSPC or a quota", is_reset=True),
    "no_device": FailureClass(
        when="the GPU of an attempt cannot be used, or is gone", is_retried=True, is_reset=True
    ),
    "killed": FailureClass(
        when="the child died by a signal that was not ours", is_retried=True, is_reset=True
    ),
    "worker_lost": FailureClass(
        when="the worker process or its machine is gone", is_retried=True, is_reset=True
    ),
    "timeout": FailureClass(when="longer than `run: {timeout_s: ...}`", is_reset=True),
}
"""Every class of failure."""

NOT_ITS_FAULT = frozenset(name for name, one in FAILURES.items() if one.is_reset)
"""Failures that say nothing about the task: the next `run` tries it again by itself."""

State = Literal["done", "failed", "stopped"]
"""How an attempt ended; `stopped` means asked to, with a checkpoint, and is no failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a training fitted the memory of a device.

    Attributes:
        device_name: kind of device.
        memory_bytes: of the device; 0 for a CPU.
        ranks: processes that shared a step.
        micro_batch: samples in memory together; None for all of a process.
        recompute: whether activations were recomputed.
        peak_bytes: most memory of the device that it took; None before its end and on a CPU.
        free_bytes: memory of the device that was free when it began; None on a CPU.
    """

    device_name: str
    memory_bytes: int
    ranks: int
    micro_batch: int | None
    recompute: bool
    peak_bytes: int | None = None
    free_bytes: int | None = None


FITTED_FILE = "fitted.json"
"""A `Fitted` in a task's folder, of its newest attempt that got as far as a step."""


def read_fitted(task_folder: Path) -> Fitted | None:
    """What the newest attempt of a training found out about memory; None where there is none."""
    path = task_folder / FITTED_FILE
    if not path.exists():
        return None
    try:
        return Fitted(**read_json(path))
    except (RunFolderError, TypeError):
        return None  # damaged: the next attempt finds it out again


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRequest:
    """What a worker is told to run.

    Attributes:
        task_id: name of the task and of its folder, for example "stage1-0f3a52c1d2e4b6a8".
        kind: key into `sweepctl.tasks.TASKS`.
        folder: absolute path of runs/<task id>.
        attempt: number of this attempt, from 1.
        threads: CPU threads the child may use, at least 1.
        checkpoint_s: seconds between checkpoints, or "auto" for what their cost allows.
        skip_non_finite: updates that a training may leave out because they are not finite.
        timeout_s: seconds after which the attempt is ended, or None.
        micro_batch: samples of a training step in memory together, "all", or "auto" for what fits.
        recompute: whether a training recomputes activations, or "auto".
        deterministic: whether a GPU uses deterministic algorithms; a CPU always does.
        device: torch device string, or "auto".
        fitted: what fitted devices in earlier trainings of the same memory; `Fitted` as plain data.
        decoders: samples that are decoded at the same time; None for one for each core of its slot.
        slots: of the worker's machine, which share its cores; the pool says how many.
        ranks: processes that work on it together, each with a GPU or a slot of its own.
        devices: ids of the GPUs that it may use, given by the worker; empty for what it sees.
    """

    task_id: str
    kind: str
    folder: str
    attempt: int
    threads: int = 1
    checkpoint_s: float | str = "auto"
    skip_non_finite: int = 0
    timeout_s: float | None = None
    micro_batch: int | str = "auto"
    recompute: bool | str = "auto"
    deterministic: bool = False
    device: str = "auto"
    decoders: int | None = None
    slots: int = 1
    fitted: tuple[Mapping[str, Any], ...] = ()
    ranks: int = 1
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """How an attempt ended, as the driver is told.

    Attributes:
        task_id: the task.
        attempt: the attempt's number.
        state: done, failed or stopped.
        failure: class of the failure; None unless `state` is "failed".
        message: one line for people; empty when done.
        seconds: wall time of the child.
        peak_memory_bytes: largest resident size of the child, of several processes the sum; 0 where
            it is not known.
        exit_code: of the child; negative for a signal; None when there was no child.
        host: host name.
        worker: name of the worker that ran it.
    """

    task_id: str
    attempt: int
    state: State
    failure: Failure | None = None
    message: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    exit_code: int | None = None
    host: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """One measured number.

    Attributes:
        name: key into `vitok_core.protocols.METRICS`, for example "psnr".
        dataset: name of the data set it was measured on.
        protocol: name of the protocol it was measured under.
        value: the number, in the metric's unit; always finite.
        n: number of samples behind it.
        step: training step of the weights; None for the end of training.
        se: standard error of the value, in its unit; None where none is known.
    """

    name: str
    dataset: str
    protocol: str
    value: float
    n: int
    step: int | None = None
    se: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a finished task: name relative to its folder, size in bytes, SHA-256 (hex)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What a finished task leaves in result.json.

    Attributes:
        fingerprint: the task's identity; must equal the one in task.json.
        attempt: number of the attempt that finished it.
        metrics: measured numbers.
        files: the files that belong to the result.
        values: other facts worth keeping (plain JSON), for example the last loss.
        provenance: where the numbers come from: git commit, versions, device, host, environment.
        seconds: wall time of the finishing attempt.
        peak_memory_bytes: largest resident size of the finishing attempt, of several processes the
            sum.
        flops: floating point operations of all its attempts, 0 where they are not counted.
    """

    fingerprint: str
    attempt: int
    metrics: tuple[MetricValue, ...] = ()
    files: tuple[FileRecord, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    flops: int = 0


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one, the new one, or none; never a half.

    Raises:
        RunFolderError: the folder cannot be written.
        OSError: with errno ENOSPC when the disk is full, so that callers can tell.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}",
            hint="make the folder writable, or choose another one with --runs",
        ) from error


def write_chosen(path: Path, data: bytes) -> None:
    """Write a file that the user has named by -o, atomically.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        write_atomic(path, data)
    except (OSError, RunFolderError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        why = getattr(cause, "strerror", None) or cause
        raise UsageError(
            f"cannot write {path}: {why}", hint="choose another file with -o"
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write plain data (dataclasses included) as strict JSON, atomically.

    Raises:
        ValueError: the value holds NaN or infinity.
        RunFolderError: see `write_atomic`.
    """
    write_atomic(path, to_json(value, indent=1).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        RunFolderError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} does not exist") from error
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RunFolderError(
            f"{path} is damaged: {error}",
            hint="move the task's folder away and run again; the task will be made anew",
        ) from error


def file_record(folder: Path, name: str) -> FileRecord:
    """Size and hash of one file of a task's folder."""
    path = folder / name
    return FileRecord(name=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def attempt_folder(task_folder: Path, attempt: int) -> Path:
    """Where one attempt keeps its log, events and outcome."""
    return task_folder / "attempts" / str(attempt)


def read_result(task_folder: Path, fingerprint: str) -> TaskResult | None:
    """The finished result in a task's folder, or None when there is none to trust.

    A result counts only if it is whole, carries the expected fingerprint, and each of its files is
    there with the recorded size. Content hashes are not read again here: that would cost minutes
    for large caches; readers of a file check its hash when they open it.
    """
    path = task_folder / "result.json"
    if not path.exists():
        return None
    try:
        raw = read_json(path)
        if raw.get("schema") != RESULT_SCHEMA or raw["fingerprint"] != fingerprint:
            return None
        files = tuple(FileRecord(**entry) for entry in raw["files"])
        for record in files:
            if (task_folder / record.name).stat().st_size != record.bytes:
                return None
        return TaskResult(
            fingerprint=raw["fingerprint"],
            attempt=raw["attempt"],
            metrics=tuple(MetricValue(**entry) for entry in raw["metrics"]),
            files=files,
            values=raw["values"],
            provenance=raw["provenance"],
            seconds=raw["seconds"],
            peak_memory_bytes=raw["peak_memory_bytes"],
            flops=raw["flops"],
        )
    except (RunFolderError, KeyError, TypeError, AttributeError, OSError):
        # A result that cannot be read whole is as good as none: the task runs again.
        return None


def write_result(task_folder: Path, result: TaskResult) -> None:
    """Write result.json, the last file of a task: its presence says that the task is finished."""
    write_json(task_folder / "result.json", {"schema": RESULT_SCHEMA, **dataclasses.asdict(result)})


def append_event(path: Path, event: Mapping[str, object]) -> None:
    """Add one line to events.jsonl; a line is written by one call, so readers see whole lines."""
    line = json.dumps(event, allow_nan=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def last_event(path: Path) -> dict[str, Any] | None:
    """The newest whole line of an events.jsonl, or None; reads the end of the file only."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines[:-1]):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            return event
    return None
