"""Signals become bytes on a pipe; the loop acts.

A handler runs between two lines of anything, so it only notes the signal. The interpreter's own
handler, in C, writes a byte to the pipe, and that wakes whoever polls it; which signals came is
kept beside the pipe, so that a pipe full of SIGCHLD can't drop a SIGTERM.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

HEARD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD,
)  # fmt: skip
HEARD_BY_MASTER = (signal.SIGTERM, signal.SIGCHLD)
# A terminal, a process group and `pkill pyweb` send theirs to all. These are for the supervisor,
# which tells its master, which tells its children in its own way; nobody else may die of them.
FOR_THE_SUPERVISOR = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN,
    signal.SIGTTOU,
)  # fmt: skip
# Read at once.
_MANY = 512


class SignalPipe:
    """`fd` is readable when a signal of those that are `heard` has come: it is in the set of that
    name until it is read."""

    def __init__(self, heard: tuple[int, ...] = HEARD) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self.heard: set[int] = set()
        # A full pipe wakes too.
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in heard}
        # Whoever started us may have left them blocked.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.heard.add(number)

    def read(self) -> set[int]:
        """The signals that have come since."""
        # In this order: a signal that comes in between is kept, and at worst wakes us for nothing.
        try:
            while len(os.read(self.fd, _MANY)) == _MANY:
                pass
        except BlockingIOError:
            pass
        heard, self.heard = self.heard, set()
        return heard

    def deafen(self) -> None:
        """For the last moments: where handlers of its own are set, the interpreter gives the
        signals their default action while it ends, and one more would look like a death."""
        for number in self._before:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)
