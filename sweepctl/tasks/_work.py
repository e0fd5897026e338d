"""What goes into the function of a kind, and what comes out of it.

A kind's function reads nothing but its task and its parents' files (`Work`), and returns what it
made (`Made`); besides, it writes files into the task's folder and lines into the attempt's log.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepctl.runs import Fitted, MetricValue

BROKEN_SHOWN = 20
"""Broken files of a data set that a log names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a kind's function gets.

    Attributes:
        task: id of the task.
        study: name of the study that asked for the task first.
        identity: the task's identity as plain data: config, protocol, data.
        folder: the task's folder; results go there.
        parents: role -> folder of that parent.
        continues: folders of trainings of the same settings and fewer steps, the furthest first.
        device: torch device string.
        threads: CPU threads that may be used.
        decoders: pictures or clips that are decoded at the same time.
        checkpoint_s: seconds between checkpoints, or "auto" for what their cost allows.
        skip_non_finite: updates that a training may leave out because they are not finite.
        micro_batch: samples of a training step in memory together, "all", or "auto" for what fits.
        recompute: whether a training recomputes activations, or "auto".
        fitted: what fitted devices in earlier trainings that take the same memory.
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
    decoders: int = 1
    checkpoint_s: float | str
    skip_non_finite: int = 0
    micro_batch: int | str = "auto"
    recompute: bool | str = "auto"
    event: Callable[[Mapping[str, Any]], None]
    should_stop: Callable[[], bool]
    continues: tuple[Path, ...] = ()
    fitted: tuple[Fitted, ...] = ()

    def about(
        self, kind: str, config: Mapping[str, Any], before: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What a file of weights says of where it comes from, as plain data.

        Args:
            kind: of the task.
            config: what the task was asked for, whole: readers know nothing of what an identity
                leaves out.
            before: what the weights it began with say of themselves; their config stays.
        """
        earlier = dict(before or {})
        return {
            **earlier,
            "task": self.task,
            "kind": kind,
            "study": self.study,
            "config": {**earlier.get("config", {}), **config},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a kind's function has made.

    Attributes:
        files: names in the task's folder.
        metrics: measured numbers.
        values: other facts, plain data.
        share: of the task's operations, what it did itself; less than 1 where it resumed from the
            end of an earlier task.
        spent: files that are deleted once the result is recorded.
    """

    files: tuple[str, ...]
    metrics: tuple[MetricValue, ...] = ()
    values: Mapping[str, Any]
    share: float = 1.0
    spent: tuple[Path, ...] = ()


def log(line: str) -> None:
    """Write a line with the time of day; the pool has led stdout into the attempt's log.txt."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stdout.flush()
