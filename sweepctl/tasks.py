"""What does one task do? One function a kind; the only bridge to vitok_core.

`run` is what a worker's child process executes for an attempt: it reads the frozen task.json, calls
the kind's function with the folders of the task's parents, writes result.json when that succeeds
and, in any case, outcome.json. A kind's function reads nothing but its task and its parents' files,
so the numbers cannot depend on who runs it, where, or how often it was interrupted.

Nothing heavy is imported with this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import platform
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from sweepctl import runs
from sweepctl.errors import SweepctlError
from sweepctl.runs import AttemptOutcome, AttemptRequest, FileRecord, MetricValue, TaskResult

if TYPE_CHECKING:
    from vitok_core.spec import TokenizerSpec

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

BROKEN_SHOWN = 20
"""Broken files of a data set that the log names."""

SHEETS = 5
"""Sheets of samples that a training leaves in sheets/ of its folder, at least; pictures only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a kind's function gets.

    Attributes:
        task: id of the task.
        study: name of the study that asked for the task first.
        identity: the task's identity as plain data: config, protocol, data.
        folder: the task's folder; results go there.
        parents: role -> folder of that parent.
        device: torch device string.
        threads: CPU threads that may be used.
        checkpoint_s: seconds between checkpoints.
        event: writes a progress event, at most one a second.
        should_stop: whether the attempt was asked to stop.
    """

    task: str
    study: str
    identity: Mapping[str, Any]
    folder: Path
    parents: Mapping[str, Path]
    device: str
    threads: int
    checkpoint_s: float
    event: Callable[[Mapping[str, Any]], None]
    should_stop: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a kind's function has made: files of the folder, numbers, and other facts."""

    files: tuple[str, ...]
    metrics: tuple[MetricValue, ...] = ()
    values: Mapping[str, Any]


def prepare(work: Work) -> Made:
    """Cut a data set's images or clips into an on-disk array, or go on with it."""
    from sweepctl.plan import completed
    from vitok_core import data

    config, identity = completed(work.identity["config"], "data"), work.identity["data"]
    make = functools.partial(data.prepare, config["dataset"])
    if "content" in identity:  # a data set of the user's: by its content, wherever it is here
        make = functools.partial(data.prepare_own, data.find_scan(identity), threads=work.threads)
    info = make(
        resolution=config["resolution"],
        images=config["images"],
        frames=config["frames"],
        fps=config["fps"],
        folder=work.folder,
        progress=lambda done, total: work.event({"step": done, "steps": total}),
        should_stop=work.should_stop,
    )
    for one in info.broken[:BROKEN_SHOWN]:
        _log(f"note: {one.name} was skipped: {one.why}{': ' if one.detail else ''}{one.detail}")
    if len(info.broken) > BROKEN_SHOWN:
        _log(f"note: {len(info.broken)} files were skipped; report.json names all")
    return Made(
        files=("samples.npy", "labels.npy", *(("report.json",) if "content" in identity else ())),
        values={
            "images": info.images,
            "sources": list(info.sources),
            "samples_sha256": info.samples_sha256,
            "read": info.read,
            "handled": dict(info.handled),
            "broken": len(info.broken),
        },
    )


def reference(work: Work) -> Made:
    """Features of the originals, computed once for all tokenizers."""
    from vitok_core import data, evaluate

    images = data.open_prepared(work.parents["images"])
    evaluate.reference_features(
        images,
        protocol_name=work.identity["protocol"]["name"],
        features=work.identity["config"].get("features"),
        folder=work.folder,
        device=work.device,
        progress=lambda at: work.event({"step": at.done, "steps": at.total}),
        should_stop=work.should_stop,
    )
    return Made(files=("features.npy",), values={"images": len(images)})


def stage1(work: Work) -> Made:
    """Train an auto-encoder, or go on where an earlier attempt stopped."""
    from sweepctl.plan import completed
    from vitok_core import data, train
    from vitok_core.losses import Stage1Loss

    config = work.identity["config"]
    settings = completed(config["stage1"], "stages.stage1")
    optimiser, loss = settings["optimiser"], settings["loss"]

    noted: set[str] = set()

    def note(texts: Iterable[str]) -> None:
        for text in texts:
            if text not in noted:
                noted.add(text)
                _log(f"note: {text}")

    def told(at: train.Progress) -> None:
        # At once: if the loss is no number in the next step, the spike before it was the warning.
        note(at.notes)
        work.event(
            {
                "step": at.step,
                "steps": at.steps,
                "loss": at.loss,
                "samples_per_s": at.samples_per_s,
                "eta_s": at.eta_s,
            }
        )

    result = train.train_stage1(
        tokenizer_spec(config),
        train.Stage1Config(
            steps=settings["steps"],
            batch=settings["batch"],
            optimiser=train.Optimiser(**{**optimiser, "betas": tuple(optimiser["betas"])}),
            precision=settings["precision"],
            flip=settings["flip"],
            compile=settings["compile"],
            ema=settings["ema"],
            loss=Stage1Loss(
                pixel=loss["pixel"],
                pixel_weight=loss["pixel_weight"],
                kl_weight=loss["kl"],
                lpips_weight=loss["lpips"],
                lpips_net=loss["lpips_net"],
                ssim_weight=loss["ssim"],
                dino_weight=loss["dino"],
            ),
            seed=config["seed"],
        ),
        data.open_prepared(work.parents["images"]),
        work.folder,
        device=work.device,
        checkpoint_s=work.checkpoint_s,
        sheet_every=max(1, settings["steps"] // SHEETS),
        about={
            "task": work.task,
            "kind": "stage1",
            "study": work.study,
            # Whole, for readers that know nothing of what an identity leaves out.
            "config": {
                **config,
                "tokenizer": completed(config["tokenizer"], "tokenizer"),
                "stage1": settings,
            },
        },
        progress=told,
        should_stop=work.should_stop,
    )
    note([*result.notes, *(event.text for event in result.events)])
    return Made(
        files=("weights.safetensors",),
        values={
            "loss": result.loss,
            "loss_recent": result.loss_recent,
            "parts_recent": dict(result.parts_recent),
            "samples": result.samples,
            "samples_per_s": result.samples_per_s,
            "flops_per_s": result.flops_per_s,
            "mfu": result.mfu,
            "peak_memory_bytes": result.peak_memory_bytes,
            "resumed_from": result.resumed_from,
            "kl_per_channel": list(result.kl_per_channel),
            "active_units": result.active_units,
            "events": [dataclasses.asdict(event) for event in result.events],
            "notes": list(result.notes),
            "curve": [
                {"step": point.step, "loss": point.loss, **point.parts} for point in result.curve
            ],
        },
    )


def reconstruct(work: Work) -> Made:
    """Measure a trained tokenizer on one data set."""
    from vitok_core import data, evaluate
    from vitok_core.protocols import PROTOCOLS
    from vitok_core.tokenizer import load_tokenizer

    config, protocol = work.identity["config"], work.identity["protocol"]
    # The protocol's own backbone has the plain role, so that older tasks keep their identity.
    references = {
        PROTOCOLS[protocol["name"]].features if role == "reference" else role.split("-", 1)[1]: (
            folder / "features.npy"
        )
        for role, folder in work.parents.items()
        if role.startswith("reference")
    }
    tokenizer = load_tokenizer(work.parents["tokenizer"] / "weights.safetensors", work.device)
    measured = evaluate.reconstruct(
        tokenizer,
        data.open_prepared(work.parents["images"]),
        metrics=config["metrics"],
        protocol_name=protocol["name"],
        references=references,
        length=config.get("length"),
        folder=work.folder,
        device=work.device,
        progress=lambda at: work.event({"step": at.done, "steps": at.total}),
        should_stop=work.should_stop,
    )
    for one in measured:
        if one.note:
            _log(f"note: {one.name}: {one.note}")
    return Made(
        files=("originals.npy", "reconstructions.npy"),
        metrics=tuple(
            MetricValue(
                name=one.name,
                dataset=config["dataset"],
                protocol=protocol["name"],
                value=one.value,
                n=one.n,
                se=one.se,
            )
            for one in measured
        ),
        values={"notes": {one.name: one.note for one in measured if one.note}},
    )


TASKS: dict[str, Callable[[Work], Made]] = {
    "prepare": prepare,
    "reference": reference,
    "stage1": stage1,
    "reconstruct": reconstruct,
}
"""What each kind does."""


def tokenizer_spec(config: Mapping[str, Any]) -> TokenizerSpec:
    """The tokenizer that a stage's config describes."""
    from sweepctl.plan import completed
    from vitok_core.spec import TokenizerSpec

    shape = {"resolution": config["resolution"], "frames": config["frames"]}
    return TokenizerSpec.from_plain({**completed(config["tokenizer"], "tokenizer"), **shape})


# --- one attempt ------------------------------------------------------------------------------


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
    folder = Path(request.folder)
    attempt = runs.attempt_folder(folder, request.attempt)
    attempt.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, Any]
    with _StopAsked(attempt / "stop") as stop:
        try:
            _do(request, folder, attempt, stop, started)
            outcome = {"state": "done"}
        except Exception as error:  # noqa: BLE001 - the border: every failure becomes an outcome
            outcome = _classify(error)
            if outcome["state"] == "failed":
                with contextlib.suppress(OSError):  # a full disk has no room for it either
                    traceback.print_exc()
                    sys.stderr.flush()
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


def _do(
    request: AttemptRequest,
    folder: Path,
    attempt: Path,
    stop: _StopAsked,
    started: float,
) -> None:
    task = runs.read_json(folder / "task.json")
    identity = task["identity"]
    device = _settle(request)
    _log(f"{request.task_id}  {task['label']}  attempt {request.attempt}")
    _log(f"on {socket.gethostname()}, {device}, {request.threads} thread(s)")
    made = TASKS[task["kind"]](
        Work(
            task=request.task_id,
            study=task.get("study", ""),
            identity=identity,
            folder=folder,
            parents={role: folder.parent / name for role, name in task["parents"].items()},
            device=device,
            threads=request.threads,
            checkpoint_s=request.checkpoint_s,
            event=_events(attempt / "events.jsonl"),
            should_stop=stop,
        )
    )
    files: tuple[FileRecord, ...] = tuple(runs.file_record(folder, name) for name in made.files)
    runs.write_result(
        folder,
        TaskResult(
            fingerprint=task["fingerprint"],
            attempt=request.attempt,
            metrics=made.metrics,
            files=files,
            values=made.values,
            provenance=_provenance(request, device),
            seconds=time.monotonic() - started,
            peak_memory_bytes=_peak_memory_bytes(),
            flops=task.get("cost", {}).get("flops", 0),
        ),
    )
    for metric in made.metrics:
        _log(f"{metric.name} on {metric.dataset}: {metric.value:.6g} (n {metric.n})")
    _log(f"done in {time.monotonic() - started:.1f} s: {', '.join(made.files)}")
    if task["kind"] == "stage1":
        from vitok_core import train

        # Only now: up to here a kill must find them again.
        train.discard_checkpoints(folder)


def _settle(request: AttemptRequest) -> str:
    """Set the threads and repeatability of this process; return the device to use."""
    # Read by cuBLAS when the first context is made, which is later than this.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(request.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if request.device != "auto":
        return request.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _events(path: Path) -> Callable[[Mapping[str, Any]], None]:
    last = [-EVENT_S]

    def write(event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - last[0] >= EVENT_S or event.get("step") == event.get("steps"):
            last[0] = now
            runs.append_event(path, {"t": round(time.time(), 3), **event})
            _log("  ".join(f"{key} {_short(value)}" for key, value in event.items()))

    return write


def _log(line: str) -> None:
    """Write a line with the time of day; the pool has led stdout into the attempt's log.txt."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stdout.flush()


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class _StopAsked:
    """Whether the attempt was asked to stop: by SIGTERM, or by a file where signals don't reach."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = False
        self._looked = 0.0
        self._before: Any = None

    def __enter__(self) -> _StopAsked:
        try:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        except ValueError:
            self._before = None  # not the main thread: the file alone is heard
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.asked and now - self._looked > 0.25:  # a stat a step would be felt on NFS
            self._looked = now
            self.asked = self.path.exists()
        return self.asked


def _classify(error: Exception) -> dict[str, Any]:
    """An exception as the state, failure class and one-line message of an outcome."""
    from vitok_core.errors import NonFiniteError, Stopped, VitokError

    if isinstance(error, Stopped):
        return {"state": "stopped", "message": str(error)}
    message = str(error).strip().split("\n")[0][:500] or type(error).__name__
    failure = "error"
    # A message that explains itself needs no class name before it.
    explained = isinstance(error, VitokError | SweepctlError)
    if isinstance(error, NonFiniteError):
        failure = "non_finite"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        failure = "out_of_memory"
    elif _is_disk_full(error):
        failure, message, explained = "disk_full", "the disk is full", True
    return {
        "state": "failed",
        "failure": failure,
        "message": message if explained else f"{type(error).__name__}: {message}",
    }


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _provenance(request: AttemptRequest, device: str) -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return {
        "host": socket.gethostname(),
        "device": device,
        "device_name": name,
        "threads": request.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "environment": {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ},
    }


def _peak_memory_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- what made the numbers --------------------------------------------------------------------


def code_hash() -> str:
    """Hash of the source that decides numbers: vitok_core and this module; 16 hex digits.

    Recorded with every attempt. Results of other code are reported, never silently rerun.
    """
    import hashlib

    import vitok_core

    root = Path(vitok_core.__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(root.rglob("*.py")), Path(__file__)]:
        name = path.relative_to(root.parent) if path.is_relative_to(root) else path.name
        digest.update(str(name).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def software() -> dict[str, Any]:
    """Versions and commit of what runs here: provenance the driver keeps with every attempt."""
    import importlib.metadata
    import subprocess

    versions = {}
    for package in (
        "sweepctl", "torch", "torchvision", "numpy", "lpips", "torch-fidelity", "av", "dask",
    ):  # fmt: skip
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue

    def git(*words: str) -> str | None:
        root = str(Path(__file__).parent)
        try:
            done = subprocess.run(
                ["git", "-C", root, *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None  # not a checkout, or no git: the versions have to do
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {
        "code": code_hash(),
        "commit": commit,
        "dirty": None if commit is None else bool(git("status", "--porcelain", "-uno")),
        "versions": versions,
    }
