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

# As `threading` has it, without the rest of `threading`.
from _thread import _local
from collections.abc import Callable, Iterator
from resource import struct_rusage
from time import monotonic_ns

from .memory import shared_memory

MEMFD_NAME = "pyweb-stamps"

# The words of a record; 0: has not happened, or not here. Who writes it, where it isn't the child
# (or the worker that serves):
#   NUMBER       1, 2, ...: in the order of accept, of whoever has these records
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
#   RESTS        the parent has done what else there was, and waits        the master
# Of wait4's rusage: MINOR_FAULTS, the context switches VOLUNTARY and INVOLUNTARY, and CPU time in
# us. Where the kernel ticks (CONFIG_TICK_CPU_ACCOUNTING) the sum of USER_US and SYSTEM_US is exact
# and how it is split is an estimate.
WORDS = (
    "NUMBER", "PID", "REQUESTS", "AWAKE", "ACCEPTED", "FORK_BEGIN", "FORK_END", "WAITS", "CHILD",
    "FIRST_BYTE", "PARSED", "OPENED", "DECIDED", "HEADER_SENT", "BODY_SENT", "LOGGED", "EXIT",
    "NOTICED", "REAPED", "RESTS",
    "MINOR_FAULTS", "VOLUNTARY", "INVOLUNTARY", "USER_US", "SYSTEM_US",
)  # fmt: skip
(
    NUMBER, PID, REQUESTS, AWAKE, ACCEPTED, FORK_BEGIN, FORK_END, WAITS, CHILD,
    FIRST_BYTE, PARSED, OPENED, DECIDED, HEADER_SENT, BODY_SENT, LOGGED, EXIT,
    NOTICED, REAPED, RESTS, MINOR_FAULTS, VOLUNTARY, INVOLUNTARY, USER_US, SYSTEM_US,
) = range(len(WORDS))  # fmt: skip
# Four cache lines. The first record is the head: MAGIC, and how many follow it.
SIZE = 256
_RECORD = struct.Struct(f"={len(WORDS)}q{SIZE - 8 * len(WORDS)}x")
_STRIDE = SIZE // 8
_EMPTY = bytes(SIZE)
MAGIC = int.from_bytes(b"pywebst\1", "little")


def head(count: int) -> bytes:
    """What stands before so many records."""
    return _RECORD.pack(MAGIC, count, *[0] * (len(WORDS) - 2))


class Record:
    """Of one connection."""

    __slots__ = ("_base", "_number", "_words")

    def __init__(self, words: memoryview[int], place: int, number: int) -> None:
        self._words = words
        self._base = place * _STRIDE
        self._number = words[self._base] = number  # NUMBER is the first word

    @property
    def place(self) -> tuple[int, int]:
        """Where in the memory it begins, in bytes, and its number: for who marks in C."""
        return self._base * 8, self._number

    def mark(self, word: int) -> None:
        """It happens now. (As set, but in a new process each function more is a page more.)"""
        if self._words[self._base] == self._number:
            self._words[self._base + word] = monotonic_ns()

    def set(self, word: int, value: int) -> None:
        """Unless the ring has come round, and the record is another connection's."""
        if self._words[self._base] == self._number:
            self._words[self._base + word] = value

    def get(self, word: int) -> int:
        return self._words[self._base + word]


class Nothing(Record):
    """Where nobody measures: the same words, unheard."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    place = (0, 0)

    def mark(self, word: int) -> None:
        pass

    def set(self, word: int, value: int) -> None:
        pass

    def get(self, _word: int) -> int:
        return 0


NOTHING = Nothing()


class Stamps:
    """`count` records, after their head, in `memory`. Of one process, or of one thread of it:
    others have a share().

    It is told when its process waits and when it has been woken, accepts, forks, and begins to
    answer; who serves a connection marks the rest in the connection's record.

    For who stamps in C (_faststamps.pyx):

    awake         when it was woken (CLOCK_MONOTONIC, ns)
    taken         so many records so far; from the `first` on there are `count`
    also_waits    called when it waits
    """

    on = True

    def __init__(
        self, memory: mmap.mmap, words: memoryview[int], count: int, first: int = 1
    ) -> None:
        self._map = memory
        self._words = words
        self.awake = 0
        self._forked: list[Record] = []  # since it waited
        self._reaped: list[Record] = []
        self._answering = _local()  # threads share one document root
        self.taken = 0
        self.also_waits: Callable[[], None] = _nothing
        self.first, self.count = first, count

    @classmethod
    def make(cls, count: int) -> Stamps:
        """OSError. Found in /proc by its name, as the scoreboard is."""
        return cls._headed(shared_memory(MEMFD_NAME, SIZE * (1 + count))[0], count)

    @classmethod
    def inherited(cls, fd: int) -> Stamps:
        """For who was given a descriptor of such memory, of whatever length."""
        size = os.fstat(fd).st_size
        return cls._headed(mmap.mmap(fd, size), size // SIZE - 1)

    @classmethod
    def _headed(cls, memory: mmap.mmap, count: int) -> Stamps:
        memory[:SIZE] = head(count)
        return cls(memory, memoryview(memory).cast("q"), count)

    @property
    def memory(self) -> mmap.mmap | None:
        return self._map

    def close(self) -> None:
        self._words.release()
        self._map.close()

    def share(self, number: int, of: int) -> Stamps | NoStamps:
        """The records of one of so many, which nobody else takes; who is beyond has none."""
        count = self.count // of
        if not count or number >= of:
            return NO_STAMPS
        return Stamps(self._map, self._words, count, 1 + number * count)

    def take(self) -> Record:
        """The next record, empty, and numbered."""
        place = self.first + self.taken % self.count
        self.taken += 1
        self._map[place * SIZE : (place + 1) * SIZE] = _EMPTY
        return self.record(place, self.taken)

    def record(self, place: int, number: int) -> Record:
        """In this place, with this number."""
        return Record(self._words, place, number)

    def waits(self) -> None:
        """Whoever accepts has done what there was."""
        self.also_waits()
        if not (self._forked or self._reaped):
            return
        for record in self._forked:
            record.mark(WAITS)
        for record in self._reaped:
            record.mark(RESTS)
        self._forked.clear()
        self._reaped.clear()

    def woke(self) -> None:
        self.awake = monotonic_ns()

    def accepted(self, requests: int = 0) -> Record:
        """A connection is ours; it has had so many answers from others."""
        record = self.take()
        record.set(ACCEPTED, monotonic_ns())
        record.set(AWAKE, self.awake)
        record.set(PID, os.getpid())
        record.set(REQUESTS, requests)
        return record

    def forked(self, record: Record) -> None:
        """In the parent: a process for it has been forked, or asked for."""
        record.mark(FORK_END)
        self._forked.append(record)

    def reaped(self, record: Record, usage: struct_rusage) -> None:
        # On another CPU it may have ended since.
        record.set(NOTICED, max(self.awake, record.get(EXIT)))
        record.mark(REAPED)
        record.set(MINOR_FAULTS, usage.ru_minflt)
        record.set(VOLUNTARY, usage.ru_nvcsw)
        record.set(INVOLUNTARY, usage.ru_nivcsw)
        record.set(USER_US, round(usage.ru_utime * 1e6))
        record.set(SYSTEM_US, round(usage.ru_stime * 1e6))
        self._reaped.append(record)

    def answering(self, record: Record) -> None:
        """What is opened next in this thread is opened for that connection."""
        self._answering.record = record

    def opened(self) -> None:
        """Or found that it can't be."""
        record: Record = getattr(self._answering, "record", NOTHING)
        record.mark(OPENED)


def _nothing() -> None:
    pass


class NoStamps:
    """The same, where nobody measures."""

    on = False
    memory = None

    def share(self, _number: int, _of: int) -> NoStamps:
        return self

    def waits(self) -> None:
        pass

    def woke(self) -> None:
        pass

    def accepted(self, _requests: int = 0) -> Record:
        return NOTHING

    def forked(self, record: Record) -> None:
        pass

    def reaped(self, record: Record, usage: struct_rusage) -> None:
        pass

    def answering(self, record: Record) -> None:
        pass

    def opened(self) -> None:
        pass


NO_STAMPS = NoStamps()


def read(fd: int) -> Iterator[tuple[int, ...]]:
    """The records behind a descriptor that are in use, by number: each a tuple of WORDS.
    ValueError: there are none."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    if len(data) < SIZE or _RECORD.unpack_from(data)[0] != MAGIC:
        raise ValueError("no stamps")
    records = _RECORD.iter_unpack(data[SIZE : len(data) // SIZE * SIZE])
    return iter(sorted(record for record in records if record[NUMBER]))
