"""How do several processes work on one attempt? One supervisor, forked ranks, one outcome.

The child process of an attempt is the supervisor. It forks the ranks from its own image, in which
everything is imported, gives each what torchrun gives (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT), and computes nothing itself. It hosts the store by which they find each other, as
torchrun's agent does, on a port that the kernel chooses, so no two attempts can meet on one.

A rank says how it ended before it leaves the group. So the first error that arrives is the cause,
not what a neighbor says who waited for the one that failed; and a rank that was killed is believed
before those that noticed. After an error the others are ended: they wait for somebody who will not
come. A wish to stop reaches every rank as a signal to the process group or by the stop file, and
the ranks agree on the step; the supervisor waits for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

SETTLE_S = 1.0
"""Seconds between the first error of a rank and the end of the others: time to see a rank that was
killed, and for those with the same error to write it down."""

_MESSAGE_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1

Told = dict[str, Any]
"""How a rank ended, in its own words: fields of an `AttemptOutcome`."""


@dataclass(slots=True)
class _Rank:
    """A running rank.

    Attributes:
        pid: its process.
        watch: descriptor that is readable once the process has ended.
        words: pipe on which it says how it ended.
        told: what it said; None for nothing so far.
        code: exit code, negative for a signal; None while it runs.
        ended_by_us: whether we killed it.
    """

    pid: int
    watch: int
    words: int
    told: Told | None = None
    code: int | None = None
    ended_by_us: bool = False


def in_ranks(ranks: int, attempt: Path, work: Callable[[Callable[[Told], None]], None]) -> Told:
    """Run a function in so many processes together, and say how that ended.

    Args:
        ranks: number of processes, at least 2.
        attempt: folder of the attempt; what ranks above 0 print goes to log-<rank>.txt there.
        work: called in each process with the function by which it says how it ended: once, before
            it leaves the group.

    Raises:
        OSError: a process cannot be started.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()  # the port goes through it, a line for each rank
    members: list[_Rank] = []
    try:
        for number in range(ranks):
            members.append(_fork(number, ranks, attempt, work, read))
        # Only now: the store has threads, and a process with threads is not forked.
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(write, b"".join(b"%6d\n" % store.port for _ in members))
        first = _until_all_have_ended(members)
        return _verdict(members, first)
    finally:
        for one in members:
            if one.code is None:
                os.kill(one.pid, signal.SIGKILL)
                os.waitpid(one.pid, 0)
            os.close(one.watch)
            os.close(one.words)
        os.close(read)
        os.close(write)


def _fork(
    number: int,
    ranks: int,
    attempt: Path,
    work: Callable[[Callable[[Told], None]], None],
    ports: int,
) -> _Rank:
    supervisor = os.getpid()
    words, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_rank(number, ranks, attempt, work, supervisor=supervisor, ports=ports, say=say)
    os.close(say)
    return _Rank(pid=pid, watch=os.pidfd_open(pid), words=words)


def _be_rank(
    number: int,
    ranks: int,
    attempt: Path,
    work: Callable[[Callable[[Told], None]], None],
    *,
    supervisor: int,
    ports: int,
    say: int,
) -> NoReturn:
    """A rank from fork to exit."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)  # it died before the kernel knew about the tie
        if number > 0:
            log = os.open(attempt / _log_of(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
        os.environ |= {
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": os.read(ports, 7).decode().strip(),
            # The store is there already: no rank shall open one of its own.
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        # All are on this machine: nothing listens on its network.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        work(lambda told: _say(say, told))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is goes to the log, and the rank ends here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not by way of the interpreter: threads of gloo can abort one that is ending.
        os._exit(code)


def _say(pipe: int, told: Told) -> None:
    os.write(pipe, json.dumps(told).encode())


def _until_all_have_ended(members: list[_Rank]) -> int | None:
    """Wait for all; end the others when one has failed. Which one did so first; None for none."""
    poll = select.poll()
    for one in members:
        poll.register(one.words, select.POLLIN)
        poll.register(one.watch, select.POLLIN)
    first: int | None = None
    until = math.inf
    while any(one.code is None for one in members):
        wait = None if until == math.inf else max(0.0, until - time.monotonic()) * 1000
        ready = {descriptor for descriptor, _ in poll.poll(wait)}
        for number, one in enumerate(members):
            _hear(one, ready, poll)
            if first is None and _has_failed(one):
                first, until = number, time.monotonic() + SETTLE_S
        if time.monotonic() >= until:
            for one in members:
                if one.code is None:
                    one.ended_by_us = True
                    os.kill(one.pid, signal.SIGKILL)
            until = math.inf
    return first


def _hear(one: _Rank, ready: set[int], poll: select.poll) -> None:
    """Take what a rank says, and its end."""
    if one.words in ready:
        if words := os.read(one.words, _MESSAGE_BYTES):
            one.told = json.loads(words)
        else:
            poll.unregister(one.words)
    if one.watch in ready:
        poll.unregister(one.watch)
        _, status = os.waitpid(one.pid, 0)
        one.code = os.waitstatus_to_exitcode(status)
        if one.words not in ready and (words := _rest(one.words)):
            one.told = json.loads(words)


def _rest(pipe: int) -> bytes:
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, _MESSAGE_BYTES)
    except BlockingIOError:
        return b""


def _has_failed(one: _Rank) -> bool:
    if one.told is not None:
        return bool(one.told["state"] == "failed")
    return one.code is not None


def _verdict(members: list[_Rank], first: int | None) -> Told:
    """The outcome of the attempt from those of its ranks."""
    ranks = len(members)
    told = [one.told for one in members if one.told is not None]
    memory = {"peak_memory_bytes": sum(one["peak_memory_bytes"] for one in told)}
    if members[0].told is not None and members[0].told["state"] == "done":
        return {**members[0].told, **memory}  # the result is written, and all had a part in it
    for number, one in enumerate(members):
        if one.told is None and not one.ended_by_us and one.code is not None and one.code < 0:
            how = f"killed by {_name_of_signal(-one.code)}"
            message = f"process {number} of {ranks} (the first is 0) was {how}"
            return {"state": "failed", "failure": "killed", "message": message, **memory}
    if first is not None:
        failed = members[first]
        if failed.told is None:
            message = f"process {first} of {ranks} (the first is 0) left with exit code "
            message += f"{failed.code}; see {_log_of(first)}"
            return {"state": "failed", "failure": "error", "message": message, **memory}
        message = failed.told["message"]
        if not all(one["state"] == "failed" for one in told) or len(told) < ranks:
            message = f"process {first} of {ranks} (the first is 0): {message}"
        return {**failed.told, "message": message, **memory}
    stopped: Mapping[str, Any] = next(one for one in told if one["state"] == "stopped")
    return {**stopped, **memory}


def _log_of(number: int) -> str:
    return "log.txt" if number == 0 else f"log-{number}.txt"


def _name_of_signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return f"signal {number} ({signal.Signals(number).name})"
    return f"signal {number}"
