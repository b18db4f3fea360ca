"""Being asked to stop (Ctrl-C, SIGTERM from a cluster) becomes a flag that the loop reads between steps."""

from __future__ import annotations

import signal
import sys


class StopSignal:
    """A context in which SIGINT and SIGTERM set `requested`; a second SIGINT interrupts at once.

    `status` is what the program should then exit with: 130 or 143.
    """

    def __init__(self) -> None:
        self.requested = False
        self.status = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        self.status = 128 + number
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)
