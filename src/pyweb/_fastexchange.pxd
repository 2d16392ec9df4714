# One request in memory, and what is told of it: see _fastexchange.pyx.

from pyweb._fastcache cimport Entry, Key, Names, Table
from pyweb._fastclock cimport Times
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
    unsigned long long heard  # signals at which it is Python's, as a set of kernel_pending
    unsigned long long ends   # the one at which an answer is broken off

ctypedef struct Peer:
    int size
    unsigned char text[MAX_PEER]

# What is said of a request; PIPE_BUF: one write is whole, or not at all.
ctypedef struct Line:
    int size
    int full
    unsigned char text[4096]

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
    unsigned char *body       # room for SMALL_BODY bytes
    const Entry *place        # where the entry was found
    int sock
    int size                  # bytes that were looked at
    int head_size
    int is_taken              # they were taken from the socket
    int is_old                # the decision: its directories have to be looked at
    int is_kind               # it is for all files that are like this one
    int gave_way              # to that one the file's own did, which is old
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

# Of what stands in x.data. DONE, AGAIN: answered and logged, the connection ends or goes on. MISS:
# nothing of it is answered. OWED: x.sent bytes have left, and nothing is logged.
cdef enum:
    DONE, AGAIN, MISS, OWED

# Words of a slot, by the numbers that scoreboard.py gives them.
cdef int STATE, SENT, LOST_LINES
cdef int FREE, READING, IDLE
# Words of a record, as stamps.py.
cdef int NUMBER, CHILD_STAMP, FIRST_BYTE, PARSED, OPENED, DECIDED, HEADER_SENT, BODY_SENT, LOGGED
cdef int EXIT

# The time of a stamp. record NULL: nobody measures.
cdef void mark(long long *record, int word) noexcept nogil
cdef void tell(Exchange *x, int state) noexcept nogil
# The client is owed an answer from here on.
cdef void tell_request(Exchange *x) noexcept nogil
# It has left, or will not.
cdef void tell_answer(Exchange *x) noexcept nogil

# Which of these signals wait, all being held back.
cdef unsigned long long pending(unsigned long long signals) noexcept nogil
