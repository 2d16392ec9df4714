# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled conversation: look at a head, repeat the decision for it, log, look again.

What lives here: what connection.py does when all goes well and the decision is known. What must
never: a decision (filler.py has had it made), an answer of its own. Whatever is not plain (no
entry, one that is too old, a changed file, a client that is slow, a signal, the lifeline) is left
to Python with nothing lost: a head stays in the kernel until its answer is certain, and an answer
that takes its time is handed over with what has left.

It runs in a child that may never have entered the interpreter: no object, no malloc, no lock. A
worker's lane (_fastlane.pyx) has but exchange() of it.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from pyweb._fastanswer cimport SMALL_BODY, WELL, WHILE, respond
from pyweb._fastcache cimport SET_SIZE, Cache
from pyweb._fastclock cimport TIMES, keep_time, monotonic
from pyweb._fastexchange cimport (
    DONE, EXIT, FIRST_BYTE, FREE, IDLE, MAX_HEAD, MAX_PEER, MISS, NUMBER, OPENED, OWED, PARSED,
    READING, STATE, Exchange, Ground, Peer, mark, pending, tell)
from pyweb._fastlook cimport is_so_by_another, is_still_so, look_up

import mmap
import os

from pyweb import scoreboard

cdef extern from *:
    """
    #include "kernel.h"

    /* signalfd(2): readable when one of them waits. A process that sleeps for long must wake. */
    static int pyweb_open_signals(uint64_t heard) {
    #if defined(__linux__)
        return (int)kernel_call(SYS_signalfd4, -1, (long)&heard, sizeof heard, 0, 0, 0);
    #else
        (void)heard;
        return -1;
    #endif
    }

    static uintptr_t pyweb_page;

    /* Whole pages of what is of no use any more, to who waits for long among thousands. */
    static void pyweb_give_back(void *from, size_t size) {
    #if defined(__linux__)
        uintptr_t rest = pyweb_page - 1, low = ((uintptr_t)from + rest) & ~rest;
        uintptr_t high = ((uintptr_t)from + size) & ~rest;
        if (low < high)
            kernel_call(SYS_madvise, (long)low, (long)(high - low), MADV_DONTNEED, 0, 0, 0);
    #else
        (void)from; (void)size;
    #endif
    }

    /* What wakes a conversation. Of the lifeline: it has said something, or hung up. */
    struct pyweb_news { int speaks, said, hung_up, signalled; };

    static void pyweb_wait(int sock, int lifeline, int signals, int patience,
                           struct pyweb_news *news) {
        struct pollfd all[3] = {
            {sock, POLLIN, 0}, {lifeline, news->said ? 0 : POLLIN, 0}, {signals, POLLIN, 0}};
        int ready = kernel_poll(all, 3, patience);
        news->speaks = ready > 0 && all[0].revents;
        news->said |= ready > 0 && all[1].revents & POLLIN;
        news->hung_up = ready > 0 && all[1].revents & ~POLLIN;
    }

    /* Bytes of answers that the client has not taken yet. */
    static int pyweb_unsent(int sock) {
        int count = 0;
    #if defined(TIOCOUTQ)
        if (kernel_ioctl(sock, TIOCOUTQ, &count) < 0)
            return 0;
    #endif
        return count;
    }

    static void pyweb_pause(int milliseconds) { kernel_poll(NULL, 0, milliseconds); }

    static ssize_t pyweb_peek(int sock, void *data, size_t size) {
        ssize_t got;
        do got = kernel_recv(sock, data, size, MSG_PEEK | MSG_DONTWAIT);
        while (got == -EINTR);
        return got;
    }

    /* 0: it was silent for so long (ms). -1: the client has closed. */
    PYWEB_BESIDE static int pyweb_discard_some(int sock, int patience) {
        char data[4096];
        struct pollfd one = {sock, POLLIN, 0};
        if (kernel_poll(&one, 1, patience) <= 0)
            return 0;
        return kernel_recv(sock, data, sizeof data, MSG_DONTWAIT) > 0 ? 1 : -1;
    }
    """
    ctypedef struct News "struct pyweb_news":
        int speaks
        int said
        int hung_up
        int signalled
    const int SHUT_WR
    size_t pyweb_page
    int pyweb_open_signals(unsigned long long heard) nogil
    void pyweb_give_back(void *start, size_t size) nogil
    void pyweb_wait(int sock, int lifeline, int signals, int patience, News *news) nogil
    int pyweb_unsent(int sock) nogil
    void pyweb_pause(int milliseconds) nogil
    Py_ssize_t pyweb_peek(int sock, void *data, size_t size) nogil
    int pyweb_discard_some(int sock, int patience) nogil
    int pyweb_park "kernel_send_descriptor"(int way, int sock, void *data, size_t size) nogil
    int getppid "kernel_getppid"() nogil
    int shutdown "kernel_shutdown"(int sock, int how) nogil
    int close "kernel_close"(int file) nogil

pyweb_page = mmap.PAGESIZE
cdef int SLOT = scoreboard.SLOT_SIZE


cdef int exchange(Exchange *x) noexcept nogil:
    """One request. MISS: nothing of it has been taken."""
    cdef int verdict
    x.began = monotonic()
    mark(x.record, FIRST_BYTE)
    x.file = -1
    x.sent = 0
    if not look_up(x):
        return MISS
    mark(x.record, PARSED)
    tell(x, READING)
    verdict = MISS
    if is_still_so(x) or is_so_by_another(x):
        mark(x.record, OPENED)
        verdict = respond(x)
    if x.file >= 0 and verdict != OWED:
        close(x.file)
    return verdict


cdef void leave_owed(const Exchange *x, Rest *rest) noexcept nogil:
    rest.owed = 1
    rest.file = x.file
    rest.status = x.entry.status
    rest.offset = x.entry.offset
    rest.count = x.entry.count
    rest.keeps = x.entry.keeps
    rest.sent = x.sent
    rest.began = x.began
    rest.head_size = x.head_size
    memcpy(rest.head, x.data, x.head_size)
    rest.header_size = x.entry.header_size
    memcpy(rest.header, x.header, x.entry.header_size)


cdef int is_the_last(const Ground *ground, long long requests) noexcept nogil:
    return ground.keepalive_requests and requests + 1 >= ground.keepalive_requests


cdef void discard(const Exchange *x) noexcept nogil:
    """Until the client closes, or is silent for too long; five such times in all. Or until all
    ends."""
    cdef long long silence = x.ground.silence * 1_000_000LL
    cdef long long now = monotonic()
    cdef long long until = now + 5 * silence
    cdef long long spoke = now
    cdef int found = 0
    while found >= 0 and now < min(until, spoke + silence) and not pending(x.ground.ends):
        found = pyweb_discard_some(x.sock, <int>(min(silence, WHILE) // 1_000_000))
        now = monotonic()
        if found > 0:
            spoke = now


cdef int has_unread(const Exchange *x) noexcept nogil:
    cdef char one
    return pyweb_peek(x.sock, &one, 1) > 0


cdef int end(const Exchange *x, long long *record) noexcept nogil:
    """As Connection.serve: somebody may hold a copy of the socket. What has come beyond the last
    request would take the answer with it (linger.py)."""
    x.slot[STATE] = FREE
    shutdown(x.sock, SHUT_WR)
    if has_unread(x):
        discard(x)
    mark(record, EXIT)
    return 1


cdef int park(const Exchange *x, long long requests) noexcept nogil:
    """As parking.pass_on of one that is idle. 0: it can't be."""
    cdef unsigned char message[64 + MAX_PEER]
    cdef unsigned long long number = requests
    cdef int size = x.ground.parked_size
    if x.ground.parker < 0:
        return 0
    memcpy(message, x.ground.parked, size)
    memcpy(message + x.ground.parked_requests, &number, 8)
    memcpy(message + size, x.peer.text, x.peer.size)
    return pyweb_park(x.ground.parker, x.sock, message, size + x.peer.size)


cdef int is_orphaned(const Ground *ground) noexcept nogil:
    """Nobody takes anything back. A process that dies closes what it has a moment before its
    children are another's."""
    cdef int _try
    for _try in range(5):
        if getppid() != ground.parent:
            return 1
        pyweb_pause(1)
    return 0


cdef void wait(const Exchange *x, int signals, int patience, News *news) noexcept nogil:
    """ms. signals: a descriptor, -1: those of a moment are seen at its end."""
    pyweb_wait(x.sock, x.ground.lifeline, signals, patience, news)
    news.signalled = pending(x.ground.heard) != 0


cdef void await_request(const Exchange *x, long long requests, News *news) noexcept nogil:
    """For a moment; where nobody takes those that idle, on for as long as they may."""
    cdef int signals
    cdef long long left, until
    cdef int unsent = pyweb_unsent(x.sock) if x.was_large else 0
    wait(x, -1, x.ground.linger, news)
    if x.ground.parker >= 0:
        await_its_end(x, unsent, news)
        return
    if not goes_on_waiting(x, news):
        return
    left = (x.ground.idle if requests else x.ground.first) - x.ground.linger * 1_000_000LL
    until = monotonic() + left
    pyweb_give_back(x.body, SMALL_BODY)
    pyweb_give_back(<void *>x.taken, <const char *>x + sizeof(Exchange) - <const char *>x.taken)
    signals = pyweb_open_signals(x.ground.heard)
    if signals < 0:
        news.signalled |= not x.alone   # no descriptor is left; Python waits without
    while signals >= 0 and left > 0 and goes_on_waiting(x, news):
        left = until - monotonic()
        wait(x, signals, <int>min(max(0, left) // 1000000 + 1, 1 << 30), news)
    if signals >= 0:
        close(signals)


cdef void await_its_end(const Exchange *x, int unsent, News *news) noexcept nogil:
    """Megabytes may still stand in the socket: who takes them, and is well, does not idle yet."""
    cdef int before
    while unsent and goes_on_waiting(x, news):
        before, unsent = unsent, pyweb_unsent(x.sock)
        if before - unsent < WELL * (x.ground.linger * 1_000_000LL) // WHILE:
            return
        wait(x, -1, x.ground.linger, news)


cdef int goes_on_waiting(const Exchange *x, const News *news) noexcept nogil:
    """That another serves now is no news for one who idles: it ends with its next answer."""
    return not (news.speaks or news.signalled or news.hung_up or (news.said and not x.alone))


cdef int serve(const Ground *ground, int sock, const Peer *peer, long long *slot,
               long long *record, Rest *rest, int alone) noexcept nogil:
    cdef Exchange x
    cdef News news
    cdef unsigned char body[SMALL_BODY]
    cdef int verdict
    x.ground, x.sock, x.peer, x.slot, x.record, x.alone = ground, sock, peer, slot, record, alone
    x.times, x.mark, x.body = &TIMES, NULL, body
    rest.owed = 0
    x.torn = x.is_taken = x.was_large = 0
    news.said = 0
    while True:
        slot[STATE] = IDLE
        await_request(&x, rest.requests, &news)
        if not news.speaks:
            return leave(&x, rest.requests, &news, record)
        if news.signalled or is_the_last(ground, rest.requests):
            return 0
        # Whom nobody would take back goes on as long as there is something to answer.
        if (news.said or news.hung_up) and not (alone and is_orphaned(ground)):
            return 0
        x.size = <int>pyweb_peek(sock, x.data, MAX_HEAD)
        if x.size == 0:
            return end(&x, record)
        if x.size < 0:
            return 0
        verdict = exchange(&x)
        if verdict == MISS:
            return 0
        if verdict == OWED:
            leave_owed(&x, rest)
            return 0
        rest.requests += 1
        x.was_large = x.entry.count > WELL
        x.record = NULL   # stamps are of the first exchange
        if verdict == DONE:
            return end(&x, record)


cdef int leave(const Exchange *x, long long requests, const News *news,
               long long *record) noexcept nogil:
    """It is silent. As Driver: one that has been answered, and idles, ends when it is told to; one
    that is new has a moment more, which is Python's."""
    if news.signalled or news.hung_up:
        return end(x, record) if x.alone and (requests or is_orphaned(x.ground)) else 0
    if x.ground.parker >= 0:
        return 0 if news.said else park(x, requests)
    return end(x, record) if x.alone or not news.said else 0


cdef unsigned long long set_of(signals) except? 0:
    """As the kernel has it: signal n is bit n - 1."""
    return sum(1 << int(number) - 1 for number in signals)


cdef class Repeater:
    """What all conversations share, made once, before the first fork.

    slots      the scoreboard's memory; `at` below is where in it a slot begins, in bytes
    records    the memory of stamps, or None
    log        a descriptor, -1: none; escapes: what an octet becomes in a line, for each of 256
    fresh      seconds after which a decision is wished anew, by a message to `wishes`
    good       seconds after which it is repeated no more
    linger     seconds that a conversation waits for the next request before it is parked
    first      seconds for a new connection to speak; idle: for one that has been answered; both
               where nothing is parked
    silence    seconds without a byte after which a client is no longer lingered for
    not_sent   bytes that may wait in a socket to be sent, where each step of its client is watched
    min_rate   bytes/s at which a client earns time beyond timeout_write (s), as in clock.Deadline
    reasons    the numbers that a line has whose answer did not leave: the client is gone, or slow;
               the file has become shorter; the server ends
    heard      signals at which a conversation is left to Python; ends: the one of them at which an
               answer is broken off
    parker     where idle connections are parked, -1: nowhere; parked: the message, before the
               peer's name; at `parked_requests` in it stands how many requests there were
    """

    def __cinit__(self, Cache cache not None, slots, records, *, int root, int log,
                  bint log_is_socket, int lifeline, int wishes, double fresh, double good,
                  double linger, double first, double idle, int keepalive_requests,
                  unsigned long long flags,
                  unsigned long long path_flags, unsigned long long resolve, escapes,
                  double silence, double timeout_write, int min_rate, int not_sent,
                  reasons, heard, int ends, int parker, bytes parked not None, int parked_requests):
        cdef int octet
        cdef bytes text
        self.has_slots = self.has_records = False
        self.cache = cache
        self.ground.table, self.ground.names = cache.table, cache.names
        self.ground.limits = cache.limits
        self.ground.root, self.ground.log, self.ground.lifeline = root, log, lifeline
        self.ground.log_is_socket, self.ground.wishes = log_is_socket, wishes
        self.ground.fresh, self.ground.good = <long long>(fresh * 1e9), <long long>(good * 1e9)
        self.ground.linger = <int>(linger * 1000)
        self.ground.first, self.ground.idle = <long long>(first * 1e9), <long long>(idle * 1e9)
        self.ground.keepalive_requests = keepalive_requests
        self.ground.flags, self.ground.resolve = flags, resolve
        self.ground.path_flags, self.ground.parent = path_flags, os.getpid()
        self.ground.silence = <int>(silence * 1000)
        self.ground.timeout_write = <long long>(timeout_write * 1e9)
        (self.ground.client_reset, self.ground.write_timeout, self.ground.file_shrank,
         self.ground.ended) = reasons
        self.ground.heard, self.ground.ends = set_of(heard), set_of((ends,))
        # 0: each piece starts the time anew.
        self.ground.time_of_byte = 1_000_000_000 // min_rate if min_rate else 0
        self.ground.not_sent = not_sent
        self.ground.parker, self.ground.parked_requests = parker, parked_requests
        self.ground.parked_size = <int>len(parked)
        if len(parked) > 64 or not 0 <= parked_requests <= len(parked) - 8:
            raise ValueError("a message that has no room")
        memcpy(self.ground.parked, PyBytes_AS_STRING(parked), len(parked))
        for octet in range(256):
            text = escapes[octet]
            self.ground.escapes.sizes[octet] = <int>len(text)
            memcpy(self.ground.escapes.text[octet], PyBytes_AS_STRING(text), min(4, len(text)))
        PyObject_GetBuffer(slots, &self.slots, PyBUF_WRITABLE)
        self.has_slots = True
        if records is not None:
            PyObject_GetBuffer(records, &self.records, PyBUF_WRITABLE)
            self.has_records = True

    def __dealloc__(self):
        if self.has_slots:
            PyBuffer_Release(&self.slots)
        if self.has_records:
            PyBuffer_Release(&self.records)

    cdef void keep_memory(self, void (*keep)(const void *, size_t)) noexcept:
        """What a child of this must have: `keep` is told each piece."""
        keep(self.ground.table.memory, self.ground.table.sets * SET_SIZE)
        keep(self.slots.buf, self.slots.len)
        if self.has_records:
            keep(self.records.buf, self.records.len)

    cdef int aim(self, Turn *turn, int sock, bytes peer, Py_ssize_t slot_at, Py_ssize_t record_at,
                 long long number, long long requests) except -1:
        if not 0 <= slot_at <= self.slots.len - SLOT:
            raise IndexError("no such slot")
        turn.sock = sock
        turn.peer.size = <int>min(MAX_PEER, PyBytes_GET_SIZE(peer))
        memcpy(turn.peer.text, PyBytes_AS_STRING(peer), turn.peer.size)
        turn.slot = <long long *>(<char *>self.slots.buf + slot_at)
        turn.record = NULL
        if self.has_records and 0 < record_at < self.records.len:
            turn.record = <long long *>(<char *>self.records.buf + record_at)
            if turn.record[NUMBER] != number:
                turn.record = NULL   # the ring has come round: it is another's
        turn.rest.requests = requests
        keep_time(&TIMES)
        return 0

    def serve(self, int sock, bytes peer not None, Py_ssize_t slot_at, long long requests=0,
              bint alone=False):
        """In this process. None: the connection is over. Else what is left: see rest_of."""
        cdef Turn turn
        cdef int is_over
        self.aim(&turn, sock, peer, slot_at, 0, 0, requests)
        with nogil:
            is_over = run(&self.ground, &turn, alone)
        return None if is_over else rest_of(&turn)


cdef int run(const Ground *ground, Turn *turn, int alone) noexcept nogil:
    return serve(ground, turn.sock, &turn.peer, turn.slot, turn.record, &turn.rest, alone)


cdef object rest_of(const Turn *turn):
    """(requests answered, None), or (requests, (head, header, status, keeps, file, offset, count,
    sent, began)) when an answer is owed of which `sent` bytes have left; began: monotonic, s."""
    cdef const Rest *rest = &turn.rest
    if not rest.owed:
        return rest.requests, None
    return rest.requests, (
        rest.head[:rest.head_size], rest.header[:rest.header_size], rest.status, bool(rest.keeps),
        rest.file, rest.offset, rest.count, rest.sent, rest.began / 1e9)
