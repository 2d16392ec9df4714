# cython: language_level=3
"""clone(2) with a shared descriptor table, which the standard library does not have.

A twin process with memory of its own, but the very same descriptors: what one opens or closes,
the other has open or closed. Its parent is the caller's parent. One system call and no policy:
keeper.py says what it is good for.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno

cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sched.h>
    #include <sys/syscall.h>
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
    """
    long pyweb_clone()

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()


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
