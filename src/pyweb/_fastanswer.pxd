# The answer: see _fastanswer.pyx.

from pyweb._fastexchange cimport Exchange

cdef enum:
    SMALL_BODY = 32768   # bytes: such a body leaves with its header

# A client that takes so many bytes in so long (ns) is well; another is judged, by Python where
# it is at hand.
cdef enum:
    WHILE = 500_000_000
    WELL = 65536

# Bytes of one call: STEP where it waits, and hears nothing meanwhile; PIECE where it does not. (In
# steps of 512 KB a worker's large files took 1.2 times the time of the CPU.)
cdef enum:
    STEP = 524288
    PIECE = 2097152

# To x.entry, of which all is still so, from x.file. MISS, with nothing taken; OWED; DONE or AGAIN.
cdef int respond(Exchange *x) noexcept nogil

# Of an answer that was OWED: x.sock, x.file, x.sent, x.entry's header_size, offset and count.
# send_on: 1, and x.sent is more; 0: not now; below 0: the file is shorter, the client is gone, or
# the header has not left whole. conclude: when all has left, or will not; needs x.line, x.reason
# and x.entry's reason and keeps as well. DONE, or AGAIN.
cdef int send_on(Exchange *x, long long most) noexcept nogil
cdef int is_sent(const Exchange *x) noexcept nogil
# Much is on its way to a client that is well; other than whole segments may leave; no more is on
# its way, for all has left, or another goes on.
cdef void begin_bulk(int sock) noexcept nogil
cdef void uncork(const Exchange *x) noexcept nogil
cdef void end_bulk(const Exchange *x) noexcept nogil
cdef int conclude(Exchange *x) noexcept nogil
