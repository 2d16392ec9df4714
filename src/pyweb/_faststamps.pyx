# cython: language_level=3
"""The master's stamps, for who accepts and reaps in C (_fastporter.pyx).

What lives here: what stamps.Stamps does for a master, in the same memory and of the same ring: a
record is numbered, marked, and told to when the master waits. What must never: what a stamp means.
Where nobody measures, each of these is nothing.
"""

from libc.string cimport memset

from pyweb._fastexchange cimport mark
from pyweb._fastserve cimport Repeater

import os

from pyweb import stamps

# As stamps.py numbers them.
cdef int NUMBER = stamps.NUMBER
cdef int ACCEPTED = stamps.ACCEPTED
cdef int AWAKE = stamps.AWAKE
cdef int FORK_BEGIN = stamps.FORK_BEGIN
cdef int FORK_END = stamps.FORK_END
cdef int WAITS = stamps.WAITS
cdef int EXIT = stamps.EXIT
cdef int NOTICED = stamps.NOTICED
cdef int REAPED = stamps.REAPED
cdef int RESTS = stamps.RESTS
cdef int PID = stamps.PID
cdef int MINOR_FAULTS = stamps.MINOR_FAULTS
cdef int VOLUNTARY = stamps.VOLUNTARY
cdef int INVOLUNTARY = stamps.INVOLUNTARY
cdef int USER_US = stamps.USER_US
cdef int SYSTEM_US = stamps.SYSTEM_US
cdef int RECORD = stamps.SIZE


cdef bint is_its_own(const Stamped *one) noexcept:
    return one.words != NULL and one.words[NUMBER] == one.number


cdef void is_due(Due *due, const Stamped *one) noexcept:
    if is_its_own(one) and due.count < MOST_DUE:
        due.those[due.count] = one[0]
        due.count += 1


cdef void mark_all(Due *due, int word) noexcept:
    cdef int i
    for i in range(due.count):
        if is_its_own(&due.those[i]):
            mark(due.those[i].words, word)
    due.count = 0


cdef long long microseconds(timeval time) noexcept:
    return time.tv_sec * 1000000LL + time.tv_usec


cdef class Stamper:
    """`clock`: the master's Stamps, in whose memory the repeater's children write theirs; or
    NoStamps."""

    def __cinit__(self, Repeater repeater not None, clock):
        self.repeater = repeater
        self.clock = clock
        self.measures = clock.on
        self.pid = os.getpid()
        if self.measures:
            clock.also_waits = self.waits

    cdef Py_ssize_t accept(self, Stamped *one) except -1:
        cdef long long taken, place
        one.words, one.number = NULL, 0
        if not self.measures:
            return 0
        taken = self.clock.taken
        place = self.clock.first + taken % self.clock.count
        one.words = <long long *>(<char *>self.repeater.records.buf + place * RECORD)
        memset(one.words, 0, RECORD)
        one.number = one.words[NUMBER] = self.clock.taken = taken + 1
        mark(one.words, ACCEPTED)
        one.words[AWAKE], one.words[PID] = self.clock.awake, self.pid
        return place * RECORD

    cdef int give_back(self, const Stamped *one) except -1:
        if self.measures:
            self.clock.taken = one.number - 1   # who accepts it takes the same
        return 0

    cdef void fork_begins(self, Stamped *one) noexcept:
        mark(one.words, FORK_BEGIN)

    cdef void fork_ends(self, Stamped *one) noexcept:
        mark(one.words, FORK_END)
        is_due(&self.forked, one)

    cdef void know(self, Stamped *one, int pid) noexcept:
        if is_its_own(one):
            one.words[PID] = pid

    cdef int reap(self, Stamped *one, const Usage *used) except -1:
        cdef long long *words = one.words
        cdef long long awake
        if not is_its_own(one):
            return 0
        awake = self.clock.awake
        words[NOTICED] = max(awake, words[EXIT])   # on another CPU it may have ended since
        mark(words, REAPED)
        words[MINOR_FAULTS] = used.ru_minflt
        words[VOLUNTARY], words[INVOLUNTARY] = used.ru_nvcsw, used.ru_nivcsw
        words[USER_US] = microseconds(used.ru_utime)
        words[SYSTEM_US] = microseconds(used.ru_stime)
        is_due(&self.reaped, one)
        return 0

    cdef object record(self, const Stamped *one):
        if not is_its_own(one):
            return None
        at = <char *>one.words - <char *>self.repeater.records.buf
        return self.clock.record(at // RECORD, one.number)

    def waits(self):
        mark_all(&self.forked, WAITS)
        mark_all(&self.reaped, RESTS)
