# The log's line: see _fastlog.pyx.

from pyweb._fastexchange cimport Exchange, Line

# Of an answer whose body is so long. line.full: it has no room.
cdef void render_line(const Exchange *x, Line *line, long long size) noexcept nogil
cdef void write_line(Exchange *x, const Line *line) noexcept nogil
