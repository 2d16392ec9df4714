"""A process for each connection: the article's mode.

The master accepts and asks for a process. It keeps its copy of the socket until the process has
ended: when that dies of a signal and nothing has been sent, the client can still be told. So a
crash costs one client a 500, and nobody else anything. Not here: accepting, limits, waiting,
and how the 500 is sent.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from resource import struct_rusage

from .child import END, EXIT_DEFECT, HELD, Child, ended_children
from .clock import earliest
from .connection import Past, Progress
from .dispatching import Dispatching
from .errors import Reason
from .filling import Filling
from .journal import Journal
from .losses import Losses
from .mode import Crash
from .obituary import Obituaries, what_it_did
from .scoreboard import ANSWERING, PID, READING, SENT, STATE, Scoreboard, Slot
from .stamps import FORK_BEGIN, NO_STAMPS, NOTHING, NoStamps, Record, Stamps
from .watchdog import Hang, Watchdog

# (socket, peer, slot, record, requests answered) -> pid; in a child that needs the interpreter: how
# far it has come without.
Fork = Callable[[socket.socket, str, Slot, Record, int], "int | Progress"]
# Each fork copies the descriptors of all who hold one; so many are 0.15 us each, beyond is no
# copy kept and the client of a crash sees its connection end.
_COPIES = 256
# How often the children that are there are looked at.
_LOOK = 1.0


class _Child:
    __slots__ = ("peer", "record", "slot", "sock", "started", "told")

    def __init__(self, slot: Slot, peer: str, sock: socket.socket | None, record: Record) -> None:
        self.slot = slot
        self.peer = peer
        self.sock = sock
        self.record = record
        self.started = time.monotonic()
        self.told = Losses.none()


class ForkMode:
    """See mode.py.

    served   connections that got a process
    cut      those whose process did not end by itself, or not well
    fork     of a child that begins in C, by the cache that `filling` is of; None: os.fork alone
    """

    def __init__(
        self,
        child: Child,
        scoreboard: Scoreboard,
        journal: Journal,
        watchdog: Watchdog,
        dispatching: Dispatching | None = None,
        filling: Filling | None = None,
        fork: Fork | None = None,
        stamps: Stamps | NoStamps = NO_STAMPS,
    ) -> None:
        self._filling = filling
        self._fork = fork
        self._child = child
        self._scoreboard = scoreboard
        self._journal = journal
        self._watchdog = watchdog
        self._dispatching = dispatching
        self._stamps = stamps
        self._children: dict[int, _Child] = {}
        self._copies = 0
        self._next_look = 0.0
        self._crashes: list[Crash] = []
        self._obituaries = Obituaries()
        self._peers: Counter[str] = Counter()
        self._ending = False
        self.served = 0
        self.cut = 0
        self._losses = Losses(journal)

    unit = "connections"
    refused = 0  # nobody here refuses

    def tend(self) -> float | None:
        """Children are forked when they are wanted; one that stays long has its losses told."""
        if not self._children:
            return None
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK
            for one in self._children.values():
                self._losses.tell([one.slot], one.told)
        return earliest(self._next_look, self._watch())

    def _watch(self) -> float | None:
        if self._ending:
            return None
        return self._watchdog.look((pid, [one.slot]) for pid, one in self._children.items())

    @property
    def lost_lines(self) -> int:
        return self._losses.lines

    def drain(self) -> None:
        """The lifeline tells them."""

    def renew(self) -> None:
        """Each serves its one connection."""

    def resize(self, by: int) -> None:
        """There are as many as there are connections."""

    def count(self) -> int:
        return len(self._children)

    def of_peer(self, peer: str) -> int:
        return self._peers[peer]

    def serve(self, sock: socket.socket, peer: str, past: Past, record: Record = NOTHING) -> bool:
        """Fork. True: the socket is ours."""
        slot = self._scoreboard.take(int(time.time() * 1000))
        slot.say_peer(peer.encode())
        record.mark(FORK_BEGIN)
        try:
            # Where a head has begun, the socket has been told for how much of it to wait.
            if self._fork is None or past.began:
                pid = self._fork_python(sock, peer, slot, past, record)
            else:
                pid = self._fork_repeater(self._fork, sock, peer, slot, past, record)
        except OSError as error:
            self._scoreboard.give_back(slot)
            self._journal.say_often(f"fork: {error.strerror}: connections wait for a process")
            return False
        self._stamps.forked(record, pid)
        slot.set(PID, pid)
        self._children[pid] = _Child(slot, peer, self._copy(sock), record)
        self._peers[peer] += 1
        self.served += 1
        return True

    def _fork_python(
        self, sock: socket.socket, peer: str, slot: Slot, past: Past, record: Record
    ) -> int:
        # No signal may find the child before it has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid = os.fork()
            if pid == 0:
                self._child.run(sock, peer, slot, past, record)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return pid

    def _fork_repeater(
        self, fork: Fork, sock: socket.socket, peer: str, slot: Slot, past: Past, record: Record
    ) -> int:
        """Of its children only those come back that have more to do than to repeat."""
        pid = fork(sock, peer, slot, record, past.requests)
        if not isinstance(pid, int):
            self._child.go_on(sock, peer, slot, past, record, pid)
        return pid

    def _copy(self, sock: socket.socket) -> socket.socket | None:
        if self._copies >= _COPIES:
            sock.close()
            return None
        self._copies += 1
        return sock

    def crashes(self) -> list[Crash]:
        """Since the last time. Their sockets belong to who asks."""
        found, self._crashes = self._crashes, []
        return found

    def reap(self) -> None:
        """All that have ended, in one go."""
        for pid, code, usage in ended_children():
            if pid in self._children:
                self._bury(pid, code, usage)
                continue
            if self._dispatching:
                self._dispatching.bury(pid, code, usage, self._obituaries)
            if self._filling:
                self._filling.bury(pid, code, usage, self._obituaries)

    def _bury(self, pid: int, code: int, usage: struct_rusage) -> None:
        one = self._children.pop(pid)
        self._stamps.reaped(one.record, usage)
        self._forget_peer(one.peer)
        self._losses.tell([one.slot], one.told)
        hung = self._watchdog.bury(pid, code, usage)
        if code and not self._ending:
            self.cut += 1
            if code != EXIT_DEFECT and not hung:  # of those all has been said
                self._tell(pid, self._obituaries.tell(code, usage), one)
            self._owe_an_answer(one, hung)
        self._scoreboard.give_back(one.slot)
        if one.sock:
            self._copies -= 1
            if not (self._crashes and self._crashes[-1].sock is one.sock):
                one.sock.close()

    def _forget_peer(self, peer: str) -> None:
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def _tell(self, pid: int, obituary: str, one: _Child) -> None:
        """What the slot says was written by who crashed: shown, and believed as far as its own
        client is concerned."""
        doing = what_it_did(one.peer, one.slot.text())
        self._journal.say(f"reason {Reason.CHILD_DIED:d}: child {pid}, {doing}, {obituary}")

    def _owe_an_answer(self, one: _Child, hung: list[Hang]) -> None:
        if one.slot.get(STATE) in (READING, ANSWERING):
            reason = Reason.REQUEST_TIMEOUT if hung else Reason.CHILD_DIED
            seconds = hung[0].seconds if hung else time.monotonic() - one.started
            sock = None if one.slot.get(SENT) else one.sock
            self._crashes.append(Crash(sock, one.peer, one.slot.text(), seconds, reason))

    def end(self, *, kill: bool) -> None:
        if not self._ending:
            self.cut += len(self._children)
        self._ending = True
        for pid in self._children:
            os.kill(pid, signal.SIGKILL if kill else END)
