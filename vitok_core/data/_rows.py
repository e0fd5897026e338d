"""Rows of an array on disk, read by position into a buffer, several at the same time.

Whoever touches a mapped array waits for one page after the other, each a round trip where the disk
is in the network. A read by position asks for a whole row, and threads ask for several at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitok_core.errors import DataError

READS = 8
"""Rows that are read at the same time; they wait for the disk, not for a core."""

Fill = Callable[[NDArray[np.int64], NDArray[Any]], None]
"""Copies the rows of these indices, (B,), into a contiguous buffer, (B, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFile:
    """Where the rows of an array are.

    Attributes:
        path: of the file.
        offset: of the first row, in bytes.
        row_bytes: of each.
    """

    path: Path
    offset: int
    row_bytes: int


def map_rows(path: Path) -> tuple[NDArray[Any], RowFile | None]:
    """Map an .npy file, and say where its rows are; None where it has no rows of bytes.

    Raises:
        OSError, ValueError, EOFError: it is missing or damaged.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim < 2 or array.size == 0 or not array.flags.c_contiguous:
        return array, None
    return array, RowFile(path=path, offset=array.offset, row_bytes=array[0].nbytes)


@contextlib.contextmanager
def row_reader(array: NDArray[Any], file: RowFile | None) -> Iterator[Fill]:
    """Reads rows of an array: of its file, in `READS` threads, or of an array in memory.

    The function it gives raises DataError where the file ends too early, and OSError, with the
    file's name, where it cannot be read. The end of the context ends the threads.
    """
    if file is None:

        def copy(rows: NDArray[np.int64], out: NDArray[Any]) -> None:
            out[...] = array[rows]

        yield copy
        return
    with contextlib.ExitStack() as stack:
        handle = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, handle)
        threads = stack.enter_context(ThreadPoolExecutor(READS, "read-rows"))

        def fill(rows: NDArray[np.int64], out: NDArray[Any]) -> None:
            if len(rows) == 0:
                return
            buffers = out.reshape(len(rows), -1).view(np.uint8)
            first = range(min(READS, len(rows)))
            # Each thread has every eighth row: rows that lie together are read by several.
            jobs = [threads.submit(_read, handle, file, rows[k::READS], buffers[k::READS])
                    for k in first]  # fmt: skip
            for job in jobs:
                job.result()

        yield fill


def _read(handle: int, file: RowFile, rows: NDArray[np.int64], buffers: NDArray[np.uint8]) -> None:
    for row, buffer in zip(rows.tolist(), buffers, strict=True):
        at, left = file.offset + row * file.row_bytes, memoryview(buffer)
        while left:
            try:
                count = os.preadv(handle, [left], at)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(file.path)) from error
            if count == 0:
                raise DataError(
                    f"{file.path} ends before row {row}: it was cut off after it was opened; make "
                    "it again"
                )
            at, left = at + count, left[count:]
