"""Writes latents: the arrays batch by batch, in order, with their statistics; then the labels."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitok_core.latents._part import Part, Unfinished
from vitok_core.latents._read import WEIGHTS_FILE
from vitok_core.latents._statistics import Statistics
from vitok_core.latents._stored import DTYPES, as_stored
from vitok_core.settings import StoredType
from vitok_core.spec import TokenizerSpec
from vitok_core.tokenizer import Mode, Normalisation, Posterior


class Posteriors:
    """The files of the first process; nothing is touched before `open`.

    Args:
        folder: where they go; made if missing.
        names: of the arrays of means and, if there are any, of log-variances.
        part: how far interrupted work is.
        spec: of the tokenizer.
        dtype: how they are stored.

    Attributes:
        done: rows that are written.
    """

    def __init__(
        self, folder: Path, names: list[str], part: Part, spec: TokenizerSpec, dtype: StoredType
    ) -> None:
        self.folder, self.spec, self.dtype, self.done = folder, spec, dtype, 0
        self._names, self._part = names, part
        self._files: list[Unfinished] = []
        self._statistics = Statistics(spec.c)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Posteriors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def open(self) -> int:
        """Open the arrays behind what is known to be safe; rows that need not be computed again.

        Raises:
            DataError: an array is shorter than it was.
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.done, self._statistics = self._part.found(self.spec.c)
        stored = DTYPES[self.dtype]
        for name in self._names:
            file = Unfinished(self.folder / name, part=self._part.kept)
            self._files.append(self._stack.enter_context(file))
            row_bytes = stored.itemsize * self.spec.tokens * self.spec.c
            file.begin(_npy_header(self._part.shape, stored), self.done * row_bytes)
        self._stack.callback(self._save)
        return self.done

    def write(self, posterior: Posterior) -> None:
        """Add the next batch.

        Raises:
            OSError: the disk is full.
        """
        for file, values in zip(self._files, (posterior.mean, posterior.logvar), strict=False):
            assert values is not None  # the bottleneck decides how many files there are
            file.write(as_stored(values, self.dtype).data)
        self._statistics.add(posterior)
        self.done += len(posterior.mean)
        if self._part.due():
            self._save()

    def _save(self) -> None:
        self._part.save(self.done, self._statistics, self._files)

    def finish(
        self, labels: NDArray[np.int64], normalisation: Mode, samples: int
    ) -> tuple[Normalisation, dict[str, str]]:
        """Write the labels and give all files their names; statistics, and SHA-256 by name.

        Raises:
            SpecError: a constant code that the normalisation would divide by its deviation of 0.
            OSError: the disk is full.
        """
        labels_file = self._stack.enter_context(Unfinished(self.folder / "labels.npy"))
        labels = np.ascontiguousarray(labels, np.int64)
        labels_file.begin(_npy_header(labels.shape, labels.dtype), 0)
        labels_file.write(labels.data)
        found = self._statistics.normalisation(normalisation, samples=samples).check(self.spec)
        # From here on the folder changes; until the tokenizer is there, it cannot be opened.
        self._part.forget()
        for stale in ("logvar.npy", WEIGHTS_FILE):
            (self.folder / stale).unlink(missing_ok=True)
        return found, {file.path.name: file.finish() for file in (*self._files, labels_file)}


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    from io import BytesIO

    header = BytesIO()
    np.lib.format.write_array_header_2_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )
    return header.getvalue()
