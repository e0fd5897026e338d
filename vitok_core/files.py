"""Files on disk: a file is replaced whole or not at all, and hashed.

Everything that a later process will trust (checkpoints, weights, results, progress records) is
written through `replacing`. It imports nothing heavy: the driver uses it, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

ELSEWHERE_S = 600.0
"""Seconds without a change after which a temporary file of another machine is given up."""

_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)(@(?P<host>.+))?\.tmp")


def temporary_name(path: Path) -> Path:
    """The temporary path next to `path` that this process writes; its name tells the owner.

    Two processes may write the same file: each has a path of its own, the last one wins.
    """
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")


def remove_unfinished(folder: Path) -> int:
    """Remove temporary files, at any depth, whose process has ended before it could rename them.

    Of another machine's processes nothing is known: their files are removed when nothing was
    written to them for `ELSEWHERE_S`. What has another name than `temporary_name` gives stays.

    Returns:
        Number of files removed.
    """
    removed = 0
    for place, _, names in os.walk(folder):
        for name in names:
            found = _TEMPORARY.fullmatch(name)
            path = Path(place, name)
            # Whoever owns it may finish just now; a folder may be read-only.
            with contextlib.suppress(OSError):
                if found is not None and not _is_alive(path, int(found["pid"]), found["host"]):
                    path.unlink()
                    removed += 1
    return removed


def _is_alive(path: Path, pid: int, host: str | None) -> bool:
    if host not in (None, socket.gethostname()):
        return time.time() - path.stat().st_mtime < ELSEWHERE_S
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, which takes its name when the block ends well.

    A reader sees the old file, the new one or none; never half of one. After a power failure, too:
    the content is on disk before the name changes, and the name before this returns. When the block
    raises, the old file stays and the temporary one is removed.

    The folder must exist. Whoever writes through a library passes on the temporary path, which has
    another suffix than `path`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        # Gone after the rename; and where it cannot be removed, the error above says more.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by plain data as JSON; see `replacing`.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON has no words for.
    """
    write_bytes(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def user_folder(kind: Literal["cache", "config"], program: str) -> Path | None:
    """The folder of a program among this user's caches or settings; it need not exist.

    Returns:
        The absolute path, or None for a user without a home folder (no HOME, no entry in the
        password file, as in some containers).
    """
    import platformdirs

    find = platformdirs.user_cache_dir if kind == "cache" else platformdirs.user_config_dir
    try:
        folder = Path(find(program))
    except (RuntimeError, KeyError):
        return None
    # Without a home "~" stays as it is, and a folder of that name would be made wherever we are.
    return folder if folder.is_absolute() else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
