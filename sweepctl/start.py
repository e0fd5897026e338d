"""Where the command `sweepctl` begins: Ctrl-C ends it in order from here on, at any moment.

Importing takes a while, and an extension module that is interrupted halfway raises whatever it
likes. So from here on an interrupt is remembered, and whatever follows from it is no traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 128 + signal.SIGINT


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C. Python ends by the signal once a KeyboardInterrupt itself has left an exec()."""


def main() -> None:
    """Run the command line; after Ctrl-C say so and exit with 130."""
    interrupts: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise _Interrupt

    try:
        signal.signal(signal.SIGINT, remember)
        from sweepctl.cli import main as run

        run()
    except SystemExit as ended:
        # A command that ends in order by Ctrl-C, as `ui` does, has its own word on it.
        if not interrupts or ended.code in (None, 0, _INTERRUPTED):
            raise
        _say_stopped()
    except BaseException:
        if not interrupts:
            raise
        _say_stopped()
    finally:
        # What is left to do (threads, exit handlers) may be cut short.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))


def _say_stopped() -> None:
    sys.stderr.write("stopped by Ctrl-C\n")
    sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
