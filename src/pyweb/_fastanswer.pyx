# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The answer that a decision says: its header, its body, and the client's time to take them.

What lives here: what connection.py does from the decision on, when all goes well. What must never:
a byte of another header than the decision's; a wait where others would wait too. From begin() on
the answer is certain. A child waits for the room that a small one needs; a large one whose client
is slow is handed over with what has left, or, where nobody is there to take it, sent by its
deadline. A lane waits for none.
"""

from libc.string cimport memcpy

from pyweb._fastcache cimport Guard, copy_body
from pyweb._fastclock cimport monotonic, put_date, tell_time
from pyweb._fastexchange cimport (
    AGAIN, BODY_SENT, DECIDED, DONE, HEADER_SENT, MISS, OWED, SENT, Exchange, mark, pending,
    tell_answer, tell_request)
from pyweb._fastlog cimport render_line, write_line

from pyweb import _pysend, kinds

cdef extern from *:
    """
    #include "kernel.h"

    /* What has been peeked at. 0: it is gone, and so is the client. */
    static int pyweb_take(int sock, void *data, size_t size) {
        while (size > 0) {
            ssize_t got = kernel_recv(sock, data, size, MSG_DONTWAIT);
            if (got > 0)
                size -= (size_t)got;
            else if (got != -EINTR)
                return 0;
        }
        return 1;
    }

    static int pyweb_read_whole(int file, char *body, size_t count, off_t offset) {
        size_t done = 0;
        while (done < count) {
            ssize_t got = kernel_pread(file, body + done, count - done, offset + (off_t)done);
            if (got > 0)
                done += (size_t)got;
            else if (got != -EINTR)
                return 0;
        }
        return 1;
    }

    /* Bytes that have left; what is missing, send_rest or Python sends, and says why where it
       can't. `is_last`: the connection is shut down next, and the end goes with them, in one
       segment: that wakes a client once, where data and then an end wake it twice. */
    static long long pyweb_send_both(int sock, const void *header, size_t header_size,
                                     const void *body, size_t body_size, int is_last) {
        int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (is_last ? MSG_MORE : 0);
        struct iovec parts[2] = {{(void *)header, header_size}, {(void *)body, body_size}};
        struct msghdr message;
        ssize_t sent;
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = body_size ? 2 : 1;
        do sent = kernel_sendmsg(sock, &message, flags);
        while (sent == -EINTR);
        return sent > 0 ? sent : 0;
    }

    /* 0: not now. -1: the client is gone; -2: the file is shorter than it was. */
    static long long pyweb_send_piece(int sock, int file, off_t offset, size_t count) {
        ssize_t moved = -ENOSYS;
    #if defined(__linux__)
        do moved = kernel_sendfile(sock, file, &offset, count);
        while (moved == -EINTR);
    #endif
        return moved > 0 ? moved : moved == 0 ? -2
               : moved == -EAGAIN || moved == -EWOULDBLOCK ? 0 : -1;
    }

    static long long pyweb_send_before_more(int sock, const void *data, size_t size) {
        ssize_t sent;
        do sent = kernel_send(sock, data, size, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE);
        while (sent == -EINTR);
        return sent > 0 ? sent : 0;
    }

    /* Who sends much to a client that is well wants to be woken seldom, and lets megabytes wait in
       the socket; one that watches a slow client wants to see each of its steps (listen.py). */
    static void pyweb_let_wait(int sock, int bytes) {
    #if defined(TCP_NOTSENT_LOWAT)
        kernel_set_option(sock, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
    #else
        (void)sock; (void)bytes;
    #endif
    }

    /* tcp(7): whole segments alone, until it is taken away. Without it 10 MB are up to 300 on the
       loopback, and with it 153; each wakes the client. */
    static void pyweb_cork(int sock, int is_on) {
    #if defined(TCP_CORK)
        kernel_set_option(sock, IPPROTO_TCP, TCP_CORK, &is_on, sizeof is_on);
    #else
        (void)sock; (void)is_on;
    #endif
    }

    /* Sending waits by itself, so long (ns) for each bit of room: with a poll before each piece it
       was 2.4 times the time of the CPU. */
    static void pyweb_let_sending_wait(int sock, long long patience) {
        struct timeval most = {patience / 1000000000, patience % 1000000000 / 1000};
        int off = 0;
        kernel_set_option(sock, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
        kernel_ioctl(sock, FIONBIO, &off);
    }

    /* left: ns. 0: there was none, or the client has gone. */
    static int pyweb_wait_for_room(int sock, long long left) {
        struct pollfd one = {sock, POLLOUT, 0};
        return left > 0 && kernel_poll(&one, 1, (int)(left / 1000000 + 1)) > 0;
    }

    /* -1: the client is gone; 0: not now. */
    static ssize_t pyweb_send_some(int sock, const void *data, size_t size) {
        ssize_t sent;
        do sent = kernel_send(sock, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (sent == -EINTR);
        return sent == -EAGAIN || sent == -EWOULDBLOCK ? 0 : sent;
    }
    """
    const int SHUT_WR
    int pyweb_take(int sock, void *data, size_t size) nogil
    int pyweb_read_whole(int file, char *body, size_t count, long long offset) nogil
    long long pyweb_send_both(int sock, const void *header, size_t header_size, const void *body,
                              size_t body_size, int is_last) nogil
    long long pyweb_send_piece(int sock, int file, long long offset, size_t count) nogil
    long long pyweb_send_before_more(int sock, const void *data, size_t size) nogil
    void pyweb_let_wait(int sock, int bytes) nogil
    void pyweb_cork(int sock, int is_on) nogil
    void pyweb_let_sending_wait(int sock, long long patience) nogil
    int pyweb_wait_for_room(int sock, long long left) nogil
    Py_ssize_t pyweb_send_some(int sock, const void *data, size_t size) nogil
    int shutdown "kernel_shutdown"(int sock, int how) nogil

# What stands in the holes of a kind's header.
cdef int DATE = kinds.DATE
cdef int LENGTH = kinds.LENGTH
cdef int SIZE = kinds.SIZE
cdef int MTIME = kinds.MTIME
cdef int MODIFIED = kinds.MODIFIED

cdef enum:
    SHRANK = -2
    QUICK = 1_000_000   # ns of a STEP, to a client who reads from nobody else

if SMALL_BODY != _pysend.SMALL:
    raise ImportError("pyweb: _fastanswer.pxd and _pysend.py draw the line of SMALL differently")


cdef int put_digits(unsigned char *to, unsigned long long value, int base) noexcept nogil:
    cdef unsigned char text[20]
    cdef int at = 20
    cdef int digit
    while value or at == 20:
        digit = <int>(value % base)
        at -= 1
        text[at] = <unsigned char>(48 + digit if digit < 10 else 87 + digit)
        value //= base
    memcpy(to, text + at, 20 - at)
    return 20 - at


cdef int fill(const Exchange *x, int what, unsigned char *to) noexcept nogil:
    """A hole, as kinds.Kind.filled; how many bytes."""
    cdef const Guard *file = &x.entry.guard[0]
    if what == DATE:
        memcpy(to, x.times.date, 29)
        return 29
    if what == MODIFIED:
        put_date(to, file.modified // 1000000000)
        return 29
    if what == MTIME:
        return put_digits(to, file.modified, 16)
    return put_digits(to, file.size, 16 if what == SIZE else 10)


cdef void fill_header(Exchange *x) noexcept nogil:
    cdef const unsigned char *source = x.entry.data + x.entry.header_at
    cdef int i, until
    cdef int at = 0
    cdef int size = 0
    for i in range(x.entry.holes + 1):
        until = x.entry.hole[i].at if i < x.entry.holes else x.entry.header_size
        memcpy(x.header + size, source + at, until - at)
        size += until - at
        at = until
        if i < x.entry.holes:
            size += fill(x, x.entry.hole[i].what, x.header + size)
    x.entry.header_size = size


cdef void make_header(Exchange *x) noexcept nogil:
    if x.is_kind:
        tell_time(x.times)
        fill_header(x)
        return
    memcpy(x.header, x.entry.data + x.entry.header_at, x.entry.header_size)
    tell_time(x.times)
    if x.entry.date_at >= 0:
        memcpy(x.header + x.entry.date_at, x.times.date, 29)


cdef int whole_size(const Exchange *x) noexcept nogil:
    return x.entry.header_size + <int>x.entry.count


cdef void begin(Exchange *x) noexcept nogil:
    """From here on the answer is certain: the head is taken, and the client is owed it."""
    cdef int left = 0 if x.is_taken else x.head_size
    while left > 0:
        pyweb_take(x.sock, x.taken, min(left, <int>sizeof(x.taken)))
        left -= <int>sizeof(x.taken)
    tell_request(x)


cdef int fetch_body(Exchange *x) noexcept nogil:
    if x.entry.has_body:
        return copy_body(x.place, &x.entry, x.body)
    return pyweb_read_whole(x.file, <char *>x.body, x.entry.count, x.entry.offset)


cdef int respond_small(Exchange *x) noexcept nogil:
    """MISS: the file could not be read, and nothing has happened."""
    if x.entry.count and not fetch_body(x):
        return MISS
    begin(x)
    x.sent = pyweb_send_both(x.sock, x.header, x.entry.header_size, x.body, x.entry.count,
                             not x.entry.keeps)
    if x.sent == whole_size(x):
        # Before anything else: where bytes came and are closed upon unread, what has not left is
        # lost; and the log may be slow.
        if not x.entry.keeps:
            shutdown(x.sock, SHUT_WR)
        return AGAIN
    if x.mark:
        return OWED   # others must not wait for this one
    x.reason = send_rest(x, <const char *>x.body)
    return AGAIN


cdef int send_header_rest(Exchange *x) noexcept nogil:
    """As send_rest."""
    return send_up_to(x, x.entry.header_size, NULL)


cdef int send_rest(Exchange *x, const char *body) noexcept nogil:
    """A socket that had no room for so little: give it its time. The reason for the log."""
    return send_up_to(x, whole_size(x), body)


cdef int send_up_to(Exchange *x, long long end, const char *body) noexcept nogil:
    cdef long long until = monotonic() + x.ground.timeout_write
    cdef long long of_body
    cdef Py_ssize_t sent
    while x.sent < end:
        if pending(x.ground.ends):
            return x.ground.ended
        if not pyweb_wait_for_room(x.sock, min(until - monotonic(), WHILE)):
            if monotonic() >= until:
                return x.ground.write_timeout
            continue
        of_body = x.sent - x.entry.header_size
        if of_body < 0:
            sent = pyweb_send_some(x.sock, x.header + x.sent, -of_body)
        else:
            sent = pyweb_send_some(x.sock, body + of_body, x.entry.count - of_body)
        if sent < 0:
            return x.ground.client_reset
        x.sent += sent
        x.slot[SENT] = x.sent
    return x.entry.reason


cdef int respond_large(Exchange *x) noexcept nogil:
    begin(x)
    pyweb_cork(x.sock, 1)
    x.sent = pyweb_send_before_more(x.sock, x.header, x.entry.header_size)
    if x.mark:
        if send_on(x, PIECE) <= 0 or not is_sent(x):
            return OWED   # others must not wait for this one
        let_go(x)
        return AGAIN
    if x.sent == x.entry.header_size and send_in_peace(x):
        let_go(x)
        return AGAIN
    end_bulk(x)
    if not x.alone:
        return OWED
    pyweb_let_sending_wait(x.sock, WHILE)
    x.reason = send_header_rest(x)
    if x.reason == x.entry.reason:
        x.reason = send_by_deadline(x)
    return AGAIN


cdef int send_in_peace(Exchange *x) noexcept nogil:
    """0: its client is slow, and has to be judged."""
    begin_bulk(x.sock)
    pyweb_let_sending_wait(x.sock, WHILE)
    while not is_sent(x):
        if not send_for_a_while(x):
            return 0
    return 1


cdef void let_go(const Exchange *x) noexcept nogil:
    """What is less than a segment. The end goes with it."""
    if x.entry.keeps:
        end_bulk(x)
    else:
        shutdown(x.sock, SHUT_WR)


cdef int send_by_deadline(Exchange *x) noexcept nogil:
    """As Connection with clock.Deadline, where there is no Python. The reason for the log. Sending
    waits by itself, for WHILE."""
    cdef long long now = monotonic()
    cdef long long until = now + x.ground.timeout_write
    cdef long long before
    cdef int done
    while not is_sent(x):
        before = x.sent
        done = send_on(x, STEP)
        if done < 0:
            return x.ground.file_shrank if done == SHRANK else x.ground.client_reset
        if pending(x.ground.ends):
            return x.ground.ended
        now = monotonic()
        if done and not x.ground.time_of_byte:
            until = now + x.ground.timeout_write
        until = min(now + x.ground.timeout_write,
                    until + (x.sent - before) * x.ground.time_of_byte)
        if now >= until and not is_sent(x):
            return x.ground.write_timeout
        x.slot[SENT] = x.sent
    return x.entry.reason


cdef void begin_bulk(int sock) noexcept nogil:
    pyweb_let_wait(sock, 0x7fffffff)


cdef void uncork(const Exchange *x) noexcept nogil:
    pyweb_cork(x.sock, 0)


cdef void end_bulk(const Exchange *x) noexcept nogil:
    """From here on each byte counts, or there are none."""
    uncork(x)
    pyweb_let_wait(x.sock, x.ground.not_sent)


cdef int is_sent(const Exchange *x) noexcept nogil:
    return x.sent == x.entry.header_size + x.entry.count


cdef int send_on(Exchange *x, long long most) noexcept nogil:
    """A piece more of a file. 0: not now; -1: the client is gone; SHRANK: the file is shorter."""
    cdef long long at = x.sent - x.entry.header_size
    cdef long long moved = -1
    if at >= 0:
        moved = pyweb_send_piece(x.sock, x.file, x.entry.offset + at,
                                 <size_t>min(x.entry.count - at, most))
    if moved <= 0:
        return <int>moved
    x.sent += moved
    return 1


cdef int send_for_a_while(Exchange *x) noexcept nogil:
    """0: it did not take as much as one that is well would have."""
    cdef long long before = x.sent
    cdef long long now = monotonic()
    cdef long long until = now + WHILE
    cdef long long began
    while not is_sent(x) and now < until:
        began = now
        if pending(x.ground.heard) or send_on(x, STEP) <= 0:
            return 0
        x.slot[SENT] = x.sent
        now = monotonic()
        # It reads from others, too: whole segments, for which it would be woken less often, then
        # only keep from it what it could have by now (0.9 times the rate of 16 clients).
        if now - began > QUICK:
            uncork(x)
    return is_sent(x) or x.sent - before >= WELL


cdef int respond(Exchange *x) noexcept nogil:
    """MISS, with nothing taken; OWED; or DONE and AGAIN."""
    cdef int verdict = AGAIN
    make_header(x)
    mark(x.record, DECIDED)
    x.reason = x.entry.reason
    render_line(x, &x.line, x.entry.count)
    # Too long a line, or one who says that this is the last, and goes on: that is Python's.
    if x.line.full or (x.size > x.head_size and not x.entry.keeps):
        return MISS
    if x.entry.count > SMALL_BODY:
        verdict = respond_large(x)
    else:
        verdict = respond_small(x)
    return verdict if verdict != AGAIN else conclude(x)


cdef int conclude(Exchange *x) noexcept nogil:
    """The answer has left, or will not. DONE, or AGAIN."""
    mark(x.record, HEADER_SENT)
    mark(x.record, BODY_SENT)
    if x.reason != x.entry.reason:
        render_line(x, &x.line, max(0, x.sent - x.entry.header_size))
    write_line(x, &x.line)
    tell_answer(x)
    return AGAIN if x.entry.keeps and x.reason == x.entry.reason else DONE
