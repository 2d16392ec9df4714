# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The line of the log for an answer that C has given.

What lives here: accesslog.combined_line, held against it by a test, and one write for each line.
What must never: a wait for the log. A line that has no room, or does not leave, is told of.
"""

from libc.string cimport memcpy, strlen

from pyweb._fastexchange cimport LOGGED, LOST_LINES, Escapes, Exchange, Line, mark
from pyweb._fastparse cimport Span

cdef extern from *:
    """
    #include "kernel.h"

    static long long pyweb_write(int file, int is_socket, const void *data, size_t size) {
        return is_socket ? kernel_send(file, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                         : kernel_write(file, data, size);
    }
    """
    long long pyweb_write(int file, int is_socket, const void *data, size_t size) nogil


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
