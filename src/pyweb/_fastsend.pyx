# cython: language_level=3
"""A header and a slice of a file into a non-blocking socket, in C; the twin of `_pysend`.

What lives here: send, sendfile and pread, each taken as far as the socket takes it, without the
GIL. What must never: waiting, deadlines, the meaning of what is sent. transport.py comes again
when the socket has room.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno

from pyweb.errors import Disconnected, Reason
from pyweb import _pysend

cdef extern from *:
    """
    #include <errno.h>
    #include <stddef.h>
    #include <string.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sys/sendfile.h>
    #endif
    #ifndef MSG_MORE
    #define MSG_MORE 0
    #endif
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0   /* CPython ignores SIGPIPE */
    #endif

    #define PYWEB_SMALL 32768
    #define PYWEB_SHRANK (-2)

    /* Each gives the bytes that the socket took, 0 when it is full, -1 with errno. */

    static ssize_t pyweb_full_is_zero(ssize_t sent) {
        return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : sent;
    }

    static ssize_t pyweb_send(int sock, const char *data, size_t size, int more) {
        ssize_t sent;
        do sent = send(sock, data, size, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
        while (sent < 0 && errno == EINTR);
        return pyweb_full_is_zero(sent);
    }

    static ssize_t pyweb_send_two(int sock, const char *head, size_t head_size,
                                  const char *body, size_t body_size) {
        struct iovec parts[2] = {{(void *)head, head_size}, {(void *)body, body_size}};
        struct msghdr message;
        ssize_t sent;
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        do sent = sendmsg(sock, &message, MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        return pyweb_full_is_zero(sent);
    }

    /* PYWEB_SHRANK: the file ends before the slice. */
    static ssize_t pyweb_read(int file, char *body, size_t count, off_t offset) {
        size_t done = 0;
        while (done < count) {
            ssize_t got = pread(file, body + done, count - done, offset + (off_t)done);
            if (got == 0)
                return PYWEB_SHRANK;
            if (got > 0)
                done += (size_t)got;
            else if (errno != EINTR)
                return -1;
        }
        return (ssize_t)done;
    }

    static ssize_t pyweb_copy(int sock, int file, off_t offset, size_t count) {
        char body[PYWEB_SMALL];
        ssize_t got = pyweb_read(file, body, count < sizeof body ? count : sizeof body, offset);
        return got < 0 ? got : pyweb_send(sock, body, (size_t)got, 0);
    }

    static ssize_t pyweb_sendfile(int sock, int file, off_t offset, size_t count) {
    #if defined(__linux__)
        ssize_t sent;
        do sent = sendfile(sock, file, &offset, count < 0x7ffff000 ? count : 0x7ffff000);
        while (sent < 0 && errno == EINTR);
        if (sent == 0)
            return PYWEB_SHRANK;
        if (sent > 0 || (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP))
            return pyweb_full_is_zero(sent);
    #endif
        return pyweb_copy(sock, file, offset, count);
    }

    static ssize_t pyweb_small(int sock, const char *head, size_t head_size, int file,
                               off_t offset, size_t count, size_t done) {
        char body[PYWEB_SMALL];
        ssize_t got = pyweb_read(file, body, count, offset);
        if (got < 0)
            return got;
        if (done < head_size)
            return pyweb_send_two(sock, head + done, head_size - done, body, count);
        return pyweb_send(sock, body + (done - head_size), count - (done - head_size), 0);
    }

    /* From the `done`th byte of header and slice on, as far as it goes. */
    static ssize_t pyweb_push(int sock, const char *head, size_t head_size, int file,
                              off_t offset, size_t count, size_t done, size_t *moved) {
        ssize_t sent;
        *moved = 0;
        if (count <= PYWEB_SMALL) {
            sent = pyweb_small(sock, head, head_size, file, offset, count, done);
            *moved = sent > 0 ? (size_t)sent : 0;
            return sent;
        }
        while (done + *moved < head_size + count) {
            size_t at = done + *moved;
            sent = at < head_size
                ? pyweb_send(sock, head + at, head_size - at, 1)
                : pyweb_sendfile(sock, file, offset + (off_t)(at - head_size),
                                 head_size + count - at);
            if (sent <= 0)
                return sent;
            *moved += (size_t)sent;
        }
        return 1;
    }
    """
    const int PYWEB_SMALL
    const int PYWEB_SHRANK
    ssize_t pyweb_send(int sock, const char *data, size_t size, int more) nogil
    ssize_t pyweb_push(int sock, const char *head, size_t head_size, int file, long long offset,
                       size_t count, size_t done, size_t *moved) nogil

if PYWEB_SMALL != _pysend.SMALL:
    raise ImportError("pyweb: _fastsend.pyx and _pysend.py draw the line of SMALL differently")


def push_bytes(sock, bytes data not None, size_t done):
    """See _pysend.push_bytes."""
    cdef int fd = sock.fileno()
    cdef const char *raw = PyBytes_AS_STRING(data)
    cdef size_t size = PyBytes_GET_SIZE(data)
    cdef ssize_t sent
    with nogil:
        sent = pyweb_send(fd, raw + done, size - done, 0)
    if sent < 0:
        PyErr_SetFromErrno(OSError)
    return done + sent


def push_file(sock, bytes header not None, int file, long long offset, size_t count,
              size_t done):
    """See _pysend.push_file."""
    cdef int fd = sock.fileno()
    cdef const char *raw = PyBytes_AS_STRING(header)
    cdef size_t size = PyBytes_GET_SIZE(header)
    cdef size_t moved
    cdef ssize_t verdict
    with nogil:
        verdict = pyweb_push(fd, raw, size, file, offset, count, done, &moved)
    if verdict < 0 and moved == 0:   # else the bytes that left are told first, the error next time
        if verdict == PYWEB_SHRANK:
            raise Disconnected(Reason.FILE_SHRANK)
        PyErr_SetFromErrno(OSError)
    return done + moved
