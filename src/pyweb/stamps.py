"""When what happened to a connection: one record for each that gets a process, in shared memory.

For the laboratory, and off by default (--stamps). The master, or the worker, takes a record when it
has accepted; each stamp has one writer. Times are CLOCK_MONOTONIC in ns, read in the vDSO
(clock_gettime(2)), so the stamps of all processes, and of a client on the same machine, stand on
one time line. The memory is a ring: the oldest are overwritten.
Not here: which stretch of time means what (lab/phases.py).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from resource import struct_rusage
from time import monotonic_ns

from .memory import shared_memory

MEMFD_NAME = "pyweb-stamps"

# The words of a record; 0: has not happened, or not here. Who writes it, where it isn't the child
# (or the worker that serves):
#   NUMBER       1, 2, ...: in the order of accept; the record's last word to be believed
#   PID          of who serves
#   REQUESTS     answered before this process had the connection (it was parked)
#   AWAKE        whoever accepts has been woken for it
#   ACCEPTED     accept(2) has returned
#   FORK_BEGIN   before fork(2)                                            the master
#   FORK_END     fork has returned in the parent                           the master
#   WAITS        the parent has done its books and waits for what comes    the master
#   CHILD        the child's first instruction
#   FIRST_BYTE   the request, or a part of it, is there
#   PARSED       its head is understood
#   OPENED       the file is open (the last one, if several were tried)
#   DECIDED      the response is known
#   HEADER_SENT  the socket has taken the header
#   BODY_SENT    and all of the rest
#   LOGGED
#   EXIT         the process, or in a pool the conversation, ends now
#   NOTICED      the parent has been woken, and will find that             the master
#   REAPED       wait4(2) has returned                                     the master
# Of wait4's rusage: MINOR_FAULTS, the context switches VOLUNTARY and INVOLUNTARY, and CPU time in
# us. Where the kernel ticks (CONFIG_TICK_CPU_ACCOUNTING) the sum of USER_US and SYSTEM_US is exact
# and how it is split is an estimate.
WORDS = (
    "NUMBER", "PID", "REQUESTS", "AWAKE", "ACCEPTED", "FORK_BEGIN", "FORK_END", "WAITS", "CHILD",
    "FIRST_BYTE", "PARSED", "OPENED", "DECIDED", "HEADER_SENT", "BODY_SENT", "LOGGED", "EXIT",
    "NOTICED", "REAPED", "MINOR_FAULTS", "VOLUNTARY", "INVOLUNTARY", "USER_US", "SYSTEM_US",
)  # fmt: skip
(
    NUMBER, PID, REQUESTS, AWAKE, ACCEPTED, FORK_BEGIN, FORK_END, WAITS, CHILD,
    FIRST_BYTE, PARSED, OPENED, DECIDED, HEADER_SENT, BODY_SENT, LOGGED, EXIT,
    NOTICED, REAPED, MINOR_FAULTS, VOLUNTARY, INVOLUNTARY, USER_US, SYSTEM_US,
) = range(len(WORDS))  # fmt: skip
# Three cache lines. The first is the head: MAGIC, and how many records follow it.
SIZE = 8 * len(WORDS)
_RECORD = struct.Struct(f"={len(WORDS)}q")
_EMPTY = bytes(SIZE)
MAGIC = int.from_bytes(b"pywebst\1", "little")


class Record:
    """Of one connection."""

    __slots__ = ("_base", "_words")

    def __init__(self, words: memoryview[int], place: int) -> None:
        self._words = words
        self._base = place * len(WORDS)

    def mark(self, word: int) -> None:
        """It happens now."""
        self._words[self._base + word] = monotonic_ns()

    def set(self, word: int, value: int) -> None:
        self._words[self._base + word] = value

    def reaped(self, usage: struct_rusage) -> None:
        self.mark(REAPED)
        self.set(MINOR_FAULTS, usage.ru_minflt)
        self.set(VOLUNTARY, usage.ru_nvcsw)
        self.set(INVOLUNTARY, usage.ru_nivcsw)
        self.set(USER_US, round(usage.ru_utime * 1e6))
        self.set(SYSTEM_US, round(usage.ru_stime * 1e6))


class Nothing(Record):
    """Where nobody measures: the same words, unheard."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def mark(self, word: int) -> None:
        pass

    def set(self, word: int, value: int) -> None:
        pass

    def reaped(self, usage: struct_rusage) -> None:
        pass


NOTHING = Nothing()


class Stamps:
    """`count` records, after their head, in `memory`."""

    def __init__(self, memory: mmap.mmap, count: int) -> None:
        self._map = memory
        self._words = memoryview(memory).cast("q")
        self._taken = 0
        self.count = count
        self._words[1] = count
        self._words[0] = MAGIC

    @classmethod
    def make(cls, count: int) -> Stamps:
        """OSError. Found in /proc by its name, as the scoreboard is."""
        return cls(shared_memory(MEMFD_NAME, SIZE * (1 + count))[0], count)

    @classmethod
    def inherited(cls, fd: int) -> Stamps:
        """Who was given a descriptor of such memory, of whatever length."""
        size = os.fstat(fd).st_size
        return cls(mmap.mmap(fd, size), size // SIZE - 1)

    def take(self) -> Record:
        """The next record, empty, and numbered."""
        place = 1 + self._taken % self.count
        self._taken += 1
        self._map[place * SIZE : (place + 1) * SIZE] = _EMPTY
        record = Record(self._words, place)
        record.set(NUMBER, self._taken)
        return record


def read(fd: int) -> Iterator[tuple[int, ...]]:
    """The records behind a descriptor that are in use, by number: each a tuple of WORDS.
    ValueError: there are none."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    if len(data) < SIZE or _RECORD.unpack_from(data)[0] != MAGIC:
        raise ValueError("no stamps")
    records = _RECORD.iter_unpack(data[SIZE : len(data) // SIZE * SIZE])
    return iter(sorted(record for record in records if record[NUMBER]))
