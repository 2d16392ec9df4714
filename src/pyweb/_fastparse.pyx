# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A request head as one pass over its bytes; the compiled twin of `_pyparse`.

What lives here: where the parts of a head begin and end. What must never: what they mean, which
of them are wanted, any object or allocation before the verdict. The scanners go back to no byte,
keep nothing between calls and never read beyond `size`. On need-more the caller comes again with
more bytes and the scan starts over: a head is small, and a state that survives a call is a state
that can be wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.ref cimport Py_INCREF

from pyweb.errors import ParseError
from pyweb import grammar

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Eight octets at a time: how many there are before the first that may not be one of a kind.
       No kind here has an octet that the grammar's has not; what it lacks, `skip` looks at. */
    #define PYWEB_EACH(octet) (UINT64_C(0x0101010101010101) * (octet))
    #define PYWEB_TOPS PYWEB_EACH(0x80)

    static inline uint64_t pyweb_eight(const unsigned char *at) {
        uint64_t word;
        memcpy(&word, at, 8);
        return word;
    }

    /* Of octets below 0x80: the top bit of each that is at least so. */
    static inline uint64_t pyweb_from(uint64_t word, unsigned octet) {
        return word + PYWEB_EACH(0x80 - octet);
    }

    static inline uint64_t pyweb_between(uint64_t word, unsigned first, unsigned last) {
        return pyweb_from(word, first) & ~pyweb_from(word, last + 1);
    }

    /* The top bit is set of each octet that stops. */
    static inline int pyweb_before(uint64_t stops) {
        stops &= PYWEB_TOPS;
        if (!stops)
            return 8;
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return __builtin_ctzll(stops) / 8;
    #else
        return __builtin_clzll(stops) / 8;
    #endif
    }

    /* ALPHA, DIGIT and "-", of which names are. */
    static inline int pyweb_of_name(const unsigned char *at) {
        uint64_t word = pyweb_eight(at), low = word & ~PYWEB_TOPS;
        uint64_t good = pyweb_between(low | PYWEB_EACH(0x20), 'a', 'z')
                        | pyweb_between(low, '0', '9') | pyweb_between(low, '-', '-');
        return pyweb_before(word | ~good);
    }

    /* From "$" to "~". */
    static inline int pyweb_of_target(const unsigned char *at) {
        uint64_t word = pyweb_eight(at);
        return pyweb_before(word | ~pyweb_between(word & ~PYWEB_TOPS, '$', '~'));
    }

    /* All from SP but DEL, which may stand in a field's value. */
    static inline int pyweb_of_value(const unsigned char *at) {
        uint64_t word = pyweb_eight(at), low = word & ~PYWEB_TOPS;
        return pyweb_before(~word & ~pyweb_between(low, ' ', '~'));
    }
    """
    int pyweb_of_name(const unsigned char *at) nogil
    int pyweb_of_target(const unsigned char *at) nogil
    int pyweb_of_value(const unsigned char *at) nogil

cdef enum:
    CR = 13
    LF = 10
    SP = 32
    HTAB = 9
    # As grammar.py has them; known to the compiler.
    IN_TOKEN = 1
    IN_TARGET = 2
    IN_FIELD = 4
    # Of names that are remembered: how many, and how long at most.
    PLACES = 128
    LONGEST_NAME = 32

cdef unsigned char CLASSES[256]
for _octet in range(256):
    CLASSES[_octet] = grammar.CLASSES[_octet]

cdef const unsigned char *VERSION = b"HTTP/0.0"   # a 0 stands for a digit


cdef inline Py_ssize_t bad(Head *head, int flaw, Py_ssize_t offset) noexcept nogil:
    head.error_at = offset
    return -flaw


cdef inline int before_other(const unsigned char *at, unsigned char kind) noexcept nogil:
    if kind == IN_TOKEN:
        return pyweb_of_name(at)
    if kind == IN_TARGET:
        return pyweb_of_target(at)
    return pyweb_of_value(at)


cdef inline Py_ssize_t skip(
        const unsigned char *data, Py_ssize_t size, Py_ssize_t pos,
        unsigned char kind) noexcept nogil:
    cdef int good
    while True:
        good = 8
        while good == 8 and pos + 8 <= size:
            good = before_other(data + pos, kind)
            pos += good
        if pos >= size or not CLASSES[data[pos]] & kind:
            return pos
        pos += 1


cdef inline Py_ssize_t line_end(
        const unsigned char *data, Py_ssize_t size, Py_ssize_t pos,
        int flaw, Head *head) noexcept nogil:
    """Past CRLF; 0: need more; < 0: no line's end here."""
    if pos >= size:
        return 0
    if data[pos] == LF:
        return bad(head, BARE_LF, pos)
    if data[pos] != CR:
        return bad(head, flaw, pos)
    if pos + 1 >= size:
        return 0
    if data[pos + 1] != LF:
        return bad(head, BARE_CR, pos)
    return pos + 2


cdef Py_ssize_t request_line(
        const unsigned char *data, Py_ssize_t size, Py_ssize_t pos, Head *head) noexcept nogil:
    """request-line = method SP request-target SP HTTP-version CRLF  (RFC 9112 3)"""
    cdef int i
    cdef unsigned char octet
    head.method.start = pos
    pos = skip(data, size, pos, IN_TOKEN)
    if pos >= size:
        return 0
    if pos == head.method.start or data[pos] != SP:
        return bad(head, BAD_METHOD, pos)
    head.method.end = pos
    pos += 1
    head.target.start = pos
    pos = skip(data, size, pos, IN_TARGET)
    if pos >= size:
        return 0
    if pos == head.target.start or data[pos] != SP:
        return bad(head, BAD_TARGET, pos)
    head.target.end = pos
    pos += 1
    for i in range(8):
        if pos >= size:
            return 0
        octet = data[pos]
        if not (48 <= octet <= 57 if VERSION[i] == 48 else octet == VERSION[i]):
            return bad(head, BAD_VERSION, pos)
        pos += 1
    head.major = data[pos - 3] - 48
    head.minor = data[pos - 1] - 48
    return line_end(data, size, pos, BAD_VERSION, head)


cdef Py_ssize_t field_lines(
        const unsigned char *data, Py_ssize_t size, Py_ssize_t pos, int limit,
        Head *head) noexcept nogil:
    """*( field-name ":" OWS field-value OWS CRLF ) CRLF  (RFC 9112 5)"""
    cdef Py_ssize_t end
    cdef Field *field
    head.count = 0
    while True:
        if pos >= size:
            return 0
        if data[pos] == CR or data[pos] == LF:
            return line_end(data, size, pos, BARE_LF, head)
        if data[pos] == SP or data[pos] == HTAB:
            return bad(head, OBS_FOLD, pos)
        if head.count >= limit:
            return bad(head, TOO_MANY_FIELDS, pos)
        field = &head.fields[head.count]
        field.name.start = pos
        pos = skip(data, size, pos, IN_TOKEN)
        if pos >= size:
            return 0
        if pos == field.name.start or data[pos] != 58:
            return bad(head, BAD_FIELD_NAME, pos)
        field.name.end = pos
        pos += 1
        while pos < size and (data[pos] == SP or data[pos] == HTAB):
            pos += 1
        field.value.start = pos
        pos = end = skip(data, size, pos, IN_FIELD)
        while end > field.value.start and (data[end - 1] == SP or data[end - 1] == HTAB):
            end -= 1
        field.value.end = end
        pos = line_end(data, size, pos, BAD_FIELD_VALUE, head)
        if pos <= 0:
            return pos
        head.count += 1


cdef Py_ssize_t scan_head(
        const unsigned char *data, Py_ssize_t size, const Limits *limits,
        Head *head) noexcept nogil:
    cdef Py_ssize_t window = min(size, limits.head)
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t stop
    cdef Py_ssize_t pos
    if window and (data[0] == CR or data[0] == LF):
        start = line_end(data, window, 0, BARE_LF, head)
        if start < 0:
            return start
        if start == 0:
            return bad(head, HEAD_TOO_LARGE, limits.head) if size > limits.head else 0
    stop = start + limits.line + 2
    pos = request_line(data, min(window, stop), start, head)
    if pos == 0 and window > stop:
        return bad(head, LINE_TOO_LONG, stop)
    if pos > 0:
        pos = field_lines(data, window, pos, min(limits.fields, <int>MAX_FIELDS), head)
    if pos == 0 and size > limits.head:
        return bad(head, HEAD_TOO_LARGE, limits.head)
    return pos


cdef Py_ssize_t scan_fields(
        const unsigned char *data, Py_ssize_t size, const Limits *limits,
        Head *head) noexcept nogil:
    cdef Py_ssize_t pos = field_lines(
        data, min(size, limits.head), 0, min(limits.fields, <int>MAX_FIELDS), head)
    if pos == 0 and size > limits.head:
        return bad(head, HEAD_TOO_LARGE, limits.head)
    return pos


cdef inline bytes cut(const unsigned char *data, Span span):
    return PyBytes_FromStringAndSize(<const char *>data + span.start, span.end - span.start)


if (IN_TOKEN, IN_TARGET, IN_FIELD) != (grammar.IN_TOKEN, grammar.IN_TARGET, grammar.IN_FIELD):
    raise ImportError("pyweb: _fastparse.pyx and grammar.py number the classes differently")


def _check_that_no_word_passes_what_the_grammar_stops():
    cdef unsigned char eight[8]
    cdef unsigned char kind
    cdef int octet, at, i
    for kind in (IN_TOKEN, IN_TARGET, IN_FIELD):
        for octet in range(256):
            for at in range(8):
                for i in range(8):
                    eight[i] = <unsigned char>octet if i >= at else 97
                if before_other(eight, kind) != at and not CLASSES[octet] & kind:
                    raise ImportError("pyweb: _fastparse.pyx and grammar.py have other octets")


_check_that_no_word_passes_what_the_grammar_stops()

# Names of fields as they came, and in lower case: clients send few, and always the same.
cdef list SPELLINGS = [None] * PLACES
cdef list NAMES = [None] * PLACES


cdef inline Py_ssize_t place_of(const unsigned char *name, Py_ssize_t length) noexcept nogil:
    """Names that clients send together should be apart: Sec-Fetch-Site and Sec-Fetch-Mode."""
    return (length * 5 + name[0] * 3 + name[length // 2] * 7 + name[length * 3 // 4] * 11
            + name[length - 1]) % PLACES


cdef bytes name_of(const unsigned char *data, Span span):
    cdef const unsigned char *name = data + span.start
    cdef Py_ssize_t length = span.end - span.start
    cdef Py_ssize_t place
    cdef object known
    cdef bytes lower
    if length > LONGEST_NAME:
        return lowered(data, span)
    place = place_of(name, length)
    known = SPELLINGS[place]
    if (known is None or PyBytes_GET_SIZE(known) != length
            or memcmp(PyBytes_AS_STRING(known), name, length) != 0):
        lower, known = lowered(data, span), cut(data, span)
        NAMES[place], SPELLINGS[place] = lower, known   # both, or none
        return lower
    return <bytes>NAMES[place]


cdef bytes lowered(const unsigned char *data, Span span):
    cdef Py_ssize_t length = span.end - span.start
    cdef bytes name = PyBytes_FromStringAndSize(NULL, length)
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(name)
    cdef unsigned char octet
    cdef Py_ssize_t i
    for i in range(length):
        octet = data[span.start + i]
        out[i] = octet | 32 if 65 <= octet <= 90 else octet
    return name


cdef tuple field_tuple(const unsigned char *data, Head *head):
    cdef tuple fields = PyTuple_New(head.count)
    cdef tuple pair
    cdef int i
    for i in range(head.count):
        pair = (name_of(data, head.fields[i].name), cut(data, head.fields[i].value))
        Py_INCREF(pair)
        PyTuple_SET_ITEM(fields, i, pair)
    return fields


cdef object head_tuple(const unsigned char *data, Py_ssize_t verdict, Head *head):
    if verdict == 0:
        return None
    if verdict < 0:
        raise ParseError(-verdict, head.error_at)
    return (verdict, cut(data, head.method), cut(data, head.target), head.major, head.minor,
            field_tuple(data, head))


def parse_head(bytes data not None, Py_ssize_t limit_line, Py_ssize_t limit_head,
               int limit_fields):
    """See _pyparse.parse_head."""
    cdef Head head
    cdef Limits limits = Limits(limit_line, limit_head, limit_fields)
    cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(data)
    return head_tuple(raw, scan_head(raw, PyBytes_GET_SIZE(data), &limits, &head), &head)


def parse_fields(bytes data not None, Py_ssize_t limit_head, int limit_fields):
    """See _pyparse.parse_fields."""
    cdef Head head
    cdef Limits limits = Limits(0, limit_head, limit_fields)
    cdef const unsigned char *raw = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t verdict = scan_fields(raw, PyBytes_GET_SIZE(data), &limits, &head)
    if verdict == 0:
        return None
    if verdict < 0:
        raise ParseError(-verdict, head.error_at)
    return verdict, field_tuple(raw, &head)


def parse_head_at(size_t address, Py_ssize_t size, Py_ssize_t limit_line, Py_ssize_t limit_head,
                  int limit_fields):
    """For the tests alone: parse memory at an address, so that it can end at a forbidden page."""
    cdef Head head
    cdef Limits limits = Limits(limit_line, limit_head, limit_fields)
    cdef const unsigned char *raw = <const unsigned char *>address
    return head_tuple(raw, scan_head(raw, size, &limits, &head), &head)


def flaws():
    """The numbers of the flaws, by name, for the test that holds them against errors.Reason."""
    return {
        "BAD_METHOD": BAD_METHOD, "BAD_TARGET": BAD_TARGET, "BAD_VERSION": BAD_VERSION,
        "BAD_FIELD_NAME": BAD_FIELD_NAME, "BAD_FIELD_VALUE": BAD_FIELD_VALUE,
        "OBS_FOLD": OBS_FOLD, "BARE_CR": BARE_CR, "BARE_LF": BARE_LF,
        "LINE_TOO_LONG": LINE_TOO_LONG, "HEAD_TOO_LARGE": HEAD_TOO_LARGE,
        "TOO_MANY_FIELDS": TOO_MANY_FIELDS,
    }
