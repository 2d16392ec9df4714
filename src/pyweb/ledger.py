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

MARKS = [NOBODY] * len(scoreboard.STATE_NAMES)
MARKS[scoreboard.IDLE] = QUIET
MARKS[scoreboard.READING] = MARKS[scoreboard.ANSWERING] = OWED
MARKS[scoreboard.LINGERING] = LINGERS

# A word: the mark, and above it how many requests have been served (after 2^29 anew).
_MARK = 7
ONE_SERVED = _MARK + 1
_WORD = (1 << 32) - 1
# Descriptors beyond are not covered.
LIMIT = 65536
# Room for a request, method and target, and the NUL that ends it and that neither can have.
TEXT = 256


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
    nobody reads, for those beyond.

    turns   of each of `workers` in it the descriptor whose turn it is, or was last; kept with
            --timeout-request only
    """

    def __init__(self, limit: int, workers: int = 1) -> None:
        self.limit = min(limit, LIMIT)
        self.words = memoryview(mmap.mmap(-1, 4 * (self.limit + 1))).cast("I")
        self.texts = mmap.mmap(-1, TEXT * (self.limit + 1))
        self.turns = memoryview(mmap.mmap(-1, 4 * workers)).cast("i")

    def place(self, fd: int) -> int:
        return min(fd, self.limit)

    def entries(self) -> list[Entry]:
        """Of all connections. What stands here was written by who has crashed, maybe all over."""
        words = self.words[: self.limit].tolist()
        return [self._entry(fd, word) for fd, word in enumerate(words) if word & _MARK]

    def _entry(self, fd: int, word: int) -> Entry:
        text = self.texts[TEXT * fd : TEXT * (fd + 1)]
        return Entry(fd, word & _MARK, word // ONE_SERVED, text.partition(b"\0")[0])


class Seat(Slot):
    """A worker's slot as one of its connections sees it: what it counts is added up there, its
    state is an entry of the ledger, and what it does is told while it is its turn.

    Called ten times for each request, so it writes where it must without further calls; and made
    once for a descriptor, for as many connections as come to have it.
    """

    __slots__ = ("_at", "_doing", "_marks", "_notes", "_sent", "_served", "_text_at", "whom")

    def __init__(self, slot: Slot, ledger: Ledger, fd: int) -> None:
        for name in Slot.__slots__:
            setattr(self, name, getattr(slot, name))
        self._marks = ledger.words
        self._notes = ledger.texts
        self._at = ledger.place(fd)
        self._text_at = TEXT * self._at
        self.begin("")

    def begin(self, peer: str, served: int = 0) -> None:
        """For another connection."""
        self.whom = peer
        self._served = served * ONE_SERVED
        self._doing = b""
        self._sent = 0

    def set(self, word: int, value: int) -> None:
        if word == STATE:
            if value == scoreboard.ANSWERING:
                self._served = self._served + ONE_SERVED & _WORD
            self._marks[self._at] = self._served | MARKS[value]
        elif word == SENT:
            self._marks[self._at] = self._served | (SENDING if value else ANSWERED)
            self._sent = value
            Slot.set(self, word, value)
        else:
            Slot.set(self, word, value)

    def say(self, text: bytes) -> None:
        self._doing = text
        if text:
            text, start = text[: TEXT - 1], self._text_at
            self._notes[start : start + 1 + len(text)] = text + b"\0"
        else:
            self._notes[self._text_at] = 0
        Slot.say(self, text)

    def take_turn(self, before: Seat | None) -> None:
        """From here on it is this connection's request that the worker would die of."""
        if before is None or before._sent != self._sent:
            Slot.set(self, SENT, self._sent)
        if before is None or before._doing != self._doing:
            Slot.say(self, self._doing)
        if before is None or before.whom != self.whom:
            self.say_peer(self.whom.encode("ascii", "replace"))
