"""An attempt in a child process: a worker starts it, watches it and ends it.

A worker keeps one fork server (see `_fork_server`). For each attempt it sends the request together
with one end of a fresh socket pair and then sleeps on the other end: the child's exit wakes it at
once, so nothing is lost to polling. Twice a second it looks whether the attempt is to be stopped,
out of time or no longer wanted, and then asks (SIGTERM, so that the child writes its checkpoint)
before it insists (SIGKILL after the grace period).

The child's environment is chosen, not inherited: Dask's nanny sets thread counts and a hash seed
for its own purposes, and a task's numbers must not depend on them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweepctl.cluster._attempt import Asked, kernel_oom_kills, last_line, settle, stop_asked
from sweepctl.cluster._fork_server import MESSAGE_BYTES
from sweepctl.errors import SweepctlError
from sweepctl.runs import AttemptOutcome, AttemptRequest, Failure

LOOK_S = 0.5
"""Seconds between two looks at the stop file."""

_CLOSE_S = 5.0
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_PASSED_ON = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "NO_COLOR"),
        *("TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "CONDA_PREFIX"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS", "PYTHONNOUSERSITE"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    )
)
_PASSED_ON_PREFIXES = (
    *("LC_", "XDG_", "SWEEPCTL_", "VITOK_", "TORCH", "PYTORCH_", "TRITON_", "HF_", "SLURM_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_", "UCX_", "FI_"),
    *("ROCR_", "HIP_", "HSA_", "MIOPEN_", "RCCL_", "MALLOC_", "KMP_", "GOMP_", "OMP_PROC_BIND"),
)
# They hold secrets that only the driver and the dashboard need.
_KEPT_BACK = frozenset({"SWEEPCTL_DB", "SWEEPCTL_UI_TOKEN"})


def child_environment(threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a fork server and its children.

    Args:
        threads: CPU threads a child may use; every library's own variable is set to it.
        environment: the worker's own, from which a short list of variables is passed on.

    PYTHONPATH is this interpreter's import path without the parts every interpreter has.
    """
    chosen = {
        name: value
        for name, value in environment.items()
        if (name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)) and name not in _KEPT_BACK
    }
    chosen |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    built_in = {Path(path) for path in sysconfig.get_paths().values()}
    chosen["PYTHONPATH"] = os.pathsep.join(
        path or str(Path.cwd())
        for path in sys.path
        if not path.endswith(".zip") and built_in.isdisjoint((Path(path), Path(path).parent))
    )
    return chosen


class ServerGone(SweepctlError):
    """The fork server ended while an attempt was with it, or before it took it.

    Args:
        code: exit code of the server, negative for a signal, None when it does not end.
        last: last line of its log.
    """

    def __init__(self, code: int | None, last: str) -> None:
        how = (
            ""
            if code is None
            else f" with exit code {code}"
            if code >= 0
            else (f", killed by signal {-code}")
        )
        super().__init__(f"the fork server ended{how}{'; its log ends: ' if last else ''}{last}")
        self.code = code

    @property
    def failure(self) -> Failure:
        """Class of the failure of the attempt that was with it."""
        return "error" if self.code is not None and self.code > 0 else "killed"


class ForkServer:
    """The fork server of one worker process; started when first needed, and again when it died.

    Args:
        entry: "module:function" that runs a request.
        preload: "module:function" called once in the server, or None.
        threads: CPU threads a child may use, at least 1.
    """

    def __init__(self, *, entry: str, preload: str | None, threads: int) -> None:
        self._arguments = [entry] if preload is None else [entry, preload]
        self._threads = threads
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None when there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the server unless it runs; returns before it has imported anything."""
        with self._lock:
            self._start()

    def _start(self) -> socket.socket:
        if self._process is not None and self._control is not None:
            if self._process.poll() is None:
                return self._control
            self._control.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = self._log_path()
        # -P: a file in the current folder must not stand in for a module.
        module = [sys.executable, "-P", "-m", "sweepctl.cluster._fork_server"]
        with theirs, path.open("ab") as log:
            self._process = subprocess.Popen(
                [*module, str(theirs.fileno()), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                env=child_environment(self._threads, os.environ),
                start_new_session=True,
            )
        self._control = ours
        return ours

    def _log_path(self) -> Path:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="sweepctl-")
        return Path(self._scratch.name) / "fork-server.log"

    def hand_over(self, request: AttemptRequest) -> socket.socket:
        """Give the server a request; returns our end of the attempt's socket.

        Raises:
            ServerGone: the server died just now.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = json.dumps(dataclasses.asdict(request)).encode()
        with theirs, self._lock:
            try:
                socket.send_fds(self._start(), [message], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise self.gone() from error
        return ours

    def gone(self) -> ServerGone:
        """Why the server is not there any more."""
        process = self._process
        code = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(1.0)
        return ServerGone(code, last_line(self._log_path()))

    def close(self) -> None:
        """End the server and with it all its children; returns when it is gone."""
        with self._lock:
            if self._control is not None:
                self._control.close()
            if self._process is not None:
                try:
                    self._process.wait(_CLOSE_S)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            if self._scratch is not None:
                self._scratch.cleanup()
            self._process = self._control = self._scratch = None


@dataclass(slots=True)
class _Watch:
    """What is known of a running child.

    Attributes:
        pid: its process id and group, None before the server has forked it.
        started: when it was forked, on the monotonic clock.
        asked: why we end it, None while we do not.
        insist_at: when SIGTERM is followed by SIGKILL, on the monotonic clock.
        end: the server's last message about it; empty while it runs.
    """

    pid: int | None = None
    started: float = 0.0
    asked: Asked | None = None
    insist_at: float = math.inf
    end: dict[str, Any] = field(default_factory=dict)


def run_isolated(
    server: ForkServer,
    request: AttemptRequest,
    *,
    host: str,
    worker: str,
    grace_s: float,
    unwanted: Callable[[], bool],
) -> AttemptOutcome:
    """Run one attempt in a child of the server and wait for its end.

    Args:
        server: the worker's fork server.
        request: what to run.
        host: host name, for the outcome.
        worker: the worker's name, for the outcome.
        grace_s: seconds between SIGTERM and SIGKILL.
        unwanted: whether nobody waits for the outcome any more; the attempt is then stopped.
    """
    kills = kernel_oom_kills()
    watch = _Watch()
    lost = _follow(server, request, watch, grace_s, unwanted)
    code: int | None = watch.end.get("code")
    if watch.pid is None and watch.asked is not None:
        code = -signal.SIGTERM  # stopped before it was started
    return settle(
        request,
        code=code,
        asked=watch.asked,
        out_of_memory=kernel_oom_kills() > kills,
        seconds=watch.end.get("seconds", 0.0),
        peak_memory_bytes=watch.end.get("peak", 0),
        host=host,
        worker=worker,
        lost=lost,
    )


def _follow(
    server: ForkServer,
    request: AttemptRequest,
    watch: _Watch,
    grace_s: float,
    unwanted: Callable[[], bool],
) -> tuple[Failure, str] | None:
    """Have the request run to its end; what to report when the server died under it, else None."""
    for last_try in (False, True):
        try:
            with server.hand_over(request) as channel:
                _watch(server, request, channel, watch, grace_s, unwanted)
            return None
        except ServerGone as gone:
            if watch.pid is None and gone.code == 0 and not last_try:
                continue  # it left for lack of work just as this request came; nothing was started
            if watch.pid is not None:
                # The child died with the server, its subprocesses did not.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(watch.pid, signal.SIGKILL)
            return gone.failure, gone.message
    raise AssertionError("the second try returns")


def _watch(
    server: ForkServer,
    request: AttemptRequest,
    channel: socket.socket,
    watch: _Watch,
    grace_s: float,
    unwanted: Callable[[], bool],
) -> None:
    """Sleep until the child has ended; leave early when it was to be stopped before it started."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while not watch.end:
        if poll.poll(_wait_s(request, watch) * 1000):
            _hear(server, channel, watch)
            continue
        _look(request, channel, watch, grace_s, unwanted)
        if watch.asked is not None and watch.pid is None:
            return


def _wait_s(request: AttemptRequest, watch: _Watch) -> float:
    now = time.monotonic()
    due = watch.insist_at
    if watch.asked is None and watch.pid is not None and request.timeout_s is not None:
        due = watch.started + request.timeout_s
    return max(0.001, min(LOOK_S, due - now))


def _hear(server: ForkServer, channel: socket.socket, watch: _Watch) -> None:
    try:
        data = channel.recv(MESSAGE_BYTES)
    except OSError:
        data = b""
    if not data:
        raise server.gone()
    message = json.loads(data)
    if "pid" in message:
        watch.pid, watch.started = message["pid"], time.monotonic()
    else:
        watch.end = message


def _look(
    request: AttemptRequest,
    channel: socket.socket,
    watch: _Watch,
    grace_s: float,
    unwanted: Callable[[], bool],
) -> None:
    """Ask the child to stop when it is to be stopped or out of time; insist when that is due."""
    now = time.monotonic()
    wish = stop_asked(request)
    if watch.asked is None:
        limit = request.timeout_s
        if wish is not None or unwanted():
            watch.asked = "stop"
        elif limit is not None and watch.pid is not None and now >= watch.started + limit:
            watch.asked = "timeout"
        else:
            return
        watch.insist_at = now + grace_s
        _signal(channel, signal.SIGTERM)
    if wish == "hard":
        watch.insist_at = min(watch.insist_at, now)
    if now >= watch.insist_at:
        watch.insist_at = math.inf
        _signal(channel, signal.SIGKILL)


def _signal(channel: socket.socket, number: int) -> None:
    # A server that has gone meanwhile is noticed by the end of file on this socket.
    with contextlib.suppress(OSError):
        channel.send(str(int(number)).encode(), socket.MSG_NOSIGNAL)
