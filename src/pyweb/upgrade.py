"""A new supervisor on the same listeners, of newer code perhaps, until it serves or has failed.

It is started as this one was, reads its configuration itself, and says a byte when its first
master serves. Until then nothing of the old server is given up. Not here: the end of the old one.
"""

from __future__ import annotations

import os
import signal
import time

from .inherited import Held
from .spawn import start_supervisor

STARTING, SERVES, FAILED = range(3)
# One that does not serve after so many seconds has failed.
READY_WITHIN = 60.0


class Upgrade:
    """fd     to be polled: readable when something has happened
    until  the moment (monotonic) when it has taken too long
    """

    def __init__(self, held: Held, environ: dict[str, str]) -> None:
        """`environ`: what its environment has besides ours. StartError."""
        self.pid, self.fd = start_supervisor(held, environ)
        self.until = time.monotonic() + READY_WITHIN
        self.has_ended = False  # it has been reaped, and its pid may be another's

    def state(self) -> int:
        try:
            said = os.read(self.fd, 1)
        except BlockingIOError:
            return FAILED if time.monotonic() >= self.until else STARTING
        return SERVES if said else FAILED

    def take_back(self) -> None:
        """Its master ends when it does. What takes so long may hang."""
        self.tell(signal.SIGKILL if time.monotonic() >= self.until else signal.SIGQUIT)

    def tell(self, number: int) -> None:
        if not self.has_ended:
            os.kill(self.pid, number)

    def close(self) -> None:
        os.close(self.fd)
