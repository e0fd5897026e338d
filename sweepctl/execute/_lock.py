"""Who works in a run folder? One driver at a time, held by a kernel lock.

The kernel lets go when the process ends, however it ends, so no lock is ever left behind.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweepctl.errors import DriverBusy, RunFolderError


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Hold the run folder; the kernel lets go when this process ends, however it ends."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(
            f"the run folder {folder} is a file, not a folder",
            hint="choose another one with --runs",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".driver.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RunFolderError(
            f"cannot write in the run folder {folder}: {error.strerror}",
            hint="make it writable, or choose another one with --runs",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise DriverBusy(
                f"another driver works in {folder}" + (f" ({holder})" if holder else ""),
                hint="wait for it, follow it with `sweepctl status`, or use another --runs folder",
            ) from None
        except OSError as error:
            raise RunFolderError(
                f"{folder} does not support file locks ({error.strerror})",
                hint="put the run folder on a file system with locks; drivers must not meet in it",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
