"""A process for each connection: the article's mode.

The master accepts and asks for a process. It keeps its copy of the socket until the process has
ended: when that dies of a signal and nothing has been sent, the client can still be told. So a
crash costs one client a 500, and nobody else anything. Not here: accepting, limits, waiting,
and how the 500 is sent.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections import Counter
from resource import struct_rusage
from typing import TYPE_CHECKING, Protocol

from .child import END, EXIT_DEFECT, EXIT_HANDED_BACK, HELD, MOST_DOUBT, Child
from .clock import earliest
from .dispatching import Dispatching
from .errors import Reason
from .filling import Filling
from .guests import Guests
from .journal import Journal
from .losses import NOTHING_TOLD, Losses, Told
from .mode import Crash, Returned, Routine
from .nursery import Nursery
from .obituary import Obituaries, what_it_did
from .parking import MOST_REQUESTS
from .past import NEW, Past, Progress
from .scoreboard import ANSWERING, PID, READING, REQUESTS, SENT, STATE, Scoreboard, Slot
from .stamps import FORK_BEGIN, NO_STAMPS, NOTHING, NoStamps, Record, Stamps
from .stamps import PID as STAMP_PID
from .watchdog import Hang, Watchdog

if TYPE_CHECKING:
    from ._fastporter import Porter
    from ._fastzygote import Zygote

# Each fork of the master copies its descriptors, at 0.1 us: beyond so many no copy is kept for a
# child that was forked so, and the client of a crash sees its connection end. A child of the zygote
# costs no such copies, and needs one in the master to hand its connection back.
_COPIES = 256
_BARE_COPIES = 16384
# How often the children that are there are looked at.
_LOOK = 1.0
# Until the zygote tells who it was that has ended.
_SOON = 0.01

# After so many that died of what they had not, before they had begun, there is none any more.
_MOST_DEATHS = 3
_FAULTS = (signal.SIGSEGV, signal.SIGBUS)


class Forks(Protocol):
    """Of children that begin in C (repeating.py). OSError.

    porter       who does in C what is the same for each that comes; None: nobody does
    whole        a pid; in a child that needs the interpreter: how far it has come without
    again        in such a child, when it needs it no longer: how far it has come, until it does;
                 None: to the end
    zygote       another that forks children without an interpreter, which may hand back their
                 connections
    may_be_bare  may there be such?
    spares       so many of them are forked before they are asked for
    """

    may_be_bare: bool
    spares: int

    def whole(
        self, sock: socket.socket, peer: str, slot: Slot, record: Record, requests: int
    ) -> int | Progress: ...
    def again(
        self, sock: socket.socket, peer: str, slot: Slot, requests: int
    ) -> Progress | None: ...
    def zygote(self) -> Zygote: ...
    def porter(self) -> Porter | None: ...


class _Child:
    """`requests`: of a bare child, answered on its connection before; -1: it is none."""

    __slots__ = ("peer", "record", "requests", "slot", "sock", "started", "told")

    def __init__(
        self,
        slot: Slot,
        peer: str,
        sock: socket.socket | None,
        record: Record,
        requests: int,
        started: float,
    ) -> None:
        self.requests = requests
        self.slot = slot
        self.peer = peer
        self.sock = sock
        self.record = record
        self.started = started
        self.told: Told = NOTHING_TOLD


class ForkMode:
    """See mode.py.

    served   connections that got a process
    cut      those whose process did not end by itself, or not well
    forks    of children that begin in C, by the cache that `filling` is of; None: os.fork alone
    """

    def __init__(
        self,
        child: Child,
        scoreboard: Scoreboard,
        journal: Journal,
        watchdog: Watchdog,
        dispatching: Dispatching | None = None,
        filling: Filling | None = None,
        forks: Forks | None = None,
        stamps: Stamps | NoStamps = NO_STAMPS,
    ) -> None:
        self._filling = filling
        self._forks = forks
        self._doubt = 0  # so many are still forked whole
        self._doubts = 1
        self._doubted = 0.0  # when it last grew
        self._seen_off = 0  # guests, by when it was looked at last
        bare = forks.zygote if forks and forks.may_be_bare else None
        porter = forks.porter() if forks and bare else None
        self._guests: Guests[_Child] = Guests(porter, self._own)
        spares = forks.spares if forks else 0
        self._nursery: Nursery[_Child] = Nursery(bare, journal, self._guests, spares)
        self._unknown: dict[int, tuple[int, struct_rusage]] = {}
        self._bare_deaths = 0
        self._returned: list[Returned] = []
        self._needs_python: set[int] = set()  # sockets
        self._child = child
        self._scoreboard = scoreboard
        self._journal = journal
        self._watchdog = watchdog
        self._dispatching = dispatching
        self._stamps = stamps
        self._children: dict[int, _Child] = {}
        self._living = 0  # they, and those whose pids are not known yet
        self._copies = 0
        self._next_look = 0.0
        self._crashes: list[Crash] = []
        self.has_news = False
        self._obituaries = Obituaries()
        self._peers: Counter[str] = Counter()
        self._ending = False
        self._served = 0
        self.cut = 0
        self._losses = Losses(journal)

    unit = "connections"
    refused = 0  # nobody here refuses

    def tend(self) -> float | None:
        """Children are forked when they are wanted; one that stays long has its losses told."""
        now = time.monotonic()
        self._meet()
        due = self._nursery.tend()
        if self.has_news:
            due = now  # they wait for the next round
        if self._unknown:
            due = earliest(due, now + _SOON)
        if not self.count():
            return due
        if now >= self._next_look:
            self._next_look = now + _LOOK
            self._nursery.take_over()
            self._take_over(now - _LOOK)
            for one in self._children.values():
                one.told = self._losses.tell((one.slot,), one.told)
        return earliest(due, self._next_look, self._watch())

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
        """Each serves its one connection, but the zygote's children have the log that it had."""
        self._nursery.renew()
        self._meet()

    def resize(self, by: int) -> None:
        """There are as many as there are connections."""

    def count(self) -> int:
        return self._living + self._guests.count

    @property
    def served(self) -> int:
        return self._served + self._guests.served

    def of_peer(self, peer: str) -> int:
        return self._peers[peer]

    def serve(self, sock: socket.socket, peer: str, past: Past, record: Record = NOTHING) -> bool:
        """Fork. True: the socket is ours."""
        may_be_bare = self._may_be_bare(sock, past)
        if may_be_bare and past is NEW and self._guests.take_in(sock, peer):
            return True
        slot = self._scoreboard.take(int(time.time() * 1000))
        slot.say_peer(peer.encode())
        record.mark(FORK_BEGIN)
        if may_be_bare and self._ask_for_bare(sock, peer, slot, past, record):
            return True
        try:
            # Where a head has begun, the socket has been told for how much of it to wait.
            if self._forks is None or past.began:
                pid = self._fork_python(sock, peer, slot, past, record)
            else:
                pid = self._fork_whole(self._forks, sock, peer, slot, past, record)
        except OSError as error:
            self._scoreboard.give_back(slot)
            self._journal.say_often(f"fork: {error.strerror}: connections wait for a process")
            return False
        self._needs_python.discard(sock.fileno())
        one = _Child(slot, peer, self._copy(sock), record, -1, time.monotonic())
        self._has_begun(one)
        self._unknown.pop(pid, None)  # that was another, long ago
        self._know(pid, one)
        return True

    def _ask_for_bare(
        self, sock: socket.socket, peer: str, slot: Slot, past: Past, record: Record
    ) -> bool:
        one = _Child(slot, peer, sock, record, past.requests, time.monotonic())
        order = (sock.fileno(), peer.encode(), slot.at, *record.place, past.requests)
        if not self._nursery.ask(one, order):
            return False
        self._copies += 1
        self._has_begun(one)
        return True

    def _has_begun(self, one: _Child) -> None:
        self._stamps.forked(one.record)
        self._peers[one.peer] += 1
        self._living += 1
        self._served += 1

    def _know(self, pid: int, one: _Child) -> None:
        one.slot.set(PID, pid)
        one.record.set(STAMP_PID, pid)
        self._children[pid] = one
        if pid in self._unknown:
            self._bury(pid, *self._unknown.pop(pid))

    def _meet(self) -> None:
        """The children whose pids the zygote has told."""
        if not (self._nursery or self._unknown or self._guests.failed):
            return
        for pid, one in self._nursery.told():
            if pid > 0:
                self._know(pid, one)
            else:
                self._has_no_child(one)
        for one in self._guests.give_up_failed():
            self._has_no_child(one)
        for pid in list(self._unknown):
            guest = self._guests.give_up(pid)
            if guest:
                self._know(pid, guest)

    def _has_no_child(self, one: _Child) -> None:
        if one.sock:
            self._has_been_in_vain(one)
            self._has_ended(one)
            self._hand_back(one, one.sock)

    # Guests, see guests.py.

    def routine(self, doors: list[int], most: int, *, also_silent: bool) -> Routine | None:
        """As _may_be_bare, of those who come."""
        if self._doubt or self._bare_deaths >= _MOST_DEATHS or self._copies >= _BARE_COPIES:
            return None
        return self._guests.routine(doors, most, also_silent=also_silent)

    def came(self) -> list[tuple[int, int, str]]:
        return self._guests.came()

    def _own(
        self, slot: Slot, peer: str, sock: socket.socket, record: Record, began: float
    ) -> _Child:
        self._copies += 1
        self._living += 1
        self._peers[peer] += 1
        return _Child(slot, peer, sock, record, 0, began)

    def _take_over(self, before: float) -> None:
        """Those who came before that moment."""
        self._children.update(self._guests.give_up_known(before))

    def _may_be_bare(self, sock: socket.socket, past: Past) -> bool:
        """It must be possible to hand it back, and likely that there is no need to."""
        if self._forks is None or past.began or self._copies >= _BARE_COPIES:
            return False
        if self._bare_deaths >= _MOST_DEATHS:
            return False
        if sock.fileno() in self._needs_python:
            return False
        if self._doubt:
            self._doubt -= 1
            return False
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

    def _fork_whole(
        self, forks: Forks, sock: socket.socket, peer: str, slot: Slot, past: Past, record: Record
    ) -> int:
        """Of its children only those come back that have more to do than to repeat."""
        pid = forks.whole(sock, peer, slot, record, past.requests)
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
        self.has_news = bool(self._returned)
        return found

    def returned(self) -> list[Returned]:
        """Handed back since the last time: they need another process. Their sockets belong to who
        asks."""
        found, self._returned = self._returned, []
        self.has_news = bool(self._crashes)
        self._needs_python.update(one.sock.fileno() for one in found)
        return found

    def reap(self) -> None:
        """All that have ended, in one go; and what the zygote could not do, for which it wakes us
        as if one had."""
        self._meet()
        for pid, code, usage in self._guests.reap():
            if pid not in self._children:
                self._meet()  # it has told meanwhile who it is
            guest = self._guests.give_up(pid)
            if guest:
                self._children[pid] = guest
            if pid in self._children:
                self._bury(pid, code, usage)
            elif not self._bury_helper(pid, code, usage) and self._may_be_told:
                self._unknown[pid] = code, usage  # it has ended before the zygote could tell
        if not self._nursery:
            self._unknown.clear()
        if self._doubts > 1 and self._guests.seen_off > self._seen_off:
            self._doubts = 1
        self._seen_off = self._guests.seen_off

    @property
    def _may_be_told(self) -> bool:
        """A spare tells who it is before it serves."""
        return bool(self._nursery) and not (self._forks and self._forks.spares)

    def _bury_helper(self, pid: int, code: int, usage: struct_rusage) -> bool:
        helpers = (self._dispatching, self._filling)
        if any(one and one.bury(pid, code, usage, self._obituaries) for one in helpers):
            return True
        if self._nursery.bury(pid, code, usage, self._obituaries):
            self._meet()
            return True
        return False

    def _bury(self, pid: int, code: int, usage: struct_rusage) -> None:
        one = self._children.pop(pid)
        self._has_ended(one)
        self._losses.tell((one.slot,), one.told)
        if one.requests >= 0 and one.sock and self._is_handed_back(code, one):
            self._hand_back(one, one.sock)
            return
        if one.requests >= 0 and one.sock and self._has_died_idle(code, one):
            self.cut += 1
            self._tell(pid, self._obituaries.tell(code, usage), one)
            self._hand_back(one, one.sock)
            return
        self._stamps.reaped(one.record, usage)
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

    def _is_handed_back(self, code: int, one: _Child) -> bool:
        """As the child says: of it depends what its own client gets, and little else."""
        if code in (0, EXIT_HANDED_BACK) and (not code or one.slot.get(REQUESTS) > 0):
            self._doubts = 1  # it was of use
        else:
            self._has_been_in_vain(one)
        return code == EXIT_HANDED_BACK

    def _has_been_in_vain(self, one: _Child) -> None:
        """Where Python is needed anyway a bare child is a fork too many: after one so many are
        forked whole, twice as many each time. Those that were begun together say it once: whole
        forks cost the master much, and where children take the CPU it has its share, no more."""
        if one.started >= self._doubted:
            self._doubted = time.monotonic()
            self._doubt, self._doubts = self._doubts, min(2 * self._doubts, MOST_DOUBT)

    def _has_died_idle(self, code: int, one: _Child) -> bool:
        """Of a signal, and had taken nothing: another process can go on. If it is for what it
        lacks, others would die of it too."""
        if code >= 0 or self._ending or one.slot.get(STATE) in (READING, ANSWERING):
            return False
        self._bare_deaths += -code in _FAULTS
        return not one.slot.get(SENT)

    def _hand_back(self, one: _Child, sock: socket.socket) -> None:
        self._copies -= 1
        self._served -= 1
        past = Past(min(one.requests + max(0, one.slot.get(REQUESTS)), MOST_REQUESTS))
        self._scoreboard.give_back(one.slot)
        self._returned.append(Returned(sock, one.peer, past, one.record))
        self.has_news = True

    def _has_ended(self, one: _Child) -> None:
        self._living -= 1
        self._peers[one.peer] -= 1
        if not self._peers[one.peer]:
            del self._peers[one.peer]

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
            self.has_news = True
            self._crashes.append(Crash(sock, one.peer, one.slot.text(), seconds, reason))

    def end(self, *, kill: bool) -> None:
        self._nursery.settle()
        self._meet()
        self._take_over(math.inf)
        if not self._ending:
            self.cut += len(self._children)
        self._ending = True
        for pid in self._children:
            os.kill(pid, signal.SIGKILL if kill else END)

    def close(self) -> None:
        self._nursery.close()
