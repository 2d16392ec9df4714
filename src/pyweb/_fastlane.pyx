# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled half of a worker: connections that idle, and requests whose decision is known.

What lives here: one wait for all of a worker's descriptors, accept(2), and between two requests
the connections themselves, of which Python then has no object. What must never: a decision, a
timeout, a wait for a single client. Whatever is not plain goes to Python, which may bring the
connection back: a request that has no decision yet, half of one, a small answer that does not
leave at once, a client that has been silent for too long or has too many connections.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove

from pyweb._fastanswer cimport (
    PIECE, SMALL_BODY, WELL, WHILE, begin_bulk, conclude, end_bulk, is_sent, send_on, uncork)
from pyweb._fastclock cimport Times, keep_time, monotonic
from pyweb._fastexchange cimport DONE, MAX_HEAD, MAX_PEER, MISS, OWED, Exchange, Peer
from pyweb._fastserve cimport Repeater, exchange, has_unread
from pyweb._fastshares cimport TABLES, Row
from pyweb import handed, ledger, scoreboard

cdef extern from *:
    """
    #include "await.h"
    """
    ctypedef struct Ready "struct pyweb_ready":
        int count
        int at
    const int AF_UNIX
    const int EINTR
    int errno
    int pyweb_await(int poll, Ready *ready, int patience) nogil
    int pyweb_next(Ready *ready, int *events) nogil
    int pyweb_leave_alone(Ready *ready, int file) nogil
    int pyweb_watch(int poll, int file) nogil
    int pyweb_watch_for(int poll, int file, int room) nogil
    int pyweb_accept(int door, int *family, char *name, int room) nogil
    Py_ssize_t pyweb_receive(int sock, void *data, size_t size) nogil
    size_t strlen(const char *text) nogil
    int close(int file) nogil

cdef int STATE = scoreboard.STATE
cdef int REQUESTS = scoreboard.REQUESTS
cdef int CONNECTIONS = scoreboard.CONNECTIONS
cdef int OPEN = scoreboard.OPEN
cdef int WORKING = scoreboard.WORKING
cdef int IDLE_WORKER = scoreboard.IDLE_WORKER
cdef int SLOT_PEER = scoreboard.PEER_AT
cdef int SLOT_END = scoreboard.PEER_AT + scoreboard.PEER
cdef unsigned int NOBODY = ledger.NOBODY
cdef unsigned int QUIET = ledger.QUIET
cdef unsigned int BEGUN = ledger.OWED
cdef unsigned int ONE_SERVED = ledger.ONE_SERVED
cdef int NOTE = ledger.TEXT

cdef enum:
    MOST_DOORS = 64
    MOST_ORDERS = 4

# What the loop leaves to Python.
cdef enum:
    NOTHING, OTHER, ASK, USED_UP, IS_NEW, GOES_ON, IS_OWED, LINGERS, IS_LATE

# As what it is handed over.
cdef int KINDS[IS_LATE + 1]
KINDS[IS_NEW], KINDS[LINGERS], KINDS[IS_LATE] = handed.NEW, handed.LINGER, handed.LATE
KINDS[GOES_ON] = KINDS[IS_OWED] = handed.GO_ON

# A file on its way to a client whose socket is full; behind it stand head, header and line.
ctypedef struct Sending:
    int file
    int status
    int keeps
    int reason
    int head_size
    int header_size
    int line_size
    int is_corked
    long long offset
    long long count
    long long sent
    long long began
    long long before          # sent when it was last looked at
    unsigned char text[1]

# A connection, by its descriptor.
ctypedef struct Guest:
    int at                    # which of the list it is, + 1; 0: it is not here
    int family
    int is_watched            # by the poll
    int is_shared             # it is counted among those of its address
    int places[TABLES]        # in the shares, of its address
    long long requests
    long long until           # CLOCK_MONOTONIC, ns: idles too long from there on
    Sending *sending          # NULL: it idles
    Peer peer

cdef class Lane:
    """The connections of one worker that need no Python now.

    slot_at   where in the repeater's slots that worker's begins, in bytes
    poll      an epoll, which the worker uses too
    doors     listening sockets that are accepted from here, whenever the poll has them
    orders    descriptors that come first: every answer from there on may have to be another
    words     of the ledger, and its notes; beyond its limit all have the last place
    limit     descriptors from there on are left to Python
    row       of the shares, this worker's; None: nobody is refused for having too many
    first     seconds for a new connection to speak; idle: for one that has been answered
    requests  of the slot: when there were so many, poll() returns; 0: never. connections: as well
    """

    cdef Repeater repeater
    cdef Row shares
    cdef Exchange x
    cdef Times times
    cdef Ready ready
    cdef Py_buffer words
    cdef Py_buffer notes
    cdef long long *slot
    cdef Guest *guests
    cdef int *here
    cdef int doors[MOST_DOORS]
    cdef int door_count
    cdef int orders[MOST_ORDERS]
    cdef int order_count
    cdef int poll_file
    cdef int limit
    cdef int count
    cdef int senders          # those of them that are sending
    cdef int fd               # of whom the loop speaks to Python
    cdef int events
    cdef long long first
    cdef long long idle
    cdef long long most_requests
    cdef long long most_connections
    cdef Guest newcomer
    cdef bint has_all         # of what was received: there was no more
    cdef unsigned char body[SMALL_BODY]

    def __cinit__(self, Repeater repeater not None, Py_ssize_t slot_at, int poll, doors, orders,
                  words, notes, Row row, *, int limit, double first, double idle,
                  long long requests, long long connections):
        cdef int door
        if not 0 <= slot_at <= repeater.slots.len - SLOT_END:
            raise IndexError("no such slot")
        self.guests = <Guest *>calloc(limit, sizeof(Guest))
        self.here = <int *>calloc(limit, sizeof(int))
        if self.guests == NULL or self.here == NULL:
            raise MemoryError
        PyObject_GetBuffer(words, &self.words, PyBUF_WRITABLE)
        PyObject_GetBuffer(notes, &self.notes, PyBUF_WRITABLE)
        self.repeater, self.shares = repeater, row
        self.slot = <long long *>(<char *>repeater.slots.buf + slot_at)
        self.poll_file, self.limit = poll, limit
        self.first, self.idle = <long long>(first * 1e9), <long long>(idle * 1e9)
        self.most_requests, self.most_connections = requests, connections
        for door in doors[:MOST_DOORS]:
            self.doors[self.door_count] = door
            self.door_count += 1
        for door in orders:
            if self.order_count == MOST_ORDERS:
                raise ValueError("more orders than a lane has room for")
            self.orders[self.order_count] = door
            self.order_count += 1
        self.times.second = self.times.offset_of = -1
        self.x.ground, self.x.slot, self.x.record = &repeater.ground, self.slot, NULL
        self.x.times, self.x.body, self.x.is_taken = &self.times, self.body, 1
        self.x.note_size = NOTE

    def __dealloc__(self):
        for i in range(self.count):
            free(self.guests[self.here[i]].sending)
        free(self.guests)
        free(self.here)
        if self.words.buf != NULL:
            PyBuffer_Release(&self.words)
        if self.notes.buf != NULL:
            PyBuffer_Release(&self.notes)

    def __len__(self):
        return self.count

    # Who is here.

    cdef unsigned int *mark_of(self, int fd) noexcept nogil:
        cdef Py_ssize_t last = self.words.len // 4 - 1
        return <unsigned int *>self.words.buf + (fd if fd < last else last)

    cdef void mark(self, int fd, unsigned int word) noexcept nogil:
        self.mark_of(fd)[0] = <unsigned int>(self.guests[fd].requests * ONE_SERVED) | word

    cdef void enter(self, int fd) noexcept nogil:
        cdef Guest *guest = &self.guests[fd]
        self.here[self.count] = fd
        self.count += 1
        guest.at = self.count
        guest.until = monotonic() + (self.idle if guest.requests else self.first)
        self.mark(fd, QUIET)

    cdef void leave(self, int fd) noexcept nogil:
        cdef Guest *guest = &self.guests[fd]
        cdef int last = self.here[self.count - 1]
        self.here[guest.at - 1] = last
        self.guests[last].at = guest.at
        guest.at = 0
        self.count -= 1

    cdef void forget(self, int fd) noexcept nogil:
        """Before its descriptor can be another's."""
        self.mark_of(fd)[0] = NOBODY
        self.leave(fd)
        self.slot[OPEN] -= 1
        if self.guests[fd].is_shared:
            self.shares.add(self.guests[fd].places, -1)

    cdef int end(self, int fd) noexcept nogil:
        self.forget(fd)
        close(fd)
        return NOTHING

    # Serving.

    cdef int part(self, int fd) noexcept nogil:
        """What has come beyond the last request would take the answer with it."""
        if has_unread(&self.x):
            self.forget(fd)
            return LINGERS
        return self.end(fd)

    cdef int is_the_last(self, const Guest *guest) noexcept nogil:
        cdef int limit = self.repeater.ground.keepalive_requests
        return limit and guest.requests + 1 >= limit

    cdef void aim(self, int fd) noexcept nogil:
        cdef Guest *guest = &self.guests[fd]
        cdef Py_ssize_t last = self.words.len // 4 - 1
        cdef unsigned char *name = <unsigned char *>self.slot + SLOT_PEER
        self.x.sock, self.x.peer = fd, &guest.peer
        self.x.mark = self.mark_of(fd)
        self.x.note = <char *>self.notes.buf + NOTE * (fd if fd < last else last)
        self.x.served = <unsigned int>(guest.requests * ONE_SERVED)
        name[0] = <unsigned char>min(guest.peer.size, SLOT_END - SLOT_PEER - 1)
        memcpy(name + 1, guest.peer.text, name[0])

    cdef int attend(self, int fd) noexcept nogil:
        """It has sent something, or taken."""
        cdef Py_ssize_t got
        if self.guests[fd].sending != NULL:
            return self.send(fd)
        got = pyweb_receive(fd, self.x.data, MAX_HEAD)
        if got == -2:
            return NOTHING
        if got <= 0:
            return self.end(fd)
        self.x.size = <int>got
        self.has_all = got < MAX_HEAD
        self.mark(fd, BEGUN)
        self.aim(fd)
        return self.answer(fd)

    cdef int answer(self, int fd) noexcept nogil:
        """All that stands in what was received."""
        cdef Guest *guest = &self.guests[fd]
        cdef int verdict
        while True:
            if self.is_the_last(guest):
                return GOES_ON
            verdict = exchange(&self.x)
            if verdict == MISS:
                return GOES_ON
            if verdict == OWED:
                if self.keep_sending(fd):
                    return NOTHING
                end_bulk(&self.x)
                return IS_OWED
            guest.requests += 1
            if verdict == DONE:
                # Who has asked for the end has sent all; what comes all the same, while a small
                # answer leaves, could as well come a moment later.
                return self.end(fd) if self.has_all else self.part(fd)
            self.x.size -= self.x.head_size
            if not self.x.size:
                guest.until = self.x.began + self.idle
                self.mark(fd, QUIET)
                return NOTHING
            memmove(self.x.data, self.x.data + self.x.head_size, self.x.size)

    # Sending what did not leave at once.

    cdef int keep_sending(self, int fd) noexcept nogil:
        """0: this one is Python's."""
        cdef Exchange *x = &self.x
        cdef Guest *guest = &self.guests[fd]
        cdef Sending *one
        cdef int size = x.head_size + x.entry.header_size + x.line.size
        if x.file < 0 or x.size > x.head_size or x.sent < x.entry.header_size:
            return 0
        if not guest.is_watched or pyweb_watch_for(self.poll_file, fd, 1) < 0:
            return 0
        one = <Sending *>malloc(sizeof(Sending) + size)
        if one == NULL:
            pyweb_watch_for(self.poll_file, fd, 0)
            return 0
        one.file, one.status, one.keeps = x.file, x.entry.status, x.entry.keeps
        one.reason, one.offset, one.count = x.reason, x.entry.offset, x.entry.count
        one.sent = one.before = x.sent
        one.began, one.is_corked = x.began, 1
        one.head_size, one.header_size = x.head_size, x.entry.header_size
        one.line_size = x.line.size
        memcpy(one.text, x.data, one.head_size)
        memcpy(one.text + one.head_size, x.header, one.header_size)
        memcpy(one.text + one.head_size + one.header_size, x.line.text, one.line_size)
        guest.sending = one
        self.senders += 1
        begin_bulk(fd)
        guest.until = monotonic() + WHILE
        return 1

    cdef void take_up(self, int fd, const Sending *one) noexcept nogil:
        """Into the exchange, what its answer was."""
        cdef Exchange *x = &self.x
        self.aim(fd)
        x.file, x.entry.status, x.entry.keeps = one.file, one.status, one.keeps
        x.reason = x.entry.reason = one.reason
        x.entry.offset, x.entry.count, x.sent, x.began = one.offset, one.count, one.sent, one.began
        x.head_size = x.size = one.head_size
        x.entry.header_size, x.line.size = one.header_size, one.line_size
        memcpy(x.data, one.text, one.head_size)
        memcpy(x.header, one.text + one.head_size, one.header_size)
        memcpy(x.line.text, one.text + one.head_size + one.header_size, one.line_size)

    cdef void put_down(self, int fd) noexcept nogil:
        """It is not sent to from here any more."""
        free(self.guests[fd].sending)
        self.guests[fd].sending = NULL
        self.senders -= 1
        pyweb_watch_for(self.poll_file, fd, 0)

    cdef int send(self, int fd) noexcept nogil:
        """There is room again: for a piece, then others have their turn."""
        cdef Guest *guest = &self.guests[fd]
        cdef Sending *one = guest.sending
        cdef int done
        self.x.sock, self.x.file, self.x.sent = fd, one.file, one.sent
        self.x.entry.header_size = one.header_size
        self.x.entry.offset, self.x.entry.count = one.offset, one.count
        if one.is_corked and self.senders > 1:
            # Whoever reads from us reads from others, too: as in send_for_a_while. (With 16: 1.1
            # times the rate, 0.8 times the time of the CPU.)
            one.is_corked = 0
            uncork(&self.x)
        done = send_on(&self.x, PIECE)
        one.sent = self.x.sent
        if done < 0:
            return IS_OWED
        if not is_sent(&self.x):
            return NOTHING
        self.take_up(fd, one)
        self.put_down(fd)
        end_bulk(&self.x)
        close(self.x.file)
        guest.requests += 1
        if conclude(&self.x) == DONE:
            return self.part(fd)
        guest.until = monotonic() + self.idle
        self.mark(fd, QUIET)
        return NOTHING

    cdef int is_well(self, Guest *guest, long long now) noexcept nogil:
        cdef Sending *one = guest.sending
        if one == NULL or one.sent - one.before < WELL:
            return 0
        one.before = one.sent
        guest.until = now + WHILE
        return 1

    # Accepting.

    cdef int is_door(self, int fd) noexcept nogil:
        cdef int i
        for i in range(self.door_count):
            if self.doors[i] == fd:
                return 1
        return 0

    cdef int take(self, int door) noexcept nogil:
        """One: the next is another worker's, if it has nothing to do."""
        cdef Guest *guest = &self.newcomer
        cdef int result = pyweb_accept(door, &guest.family, <char *>guest.peer.text, MAX_PEER)
        if result < 0:
            self.fd = door   # it will fail there again, and be told
            return OTHER
        if result == 0:
            return NOTHING
        self.fd = result - 1
        self.slot[CONNECTIONS] += 1
        guest.peer.size = <int>strlen(<char *>guest.peer.text)
        guest.requests = guest.is_watched = 0
        guest.sending = NULL
        guest.is_shared = self.shares is not None and guest.family != AF_UNIX
        if self.fd >= self.limit:
            return IS_NEW
        if guest.is_shared and not self.shares.recall(&guest.peer, guest.places):
            return ASK
        return self.admit()

    cdef int admit(self) noexcept nogil:
        """The newcomer, whose places are known. Counted before it is looked at, as
        Worker._admit."""
        cdef int fd = self.fd
        if self.newcomer.is_shared:
            self.shares.add(self.newcomer.places, 1)
            if self.shares.of(self.newcomer.places) > self.shares.limit:
                self.shares.add(self.newcomer.places, -1)
                return IS_NEW
        self.guests[fd] = self.newcomer
        self.slot[OPEN] += 1
        self.enter(fd)
        # Not asked for its request at once: in 19 of 20 cases it is not there yet.
        if pyweb_watch(self.poll_file, fd) < 0:
            self.x.size = 0
            return GOES_ON
        self.guests[fd].is_watched = 1
        return NOTHING

    # The loop.

    cdef int is_used_up(self) noexcept nogil:
        return (
            (self.most_requests and self.slot[REQUESTS] >= self.most_requests)
            or (self.most_connections and self.slot[CONNECTIONS] >= self.most_connections))

    cdef int work(self) noexcept nogil:
        """What has been found ready, up to the first thing that is Python's."""
        cdef int code
        while self.ready.at < self.ready.count:
            if self.is_used_up():
                self.ready.at = self.ready.count   # it will be found again
                return NOTHING
            self.fd = pyweb_next(&self.ready, &self.events)
            if 0 <= self.fd < self.limit and self.guests[self.fd].at:
                code = self.attend(self.fd)
            elif self.is_door(self.fd):
                code = self.take(self.fd)
            else:
                code = OTHER
            if code != NOTHING:
                return code
        return NOTHING

    def poll(self, double patience):
        """Serve for so many seconds, or until there is something for Python: what the poll has
        found of others' descriptors, as poll() gives it, and connections that leave, Handed."""
        cdef long long until = monotonic() + <long long>(patience * 1e9)
        cdef int count = 1
        others, leaving = [], []
        while not others and not leaving and count > 0:
            count = self.wait(until)
            while (code := self.work_on()) != NOTHING:
                if code == OTHER:
                    others.append((self.fd, self.events))
                else:
                    leaving.append(self.hand_over(self.fd, code))
            PyErr_CheckSignals()
            if monotonic() >= until or self.is_used_up():
                break
        return others, leaving

    cdef int wait(self, long long until) except -1:
        """How many are ready."""
        cdef long long left = max(0, until - monotonic())
        cdef int count, failure, i
        self.slot[STATE] = IDLE_WORKER
        with nogil:
            count = pyweb_await(self.poll_file, &self.ready, <int>((left + 999999) // 1000000))
            failure = errno if count < 0 else 0
        self.slot[STATE] = WORKING
        if failure and failure != EINTR:
            PyErr_SetFromErrno(OSError)
        if failure:
            self.ready.count = 0
            return 0
        for i in range(self.order_count):
            if pyweb_leave_alone(&self.ready, self.orders[i]):
                break   # the others are found again
        keep_time(&self.times)
        return count

    cdef int work_on(self) except -1:
        cdef int code
        with nogil:
            code = self.work()
        if code == ASK:
            self.shares.learn(&self.newcomer.peer, self.newcomer.places)
            with nogil:
                code = self.admit()
            return code if code != NOTHING else self.work_on()
        return code

    # To Python and back.

    cdef object hand_over(self, int fd, int code):
        """See handed.Handed."""
        cdef Guest *guest = &self.newcomer if code == IS_NEW else &self.guests[fd]
        cdef bytes data = b""
        owed = None
        if code != IS_NEW and guest.sending != NULL:
            self.take_up(fd, guest.sending)
            self.put_down(fd)
            end_bulk(&self.x)
            code = IS_OWED
        if code == GOES_ON:
            data = self.taken(0)
        elif code == IS_OWED:
            owed = self.owed()
            data = self.taken(self.x.head_size)
        if guest.at:
            self.leave(fd)
        return (KINDS[code], fd, guest.family, guest.peer.text[:guest.peer.size].decode(),
                guest.requests, data, owed, bool(guest.is_watched))

    cdef bytes taken(self, int start):
        """None: there is no memory for them."""
        try:
            return self.x.data[start:self.x.size]
        except MemoryError:
            return None

    cdef object owed(self):
        cdef Exchange *x = &self.x
        body = x.file
        if x.file < 0 and x.entry.count:
            body = x.body[:x.entry.count]
        return (x.data[:x.head_size], x.header[:x.entry.header_size], x.entry.status,
                bool(x.entry.keeps), body, x.entry.offset, x.entry.count, x.sent, x.began / 1e9)

    def add(self, int fd, int family, str peer not None, long long requests, bint is_watched,
            bint is_shared):
        """One of Python's that idles, and is counted. False: there is no place for it."""
        cdef Guest *guest = &self.newcomer
        cdef bytes name = peer.encode("ascii", "replace")
        if not 0 <= fd < self.limit or PyBytes_GET_SIZE(name) > MAX_PEER or self.guests[fd].at:
            return False
        guest.peer.size = <int>PyBytes_GET_SIZE(name)
        memcpy(guest.peer.text, PyBytes_AS_STRING(name), guest.peer.size)
        guest.family, guest.requests, guest.is_watched = family, requests, is_watched
        guest.is_shared = is_shared and self.shares is not None
        guest.sending = NULL
        if guest.is_shared and not self.shares.recall(&guest.peer, guest.places):
            self.shares.learn(&guest.peer, guest.places)
        if not is_watched:
            if pyweb_watch(self.poll_file, fd) < 0:
                return False
            guest.is_watched = 1
        self.guests[fd] = guest[0]
        self.enter(fd)
        return True

    def late(self):
        """Those that have idled for too long, handed over."""
        cdef long long now = monotonic()
        cdef int i = self.count
        cdef Guest *guest
        leaving = []
        while i > 0:
            i -= 1
            guest = &self.guests[self.here[i]]
            if guest.until <= now and not self.is_well(guest, now):
                leaving.append(self.hand_over(self.here[i], IS_LATE))
        return leaving

    def release(self):
        """All, handed over."""
        leaving = []
        while self.count:
            self.x.size = 0   # nothing of this one's was received; what is there is another's
            leaving.append(self.hand_over(self.here[self.count - 1], GOES_ON))
        return leaving
