# A conversation that repeats decisions: see _fastserve.pyx.

from pyweb._fastexchange cimport MAX_HEAD, MAX_HEADER, Exchange, Ground, Peer

# One request: DONE, AGAIN, MISS or OWED.
cdef int exchange(Exchange *x) noexcept nogil

cdef int has_unread(const Exchange *x) noexcept nogil

# What the conversation leaves to Python. owed: an answer of which `sent` bytes have left.
ctypedef struct Rest:
    long long requests
    int owed
    int file                  # -1: none
    int status
    int keeps
    long long offset
    long long count
    long long sent
    long long began           # monotonic, ns
    int head_size
    int header_size
    unsigned char head[MAX_HEAD]
    unsigned char header[MAX_HEADER]

# 1: the connection is over, or is others', and all has been said. 0: go on from *rest.
# alone: there is no Python to go on, so nothing may be owed.
cdef int serve(const Ground *ground, int sock, const Peer *peer, long long *slot,
               long long *record, Rest *rest, int alone) noexcept nogil

# One conversation.
ctypedef struct Turn:
    int sock
    long long *slot
    long long *record         # NULL: nobody measures
    Peer peer
    Rest rest

cdef int run(const Ground *ground, Turn *turn, int alone) noexcept nogil
cdef object rest_of(const Turn *turn)

cdef class Repeater:
    cdef Ground ground
    cdef object cache         # it holds the table's memory
    cdef Py_buffer slots
    cdef Py_buffer records
    cdef bint has_slots
    cdef bint has_records
    cdef void keep_memory(self, void (*keep)(const void *, size_t)) noexcept
    cdef int aim(self, Turn *turn, int sock, bytes peer, Py_ssize_t slot_at, Py_ssize_t record_at,
                 long long number, long long requests) except -1
