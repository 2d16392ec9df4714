"""Signals become bytes on a pipe; the loop acts.

A handler runs between two lines of anything, so it does nothing: the interpreter writes the
signal's number to the pipe, and whoever polls the pipe reads what was wished.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
ALL = signal.valid_signals()


def _note(_number: int, _frame: FrameType | None) -> None:
    """The number is on the pipe already."""


class SignalPipe:
    """`fd` is readable when a signal of HEARD has come."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        # A full pipe says that a signal has come, which is all that matters.
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _note) for number in HEARD}

    def read(self) -> set[int]:
        """The signals that have come since."""
        found: set[int] = set()
        while True:
            try:
                found.update(os.read(self.fd, 512))
            except BlockingIOError:
                return found

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)
