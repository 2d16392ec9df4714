# A conversation that repeats decisions: see _fastserve.pyx.

from pyweb._fastcache cimport Names, Table
from pyweb._fastparse cimport Limits

cdef enum:
    # The most of a head that is looked at, and of a header that is sent.
    MAX_HEAD = 4096
    MAX_HEADER = 1856
    MAX_PEER = 64

ctypedef struct Escapes:
    int sizes[256]
    unsigned char text[256][4]

# What all conversations share.
ctypedef struct Ground:
    Table table
    Names names
    Limits limits
    Escapes escapes
    long long fresh           # ns: a decision so old is made anew while it is still repeated
    long long good            # ns: one so old is repeated no more
    int root
    int log                   # -1: there is none
    int log_is_socket
    int lifeline
    int wishes
    int linger                # ms
    int silence               # ms: of a client that is lingered for
    long long timeout_write   # ns
    int client_reset          # what a line of the log says when the answer did not leave
    int write_timeout
    int parker                # where idle connections are parked; -1: nowhere
    int parked_size
    int parked_requests       # where in the message their number stands
    unsigned char parked[64]  # before the peer
    int keepalive_requests    # 0: no limit
    unsigned long long flags
    unsigned long long resolve

ctypedef struct Peer:
    int size
    unsigned char text[MAX_PEER]

# What is said of a request; PIPE_BUF: one write is whole, or not at all.
ctypedef struct Line:
    int size
    int full
    unsigned char text[4096]

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
    cdef int aim(self, Turn *turn, int sock, bytes peer, Py_ssize_t slot_at, Py_ssize_t record_at,
                 long long number, long long requests) except -1
