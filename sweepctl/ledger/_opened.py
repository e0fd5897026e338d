"""How is a ledger held open? Its two engines, one for readers and one for the writer."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from sqlalchemy.engine import Engine

from sweepctl.errors import LedgerError
from sweepctl.ledger._connect import Place, transaction


class Opened:
    """An open results database, without any question to it.

    Attributes:
        shown: where the database is, without any secret.
        notices: what the user should know about how it was opened, for stderr.
    """

    def __init__(
        self,
        place: Place,
        reader: Engine,
        writer: Engine,
        *,
        read_only: bool,
        notices: tuple[str, ...],
    ) -> None:
        self.shown = place.shown
        self.notices = notices
        self._place = place
        self._reader = reader
        self._writer = writer
        self._read_only = read_only

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back all connections; the ledger cannot be used afterwards."""
        self._reader.dispose()
        self._writer.dispose()

    def _reading(self) -> Any:
        return transaction(self._reader, self._place)

    def _writing(self) -> Any:
        if self._read_only:
            raise LedgerError(f"{self.shown} was opened for reading only")
        return transaction(self._writer, self._place)
