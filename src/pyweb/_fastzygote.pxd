# Another process that forks: see _fastzygote.pyx.

from pyweb._fastserve cimport Repeater, Turn

cdef extern from *:
    """
    #ifndef PYWEB_SAID
    #define PYWEB_SAID
    /* Of a child: for whom. Ticket 0: for nobody yet. Below 0: -errno, there is none. */
    struct pyweb_said { int pid; unsigned ticket; };
    #endif
    """
    ctypedef struct Said "struct pyweb_said":
        int pid
        unsigned int ticket

cdef class Zygote:
    cdef Repeater repeater
    cdef readonly int pid
    cdef readonly bint is_over   # it has hung up, and so have all its spares
    cdef readonly int newest_told
    cdef object way
    cdef int way_fd
    cdef int taken
    cdef int *newest
    cdef int clone(self, void *seed) except *

    # Ask for a child, for whoever has the ticket (above 0). 0: not now.
    cdef int ask(self, Turn *turn, unsigned int ticket)
    # 0: nothing more is told now.
    cdef int next_told(self, Said *said)
    cdef int has_spares(self)
