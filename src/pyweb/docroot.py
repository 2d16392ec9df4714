"""The document root: a relative path becomes a descriptor below it, or an OSError.

That nothing outside is reached is the kernel's decision: openat2 with RESOLVE_BENEATH resolves
"..", symbolic links and renames under our feet with one outcome. Where the call is missing, a
walk from directory to directory comes to the same one. No check of the path as a string is a
barrier here; which names are hidden is static.py's rule.

Relative links that stay inside are followed; absolute ones and those that leave are EXDEV.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

Openat2 = Callable[[int, bytes, int, int], int]

# man 2 openat2
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS

# O_NONBLOCK: a FIFO must not hold us; O_NOCTTY: a terminal must not become ours.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC
# Where there is O_PATH, a directory that may be passed through need not be readable.
PATH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_MAX_LINKS = 40  # as the kernel: path_resolution(7)
_MAX_RETRIES = 64


class DocRoot:
    """An open document root. The directory is found once: later renames of it don't matter."""

    def __init__(self, path: str | bytes) -> None:
        self.fd = os.open(path, PATH | _DIRECTORY)
        self._openat2 = find_openat2(self.fd)

    @property
    def by_kernel(self) -> bool:
        return self._openat2 is not None

    def open(self, path: bytes, flags: int = READ) -> int:
        """A descriptor for `path` (relative, not empty, no NUL). OSError as open(2), EXDEV."""
        if self._openat2 is None:
            return walk(self.fd, path, flags)
        for _ in range(_MAX_RETRIES):
            try:
                return self._openat2(self.fd, path, flags, _BENEATH)
            except BlockingIOError:
                # EAGAIN: a rename raced with ".."; the kernel asks us to try again.
                continue
        return walk(self.fd, path, flags)

    def close(self) -> None:
        os.close(self.fd)


def find_openat2(root: int) -> Openat2 | None:
    """The system call, compiled or by ctypes, if this kernel (and its seccomp) lets us have it."""
    openat2 = _compiled() or _by_ctypes()
    if openat2 is None:
        return None
    try:
        os.close(openat2(root, b".", PATH | _DIRECTORY, _BENEATH))
    except OSError:
        return None
    return openat2


def _compiled() -> Openat2 | None:
    try:
        from ._fastopen import openat2
    except ImportError:
        return None
    return openat2


def _by_ctypes() -> Openat2 | None:
    """For the build without a compiler."""
    if os.uname().sysname != "Linux":
        return None
    try:
        import ctypes
    except ImportError:
        return None
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    how_type = ctypes.c_uint64 * 3  # struct open_how: flags, mode, resolve

    def openat2(dirfd: int, path: bytes, flags: int, resolve: int) -> int:
        how = how_type(flags, 0, resolve)
        # 437 on every architecture.
        fd = syscall(437, dirfd, ctypes.c_char_p(path), ctypes.byref(how), ctypes.sizeof(how))
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(fd)

    return openat2


def walk(root: int, path: bytes, flags: int) -> int:
    """openat2 with RESOLVE_BENEATH, one component at a time.

    `..` goes back to the descriptor that we came from, never to what the kernel calls parent: a
    directory that is moved away while we are in it leads nowhere else.
    """
    walker = _Walker(root)
    try:
        return walker.open(path, flags)
    finally:
        walker.close()


class _Walker:
    def __init__(self, root: int) -> None:
        self._trail = [os.dup(root)]
        self._links = 0

    def close(self) -> None:
        for fd in self._trail:
            os.close(fd)

    def open(self, path: bytes, flags: int) -> int:
        if not path:
            raise _error(errno.ENOENT)
        todo = self._split(path)
        while todo:
            name = todo.pop()
            if not todo and name not in (b"", b".", b".."):
                fd = self._open_here(name, flags)
                if fd is not None:
                    return fd
                todo = self._link(name)
            elif not self._step(name):
                todo += self._link(name)
        return os.open(b".", flags | os.O_DIRECTORY, dir_fd=self._trail[-1])

    def _split(self, path: bytes) -> list[bytes]:
        """Components, the next one last. A trailing slash leaves an empty one: a directory."""
        if path.startswith(b"/"):
            raise _error(errno.EXDEV)
        parts = path.split(b"/")
        return [p for p in parts[-1:]] + [p for p in reversed(parts[:-1]) if p]

    def _step(self, name: bytes) -> bool:
        """Into a directory; False: `name` is a symbolic link."""
        if name in (b"", b"."):
            return True
        if name == b"..":
            if len(self._trail) == 1:
                raise _error(errno.EXDEV)
            os.close(self._trail.pop())
            return True
        fd = self._open_here(name, PATH | _DIRECTORY)
        if fd is None:
            return False
        self._trail.append(fd)
        return True

    def _open_here(self, name: bytes, flags: int) -> int | None:
        """One component that is no link; None: it is one."""
        here = self._trail[-1]
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)
        except OSError as error:
            # ELOOP in Linux, EMLINK in FreeBSD; ENOTDIR where O_DIRECTORY was asked for.
            if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
                raise
            if not self._is_link(name):
                raise
            return None
        if stat.S_ISLNK(os.fstat(fd).st_mode):  # O_PATH opens the link itself
            os.close(fd)
            return None
        return fd

    def _is_link(self, name: bytes) -> bool:
        return stat.S_ISLNK(os.lstat(name, dir_fd=self._trail[-1]).st_mode)

    def _link(self, name: bytes) -> list[bytes]:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise _error(errno.ELOOP)
        return self._split(os.readlink(name, dir_fd=self._trail[-1]))


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
