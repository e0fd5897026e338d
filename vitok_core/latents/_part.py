"""What an interrupted computation leaves: files under hidden names, and how far they are safe.

A file has its real name only when it is whole. Until then it is deleted when the work ends early,
or kept as a part: `Part` then says in PROGRESS_FILE how many rows were safe on disk, made by what,
and the statistics over exactly these rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from vitok_core.errors import DataError
from vitok_core.files import temporary_name, write_json
from vitok_core.latents._statistics import Statistics

PROGRESS_FILE = ".latents.json"

SYNC_S = 1.0
"""Least seconds between two times that posteriors are made safe on disk."""


class Part:
    """What of interrupted work is known to be safe: how far it is and the statistics so far.

    Args:
        folder: where PROGRESS_FILE is.
        made_by: see `compute_latents`.
        shape: of the arrays.
        dtype: of their numbers.
        batch: samples at a time.

    Attributes:
        kept: whether interrupted work stays, to be resumed.
        shape: of the arrays.
    """

    def __init__(
        self,
        folder: Path,
        made_by: Mapping[str, Any] | None,
        shape: tuple[int, int, int],
        dtype: str,
        batch: int,
    ) -> None:
        self.kept, self.shape = made_by is not None, shape
        self._path, self._saved, self._at = folder / PROGRESS_FILE, 0, time.monotonic()
        self._identity = {
            "made_by": dict(made_by or {}),
            "shape": list(shape),
            "dtype": dtype,
            "batch": batch,
        }

    def found(self, c: int) -> tuple[int, Statistics]:
        """Rows that are safe and were made by the same, and their statistics."""
        try:
            state = json.loads(self._path.read_text()) if self.kept else {}
        except (OSError, ValueError):
            state = {}  # none, or damaged: computed again
        if not isinstance(state, dict) or state.get("identity") != self._identity:
            return 0, Statistics(c)
        self._saved = state["done"]
        return self._saved, Statistics.loaded(state["statistics"])

    def due(self) -> bool:
        return self.kept and time.monotonic() - self._at >= SYNC_S

    def save(self, done: int, statistics: Statistics, files: Sequence[Unfinished]) -> None:
        """Make what was written safe, and only then say so."""
        if not self.kept or done == self._saved:
            return
        for file in files:
            file.sync()
        state = {"identity": self._identity, "done": done, "statistics": statistics.plain()}
        write_json(self._path, state)
        self._saved, self._at = done, time.monotonic()

    def forget(self) -> None:
        """The files take their real names now."""
        self.kept = False
        self._path.unlink(missing_ok=True)


class Unfinished:
    """A file under a temporary name until `finish`; deleted if that never comes, or kept a part.

    Args:
        path: what it will be.
        part: whether it is kept, to be resumed, when it is not finished.
    """

    def __init__(self, path: Path, *, part: bool = False) -> None:
        self.path, self._part = path, part
        self._temporary = path.with_name(f".{path.name}.part") if part else temporary_name(path)
        self._hash = hashlib.sha256()
        self._file: IO[bytes]

    def __enter__(self) -> Unfinished:
        self._temporary.touch()
        self._file = self._temporary.open("r+b")
        return self

    def begin(self, header: bytes, rows: int) -> None:
        """Keep the header and that many bytes of rows behind it; without rows start over.

        Raises:
            DataError: it holds fewer.
        """
        left = len(header) + rows if rows else 0
        while left:
            read = self._file.read(min(left, 2**20))
            if not read:
                raise DataError(
                    f"{self._temporary} is shorter than {PROGRESS_FILE} next to it says; delete "
                    "both to compute the latents again"
                )
            self._hash.update(read)
            left -= len(read)
        # What follows the rows that are known to be safe is written again.
        self._file.truncate()
        if not rows:
            self.write(header)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def write(self, data: bytes | memoryview) -> None:
        # Written, not memory-mapped: a full disk is then an error and not a bus error.
        self._file.write(data)
        self._hash.update(data)

    def finish(self) -> str:
        self.sync()
        self._temporary.replace(self.path)
        return self._hash.hexdigest()

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._part:
            return
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
