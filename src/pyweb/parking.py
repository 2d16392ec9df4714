"""A connection on its way between processes: its descriptor, and what goes with it.

Between two of them is a socket that keeps messages apart; a descriptor in a message is open in
whoever receives it. Nothing here waits, and no byte of the connection is read. Not here: when a
connection is parked (child.py), and who holds it meanwhile (dispatcher.py).
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import termios

from .past import Past

# As the attributes of Past.
_PAST = struct.Struct("=QdQ?I")
_CONNECTION, _LOG = b"c", b"l"
NO_DESCRIPTOR = -2
_COUNTS = {b"+": 1, b"-": -1, b"0": 0}
_KINDS = {more: kind for kind, more in _COUNTS.items()}
_LONGEST = 256
# Of one connection. What another process tells may be any number, and C adds to it.
MOST_REQUESTS = 1 << 31
_ENDED = getattr(select, "POLLRDHUP", select.POLLHUP)


class Arrival:
    """A connection that has arrived; `sock` is ours now."""

    __slots__ = ("past", "peer", "sock")

    def __init__(self, sock: socket.socket, past: Past, peer: str) -> None:
        self.sock = sock
        self.past = past
        self.peer = peer


class Count:
    """`peer` has so many parked connections more: 1 or -1. 0: nobody has any."""

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


def idle_message() -> tuple[bytes, int]:
    """What pass_on sends of an idle connection, up to its peer's name; and where in it the number
    of its requests stands, as 8 bytes in this machine's order. For who parks in C."""
    return _CONNECTION + _PAST.pack(0, 0.0, 0, False, 0), len(_CONNECTION)


def tell(way: socket.socket, count: Count) -> bool:
    return _send(way, _KINDS[count.more] + count.peer.encode(), [])


def _send(way: socket.socket, data: bytes, fds: list[int]) -> bool:
    try:
        socket.send_fds(way, [data], fds, socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def receive(way: socket.socket) -> Arrival | Count | None:
    """The next; None: there is none now. EOFError: all who could send are gone. A descriptor that
    this process has no room for is closed by the kernel: the connection ends, and its peer has
    one less. What can't be understood is dropped: a child may have been taken over."""
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(way, _LONGEST, 1, socket.MSG_DONTWAIT)
        except OSError:
            return None
        if not data and has_ended(way):
            raise EOFError
        try:
            return _understood(data, fds)
        except (ValueError, OSError, struct.error):
            for fd in fds:
                os.close(fd)


def _understood(data: bytes, fds: list[int]) -> Arrival | Count:
    """ValueError, OSError (no socket), struct.error."""
    kind = data[:1]
    if kind in _COUNTS and not fds:
        return Count(data[1:].decode(), _COUNTS[kind])
    if kind != _CONNECTION:
        raise ValueError("neither")
    past, peer = Past(*_PAST.unpack_from(data, 1)), data[1 + _PAST.size :].decode()
    past.requests = min(past.requests, MOST_REQUESTS)
    return Arrival(socket.socket(fileno=fds[0]), past, peer) if fds else Count(peer, -1)


def pass_log(way: socket.socket, fd: int) -> None:
    """From the master to its dispatcher: where it writes from now on. Nobody else has this end."""
    _send(way, _LOG, [fd])


def receive_log(way: socket.socket) -> int:
    """Its descriptor; -1: nothing has come; NO_DESCRIPTOR: we had none for it. EOFError: the master
    is gone."""
    try:
        data, fds, _, _ = socket.recv_fds(way, _LONGEST, 1, socket.MSG_DONTWAIT)
    except OSError:
        return -1
    if not data:
        raise EOFError
    return fds[0] if fds else NO_DESCRIPTOR


def has_ended(sock: socket.socket) -> bool:
    """The peer sends no more, whatever is still unread."""
    poll = select.poll()
    poll.register(sock, _ENDED)
    return bool(poll.poll(0))


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
