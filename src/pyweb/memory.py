"""Memory that a fork shares. Not here: what stands in it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

# fcntl(2): F_SEAL_FUTURE_WRITE, F_SEAL_GROW and F_SEAL_SHRINK; Python 3.11 doesn't have the first.
_FOR_READERS = 0x10 | 0x04 | 0x02
# The system has no memfd for us: too old, forbidden, or not of this size (RLIMIT_FSIZE).
_NO_MEMFD = (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EFBIG)


def shared_memory(name: str, size: int) -> tuple[mmap.mmap, bool]:
    """`size` bytes, all 0. True: with a descriptor, which the mmap object holds, so that others
    find it in /proc by its name (memfd_create(2)); where there is no such thing it is anonymous.
    """
    if hasattr(os, "memfd_create"):
        try:
            return _map_of_memfd(name, size), True
        except OSError as error:
            if error.errno not in _NO_MEMFD:
                raise
    return mmap.mmap(-1, size), False


def sealed_memory(name: str, size: int) -> tuple[mmap.mmap, mmap.mmap]:
    """`size` bytes of which this process has two maps: one that can be written, and that no fork
    inherits (madvise(2), MADV_DONTFORK), and one that can be read, by all. Who has the second
    alone can never write: the kernel refuses every other map and write (F_SEAL_FUTURE_WRITE,
    Linux 5.1). OSError, also where there is no such thing."""
    if not hasattr(os, "MFD_ALLOW_SEALING"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        writable = mmap.mmap(fd, size)
        writable.madvise(mmap.MADV_DONTFORK)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _FOR_READERS)
        return writable, mmap.mmap(fd, size, prot=mmap.PROT_READ)
    finally:
        os.close(fd)


def _map_of_memfd(name: str, size: int) -> mmap.mmap:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)  # it keeps a copy of the descriptor, so this one can go
    finally:
        os.close(fd)
