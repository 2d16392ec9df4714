# A worker's row of the shares: see _fastshares.pyx.

from pyweb._fastexchange cimport Peer

cdef enum:
    TABLES = 4        # of shares.py
    KNOWN = 256       # addresses whose places are remembered

# An address, and where it is counted.
ctypedef struct Address:
    Peer peer
    int places[TABLES]


cdef class Row:
    cdef Py_buffer counters
    cdef Py_buffer used
    cdef object places_of
    cdef int row
    cdef int row_size
    cdef int most
    cdef readonly int limit
    cdef Address known[KNOWN]

    cdef Address *place_of(self, const Peer *peer) noexcept nogil
    # 0: Python has to be asked.
    cdef int recall(self, const Peer *peer, int *places) noexcept nogil
    cdef int learn(self, const Peer *peer, int *places) except -1
    cdef void add(self, const int *places, int more) noexcept nogil
    cdef int of(self, const int *places) noexcept nogil
