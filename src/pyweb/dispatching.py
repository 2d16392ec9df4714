"""The master's side of the dispatcher: it is started, replaced when it dies, and talked to.

Both sockets to it outlive it, so what is on its way when it dies reaches the next one; what it
held is lost. Without epoll (not Linux) there is none, and connections keep their process. Not
here: what the dispatcher does.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Callable
from resource import struct_rusage
from typing import TYPE_CHECKING

from .errors import Reason
from .helper import Helper
from .journal import Journal
from .obituary import Obituaries
from .parking import Arrival, Count, pair, pass_log, pass_on, receive
from .past import NEW
from .scoreboard import Slot

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

AVAILABLE = hasattr(select, "epoll")

# (inbox, master) -> the dispatcher, made in its own process.
Make = Callable[[socket.socket, socket.socket], "Dispatcher"]


class Dispatching:
    """fd      readable when a connection wants a process
    ended   nothing will ever come from there any more
    parker  where children park theirs
    """

    def __init__(self, make: Make, keep: tuple[int, ...], journal: Journal, slot: Slot) -> None:
        """OSError."""
        self._make = make
        self._inbox, self.parker = pair()
        self._to_master, self._from_dispatcher = pair()
        self.fd = self._from_dispatcher.fileno()
        self._parked: Counter[str] = Counter()
        self._draining = False
        self.ended = False
        self._helper = Helper(
            "dispatcher",
            self._work,
            (self._inbox.fileno(), self._to_master.fileno(), *keep),
            without="no dispatcher, nothing is parked",
            reason=Reason.DISPATCHER_DIED,
            journal=journal,
            slot=slot,
        )

    # Keeping it.

    def _work(self) -> None:
        self._make(self._inbox, self._to_master).run()

    def tend(self) -> float | None:
        """As Helper.tend."""
        return self._helper.tend()

    def bury(self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries) -> bool:
        """Was it this one?"""
        if not self._helper.bury(pid, code, usage, obituaries):
            return False
        self._parked.clear()
        return True

    @property
    def lives(self) -> bool:
        return bool(self._helper.pid) or (self._draining and not self.ended)

    # Talking to it.

    def park(self, sock: socket.socket, peer: str) -> bool:
        """One that is silent so far. True: the socket is no longer ours."""
        if not self._helper.pid or not pass_on(self.parker, sock, NEW, peer):
            return False
        sock.close()
        return True

    def take(self) -> Arrival | None:
        """One that wants a process."""
        try:
            while isinstance(got := receive(self._from_dispatcher), Count):
                self._count(got.peer, got.more)
        except EOFError:
            self.ended = True  # it has left, as it was told to
            return None
        if got is not None:
            self._count(got.peer, -1)
        return got

    def _count(self, peer: str, more: int) -> None:
        if not more:
            self._parked.clear()
            return
        self._parked[peer] += more
        if self._parked[peer] <= 0:
            del self._parked[peer]

    def of_peer(self, peer: str) -> int:
        """How many this address has parked."""
        return self._parked[peer]

    def pass_log(self, fd: int) -> None:
        if self._helper.pid:
            pass_log(self._from_dispatcher, fd)

    # Ending.

    def drain(self) -> None:
        """The lifeline tells it; there will be no other, so what is on its way to it must end
        with it."""
        self._draining = True
        self._helper.drain()
        self._inbox.close()
        self._to_master.close()

    def end(self, *, kill: bool) -> None:
        self._helper.end(kill=kill)

    def close(self) -> None:
        for sock in (self._inbox, self.parker, self._to_master, self._from_dispatcher):
            sock.close()
