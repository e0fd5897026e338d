"""Who runs attempts? One worker, as `status` shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One worker of a pool.

    Attributes:
        name: the name outcomes carry.
        host: host name.
        pid: process id on that host.
    """

    name: str
    host: str
    pid: int
