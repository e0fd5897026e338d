"""Files on disk: a file is replaced whole or not at all, and hashed.

Everything that a later process will trust (checkpoints, weights, results, progress records) is
written through `replacing`. It imports nothing heavy: the driver uses it, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
    # The process's number, because two processes may write the same file; the last one wins.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
