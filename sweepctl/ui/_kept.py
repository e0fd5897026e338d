"""Is it still true? A value that is kept while its key stays, and made anew beside the requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sweepctl.errors import SweepctlError

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """A value that is made anew beside the requests when its key has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: tuple[object, _T] | None = None
        self._making = False
        self.version = 0

    def get(self, key: object, make: Callable[[], _T], *, wait: bool = True) -> _T | None:
        """The value of that key.

        Without `wait` an older value while the new one is made beside the request, and None while
        the very first one is.
        """
        with self._lock:
            if self._value is not None and self._value[0] == key:
                return self._value[1]
            if not wait:
                if not self._making:
                    self._making = True
                    threading.Thread(target=self._beside, args=(key, make), daemon=True).start()
                return None if self._value is None else self._value[1]
        return self._put(key, make())

    def _beside(self, key: object, make: Callable[[], _T]) -> None:
        # What goes wrong here (a database that does not answer for a moment) goes wrong in the
        # next request too, and is told there.
        try:
            with contextlib.suppress(SweepctlError):
                self._put(key, make())
        finally:
            self._making = False

    def _put(self, key: object, value: _T) -> _T:
        with self._lock:
            self._value = (key, value)
            self.version += 1
        return value
