"""One connected, non-blocking socket: what it takes and gives now. Nothing here waits.

Whoever needs more yields a `Wait` (wait.py) to whoever drives the conversation: a child polls, a
worker has its epoll. Not here: what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import select
import socket
import sys
import termios

from . import _pysend
from .errors import Disconnected, Reason
from .message import FileBody, Part

try:
    from . import _fastsend
except ImportError:
    _fastsend = None  # type: ignore[assignment]

_RECEIVE = 65536

_ENDED = getattr(select, "POLLRDHUP", select.POLLHUP)

# tcp(7): whole segments alone, as long as it is set.
_CORK = getattr(socket, "TCP_CORK", None)

# What can only be the file's fault when header and file are sent together.
_OF_THE_FILE = (errno.EIO, errno.ESTALE, errno.EISDIR, errno.ENODATA)


def _broken(error: OSError) -> Disconnected:
    of_the_file = error.errno in _OF_THE_FILE
    return Disconnected(Reason.STORAGE if of_the_file else Reason.CLIENT_RESET)


class Transport:
    """recv and send, as far as they go. Disconnected: the peer is gone.

    can_peek   the kernel can wait for more than there is (SO_RCVLOWAT; not on unix sockets)
    sent       bytes that the socket has taken of the present message
    """

    def __init__(self, sock: socket.socket, engine: str) -> None:
        self.sock = sock
        self._push = _fastsend if engine == "cython" else _pysend
        self.can_peek = sock.family != socket.AF_UNIX
        self.sent = 0
        self._low_water = 1
        self._is_corked = False
        self._pending: list[tuple[bytes, FileBody | None]] = []
        self._done = 0

    def receive(self) -> bytes | None:
        """Some bytes; b"": the peer has closed its half; None: nothing is there yet."""
        return self._recv(_RECEIVE, 0)

    def peek(self, size: int) -> bytes | None:
        """Up to `size` bytes, which stay where they are. As receive."""
        return self._recv(size, socket.MSG_PEEK)

    def _recv(self, size: int, flags: int) -> bytes | None:
        try:
            return self.sock.recv(size, flags)
        except BlockingIOError:
            return None
        except OSError:
            raise Disconnected(Reason.CLIENT_RESET) from None

    def take(self, size: int) -> None:
        """Bytes that have been peeked at."""
        while size > 0:
            taken = self._recv(size, 0)
            if not taken:
                raise Disconnected(Reason.CLIENT_RESET)
            size -= len(taken)

    def wake_beyond(self, size: int) -> None:
        """Let the socket count as readable only when more than `size` bytes are there; or when
        the kernel's buffer is full."""
        if size + 1 != self._low_water:
            self._low_water = size + 1
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self._low_water)

    def peer_has_ended(self) -> bool:
        """Nothing will come any more, whatever is still unread."""
        poll = select.poll()
        poll.register(self.sock, _ENDED)
        return bool(poll.poll(0))

    def start(self, header: bytes, parts: tuple[Part, ...], sent: int = 0) -> None:
        """A message to send; each slice of a file leaves together with what stands before it.
        `sent`: so many bytes of the first such piece have left already."""
        self.sent = self._done = sent
        self._pending = []
        before, is_large = header, False
        for part in parts:
            if isinstance(part, FileBody):
                is_large = is_large or part.count > _pysend.SMALL
                self._pending.append((before, part))
                before = b""
            else:
                before += part
        if before:
            self._pending.append((before, None))
        self._pending.reverse()
        self._cork(is_large)
        self._drop_done()

    @property
    def all_sent(self) -> bool:
        return not self._pending

    def push(self) -> int:
        """Send on; gives how many bytes left, 0 when the socket is full."""
        data, body = self._pending[-1]
        try:
            if body is None:
                after = self._push.push_bytes(self.sock, data, self._done)
            else:
                after = self._push.push_file(
                    self.sock, data, body.fd, body.offset, body.count, self._done
                )
        except OSError as error:
            raise _broken(error) from None
        moved: int = after - self._done
        self.sent += moved
        self._done = after
        self._drop_done()
        return moved

    def _drop_done(self) -> None:
        data, body = self._pending[-1]
        if self._done == len(data) + (body.count if body else 0):
            self._pending.pop()
            self._done = 0
            if not self._pending:
                self._cork(False)

    def _cork(self, on: bool) -> None:
        """The pieces of a large file do not end where segments do, and each segment wakes who
        reads. OSError: it is not allowed here; then there are more of them."""
        if on != self._is_corked and _CORK is not None and self.sock.family != socket.AF_UNIX:
            self._is_corked = on
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_TCP, _CORK, on)

    def say_no_more(self) -> None:
        """Shut down writing. OSError is of no interest: then nobody listens."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def discard(self, buffer: bytearray) -> int | None:
        """Take what has come and forget it: how much; 0: the peer has closed; None: nothing."""
        try:
            return self.sock.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError:
            return 0

    def unsent(self) -> int:
        """Bytes that the peer has not acknowledged (SIOCOUTQ; 0 where there is no such thing)."""
        try:
            return int.from_bytes(
                fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder
            )
        except OSError:
            return 0

    def has_unread(self) -> bool:
        """Bytes have arrived that nobody has asked for."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def detach(self) -> int:
        """The descriptor, which is the caller's from here on."""
        return self.sock.detach()

    def close(self) -> None:
        self.sock.close()


def peer_name(address: object) -> str:
    """The peer's address for the log; "unix:" for one without."""
    return str(address[0]) if isinstance(address, tuple) else "unix:"
