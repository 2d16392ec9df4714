# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled conversation: look at a head, repeat the decision for it, log, look again.

What lives here: what connection.py does when all goes well and the decision is known. What must
never: a decision (cache.py has made it), an answer of its own, a wait for anything but the next
request. Whatever is not plain (no entry, an old one, a changed file, a socket that is full, a
signal, the lifeline) is left to Python with nothing lost: a head stays in the kernel until its
answer is certain, and an answer that does not leave at once is handed over with what has left.

It runs in a child that may never have entered the interpreter: no object, no malloc, no lock.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy, strlen

from pyweb._fastparse cimport Span, scan_head
from pyweb._fastcache cimport (
    MAX_HOLES, SET_SIZE, Cache, Guard, copy_body, find, make_key, make_kind_key)
import mmap
import os
import signal

from pyweb import _pysend, kinds, ledger, scoreboard, stamps

cdef extern from *:
    """
    #include "kernel.h"
    #include <stdlib.h>
    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif
    #ifndef POLLRDHUP
    #define POLLRDHUP 0
    #endif
    #if defined(__APPLE__)
    #define st_mtim st_mtimespec
    #define st_ctim st_ctimespec
    #endif

    #define PYWEB_SMALL_BODY 32768

    /* Through the vDSO, unless there is no C library that knows it. */
    static int pyweb_has_libc = 1;
    static void pyweb_forget_libc(void) { pyweb_has_libc = PYWEB_NEEDS_LIBC; }

    static long long pyweb_clock(int which) {
        struct timespec now;
    #if !PYWEB_NEEDS_LIBC
        if (!pyweb_has_libc)
            PYWEB_CALL(clock_gettime, 0, which, &now);
        else
    #endif
            clock_gettime(which, &now);
        return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    #define PYWEB_BIT(number) ((uint64_t)1 << ((number) - 1))
    static int pyweb_first_signal;   /* SIGRTMIN is a function of the C library */

    /* Those that Python must hear; all are held back. */
    static uint64_t pyweb_heard(void) {
        uint64_t heard = PYWEB_BIT(SIGTERM) | PYWEB_BIT(SIGUSR1);
    #if defined(SIGRTMIN)
        heard |= PYWEB_BIT(pyweb_first_signal) | PYWEB_BIT(pyweb_first_signal + 1);
    #endif
        return heard;
    }

    static int pyweb_has_signal(void) { return (kernel_pending() & pyweb_heard()) != 0; }

    /* child.END, at which an answer is broken off. */
    static int pyweb_end_signal;
    static int pyweb_is_ended(void) {
        return (kernel_pending() & PYWEB_BIT(pyweb_end_signal)) != 0;
    }

    /* signalfd(2): readable when one of them waits. A process that sleeps for long must wake. */
    static int pyweb_open_signals(void) {
    #if defined(__linux__)
        uint64_t heard = pyweb_heard();
        return (int)kernel_call(SYS_signalfd4, -1, (long)&heard, sizeof heard, 0, 0, 0);
    #else
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
        news->signalled = pyweb_has_signal();
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

    struct pyweb_identity {
        unsigned long long device, inode;
        long long size, modified, changed;
    };

    /* Some file systems keep seconds of 64 bits: of those, ns are only good to be compared. */
    static long long pyweb_ns(const struct timespec *time) {
        return (long long)((uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec);
    }

    static void pyweb_identify(const struct stat *status, struct pyweb_identity *found) {
        found->device = (unsigned long long)status->st_dev;
        found->inode = (unsigned long long)status->st_ino;
        found->size = (long long)status->st_size;
        found->modified = pyweb_ns(&status->st_mtim);
        found->changed = pyweb_ns(&status->st_ctim);
    }

    static int pyweb_identify_path(int root, const char *path, struct pyweb_identity *found) {
        struct stat status;
        if (kernel_fstatat(root, path, &status) < 0)
            return 0;
        pyweb_identify(&status, found);
        return 1;
    }

    static int pyweb_identify_file(int file, struct pyweb_identity *found) {
        struct stat status;
        if (kernel_fstat(file, &status) < 0)
            return 0;
        pyweb_identify(&status, found);
        return 1;
    }

    /* 0: it is no file that could be sent, or its time is before 1970 or has no ns. */
    static int pyweb_identify_regular(int file, struct pyweb_identity *found) {
        struct stat status;
        if (kernel_fstat(file, &status) < 0 || !S_ISREG(status.st_mode))
            return 0;
        if (status.st_mtim.tv_sec < 0 || status.st_mtim.tv_sec > INT64_MAX / 1000000000 - 1)
            return 0;
        pyweb_identify(&status, found);
        return 1;
    }

    /* Names in a directory, of which no link is followed. */
    static int pyweb_is_regular_there(int directory, const char *name) {
        struct stat status;
        return kernel_lstatat(directory, name, &status) == 0 && S_ISREG(status.st_mode);
    }

    static int pyweb_is_absent(int directory, const char *name) {
        struct stat status;
        return kernel_lstatat(directory, name, &status) == -ENOENT;
    }

    static int pyweb_open(int root, const char *path, uint64_t flags, uint64_t resolve) {
    #if defined(__linux__)
        struct { uint64_t flags, mode, resolve; } how;
        memset(&how, 0, sizeof how);
        how.flags = flags;
        how.resolve = resolve;
        return (int)kernel_call(SYS_openat2, root, (long)path, (long)&how, sizeof how, 0, 0);
    #else
        (void)root; (void)path; (void)flags; (void)resolve;
        return -ENOSYS;
    #endif
    }

    static int pyweb_identify_beneath(int root, const char *path, uint64_t flags,
                                      uint64_t resolve, struct pyweb_identity *found) {
        int file = pyweb_open(root, path, flags, resolve), done;
        if (file < 0)
            return 0;
        done = pyweb_identify_file(file, found);
        kernel_close(file);
        return done;
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

    /* Bytes that have left; what is missing, Python sends, and says why where it can't. `is_last`:
       the connection is shut down next, and the end goes with them, in one segment: that wakes a
       client once, where data and then an end wake it twice. */
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

    /* Sending waits by itself, so long (ns) for each bit of room: with a poll before each piece it
       was 2.4 times the time of the CPU. */
    static void pyweb_let_sending_wait(int sock, long long patience) {
        struct timeval most = {patience / 1000000000, patience % 1000000000 / 1000};
        int off = 0;
        kernel_set_option(sock, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
        kernel_ioctl(sock, FIONBIO, &off);
    }

    static long long pyweb_write(int file, int is_socket, const void *data, size_t size) {
        return is_socket ? kernel_send(file, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                         : kernel_write(file, data, size);
    }

    static void pyweb_wish(int way, const void *head, size_t size) {
        kernel_send(way, head, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }

    /* So far in all, without an answer's end: 1. Closed, or no longer to be waited for: 0. */
    static int pyweb_wait_for_room(int sock, long long until) {
        struct pollfd one = {sock, POLLOUT, 0};
        long long left = until - pyweb_clock(CLOCK_MONOTONIC);
        return left > 0 && kernel_poll(&one, 1, (int)(left / 1000000 + 1)) > 0;
    }

    /* -1: the client is gone; 0: not now. */
    static ssize_t pyweb_send_some(int sock, const void *data, size_t size) {
        ssize_t sent;
        do sent = kernel_send(sock, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (sent == -EINTR);
        return sent == -EAGAIN || sent == -EWOULDBLOCK ? 0 : sent;
    }

    /* Until the client closes, or is silent for so long (ms); five such times in all. */
    static void pyweb_discard(int sock, int silence) {
        char data[4096];
        struct pollfd one = {sock, POLLIN, 0};
        long long until = pyweb_clock(CLOCK_MONOTONIC) + 5000000LL * silence;
        while (pyweb_clock(CLOCK_MONOTONIC) < until && kernel_poll(&one, 1, silence) > 0)
            if (kernel_recv(sock, data, sizeof data, MSG_DONTWAIT) <= 0)
                return;
    }

    /* Of this second, as text: clock.py's and accesslog.py's, held against them by a test. Not by
       the C library: it allocates, and a child may be without a heap. Where local time stands is
       asked by the parent, once a second; a child that lives longer keeps to that. */

    static void pyweb_two(char *to, long long value) {
        to[0] = (char)('0' + value / 10 % 10);
        to[1] = (char)('0' + value % 10);
    }

    static void pyweb_clock_text(char *to, long long second) {
        pyweb_two(to, second / 3600);
        pyweb_two(to + 3, second / 60 % 60);
        pyweb_two(to + 6, second % 60);
        to[2] = to[5] = ':';
    }

    struct pyweb_day { long long year; int month, day, weekday; };

    /* Days since 1970-01-01 in the Gregorian calendar, by eras of 400 years that begin in March. */
    static struct pyweb_day pyweb_day_of(long long days) {
        long long shifted = days + 719468, era = shifted / 146097, of_era = shifted % 146097;
        long long years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
        long long of_year = of_era - (365 * years + years / 4 - years / 100);
        long long month = (5 * of_year + 2) / 153;
        struct pyweb_day found;
        found.day = (int)(of_year - (153 * month + 2) / 5 + 1);
        found.month = (int)(month < 10 ? month + 2 : month - 10);
        found.year = years + era * 400 + (found.month < 2);
        found.weekday = (int)((days + 4) % 7);
        return found;
    }

    static void pyweb_put_date(char *to, const struct pyweb_day *day, char between) {
        pyweb_two(to, day->day);
        memcpy(to + 3, &"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * day->month], 3);
        pyweb_two(to + 7, day->year / 100);
        pyweb_two(to + 9, day->year);
        to[2] = to[6] = between;
    }

    static void pyweb_render_date(char *to, long long second) {
        struct pyweb_day day = pyweb_day_of(second / 86400);
        memcpy(to, &"SunMonTueWedThuFriSat"[3 * day.weekday], 3);
        memcpy(to + 3, ", ", 2);
        pyweb_put_date(to + 5, &day, ' ');
        to[16] = ' ';
        pyweb_clock_text(to + 17, second % 86400);
        memcpy(to + 25, " GMT", 5);
    }

    static void pyweb_render_log_time(char *to, long long second, long long ahead) {
        long long local = second + ahead, offset = llabs(ahead) / 60;
        struct pyweb_day day = pyweb_day_of(local / 86400);
        to[0] = '[';
        pyweb_put_date(to + 1, &day, '/');
        to[12] = ':';
        pyweb_clock_text(to + 13, local % 86400);
        to[21] = ' ';
        to[22] = ahead < 0 ? '-' : '+';
        pyweb_two(to + 23, offset / 60);
        pyweb_two(to + 25, offset % 60);
        memcpy(to + 27, "]", 2);
    }

    static void pyweb_render_times(struct pyweb_times *times, long long second) {
        if (second == times->second)
            return;
        times->second = second;
        pyweb_render_date(times->date, second);
        pyweb_render_log_time(times->log_time, second, times->offset);
    }

    static void pyweb_set_offset(struct pyweb_times *times, long long offset) {
        times->offset = offset;
        times->second = times->offset_of = -1;
    }

    /* By whoever has a heap. */
    static void pyweb_ask_offset(struct pyweb_times *times, long long second) {
        time_t now = (time_t)second;
        struct tm parts;
        if (second == times->offset_of || !localtime_r(&now, &parts))
            return;
        times->offset_of = second;
        times->offset = parts.tm_gmtoff;
        times->second = -1;
        pyweb_render_times(times, second);
    }
    """
    ctypedef struct Identity "struct pyweb_identity":
        unsigned long long device
        unsigned long long inode
        long long size
        long long modified
        long long changed
    const int PYWEB_SMALL_BODY
    const int CLOCK_MONOTONIC
    const int CLOCK_REALTIME
    const int SHUT_WR
    long long pyweb_clock(int which) nogil
    ctypedef struct News "struct pyweb_news":
        int speaks
        int said
        int hung_up
        int signalled
    void pyweb_give_back(void *start, size_t size) nogil
    size_t pyweb_page
    int pyweb_open_signals() nogil
    void pyweb_wait(int sock, int lifeline, int signals, int patience, News *news) nogil
    void pyweb_pause(int milliseconds) nogil
    Py_ssize_t pyweb_peek(int sock, void *data, size_t size) nogil
    int pyweb_take(int sock, void *data, size_t size) nogil
    int pyweb_identify_path(int root, const char *path, Identity *found) nogil
    int pyweb_identify_file(int file, Identity *found) nogil
    int pyweb_open(int root, const char *path, unsigned long long flags,
                   unsigned long long resolve) nogil
    int pyweb_identify_beneath(int root, const char *path, unsigned long long flags,
                               unsigned long long resolve, Identity *found) nogil
    int pyweb_identify_regular(int file, Identity *found) nogil
    int pyweb_is_regular_there(int directory, const char *name) nogil
    int pyweb_is_absent(int directory, const char *name) nogil
    void pyweb_render_date(char *to, long long second) nogil
    int getppid "kernel_getppid"() nogil
    void pyweb_forget_libc() nogil
    int pyweb_first_signal
    int pyweb_end_signal
    int pyweb_is_ended() nogil
    int pyweb_read_whole(int file, char *body, size_t count, long long offset) nogil
    long long pyweb_send_both(int sock, const void *header, size_t header_size, const void *body,
                              size_t body_size, int is_last) nogil
    long long pyweb_send_before_more(int sock, const void *data, size_t size) nogil
    void pyweb_let_wait(int sock, int bytes) nogil
    void pyweb_let_sending_wait(int sock, long long patience) nogil
    long long pyweb_send_piece(int sock, int file, long long offset, size_t count) nogil
    int pyweb_unsent(int sock) nogil
    int pyweb_has_signal() nogil
    long long pyweb_write(int file, int is_socket, const void *data, size_t size) nogil
    void pyweb_wish(int way, const void *head, size_t size) nogil
    void pyweb_render_times(Times *times, long long second) nogil
    void pyweb_ask_offset(Times *times, long long second) nogil
    void pyweb_set_offset(Times *times, long long offset) nogil
    int pyweb_wait_for_room(int sock, long long until) nogil
    Py_ssize_t pyweb_send_some(int sock, const void *data, size_t size) nogil
    void pyweb_discard(int sock, int silence) nogil
    int pyweb_park "kernel_send_descriptor"(int way, int sock, void *data, size_t size) nogil
    int shutdown "kernel_shutdown"(int sock, int how) nogil
    int close "kernel_close"(int file) nogil

# The words of a slot and of a record, by the numbers that scoreboard.py and stamps.py give them.
cdef int STATE = scoreboard.STATE
cdef int REQUESTS = scoreboard.REQUESTS
cdef int BYTES = scoreboard.BYTES
cdef int REASON = scoreboard.REASON
cdef int REPEATED = scoreboard.REPEATED
cdef int LOST_LINES = scoreboard.LOST_LINES
cdef int SENT = scoreboard.SENT
cdef int ACTIVE_MS = scoreboard.ACTIVE_MS
cdef int FREE = scoreboard.FREE
cdef int READING = scoreboard.READING
cdef int ANSWERING = scoreboard.ANSWERING
cdef int IDLE = scoreboard.IDLE
cdef int TEXT_AT = scoreboard.TEXT_AT
cdef int TEXT = scoreboard.TEXT
cdef int NUMBER = stamps.NUMBER
cdef int FIRST_BYTE = stamps.FIRST_BYTE
cdef int PARSED = stamps.PARSED
cdef int OPENED = stamps.OPENED
cdef int DECIDED = stamps.DECIDED
cdef int HEADER_SENT = stamps.HEADER_SENT
cdef int BODY_SENT = stamps.BODY_SENT
cdef int LOGGED = stamps.LOGGED
cdef int EXIT = stamps.EXIT
CHILD_STAMP = stamps.CHILD
# What stands in the holes of a kind's header.
cdef int DATE = kinds.DATE
cdef int LENGTH = kinds.LENGTH
cdef int SIZE = kinds.SIZE
cdef int MTIME = kinds.MTIME
cdef int MODIFIED = kinds.MODIFIED
# What a ledger's word says, by state; and as ledger.py counts requests in it.
cdef unsigned int MARKS[16]
cdef unsigned int SENDING = ledger.SENDING
cdef unsigned int ONE_SERVED = ledger.ONE_SERVED
for _state, _mark in enumerate(ledger.MARKS):
    MARKS[_state] = _mark

cdef enum:
    RARELY = 63 << 10   # of a clock in ns, for one in 64
    SELDOM = 255 << 10
    LONGEST_HOLE = 30   # with the NUL behind a date
    SHRANK = -2

# Of the children that are forked here; who serves beside other threads has its own.
cdef Times TIMES
TIMES.second = TIMES.offset_of = -1
pyweb_page = mmap.PAGESIZE
pyweb_first_signal = getattr(signal, "SIGRTMIN", 1)
pyweb_end_signal = getattr(signal, "SIGRTMIN", signal.SIGUSR1)


cdef void mark(long long *record, int word) noexcept nogil:
    if record:
        record[word] = pyweb_clock(CLOCK_MONOTONIC)


cdef void say(long long *slot, const unsigned char *text, Py_ssize_t size) noexcept nogil:
    """As Slot.say."""
    cdef unsigned char *place = <unsigned char *>slot + TEXT_AT
    if size > TEXT - 1:
        size = TEXT - 1
    place[0] = <unsigned char>size
    memcpy(place + 1, text, size)


cdef void keep_time(Times *times) noexcept nogil:
    pyweb_ask_offset(times, pyweb_clock(CLOCK_REALTIME) // 1000000000)


cdef void forget_libc() noexcept nogil:
    pyweb_forget_libc()


cdef void give_times(Times *to) noexcept nogil:
    to[0] = TIMES


cdef void use_times(const Times *given) noexcept nogil:
    global TIMES
    TIMES = given[0]


cdef void tell(Exchange *x, int state) noexcept nogil:
    """As Slot.set(STATE), or, where many share a slot, as Seat.set."""
    if x.mark:
        x.mark[0] = x.served | MARKS[state]
    else:
        x.slot[STATE] = state


# Looking.

cdef int is_field(const Exchange *x, int i, const char *name) noexcept nogil:
    cdef Span span = x.head.fields[i].name
    cdef Py_ssize_t n
    cdef unsigned char octet
    if span.end - span.start != <Py_ssize_t>strlen(name):
        return 0
    for n in range(span.end - span.start):
        octet = x.data[span.start + n]
        if (octet | 32 if 65 <= octet <= 90 else octet) != <unsigned char>name[n]:
            return 0
    return 1


cdef int find_logged(Exchange *x) noexcept nogil:
    """The fields that the log shows. 0: one comes twice, and would have to be joined."""
    cdef int i
    x.referer = x.user_agent = -1
    for i in range(x.head.count):
        if is_field(x, i, b"referer"):
            if x.referer >= 0:
                return 0
            x.referer = i
        elif is_field(x, i, b"user-agent"):
            if x.user_agent >= 0:
                return 0
            x.user_agent = i
    return 1


cdef int look_up(Exchange *x) noexcept nogil:
    """Is there a decision for what has come, or for its kind?"""
    x.head_size = <int>scan_head(x.data, x.size, &x.ground.limits, &x.head)
    if x.head_size <= 0 or x.head.major != 1:
        return 0
    if not make_key(x.data, &x.head, &x.ground.names, &x.key) or not find_logged(x):
        return 0
    x.is_kind = 0
    x.place = find(&x.ground.table, &x.key, &x.entry)
    return (x.place != NULL and is_good(x)) or look_up_kind(x)


cdef int is_good(Exchange *x) noexcept nogil:
    """Is it young enough?"""
    cdef long long age
    age = x.began - x.entry.decided
    x.is_old = age >= x.ground.good
    if x.is_old and not x.entry.lasts:
        return 0
    # Of those that last only some are wished anew: those that are asked for often come to be, and
    # the others cost a look at their directories, and not a decision each time.
    if age >= x.ground.fresh and not (x.entry.lasts and x.began & RARELY):
        pyweb_wish(x.ground.wishes, x.data, x.head_size)
    return x.entry.header_size <= MAX_HEADER


cdef int look_up_kind(Exchange *x) noexcept nogil:
    """However old it is: what it says of a file is looked up each time, and all else that it
    depends on, the options, is the same as long as this memory is."""
    x.is_kind, x.is_old = 1, 0
    if not make_kind_key(x.data, &x.head, &x.ground.names, &x.key, &x.name):
        return 0
    x.place = find(&x.ground.table, &x.key, &x.entry)
    if x.place == NULL:
        return 0
    # A file that is often asked for comes to have a decision of its own, with its content.
    if not x.began & SELDOM:
        pyweb_wish(x.ground.wishes, x.data, x.head_size)
    return x.entry.header_size <= MAX_HEADER - MAX_HOLES * LONGEST_HOLE


cdef int is_of_its_kind(Exchange *x) noexcept nogil:
    """Its own decision is not true any more. What its kind's says may be."""
    if x.is_kind:
        return 0
    if x.file >= 0:
        close(x.file)
        x.file = -1
    pyweb_wish(x.ground.wishes, x.data, x.head_size)
    return look_up_kind(x) and is_still_so(x)


# The inode and its times say which file it is, and so of which kind.
cdef int is_same(const Guard *guard, const Identity *found) noexcept nogil:
    return (guard.inode == found.inode and guard.device == found.device
            and guard.size == found.size and guard.modified == found.modified
            and guard.changed == found.changed)


cdef int path_is_same(const Exchange *x, int i) noexcept nogil:
    """A young decision has just gone its way below the root; an old one has to go it again."""
    cdef Identity found
    cdef int done
    cdef const char *path = <const char *>x.entry.data + x.entry.guard[i].path
    if x.is_old:
        done = pyweb_identify_beneath(x.ground.root, path, x.ground.path_flags,
                                      x.ground.resolve, &found)
    else:
        done = pyweb_identify_path(x.ground.root, path, &found)
    return done and is_same(&x.entry.guard[i], &found)


cdef int open_file(Exchange *x) noexcept nogil:
    cdef Identity found
    cdef const char *path = <const char *>x.entry.data + x.entry.guard[0].path
    x.file = pyweb_open(x.ground.root, path, x.ground.flags, x.ground.resolve)
    return (x.file >= 0 and pyweb_identify_file(x.file, &found)
            and is_same(&x.entry.guard[0], &found))


cdef int is_still_so(Exchange *x) noexcept nogil:
    """Every file that the decision has found is still what it was; the one to be sent is open,
    unless its content is known. Of an old decision also the directories, and its content is not
    believed: who writes to a mapping may leave the times as they are for a while."""
    cdef int i
    if x.is_kind:
        return open_one_of_kind(x)
    if x.is_old:
        x.entry.has_body = 0
    if x.entry.count and not x.entry.has_body:
        if not open_file(x):
            return 0
    elif not path_is_same(x, 0):
        return 0
    for i in range(1, x.entry.guards):
        if x.entry.guard[i].is_directory and not x.is_old:
            continue
        if not path_is_same(x, i):
            return 0
    return 1


# One of a kind. Guards of a kind are none: the first one's path is the directory, the others' are
# the ends of neighbours. What is found of the file comes into the first one's numbers.

cdef const char *join(Exchange *x, const char *directory, const char *end) noexcept nogil:
    """The path of the file, with something before and behind its name; until the next is made, or
    anything is taken from the socket. NULL: it is too long."""
    cdef size_t before = strlen(directory)
    cdef size_t name = x.name.end - x.name.start
    cdef size_t behind = strlen(end)
    if before + name + behind >= sizeof(x.taken):
        return NULL
    memcpy(x.taken, directory, before)
    memcpy(x.taken + before, x.data + x.name.start, name)
    memcpy(x.taken + before + name, end, behind)
    x.taken[before + name + behind] = 0
    return <const char *>x.taken


cdef inline const char *path_in(const Exchange *x, int guard) noexcept nogil:
    return <const char *>x.entry.data + x.entry.guard[guard].path


cdef int is_alone(Exchange *x, int directory) noexcept nogil:
    """It is there, and nothing beside it that would be chosen instead. To look is not to open,
    which would wake a FIFO's writer. What is a link, to anywhere, is Python's."""
    cdef int i
    cdef const char *name = join(x, b"", b"")
    if name == NULL or not pyweb_is_regular_there(directory, name):
        return 0
    for i in range(1, x.entry.guards):
        name = join(x, b"", path_in(x, i))
        if name == NULL or not pyweb_is_absent(directory, name):
            return 0
    return 1


cdef int is_alone_there(Exchange *x) noexcept nogil:
    cdef const char *path = path_in(x, 0)
    cdef int directory, result
    if not path[0]:
        return is_alone(x, x.ground.root)
    directory = pyweb_open(x.ground.root, path, x.ground.path_flags, x.ground.resolve)
    if directory < 0:
        return 0
    result = is_alone(x, directory)
    close(directory)
    return result


cdef int open_regular(Exchange *x, Identity *found) noexcept nogil:
    """Looked at again, because names change."""
    cdef const char *path = join(x, path_in(x, 0), b"")
    if path == NULL:
        return 0
    x.file = pyweb_open(x.ground.root, path, x.ground.flags, x.ground.resolve)
    return x.file >= 0 and pyweb_identify_regular(x.file, found)


cdef int open_one_of_kind(Exchange *x) noexcept nogil:
    """It is there, and as the kind is. From the future: Last-Modified would follow the clock."""
    cdef Identity found
    if not is_alone_there(x) or not open_regular(x, &found):
        return 0
    if found.modified > pyweb_clock(CLOCK_REALTIME):
        return 0
    x.entry.offset = x.entry.has_body = 0
    x.entry.count = found.size if x.entry.count else 0
    x.entry.guard[0].size, x.entry.guard[0].modified = found.size, found.modified
    return 1


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
        pyweb_render_date(<char *>to, file.modified // 1000000000)
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
        pyweb_render_times(x.times, pyweb_clock(CLOCK_REALTIME) // 1000000000)
        fill_header(x)
        return
    memcpy(x.header, x.entry.data + x.entry.header_at, x.entry.header_size)
    pyweb_render_times(x.times, pyweb_clock(CLOCK_REALTIME) // 1000000000)
    if x.entry.date_at >= 0:
        memcpy(x.header + x.entry.date_at, x.times.date, 29)


# Answering.

cdef int whole_size(const Exchange *x) noexcept nogil:
    return x.entry.header_size + <int>x.entry.count


cdef void begin(Exchange *x) noexcept nogil:
    """From here on the answer is certain: the head is taken, and the client is owed it."""
    cdef int left = 0 if x.is_taken else x.head_size
    while left > 0:
        pyweb_take(x.sock, x.taken, min(left, <int>sizeof(x.taken)))
        left -= <int>sizeof(x.taken)
    say(x.slot, x.data + x.head.method.start, x.head.target.end - x.head.method.start)
    x.slot[SENT] = 1
    if x.mark:
        begin_among_many(x)
    else:
        x.slot[STATE] = ANSWERING


cdef void begin_among_many(Exchange *x) noexcept nogil:
    """As Seat: what is said first, the mark last."""
    cdef Py_ssize_t size = min(x.head.target.end - x.head.method.start, x.note_size - 1)
    memcpy(x.note, x.data + x.head.method.start, size)
    x.note[size] = 0
    x.served += ONE_SERVED
    x.mark[0] = x.served | SENDING


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
    cdef long long until = pyweb_clock(CLOCK_MONOTONIC) + x.ground.timeout_write
    cdef long long of_body
    cdef Py_ssize_t sent
    while x.sent < end:
        if not pyweb_wait_for_room(x.sock, until):
            return x.ground.write_timeout
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
    x.sent = pyweb_send_before_more(x.sock, x.header, x.entry.header_size)
    if x.mark:
        # Others must not wait for this one.
        return AGAIN if send_on(x, PIECE) > 0 and is_sent(x) else OWED
    if x.sent == x.entry.header_size and send_in_peace(x):
        return AGAIN
    let_little_wait(x)
    if not x.alone:
        return OWED
    pyweb_let_sending_wait(x.sock, WHILE)
    x.reason = send_header_rest(x)
    if x.reason == x.entry.reason:
        x.reason = send_by_deadline(x)
    return AGAIN


cdef int send_in_peace(Exchange *x) noexcept nogil:
    """0: its client is slow, and has to be judged."""
    let_much_wait(x.sock)
    pyweb_let_sending_wait(x.sock, WHILE)
    while not is_sent(x):
        if not send_for_a_while(x):
            return 0
    let_little_wait(x)
    return 1


cdef int send_by_deadline(Exchange *x) noexcept nogil:
    """As Connection with clock.Deadline, where there is no Python. The reason for the log. Sending
    waits by itself, for WHILE."""
    cdef long long now = pyweb_clock(CLOCK_MONOTONIC)
    cdef long long until = now + x.ground.timeout_write
    cdef long long before
    cdef int done
    while not is_sent(x):
        before = x.sent
        done = send_on(x, STEP)
        if done < 0:
            return x.ground.file_shrank if done == SHRANK else x.ground.client_reset
        if pyweb_is_ended():
            return x.ground.ended
        now = pyweb_clock(CLOCK_MONOTONIC)
        if done and not x.ground.time_of_byte:
            until = now + x.ground.timeout_write
        until = min(now + x.ground.timeout_write,
                    until + (x.sent - before) * x.ground.time_of_byte)
        if now >= until and not is_sent(x):
            return x.ground.write_timeout
        x.slot[SENT] = x.sent
    return x.entry.reason


cdef void let_much_wait(int sock) noexcept nogil:
    pyweb_let_wait(sock, 0x7fffffff)


cdef void let_little_wait(const Exchange *x) noexcept nogil:
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
    cdef long long until = pyweb_clock(CLOCK_MONOTONIC) + WHILE
    while not is_sent(x) and pyweb_clock(CLOCK_MONOTONIC) < until:
        if pyweb_has_signal() or send_on(x, STEP) <= 0:
            return 0
        x.slot[SENT] = x.sent
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
    if x.entry.count > PYWEB_SMALL_BODY:
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
    count_up(x)
    return AGAIN if x.entry.keeps and x.reason == x.entry.reason else DONE


cdef int has_unread(const Exchange *x) noexcept nogil:
    cdef char one
    return pyweb_peek(x.sock, &one, 1) > 0


cdef void count_up(Exchange *x) noexcept nogil:
    """As Connection._log."""
    x.slot[REQUESTS] += 1
    x.slot[REPEATED] += 1
    x.slot[BYTES] += max(0, x.sent - x.entry.header_size)
    x.slot[REASON] = x.reason
    x.slot[ACTIVE_MS] = pyweb_clock(CLOCK_REALTIME) // 1000000
    x.slot[SENT] = 0
    say(x.slot, b"", 0)


# The log.

cdef void put(Line *line, const void *text, Py_ssize_t size) noexcept nogil:
    if size > 4096 - line.size:
        line.full = 1
        return
    memcpy(line.text + line.size, text, size)
    line.size += <int>size


cdef void put_escaped(Line *line, const Escapes *escapes, const unsigned char *text,
                      Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        put(line, escapes.text[text[i]], escapes.sizes[text[i]])


cdef void put_field(Line *line, const Exchange *x, int i) noexcept nogil:
    cdef Span value
    put(line, b' "', 2)
    if i >= 0:
        value = x.head.fields[i].value
    if i < 0 or value.start == value.end:
        put(line, b"-", 1)
    else:
        put_escaped(line, &x.ground.escapes, x.data + value.start, value.end - value.start)
    put(line, b'"', 1)


cdef void put_number(Line *line, long long value, int digits) noexcept nogil:
    """At least so many digits."""
    cdef char text[24]
    cdef int at = 24
    while value > 0 or digits > 0:
        at -= 1
        text[at] = <char>(48 + value % 10)
        value //= 10
        digits -= 1
    put(line, text + at, 24 - at)


cdef void render_line(const Exchange *x, Line *line, long long size) noexcept nogil:
    """accesslog.combined_line, held against it by a test."""
    line.size = line.full = 0
    if x.ground.log < 0:
        return
    put(line, b"\n", 1)   # to be left out, unless it comes behind half a line
    put(line, x.peer.text, x.peer.size)
    put(line, b" - - ", 5)
    put(line, x.times.log_time, strlen(x.times.log_time))
    put(line, b' "', 2)
    put_escaped(line, &x.ground.escapes, x.data + x.head.method.start,
                x.head.target.end - x.head.method.start)
    put(line, b" HTTP/1.1" if x.head.minor else b" HTTP/1.0", 9)
    put(line, b'" ', 2)
    put_number(line, x.entry.status, 3)
    put(line, b" ", 1)
    put_number(line, size, 1)
    put_field(line, x, x.referer)
    put_field(line, x, x.user_agent)
    put(line, b" ", 1)
    put_number(line, x.reason, 1)
    put(line, b"\n", 1)
    if line.size > 4080:
        line.full = 1   # another reason may be longer


cdef void write_line(Exchange *x, const Line *line) noexcept nogil:
    cdef long long written
    cdef int skipped
    if x.ground.log < 0:
        return
    skipped = 0 if x.torn else 1
    written = pyweb_write(x.ground.log, x.ground.log_is_socket, line.text + skipped,
                          line.size - skipped)
    if written != line.size - skipped:
        x.slot[LOST_LINES] += 1
    x.torn = 0 < written < line.size - skipped
    mark(x.record, LOGGED)


# The conversation.

cdef int exchange(Exchange *x) noexcept nogil:
    """One request. MISS: nothing of it has been taken."""
    cdef int verdict
    x.began = pyweb_clock(CLOCK_MONOTONIC)
    mark(x.record, FIRST_BYTE)
    x.file = -1
    x.sent = 0
    if not look_up(x):
        return MISS
    mark(x.record, PARSED)
    tell(x, READING)
    verdict = MISS
    if is_still_so(x) or is_of_its_kind(x):
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


cdef int end(const Exchange *x, long long *record) noexcept nogil:
    """As Connection.serve: somebody may hold a copy of the socket. What has come beyond the last
    request would take the answer with it (connection.py, lingering)."""
    x.slot[STATE] = FREE
    shutdown(x.sock, SHUT_WR)
    if has_unread(x):
        pyweb_discard(x.sock, x.ground.silence)
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


cdef void await_request(const Exchange *x, long long requests, News *news) noexcept nogil:
    """For a moment; where nobody takes those that idle, on for as long as they may."""
    cdef int signals
    cdef long long left, until
    cdef int unsent = pyweb_unsent(x.sock) if x.was_large else 0
    pyweb_wait(x.sock, x.ground.lifeline, -1, x.ground.linger, news)
    if x.ground.parker >= 0:
        await_its_end(x, unsent, news)
        return
    if not goes_on_waiting(x, news):
        return
    left = (x.ground.idle if requests else x.ground.first) - x.ground.linger * 1_000_000LL
    until = pyweb_clock(CLOCK_MONOTONIC) + left
    pyweb_give_back(x.body, PYWEB_SMALL_BODY)
    pyweb_give_back(<void *>x.taken, <const char *>x + sizeof(Exchange) - <const char *>x.taken)
    signals = pyweb_open_signals()
    while signals >= 0 and left > 0 and goes_on_waiting(x, news):
        left = until - pyweb_clock(CLOCK_MONOTONIC)
        pyweb_wait(x.sock, x.ground.lifeline, signals,
                   <int>min(max(0, left) // 1000000 + 1, 1 << 30), news)
    if signals >= 0:
        close(signals)


cdef void await_its_end(const Exchange *x, int unsent, News *news) noexcept nogil:
    """Megabytes may still stand in the socket: who takes them, and is well, does not idle yet."""
    cdef int before
    while unsent and goes_on_waiting(x, news):
        before, unsent = unsent, pyweb_unsent(x.sock)
        if before - unsent < WELL * (x.ground.linger * 1_000_000LL) // WHILE:
            return
        pyweb_wait(x.sock, x.ground.lifeline, -1, x.ground.linger, news)


cdef int goes_on_waiting(const Exchange *x, const News *news) noexcept nogil:
    """That another serves now is no news for one who idles: it ends with its next answer."""
    return not (news.speaks or news.signalled or news.hung_up or (news.said and not x.alone))


cdef int serve(const Ground *ground, int sock, const Peer *peer, long long *slot,
               long long *record, Rest *rest, int alone) noexcept nogil:
    cdef Exchange x
    cdef News news
    cdef unsigned char body[32768]
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


if PYWEB_SMALL_BODY != _pysend.SMALL:
    raise ImportError("pyweb: _fastserve.pyx and _pysend.py draw the line of SMALL differently")


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
    parker     where idle connections are parked, -1: nowhere; parked: the message, before the
               peer's name; at `parked_requests` in it stands how many requests there were
    """

    def __cinit__(self, Cache cache not None, slots, records, *, int root, int log,
                  bint log_is_socket, int lifeline, int wishes, double fresh, double good,
                  double linger, double first, double idle, int keepalive_requests,
                  unsigned long long flags,
                  unsigned long long path_flags, unsigned long long resolve, escapes,
                  double silence, double timeout_write, int min_rate, int not_sent,
                  reasons, int parker, bytes parked not None, int parked_requests):
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
        if not 0 <= slot_at <= self.slots.len - TEXT_AT - TEXT:
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


def times(long long second, long long offset):
    """For the tests alone: the date and the log's time of a second, where local time is `offset`
    seconds ahead."""
    cdef Times times
    pyweb_set_offset(&times, offset)
    pyweb_render_times(&times, second)
    return bytes(times.date), bytes(times.log_time)
