"""Between a supervisor and its master: a few bytes over a socket that hangs up when one dies.

The supervisor orders; the master says that it serves, and that it leaves of its own. A signal
would do for the orders, but a terminal, a process group and systemd send theirs to both
processes, and the same word would then be heard twice. Not here: what is done about it.
"""

from __future__ import annotations

import os
import socket
from collections import deque

# Orders: another serves now, let connections end in their own time; let them end; end them.
RETIRE, DRAIN, END = b"t", b"d", b"e"
# The pool is larger or smaller by one; the log goes to the descriptor that comes with the word.
GROW, SHRINK, REOPEN = b"+", b"-", b"o"
# Say that your loop turns.
CHECK = b"c"
# News: it serves; it has been told to leave by somebody else, and serves no longer; it turns.
READY, LEAVING, ALIVE = b"r", b"l", b"a"
_WORDS = 64


class Channel:
    """One end. `gone`: the other has hung up; then it is always readable, and need not be polled.
    `fds`: descriptors that have come with a word, ours to close.

    say    an order, or news; nobody may be there any more
    hear   what has been said since, in its order
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.fd = sock.fileno()
        self.gone = False
        self.fds: deque[int] = deque()

    def say(self, word: bytes, fd: int = -1) -> None:
        try:
            if fd < 0:
                self._sock.send(word)
            else:
                socket.send_fds(self._sock, [word], [fd])
        except OSError:
            pass

    def hear(self) -> list[bytes]:
        heard: list[bytes] = []
        while not self.gone:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, _WORDS, 1)
            except BlockingIOError:
                break
            except OSError:
                data, fds = b"", []
            self.fds += fds
            self.gone = not data
            heard += [data[i : i + 1] for i in range(len(data))]
        return heard

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.popleft())
        self._sock.close()


def pair() -> tuple[Channel, socket.socket]:
    """The supervisor's end, and what its master inherits. OSError."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs
