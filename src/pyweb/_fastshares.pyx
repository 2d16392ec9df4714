# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How many connections an address has in a pool, for a worker who accepts in C.

What lives here: the arithmetic of shares.Shares, on the memory of one, held against it by a test.
What must never: a hash of an address, which is Python's and is asked for once, or what is done with
one who has too many.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcmp, memcpy

from pyweb import shares

if shares.TABLES != TABLES:
    raise ImportError("pyweb: _fastshares.pxd and shares.py have different numbers of tables")


cdef int is_same_peer(const Peer *a, const Peer *b) noexcept nogil:
    return a.size == b.size and memcmp(a.text, b.text, a.size) == 0


cdef class Row:
    """A row of shares.Shares, which this worker alone writes.

    counters  of all rows; used: how many rows there are
    places    str -> which of the row's counters, one in each table
    row       this one; row_size: counters in each
    most      that a counter holds
    limit     what the owner of the row allows an address
    """

    def __cinit__(self, counters, used, places, *, int row, int row_size, int most, int limit):
        PyObject_GetBuffer(counters, &self.counters, PyBUF_WRITABLE)
        PyObject_GetBuffer(used, &self.used, PyBUF_WRITABLE)
        self.places_of = places
        self.row, self.row_size, self.most, self.limit = row, row_size, most, limit

    def __dealloc__(self):
        PyBuffer_Release(&self.counters)
        PyBuffer_Release(&self.used)

    cdef Address *place_of(self, const Peer *peer) noexcept nogil:
        cdef unsigned int value = 5381
        cdef int i
        for i in range(peer.size):
            value = value * 33 + peer.text[i]
        return &self.known[value % KNOWN]

    cdef int recall(self, const Peer *peer, int *places) noexcept nogil:
        cdef Address *address = self.place_of(peer)
        if not address.peer.size or not is_same_peer(&address.peer, peer):
            return 0
        memcpy(places, address.places, sizeof(address.places))
        return 1

    cdef int learn(self, const Peer *peer, int *places) except -1:
        cdef Address *address = self.place_of(peer)
        cdef int table
        found = tuple(self.places_of(peer.text[:peer.size].decode()))
        if len(found) != TABLES or not all(0 <= one < self.row_size for one in found):
            raise ValueError("places that are none")
        for table in range(TABLES):
            places[table] = found[table]
        memcpy(address.places, places, sizeof(address.places))
        address.peer = peer[0]
        return 0

    cdef void add(self, const int *places, int more) noexcept nogil:
        cdef unsigned short *row = <unsigned short *>self.counters.buf + (
            <Py_ssize_t>self.row * self.row_size)
        cdef int table
        for table in range(TABLES):
            row[places[table]] = <unsigned short>max(
                0, min(<int>row[places[table]] + more, self.most))

    cdef int of(self, const int *places) noexcept nogil:
        cdef const unsigned short *counters = <const unsigned short *>self.counters.buf
        cdef Py_ssize_t rows = min((<long long *>self.used.buf)[0],
                                   self.counters.len // 2 // self.row_size)
        cdef Py_ssize_t row
        cdef int table, total
        cdef int least = 0x7fffffff
        for table in range(TABLES):
            total = 0
            for row in range(rows):
                total += counters[row * self.row_size + places[table]]
            least = min(least, total)
        return least
