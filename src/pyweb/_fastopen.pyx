# cython: language_level=3
"""openat2(2), which the standard library does not have.

One system call and no policy: docroot.py says which paths and which flags.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_SetFromErrno

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #include <unistd.h>
    #if defined(__linux__)
    #include <sys/syscall.h>
    #endif
    #ifndef SYS_openat2
    #define SYS_openat2 437   /* the same number on every architecture (Linux 5.6) */
    #endif

    static int pyweb_openat2(int dirfd, const char *path, uint64_t flags, uint64_t resolve) {
    #if defined(__linux__)
        struct { uint64_t flags, mode, resolve; } how;   /* struct open_how, first version */
        memset(&how, 0, sizeof how);
        how.flags = flags;
        how.resolve = resolve;
        return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    #else
        (void)dirfd; (void)path; (void)flags; (void)resolve;
        errno = ENOSYS;
        return -1;
    #endif
    }
    """
    int pyweb_openat2(int dirfd, const char *path, unsigned long long flags,
                      unsigned long long resolve) nogil


def openat2(int dirfd, bytes path not None, unsigned long long flags,
            unsigned long long resolve):
    """A descriptor for `path` below `dirfd`; OSError with the kernel's errno (man 2 openat2).

    A NUL in `path` would cut it short; docroot.py lets none come this far.
    """
    cdef const char *raw = PyBytes_AS_STRING(path)
    cdef int fd
    with nogil:
        fd = pyweb_openat2(dirfd, raw, flags, resolve)
    if fd < 0:
        PyErr_SetFromErrno(OSError)
    return fd
