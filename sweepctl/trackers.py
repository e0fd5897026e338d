"""Experiment trackers: TensorBoard, Weights & Biases and trackio, next to the ledger.

A tracker has four methods. The driver logs to it what attempts report: events while they run, final
numbers, sample grids, and how they ended. The ledger stays the truth; a tracker is a copy for
people who work in such a tool. Therefore it cannot harm a run: it works in its own thread, what it
cannot take in time is dropped and counted, and one that raises is removed with a note while the
study continues. No tracker is imported unless it is requested.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sweepctl.errors import UsageError
from sweepctl.paths import flat
from sweepctl.secrets import hidden, known

TRACKERS: Mapping[str, str] = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
}
"""Tracker -> the package it needs."""

_WAITING = 2_000
"""Messages that wait for a slow tracker before new ones are left out."""

_GOODBYE_S = 20.0
"""Seconds that trackers have at the end of a run to send what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """An attempt as trackers see it when it begins.

    Attributes:
        id: name of the run, unique: the task's id, with the attempt's number from the second on.
        name: what people call it.
        study: name of the study; groups runs.
        kind: kind of the task.
        config: what decides its numbers, plain data.
        folder: the task's folder.
    """

    id: str
    name: str
    study: str
    kind: str
    config: Mapping[str, Any]
    folder: Path


class Tracker(Protocol):
    """One run in somebody else's tool; made for one attempt."""

    def start(self, run: RunInfo) -> None:
        """The attempt begins."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Finite numbers at a step."""

    def images(self, step: int, name: str, files: Sequence[Path]) -> None:
        """Pictures at a step, as files."""

    def finish(self, status: str) -> None:
        """The attempt ended: done, failed or stopped."""


class TensorBoard:
    """A run in the folder tensorboard/ next to the task folders.

    Written with TensorBoard's own event files: its usual writer is a part of torch, which the
    driver must not import.
    """

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, run: RunInfo) -> None:
        """Open the event file; the config becomes a text."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run.folder.parent / "tensorboard" / run.study / run.id
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder))
        lines = [f"    {name}: {value}" for name, value in flat(run.config).items()]
        self._text("config", "\n".join([run.name, "", *lines]))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step."""
        self._add(step, [{"tag": name, "simple_value": value} for name, value in values.items()])

    def images(self, step: int, name: str, files: Sequence[Path]) -> None:
        """Pictures at a step."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        pictures = []
        for number, file in enumerate(files):
            with Image.open(file) as opened:
                width, height = opened.size
            picture = Summary.Image(
                width=width, height=height, colorspace=3, encoded_image_string=file.read_bytes()
            )
            pictures.append({"tag": name if not number else f"{name}/{number}", "image": picture})
        self._add(step, pictures)

    def finish(self, status: str) -> None:
        """Close the event file."""
        self._text("status", status)
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        plugin = SummaryMetadata.PluginData(plugin_name="text")
        words = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        words.tensor_shape.dim.add(size=1)
        metadata = SummaryMetadata(plugin_data=plugin)
        self._add(0, [{"tag": f"{tag}/text_summary", "metadata": metadata, "tensor": words}])

    def _add(self, step: int, values: Sequence[Mapping[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


class WandbLike:
    """A run of W&B, or of trackio, which understands the same calls; one project per study."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._module: Any = None
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        """Begin a run; runs of one study share a project, kinds are groups."""
        self._module = importlib.import_module(self._package)
        words: dict[str, Any] = {
            "project": f"sweepctl-{run.study}",
            "name": run.id,
            "group": run.kind,
            "config": {"label": run.name, **flat(run.config)},
        }
        if self._package == "wandb":
            # Attempts run concurrently: each has its own run, not the one run of the process.
            words |= {"id": run.id, "resume": "allow", "reinit": "create_new"}
            words["dir"] = str(run.folder.parent)
        self._run = self._module.init(**words)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a step."""
        self._run.log(dict(values), step=step)

    def images(self, step: int, name: str, files: Sequence[Path]) -> None:
        """Pictures at a step."""
        pictures = [self._module.Image(str(file)) for file in files]
        self._run.log({name: pictures[0] if len(pictures) == 1 else pictures}, step=step)

    def finish(self, status: str) -> None:
        """End the run; one that failed is marked so where the tool can."""
        if self._package == "wandb":
            self._run.finish(exit_code=0 if status == "done" else 1)
        else:
            self._run.finish()


def make_tracker(name: str) -> Tracker:
    """A tracker by its name.

    Raises:
        UsageError: there is no such tracker, or its package is not installed.
    """
    check_trackers([name])
    return TensorBoard() if name == "tensorboard" else WandbLike(name)


def check_trackers(names: Sequence[str]) -> None:
    """See that trackers can be had, before a run begins.

    Raises:
        UsageError: there is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"there is no tracker {name!r}", hint=", ".join(TRACKERS))
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise UsageError(
                f"the tracker {name} needs the package {TRACKERS[name]}, which is not installed",
                hint=f"pip install 'sweepctl[{name}]'",
            )


# --- dispatch ---------------------------------------------------------------------------------


class Trackers:
    """Logs the attempts of one run to several trackers, from its own thread.

    Every method returns at once and never raises for what a tracker does.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        note: Callable[[str], None],
        make: Callable[[str], Tracker] = make_tracker,
    ) -> None:
        """Begin to listen.

        Args:
            names: keys of `TRACKERS`.
            note: receives one line when a tracker is removed or could not keep up.
            make: makes the tracker of an attempt from its name.
        """
        self._names = list(names)
        self._note = note
        self._make = make
        self._runs: dict[tuple[str, str], Tracker] = {}
        self._left_out = 0
        self._queue: queue.Queue[tuple[str, str, tuple[Any, ...]] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        self._thread.start()

    def start(self, run: RunInfo) -> None:
        """An attempt begins."""
        self._put("start", run.id, (run,))

    def event(self, run: str, event: Mapping[str, Any]) -> None:
        """Progress of an attempt: its finite numbers at its step."""
        step = event.get("step")
        values = {
            name: float(value)
            for name, value in event.items()
            if name not in ("step", "steps", "t", "eta_s") and _is_number(value)
        }
        if isinstance(step, int) and values:
            self._put("scalars", run, (step, values))

    def numbers(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Final numbers of an attempt."""
        kept = {name: float(value) for name, value in values.items() if _is_number(value)}
        if kept:
            self._put("scalars", run, (step, kept))

    def images(self, run: str, step: int, name: str, files: Sequence[Path]) -> None:
        """Pictures of an attempt."""
        if files:
            self._put("images", run, (step, name, tuple(files)))

    def finish(self, run: str, status: str) -> None:
        """An attempt ended."""
        self._put("finish", run, (status,))

    def close(self) -> None:
        """Let trackers send what they hold, for a while."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(queue.Full):  # then the thread does not end, which is noted
            self._queue.put(None, timeout=_GOODBYE_S)
        self._thread.join(_GOODBYE_S)
        if self._thread.is_alive():
            self._note(f"trackers did not finish within {_GOODBYE_S:.0f} s; left as they are")
        elif self._left_out:
            self._note(f"trackers were too slow: {self._left_out} messages were left out")

    def _put(self, what: str, run: str, words: tuple[Any, ...]) -> None:
        try:
            self._queue.put_nowait((what, run, words))
        except queue.Full:
            self._left_out += 1

    def _work(self) -> None:
        while (message := self._queue.get()) is not None:
            what, run, words = message
            for name in list(self._names):
                try:
                    self._log(name, what, run, words)
                except Exception as error:  # noqa: BLE001 - whatever somebody else's tool raises
                    self._names.remove(name)
                    self._runs = {key: one for key, one in self._runs.items() if key[0] != name}
                    said = _without_secrets(error).split("\n")[0] or type(error).__name__
                    self._note(f"the tracker {name} is removed, the study continues: {said}")
        for name, run in list(self._runs):  # the run was stopped: attempts that never ended
            try:
                self._log(name, "finish", run, ("stopped",))
            except Exception as error:  # noqa: BLE001
                self._note(f"the tracker {name} did not end well: {_without_secrets(error)}")

    def _log(self, name: str, what: str, run: str, words: tuple[Any, ...]) -> None:
        if what == "start":
            self._runs[name, run] = self._make(name)
            self._runs[name, run].start(*words)
            return
        tracker = self._runs.get((name, run))
        if tracker is None:
            return  # it was dropped, or its beginning was left out
        getattr(tracker, what)(*words)
        if what == "finish":
            del self._runs[name, run]


def _without_secrets(error: Exception) -> str:
    """What a tracker's library says, without the key that it may repeat."""
    return hidden(str(error), known(os.environ)).strip()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def quiet_environment() -> None:
    """Keep trackers from writing over the live display and from asking questions."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
