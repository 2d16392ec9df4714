# cython: language_level=3
"""A fork whose child serves without the interpreter for as long as it can.

What lives here: the fork, and what a child does before it reads a byte: every descriptor that
isn't its own is closed. What must never: a decision, or an object in the child before it is known
that Python must go on.

The interpreter is prepared for the fork as os.fork prepares it, so the child can still enter it:
either it leaves by _exit and never does, or it is made a child of (PyOS_AfterFork_Child) and
returns. All signals are held back in the child until Python has handlers of its own for them.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno

from pyweb._fastserve cimport Ground, Repeater, Turn, rest_of, run
from pyweb import stamps

cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <sys/types.h>
    #include <time.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sys/syscall.h>
    #endif

    static void pyweb_close_range(int first, int last) {
    #if defined(SYS_close_range)
        if (first > last || syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0U) == 0)
            return;
    #endif
        if (last > 65535)
            last = 65535;   /* an old system: Python closes what is above, or execs never */
        for (; first <= last; first++)
            close(first);
    }

    static pid_t pyweb_fork(sigset_t *before) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, before);
        return fork();
    }

    static void pyweb_restore(const sigset_t *before) {
        pthread_sigmask(SIG_SETMASK, before, NULL);
    }

    static long long pyweb_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    ctypedef struct sigset_t:
        pass
    int pyweb_fork(sigset_t *before)
    void pyweb_restore(const sigset_t *before)
    void pyweb_close_range(int first, int last) nogil
    long long pyweb_monotonic() nogil
    void _exit(int code) nogil

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()

cdef enum:
    MAX_KEPT = 16
    LAST = 0x7fffffff

cdef int CHILD = stamps.CHILD

# The descriptors that all children share, in order.
cdef struct Kept:
    int count
    int files[MAX_KEPT]


cdef void close_others(const Kept *kept, int sock) noexcept nogil:
    """Gap by gap."""
    cdef int low = 0
    cdef int i, file
    cdef int mine = sock
    for i in range(kept.count + 1):
        file = kept.files[i] if i < kept.count else LAST
        if mine >= 0 and mine < file:
            pyweb_close_range(low, mine - 1)
            low = mine + 1
            mine = -1
        if file == LAST:
            break
        pyweb_close_range(low, file - 1)
        low = file + 1
    pyweb_close_range(low, LAST)


cdef int live(const Kept *kept, const Ground *ground, Turn *turn) noexcept nogil:
    """1: all is done."""
    if turn.record:
        turn.record[CHILD] = pyweb_monotonic()
    close_others(kept, turn.sock)
    return run(ground, turn)


cdef class Forker:
    """Forks children that repeat decisions. `keep`: descriptors that they all share."""

    cdef Repeater repeater
    cdef Kept kept

    def __init__(self, Repeater repeater not None, keep):
        if len(keep) > MAX_KEPT:
            raise ValueError("more descriptors than a child has room for")
        self.repeater = repeater
        self.kept.count = 0
        for file in sorted(keep):
            self.kept.files[self.kept.count] = file
            self.kept.count += 1

    def fork(self, int sock, bytes peer not None, Py_ssize_t slot_at, Py_ssize_t record_at,
             long long number, long long requests):
        """A pid in the parent; OSError. In a child that needs the interpreter: what is left of the
        conversation, see _fastserve.rest_of. One that doesn't never returns."""
        cdef Turn turn
        cdef sigset_t before
        cdef int pid, failure
        self.repeater.aim(&turn, sock, peer, slot_at, record_at, number, requests)
        PyOS_BeforeFork()
        pid = pyweb_fork(&before)
        if pid == 0:
            if live(&self.kept, &self.repeater.ground, &turn):
                _exit(0)
            PyOS_AfterFork_Child()
            return rest_of(&turn)
        failure = errno.errno
        pyweb_restore(&before)
        PyOS_AfterFork_Parent()
        if pid < 0:
            errno.errno = failure
            PyErr_SetFromErrno(OSError)
        return pid
