"""How is an attempt asked to stop, and how did it end?

An attempt is asked to stop by a file in its folder: that works over whatever file system driver and
worker share, survives a driver that dies right after, and needs no connection. The file is empty,
or holds the word "hard" when no checkpoint is wanted any more.

How it ended is settled from what is left of it: outcome.json, which the entry writes last and which
is believed when it is there; else the exit code, our own wish to end it, and the kernel's count of
processes it killed for memory. The same function settles attempts in a child process, attempts in
this process, and attempts whose worker is gone.
"""

from __future__ import annotations

import contextlib
import errno
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sweepctl.errors import RunFolderError
from sweepctl.runs import AttemptOutcome, AttemptRequest, Failure, attempt_folder, read_json

Asked = Literal["stop", "timeout"]
"""Why we ended an attempt ourselves."""

_HARD = b"hard\n"
_TAIL_BYTES = 4096
_MESSAGE_CHARS = 400
_INTERRUPTED_CODES = (128 + signal.SIGINT, -signal.SIGINT)
_ASKED_CODES = (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL)


def folder_of(request: AttemptRequest) -> Path:
    """attempts/<n> of a request."""
    return attempt_folder(Path(request.folder), request.attempt)


def make_ready(request: AttemptRequest) -> None:
    """Make the attempt's folder and take away what an earlier attempt of that number left there.

    A ledger that was deleted counts its attempts from 1 again: an old outcome.json must not be
    taken for the new one, nor an old stop file for a wish.

    Raises:
        RunFolderError: the folder cannot be made or written.
    """
    folder = folder_of(request)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("stop", "started", "outcome.json"):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot prepare {folder}: {error.strerror or error}",
            hint="make the folder writable, or choose another one with --runs",
        ) from error


def claim(request: AttemptRequest, who: str) -> bool:
    """Whether `who` is the first to start this attempt; leaves the file `started` with that name.

    A scheduler whose worker died may hand the same attempt to another worker, on its own account.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    path = folder_of(request) / "started"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(f"{who}\n")
    except FileExistsError:
        return False
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}",
            hint="workers need the same files as the driver, at the same path",
        ) from error
    return True


def ask_to_stop(request: AttemptRequest, *, hard: bool) -> None:
    """Leave the stop file; a hard one replaces a soft one, never the other way round.

    Raises:
        RunFolderError: the file cannot be written.
    """
    path = folder_of(request) / "stop"
    try:
        with path.open("ab") as file:
            if hard:
                file.write(_HARD)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}",
            hint="end the attempt's process by hand; its checkpoint is kept",
        ) from error


def stop_asked(request: AttemptRequest) -> Literal["soft", "hard"] | None:
    """What the stop file says; opened, not only looked up, or NFS would answer from its cache."""
    try:
        return "hard" if _HARD in (folder_of(request) / "stop").read_bytes() else "soft"
    except OSError:
        # No file, or a file system that does not answer now: the next look will tell.
        return None


def settle(
    request: AttemptRequest,
    *,
    code: int | None,
    asked: Asked | None = None,
    out_of_memory: bool = False,
    seconds: float = 0.0,
    peak_memory_bytes: int = 0,
    host: str = "",
    worker: str = "",
    lost: tuple[Failure, str] | None = None,
) -> AttemptOutcome:
    """How an attempt ended, from what is left of it.

    Args:
        request: what was to be run.
        code: exit code of the child, negative for a signal; None when nobody saw it end.
        asked: why we ended it ourselves, if we did.
        out_of_memory: the kernel killed a process for memory meanwhile.
        seconds: wall time of the child.
        peak_memory_bytes: largest resident size of the child, 0 where it is not known.
        host: host name.
        worker: name of the worker.
        lost: class and message to use when there is neither outcome nor exit code.
    """
    seen = AttemptOutcome(
        task_id=request.task_id,
        attempt=request.attempt,
        state="failed",
        failure="error",
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        exit_code=code,
        host=host,
        worker=worker,
    )
    own, damage = _own_words(request)
    if own is not None and (asked != "timeout" or own.state == "done"):
        # Several processes know the sum of their memory; what was seen is that of the largest.
        peak_bytes = max(peak_memory_bytes, own.peak_memory_bytes)
        failure = own.failure
        if failure == "killed" and out_of_memory:
            failure = "out_of_memory"  # one of its processes, and the kernel counts it
        # The child does not know whose it is, and which machine to look after is what matters.
        where = f"worker {worker} on {host}: " if failure == "no_device" else ""
        return replace(
            seen,
            state=own.state,
            failure=failure,
            message=f"{where}{own.message}",
            peak_memory_bytes=peak_bytes,
        )
    if asked == "timeout":
        message = f"ended after {seconds:.1f} s; its time limit is {request.timeout_s:g} s"
        return replace(seen, failure="timeout", message=message)
    if code in _INTERRUPTED_CODES:
        message = "interrupted by SIGINT before it wrote a checkpoint of its own accord"
        return replace(seen, state="stopped", failure=None, message=message)
    if asked == "stop" and code in _ASKED_CODES:
        message = "ended before it wrote a checkpoint of its own accord"
        return replace(seen, state="stopped", failure=None, message=message)
    if code is None:
        failure, message = lost or ("worker_lost", "the worker is gone")
        return replace(seen, failure=failure, message=message)
    if code == -signal.SIGKILL and out_of_memory:
        peak = f"{peak_memory_bytes / 2**30:.1f} GiB"
        message = f"killed by the kernel: out of memory (largest resident size {peak})"
        return replace(seen, failure="out_of_memory", message=message)
    if code == errno.ENOSPC:
        # The entry's way to say it when not even an outcome.json could be written.
        return replace(seen, failure="disk_full", message="the disk is full")
    if code < 0:
        return replace(seen, failure="killed", message=f"killed by {_signal_name(-code)}")
    ended = damage or (f"exit code {code}" if code else "ended without an outcome.json")
    last = last_line(folder_of(request) / "log.txt")
    return replace(seen, message=f"{ended}; the log ends: {last}" if last else ended)


def _own_words(request: AttemptRequest) -> tuple[AttemptOutcome | None, str]:
    path = folder_of(request) / "outcome.json"
    if not path.exists():
        return None, ""
    try:
        outcome = outcome_from(read_json(path))
    except RunFolderError as error:
        return None, error.message
    except (TypeError, ValueError) as error:
        return None, f"{path} is not an outcome: {error}"
    if (outcome.task_id, outcome.attempt) != (request.task_id, request.attempt):
        return None, f"{path.name} is of {outcome.task_id} attempt {outcome.attempt}"
    return outcome, ""


def outcome_from(plain: Mapping[str, Any]) -> AttemptOutcome:
    """An outcome from its JSON form.

    Raises:
        TypeError: fields are missing or unknown.
        ValueError: the state is not one of done, failed, stopped, or does not fit the failure.
    """
    outcome = AttemptOutcome(**plain)
    if outcome.state not in ("done", "failed", "stopped"):
        raise ValueError(f"state {outcome.state!r} is not done, failed or stopped")
    if (outcome.state == "failed") != (outcome.failure is not None):
        raise ValueError(f"state {outcome.state!r} with failure {outcome.failure!r}")
    return outcome


def last_line(path: Path) -> str:
    """The last line of a log that says something, shortened; empty when there is none.

    The last line of a Python traceback is the one that names the error.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:_MESSAGE_CHARS] if lines else ""


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"signal {number} ({signal.Signals(number).name})"
    return f"signal {number}"


def kernel_oom_kills() -> int:
    """How many processes the kernel has killed for memory so far, where it tells; else 0.

    The largest of three counters: the host's (/proc/vmstat) and those of this process's memory
    cgroup (version 2 and 1), because a container may hide any of them.
    """
    counts = [0]
    for path in (Path("/proc/vmstat"), *_cgroup_files()):
        # A counter that is not there says nothing; the others may.
        with contextlib.suppress(OSError):
            counts += [int(n) for n in re.findall(r"^oom_kill (\d+)$", path.read_text(), re.M)]
    return max(counts)


def _cgroup_files() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = Path("/sys/fs/cgroup"), "memory.events"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.oom_control"
        else:
            continue
        # Inside a container the path may be the host's; the container's own root is mounted then.
        found += [root / path.lstrip("/") / name, root / name]
    return found
