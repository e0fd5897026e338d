"""Checkpoints, whole or not at all: a training survives a stop, a crash or a damaged disk.

Next to each checkpoint is a file with its SHA-256. The last two are kept; a damaged one is set
aside for the one before. Every checkpoint says which settings it belongs to, and other settings do
not continue it. The history of the steps is a file of its own, see `_history`.

Training waits only while the state is copied into host memory, which is pinned where it comes from
a GPU and used again for the next checkpoint. A thread writes the copy, hashes it as it is written
and syncs it to disk. At most one checkpoint is on its way. How often one is written follows from
what it costs: at most 1 % of the time, but at least every ten minutes.

With several processes the first one reads and writes the folder and the others learn from it what
to load or why it failed, so that all of them resume from the same step or end with the same error.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from vitok_core.errors import CheckpointError
from vitok_core.files import replacing, sha256_of, write_bytes
from vitok_core.ranks import from_first, world
from vitok_core.settings import DiTTraining, Stage1, Stage2, before_added
from vitok_core.train import _history
from vitok_core.train._history import History, HistoryFile
from vitok_core.train._progress import Event

CHECKPOINT_FORMAT = 3
READ_FORMATS = (2, 3)
"""Format 2 holds the history in every checkpoint."""

CHECKPOINTS_KEPT = 2

COST_SHARE = 0.01
"""Share of the time that checkpoints may cost where their cadence is left to us."""

LEAST_S, MOST_S = 60.0, 600.0
"""Seconds between checkpoints where their cadence is left to us."""


class Checkpoints:
    """The checkpoints of one training in one folder.

    Args:
        folder: made if missing; remains of writers that were killed are deleted.
        identity: what a checkpoint must agree with before training resumes from it, as plain data
            of one or two levels; the message about a difference names its entries.
        history: of the training; `newest` fills it.
        every_s: seconds between checkpoints, or "auto" for what their cost allows.

    Raises:
        CheckpointError: the folder cannot be written.

    Attributes:
        notes: what happened that someone should know, such as damaged checkpoints.
        begun: step of the newest checkpoint that is written or on its way; None for none.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        history: History,
        every_s: float | Literal["auto"] = "auto",
    ) -> None:
        self.folder, self.identity = folder, dict(identity)
        self.notes: list[str] = []
        self.begun: int | None = None
        self._history, self._kept_steps, self._kept_events = history, 0, 0
        from_first(self._open)
        self._file = HistoryFile(folder)
        self._copy = HostCopy()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[float] | None = None
        self._every_s, self._cost_s, self._begun_at = every_s, 0.0, time.perf_counter()

    def newest(self, last: int) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest whole checkpoint, on the CPU; None if there is none.

        The history is loaded up to that step.

        Args:
            last: step at which the training ends; checkpoints of later steps are of no use.

        Raises:
            CheckpointError: it belongs to other settings or cannot be read.
        """
        found, self.notes = from_first(lambda: self._find(last))
        if found is None:
            return None
        step, path = found
        contents = _read(path)
        state: dict[str, Any] = contents["state"]
        if "history" in state:  # format 2
            old = state.pop("history")
            blocks = [({"first": 0, "events": old["events"]}, old["values"])]
        else:
            blocks, damage = from_first(lambda: self._read_history(contents["history"]))
            if damage:
                self.notes.append(f"{damage}; the loss curve begins at step {step}")
            else:
                self._kept_steps = step
        for head, values in blocks:
            self._history.load(head["first"], values)
            self._history.events += [
                Event(step=n, kind=k, text=text) for n, k, text in head["events"]
            ]
        if self._kept_steps:
            self._kept_events = len(self._history.events)
        self.begun = step
        return step, state

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        if self._every_s != "auto":
            every_s = self._every_s
        elif self._writing is not None and not self._writing.done():
            return False  # training would wait for it
        else:
            every_s = min(max(self._cost_s / COST_SHARE, LEAST_S), MOST_S)
        return time.perf_counter() - self._begun_at >= every_s

    def has_failed(self) -> bool:
        """Whether the checkpoint that was begun last could not be written; see `finish`."""
        return (
            self._writing is not None
            and self._writing.done()
            and self._writing.exception() is not None
        )

    def begin(self, step: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Copy the state after `step` updates and have it written while training continues.

        Only the first process does anything. All but the last two checkpoints are deleted then.

        Args:
            step: updates made.
            state: returns tensors and plain data, as `torch.load(weights_only=True)` reads them.

        Raises:
            CheckpointError: the folder could not be written, this time or the time before.
            OSError: the disk is full.
        """
        self.begun = step
        if world().rank > 0:
            return
        self._wait()
        self._begun_at = began = time.perf_counter()
        with torch.no_grad():
            copied, on_gpu = self._copy.take(state())
        block = self._file.block(self._history, self._kept_steps, step, self._kept_events)
        self._kept_steps, self._kept_events = step, len(self._history.events)
        arrived = None
        if on_gpu:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no type
            arrived.record()
        self._writing = self._thread.submit(self._write, step, copied, block, arrived)
        self._cost_s = time.perf_counter() - began
        if not on_gpu:
            # The thread takes its time from the training, which runs on the same cores.
            self._writing.add_done_callback(self._add_cost)

    def _add_cost(self, done: Future[float]) -> None:
        if done.exception() is None:
            self._cost_s += done.result()

    def finish(self) -> None:
        """Wait until the checkpoint that was begun last is on disk; in all processes together.

        Raises:
            CheckpointError: the folder could not be written.
            OSError: the disk is full.
        """
        from_first(self._wait)

    def write(self, step: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Write a checkpoint and wait until it is on disk; in all processes together.

        Raises:
            CheckpointError: the folder cannot be written.
            OSError: the disk is full.
        """
        self.begun = step

        def write() -> None:
            self.begin(step, state)
            self._wait()

        from_first(write)

    def close(self) -> None:
        """Let the checkpoint that is on its way be written; what fails then has been told."""
        self._thread.shutdown(wait=True)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self.folder.glob(".step-*.tmp"):
                unfinished.unlink()
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _find(self, last: int) -> tuple[tuple[int, Path] | None, list[str]]:
        """Step and path of the newest whole checkpoint, and notes about those set aside."""
        notes = list(self.notes)
        for path in sorted(self.folder.glob("step-*.pt"), reverse=True):
            if _step_of(path) > last:
                continue
            sidecar = path.with_suffix(".sha256")
            expected = (
                sidecar.read_text(errors="replace").strip() if sidecar.exists() else "none recorded"
            )
            if sha256_of(path) != expected:
                path.replace(path.with_suffix(".pt.damaged"))
                sidecar.unlink(missing_ok=True)
                notes.append(f"checkpoint {path.name} was damaged and has been set aside")
                continue
            contents = _read(path)
            contents["identity"] = _as_named_now(contents["identity"], self.identity)
            if contents.get("format") not in READ_FORMATS or contents["identity"] != self.identity:
                raise CheckpointError(
                    f"{path} was written with other settings "
                    f"({_difference(contents, self.identity)}); train in another folder, or "
                    "delete this one's checkpoints"
                )
            return (contents["step"], path), notes
        return None, notes

    def _read_history(
        self, known: Mapping[str, Any]
    ) -> tuple[list[tuple[dict[str, Any], dict[str, Tensor]]], str]:
        """The blocks of the history that a checkpoint knows of, or none and what is wrong."""
        try:
            return self._file.read(known), ""
        except (ValueError, KeyError, TypeError) as error:
            return [], str(error)

    def _write(
        self,
        step: int,
        state: Mapping[str, Any],
        block: bytes,
        arrived: torch.cuda.Event | None,
    ) -> float:
        """Write a copied state, in the thread; the processor time that it took in seconds."""
        began = time.thread_time()
        path = self.folder / f"step-{step:010d}.pt"
        if arrived is not None:
            arrived.synchronize()
        try:
            contents = {
                "format": CHECKPOINT_FORMAT,
                "identity": self.identity,
                "step": step,
                "state": dict(state),
                "history": self._file.append(block),
            }
            with replacing(path) as temporary:
                with temporary.open("wb") as file:  # a name would be written into it
                    hashing = _Hashing(file)
                    torch.save(contents, hashing)  # type: ignore[arg-type]  # it writes and flushes
                # The hash goes first: a checkpoint without one would count as damaged.
                write_bytes(path.with_suffix(".sha256"), f"{hashing.sha256.hexdigest()}\n".encode())
            for old in sorted(self.folder.glob("step-*.pt"))[:-CHECKPOINTS_KEPT]:
                old.unlink()
                old.with_suffix(".sha256").unlink(missing_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
        return time.thread_time() - began


class _Hashing:
    """A file that is hashed as it is written, so that nobody has to read it again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: memoryview) -> int:
        """Write and hash some bytes; both let other threads run."""
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()


class HostCopy:
    """A copy of a state in host memory, in buffers that the next copy uses again."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    def take(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Copy every tensor of a state; those on a GPU are on their way when this returns.

        The buffers of the copy before are written over.

        Args:
            state: nested dicts, lists and tuples of tensors and plain data.

        Returns:
            The copy, and whether tensors come from a GPU: then it is whole when an event that is
            recorded now has happened.
        """
        before, self._buffers, self._on_gpu = self._buffers, {}, False
        copied: dict[str, Any] = self._copied(state, (), before)
        return copied, self._on_gpu

    def _copied(
        self, value: Any, place: tuple[object, ...], before: Mapping[tuple[object, ...], Tensor]
    ) -> Any:
        if isinstance(value, Tensor):
            return self._buffer(value, place, before).copy_(value, non_blocking=True)
        if isinstance(value, Mapping):
            return {key: self._copied(one, (*place, key), before) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(
                self._copied(one, (*place, n), before) for n, one in enumerate(value)
            )
        return value

    def _buffer(
        self, tensor: Tensor, place: tuple[object, ...], before: Mapping[tuple[object, ...], Tensor]
    ) -> Tensor:
        on_gpu = tensor.device.type == "cuda"
        self._on_gpu |= on_gpu
        found = before.get(place)
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            found = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        self._buffers[place] = found
        return found


def discard_checkpoints(folder: Path) -> int:
    """Delete the checkpoints of a finished training; the bytes that were freed.

    Call it when the weights are safe: training `folder` again would then start from its beginning.
    """
    freed = 0
    checkpoints = folder / "checkpoints"
    for path in (*checkpoints.glob("step-*"), *checkpoints.glob(_history.NAME)):
        freed += path.stat().st_size
        path.unlink()
    return freed


def link_checkpoint(folder: Path, earlier: Path) -> int:
    """Let a training resume from the end of an earlier one of the same settings and fewer steps.

    Its newest checkpoint is linked into this one's folder (copied where links are not possible),
    unless there is one here already. What is damaged is found when the training begins.

    Args:
        folder: of the training that is to resume.
        earlier: of the training that ended before, with `until`.

    Returns:
        The step of the checkpoint that was linked; 0 for none.

    Raises:
        CheckpointError: the folder cannot be written.
        OSError: the disk is full.
    """
    here, there = folder / "checkpoints", earlier / "checkpoints"
    found = sorted(there.glob("step-*.pt"))
    if not found or any(here.glob("step-*.pt")):
        return 0
    newest = found[-1]
    try:
        here.mkdir(parents=True, exist_ok=True)
        # Copied, since both trainings may add to it. What is missing is noticed when it is read.
        with contextlib.suppress(FileNotFoundError), replacing(here / _history.NAME) as temporary:
            shutil.copyfile(there / _history.NAME, temporary)
        for path in (newest.with_suffix(".sha256"), newest):  # the hash goes first
            _link(path, here / path.name)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CheckpointError(f"cannot write to {here}: {error.strerror or error}") from error
    return _step_of(newest)


def _link(source: Path, target: Path) -> None:
    """The same file under another name, whole or not at all."""
    with replacing(target) as temporary:
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _read(path: Path) -> dict[str, Any]:
    try:
        contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return contents


def _as_named_now(identity: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a checkpoint as this version would write it.

    Weights of the loss have their names of today, and settings that did not exist when it was
    written have the value that was in force then.
    """
    config = identity.get("config", {})
    if "kl_weight" in config.get("loss", {}):
        own = {f"{name}_weight": name for name in ("kl", "lpips", "ssim", "dino")}
        loss = {own.get(name, name): value for name, value in config["loss"].items()}
        config = {**config, "loss": loss}
    return {**identity, "config": _completed(config, now.get("config", {}), _BEFORE)}


_BEFORE = before_added(Stage1) | before_added(Stage2) | before_added(DiTTraining)


def _completed(
    config: Mapping[str, Any], now: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    filled = dict(config)
    for name in before.keys() & now.keys():
        if isinstance(before[name], dict):
            filled[name] = _completed(config.get(name, {}), now[name], before[name])
        else:
            filled.setdefault(name, before[name])
    return filled


def _difference(contents: dict[str, Any], identity: dict[str, Any]) -> str:
    if contents.get("format") not in READ_FORMATS:
        readable = " and ".join(map(str, READ_FORMATS))
        return f"checkpoint format {contents.get('format')}, this version reads {readable}"
    return _first_difference("", contents["identity"], identity) or "unknown"


def _first_difference(name: str, given: object, wanted: object) -> str | None:
    """ "lr: 0.001 there, 0.002 here" for the first entry, at any depth, that is not the same."""
    if not isinstance(given, dict) or not isinstance(wanted, dict):
        return None if given == wanted else f"{name}: {given!r} there, {wanted!r} here"
    for key in sorted(given.keys() | wanted.keys()):
        found = _first_difference(key, given.get(key), wanted.get(key))
        if found is not None:
            return found
    return None
