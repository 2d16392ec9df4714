# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One request in memory, and what scoreboard, ledger and stamps are told of it.

What lives here: the structures that who looks, who answers and who logs share (the .pxd), and the
words of a slot and of a record, by the numbers that scoreboard.py, ledger.py and stamps.py give
them. What must never: a system call that could wait.
"""

from libc.string cimport memcpy

from pyweb._fastclock cimport monotonic, realtime

from pyweb import ledger, scoreboard, stamps

cdef extern from "kernel.h":
    unsigned long long kernel_pending() nogil

STATE = scoreboard.STATE
SENT = scoreboard.SENT
LOST_LINES = scoreboard.LOST_LINES
FREE = scoreboard.FREE
READING = scoreboard.READING
IDLE = scoreboard.IDLE
cdef int ANSWERING = scoreboard.ANSWERING
cdef int REQUESTS = scoreboard.REQUESTS
cdef int BYTES = scoreboard.BYTES
cdef int REASON = scoreboard.REASON
cdef int REPEATED = scoreboard.REPEATED
cdef int ACTIVE_MS = scoreboard.ACTIVE_MS
cdef int TEXT_AT = scoreboard.TEXT_AT
cdef int TEXT = scoreboard.TEXT
NUMBER = stamps.NUMBER
CHILD_STAMP = stamps.CHILD
FIRST_BYTE = stamps.FIRST_BYTE
PARSED = stamps.PARSED
OPENED = stamps.OPENED
DECIDED = stamps.DECIDED
HEADER_SENT = stamps.HEADER_SENT
BODY_SENT = stamps.BODY_SENT
LOGGED = stamps.LOGGED
EXIT = stamps.EXIT
# What a ledger's word says, by state; and as ledger.py counts requests in it.
cdef unsigned int MARKS[16]
cdef unsigned int SENDING = ledger.SENDING
cdef unsigned int ONE_SERVED = ledger.ONE_SERVED
for _state, _mark in enumerate(ledger.MARKS):
    MARKS[_state] = _mark


cdef void mark(long long *record, int word) noexcept nogil:
    if record:
        record[word] = monotonic()


cdef void say(long long *slot, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    """As Slot.say."""
    cdef unsigned char *place = <unsigned char *>slot + TEXT_AT
    if size > TEXT - 1:
        size = TEXT - 1
    place[0] = <unsigned char>size
    memcpy(place + 1, text, size)


cdef void tell(Exchange *x, int state) noexcept nogil:
    """As Slot.set(STATE), or, where many share a slot, as Seat.set."""
    if x.mark:
        x.mark[0] = x.served | MARKS[state]
    else:
        x.slot[STATE] = state


cdef void tell_request(Exchange *x) noexcept nogil:
    say(x.slot, x.data + x.head.method.start, x.head.target.end - x.head.method.start)
    x.slot[SENT] = 1
    if x.mark:
        tell_among_many(x)
    else:
        x.slot[STATE] = ANSWERING


cdef void tell_among_many(Exchange *x) noexcept nogil:
    """As Seat: what is said first, the mark last."""
    cdef Py_ssize_t size = min(x.head.target.end - x.head.method.start, x.note_size - 1)
    memcpy(x.note, x.data + x.head.method.start, size)
    x.note[size] = 0
    x.served += ONE_SERVED
    x.mark[0] = x.served | SENDING


cdef void tell_answer(Exchange *x) noexcept nogil:
    """As Connection._log."""
    x.slot[REQUESTS] += 1
    x.slot[REPEATED] += 1
    x.slot[BYTES] += max(0, x.sent - x.entry.header_size)
    x.slot[REASON] = x.reason
    x.slot[ACTIVE_MS] = realtime() // 1000000
    x.slot[SENT] = 0
    say(x.slot, b"", 0)


cdef unsigned long long pending(unsigned long long signals) noexcept nogil:
    return kernel_pending() & signals
