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

from .errors import UsageError

Openat2 = Callable[[int, bytes, int, int], int]

# man 2 openat2
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS

# O_NONBLOCK: a FIFO must not hold us; O_NOCTTY: a terminal must not become ours.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# O_PATH: to see what is there without opening it; a directory that may be passed through need not
# be readable. (Unlike open, openat2 answers EINVAL to O_NONBLOCK beside it.)
PATH = os.O_PATH | os.O_CLOEXEC if hasattr(os, "O_PATH") else READ
_DIRECTORY = os.O_DIRECTORY

# As the kernel: path_resolution(7), PATH_MAX with its NUL.
_MAX_LINKS = 40
_MAX_PATH = 4095
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
                return self._openat2(self.fd, path, flags, BENEATH)
            except (BlockingIOError, InterruptedError):
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
        os.close(openat2(root, b".", PATH | _DIRECTORY, BENEATH))
    except OSError as error:
        # Any other failure is this directory's, and the walk would find it too.
        if error.errno in (errno.ENOSYS, errno.EPERM):
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
        size = ctypes.c_size_t(ctypes.sizeof(how))
        number = ctypes.c_long(437)  # on every architecture
        fd = syscall(number, ctypes.c_long(dirfd), ctypes.c_char_p(path), ctypes.byref(how), size)
        if fd < 0:
            raise _error(ctypes.get_errno())
        return int(fd)

    return openat2


def walk(root: int, path: bytes, flags: int) -> int:
    """openat2 with RESOLVE_BENEATH, one component at a time.

    `..` goes back to the descriptor that we came from, never to what the kernel calls parent: a
    directory that is moved away while we are in it leads nowhere else. (What differs: the sysctl
    fs.protected_symlinks knows nothing of us, and a path deeper than RLIMIT_NOFILE is EMFILE.)
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
        todo = _components(path)
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                self._step_back()
                continue
            is_last = not any(todo)
            if is_last and todo:  # a slash behind it: a directory
                flags |= _DIRECTORY
            found = self._open_here(name, flags if is_last else PATH | _DIRECTORY)
            if isinstance(found, bytes):
                todo += self._follow(found)
            elif is_last:
                return found
            else:
                self._trail.append(found)
        return os.open(b".", flags | _DIRECTORY, dir_fd=self._trail[-1])

    def _step_back(self) -> None:
        os.stat(b".", dir_fd=self._trail[-1])  # ".." too is looked up: by whoever may search here
        if len(self._trail) == 1:
            raise _error(errno.EXDEV)
        os.close(self._trail.pop())

    def _open_here(self, name: bytes, flags: int) -> int | bytes:
        """One component: a descriptor, or where the symbolic link points.

        Whatever was opened is no link, and a target was read from one: what is swapped between the
        two calls can make us answer ELOOP or ENOTDIR, no more.
        """
        here = self._trail[-1]
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=here)
        except OSError as error:
            # ELOOP in Linux, EMLINK in FreeBSD; ENOTDIR where O_DIRECTORY was asked for.
            if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR):
                raise
            return self._read_link(name, error)
        if stat.S_ISLNK(os.fstat(fd).st_mode):  # O_PATH opens the link itself
            os.close(fd)
            return self._read_link(name, _error(errno.ELOOP))
        return fd

    def _read_link(self, name: bytes, otherwise: OSError) -> bytes:
        try:
            return os.readlink(name, dir_fd=self._trail[-1])
        except OSError as error:
            raise (otherwise if error.errno == errno.EINVAL else error) from None

    def _follow(self, target: bytes) -> list[bytes]:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise _error(errno.ELOOP)
        return _components(target)


def _components(path: bytes) -> list[bytes]:
    """The next one last. A trailing slash leaves an empty one at the end of the path."""
    if not path:
        raise _error(errno.ENOENT)
    if len(path) > _MAX_PATH:
        raise _error(errno.ENAMETOOLONG)
    if path.startswith(b"/"):
        raise _error(errno.EXDEV)
    parts = path.split(b"/")
    return parts[-1:] + [part for part in reversed(parts[:-1]) if part]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class WatchedRoot(DocRoot):
    """Tells each time that something has been opened, or could not be."""

    def __init__(self, path: str | bytes, opened: Callable[[], None]) -> None:
        super().__init__(path)
        self._opened = opened

    def open(self, path: bytes, flags: int = READ) -> int:
        try:
            return super().open(path, flags)
        finally:
            self._opened()


class RecordingRoot(DocRoot):
    """The same root, which remembers what was found in it since `forget`.

    opened   of each regular file that was opened to be read: descriptor, path, and what fstat(2)
             said then
    missed   paths where there was nothing
    odd      something else has been met: no file, no right, no way
    """

    def __init__(self, root: DocRoot) -> None:
        self.fd = root.fd
        self._openat2 = root._openat2
        self.forget()

    def forget(self) -> None:
        self.opened: list[tuple[int, bytes, os.stat_result]] = []
        self.missed: list[bytes] = []
        self.odd = False

    def open(self, path: bytes, flags: int = READ) -> int:
        try:
            fd = super().open(path, flags)
        except FileNotFoundError:
            self.missed.append(path)
            raise
        except OSError:
            self.odd = True
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            self.odd = True
        elif flags == READ:
            self.opened.append((fd, path, status))
        return fd

    def look(self, directory: bytes) -> os.stat_result:
        """OSError."""
        return os.stat(directory, dir_fd=self.fd)

    def has_nothing(self, path: bytes) -> bool:
        """Not even a link to nowhere."""
        try:
            os.lstat(path, dir_fd=self.fd)
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False


def open_root(directory: str, opened: Callable[[], None] | None = None) -> DocRoot:
    """UsageError. `opened`: see WatchedRoot."""
    try:
        root = WatchedRoot(directory, opened) if opened else DocRoot(directory)
    except OSError as error:
        raise UsageError(
            f"directory: {directory!r}: {error.strerror}; name an existing directory"
        ) from None
    if not os.access(".", os.X_OK, dir_fd=root.fd, effective_ids=True):
        root.close()
        raise UsageError(
            f"directory: {directory!r}: Permission denied; name one that this user may enter"
        )
    return root
