"""A connection on its way between processes: its descriptor, and what goes with it.

Between two of them is a socket that keeps messages apart; a descriptor in a message is open in
whoever receives it. Nothing here waits, and no byte of the connection is read. Not here: when a
connection is parked (child.py), and who holds it meanwhile (dispatcher.py).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios

from .connection import Past

# As the attributes of Past.
_PAST = struct.Struct("=QdQ?I")
_CONNECTION, _MORE, _LESS = b"c", b"+", b"-"
_LONGEST = 256


class Arrival:
    """A connection that has arrived; `sock` is ours now."""

    __slots__ = ("past", "peer", "sock")

    def __init__(self, sock: socket.socket, past: Past, peer: str) -> None:
        self.sock = sock
        self.past = past
        self.peer = peer


class Count:
    """`peer` has so many parked connections more."""

    __slots__ = ("more", "peer")

    def __init__(self, peer: str, more: int) -> None:
        self.peer = peer
        self.more = more


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends. OSError."""
    kind = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)
    ends = socket.socketpair(socket.AF_UNIX, kind)
    for end in ends:
        end.setblocking(False)
    return ends


def pass_on(way: socket.socket, sock: socket.socket, past: Past, peer: str) -> bool:
    """False: not now, or nobody is there; the connection is still the caller's. True: it is the
    receiver's, and the caller has only to close its own descriptor."""
    data = _PAST.pack(past.requests, past.began, past.seen, past.owed, past.tries) + peer.encode()
    return _send(way, _CONNECTION + data, [sock.fileno()])


def tell(way: socket.socket, count: Count) -> bool:
    return _send(way, (_MORE if count.more > 0 else _LESS) + count.peer.encode(), [])


def _send(way: socket.socket, data: bytes, fds: list[int]) -> bool:
    try:
        socket.send_fds(way, [data], fds)
    except OSError:
        return False
    return True


def receive(way: socket.socket) -> Arrival | Count | None:
    """The next; None: there is none now. EOFError: all who could send are gone. A descriptor that
    this process has no room for is closed by the kernel: the connection ends."""
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(way, _LONGEST, 1)
        except OSError:
            return None
        if not data:
            raise EOFError
        if data[:1] != _CONNECTION:
            return Count(data[1:].decode(), 1 if data[:1] == _MORE else -1)
        if fds:
            past = Past(*_PAST.unpack_from(data, 1))
            return Arrival(socket.socket(fileno=fds[0]), past, data[1 + _PAST.size :].decode())


def unread(sock: socket.socket) -> int:
    """Bytes that have arrived and wait in the kernel (FIONREAD)."""
    try:
        answer = fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4)
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


def raise_limit_of_descriptors() -> int:
    """To what the system allows, in a process that holds many; gives it."""
    import resource  # not in a master: it would add to what each fork copies

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
