"""Those whom no worker takes: the kernel's backlog of a pool, watched by the master.

Workers accept for themselves. When all of them hang, or are taken up by one connection each, or
can't be forked, those who come wait in the backlog, and nobody would ever tell them. So the
master looks now and then: who has waited there for --timeout-queue is accepted by the master and
gets 503. A backlog is a queue: who stood in it at a moment has left it when as many have been
accepted since. Not here: which workers there are.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from typing import Protocol

from .config import Config
from .errors import Reason
from .journal import Journal
from .listen import Listener
from .refuse import PolledRefusals, Refusals
from .transport import peer_name

# So many looks in --timeout-queue: somebody waits at the most one of them longer than was seen.
_LOOKS = 8
_SHORTEST = 0.05
# tcp_info, of a listener: how many wait. (Linux, include/uapi/linux/tcp.h: eight bytes, and
# behind four more words of 32 bits tcpi_unacked.)
_TCP_INFO = struct.Struct("=8x16xI")


class _Pool(Protocol):
    """accepted  connections that its workers have taken so far, as they tell
    is_small  there are fewer workers than there should be
    """

    def accepted(self) -> int: ...
    def is_small(self) -> bool: ...


class _Seen:
    """At `moment` somebody waited; all of them are gone when `accepted` have been."""

    __slots__ = ("accepted", "moment")

    def __init__(self, moment: float, accepted: int) -> None:
        self.moment = moment
        self.accepted = accepted


class Backlog:
    """See Entrance in mode.py. `poll` is the master's; the listeners are not in it."""

    def __init__(
        self,
        config: Config,
        *,
        listeners: list[Listener],
        pool: _Pool,
        refusals: Refusals,
        journal: Journal,
        poll: select.poll,
    ) -> None:
        self._listeners = [one.sock for one in listeners]
        self._pool = pool
        self._refusals = refusals
        self._journal = journal
        self._desk = PolledRefusals(refusals, poll)
        self._tick = max(_SHORTEST, config.timeout_queue / _LOOKS)
        self._patience = max(0.0, config.timeout_queue - self._tick)
        self._all = config.backlog
        self._refused = 0
        self._seen: deque[_Seen] = deque()
        self._next_look = 0.0
        self._draining = False

    def routine(self) -> None:
        """It has few rounds, and each is a whole one."""

    def prepare(self, _now: float, /) -> None:
        pass

    def next_due(self, _now: float, /) -> list[float | None]:
        return [self._refusals.next_deadline(), None if self._draining else self._next_look]

    def work(self, ready: list[tuple[int, int]]) -> None:
        self._desk.work(ready)
        now = time.monotonic()
        if now >= self._next_look and not self._draining:
            self._next_look = now + self._tick
            self._look(now)

    def _look(self, now: float) -> None:
        accepted = self._pool.accepted() + self._refused
        while self._seen and self._seen[0].accepted <= accepted:
            self._seen.popleft()
        if self._seen and self._seen[0].moment + self._patience <= now:
            self._refuse(self._seen.popleft().accepted - accepted)
        waiting = self.waiting()
        if waiting:
            self._seen.append(_Seen(now, self._pool.accepted() + self._refused + waiting))

    def waiting(self) -> int:
        return 0 if self._draining else sum(map(self._length, self._listeners))

    def _length(self, listener: socket.socket) -> int:
        """How many wait. Where the system doesn't tell (a unix socket), the first of them stands
        for all: as long as he is taken in time, nobody is refused."""
        if listener.family != socket.AF_UNIX and hasattr(socket, "TCP_INFO"):
            info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            count: int = _TCP_INFO.unpack(info)[0]
            return count
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        return 1 if poll.poll(0) else 0

    def _refuse(self, count: int) -> None:
        reason = Reason.FORK_FAILED if self._pool.is_small() else Reason.PROCESSES_FULL
        for listener in self._listeners:
            knows = listener.family != socket.AF_UNIX and hasattr(socket, "TCP_INFO")
            for _ in range(count if knows else self._all):
                try:
                    sock, address = listener.accept()
                except OSError:
                    break  # a worker was faster, or we have no descriptor; again soon
                self._refused += 1
                self._journal.say_often(f"reason {reason:d}: 503, {reason.meaning}")
                self._desk.refuse(sock, peer_name(address), self._patience, reason)

    def is_busy(self) -> bool:
        return bool(len(self._refusals))

    def has_processes(self) -> bool:
        return False

    def drain(self) -> None:
        """Workers take who is left in the backlog."""
        self._draining = True

    def abandon(self) -> None:
        self.drain()

    def close(self) -> None:
        self._refusals.close()
