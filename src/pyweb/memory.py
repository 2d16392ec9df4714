"""Memory that a fork shares. Not here: what stands in it."""

from __future__ import annotations

import errno
import mmap
import os

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


def _map_of_memfd(name: str, size: int) -> mmap.mmap:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)  # it keeps a copy of the descriptor, so this one can go
    finally:
        os.close(fd)
