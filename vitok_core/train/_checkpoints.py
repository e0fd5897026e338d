"""Checkpoints, whole or not at all: a training survives a stop, a crash or a damaged disk.

Next to each checkpoint is a file with its SHA-256. The last two are kept; a damaged one is set
aside for the one before. Every checkpoint says which settings it belongs to, and other settings do
not continue it.

With several processes the first one reads and writes the folder and the others learn from it what
to load or why it failed, so that all of them resume from the same step or end with the same error.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitok_core.errors import CheckpointError
from vitok_core.files import replacing, sha256_of, write_bytes
from vitok_core.settings import DiTTraining, Stage1, Stage2, before_added
from vitok_core.train._parallel import from_first

CHECKPOINT_FORMAT = 2
CHECKPOINTS_KEPT = 2


class Checkpoints:
    """The checkpoints of one training in one folder.

    Args:
        folder: made if missing; remains of writers that were killed are deleted.
        identity: what a checkpoint must agree with before training resumes from it, as plain data
            of one or two levels; the message about a difference names its entries.

    Raises:
        CheckpointError: the folder cannot be written.

    Attributes:
        notes: what happened that someone should know, such as damaged checkpoints.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = folder, dict(identity)
        self.notes: list[str] = []
        from_first(self._open)

    def newest(self, last: int) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest whole checkpoint, on the CPU; None if there is none.

        Args:
            last: step at which the training ends; checkpoints of later steps are of no use.

        Raises:
            CheckpointError: it belongs to other settings or cannot be read.
        """
        found, self.notes = from_first(lambda: self._find(last))
        if found is None:
            return None
        step, path = found
        return step, _read(path)["state"]

    def write(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` updates, then delete all checkpoints but the last two.

        Args:
            step: updates made.
            state: tensors and plain data, as `torch.load(weights_only=True)` reads them.

        Raises:
            CheckpointError: the folder cannot be written.
            OSError: the disk is full.
        """
        from_first(lambda: self._write(step, state))

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
            if contents.get("format") != CHECKPOINT_FORMAT or contents["identity"] != self.identity:
                raise CheckpointError(
                    f"{path} was written with other settings "
                    f"({_difference(contents, self.identity)}); train in another folder, or "
                    "delete this one's checkpoints"
                )
            return (contents["step"], path), notes
        return None, notes

    def _write(self, step: int, state: Mapping[str, Any]) -> None:
        path = self.folder / f"step-{step:010d}.pt"
        contents = {
            "format": CHECKPOINT_FORMAT,
            "identity": self.identity,
            "step": step,
            "state": dict(state),
        }
        try:
            with replacing(path) as temporary:
                with temporary.open("wb") as file:  # a name would be written into it
                    torch.save(contents, file)
                # The hash goes first: a checkpoint without one would count as damaged.
                write_bytes(path.with_suffix(".sha256"), f"{sha256_of(temporary)}\n".encode())
            for old in sorted(self.folder.glob("step-*.pt"))[:-CHECKPOINTS_KEPT]:
                old.unlink()
                old.with_suffix(".sha256").unlink(missing_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def discard_checkpoints(folder: Path) -> int:
    """Delete the checkpoints of a finished training; the bytes that were freed.

    Call it when the weights are safe: training `folder` again would then start from its beginning.
    """
    freed = 0
    for path in (folder / "checkpoints").glob("step-*"):
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
    if contents.get("format") != CHECKPOINT_FORMAT:
        return f"checkpoint format {contents.get('format')}, this version reads {CHECKPOINT_FORMAT}"
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
