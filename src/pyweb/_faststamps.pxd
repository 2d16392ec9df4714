# Stamps in C: see _faststamps.pyx.

from pyweb._fastserve cimport Repeater

cdef extern from *:
    """
    #include <sys/resource.h>
    #include <sys/time.h>
    """
    ctypedef struct timeval "struct timeval":
        long tv_sec
        long tv_usec
    ctypedef struct Usage "struct rusage":
        timeval ru_utime
        timeval ru_stime
        long ru_maxrss, ru_ixrss, ru_idrss, ru_isrss, ru_minflt, ru_majflt, ru_nswap, ru_inblock
        long ru_oublock, ru_msgsnd, ru_msgrcv, ru_nsignals, ru_nvcsw, ru_nivcsw

# A record. words NULL: nobody measures. number: it may be another's by now.
ctypedef struct Stamped:
    long long *words
    long long number

cdef enum:
    MOST_DUE = 64

# Records in which a mark is due.
ctypedef struct Due:
    int count
    Stamped those[MOST_DUE]

cdef class Stamper:
    cdef Repeater repeater
    cdef object clock
    cdef readonly bint measures
    cdef int pid
    cdef Due forked, reaped

    # The next record is a connection's that has just been accepted; where it begins, in bytes.
    cdef Py_ssize_t accept(self, Stamped *one) except -1
    # It is nobody's after all.
    cdef int give_back(self, const Stamped *one) except -1
    cdef void fork_begins(self, Stamped *one) noexcept
    cdef void fork_ends(self, Stamped *one) noexcept
    cdef void know(self, Stamped *one, int pid) noexcept
    cdef int reap(self, Stamped *one, const Usage *used) except -1
    # For Python, as stamps.Record; None: there is none.
    cdef object record(self, const Stamped *one)
