"""The Dask pools: requests are carried to workers, outcomes back.

Dask is used for what it is good at, knowing which workers live and moving small messages, and for
nothing else: one future an attempt, no dependencies, no retries, no stealing, no memory limits. A
future is dropped as soon as its outcome is here, so the scheduler stays empty however long a study
is. Every setting is in `SETTINGS` with its reason.

Who dies with whom: the scheduler and the nannies live in the driver; a worker leaves when its nanny
is gone; a fork server kills its children when its worker is gone. So nothing outlives a driver that
is killed, and a worker that is killed costs the attempts it ran: one, unless it has several slots
(`open_local`). On a scheduler that the user started, the
workers stay, see that nobody waits for the attempt any more, and stop it after a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import ipaddress
import logging
import multiprocessing.resource_tracker
import os
import queue
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import dask
import dask.config
import dask.system
import distributed
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker, NoValidWorkerError

from sweepctl.cluster import HERE, Answer
from sweepctl.cluster._attempt import ask_to_stop, make_ready, outcome_from, settle
from sweepctl.cluster._dask_worker import Job, Runner, gpus_here, name_of, run_on_worker, silenced
from sweepctl.cluster._devices import Found, find_gpus
from sweepctl.cluster._fork_server import resolve
from sweepctl.cluster._slots import Node
from sweepctl.errors import RunFolderError, UnreachableError, UsageError
from sweepctl.runs import AttemptOutcome, AttemptRequest, Failure

if TYPE_CHECKING:
    from sweepctl.cluster import PoolRequest

SETTINGS: Mapping[str, Any] = {
    # A queued attempt never moves: the driver submits only what a free worker starts at once.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-saturation": 1.0,
    # The first death of a worker is reported; the driver decides whether to try again.
    "distributed.scheduler.allowed-failures": 0,
    # A worker that swaps or stands still for some minutes is not dead.
    "distributed.scheduler.worker-ttl": "15 minutes",
    # All workers of a machine do not stay away for five minutes unless something is wrong.
    "distributed.scheduler.no-workers-timeout": "5 minutes",
    # A nanny restarts its worker as often as it dies. So long after each death, the cluster drops
    # a worker that is not connected at that moment, for good, though it may be just starting.
    "distributed.deploy.lost-worker-timeout": "8760h",
    # Attempts are long; the scheduler's estimate of load should say so.
    "distributed.scheduler.unknown-task-duration": "1h",
    # A worker has no multiprocessing children (the fork server is a subprocess), so it may be a
    # daemon: it then ends with the driver.
    "distributed.worker.daemon": True,
    # The memory that matters is the child's, which the kernel watches.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Sampling every 10 ms and 1 ms, for pages nobody opens.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.system-monitor.disk": False,
    # Workers must not touch a GPU: a context costs hundreds of MB on it.
    "distributed.diagnostics.nvml": False,
    # The nanny would set OMP_NUM_THREADS and a fixed hash seed, in this process too.
    "distributed.nanny.pre-spawn-environ": {"PYTHONHASHSEED": "random"},
    # Busy machines answer late.
    "distributed.comm.timeouts.connect": "60s",
    "distributed.comm.timeouts.tcp": "60s",
    "distributed.comm.retry.count": 5,
    # No memory balancing: there is nothing in memory.
    "distributed.scheduler.active-memory-manager.start": False,
    # No pages and no metrics to serve; the port that Dask opens for them answers nothing.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
"""Dask configuration while a pool is open; for a scheduler that runs already, its client's part."""

_START_S = 120.0
_CONNECT_S = 10.0
_CLOSE_S = 5.0
_SLOTS_AGE_S = 2.0  # how old what is known of a remote scheduler's workers may be
_STRAY_S = 10.0  # how long an attempt waits for a worker that is gone

_Reply = tuple[AttemptRequest, distributed.Future]


async def _answer(function: str, argument: Mapping[str, Any], dask_worker: Any = None) -> Answer:
    """What a function answers on this worker; in a thread, so that the worker stays reachable."""
    value = await asyncio.to_thread(resolve(function), argument)
    return Answer(worker=name_of(dask_worker), value=value)


def _answered(address: str, said: object) -> Answer:
    """An answer, or the error that came instead."""
    if isinstance(said, Answer):
        return said
    return Answer(worker=address, problem=" ".join(f"{type(said).__name__}: {said}".split()))


class DaskPool:
    """A pool whose slots are the threads of Dask workers; made by `open_local`, `open_remote`.

    Args:
        client: connected client.
        cluster: the cluster that the pool started, None for one that runs by itself.
        runner: name under which the workers' `Runner` is registered.
        job: what that was told.
        held: what to give back at the end: client, cluster, settings.

    Attributes:
        notices: what the user should know.
        grows: whether workers may still join.
        most: largest number of slots to use, or None.
    """

    def __init__(
        self,
        *,
        client: distributed.Client,
        cluster: distributed.LocalCluster | None,
        runner: str,
        job: Job,
        held: contextlib.ExitStack,
    ) -> None:
        self.notices: tuple[str, ...] = ()
        self.grows = cluster is None
        self.most: int | None = None
        self._client = client
        self._cluster = cluster
        self._name = runner
        self._job = job
        self._held = held
        self._running: dict[str, _Reply] = {}
        self._nodes: dict[str, str] = {}  # key of a running attempt -> its worker
        self._strays: dict[str, float] = {}  # the same -> when its worker was first seen gone
        self._gpus: dict[str, int] = {}  # worker -> how many GPUs it has for us
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._arrived: list[str] = []
        self._ready: list[AttemptOutcome] = []
        self._threads: dict[str, int] = {}
        self._threads_until = 0.0
        self._closed = False

    @property
    def slots(self) -> int:
        """Threads of all workers that are connected now."""
        threads = sum(self._connected().values())
        return threads if self.most is None else min(threads, self.most)

    def room(self) -> list[Node]:
        """The connected workers, and what is free on them; see `Pool.room`."""
        threads, used = self._connected(), Counter[str]()
        for key, (request, _) in self._running.items():
            used[self._nodes[key]] += request.ranks
        left = sum(threads.values()) if self.most is None else self.most - used.total()
        nodes = []
        for name, slots in threads.items():
            gpus = self._gpus_of(name)
            most = slots if gpus == 0 else min(slots, gpus)
            nodes.append(
                Node(
                    name=name,
                    slots=slots,
                    free=max(0, min(slots - used[name], left)),
                    most=most if self.most is None else min(most, self.most),
                )
            )
        return nodes

    def _connected(self) -> dict[str, int]:
        """Address of each worker that is connected now -> its threads."""
        if self._cluster is not None:
            # The scheduler lives in this process: look, do not ask.
            workers = list(self._cluster.scheduler.workers.items())
            return {address: worker.nthreads for address, worker in workers}
        now = time.monotonic()
        if now >= self._threads_until:
            self._threads = dict(self._ask(self._client.nthreads))
            self._threads_until = now + _SLOTS_AGE_S
        return self._threads

    def _slots_of_a_machine(self) -> int:
        """Slots of the machine that has most of them: they share its cores."""
        slots = Counter[str | None]()
        for address, threads in self._connected().items():
            slots[urlsplit(address).hostname] += threads
        most = max(slots.values(), default=1)
        return most if self.most is None else min(most, self.most)

    def _gpus_of(self, worker: str) -> int:
        if self._job.gpus is not None:
            return len(self._job.gpus)
        if worker not in self._gpus:
            # One that leaves just now says nothing; it is gone from the list at the next look.
            answers = self._ask(
                self._client.run, gpus_here, self._name, workers=[worker], on_error="ignore"
            )
            if worker not in answers:
                return 0
            self._gpus[worker] = answers[worker]
        return self._gpus[worker]

    def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise _unreachable(self._client, error) from error

    def submit(self, request: AttemptRequest, node: str = "") -> None:
        """Send a request to a worker; see `Pool.submit`."""
        request = dataclasses.replace(request, slots=self._slots_of_a_machine())
        make_ready(request)
        # The pool's name keeps drivers of one scheduler apart: the same key is the same future.
        key = f"{request.kind}-{request.task_id}-a{request.attempt}-{self._name}"
        future = self._client.submit(
            run_on_worker,
            dataclasses.asdict(request),
            self._name,
            key=key,
            pure=False,
            retries=0,
            **({"workers": [node], "allow_other_workers": False} if node else {}),
        )
        self._running[key] = (request, future)
        self._nodes[key] = node
        future.add_done_callback(functools.partial(_tell, self._ended, key))

    def completed(self, timeout_s: float) -> list[AttemptOutcome]:
        """Outcomes that came in; see `Pool.completed`."""
        self._collect(timeout_s)
        if not self._ready and self._client.status not in ("running", "connecting"):
            raise _unreachable(self._client, None)
        ready, self._ready = self._ready, []
        return ready

    def _collect(self, timeout_s: float) -> None:
        # What has been taken from the queue is kept until its outcome is here: an interrupt
        # between the two loses nothing.
        wait_s = 0.0 if self._arrived or self._ready else max(0.0, timeout_s)
        with contextlib.suppress(queue.Empty):
            self._arrived.append(self._ended.get(timeout=wait_s))
            while True:
                self._arrived.append(self._ended.get_nowait())
        while self._arrived:
            key = self._arrived[0]
            if key in self._running:  # else it was given up as a stray
                self._ready.append(_outcome(*self._running[key]))
                self._forget(key)
            del self._arrived[0]
        self._give_up_strays()

    def _forget(self, key: str) -> None:
        del self._running[key], self._nodes[key]
        self._strays.pop(key, None)

    def _give_up_strays(self) -> None:
        """Report attempts whose worker is gone before it has begun with them.

        They were sent to that worker and no other, so the scheduler would wait for one of that
        address. One that was running there is reported by the scheduler itself.
        """
        sent = [key for key, node in self._nodes.items() if node]
        if not sent or self._client.status != "running":
            return
        connected, now = self._connected(), time.monotonic()
        for key in sent:
            if self._nodes[key] in connected:
                self._strays.pop(key, None)
            elif now - self._strays.setdefault(key, now) >= _STRAY_S:
                request, future = self._running[key]
                lost: tuple[Failure, str] = ("worker_lost", f"worker {self._nodes[key]} is gone")
                self._ready.append(settle(request, code=None, lost=lost))
                self._forget(key)
                future.cancel()

    def ask(self, function: str, argument: Mapping[str, Any]) -> list[Answer]:
        """Call a function on every worker, or once for this machine; see `Pool.ask`."""
        if self._cluster is not None:
            return [Answer(worker=HERE, value=resolve(function)(argument))]
        said = self._ask(self._client.run, _answer, function, dict(argument), on_error="return")
        answers = [_answered(address, answer) for address, answer in said.items()]
        return sorted(answers, key=lambda one: one.worker)

    def stop(self, hard: bool = False) -> None:
        """Leave stop files, which workers look at twice a second; see `Pool.stop`."""
        for request, _ in list(self._running.values()):
            ask_to_stop(request, hard=hard)

    def close(self) -> None:
        """End what still runs, then give everything back."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end_running()
        finally:
            self._held.close()

    def _end_running(self) -> None:
        """Kill the attempts that still run, so that no worker waits for one when it is closed."""
        if self._running and self._client.status == "running":
            # On a full disk no stop file can be written. Workers of ours end anyway, and what ended
            # the driver is the error to show.
            with contextlib.suppress(RunFolderError):
                self.stop(hard=True)
            until = time.monotonic() + _CLOSE_S
            while self._running and time.monotonic() < until:
                self._collect(0.1)
                self._ready.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _tell(ended: queue.SimpleQueue[str], key: str, future: distributed.Future) -> None:
    ended.put(key)


def _outcome(request: AttemptRequest, future: distributed.Future) -> AttemptOutcome:
    try:
        return outcome_from(future.result(timeout=_CLOSE_S))
    except KilledWorker as error:
        worker = name_of(error.last_worker)
        lost: tuple[Failure, str] = ("worker_lost", f"worker {worker} died while it ran this")
        return settle(request, code=None, worker=worker, lost=lost)
    except (NoValidWorkerError, FutureCancelledError, OSError, TimeoutError) as error:
        lost = ("worker_lost", f"the worker is gone: {type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - what Dask carried over from the worker
        words = " ".join(str(error).split())
        lost = ("error", f"the worker could not run it: {type(error).__name__}: {words}")
    return settle(request, code=None, lost=lost)


def _unreachable(client: distributed.Client, error: Exception | None) -> UnreachableError:
    address = client.scheduler.address if client.scheduler is not None else "the address given"
    return UnreachableError(
        f"the Dask scheduler at {address} is gone{f': {error}' if error else ''}",
        hint="start it again and run again: finished tasks are kept, running ones go on from "
        "their last checkpoint",
    )


def _job(asked: PoolRequest, *, own_workers: bool, gpus: tuple[str, ...] | None) -> Job:
    return Job(
        entry=asked.entry,
        preload=asked.preload,
        threads=asked.threads,
        grace_s=asked.grace_s,
        own_workers=own_workers,
        gpus=gpus,
    )


def open_local(asked: PoolRequest) -> DaskPool:
    """Start worker processes on this machine, reachable from here only.

    Without a number of slots there is one per GPU, and without GPUs one per `threads` of the cores
    that this process may use. GPUs are in one worker's hands, which knows which are free; so are
    slots that attempts take several of. Other slots have a worker process each: one that dies
    costs one attempt.

    Raises:
        UnreachableError: the worker processes do not come up.
    """
    found = find_gpus(os.environ) if asked.gpus else Found()
    gpus = tuple(gpu.id for gpu in found.gpus)
    job = _job(asked, own_workers=True, gpus=gpus)
    count = asked.workers or len(gpus) or max(1, dask.system.CPU_COUNT // job.threads)
    processes = 1 if gpus or asked.ranks > 1 else count
    with contextlib.ExitStack() as held:
        # Dask's own defaults first: what the user's files and DASK_ variables say about encryption,
        # idle schedulers or memory is meant for clusters of his, not for these workers.
        held.enter_context(dask.config.set(dask.config.merge(*dask.config.defaults)))
        held.enter_context(dask.config.set(SETTINGS))
        handler = held.enter_context(silenced())
        try:
            with _interrupts_blocked():
                cluster = held.enter_context(_start_cluster(processes, count // processes))
                client = held.enter_context(distributed.Client(cluster, set_as_default=False))
            client.wait_for_workers(1, timeout=_START_S)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise UnreachableError(
                f"none of {processes} worker processes was ready after {_START_S:g} s: {error}"
                if isinstance(error, TimeoutError)
                else f"{processes} worker processes could not be started: {error}",
                hint="free memory, or start fewer with --workers",
            ) from error
        handler.setLevel(logging.WARNING)  # silence_logs is for the workers, but sets this one too
        runner = _register(client, job)
        pool = DaskPool(client=client, cluster=cluster, runner=runner, job=job, held=held.pop_all())
    pool.notices = found.notices
    return pool


def _start_cluster(processes: int, slots: int) -> distributed.LocalCluster:
    return distributed.LocalCluster(
        n_workers=processes,
        threads_per_worker=slots,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        worker_dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,  # of a worker, until it has silenced itself
    )


def open_remote(asked: PoolRequest) -> DaskPool:
    """Connect to a scheduler that runs already; its workers must see the same files.

    With a number of workers, at most so many slots are used.

    Raises:
        UnreachableError: the scheduler does not answer.
        UsageError: an address without a port, or TLS without certificates.
    """
    # Each worker finds its own.
    job = _job(asked, own_workers=False, gpus=None if asked.gpus else ())
    address = asked.where
    notices = _check_address(address)
    settings = {**SETTINGS, "distributed.comm.require-encryption": address.startswith("tls://")}
    with contextlib.ExitStack() as held:
        held.enter_context(dask.config.set(settings))
        held.enter_context(silenced())
        try:
            # A port where nobody listens says so at once; Dask would go on knocking.
            parts = urlsplit(address)
            socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_S).close()
            with _interrupts_blocked():
                client = held.enter_context(
                    distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
                )
        except (OSError, TimeoutError, RuntimeError) as error:
            raise UnreachableError(
                f"no Dask scheduler answers at {address}: {error}",
                hint="start one with: dask scheduler --host HOST --port PORT; and on each machine: "
                f"dask worker {address} --nworkers SLOTS --nthreads 1",
            ) from error
        runner = _register(client, job)
        held.callback(_unregister, client, runner)
        pool = DaskPool(client=client, cluster=None, runner=runner, job=job, held=held.pop_all())
    pool.most, pool.notices = asked.workers, notices
    if pool.slots == 0:
        pool.notices += (f"no workers are connected to {address} yet",)
    return pool


def _register(client: distributed.Client, job: Job) -> str:
    name = f"sweepctl-{uuid.uuid4().hex[:12]}"
    client.register_plugin(Runner(name, job), name=name)
    return name


def _unregister(client: distributed.Client, runner: str) -> None:
    if client.status == "running":
        client.unregister_worker_plugin(runner)


def _check_address(address: str) -> tuple[str, ...]:
    """Notices about an address.

    Raises:
        UsageError: it has no port, or TLS has no certificates to show.
    """
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None:
        raise UsageError(f"{address!r} needs a host and a port, such as {parts.scheme}://host:8786")
    if parts.scheme == "tls":
        if dask.config.get("distributed.comm.tls.client.cert", None) is None:
            raise UsageError(
                f"{address} needs certificates, and Dask is configured with none",
                hint="set distributed.comm.tls.ca-file and distributed.comm.tls.client.{cert,key} "
                "in Dask's configuration, or DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on",
            )
        return ()
    loopback = parts.hostname == "localhost"
    with contextlib.suppress(ValueError):
        loopback = ipaddress.ip_address(parts.hostname).is_loopback
    if loopback:
        return ()
    return (
        f"{address} is not encrypted: whoever reaches that port can run code as you. "
        "Use tls:// outside a network you trust",
    )


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start threads and processes that never see Ctrl-C; it arrives here, after the block.

    A terminal sends SIGINT to every process of the foreground group, and a Dask worker would leave
    on it. The signal mask is inherited by threads and across exec, so it also holds for a worker
    that a nanny restarts hours later from its own thread, without a gap while that one starts.
    """
    # multiprocessing starts its tracker when first needed, and unblocks SIGINT in that thread then.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
