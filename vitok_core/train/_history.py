"""The history of a training: the terms of every step, events, and the file they are kept in.

The history is float64 and resumes with the checkpoints, so that curve, events and result of a
resumed run are those of one that was never stopped. It is a file of its own next to the
checkpoints, to which each checkpoint adds what is new: after four million steps a checkpoint that
held all of it would be 290 MB larger.

    history.bin   blocks, oldest first; each is a line of JSON (first step, number of steps, names
                  of the terms, new events) and the terms as float64, one term after the other

A checkpoint holds the length and the SHA-256 of the file at its time. What comes after that length
is of steps that are computed again, and is cut off.

A loss spike is an event, and never stops training: the loss of a step lies more than twice the
size of the median of up to 100 steps before it above that median (for a positive loss: more than
three times the median), at least 20 such steps exist, and the step before was no spike. Long after
training it tells where to look.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitok_core.errors import NonFiniteError
from vitok_core.train._progress import CurvePoint, Event

CURVE_POINTS = 100
RECENT_STEPS = 50
SPIKE_FACTOR = 3.0
SPIKE_WINDOW = 100
SPIKE_LEAST = 20

NAME = "history.bin"


class History:
    """The terms of every step so far, and the events.

    Args:
        steps: of the whole training.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.events: list[Event] = []
        self.micro_batch: int | None = None  # as the `Room` of the training has it now
        # By name, float64 (steps,). A term that a step does not have is NaN and no part of means.
        self._values: dict[str, Tensor] = {}

    def add(self, step: int, terms: Mapping[str, float]) -> None:
        """Record the terms of a step, from 0: "loss", and its parts as far as the step has them."""
        for name, value in terms.items():
            self._column(name)[step] = value

    def last(self, name: str) -> float:
        """The newest value of a term; NaN if no step had it."""
        values = self._column(name)
        known = values[~values.isnan()]
        return float(known[-1]) if len(known) else math.nan

    def at(self, step: int, name: str) -> float:
        """The value of a term in a step, from 0; NaN if the step had none."""
        return float(self._column(name)[step])

    def before(self, step: int, name: str, count: int) -> list[float]:
        """The values of a term in up to `count` steps before `step`; steps without it left out."""
        values = self._column(name)[max(step - count, 0) : step].tolist()
        return [value for value in values if not math.isnan(value)]

    def curve(self) -> tuple[CurvePoint, ...]:
        """At most 100 stretches of equal length over all steps; none of skipped steps only."""
        length = -(-self.steps // CURVE_POINTS)
        points = (
            self._stretch(first, min(first + length, self.steps))
            for first in range(0, self.steps, length)
        )
        return tuple(point for point in points if not math.isnan(point.loss))

    def recent(self) -> CurvePoint:
        """The last 50 steps as one stretch.

        Raises:
            NonFiniteError: all of them were skipped, so nothing is known about the end.
        """
        point = self._stretch(max(self.steps - RECENT_STEPS, 0), self.steps)
        if math.isnan(point.loss):
            raise NonFiniteError(
                f"none of the last {min(self.steps, RECENT_STEPS)} steps had a finite loss and "
                "gradient, so no update was made; lower lr, or lengthen warmup"
            )
        return point

    def part(self, first: int, end: int) -> dict[str, Tensor]:
        """A copy of the terms of the steps from `first` to before `end`, by name."""
        return {name: column[first:end].clone() for name, column in self._values.items()}

    def load(self, first: int, values: Mapping[str, Tensor]) -> None:
        """Take in the terms of steps from `first` on, as `part` returned them."""
        for name, column in values.items():
            self._column(name)[first : first + len(column)] = column

    def _column(self, name: str) -> Tensor:
        if name not in self._values:
            self._values[name] = torch.full((self.steps,), math.nan, dtype=torch.float64)
        return self._values[name]

    def _stretch(self, first: int, end: int) -> CurvePoint:
        means = {name: float(column[first:end].nanmean()) for name, column in self._values.items()}
        loss = means.pop("loss", math.nan)
        parts = {name: mean for name, mean in means.items() if not math.isnan(mean)}
        return CurvePoint(step=end, loss=loss, parts=parts)


class HistoryFile:
    """The file of a history; written and read by the first process only.

    Args:
        folder: of the checkpoints; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def block(self, history: History, first: int, end: int, events: int) -> bytes:
        """What is to be added for the steps from `first` to before `end`.

        Args:
            history: where they are.
            first: first step that the file does not have.
            end: steps made.
            events: number of events that the file has.
        """
        values = {k: v for k, v in history.part(first, end).items() if not bool(v.isnan().all())}
        head = {
            "first": first,
            "steps": end - first,
            "names": list(values),
            "events": [[one.step, one.kind, one.text] for one in history.events[events:]],
        }
        columns = b"".join(column.numpy().astype("<f8").tobytes() for column in values.values())
        return json.dumps(head).encode() + b"\n" + columns

    def append(self, block: bytes) -> dict[str, Any]:
        """Add a block, on disk when this returns; what a checkpoint says of the file then.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            # A block that was cut off by a full disk is written over.
            os.ftruncate(descriptor, self._bytes)
            at = self._bytes
            for start in range(0, len(block), 1 << 24):
                piece = memoryview(block)[start : start + (1 << 24)]
                while piece:
                    written = os.pwrite(descriptor, piece, at)
                    piece, at = piece[written:], at + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._bytes += len(block)
        self._sha256.update(block)
        return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}

    def read(self, known: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
        """The blocks that a checkpoint knows of; later ones are cut off at the next `append`.

        Args:
            known: what `append` returned when the checkpoint was written.

        Returns:
            Head and terms of each block, oldest first.

        Raises:
            ValueError: the file is missing or is not what the checkpoint says.
        """
        try:
            data = self.path.read_bytes()[: known["bytes"]]
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror}") from error
        found = hashlib.sha256(data)
        if found.hexdigest() != known["sha256"]:
            raise ValueError(f"{self.path} is damaged")
        blocks, at = [], 0
        while at < len(data):
            end = data.index(b"\n", at) + 1
            head = json.loads(data[at:end])
            steps, at = head["steps"], end
            values = {}
            for name in head["names"]:
                column = np.frombuffer(data, "<f8", count=steps, offset=at)
                values[name], at = torch.from_numpy(column.astype(np.float64)), at + 8 * steps
            blocks.append((head, values))
        self._sha256, self._bytes = found, len(data)
        return blocks


class SpikeWatch:
    """Sees loss spikes by the rule at the top of this file; keeps nothing but the history.

    Args:
        history: where the terms of the steps are.
        name: the term to watch.
    """

    def __init__(self, history: History, name: str = "loss") -> None:
        self.history, self.name = history, name

    def look(self, step: int) -> Event | None:
        """Record and return the event if a spike begins with this step, from 0, of the history."""
        median = self._median(step)
        if median is None or not self._is_spike(step) or self._is_spike(step - 1):
            return None
        event = Event(
            step=step + 1,
            kind="loss spike",
            text=f"step {step + 1}: {self.name} {self.history.at(step, self.name):.4g} after a "
            f"median of {median:.4g} over the steps before",
        )
        self.history.events.append(event)
        return event

    def _median(self, step: int) -> float | None:
        before = self.history.before(step, self.name, SPIKE_WINDOW)
        if len(before) < SPIKE_LEAST:
            return None
        return float(torch.tensor(before, dtype=torch.float64).median())

    def _is_spike(self, step: int) -> bool:
        median = self._median(step)
        if median is None:
            return False
        return self.history.at(step, self.name) - median > (SPIKE_FACTOR - 1) * abs(median)
