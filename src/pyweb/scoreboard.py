"""Shared memory: a head that the master writes, and one slot a process, one writer a slot.

A slot belongs to one process from fork to reap. The master writes pid, peer and start around the
fork and clears the slot after it reaps; in between only the process writes. What stands in a slot
is shown and counted, never trusted: the master keeps its own list of pids. The head is not even
mapped in a process that the master forks: to touch it there is a crash.

The memory is a memfd where the system has it. The master alone keeps it open, so that
`pyweb status` finds it in /proc (`Reader`); nobody needs a control socket.
Single aligned stores of 8 bytes: a reader may see an old number, never half of one.
Not here: what the numbers mean for a mode, and how they are shown.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterable, Iterator

from .journal import printable
from .memory import shared_memory

MEMFD_NAME = "pyweb-scoreboard"

# The words of the head. SERVED to PARKED are what the master has counted; of a pool's workers and
# of the processes that live it knows only what it adds up when they have ended (give_back).
# SUPERVISOR: 0: none. USED: no slot from there on was ever taken.
(
    MAGIC, VERSION, SLOTS, USED, GENERATION, MASTER, SUPERVISOR, BEGAN_MS,
    SERVED, REFUSED, CUT, LOST, WAITING, PARKED, ENDED_REQUESTS, ENDED_BYTES, ENDED_REPEATED,
    _ABOUT_SIZE,
) = range(18)  # fmt: skip
_MAGIC = int.from_bytes(b"pywebsb\0", "little")
_VERSION = 2
_ABOUT_AT = 512
# Whole pages, for the children have none of them.
_HEAD_SIZE = max(8192, mmap.PAGESIZE)

# The words of a slot. SENT: of the answer at hand, bytes that have left. ACTIVE_MS: when the last
# request ended; 0: none has. CONNECTIONS: accepted by itself; TURNED_AWAY: of those. STARVED:
# requests for which there was no memory. REPEATED: requests answered in C, by a decision that was
# known. With --timeout-request only: STEP counts up when the
# process begins a step of a conversation and when it ends it, so it is odd while the process is at
# it; THREAD: which of its threads (as the system numbers them) that is; 0: it has but one.
(
    PID, STATE, REQUESTS, BYTES, STARTED_MS, REASON, LOST_LINES, CONNECTIONS, OPEN, SENT,
    KIND, GENERATION_OF, ACTIVE_MS, TURNED_AWAY, STARVED, STEP, THREAD, REPEATED,
) = range(18)  # fmt: skip
_WORDS = 24
# Behind them what is being served (method and target), and for whom, each behind a byte that
# tells its length; cut off where the room ends.
TEXT_AT, TEXT = 192, 256
PEER_AT, PEER = 448, 64
SLOT_SIZE = 512
_STRIDE = SLOT_SIZE // 8
_EMPTY = bytes(SLOT_SIZE)
_RECORD = struct.Struct(f"={_WORDS}q")

# Into which word of the head which of a slot is added when its process has ended.
SUMS = ((ENDED_REQUESTS, REQUESTS), (ENDED_BYTES, BYTES), (ENDED_REPEATED, REPEATED))

FREE, STARTING, READING, ANSWERING, IDLE, LINGERING, WORKING, IDLE_WORKER, RETIRING = range(9)
STATE_NAMES = (
    "free", "starting", "reading", "answering", "idle", "lingering", "working", "waiting",
    "retiring",
)  # fmt: skip

CHILD, WORKER, DISPATCHER, KEEPER, FILLER = range(5)
KIND_NAMES = ("child", "worker", "dispatcher", "keeper", "filler")

_GREATEST = (1 << 63) - 1
# Read at once, and at the most: --max-connections and --threads can't ask for more.
_BATCH, _MOST_SLOTS = 128, 1 << 20


class Scoreboard:
    """`slots` slots in memory that a fork shares. Made by the master, before its first fork.

    has_memfd   False: the memory is anonymous, and nobody else can find it
    free        slots that nobody has; there may be more that nobody ever had
    """

    def __init__(self, slots: int, *, generation: int = 1, supervisor: int = 0) -> None:
        self._map, self.has_memfd = shared_memory(MEMFD_NAME, _HEAD_SIZE + slots * SLOT_SIZE)
        if hasattr(mmap, "MADV_DONTFORK"):
            self._map.madvise(mmap.MADV_DONTFORK, 0, _HEAD_SIZE)
        self._words = memoryview(self._map).cast("q")
        self.free: list[Slot] = []
        self._next = 0
        self.generation = generation
        self.slots = slots
        for word, value in (
            (VERSION, _VERSION),
            (SLOTS, slots),
            (GENERATION, generation),
            (MASTER, os.getpid()),
            (SUPERVISOR, supervisor),
            (BEGAN_MS, int(time.time() * 1000)),
            (MAGIC, _MAGIC),
        ):
            self.set(word, value)

    # The head: for the master alone.

    def get(self, word: int) -> int:
        return self._words[word]

    def set(self, word: int, value: int) -> None:
        """Sums of what others told may be anything: too much is shown as the most."""
        try:
            self._words[word] = value
        except ValueError:
            self._words[word] = _GREATEST if value > 0 else -_GREATEST

    def describe(self, about: Iterable[tuple[str, str]]) -> None:
        """What doesn't change: keys (a key may come again) and values, on a line each."""
        lines = [f"{key}\t{printable(value)}\n" for key, value in about]
        text = "".join(lines).encode()[: _HEAD_SIZE - _ABOUT_AT]
        self._map[_ABOUT_AT : _ABOUT_AT + len(text)] = text
        self.set(_ABOUT_SIZE, len(text))

    # The slots.

    def take(self, started_ms: int, kind: int = CHILD) -> Slot:
        """A free slot, for a process about to be forked. IndexError when all are taken."""
        slot = self.free.pop() if self.free else self._fresh()
        slot.take_up(kind, self.generation, started_ms)
        return slot

    def _fresh(self) -> Slot:
        if self._next == self.slots:
            raise IndexError("all slots are taken")
        self._next += 1
        self.set(USED, self._next)
        return Slot(self._words, self._map, self._next - 1)

    def give_back(self, slot: Slot) -> None:
        """Its process has ended: what it told of its work is kept."""
        for total, word in SUMS:
            more = slot.get(word)
            if more > 0:
                self.set(total, self._words[total] + more)
        slot.clear()
        self.free.append(slot)

    def taken(self) -> int:
        return self._next - len(self.free)

    @property
    def memory(self) -> mmap.mmap:
        """For who writes slots in C. Whoever has a view of it keeps it from being closed."""
        return self._map

    def close(self) -> None:
        self._words.release()
        self._map.close()


class Slot:
    """The words of one process, and two texts."""

    __slots__ = ("_base", "_map", "_words", "at", "number")

    def __init__(self, words: memoryview[int], shared: mmap.mmap, number: int) -> None:
        """`at`: where in the memory it begins, in bytes; for who writes it in C."""
        self._words = words
        self._map = shared
        self._base = _HEAD_SIZE // 8 + number * _STRIDE
        self.at = self._base * 8
        self.number = number

    def take_up(self, kind: int, generation: int, started_ms: int) -> None:
        """For another process. It is clear, as it was given back."""
        words, base = self._words, self._base
        words[base + KIND] = kind
        words[base + GENERATION_OF] = generation
        words[base + STARTED_MS] = started_ms
        words[base + STATE] = STARTING

    def get(self, word: int) -> int:
        return self._words[self._base + word]

    def set(self, word: int, value: int) -> None:
        self._words[self._base + word] = value

    def add(self, word: int, value: int) -> None:
        self._words[self._base + word] += value

    def say(self, text: bytes) -> None:
        """What is being served; b"": nothing."""
        self._write(TEXT_AT, text[: TEXT - 1])

    def say_peer(self, peer: bytes) -> None:
        """For whom."""
        self._write(PEER_AT, peer[: PEER - 1])

    def _write(self, at: int, text: bytes) -> None:
        start = self._base * 8 + at
        self._map[start : start + 1 + len(text)] = bytes((len(text),)) + text

    def text(self) -> bytes:
        return self._read(TEXT_AT, TEXT)

    def peer(self) -> bytes:
        return self._read(PEER_AT, PEER)

    def _read(self, at: int, size: int) -> bytes:
        start = self._base * 8 + at
        return _text_in(self._map[start : start + size])

    def clear(self) -> None:
        """In one go, which is twice a connection; nobody else writes now."""
        start = self._base * 8
        self._map[start : start + SLOT_SIZE] = _EMPTY


def _text_in(room: bytes) -> bytes:
    """The length in front may be anything."""
    return room[1 : 1 + room[0]]


# Reading another process's scoreboard.


class Record:
    """A copy of one slot that was taken when it was read. Any word may be any number."""

    __slots__ = ("_words", "number", "peer", "text")

    def __init__(self, number: int, data: bytes) -> None:
        self.number = number
        self._words = _RECORD.unpack_from(data)
        self.text = _text_in(data[TEXT_AT : TEXT_AT + TEXT])
        self.peer = _text_in(data[PEER_AT : PEER_AT + PEER])

    def get(self, word: int) -> int:
        value: int = self._words[word]
        return value


class Reader:
    """A picture of the scoreboard behind a descriptor, as it was when this was made.

    Copied by read(2), not mapped: a file that shrinks meanwhile is short, and no SIGBUS.
    ValueError: it is none, or none that this pyweb can read.
    """

    def __init__(self, fd: int) -> None:
        head = os.pread(fd, _HEAD_SIZE, 0)
        if len(head) < _HEAD_SIZE:
            raise ValueError("too short for a scoreboard")
        self._head = memoryview(head).cast("q")
        self._about = head[_ABOUT_AT:]
        if self._head[MAGIC] != _MAGIC:
            raise ValueError("not a scoreboard")
        if self._head[VERSION] != _VERSION:
            raise ValueError(
                f"a scoreboard of layout {self._head[VERSION]}, and this pyweb reads {_VERSION};"
                " ask the pyweb that runs there"
            )
        self._records = list(_records(fd, min(self._head[USED], _MOST_SLOTS)))

    def get(self, word: int) -> int:
        """Of the head."""
        return self._head[word]

    def about(self) -> list[tuple[str, str]]:
        """What `describe` was given."""
        size = min(max(0, self._head[_ABOUT_SIZE]), len(self._about))
        lines = self._about[:size].decode("utf-8", "replace").split("\n")
        return [(key, value) for key, tab, value in (one.partition("\t") for one in lines) if tab]

    def records(self) -> list[Record]:
        """The slots that are taken."""
        return self._records


def _records(fd: int, used: int) -> Iterator[Record]:
    """Free is a slot with neither a process nor a state."""
    for first in range(0, used, _BATCH):
        count = min(_BATCH, used - first)
        data = os.pread(fd, count * SLOT_SIZE, _HEAD_SIZE + first * SLOT_SIZE)
        for at in range(0, len(data) - SLOT_SIZE + 1, SLOT_SIZE):
            record = Record(first + at // SLOT_SIZE, data[at : at + SLOT_SIZE])
            if record.get(PID) or record.get(STATE) != FREE:
                yield record
        if len(data) < count * SLOT_SIZE:
            return
