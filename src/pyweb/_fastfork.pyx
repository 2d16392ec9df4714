# cython: language_level=3
"""Forks that the standard library does not have.

What lives here: two forks, and what a child of the first does before it reads a byte: every
descriptor that isn't its own is closed. What must never: a decision, or an object in such a child
before it is known that Python must go on. The fork of those that never enter the interpreter is
another process's (_fastzygote.pyx).

Forker.fork: the interpreter is prepared as os.fork prepares it, so the child can still enter it:
either it leaves by _exit and never does, or it is made a child of (PyOS_AfterFork_Child) and
returns. All signals are held back in it until Python has handlers of its own for them.

clone_sharing_files: clone(2) with a shared descriptor table. A twin process with memory of its
own, but the very same descriptors: what one opens or closes, the other has open or closed. Its
parent is the caller's parent. keeper.py says what it is good for.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno

from pyweb._fastexchange cimport CHILD_STAMP, Ground, mark
from pyweb._fastserve cimport Repeater, Turn, rest_of, run

cdef extern from *:
    """
    #include "kernel.h"
    #if defined(__linux__)
    #include <sched.h>
    #endif

    static void pyweb_close_range(int first, int last) {
    #if defined(SYS_close_range)
        if (first > last || kernel_call(SYS_close_range, first, last, 0, 0, 0, 0) == 0)
            return;
    #endif
        if (last > 65535)
            last = 65535;   /* an old system: Python closes what is above, or execs never */
        for (; first <= last; first++)
            kernel_close(first);
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

    static long pyweb_clone(void) {
    #if defined(__linux__)
        unsigned long flags = CLONE_FILES | CLONE_PARENT | SIGCHLD;
    #if defined(__s390__) || defined(__CRIS__)
        return syscall(SYS_clone, 0UL, flags, 0UL, 0UL, 0UL);
    #else
        return syscall(SYS_clone, flags, 0UL, 0UL, 0UL, 0UL);
    #endif
    #else
        errno = ENOSYS;
        return -1;
    #endif
    }
    """
    ctypedef struct sigset_t:
        pass
    int pyweb_fork(sigset_t *before)
    void pyweb_restore(const sigset_t *before)
    void pyweb_close_range(int first, int last) nogil
    long pyweb_clone()
    void _exit(int code) nogil

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()

cdef enum:
    DEFECT = 70
    LAST = 0x7fffffff


cdef int keep_files(Kept *kept, files) except -1:
    """ValueError: they are too many."""
    if len(files) > MAX_KEPT:
        raise ValueError("more descriptors than a child has room for")
    kept.count = 0
    for file in sorted(files):
        kept.files[kept.count] = file
        kept.count += 1
    return 0


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
    mark(turn.record, CHILD_STAMP)
    close_others(kept, turn.sock)
    return run(ground, turn, 0)


cdef class Forker:
    """Forks children that repeat decisions. `keep`: descriptors that they all share."""

    cdef Repeater repeater
    cdef Kept kept

    def __init__(self, Repeater repeater not None, keep):
        self.repeater = repeater
        keep_files(&self.kept, keep)

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
            try:
                return rest_of(&turn)
            except BaseException:
                _exit(DEFECT)   # it must not unwind into what only the master does
        failure = errno.errno
        pyweb_restore(&before)
        PyOS_AfterFork_Parent()
        if pid < 0:
            errno.errno = failure
            PyErr_SetFromErrno(OSError)
        return pid


def clone_sharing_files():
    """As os.fork(): the twin's pid, and 0 in the twin; OSError with the kernel's errno.

    For a process of one thread, as with os.fork. The twin must close nothing as long as the
    other lives.
    """
    cdef long pid
    cdef int number
    PyOS_BeforeFork()
    pid = pyweb_clone()
    if pid == 0:
        PyOS_AfterFork_Child()
        return 0
    number = errno.errno
    PyOS_AfterFork_Parent()
    if pid < 0:
        errno.errno = number
        PyErr_SetFromErrno(OSError)
    return pid
