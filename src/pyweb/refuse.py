"""Answers that the master gives itself: 503 to connections that get no process, 500 to those
whose process has died.

The master reads no client byte: it sends prepared bytes once, without waiting, says that no more
comes, and lets the kernel throw away what the client sends (recv with MSG_TRUNC copies nothing)
until the client has closed or the bound is reached. Closing at once would reset the connection,
and the client might never see the answer.
"""

from __future__ import annotations

import select
import socket
import time

from . import render
from .accesslog import AccessLog, Entry
from .errors import HTTPError, Reason
from .journal import LINES_LOST, Journal
from .message import Fields
from .route import refusal

# How long, for how many bytes and for how many clients at once the master lingers.
_SECONDS = 2.0
_BYTES = 16 << 20
_CLIENTS = 256

_DISCARD = socket.MSG_DONTWAIT | socket.MSG_TRUNC


class _Lingering:
    __slots__ = ("left", "sock", "until")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.until = time.monotonic() + _SECONDS
        self.left = _BYTES


class Refusals:
    """Connections that have been refused and linger. Their descriptors are polled by the loop.
    `lingering`: they, by descriptor; to look at."""

    def __init__(self, log: AccessLog, journal: Journal, extra: Fields, retry_after: int) -> None:
        self._log = log
        self._journal = journal
        self._extra = extra
        self._retry_after = b"%d" % max(1, retry_after)
        self.lingering: dict[int, _Lingering] = {}  # by descriptor
        self.count = 0
        self.lost_lines = 0

    def refuse(
        self, sock: socket.socket, peer: str, seconds: float, reason: Reason, line: bytes = b""
    ) -> int | None:
        """Answer with the reason's status. Gives the descriptor to poll; None: the socket is
        closed."""
        later = reason.status == 503
        self.count += later
        fields = ((b"Retry-After", self._retry_after),) if later else ()
        error = HTTPError(reason, fields=fields, close=True)
        response = refusal(error)
        head = render.header_bytes(response, 1, False, self._extra)
        answer = head + b"".join(p for p in response.parts if isinstance(p, bytes))
        sent = _send_once(sock, answer)
        whole = sent == len(answer)
        told = reason if whole else Reason.CLIENT_RESET
        size = max(0, sent - len(head))
        self._write(Entry(peer, None, line, response.status, size, seconds, told))
        if not whole:
            sock.close()
            return None
        return self.linger(sock)

    def linger(self, sock: socket.socket) -> int | None:
        """With one that has its answer. As refuse()."""
        if len(self.lingering) >= _CLIENTS:
            sock.close()
            return None
        self.lingering[sock.fileno()] = _Lingering(sock)
        return sock.fileno()

    def note(self, peer: str, line: bytes, seconds: float, reason: Reason) -> None:
        """The line of a request whose answer somebody else began and never logged."""
        self._write(Entry(peer, None, line, 0, 0, seconds, reason))

    def _write(self, entry: Entry) -> None:
        if not self._log.write(entry):
            self.lost_lines += 1
            self._journal.say_often(LINES_LOST)

    def events(self, fd: int) -> int:
        """What to poll `fd` for. A unix socket has no MSG_TRUNC for streams: what its client
        sends stays where it is, and the hang-up alone (always polled for) is waited for."""
        return 0 if self.lingering[fd].sock.family == socket.AF_UNIX else select.POLLIN

    def ready(self, fd: int) -> bool:
        """Discard what has come. True: done with it, the descriptor is closed."""
        one = self.lingering[fd]
        try:
            count = len(one.sock.recv(65536, _DISCARD)) if self.events(fd) else 0
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        one.left -= count
        if count and one.left > 0:
            return False
        self._close(fd)
        return True

    def expired(self) -> list[int]:
        """Close those whose time is over; gives their descriptors, to be polled no more."""
        if not self.lingering:
            return []
        now = time.monotonic()
        over = [fd for fd, one in self.lingering.items() if one.until <= now]
        for fd in over:
            self._close(fd)
        return over

    def next_deadline(self) -> float | None:
        if not self.lingering:
            return None
        return min(one.until for one in self.lingering.values())

    def close(self) -> None:
        for fd in list(self.lingering):
            self._close(fd)

    def __contains__(self, fd: int) -> bool:
        return fd in self.lingering

    def __len__(self) -> int:
        return len(self.lingering)

    def _close(self, fd: int) -> None:
        self.lingering.pop(fd).sock.close()


class PolledRefusals:
    """Refusals, and the poll that watches those who linger."""

    def __init__(self, refusals: Refusals, poll: select.poll) -> None:
        self.refusals = refusals
        self._poll = poll

    def refuse(
        self, sock: socket.socket, peer: str, seconds: float, reason: Reason, line: bytes = b""
    ) -> None:
        self._watch(self.refusals.refuse(sock, peer, seconds, reason, line))

    def linger(self, sock: socket.socket) -> None:
        self._watch(self.refusals.linger(sock))

    def _watch(self, fd: int | None) -> None:
        if fd is not None:
            self._poll.register(fd, self.refusals.events(fd))

    def work(self, ready: list[tuple[int, int]]) -> None:
        """What the poll has found, and whose time is over."""
        for fd, _ in ready:
            if fd in self.refusals and self.refusals.ready(fd):
                self._poll.unregister(fd)
        for fd in self.refusals.expired():
            self._poll.unregister(fd)

    def work_off(self) -> None:
        """Until nobody lingers any more, where there is nothing else to do."""
        while (due := self.refusals.next_deadline()) is not None:
            self.work(self._poll.poll(max(0, due - time.monotonic()) * 1000 + 1))


def discard(sock: socket.socket, size: int) -> None:
    """Let the kernel throw away what a client has sent: where something is unread, closing is a
    reset, and takes what the client has not yet received of the answer before."""
    if sock.family == socket.AF_UNIX:
        return
    try:
        while size > 0 and (count := len(sock.recv(min(size, 65536), _DISCARD))):
            size -= count
    except OSError:
        pass


def _send_once(sock: socket.socket, answer: bytes) -> int:
    """How much the socket took; nothing more will come."""
    try:
        sent = sock.send(answer, socket.MSG_DONTWAIT)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return 0
    return sent
