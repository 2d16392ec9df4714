"""A worker: one thread of a pool, with many open connections in its own epoll, one request at a
time. It accepts for itself; a connection that idles or is slow costs it no attention.

The same conversation as in a child, driven by many at once. Not here: how many workers there
are, and when another is wanted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from _thread import get_native_id
from typing import TYPE_CHECKING

from .connection import Connection
from .errors import Ended, Reason
from .gate import Gate, Poll
from .handed import LATE, LINGER, Handed
from .handed import NEW as NEWCOMER
from .lane import Lanes
from .ledger import Ledger, Seat
from .parking import Arrival, receive
from .past import NEW, Owed, Owing, Past
from .refuse import Refusals
from .scoreboard import (
    CONNECTIONS,
    FREE,
    IDLE_WORKER,
    OPEN,
    REQUESTS,
    RETIRING,
    STATE,
    STEP,
    THREAD,
    TURNED_AWAY,
    WORKING,
    Slot,
)
from .service import Service
from .shares import Shares
from .stamps import NO_STAMPS, NoStamps, Stamps
from .transport import Transport, peer_name
from .wait import DRAINED, IDLE, READ, READY, TIMED_OUT, TURN, Steps, Wait

if TYPE_CHECKING:
    from ._fastlane import Lane

# How often deadlines are looked at; they are seconds long, and a look at each costs a moment.
_SWEEP = 0.1
# How often a worker that was not woken looks for connections. Of several who wait, one is woken
# for each; if it is stopped just then (SIGSTOP), nobody else hears of that connection.
_LOOK = 0.5
# After an accept that failed for want of descriptors.
_PAUSE = 0.1
_NO_ADDRESS = "unix:"
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Open:
    """`events`: what the epoll has been asked for; 0: nothing yet."""

    __slots__ = ("connection", "events", "seat", "steps", "wait")

    def __init__(self, connection: Connection, seat: Seat) -> None:
        self.connection = connection
        self.seat = seat
        self.steps: Steps[Reason] = connection.serve()
        self.wait: Wait | None = None
        self.events = 0


class Leave:
    """How a signal tells the workers of this process to leave, by a pipe: a byte that nobody
    reads says that others serve, as the lifeline's (child.py), and that it hangs up, at once.

    at_once: what is being answered is broken off.
    """

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self._said = False
        self.at_once = False

    @property
    def write_fd(self) -> int:
        return self._write

    def say(self, *, at_once: bool = False) -> None:
        """From a signal handler: it only speaks into the pipe, the loops act."""
        self.at_once = self.at_once or at_once
        write = self._write
        if write >= 0 and at_once:
            self._write = -1
            os.close(write)
        elif write >= 0 and not self._said:
            self._said = True
            os.write(write, b".")


class Quota:
    """How long a worker lives, in requests and in connections; 0: for ever."""

    __slots__ = ("connections", "requests")

    def __init__(self, requests: int = 0, connections: int = 0) -> None:
        self.requests = requests
        self.connections = connections


class Worker:
    """run() until it is told to leave or its quota is reached, and all connections are done.

    place   which of this process's workers it is
    lanes   for requests whose decision is known; None: all is Python's
    """

    def __init__(
        self,
        service: Service,
        gate: Gate,
        lifeline: int,
        leave: Leave,
        slot: Slot,
        quota: Quota,
        ledger: Ledger,
        shares: Shares | None = None,
        place: int = 0,
        stamps: Stamps | NoStamps = NO_STAMPS,
        lanes: Lanes | None = None,
    ) -> None:
        self._service = service
        self._place = place
        self._stamps = stamps
        self._is_watched = bool(service.config.timeout_request)
        self._shares = shares
        self._refusals = _refusals(service)
        self._gate = gate
        self._hang_ups = (lifeline, leave.fd)
        self._leave = leave
        self._slot = slot
        self._quota = quota
        self._ledger = ledger
        self._open: dict[int, _Open] = {}
        self._seats: dict[int, Seat] = {}  # by descriptor
        self._turn: Seat | None = None  # of the connection that was stepped last
        self._again: list[int] = []  # have more to do at once
        self._no_parking = service.config.no_parking
        self._retiring = False
        self._draining = False
        self._accepting = False
        self._accept_after = 0.0
        self._next_sweep = 0.0
        self._next_look = 0.0
        if hasattr(select, "epoll"):
            self._poll: Poll = select.epoll()
            self._second = 1.0
        else:
            self._poll = select.poll()
            self._second = 1000.0
        for fd in self._hang_ups:
            self._poll.register(fd, READ)
        self._lane = self._make_lane(lanes, self._poll) if lanes else None

    def _make_lane(self, lanes: Lanes, poll: Poll) -> Lane | None:
        """None: where there is no epoll, Python polls."""
        if not isinstance(poll, select.epoll):
            return None
        doors = [one.fileno() for one in self._gate.sockets() if one is not self._gate.adoption]
        quota = (self._quota.requests, self._quota.connections)
        fd, orders = poll.fileno(), self._hang_ups
        return lanes.lane(self._slot, fd, doors, orders, self._ledger, self._shares, quota)

    def run(self) -> None:
        if self._is_watched:
            self._slot.set(THREAD, get_native_id())
        while not self._retiring or self._open or len(self._refusals):
            self._accept_or_not()
            self._slot.set(STATE, RETIRING if self._retiring else IDLE_WORKER)
            events, handed = self._wait()
            self._stamps.woke()
            self._slot.set(STATE, RETIRING if self._retiring else WORKING)
            for one in handed:
                self._take_over(*one)
            # First, so that every answer from here on tells its client.
            self._obey([(fd, word) for fd, word in events if fd in self._hang_ups])
            again, self._again = self._again, []
            for fd in again:
                self._step(fd, READY)
            for fd, _ in events:
                if fd not in again:
                    self._handle(fd)
            self._sweep()
            if self._is_used_up():
                self._retire()
            if self._leave.at_once:
                self._retire()
                self._abandon()

    def _abandon(self) -> None:
        """What is being answered is logged as broken off."""
        for one in list(self._open.values()):
            try:
                one.steps.throw(Ended())
            except (StopIteration, Ended):
                pass
            one.seat.set(STATE, FREE)
        self._open.clear()
        self._refusals.close()

    def _wait(self) -> tuple[list[tuple[int, int]], list[Handed]]:
        """What is ready, and what the lane leaves to us."""
        if self._lane is None:
            return self._poll.poll(self._patience() * self._second), []
        found = self._lane.poll(self._patience())
        self._turn = None  # the slot may speak of others' requests
        return found

    def _patience(self) -> float:
        """Seconds."""
        if self._again:
            return 0
        busy = self._open or self._accept_after or len(self._refusals) or self._lane
        return _SWEEP if busy else _LOOK

    def _handle(self, fd: int) -> None:
        if fd in self._open:
            self._step(fd, READY)
        elif fd in self._refusals:
            if self._refusals.ready(fd):
                self._forget(fd)
        else:
            door = self._gate.get(fd)
            if door is not None and self._may_accept():
                self._take(door)

    # Accepting.

    def _may_accept(self) -> bool:
        return not (self._retiring or self._is_used_up() or (self._no_parking and self._open))

    def _accept_or_not(self) -> None:
        wanted = time.monotonic() >= self._accept_after and self._may_accept()
        if wanted == self._accepting:
            return
        self._accepting = wanted
        if wanted:
            self._accept_after = 0.0
            self._gate.watch(self._poll)
        else:
            self._gate.leave(self._poll)

    def _take(self, door: socket.socket) -> bool:
        """One: the next is another worker's, if it has nothing to do. False: there is none."""
        return self._adopt(door) if door is self._gate.adoption else self._accept(door)

    def _accept(self, listener: socket.socket) -> bool:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._service.journal.say_often(
                    f"accept: {error.strerror}: connections wait in the backlog"
                )
                self._accept_after = time.monotonic() + _PAUSE
            return False
        sock.setblocking(False)
        self._slot.add(CONNECTIONS, 1)
        peer = peer_name(address)
        if self._shares and not self._admit(self._shares, sock, peer):
            return True
        self._serve(sock, peer, NEW)
        return True

    def _adopt(self, way: socket.socket) -> bool:
        """An idle connection of a worker that has died: counted there, and admitted long ago."""
        try:
            os.close(os.dup(way.fileno()))  # it must find a descriptor, or the kernel closes it
            arrival = receive(way)
        except OSError:
            self._accept_after = time.monotonic() + _PAUSE
            return False
        except EOFError:
            return False  # a worker that was taken over has shut it
        if not isinstance(arrival, Arrival):
            return False
        arrival.sock.setblocking(False)
        if self._shares and arrival.peer != _NO_ADDRESS:
            self._shares.add(self._slot.number, arrival.peer, 1)
        self._serve(arrival.sock, arrival.peer, arrival.past)
        return True

    def _serve(self, sock: socket.socket, peer: str, past: Past) -> None:
        """One that has come, and idles."""
        self._slot.add(OPEN, 1)
        if self._lane is not None and self._lane.add(
            sock.fileno(), sock.family, peer, past.requests, False, peer != _NO_ADDRESS
        ):
            sock.detach()
            return
        self._talk(sock, peer, past)

    def _talk(
        self,
        sock: socket.socket,
        peer: str,
        past: Past,
        received: bytes | None = b"",
        owed: Owed | None = None,
        events: int = 0,
    ) -> None:
        """events: for which the socket is polled already."""
        transport = Transport(sock, self._service.config.engine)
        fd = sock.fileno()
        seat = self._seat(fd, peer, past.requests)
        connection = Connection(
            self._service,
            transport,
            peer,
            seat,
            past=past,
            record=self._stamps.accepted(past.requests),
            received=received,
            owed=owed,
        )
        one = _Open(connection, seat)
        one.events = events
        one.connection.drained = self._retiring
        self._open[fd] = one
        self._advance(fd, one, None)

    # To the lane and back.

    def _take_over(
        self,
        kind: int,
        fd: int,
        family: int,
        peer: str,
        requests: int,
        received: bytes | None,
        owed: Owing | None,
        is_watched: bool,
    ) -> None:
        """See handed.py."""
        sock = socket.socket(family, socket.SOCK_STREAM, fileno=fd)
        past, events = Past(requests), READ if is_watched else 0
        if kind == NEWCOMER:
            if not self._shares or self._admit(self._shares, sock, peer):
                self._slot.add(OPEN, 1)
                self._talk(sock, peer, past)
        elif kind == LINGER:
            self._linger(sock, events)
        else:
            self._talk(sock, peer, past, received, Owed(*owed) if owed else None, events)
            if kind == LATE and (one := self._open.get(fd)):
                self._step(fd, READY if one.connection.has_more() else TIMED_OUT)

    def _linger(self, sock: socket.socket, events: int) -> None:
        """It has its answer, and has sent what nobody will read."""
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        fd = self._refusals.linger(sock)
        if fd is not None:
            change = self._poll.modify if events else self._poll.register
            change(fd, self._refusals.events(fd))

    def _to_the_lane(self, fd: int, one: _Open) -> bool:
        """One that idles, and whose next request may be like its last."""
        connection = one.connection
        past = connection.past()
        shared = connection.peer != _NO_ADDRESS
        if (
            self._lane is None
            or past is None
            or not self._lane.add(
                fd, connection.family, connection.peer, past.requests, one.events == READ, shared
            )
        ):
            return False
        del self._open[fd]
        one.steps.close()
        connection.part()
        return True

    def _admit(self, shares: Shares, sock: socket.socket, peer: str) -> bool:
        """Counted before it is looked at: two workers may refuse what one would have let in, but
        never let in together what is too much."""
        if peer == _NO_ADDRESS:
            return True
        shares.add(self._slot.number, peer, 1)
        if shares.of(peer) <= self._service.config.per_client:
            return True
        shares.add(self._slot.number, peer, -1)
        self._slot.add(TURNED_AWAY, 1)
        fd = self._refusals.refuse(sock, peer, 0, Reason.CLIENT_SHARE)
        if fd is not None:
            self._poll.register(fd, self._refusals.events(fd))
        return False

    def _seat(self, fd: int, peer: str, served: int) -> Seat:
        seat = self._seats.get(fd)
        if seat is None:
            seat = self._seats[fd] = Seat(self._slot, self._ledger, fd)
        elif seat is self._turn and seat.whom != peer:
            self._turn = None  # it was another's
        seat.begin(peer, served)
        return seat

    # Stepping.

    def _step(self, fd: int, outcome: int) -> None:
        one = self._open.get(fd)
        if one is not None and one.wait is not None:
            self._advance(fd, one, outcome)

    def _advance(self, fd: int, one: _Open, outcome: int | None) -> None:
        if one.seat is not self._turn:
            one.seat.take_turn(self._turn)
            self._turn = one.seat
        if self._is_watched:
            self._ledger.turns[self._place] = fd
            self._slot.add(STEP, 1)
        try:
            wait = next(one.steps) if outcome is None else one.steps.send(outcome)
        except StopIteration:
            del self._open[fd]
            if one.events:
                self._forget(fd)
            if self._shares and one.connection.peer != _NO_ADDRESS:
                self._shares.add(self._slot.number, one.connection.peer, -1)
            self._slot.add(OPEN, -1)
            return
        finally:
            if self._is_watched:
                self._slot.add(STEP, 1)
        one.wait = wait
        if wait.kind == IDLE and one.connection.repeats and self._to_the_lane(fd, one):
            return
        if wait.kind == TURN:
            self._again.append(fd)
        elif wait.events != one.events:
            change = self._poll.modify if one.events else self._poll.register
            change(fd, wait.events)
            one.events = wait.events
        if self._draining and wait.kind == IDLE:
            # A request that is there already gets its answer, the last.
            more = one.connection.has_more()
            self._advance(fd, one, READY if more else DRAINED)

    def _forget(self, fd: int) -> None:
        """It has been closed: an epoll knows."""
        if self._second != 1.0:
            self._poll.unregister(fd)

    # Ending.

    def _sweep(self) -> None:
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP
        if self._lane is not None:
            for handed in self._lane.late():
                self._take_over(*handed)
        late = [fd for fd, one in self._open.items() if one.wait and one.wait.deadline.at <= now]
        for fd in late:
            self._step(fd, TIMED_OUT)
        for fd in self._refusals.expired():
            self._forget(fd)
        if now >= self._next_look:
            self._next_look = now + _LOOK
            self._look()

    def _look(self) -> None:
        for door in self._gate.sockets():
            if self._accepting and self._may_accept():
                self._take(door)

    def _is_used_up(self) -> bool:
        quota, slot = self._quota, self._slot
        return bool(
            (quota.requests and slot.get(REQUESTS) >= quota.requests)
            or (quota.connections and slot.get(CONNECTIONS) >= quota.connections)
        )

    def _obey(self, words: list[tuple[int, int]]) -> None:
        if any(word != READ for _, word in words):
            self._drain()
        elif words and not self._draining:
            for fd, _ in words:
                self._poll.modify(fd, 0)
            if any(fd == self._hang_ups[0] for fd, _ in words):
                self._take_the_last()  # a listener may not be wanted any more
            else:
                self._look()  # whoever has woken us alone
            self._retire()
            self._gate.close()

    def _retire(self) -> None:
        """Accept no more. The next answer on each connection says close: to close an idle one
        at once would race with its client's next request, and here nobody is in a hurry."""
        self._retiring = True
        self._slot.set(STATE, RETIRING)
        if self._lane is not None:
            lane, self._lane = self._lane, None
            for handed in lane.release():
                self._take_over(*handed)
        for one in self._open.values():
            one.connection.drained = True

    def _drain(self) -> None:
        """The server stops: idle connections end now, the others with their present answer."""
        if self._draining:
            return
        self._draining = True
        self._take_the_last()
        self._retire()
        self._gate.close()
        for fd in self._hang_ups:
            self._poll.unregister(fd)
        for fd, one in list(self._open.items()):
            if one.wait is not None and one.wait.kind == IDLE and not one.connection.has_more():
                self._advance(fd, one, DRAINED)

    def _take_the_last(self) -> None:
        """What the kernel has accepted for us would be reset when the listener closes: so it is
        taken also by one that has enough to do, or was to have one connection alone."""
        for door in self._gate.sockets():
            for _ in range(self._service.config.backlog):
                if not self._take(door):
                    break


def _refusals(service: Service) -> Refusals:
    config = service.config
    return Refusals(service.log, service.journal, config.header, int(config.timeout_queue))


def random_below(limit: int) -> int:
    """0 to limit, without loading `random` into a master."""
    return int.from_bytes(os.urandom(4)) % (limit + 1)
