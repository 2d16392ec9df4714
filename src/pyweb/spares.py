"""Children that a zygote has forked before anybody asked for them: which there are, by their pids.

The zygote tells of one after it has forked it, and it speaks for itself when it takes an order: so
it may be heard of first by what it took, or when it is dead. Not here: how any of that is heard,
and how another is had.
"""

from __future__ import annotations

import time
from collections.abc import Container

from .clock import Backoff


class Spares:
    """`wanted`: how many there should be; 0: it is about none. `idle`: those that are known, and
    have taken nothing."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.idle: set[int] = set()
        self._early: set[int] = set()  # have taken an order, and were not told of
        self._gone: set[int] = set()  # have ended, and were not told of
        self._owed = 0  # have ended, and were not replaced
        self._deaths = Backoff()
        self._last_death = 0.0

    @property
    def dead(self) -> Container[int]:
        """Pids that may be others' by now."""
        return self._gone

    def are_complete(self) -> bool:
        return len(self.idle) >= self.wanted

    def is_there(self, pid: int) -> None:
        """The zygote says so."""
        if pid in self._gone:
            self._owed += 1
        elif pid not in self._early:
            self.idle.add(pid)
        self._early.discard(pid)
        self._gone.discard(pid)

    def has_taken(self, pid: int) -> None:
        """An order: it is none any more."""
        if self.wanted and pid > 0:
            if pid not in self.idle:
                self._early.add(pid)
            self.idle.discard(pid)
            self._gone.discard(pid)

    def has_died(self, pid: int) -> bool:
        """Was it one?"""
        if pid not in self.idle:
            if self.wanted:
                self._gone.add(pid)
            return False
        self.idle.discard(pid)
        self._owed += 1
        self._deaths.ended(self._last_death)
        self._last_death = time.monotonic()
        return True

    def due(self) -> float | None:
        """When (monotonic) those that died are replaced: where they die one after the other, after
        a pause."""
        return self._deaths.at if self._owed else None

    def owed(self) -> int:
        """So many, now."""
        if time.monotonic() < self._deaths.at:
            return 0
        count, self._owed = self._owed, 0
        return count

    def forget(self) -> None:
        """Their zygote is given up."""
        self.idle.clear()
        self._early.clear()
        self._gone.clear()
        self._owed = 0
