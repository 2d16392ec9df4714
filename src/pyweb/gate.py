"""Where connections come in to one worker process: its listening sockets, and the socket by which
it adopts those of a dead one. Each of its threads polls them while it has room, and whichever
hears first that the server stops closes them for all.

Why not each for itself: a thread that is busy with a long answer would keep the port open, and
clients would hang in a backlog that nobody reads. Why not simply close: other processes have the
same sockets, so a poll that was not told would go on to report connections of theirs, and can't
be told any more. Not here: accepting.
"""

from __future__ import annotations

import select
import socket
from _thread import allocate_lock  # threading is not for a worker that has one thread
from typing import TypeAlias

Poll: TypeAlias = "select.epoll | select.poll"

# One worker is woken for a connection, not all of them.
_EVENTS = select.POLLIN | getattr(select, "EPOLLEXCLUSIVE", 0)


class Gate:
    """`adoption`: see keeper.py."""

    def __init__(
        self, listeners: list[socket.socket], adoption: socket.socket | None = None
    ) -> None:
        self.adoption = adoption
        sockets = [*listeners, adoption] if adoption else listeners
        self._sockets = {one.fileno(): one for one in sockets}
        self._lock = allocate_lock()
        self._polls: list[Poll] = []

    def get(self, fd: int) -> socket.socket | None:
        return self._sockets.get(fd)

    def sockets(self) -> list[socket.socket]:
        return list(self._sockets.values())

    def watch(self, poll: Poll) -> None:
        """Nothing happens when it is closed."""
        with self._lock:
            for fd in self._sockets:
                poll.register(fd, _EVENTS)
            self._polls.append(poll)

    def leave(self, poll: Poll) -> None:
        with self._lock:
            if poll in self._polls:
                self._polls.remove(poll)
                self._forget(poll)

    def _forget(self, poll: Poll) -> None:
        for fd in self._sockets:
            poll.unregister(fd)

    def close(self) -> None:
        """A thread that is just accepting finds a closed socket, which is an OSError."""
        with self._lock:
            for poll in self._polls:
                self._forget(poll)
            self._polls.clear()
            for one in self._sockets.values():
                one.close()
            self._sockets = {}
