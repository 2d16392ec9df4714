"""The master's side of the cache: the memory, the process that fills it, and who forks with it.

Not here: what the filler does, and what its children repeat.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Callable
from resource import struct_rusage

from .errors import Reason
from .helper import Helper
from .journal import Journal
from .obituary import Obituaries
from .parking import pair
from .scoreboard import Slot

MEMFD_NAME = "pyweb-cache"


class Filling:
    """wishes   where children tell what they have decided
    writable    the map of the cache that the filler alone inherits
    work        what the filler does with the other end and its map
    """

    def __init__(
        self,
        writable: mmap.mmap,
        work: Callable[[socket.socket, mmap.mmap], None],
        keep: tuple[int, ...],
        journal: Journal,
        slot: Slot,
    ) -> None:
        """OSError."""
        self._writable = writable
        self._inbox, self.wishes = pair()
        self._helper = Helper(
            "filler",
            lambda: work(self._inbox, writable),
            (self._inbox.fileno(), *keep),
            without="no filler, nothing new is cached",
            reason=Reason.FILLER_DIED,
            journal=journal,
            slot=slot,
        )

    def tend(self) -> float | None:
        """As Helper.tend. What is forked here, and nothing else, can write."""
        if self.lives:
            return None
        self._writable.madvise(mmap.MADV_DOFORK)
        try:
            return self._helper.tend()
        finally:
            self._writable.madvise(mmap.MADV_DONTFORK)

    @property
    def lives(self) -> bool:
        return bool(self._helper.pid)

    def bury(self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries) -> bool:
        """Was it the filler?"""
        return self._helper.bury(pid, code, usage, obituaries)

    def drain(self) -> None:
        self._helper.drain()

    def end(self, *, kill: bool) -> None:
        self._helper.end(kill=kill)

    def close(self) -> None:
        self._inbox.close()
        self.wishes.close()
