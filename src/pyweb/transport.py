"""One connected socket, and waiting for it under a deadline.

The socket is non-blocking; every wait is one poll that also watches the lifeline: the read end of
a pipe whose write end only the master holds. When it hangs up, the master is draining or dead,
and an idle connection ends. Not here: what the bytes mean.
"""

from __future__ import annotations

import errno
import math
import select
import socket

from . import _pysend
from .clock import Deadline
from .errors import Disconnected, Reason
from .message import FileBody, Part

try:
    from . import _fastsend
except ImportError:
    _fastsend = None  # type: ignore[assignment]

_RECEIVE = 65536
# Lingering (RFC 9112 9.6): how long, and for how much, so that a refused client gets its answer.
_LINGER_SECONDS = 5.0
_LINGER_SILENCE = 2.0
_LINGER_BYTES = 64 << 20


# What can only be the file's fault when header and file are sent together.
_OF_THE_FILE = (errno.EIO, errno.ESTALE, errno.EISDIR, errno.ENODATA)


def _broken(error: OSError) -> Disconnected:
    of_the_file = error.errno in _OF_THE_FILE
    return Disconnected(Reason.STORAGE if of_the_file else Reason.CLIENT_RESET)


class TimedOut(Exception):
    """The deadline has passed."""


class Drained(Exception):
    """The lifeline hung up while the connection was idle."""


class Transport:
    """recv and send for a connected, non-blocking stream socket. Disconnected: the peer is gone."""

    def __init__(self, sock: socket.socket, lifeline: int, engine: str) -> None:
        self._sock = sock
        self._lifeline = lifeline
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        if lifeline >= 0:
            self._poll.register(lifeline, 0)
        self._push = _fastsend if engine == "cython" else _pysend
        self.drained = False  # the lifeline has hung up
        self.sent = 0

    def receive(self, deadline: Deadline, *, idle: bool = False) -> bytes:
        """Some bytes; b"": the peer has closed its half. TimedOut; Drained if idle."""
        self._wait(select.POLLIN, deadline, idle)
        try:
            return self._sock.recv(_RECEIVE)
        except BlockingIOError:
            return self.receive(deadline, idle=idle)
        except OSError:
            raise Disconnected(Reason.CLIENT_RESET) from None

    def _wait(self, events: int, deadline: Deadline, idle: bool = False) -> None:
        self._poll.modify(self._sock, events)
        while True:
            # Rounded up: a poll that wakes a moment early would spin until the deadline.
            ready = dict(self._poll.poll(math.ceil(deadline.left() * 1000)))
            if self._sock.fileno() in ready:
                return
            if ready:
                self.drained = True
                if idle:
                    raise Drained
                self._poll.unregister(self._lifeline)  # heard; the answer comes first
            elif not deadline.left():
                raise TimedOut

    def send(self, header: bytes, parts: tuple[Part, ...], deadline: Deadline) -> None:
        """All of it, in as few segments as possible.

        TimedOut, Disconnected: `sent` tells how many bytes the socket took before.
        """
        self.sent = 0
        pending = header
        for part in parts:
            if isinstance(part, FileBody):
                self._send_file(pending, part, deadline)
                pending = b""
            else:
                pending += part
        if pending:
            self._send_bytes(pending, deadline)

    def _send_bytes(self, data: bytes, deadline: Deadline) -> None:
        done = 0
        while done < len(data):
            try:
                moved = self._push.push_bytes(self._sock, data, done)
            except OSError as error:
                raise _broken(error) from None
            done = self._moved(done, moved, deadline)

    def _send_file(self, header: bytes, body: FileBody, deadline: Deadline) -> None:
        done = 0
        while done < len(header) + body.count:
            try:
                moved = self._push.push_file(
                    self._sock, header, body.fd, body.offset, body.count, done
                )
            except OSError as error:
                raise _broken(error) from None
            done = self._moved(done, moved, deadline)

    def _moved(self, before: int, after: int, deadline: Deadline) -> int:
        """Account for a push; where the socket was full, wait for room."""
        if after == before:
            self._wait(select.POLLOUT, deadline)
        else:
            deadline.moved(after - before)
            self.sent += after - before
        return after

    def linger(self) -> None:
        """Say that no more comes, and take what the client still sends, within bounds.

        Closing a socket with unread bytes in it sends a reset, which can overtake the answer.
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._discard(Deadline(_LINGER_SECONDS))
        except OSError:
            pass

    def _discard(self, whole: Deadline) -> None:
        left = _LINGER_BYTES
        buffer = bytearray(_RECEIVE)
        while left > 0 and whole.left():
            silence = Deadline(min(_LINGER_SILENCE, whole.left()))
            try:
                self._wait(select.POLLIN, silence)
                count = self._sock.recv_into(buffer)
            except (TimedOut, BlockingIOError):
                return
            if not count:
                return
            left -= count

    def has_unread(self) -> bool:
        """Bytes have arrived that nobody has asked for."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        self._sock.close()


def peer_name(sock: socket.socket, address: object) -> str:
    """The peer's address for the log; "unix:" for one without."""
    if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
        return str(address[0])
    return "unix:"
