"""Which processes the watchdog has ended, and for which of their workers: the master says it, the
keeper reads it.

Shared memory, for the worker is dead when its keeper must know, and its slot is cleared when it is
buried, which may be sooner. A place for each slot; the pid in it tells for which of its processes
it was meant. A worker could write here too, and make a 504 of another one's 500; no more. Not here:
who is ended, and what becomes of the connections.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

_PID, _MS, _WORDS = 0, 1, 2


class Verdicts:
    """For the slots below `slots`. Made by the master before its first fork."""

    def __init__(self, slots: int) -> None:
        self._words = memoryview(mmap.mmap(-1, 8 * _WORDS * slots)).cast("q")

    def say(self, slot: int, pid: int, seconds: float) -> None:
        """This process is about to be killed for what its worker with this slot did so long."""
        at = _WORDS * slot
        self._words[at + _MS] = int(seconds * 1000)
        self._words[at + _PID] = pid

    def about(self, slot: int, pid: int) -> float | None:
        """Seconds; None: it was not for that."""
        at = _WORDS * slot
        return self._words[at + _MS] / 1000 if self._words[at + _PID] == pid else None


class Judged:
    """What a keeper asks: for which of its worker's connections was that ended?

    slots   of the workers in the process, in their order
    """

    def __init__(self, verdicts: Verdicts, slots: Sequence[int], pid: int) -> None:
        self._verdicts = verdicts
        self._slots = slots
        self._pid = pid

    def connections(self, turns: Sequence[int]) -> dict[int, float]:
        """Descriptors, and for how many seconds nothing happened for them."""
        said = [self._verdicts.about(slot, self._pid) for slot in self._slots]
        return {fd: seconds for fd, seconds in zip(turns, said, strict=True) if seconds is not None}
