"""A process for each connection: the article's mode.

The master accepts and asks for a process. Not here: accepting, limits, waiting.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter

from .child import END, EXIT_DEFECT, Child, ended_children, how_it_ended
from .errors import Reason
from .journal import LINES_LOST, Journal
from .scoreboard import LOST_LINES, Scoreboard, Slot
from .signals import HELD


class ForkMode:
    """See mode.py.

    served   connections that got a process
    cut      those whose process did not end by itself, or not well
    """

    def __init__(self, child: Child, scoreboard: Scoreboard, journal: Journal) -> None:
        self._child = child
        self._scoreboard = scoreboard
        self._journal = journal
        self._children: dict[int, tuple[Slot, str]] = {}
        self._peers: Counter[str] = Counter()
        self._ending = False
        self.served = 0
        self.cut = 0
        self.lost_lines = 0

    unit = "connections"

    def tend(self) -> float | None:
        """Children are forked when they are wanted."""
        return None

    def drain(self) -> None:
        """The lifeline tells them."""

    def count(self) -> int:
        return len(self._children)

    def of_peer(self, peer: str) -> int:
        return self._peers[peer]

    def serve(self, sock: socket.socket, peer: str) -> bool:
        """Fork. The parent's copy of the socket stays open: it is the master's to close."""
        slot = self._scoreboard.take(int(time.time() * 1000))
        # No signal may find the child before it has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid = os.fork()
            if pid == 0:
                self._child.run(sock, peer, slot)
        except OSError as error:
            self._scoreboard.give_back(slot)
            self._journal.say_often(f"fork: {error.strerror}: connections wait for a process")
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._children[pid] = slot, peer
        self._peers[peer] += 1
        self.served += 1
        return True

    def reap(self) -> None:
        """All that have ended, in one go."""
        for pid, code in ended_children():
            if pid in self._children:
                self._bury(pid, code)

    def _bury(self, pid: int, code: int) -> None:
        slot, peer = self._children.pop(pid)
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
        lost = slot.get(LOST_LINES)
        if lost:
            self.lost_lines += lost
            self._journal.say_often(LINES_LOST, lost)
        self._scoreboard.give_back(slot)
        if not code or self._ending:
            return
        self.cut += 1
        if code != EXIT_DEFECT:  # that one has said its last words itself
            how = how_it_ended(code)
            self._journal.say(f"reason {Reason.CHILD_DIED:d}: child {pid}, serving {peer}, {how}")

    def end(self, *, kill: bool) -> None:
        if not self._ending:
            self.cut += len(self._children)
        self._ending = True
        for pid in self._children:
            os.kill(pid, signal.SIGKILL if kill else END)
