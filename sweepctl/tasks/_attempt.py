"""One attempt in a child process: the kind's function is run, and its outcome is left on disk.

`run` is what a worker's child process executes for an attempt: it reads the frozen task.json, calls
the kind's function with the folders of the task's parents, writes result.json when that succeeds
and, in any case, outcome.json. An attempt of several ranks does so in as many processes (`_gang`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import platform
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from sweepctl import runs
from sweepctl.errors import SweepctlError
from sweepctl.kinds import trainings
from sweepctl.runs import AttemptOutcome, AttemptRequest, FileRecord, Fitted, TaskResult
from sweepctl.secrets import hidden, known
from sweepctl.tasks._device import NoDevice, device_name, device_of, its_gpu, lost_device
from sweepctl.tasks._gang import Told, in_ranks
from sweepctl.tasks._measure import generate, reconstruct
from sweepctl.tasks._prepare import latents, prepare, reference
from sweepctl.tasks._train import dit, stage1, stage2
from sweepctl.tasks._work import Made, Work, log

TASKS: dict[str, Callable[[Work], Made]] = {
    "prepare": prepare,
    "reference": reference,
    "stage1": stage1,
    "stage2": stage2,
    "latents": latents,
    "dit": dit,
    "reconstruct": reconstruct,
    "generate": generate,
}
"""Kind -> the function that does its tasks."""

KEPT_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "HOSTNAME",
    "MKL_NUM_THREADS",
    "NCCL_DEBUG",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_ID",
    "SLURM_NODELIST",
)
"""Environment variables kept with a result; never the whole environment, which holds secrets."""

EVENT_S = 1.0
"""Least seconds between two progress events of an attempt."""


def preload() -> None:
    """Import what attempts need, once in each fork server; starts no threads, touches no GPU."""
    import lpips  # noqa: F401 - seconds of imports that children then share
    import torch_fidelity.metric_kid  # noqa: F401
    import torchmetrics.functional.image  # noqa: F401

    import sweepctl.plan  # noqa: F401
    import vitok_core.evaluate
    import vitok_core.train  # noqa: F401


def run(request: AttemptRequest) -> None:
    """Run one attempt of a task, and leave result.json and outcome.json behind.

    Never raises for what a task may do wrong: that is written into outcome.json, by class.

    Raises:
        RunFolderError: the outcome cannot be written.
        SystemExit: with code ENOSPC (28), the disk is too full for the outcome.
    """
    started = time.monotonic()
    attempt = runs.attempt_folder(Path(request.folder), request.attempt)
    attempt.mkdir(parents=True, exist_ok=True)
    with _StopAsked(attempt / "stop") as stop:
        if request.ranks == 1:
            outcome = _ended(lambda: _do(request, _settle(request), stop, started))
        else:
            work = functools.partial(_as_rank, request, stop, started)
            outcome = _ended(lambda: in_ranks(request.ranks, attempt, work))
    try:
        runs.write_json(
            attempt / "outcome.json",
            AttemptOutcome(
                task_id=request.task_id,
                attempt=request.attempt,
                seconds=time.monotonic() - started,
                host=socket.gethostname(),
                **outcome,
            ),
        )
    except OSError as error:
        if not _is_disk_full(error):
            raise
        # Not even this fits: the exit code has to say it, see `sweepctl.cluster`.
        sys.exit(errno.ENOSPC)


def _as_rank(
    request: AttemptRequest, stop: _StopAsked, started: float, say: Callable[[Told], None]
) -> None:
    """One of several processes of an attempt; says how it ended while the others still hear it."""
    from vitok_core import train

    def work() -> None:
        with train.distributed(_settle(request)) as device:
            # An error is said before the group is left: what the others then see is its effect.
            ended = _ended(lambda: _do(request, str(device), stop, started))
            said.append({**ended, "peak_memory_bytes": _peak_memory_bytes()})
            say(said[0])

    said: list[Told] = []
    ended = _ended(work)
    if not said:  # it did not even join
        say({**ended, "peak_memory_bytes": _peak_memory_bytes()})


def _ended(work: Callable[[], Told | None]) -> Told:
    """Do something, and say how it ended as fields of an outcome; done where it says nothing."""
    try:
        return work() or {"state": "done"}
    except KeyboardInterrupt:
        return {"state": "stopped", "message": "interrupted by SIGINT"}
    except Exception as error:  # noqa: BLE001 - the border: every failure becomes an outcome
        outcome = _classify(error)
        if outcome["state"] == "failed":
            with contextlib.suppress(OSError):  # a full disk has no room for it either
                log(f"failed\n{_without_secrets(traceback.format_exc()).rstrip()}")
        return outcome


def _do(request: AttemptRequest, device: str, stop: _StopAsked, started: float) -> None:
    """Do the task on a device; of several processes the first one leaves the result."""
    from vitok_core.ranks import collected

    folder = Path(request.folder)
    attempt = runs.attempt_folder(folder, request.attempt)
    task = runs.read_json(folder / "task.json")
    identity = task["identity"]
    log(f"{request.task_id}  {task['label']}  attempt {request.attempt}")
    decoders = request.decoders or cores_of_a_slot(request.slots)
    log(f"on {socket.gethostname()}, {device}, {request.threads} thread(s), {decoders} decoder(s)")
    if request.ranks > 1:
        log(f"process {os.environ['RANK']} of {request.ranks}, the first is 0")
    made = TASKS[task["kind"]](
        Work(
            task=request.task_id,
            study=task.get("study", ""),
            identity=identity,
            folder=folder,
            parents={role: folder.parent / name for role, name in task["parents"].items()},
            continues=tuple(folder.parent / name for name in task.get("continues", ())),
            device=device,
            threads=request.threads,
            decoders=decoders,
            checkpoint_s=request.checkpoint_s,
            skip_non_finite=request.skip_non_finite,
            micro_batch=request.micro_batch,
            recompute=request.recompute,
            fitted=tuple(Fitted(**one) for one in request.fitted),
            event=_events(attempt / "events.jsonl") if _is_first() else _nothing,
            should_stop=stop,
        )
    )
    peaks = collected(_peak_memory_bytes())
    if not _is_first():
        return
    flops = task.get("cost", {}).get("flops", 0)
    files: tuple[FileRecord, ...] = tuple(runs.file_record(folder, name) for name in made.files)
    runs.write_result(
        folder,
        TaskResult(
            fingerprint=task["fingerprint"],
            attempt=request.attempt,
            metrics=made.metrics,
            files=files,
            values=made.values,
            provenance=_provenance(request, device, made.values),
            seconds=time.monotonic() - started,
            peak_memory_bytes=sum(peaks),
            flops=flops if made.share == 1 else round(flops * made.share),
        ),
    )
    for metric in made.metrics:
        log(f"{metric.name} on {metric.dataset}: {metric.value:.6g} (n {metric.n})")
    log(f"done in {time.monotonic() - started:.1f} s: {', '.join(made.files)}")
    # Only now: up to here a kill must find them again.
    for path in made.spent:
        path.unlink(missing_ok=True)
    if task["kind"] in trainings():
        from vitok_core import train

        if "until" not in identity["config"]:  # others may go on from there
            train.discard_checkpoints(folder)
        for name in task.get("continues", ()):
            train.discard_checkpoints(folder.parent / name)


def cores_of_a_slot(slots: int) -> int:
    """How many of this machine's cores belong to each of its slots, at least 1."""
    return max(1, len(os.sched_getaffinity(0)) // slots)


def _settle(request: AttemptRequest) -> str:
    """Set the threads and repeatability of this process; return the device to use."""
    if request.deterministic:
        # Read by cuBLAS when the first context is made, which is later than this.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(request.threads)
    device = device_of(request.device)
    repeatable = request.deterministic or not device.startswith("cuda")
    torch.use_deterministic_algorithms(repeatable, warn_only=True)
    # Nothing here reads memory that was never written, so filling it would only take time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not repeatable  # every step has the same shapes
    if request.ranks > 1 and device == "cuda" and torch.cuda.device_count() < request.ranks:
        raise NoDevice(
            f"{request.ranks} processes need a GPU each, and torch sees "
            f"{torch.cuda.device_count()} ({its_gpu()})"
        )
    return device


def _events(path: Path) -> Callable[[Mapping[str, Any]], None]:
    last = [-EVENT_S]

    def write(event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - last[0] >= EVENT_S or event.get("step") == event.get("steps"):
            last[0] = now
            runs.append_event(path, {"t": round(time.time(), 3), **event})
            log("  ".join(f"{key} {_short(value)}" for key, value in event.items()))

    return write


def _nothing(event: Mapping[str, Any]) -> None:
    """What a process that is not the first of several writes of its progress."""


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class _StopAsked:
    """Whether the attempt was asked to stop: by a signal, or by a file where those don't reach.

    Signals that somebody else handles stay his: a driver that runs attempts in its own process
    leaves the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = False
        self._looked = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopAsked:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                # Not the main thread: the file alone is heard.
                with contextlib.suppress(ValueError):
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.asked and now - self._looked > 0.25:  # a stat a step would be felt on NFS
            self._looked = now
            self.asked = self.path.exists()
        return self.asked


def _classify(error: Exception) -> Told:
    """An exception as the state, failure class and one-line message of an outcome."""
    from vitok_core.errors import NonFiniteError, Stopped, VitokError

    if isinstance(error, Stopped):
        return {"state": "stopped", "message": str(error)}
    said = _without_secrets(str(error)).strip()
    message = said.split("\n")[0][:500] or type(error).__name__
    failure = "error"
    # A message that explains itself needs no class name before it.
    explained = isinstance(error, VitokError | SweepctlError)
    if isinstance(error, NonFiniteError):
        failure = "non_finite"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        failure = "out_of_memory"
    elif isinstance(error, NoDevice):
        failure = "no_device"
    elif lost_device(error):
        failure, explained = "no_device", True
        message = f"{its_gpu()} was lost while it was used; torch says: {message}"
    elif _is_disk_full(error):
        failure, message, explained = "disk_full", "the disk is full", True
    return {
        "state": "failed",
        "failure": failure,
        "message": message if explained else f"{type(error).__name__}: {message}",
    }


def _without_secrets(text: str) -> str:
    return hidden(text, known(os.environ, sys.argv))


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _provenance(request: AttemptRequest, device: str, values: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    together = {"micro_batch": values["micro_batch"]} if "micro_batch" in values else {}
    return {
        "host": socket.gethostname(),
        "device": device,
        "device_name": device_name(device, request.threads),
        "threads": request.threads,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "ranks": request.ranks,
        **({"devices": list(request.devices)} if request.devices else {}),
        **together,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "environment": {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ},
    }


def _peak_memory_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
