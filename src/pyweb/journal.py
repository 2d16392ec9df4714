"""What pyweb says to its operator: lines on a descriptor that may be slow, full or gone.

A `Sink` writes whole lines and never waits: a pipe that nobody reads, a terminal that is held,
a disk that is full lose lines, which are counted, and hold up no request. A `Journal` is the
sink of stderr, with times. Not here: the access log's format.
"""

from __future__ import annotations

import os
import select
import stat
import time

# A write of so many bytes into a pipe is whole or not at all (pipe(7)); POSIX asks for 512.
PIPE_BUF = select.PIPE_BUF


class Sink:
    """A descriptor for lines. `lost`: lines that it did not take.

    O_NONBLOCK belongs to the open file description, and stdout's is shared with whoever started
    us, so it can't be set there. Instead the pipe or terminal is opened anew through /proc, which
    makes a description of our own. Where that can't be (another user's pipe, no /proc) each write
    asks poll first; two processes may then still race for the last room in a pipe.
    """

    def __init__(self, fd: int) -> None:
        self.lost = 0
        self.is_pipe = False
        self._asks = False
        self.fd = fd
        self._owned = False
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return  # closed (">&-"): every line is lost
        if not stat.S_ISREG(mode):
            self.is_pipe = not stat.S_ISCHR(mode)
            self._open_anew(mode)

    def _open_anew(self, mode: int) -> None:
        self._asks = True
        if stat.S_ISSOCK(mode):
            return
        try:
            self.fd = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return
        self._asks = False
        self._owned = True

    @classmethod
    def open(cls, path: str) -> Sink:
        """A file to append to, made if need be. OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        sink = cls(-1)
        sink.fd = os.open(path, flags, 0o640)
        sink.is_pipe = stat.S_ISFIFO(os.fstat(sink.fd).st_mode)
        sink._owned = True
        return sink

    def write(self, line: bytes) -> bool:
        """One write(2). False: the line is lost."""
        try:
            if not self._asks or self._has_room():
                if os.write(self.fd, line) == len(line):
                    return True
        except OSError:
            pass
        self.lost += 1
        return False

    def _has_room(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self._owned:
            os.close(self.fd)
            self._owned = False


class Journal:
    """Lines with a time on stderr; what happens again and again is said once a second."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._seen: dict[str, list[float]] = {}

    def say(self, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        line = f"{stamp}.{int(now * 1000) % 1000:03d} pyweb[{os.getpid()}] {clean}\n"
        self.sink.write(line.encode("utf-8", "backslashreplace"))

    def say_often(self, text: str) -> None:
        """Once a second at most for each text, with how often it happened meanwhile."""
        now = time.monotonic()
        seen = self._seen.setdefault(text, [-1.0, 0.0])
        seen[1] += 1
        if now - seen[0] >= 1 or seen[0] < 0:
            self._say_counted(text, seen, now)

    def flush(self) -> None:
        """Say what say_often has held back for a second."""
        now = time.monotonic()
        for text, seen in self._seen.items():
            if seen[1] and now - seen[0] >= 1:
                self._say_counted(text, seen, now)

    def _say_counted(self, text: str, seen: list[float], now: float) -> None:
        self.say(text if seen[1] == 1 else f"{text} ({seen[1]:.0f} times)")
        seen[:] = [now, 0.0]

    @property
    def holds_back(self) -> bool:
        return any(seen[1] for seen in self._seen.values())
