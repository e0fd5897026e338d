"""The inline pool: attempts run in this process.

One at a time, in the thread that asks for what has completed: no workers to start, no time lost,
a debugger works, and Ctrl-C reaches the entry as KeyboardInterrupt. The price is that nothing
protects this process: an attempt that crashes takes the driver along, and an attempt that does not
look at its stop file cannot be stopped gently. What an attempt prints goes to its log all the same.
"""

from __future__ import annotations

import contextlib
import platform
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from sweepctl.cluster import HERE, Answer
from sweepctl.cluster._attempt import Asked, ask_to_stop, folder_of, make_ready, settle
from sweepctl.cluster._fork_server import call, resolve
from sweepctl.cluster._slots import Node
from sweepctl.errors import SweepctlError, UsageError
from sweepctl.runs import AttemptOutcome, AttemptRequest

if TYPE_CHECKING:
    from sweepctl.cluster import PoolRequest

_NAME = "inline"


class _Ended(BaseException):
    """Thrown into a running attempt to end it; not an Exception, so that no entry survives it."""

    def __init__(self, why: Asked) -> None:
        super().__init__(why)
        self.why = why


class InlinePool:
    """A pool of one slot that runs attempts in `completed`, in the calling thread.

    Args:
        entry: "module:function" that runs a request; imported at once.

    Raises:
        UsageError: the entry cannot be imported.
    """

    def __init__(self, entry: str) -> None:
        try:
            self._run = resolve(entry)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"cannot import the entry {entry!r}: {error}") from error
        self._waiting: deque[AttemptRequest] = deque()
        self._running: AttemptRequest | None = None
        self._thread = 0
        self.notices: tuple[str, ...] = ()
        self.grows = False

    @property
    def slots(self) -> int:
        """Always 1."""
        return 1

    def room(self) -> list[Node]:
        """This process, with its slot."""
        return [Node(name=_NAME, slots=1, free=0 if self._waiting or self._running else 1, most=1)]

    def submit(self, request: AttemptRequest, node: str = "") -> None:
        """Queue a request for the next `completed`.

        Raises:
            RunFolderError: the attempt's folder cannot be written.
        """
        make_ready(request)
        self._waiting.append(request)

    def completed(self, timeout_s: float) -> list[AttemptOutcome]:
        """Run the next request, however long it takes; without one, sleep for `timeout_s`."""
        if not self._waiting:
            time.sleep(timeout_s)
            return []
        request = self._waiting.popleft()
        self._running, self._thread = request, threading.get_ident()
        started = time.monotonic()
        asked: Asked | None = None
        code: int | None = None
        try:
            with _output_to_log(request), _time_limit(request.timeout_s):
                code = call(self._run, request)
        except _Ended as ended:
            asked, code = ended.why, -signal.SIGTERM
        finally:
            self._running = None
        seconds = time.monotonic() - started
        return [
            settle(
                request,
                code=code,
                asked=asked,
                seconds=seconds,
                host=platform.node(),
                worker=_NAME,
            )
        ]

    def ask(self, function: str, argument: Mapping[str, Any]) -> list[Answer]:
        """Call a function in this process; see `Pool.ask`."""
        return [Answer(worker=HERE, value=resolve(function)(argument))]

    def stop(self, hard: bool = False) -> None:
        """Leave the stop file of every submitted attempt; when hard, end the running one now.

        Raises:
            SweepctlError: `hard`, but the attempt runs in another thread, where it cannot be ended.
        """
        for request in (*([self._running] if self._running else []), *self._waiting):
            ask_to_stop(request, hard=hard)
        if hard and self._running is not None:
            if threading.get_ident() != self._thread:
                raise SweepctlError(
                    "an attempt in this process can be ended only from the thread that runs it",
                    hint="call stop(hard=True) from a signal handler, or use --cluster local",
                )
            raise _Ended("stop")

    def close(self) -> None:
        """Forget what was submitted and not run."""
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _output_to_log(request: AttemptRequest) -> Iterator[None]:
    path = folder_of(request) / "log.txt"
    with (
        path.open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield


@contextlib.contextmanager
def _time_limit(timeout_s: float | None) -> Iterator[None]:
    """End the block after so many seconds, by the alarm clock of the main thread.

    Raises:
        SweepctlError: there is a limit, but this is not the main thread.
    """
    if timeout_s is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise SweepctlError(
            "a time limit needs the main thread when attempts run in this process",
            hint="call from the main thread, or use --cluster local",
        )

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Ended("timeout")

    handler = signal.signal(signal.SIGALRM, ring)
    before = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        # Whoever had set the alarm clock before gets what is left of his time.
        rest = max(1e-3, left - (time.monotonic() - before)) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, rest, interval)


def open_inline(asked: PoolRequest) -> InlinePool:
    """Open a pool in this process.

    Raises:
        UsageError: more than one worker, or an entry that cannot be imported.
    """
    if asked.workers not in (None, 1):
        raise UsageError(
            f"workers {asked.workers}: attempts in this process run one at a time",
            hint="use --cluster local for several workers",
        )
    return InlinePool(asked.entry)
