"""How is the real command line run, watched and killed? Processes of one run, found by a marker.

A run gets an environment variable of its own. Workers, fork servers and attempts inherit it, so
whatever of a run is alive, anywhere below or beside its driver, is found in /proc by it. An attempt
is recognised by its stdout, which is its log; its worker is the parent of its fork server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sweepctl import runs

SWEEPCTL = str(Path(sys.executable).with_name("sweepctl"))
MARKER = "SWEEPCTL_FAULT_TEST"
POLL_S = 0.01
# A slow machine must not look like a hang: CI has run these at a third of a quiet machine's speed.
PATIENCE_S = 400.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of a run: its id, its parent's, and the file its stdout goes to."""

    pid: int
    parent: int
    stdout: str

    @property
    def attempt(self) -> tuple[str, int] | None:
        """(task id, number) of the attempt it is, None for drivers, workers and fork servers."""
        parts = Path(self.stdout).parts
        if parts[-1:] != ("log.txt",) or parts[-3] != "attempts":
            return None
        return parts[-4], int(parts[-2])


def environment(folder: Path, marker: str = "") -> dict[str, str]:
    """What a command sees: nothing of a user's settings, temporary files in the test's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPCTL_")}
    temporary = folder / "tmp"
    with contextlib.suppress(OSError):  # a folder that is read-only on purpose
        temporary.mkdir(exist_ok=True)
        kept["TMPDIR"] = str(temporary)
    return {**kept, MARKER: marker, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def call(
    folder: Path, *words: str, wrap: Sequence[str] = (), seconds: float = PATIENCE_S, **more: str
) -> Ended:
    """Run `sweepctl WORDS` in a folder to its end.

    Args:
        folder: where it is called.
        words: its arguments.
        wrap: a command to run it through.
        seconds: after which it counts as hanging.
        more: further environment variables.
    """
    done = subprocess.run(
        [*wrap, SWEEPCTL, *words],
        cwd=folder,
        env={**environment(folder), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


def one_error(err: str) -> bool:
    """Whether stderr holds exactly one error, and no traceback."""
    return err.count("error: ") == 1 and "Traceback" not in err


def marked(marker: str) -> dict[int, Process]:
    """All living processes that carry a marker, by id."""
    wanted = f"{MARKER}={marker}".encode()
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        folder = Path(entry.path)
        # It may end at any point of this, and a zombie has neither environment nor stdout.
        with contextlib.suppress(OSError):
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            # The name in brackets may hold blanks; the parent is the second field after it.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            pid = int(entry.name)
            stdout = str((folder / "fd" / "1").readlink())
            found[pid] = Process(pid=pid, parent=parent, stdout=stdout)
    return found


def wait_until(look: Callable[[], _T | None], what: str) -> _T:
    """The first true answer of `look`; fails when there is none in time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain for {what}")


class Run:
    """A `sweepctl run` of a folder's tiny.yaml that goes on while the test looks and kills.

    Args:
        folder: where it is called; its run folder is runs/ there.
        words: further arguments.

    Leaving the context kills what is left of it, and of nothing else.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.marker = uuid.uuid4().hex
        self.err = folder / f"stderr-{self.marker}.txt"
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [SWEEPCTL, "run", "tiny.yaml", "--cluster", "local", *words],
                cwd=folder,
                env=environment(folder, self.marker),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
            )

    def attempt(self, task: str) -> Process | None:
        """The process of a task's running attempt."""
        for process in marked(self.marker).values():
            if process.attempt is not None and process.attempt[0] == task:
                return process
        return None

    def step(self, task: str) -> int:
        """Newest step that a task's newest attempt has told; 0 for none."""
        events = sorted(
            (self.folder / "runs" / task / "attempts").glob("*/events.jsonl"),
            key=lambda path: int(path.parent.name),
        )
        event = runs.last_event(events[-1]) if events else None
        return 0 if event is None else int(event["step"])

    def worker_of(self, attempt: Process) -> Process:
        """The Dask worker whose fork server made the process of an attempt."""
        processes = marked(self.marker)
        server = processes[attempt.parent]
        assert server.attempt is None, "an attempt is a child of its fork server"
        return processes[server.parent]

    def wait(self, seconds: float = PATIENCE_S) -> Ended:
        """Wait for the driver to end, and for everything it has started."""
        code = self.process.wait(seconds)
        self.wait_until_gone()
        return Ended(code=code, out="", err=self.err.read_text())

    def wait_until_gone(self) -> None:
        """Nothing of a run may outlive its driver for long."""
        wait_until(lambda: not marked(self.marker), "all processes of a run to end")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in [self.process.pid, *marked(self.marker)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
