"""What a Dask worker does: it has a fork server and GPUs, and runs attempts in child processes."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import distributed

from sweepctl.cluster._attempt import claim, settle, stop_asked
from sweepctl.cluster._devices import find_gpus
from sweepctl.cluster._isolated import ForkServer, run_isolated
from sweepctl.cluster._slots import Devices, GpusTaken
from sweepctl.runs import AttemptRequest, Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker of a pool has to know.

    Attributes:
        entry: "module:function" that runs a request.
        preload: "module:function" called once in a fork server, or None.
        threads: CPU threads of one attempt.
        grace_s: seconds between SIGTERM and SIGKILL.
        own_workers: whether the pool starts the workers itself, and so decides where they log.
        gpus: ids of the GPUs that a worker gives to attempts; None for those that it finds itself.
    """

    entry: str
    preload: str | None
    threads: int
    grace_s: float
    own_workers: bool
    gpus: tuple[str, ...] | None = ()


_DEVICES: dict[tuple[str, ...], Devices] = {}
"""The GPUs of this process when it is a worker; one for all drivers that use it."""


def _devices_of(job: Job, slots: int) -> Devices:
    ids = job.gpus
    if ids is None:
        ids = tuple(gpu.id for gpu in find_gpus(os.environ).gpus)
    return _DEVICES.setdefault(ids, Devices(ids, slots))


class Runner(distributed.WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Gives each worker its fork server, also a worker that joins or is restarted later."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.job = job
        self.server: ForkServer | None = None
        self.devices = Devices((), 1)
        self.worker_name = ""
        self._logs = contextlib.ExitStack()

    def __reduce__(self) -> tuple[type[Runner], tuple[str, Job]]:
        # Sent to every worker as it was made, without what it has on the worker it runs on.
        return Runner, (self.name, self.job)

    def setup(self, worker: Any) -> None:
        """Start the fork server; its imports overlap with whatever the worker does next."""
        self.worker_name = name_of(worker)
        if self.job.own_workers:
            self._logs.enter_context(silenced())
        self.server = ForkServer(
            entry=self.job.entry,
            preload=self.job.preload,
            threads=self.job.threads,
        )
        self.server.start()
        self.devices = _devices_of(self.job, worker.state.nthreads)

    def teardown(self, worker: Any) -> None:
        """End the fork server and what still runs in it."""
        if self.server is not None:
            self.server.close()


def name_of(worker: Any) -> str:
    # A number is what LocalCluster gives; a worker without a name of its own has its address.
    return f"local-{worker.name}" if isinstance(worker.name, int) else str(worker.name)


def run_on_worker(payload: dict[str, Any], runner_name: str) -> dict[str, Any]:
    """Run one attempt on this worker; called by Dask in a thread of the worker."""
    worker = distributed.get_worker()
    runner: Runner = worker.plugins[runner_name]
    assert runner.server is not None
    request = AttemptRequest(**payload)
    host, name, key = platform.node(), runner.worker_name, worker.get_current_task()
    if not claim(request, f"{name} on {host}"):
        # The worker that had it died, and the scheduler tries again of its own accord.
        return dataclasses.asdict(settle(request, code=None, host=host, worker=name))

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    def ended_before() -> bool:
        return stop_asked(request) is not None or unwanted()

    try:
        with runner.devices.taken(request.ranks, ended_before) as devices:
            outcome = run_isolated(
                runner.server,
                dataclasses.replace(request, devices=devices),
                host=host,
                worker=name,
                grace_s=runner.job.grace_s,
                unwanted=unwanted,
            )
    except GpusTaken as error:
        if ended_before():
            outcome = settle(request, code=-signal.SIGTERM, asked="stop", host=host, worker=name)
        else:
            lost: tuple[Failure, str] = ("error", f"{name} on {host}: {error.message}")
            outcome = settle(request, code=None, host=host, worker=name, lost=lost)
    return dataclasses.asdict(outcome)


def gpus_here(runner_name: str) -> int:
    """How many GPUs this worker gives to the attempts of a pool; called by Dask on it."""
    runner: Runner = distributed.get_worker().plugins[runner_name]
    return len(runner.devices.ids)


@contextlib.contextmanager
def silenced() -> Iterator[logging.Handler]:
    """Keep Dask's log of this process from the terminal.

    What matters in it comes as an outcome or an error; the rest are remarks about connections,
    most of them about those that we close ourselves.
    """
    logger = logging.getLogger("distributed")
    before, level = logger.handlers, logger.level
    handler: logging.Handler = logging.NullHandler()
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    try:
        yield handler
    finally:
        logger.handlers = before
        logger.setLevel(level)
        handler.close()
