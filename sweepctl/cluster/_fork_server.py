"""How does an attempt get a process of its own without paying for `import torch` each time?

A server process imports everything once, then forks a child for each request: milliseconds, not
seconds. A worker starts it as `python -m sweepctl.cluster._fork_server FD ENTRY PRELOAD`,
where FD is its end of a socket pair (SOCK_SEQPACKET: one message, one read).

    worker -> server   on FD: an AttemptRequest as JSON, with the server's end of a socket pair made
                       for this attempt; on that one: a signal number in decimal
    server -> worker   on the attempt's socket: {"pid"}, then {"code", "seconds", "peak"}

An end of file is the only sign of death it trusts, since the kernel sends it however the other side
died: FD closed means that the worker is gone, so every child is killed and the server leaves; an
attempt's socket closed means that nobody waits for it, so that child is killed. Children run in a
session of their own, so a signal reaches their subprocesses too, and they die with the server
(PR_SET_PDEATHSIG; that needs the server to have one thread only). Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sweepctl.cluster._devices import child_variables
from sweepctl.runs import AttemptRequest, attempt_folder

MESSAGE_BYTES = 1 << 16
"""Largest message on either socket."""

IDLE_S = 900.0
"""A server without work leaves after this many seconds: it holds memory, and its worker can start
another one. Nobody else would end it on a worker whose driver has died."""

_PR_SET_PDEATHSIG = 1
_MADV_COLLAPSE = 25
_HUGE_PAGE_BYTES = 1 << 21
_CHILD_OOM_SCORE = 500  # of -1000 .. 1000: the kernel picks a child before worker and driver
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Child:
    """A running child: its socket (None once the worker has closed it) and when it was forked."""

    channel: socket.socket | None
    started: float


@dataclass(slots=True)
class _Server:
    """What the loop keeps: its end of the worker's socket, the SIGCHLD pipe, children by pid."""

    control: socket.socket
    wake: int
    wake_write: int
    children: dict[int, _Child]


def resolve(entry: str) -> Callable[..., Any]:
    """The function that "module:function" names.

    Raises:
        ImportError: the module is not there.
        AttributeError: the module has no such function.
    """
    module, _, name = entry.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def serve(control: socket.socket, entry: str, preload: str | None, idle_s: float = IDLE_S) -> None:
    """Serve requests until the worker is gone or nothing was asked for `idle_s` seconds."""
    # The worker blocks SIGINT for itself and all it starts; a child decides for itself.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    if preload is not None:
        resolve(preload)()
    run = resolve(entry)
    server = _Server(control, *os.pipe(), children={})
    os.set_blocking(server.wake, False)
    os.set_blocking(server.wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(server.wake_write, warn_on_full_buffer=False)
    # What exists now is never collected again: a child that walked it would copy every page.
    gc.collect()
    gc.freeze()
    gc.disable()
    _gather_pages()
    try:
        while _turn(server, run, idle_s):
            pass
    finally:
        for pid in server.children:
            _kill_group(pid, signal.SIGKILL)


def _gather_pages() -> None:
    """Put this process's memory on huge pages, so that fork and exit have 500 times fewer to walk.

    With torch loaded a fork and an exit take 4 ms instead of 14. It costs a quarter of a second
    once. Kernels before 6.1 do not know the advice, and some ranges cannot follow it (EINVAL):
    then fork is as slow as it was, so the answer is not looked at.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, _, *name = line.split(maxsplit=5)
        if access != "rw-p" or name not in ([], ["[heap]"]):
            continue
        low, high = (int(end, 16) for end in span.split("-"))
        first = -(-low // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        for address in range(first, high - _HUGE_PAGE_BYTES + 1, _HUGE_PAGE_BYTES):
            _LIBC.madvise(
                ctypes.c_void_p(address), ctypes.c_size_t(_HUGE_PAGE_BYTES), _MADV_COLLAPSE
            )


def _turn(server: _Server, run: Callable[..., Any], idle_s: float) -> bool:
    """Wait for one thing to happen and see to it; False when it is time to leave."""
    poll = select.poll()
    poll.register(server.control, select.POLLIN)
    poll.register(server.wake, select.POLLIN)
    channels = {c.channel.fileno(): pid for pid, c in server.children.items() if c.channel}
    for descriptor in channels:
        poll.register(descriptor, select.POLLIN)
    events = poll.poll(None if server.children else idle_s * 1000)
    if not events and not server.children:
        return False
    for descriptor, _ in events:
        if descriptor == server.wake:
            with contextlib.suppress(BlockingIOError):
                os.read(server.wake, 4096)
        elif descriptor == server.control.fileno():
            data, descriptors, _, _ = socket.recv_fds(server.control, MESSAGE_BYTES, 1)
            if not data:
                return False
            _fork(server, run, AttemptRequest(**json.loads(data)), descriptors[0])
        else:
            _obey(channels[descriptor], server.children[channels[descriptor]])
    for pid in list(server.children):
        _reap(server.children, pid)
    return True


def _obey(pid: int, child: _Child) -> None:
    """Pass on the signal the worker asks for; kill the child when the worker has hung up."""
    if child.channel is None:
        return
    try:
        data = child.channel.recv(64)
    except OSError:
        data = b""
    if data:
        _kill_group(pid, int(data))
    else:
        _kill_group(pid, signal.SIGKILL)
        child.channel.close()
        child.channel = None


def _reap(children: dict[int, _Child], pid: int) -> None:
    """Collect one child if it has ended, and tell the worker."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return
    seconds = time.monotonic() - children[pid].started
    # Data loaders and launchers it left behind, while its pid cannot yet belong to anyone else.
    _kill_group(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    child = children.pop(pid)
    if child.channel is not None:
        code = os.waitstatus_to_exitcode(status)
        _send(child.channel, {"code": code, "seconds": seconds, "peak": usage.ru_maxrss * 1024})
        child.channel.close()


def _send(channel: socket.socket, message: dict[str, object]) -> None:
    # A worker that has gone meanwhile is noticed by the end of file on its socket.
    with contextlib.suppress(OSError):
        channel.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)


def _kill_group(pid: int, number: int) -> None:
    """Signal a child and its subprocesses; the child alone while it has no session of its own."""
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)


def _fork(
    server: _Server, run: Callable[..., Any], request: AttemptRequest, descriptor: int
) -> None:
    channel = socket.socket(fileno=descriptor)
    hung_up = select.poll()
    hung_up.register(channel, 0)
    if hung_up.poll(0):
        channel.close()  # stopped while this server was still importing
        return
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(server, channel, run, request, parent)
    server.children[pid] = _Child(channel, started)
    _send(channel, {"pid": pid})


def _child(
    server: _Server,
    channel: socket.socket,
    run: Callable[..., Any],
    request: AttemptRequest,
    parent: int,
) -> NoReturn:
    """The child from fork to exit; never returns into the server's loop."""
    code = 1
    try:
        os.setsid()
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the server died before the kernel knew about the tie
        _leave_server(server, channel)
        if request.devices:
            # Nothing has touched a GPU so far: CUDA reads these when it is first used.
            chosen = child_variables(request.devices, os.environ)
            os.environ.clear()
            os.environ.update(chosen)
        _open_log(request)
        code = call(run, request)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT  # before the entry could handle it: no failure of the attempt
    except BaseException:  # noqa: BLE001 - whatever it is goes to the log, and the child ends here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        _LIBC.fflush(None)
        os._exit(code)


def _leave_server(server: _Server, channel: socket.socket) -> None:
    """Give up what belongs to the server.

    Descriptors are closed through their owners: closing the bare number would let the owner close
    it a second time later, when it may be a checkpoint's.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(server.wake)
    os.close(server.wake_write)
    server.control.close()
    channel.close()
    for other in server.children.values():
        if other.channel is not None:
            other.channel.close()
    server.children.clear()
    # Some containers do not let a process change its score; then all are equal.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_CHILD_OOM_SCORE))


def _open_log(request: AttemptRequest) -> None:
    folder = attempt_folder(Path(request.folder), request.attempt)
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        # A reader follows the log, and a child killed by a signal flushes nothing.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # real files here
    faulthandler.enable()
    gc.enable()


def call(run: Callable[[AttemptRequest], None], request: AttemptRequest) -> int:
    """Run an entry and say with which exit code a process of its own would end.

    An exception's traceback goes to stderr, like the interpreter's own.
    """
    try:
        run(request)
    except SystemExit as leave:
        if leave.code is None:
            return 0
        if isinstance(leave.code, int):
            return leave.code & 0xFF
        sys.stderr.write(f"{leave.code}\n")
        return 1
    except Exception:  # noqa: BLE001 - the boundary: an attempt's error is the attempt's outcome
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Serve on the descriptor named on the command line."""
    descriptor, entry, *preload = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as control:
        control.set_inheritable(False)
        serve(control, entry, preload[0] if preload else None)


if __name__ == "__main__":
    main()
