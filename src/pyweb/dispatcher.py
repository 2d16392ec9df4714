"""The dispatcher: a process that holds connections while nobody serves them.

A parked connection costs its descriptor and an entry here, no process. What becomes readable goes
back to the master, which gives it a process; what closes, or idles too long, ends here, and costs
no fork. No client byte is read: the kernel says how many there are, and that is enough.

Why a process of its own: a fork copies its parent's descriptors, 0.15 us each, so a master that
held 2,000 of these would pay 0.3 ms more for each connection. Not here: forking, and answering
but for the 408 that a head gets which never becomes whole.
"""

from __future__ import annotations

import heapq
import select
import socket
import time
from collections import deque

from .config import Config
from .connection import first_words
from .errors import Ended, Reason
from .journal import Journal, Sink
from .parking import (
    NO_DESCRIPTOR,
    Arrival,
    Count,
    has_ended,
    pass_on,
    raise_limit_of_descriptors,
    receive,
    receive_log,
    tell,
    unread,
)
from .past import Past
from .refuse import Refusals, discard
from .scoreboard import OPEN, Slot
from .transport import peer_name

# While there is something with a deadline.
_SWEEP = 0.25
# The master takes no more for the moment.
_SOON = 0.01
# Descriptors that are left for everything else.
_HEADROOM = 64
# A head that grew is looked at again at once, then after pauses that double from this one: most
# bytes of a slow head are not its last.
_PAUSE = 0.5
_MOST_DOUBLINGS = 16
# And so many such looks a second for all of them together: each is a fork, and those who send
# byte by byte must not take the forks of those who send whole heads.
_LOOKS = 50.0
# For a silent connection to speak when the server drains.
_FIRST_WORDS = 0.5
if hasattr(select, "epoll"):
    _READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
    _ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class _Parked:
    """`deadline`: monotonic. `at`: not to be looked at before. `waits`: in the epoll. `wants`: a
    process."""

    __slots__ = ("arrival", "at", "deadline", "waits", "wants")

    def __init__(self, arrival: Arrival, deadline: float, at: float) -> None:
        self.arrival = arrival
        self.deadline = deadline
        self.at = at
        self.waits = True
        self.wants = False

    @property
    def has_begun(self) -> bool:
        return bool(self.arrival.past.began)


class Dispatcher:
    """run() until the master is gone or drains, and nothing is left.

    inbox      connections to hold come here
    master     those that want a process go here; so do the counts, if `counts`
    lifeline   hangs up when the master drains or dies
    """

    def __init__(
        self,
        config: Config,
        *,
        inbox: socket.socket,
        master: socket.socket,
        lifeline: int,
        refusals: Refusals,
        journal: Journal,
        slot: Slot,
        log: Sink | None = None,
    ) -> None:
        self._config = config
        self._inbox = inbox
        self._master = master
        self._lifeline = lifeline
        self._refusals = refusals
        self._journal = journal
        self._slot = slot
        self._log = log
        self._counts = bool(config.per_client)
        self._parked: dict[int, _Parked] = {}
        self._ready: deque[_Parked] = deque()  # the master did not take them yet
        self._growing: list[tuple[float, int, _Parked]] = []  # heads, by when to look again
        self._number = 0  # of those, so that no two are equal
        # What the one before us has told of what it held holds no more.
        self._untold = deque([Count("", 0)] if self._counts else [])
        self._next_look = 0.0
        self._next_sweep = 0.0
        self._retired = False  # others serve, and nobody is in a hurry
        self._draining = False
        self._hears = True
        self._most = max(1, raise_limit_of_descriptors() - _HEADROOM)
        self._epoll = select.epoll()
        self._epoll.register(inbox, select.EPOLLIN)
        self._epoll.register(master, select.EPOLLIN)
        self._epoll.register(lifeline, select.EPOLLIN)

    def run(self) -> None:
        """Ended (by END): what is owed an answer is logged as broken off."""
        try:
            self._run()
        except Ended:
            for one in self._parked.values():
                self._note(one, Reason.ENDED)

    def _run(self) -> None:
        while not self._is_done():
            for fd, events in self._epoll.poll(self._patience()):
                if fd == self._master.fileno() and not self._hear():
                    return  # nobody is left who could serve them
                self._handle(fd, events)
            now = time.monotonic()
            self._look_again(now)
            self._hand_over()
            if now >= self._next_sweep:
                self._sweep(now)
            self._tell_counts()
            self._slot.set(OPEN, len(self._parked))
            self._journal.flush()

    def _is_done(self) -> bool:
        """Drained. What is on its way must not end with us: the way is shut before."""
        if not (self._retired or self._draining) or self._parked or len(self._refusals):
            return False
        if self._hears:
            self._inbox.shutdown(socket.SHUT_RD)
            self._receive()
        return not self._parked

    def _patience(self) -> float | None:
        if self._ready or self._untold:
            return _SOON
        if self._growing:
            at = max(self._growing[0][0], self._next_look)
            return min(_SWEEP, max(0.001, at - time.monotonic()))
        busy = self._parked or len(self._refusals) or self._journal.next_flush() is not None
        return _SWEEP if busy else None

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._inbox.fileno():
            self._receive()
        elif fd == self._lifeline and events == select.EPOLLIN:
            self._retire()
        elif fd == self._lifeline:
            self._drain()
        elif fd in self._refusals:
            self._refusals.ready(fd)  # closed, the epoll forgets it
        elif fd in self._parked:
            self._look(fd, self._parked[fd], events)

    def _hear(self) -> bool:
        """The log has been opened anew. False: the master is gone."""
        try:
            fd = receive_log(self._master)
        except EOFError:
            return False
        if fd >= 0 and self._log:
            self._log.turn_to(fd)
        elif fd == NO_DESCRIPTOR:
            self._journal.say("the log was not opened anew: no descriptor is left; try again")
        return True

    # Parking.

    def _receive(self) -> None:
        try:
            while self._hears and (arrival := receive(self._inbox)):
                if isinstance(arrival, Arrival):
                    self._make_room()
                    self._park(arrival)
        except EOFError:
            self._hears = False
            self._epoll.unregister(self._inbox)

    def _park(self, arrival: Arrival) -> None:
        past, now = arrival.past, time.monotonic()
        _correct(arrival, now)
        pause = _PAUSE * 2 ** min(past.tries - 2, _MOST_DOUBLINGS) if past.tries > 1 else 0.0
        at = now + pause
        one = _Parked(arrival, self._deadline(past, now), at)
        fd = arrival.sock.fileno()
        self._parked[fd] = one
        self._count(arrival, 1)
        # Edge-triggered: the bytes of an unfinished head are there all the time.
        self._epoll.register(fd, _READABLE)

    def _deadline(self, past: Past, now: float) -> float:
        config = self._config
        if past.began:
            return min(past.began, now) + config.timeout_header
        if past.requests:
            return now + config.timeout_idle
        if self._draining:
            return now + _FIRST_WORDS
        return now + first_words(config)

    def _make_room(self) -> None:
        """Whoever has idled longest makes room: sooner or later it would have to, and a new one
        has more to say."""
        if len(self._parked) + len(self._refusals) < self._most:
            return
        oldest = next((p for p in self._parked.values() if not p.has_begun), None)
        self._journal.say_often("parked connections: no descriptor left, the oldest are closed")
        if oldest is not None:
            self._close(oldest)
        else:
            self._refuse(next(iter(self._parked.values())), Reason.OUT_OF_DESCRIPTORS)

    # Something has happened on it.

    def _look(self, fd: int, one: _Parked, events: int) -> None:
        """More bytes, or the end of them."""
        past = one.arrival.past
        if unread(one.arrival.sock) > past.seen:
            self._leave_epoll(fd, one)
            if past.tries > 1:
                self._number += 1
                heapq.heappush(self._growing, (one.at, self._number, one))
            else:
                self._want_a_process(one)
        # The event may be an older connection's, whose descriptor this one has got.
        elif events & _ENDED and has_ended(one.arrival.sock):
            self._note(one, Reason.CLIENT_LEFT)
            self._close(one)

    def _want_a_process(self, one: _Parked) -> None:
        one.wants = True
        one.deadline = time.monotonic() + self._config.timeout_queue
        self._ready.append(one)

    def _leave_epoll(self, fd: int, one: _Parked) -> None:
        if one.waits:
            one.waits = False
            self._epoll.unregister(fd)

    def _look_again(self, now: float) -> None:
        """At heads that grew, when their time has come, and not at all of them at once."""
        while self._growing and self._growing[0][0] <= now and self._next_look <= now:
            _, _, one = heapq.heappop(self._growing)
            if self._parked.get(one.arrival.sock.fileno()) is one and not one.wants:
                self._want_a_process(one)
                self._next_look = max(now, self._next_look + 1 / _LOOKS)
                return

    def _hand_over(self) -> None:
        while self._ready and self._tell_counts():
            one = self._ready[0]
            arrival = one.arrival
            if self._parked.get(arrival.sock.fileno()) is one:
                if not pass_on(self._master, arrival.sock, arrival.past, arrival.peer):
                    return  # it has enough to do; again soon
                # The master counts one less itself, when it has it.
                del self._parked[arrival.sock.fileno()]
                arrival.sock.close()
            self._ready.popleft()

    def _tell_counts(self) -> bool:
        """All that there are, in their order; before a connection, for it must have been counted
        when it arrives."""
        while self._untold and tell(self._master, self._untold[0]):
            self._untold.popleft()
        return not self._untold

    # Ending.

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + _SWEEP
        for one in [one for one in self._parked.values() if one.deadline <= now]:
            if one.wants:
                self._refuse(one, Reason.PROCESSES_FULL)
            elif not one.waits:
                self._want_a_process(one)  # it has grown, and may be whole
            elif one.arrival.past.owed:
                self._refuse(one, Reason.HEAD_TIMEOUT)
            else:
                self._close(one)
        self._refusals.expired()

    def _note(self, one: _Parked, reason: Reason) -> None:
        """One that is owed an answer gets none."""
        past = one.arrival.past
        if past.owed:
            self._refusals.note(one.arrival.peer, b"", time.monotonic() - past.began, reason)

    def _refuse(self, one: _Parked, reason: Reason) -> None:
        arrival = one.arrival
        fd = arrival.sock.fileno()
        self._leave_epoll(fd, one)
        self._forget(one)
        began = arrival.past.began or one.deadline - self._config.timeout_queue
        seconds = max(0.0, time.monotonic() - began)
        if self._refusals.refuse(arrival.sock, arrival.peer, seconds, reason) is not None:
            self._epoll.register(fd, self._refusals.events(fd))

    def _close(self, one: _Parked) -> None:
        sock = one.arrival.sock
        self._leave_epoll(sock.fileno(), one)  # a copy that is open elsewhere would keep it there
        self._forget(one)
        discard(sock, unread(sock))
        sock.close()

    def _forget(self, one: _Parked) -> None:
        del self._parked[one.arrival.sock.fileno()]
        self._count(one.arrival, -1)

    def _count(self, arrival: Arrival, more: int) -> None:
        if self._counts:
            self._untold.append(Count(arrival.peer, more))

    def _retire(self) -> None:
        """Others serve now. Those that are here, or still come, stay for as long as they may idle:
        to close one would race with its next request, or its first."""
        self._epoll.modify(self._lifeline, 0)
        self._retired = True

    def _drain(self) -> None:
        """Those that idle end; those that are new have a moment; heads that have begun go on."""
        self._epoll.unregister(self._lifeline)
        self._draining = True
        self._receive()
        for one in list(self._parked.values()):
            past = one.arrival.past
            if past.requests and not past.began and not unread(one.arrival.sock):
                self._close(one)
            elif not past.began and not one.wants:
                one.deadline = min(one.deadline, time.monotonic() + _FIRST_WORDS)


def _correct(arrival: Arrival, now: float) -> None:
    """What a child tells is believed as far as its own client is concerned: a time is one that
    has been, and a peer's share is counted against that peer."""
    past = arrival.past
    if not 0 <= past.began <= now:
        past.began = now
    try:
        arrival.peer = peer_name(arrival.sock.getpeername())
    except OSError:
        pass  # reset; it ends at once
