"""Shared memory: one slot a process, one writer a slot.

A slot belongs to one child from fork to reap. The master writes pid and start before it forks
and clears the slot after it reaps; in between only the child writes. What stands in a slot is
shown and counted, never trusted: the master keeps its own list of pids.
Single aligned stores of 8 bytes: a reader may see an old number, never half of one.
"""

from __future__ import annotations

import mmap
import struct

_WORDS = 16
_SLOT = struct.Struct(f"={_WORDS}q")
# Room for what is being served: method and target, cut off where it ends.
_TEXT = 256
# And for whom.
_PEER = 64
# The words of a slot.
PID, STATE, REQUESTS, BYTES, STARTED_MS, REASON, LOST_LINES, CONNECTIONS, OPEN, SENT = range(10)

FREE, STARTING, READING, ANSWERING, IDLE, LINGERING, WORKING, IDLE_WORKER, RETIRING = range(9)
STATE_NAMES = (
    "free", "starting", "reading", "answering", "idle", "lingering", "working", "waiting",
    "retiring",
)  # fmt: skip


class Scoreboard:
    """`slots` slots in anonymous memory that a fork shares."""

    def __init__(self, slots: int) -> None:
        self._map = mmap.mmap(-1, slots * _SLOT.size)
        self._words = memoryview(self._map).cast("q")
        self._texts = mmap.mmap(-1, slots * (_TEXT + _PEER))
        self._free: list[int] = []  # of those that have been taken before
        self._next = 0
        self.slots = slots

    def take(self, started_ms: int) -> Slot:
        """A free slot, for a child about to be forked. IndexError when all are taken."""
        number = self._free.pop() if self._free else self._fresh()
        slot = Slot(self._words, self._texts, number)
        slot.clear()
        slot.set(STATE, STARTING)
        slot.set(STARTED_MS, started_ms)
        return slot

    def _fresh(self) -> int:
        if self._next == self.slots:
            raise IndexError("all slots are taken")
        self._next += 1
        return self._next - 1

    def give_back(self, slot: Slot) -> None:
        slot.clear()
        self._free.append(slot.number)

    def taken(self) -> int:
        return self._next - len(self._free)

    def close(self) -> None:
        self._words.release()
        self._map.close()
        self._texts.close()


class Slot:
    """Sixteen words of the scoreboard, and two texts."""

    __slots__ = ("_base", "_texts", "_words", "number")

    def __init__(self, words: memoryview[int], texts: mmap.mmap, number: int) -> None:
        self._words = words
        self._texts = texts
        self._base = number * _WORDS
        self.number = number

    def get(self, word: int) -> int:
        return self._words[self._base + word]

    def set(self, word: int, value: int) -> None:
        self._words[self._base + word] = value

    def add(self, word: int, value: int) -> None:
        self._words[self._base + word] += value

    def say(self, text: bytes) -> None:
        """What is being served; b"": nothing."""
        self._write(0, text[: _TEXT - 1])

    def say_peer(self, peer: bytes) -> None:
        """For whom."""
        self._write(_TEXT, peer[: _PEER - 1])

    def _write(self, at: int, text: bytes) -> None:
        """A byte tells how long it is."""
        start = self.number * (_TEXT + _PEER) + at
        self._texts[start : start + 1 + len(text)] = bytes((len(text),)) + text

    def text(self) -> bytes:
        return self._read(0)

    def peer(self) -> bytes:
        return self._read(_TEXT)

    def _read(self, at: int) -> bytes:
        start = self.number * (_TEXT + _PEER) + at
        return self._texts[start + 1 : start + 1 + self._texts[start]]

    def clear(self) -> None:
        self.say(b"")
        self.say_peer(b"")
        for word in range(_WORDS):
            self._words[self._base + word] = 0
