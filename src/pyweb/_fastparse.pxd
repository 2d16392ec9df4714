# One request head, in C. Declarations only: offsets, never copies; no object, no heap, no policy.

cdef enum:
    # The numbers of errors.Reason (test_parsers_agree.py holds them against each other).
    BAD_METHOD = 20
    BAD_TARGET = 21
    BAD_VERSION = 22
    BAD_FIELD_NAME = 23
    BAD_FIELD_VALUE = 24
    OBS_FOLD = 25
    BARE_CR = 26
    BARE_LF = 27
    LINE_TOO_LONG = 28
    HEAD_TOO_LARGE = 29
    TOO_MANY_FIELDS = 30

cdef enum:
    # How many field lines a Head has room for; config.py lets --limit-fields go up to this.
    MAX_FIELDS = 1000

ctypedef struct Span:
    Py_ssize_t start
    Py_ssize_t end

ctypedef struct Field:
    Span name
    Span value

ctypedef struct Head:
    Py_ssize_t error_at     # where a bad head is bad
    Span method
    Span target
    int major
    int minor
    int count               # of fields
    Field fields[MAX_FIELDS]

ctypedef struct Limits:
    Py_ssize_t line
    Py_ssize_t head
    int fields

# > 0: so many bytes are a head. 0: right so far, need more. < 0: minus a flaw, at head.error_at.
cdef Py_ssize_t scan_head(
    const unsigned char *data, Py_ssize_t size, const Limits *limits, Head *head) noexcept nogil
cdef Py_ssize_t scan_fields(
    const unsigned char *data, Py_ssize_t size, const Limits *limits, Head *head) noexcept nogil
