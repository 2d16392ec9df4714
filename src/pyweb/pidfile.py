"""The file that names the supervisor's pid, for scripts and for `pyweb status`.

A pid alone says little: after a crash it may be somebody else's. So whoever has written the file
holds a lock on it (flock(2)) as long as it lives, and a file that nobody locks is stale. The file
appears whole, by a rename; it is removed only by the one whose pid it holds. Not here: signals.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat

from .errors import StartError

_PID = re.compile(rb"\s*([1-9][0-9]{0,9})\s*")


class PidFile:
    """Written when made, until remove(). StartError.

    predecessor   a supervisor whose place `pid` takes: its file is replaced while it runs
    """

    def __init__(self, path: str, pid: int, predecessor: int = 0) -> None:
        self._path = path
        self._text = b"%d\n" % pid
        try:
            old = _open(path)
            try:
                if old >= 0:
                    _check(old, path, predecessor)
                self._fd = self._write(f"{path}.{pid}.{os.urandom(4).hex()}")
            finally:
                if old >= 0:  # until here its lock kept others from replacing it too
                    os.close(old)
        except OSError as error:
            why = f"{error.strerror}; name a file in a directory that can be written"
            raise _failed(path, why) from None

    def _write(self, draft: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = os.open(draft, flags, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, self._text)
            os.rename(draft, self._path)
        except BaseException:
            os.close(fd)
            os.unlink(draft)
            raise
        return fd

    def remove(self) -> None:
        """If it still is the file that we have written."""
        try:
            there, ours = os.lstat(self._path), os.fstat(self._fd)
            if os.path.samestat(there, ours) and os.pread(self._fd, 64, 0) == self._text:
                os.unlink(self._path)
        except OSError:
            pass
        os.close(self._fd)


def read_pid(path: str) -> int:
    """StartError."""
    try:
        with open(path, "rb") as file:
            match = _PID.fullmatch(file.read(64))
    except OSError as error:
        raise _failed(path, f"{error.strerror}; no pyweb that writes it runs") from None
    if match is None:
        raise _failed(path, "no pid stands in it; name the file of --pid-file")
    return int(match[1])


def _open(path: str) -> int:
    """-1: there is none. OSError, StartError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return -1
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _failed(path, "a symbolic link; name the file itself") from None
        raise


def _check(fd: int, path: str, predecessor: int) -> None:
    """Whether it may be replaced: only what looks like a pid file, and whose writer is dead."""
    text = os.read(fd, 64) if stat.S_ISREG(os.fstat(fd).st_mode) else b"-"
    match = _PID.fullmatch(text)
    if match is None and text:
        raise _failed(path, "no pid file stands there; name another")
    pid = int(match[1]) if match else 0
    if predecessor and pid == predecessor:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _failed(path, f"process {pid} runs already; stop it, or name another file") from None


def _failed(path: str, why: str) -> StartError:
    return StartError(f"pid-file: {path!r}: {why}")
