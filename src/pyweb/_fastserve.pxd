# A conversation that repeats decisions: see _fastserve.pyx.

from pyweb._fastcache cimport Entry, Key, Names, Table
from pyweb._fastparse cimport Head, Limits, Span

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
    long long first           # ns
    long long idle            # ns
    int silence               # ms: of a client that is lingered for
    long long timeout_write   # ns
    int not_sent              # bytes
    int client_reset          # what a line of the log says when the answer did not leave
    int write_timeout
    int file_shrank
    int ended
    long long time_of_byte    # ns that a byte earns; 0: each gives all the time anew
    int parker                # where idle connections are parked; -1: nowhere
    int parked_size
    int parked_requests       # where in the message their number stands
    unsigned char parked[64]  # before the peer
    int keepalive_requests    # 0: no limit
    unsigned long long flags  # of a file that is read
    unsigned long long path_flags   # of one that is only looked at
    unsigned long long resolve
    int parent                # whose children repeat

ctypedef struct Peer:
    int size
    unsigned char text[MAX_PEER]

# What is said of a request; PIPE_BUF: one write is whole, or not at all.
ctypedef struct Line:
    int size
    int full
    unsigned char text[4096]

cdef extern from *:
    """
    #ifndef PYWEB_TIMES
    #define PYWEB_TIMES
    struct pyweb_times { long long second, offset_of, offset; char date[32], log_time[40]; };
    #endif
    """
    # The texts of a second, and how far local time is ahead of it: of one thread.
    ctypedef struct Times "struct pyweb_times":
        long long second
        long long offset_of
        long long offset
        char date[32]
        char log_time[40]

# One request, from its first byte on. In the order in which it saves pages: of each array mostly
# the beginning is used, and in a new process each page costs a fault (4 us where a host manages
# page tables too); what is large comes last.
ctypedef struct Exchange:
    const Ground *ground
    const Peer *peer
    long long *slot
    long long *record
    Times *times
    unsigned int *mark        # of a worker's ledger; NULL: the slot is this connection's own
    unsigned int served       # above the mark
    char *note                # in the ledger, what is served; so many bytes
    int note_size
    unsigned char *body       # room for PYWEB_SMALL_BODY bytes
    const Entry *place        # where the entry was found
    int sock
    int size                  # bytes that were looked at
    int head_size
    int is_taken              # they were taken from the socket
    int is_old                # the decision: its directories have to be looked at
    int is_kind               # it is for all files that are like this one
    int file
    int referer               # which of the head's fields; -1: none
    int user_agent
    Span name                 # of the file, where it is one of a kind
    long long began
    long long sent
    int torn                  # the last line of the log was cut short
    int alone
    int was_large             # the last answer: it may be long on its way
    int reason
    Key key
    unsigned char taken[1024]
    unsigned char header[MAX_HEADER]
    Line line
    unsigned char data[MAX_HEAD]
    Entry entry
    Head head

cdef enum:
    DONE, AGAIN, MISS, OWED

# Of what stands in x.data. DONE, AGAIN: answered and logged, the connection ends or goes on. MISS:
# nothing of it is answered. OWED: x.sent bytes have left, and nothing is logged.
cdef int exchange(Exchange *x) noexcept nogil

cdef int has_unread(const Exchange *x) noexcept nogil

# A client that takes so many bytes in so long (ns) is well; another is Python's to judge.
cdef enum:
    WHILE = 500_000_000
    WELL = 65536

# Bytes of one call: STEP where it waits, and hears nothing meanwhile; PIECE where it does not. (In
# steps of 512 KB a worker's large files took 1.2 times the time of the CPU.)
cdef enum:
    STEP = 524288
    PIECE = 2097152

# Of an answer that was OWED: x.sock, x.file, x.sent, x.entry's header_size, offset and count.
# send_on: 1, and x.sent is more; 0: not now; -1: Python must see why not. conclude: when all has
# left; needs x.line, x.reason and x.entry's reason and keeps as well. DONE, or AGAIN.
cdef int send_on(Exchange *x, long long most) noexcept nogil
cdef void let_much_wait(int sock) noexcept nogil
cdef void let_little_wait(const Exchange *x) noexcept nogil
cdef int is_sent(const Exchange *x) noexcept nogil
cdef int conclude(Exchange *x) noexcept nogil

# What a second is called, before it is said: by whoever has a heap.
cdef void keep_time(Times *times) noexcept nogil
cdef int CHILD_STAMP      # the word of a record for when a child begins
cdef void mark(long long *record, int word) noexcept nogil

# This process, which is bare, has no C library any more.
cdef void forget_libc() noexcept nogil
# Of this process's own, to another of it.
cdef void give_times(Times *to) noexcept nogil
cdef void use_times(const Times *given) noexcept nogil

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
