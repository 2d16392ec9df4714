"""Between a supervisor and its master: a few bytes over a socket that hangs up when one dies.

The supervisor orders; the master says that it serves, and that it leaves of its own. A signal
would do for the orders, but a terminal, a process group and systemd send theirs to both
processes, and the same word would then be heard twice. Not here: what is done about it.
"""

from __future__ import annotations

import socket

# Orders: let connections end, and end them; say that your loop turns.
DRAIN, END, CHECK = b"d", b"e", b"c"
# News: it serves; it has been told to leave by somebody else, and serves no longer; it turns.
READY, LEAVING, ALIVE = b"r", b"l", b"a"


class Channel:
    """One end. `gone`: the other has hung up; then it is always readable, and need not be polled.

    say    an order, or news; nobody may be there any more
    hear   what has been said since
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.fd = sock.fileno()
        self.gone = False

    def say(self, order: bytes) -> None:
        try:
            self._sock.send(order)
        except OSError:
            pass

    def hear(self) -> set[bytes]:
        heard: set[bytes] = set()
        while not self.gone:
            try:
                data = self._sock.recv(64)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.gone = not data
            heard |= {data[i : i + 1] for i in range(len(data))}
        return heard

    def close(self) -> None:
        self._sock.close()


def pair() -> tuple[Channel, socket.socket]:
    """The supervisor's end, and what its master inherits. OSError."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs
