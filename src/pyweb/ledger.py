"""What a worker owes to each of its connections, written where it outlives the worker.

A worker's slot in the scoreboard tells what it does now; but it has many connections, and should
it die, somebody must know how far each of them was. So here is a word for each descriptor, in
shared memory that the worker writes and its keeper reads (keeper.py). Single aligned stores: there
is never half a word. Not here: what is done about it.
"""

from __future__ import annotations

import mmap

from . import scoreboard
from .scoreboard import SENT, STATE, Slot

# How far a connection is: no connection of ours; nothing begun, nothing taken from it; a request
# has begun and nothing of its answer has been sent; something has; all has, and what follows is
# not known; all has, and the client has not yet taken it.
NOBODY, QUIET, OWED, SENDING, ANSWERED, LINGERS = range(6)

_MARKS = {
    scoreboard.IDLE: QUIET,
    scoreboard.READING: OWED,
    scoreboard.ANSWERING: OWED,
    scoreboard.LINGERING: LINGERS,
}
# A word: the mark, and above it how many requests have been served.
_SHIFT = 3
_MOST_SERVED = (1 << 29) - 1
# Descriptors beyond are not covered.
_MOST = 65536
# Room for a request, method and target, behind a byte that tells its length.
_TEXT = 256


class Entry:
    """`request`: method and target; empty as long as they are not known.
    `served`: requests so far, the one at hand included.
    """

    __slots__ = ("fd", "mark", "request", "served")

    def __init__(self, fd: int, mark: int, served: int, request: bytes) -> None:
        self.fd = fd
        self.mark = mark
        self.served = served
        self.request = request


class Ledger:
    """For the descriptors of one process below `limit`; behind them is one place more, which
    nobody reads, for those beyond."""

    def __init__(self, limit: int) -> None:
        self.limit = min(limit, _MOST)
        self._words = memoryview(mmap.mmap(-1, 4 * (self.limit + 1))).cast("I")
        self._texts = mmap.mmap(-1, _TEXT * (self.limit + 1))

    def write(self, fd: int, mark: int, served: int) -> None:
        self._words[min(fd, self.limit)] = served << _SHIFT | mark

    def say(self, fd: int, request: bytes) -> None:
        request = request[: _TEXT - 1]
        start = _TEXT * min(fd, self.limit)
        self._texts[start : start + 1 + len(request)] = bytes((len(request),)) + request

    def entries(self) -> list[Entry]:
        """Of all connections. What stands here was written by who has crashed, maybe all over."""
        words = self._words[: self.limit].tolist()
        return [self._entry(fd, word) for fd, word in enumerate(words) if word]

    def _entry(self, fd: int, word: int) -> Entry:
        start = _TEXT * fd
        request = self._texts[start + 1 : start + 1 + self._texts[start]]
        return Entry(fd, word & (1 << _SHIFT) - 1, word >> _SHIFT, request)


class Seat(Slot):
    """A worker's slot as one of its connections sees it: what it counts is added up there, its
    state is an entry of the ledger, and what it does is told while it is its turn."""

    __slots__ = ("_doing", "_fd", "_ledger", "_peer", "_served")

    def __init__(self, slot: Slot, ledger: Ledger, *, fd: int, peer: str, served: int = 0) -> None:
        for name in Slot.__slots__:
            setattr(self, name, getattr(slot, name))
        self._ledger = ledger
        self._fd = fd
        self._peer = peer.encode("ascii", "replace")
        self._served = served
        self._doing = b""

    def set(self, word: int, value: int) -> None:
        if word == STATE:
            self._served += value == scoreboard.ANSWERING and self._served < _MOST_SERVED
            mark = _MARKS.get(value, NOBODY)
            self._ledger.write(self._fd, mark, self._served if mark else 0)
        elif word == SENT:
            self._ledger.write(self._fd, SENDING if value else ANSWERED, self._served)
        else:
            super().set(word, value)

    def say(self, text: bytes) -> None:
        self._doing = text
        self._ledger.say(self._fd, text)
        super().say(text)

    def take_turn(self, before: Seat | None) -> None:
        """From here on it is this connection's request that the worker would die of."""
        if before is None or before._doing != self._doing:
            super().say(self._doing)
        if before is None or before._peer != self._peer:
            super().say_peer(self._peer)
