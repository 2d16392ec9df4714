"""What pyweb says to its operator: lines on a descriptor that may be slow, full or gone.

A `Sink` writes whole lines and never waits: a pipe that nobody reads, a terminal that is held,
a disk that is full lose lines, which are counted, and hold up no request. A `Journal` is the
sink of stderr, with times. Not here: the access log's format.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import sys
import time

# A write of so many bytes into a pipe is whole or not at all (pipe(7)); POSIX asks for 512.
PIPE_BUF = select.PIPE_BUF
# So much of a text is said; escaped, it still fits into PIPE_BUF.
_LONGEST = 300

LINES_LOST = "access log: lines are lost, nobody takes them (fast enough)"

_NO_NOWAIT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ESPIPE)


class Sink:
    """A descriptor for lines. `lost`: lines that it did not take in this process.

    O_NONBLOCK belongs to the open file description, and stdout's is shared with whoever started
    us, so it can't be set there. Instead the pipe or terminal is opened anew through /proc, which
    makes a description of our own. Where that can't be (another user's pipe, no /proc) each write
    says for itself that it won't wait; a socket's always does.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.lost = 0
        self._torn = False
        self.is_pipe = False
        self._push = self._write
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return  # no such descriptor: every line is lost
        self.is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            self.fd = self._socket.fileno()
            self._push = self._send
        elif not stat.S_ISREG(mode):
            self._open_anew()
            if os.isatty(fd):
                self._push = self._write_to_terminal

    def _open_anew(self) -> None:
        try:
            self.fd = os.open(f"/proc/self/fd/{self.fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            self._push = self._write_now

    @property
    def is_socket(self) -> bool:
        return self._push == self._send

    @property
    def is_plain(self) -> bool:
        """write(2), or on a socket send(2), is all that it takes, once SIGTTOU is blocked."""
        return self._push != self._write_now

    @classmethod
    def open(cls, path: str) -> Sink:
        """A file to append to, made if need be. OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        sink = cls(-1)
        sink.fd = os.open(path, flags, 0o640)
        sink.is_pipe = stat.S_ISFIFO(os.fstat(sink.fd).st_mode)
        return sink

    def turn_to(self, fd: int) -> None:
        """The file has been opened anew, as open() does: `fd`, which is closed. The number that
        lines are written to stays the same, for others know it."""
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self.is_pipe = stat.S_ISFIFO(os.fstat(self.fd).st_mode)
        self._torn = False
        self._push = self._write

    def write(self, line: bytes) -> bool:
        """One write(2). False: the line is lost."""
        try:
            # Behind a line that a full disk cut short, a new one begins on a line of its own.
            sent = self._push(b"\n" + line if self._torn else line) - self._torn
        except OSError:
            sent = 0
        if sent == len(line):
            self._torn = False
            return True
        self._torn = self._torn or sent > 0
        self.lost += 1
        return False

    def _write(self, line: bytes) -> int:
        return os.write(self.fd, line)

    def _write_to_terminal(self, line: bytes) -> int:
        """One that stops those in the background (stty tostop) sends SIGTTOU for each write, and
        where that is handled Python would try again for ever. Blocked, the write just passes, and
        an operator's SIGTTOU comes a moment later."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            return os.write(self.fd, line)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _send(self, line: bytes) -> int:
        return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _write_now(self, line: bytes) -> int:
        """Into a blocking description, without waiting."""
        try:
            return os.pwritev(self.fd, [line], -1, os.RWF_NOWAIT)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_NOWAIT:
                raise
        # Second best: another process may take the room between the question and the write.
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return os.write(self.fd, line) if poll.poll(0) else 0


class Journal:
    """Lines with a time on stderr; what happens again and again is said once a second."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._seen: dict[str, list[float]] = {}

    def say(self, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        clean = printable(text[:_LONGEST])
        line = f"{stamp}.{int(now * 1000) % 1000:03d} pyweb[{os.getpid()}] {clean}\n"
        self.sink.write(line.encode("utf-8", "backslashreplace"))

    def say_often(self, text: str, count: int = 1) -> None:
        """Once a second at most for each text, with how often it happened meanwhile."""
        now = time.monotonic()
        seen = self._seen.setdefault(text, [-1.0, 0])
        seen[1] += count
        if now - seen[0] >= 1 or seen[0] < 0:
            self._say_counted(text, seen, now)

    def flush(self, *, at_once: bool = False) -> None:
        """Say what say_often has held back for a second."""
        if not self._seen:
            return
        now = time.monotonic()
        for text, seen in self._seen.items():
            if seen[1] and (at_once or now - seen[0] >= 1):
                self._say_counted(text, seen, now)

    def _say_counted(self, text: str, seen: list[float], now: float) -> None:
        self.say(text if seen[1] == 1 else f"{text} ({seen[1]} times)")
        seen[:] = [now, 0]

    def next_flush(self) -> float | None:
        """When (monotonic) something that is held back may be said."""
        if not self._seen:
            return None
        return min((seen[0] + 1 for seen in self._seen.values() if seen[1]), default=None)


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def complain(text: str, code: int) -> int:
    """The one line with which a command ends that can't do what it was asked; gives its code."""
    print(f"pyweb: {printable(text)}", file=sys.stderr)
    return code
