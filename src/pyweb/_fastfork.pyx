# cython: language_level=3
"""Forks that the standard library does not have.

What lives here: three forks, and what a child of the first two does before it reads a byte: every
descriptor that isn't its own is closed. What must never: a decision, or an object in such a child
before it is known that Python must go on.

fork: the interpreter is prepared as os.fork prepares it, so the child can still enter it: either
it leaves by _exit and never does, or it is made a child of (PyOS_AfterFork_Child) and returns.

fork_bare: the child has no interpreter to enter, for the heap was left out of the fork (heap.h).
What it can't do it hands back, by its exit code, with nothing taken from the socket. It knows
nothing but this file's data, the modules that it runs, its stack, and memory that is shared.
The heap stays out until a fork is made that needs it: PyOS_BeforeFork, of whoever forks, takes
it in again.

All signals are held back in these children until Python has handlers of its own for them.

clone_sharing_files: clone(2) with a shared descriptor table. A twin process with memory of its
own, but the very same descriptors: what one opens or closes, the other has open or closed. Its
parent is the caller's parent. keeper.py says what it is good for.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno

from pyweb._fastcache cimport find
from pyweb._fastparse cimport scan_head
from pyweb._fastserve cimport Ground, Repeater, Turn, rest_of, run
from pyweb import stamps

import os

cdef extern from *:
    """
    #include <errno.h>
    #if defined(__GLIBC__)
    #include <malloc.h>
    #endif
    #include <signal.h>
    #include <stdint.h>
    #include <sys/types.h>
    #include <time.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sched.h>
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

    #include "heap.h"
    #if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    static int pyweb_is_bare;

    static int pyweb_include(void) {
        if (!pyweb_is_bare)
            return 0;
        pyweb_is_bare = include_heap() < 0;
        return -pyweb_is_bare;
    }

    /* mremap(2) moves a block together with what was advised of it, and nobody knows where to:
       blocks of the C library's heap have no mapping of their own. */
    static void pyweb_move_no_memory(void) {
    #if defined(__GLIBC__)
        mallopt(M_MMAP_MAX, 0);
    #endif
    }

    static int pyweb_exclude(const uintptr_t *ours, int count) {
        long mappings;
        if (!pyweb_is_bare && exclude_heap(ours, count, &mappings) < 0)
            return -1;
        pyweb_is_bare = 1;
        return 0;
    }

    /* Without what the C library does around a fork: it would look for its own heap. */
    static pid_t pyweb_fork_bare(sigset_t *before) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, before);
    #if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
        return _Fork();
    #elif defined(__s390__)
        return (pid_t)syscall(SYS_clone, 0UL, (unsigned long)SIGCHLD, 0UL, 0UL, 0UL);
    #else
        return (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    #endif
    }
    #else
    static int pyweb_include(void) { return 0; }
    static void pyweb_move_no_memory(void) {}
    static int pyweb_exclude(const uintptr_t *ours, int count) {
        (void)ours; (void)count;
        errno = ENOSYS;
        return -1;
    }
    static pid_t pyweb_fork_bare(sigset_t *before) { (void)before; errno = ENOSYS; return -1; }
    #endif

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
    static long long pyweb_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    ctypedef struct sigset_t:
        pass
    ctypedef size_t uintptr_t
    int pyweb_fork(sigset_t *before)
    int pyweb_fork_bare(sigset_t *before)
    int pyweb_include()
    void pyweb_move_no_memory()
    int pyweb_exclude(const uintptr_t *ours, int count)
    void pyweb_restore(const sigset_t *before)
    void pyweb_close_range(int first, int last) nogil
    long pyweb_clone()
    long long pyweb_monotonic() nogil
    void _exit(int code) nogil

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()

cdef enum:
    HANDED_BACK = 71   # the exit code of a bare child; see child.py
    DEFECT = 70
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


cdef int live(const Kept *kept, const Ground *ground, Turn *turn, int alone) noexcept nogil:
    """1: all is done."""
    if turn.record:
        turn.record[CHILD] = pyweb_monotonic()
    close_others(kept, turn.sock)
    return run(ground, turn, alone)


# What a bare child finds: in this module's own data.
cdef Ground GROUND
cdef Kept KEPT


cdef class Forker:
    """Forks children that repeat decisions. `keep`: descriptors that they all share. There is one
    in a process."""

    cdef Repeater repeater

    def __init__(self, Repeater repeater not None, keep):
        global GROUND
        if len(keep) > MAX_KEPT:
            raise ValueError("more descriptors than a child has room for")
        self.repeater = repeater
        GROUND = repeater.ground
        KEPT.count = 0
        for file in sorted(keep):
            KEPT.files[KEPT.count] = file
            KEPT.count += 1
        pyweb_move_no_memory()
        os.register_at_fork(before=take_heap_in)

    def strip(self):
        """Leave the heap out of the next fork_bare. False: it can't be."""
        cdef uintptr_t ours[4]
        ours[0], ours[1], ours[2], ours[3] = (
            <uintptr_t>&KEPT, <uintptr_t>run, <uintptr_t>find, <uintptr_t>scan_head)
        return pyweb_exclude(ours, 4) == 0

    def fork(self, int sock, bytes peer not None, Py_ssize_t slot_at, Py_ssize_t record_at,
             long long number, long long requests):
        """A pid in the parent; OSError. In a child that needs the interpreter: what is left of the
        conversation, see _fastserve.rest_of. One that doesn't never returns."""
        cdef Turn turn
        cdef sigset_t before
        cdef int pid, failure
        self.repeater.aim(&turn, sock, peer, slot_at, record_at, number, requests)
        take_heap_in()
        PyOS_BeforeFork()
        pid = pyweb_fork(&before)
        if pid == 0:
            if live(&KEPT, &GROUND, &turn, 0):
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

    def fork_bare(self, int sock, bytes peer not None, Py_ssize_t slot_at, Py_ssize_t record_at,
                  long long number, long long requests):
        """After strip(): the pid of a child that ends with HANDED_BACK where Python must go on.
        OSError."""
        cdef Turn turn
        cdef sigset_t before
        cdef int pid, failure
        self.repeater.aim(&turn, sock, peer, slot_at, record_at, number, requests)
        pid = pyweb_fork_bare(&before)
        if pid == 0:
            _exit(0 if live(&KEPT, &GROUND, &turn, 1) else HANDED_BACK)
        failure = errno.errno
        pyweb_restore(&before)
        if pid < 0:
            errno.errno = failure
            PyErr_SetFromErrno(OSError)
        return pid


def take_heap_in():
    """Whoever is forked next has the whole heap. OSError."""
    if pyweb_include() < 0:
        PyErr_SetFromErrno(OSError)


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
