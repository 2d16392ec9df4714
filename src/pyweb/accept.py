"""The listeners of a mode whose connections the master accepts: limits, and who must wait.

No client byte is read here. EMFILE, ENFILE, EAGAIN and ENOMEM end nothing and make nothing spin:
what can't be done now is tried again when a child has ended or a moment has passed. Backpressure
is a listener that is not polled.

Connections that find no process wait here, in the order they came, for --timeout-queue; there
are never more than WAITING of them, for each fork copies their descriptors. The others wait in
the kernel's backlog. A connection without a first byte gets no process: it stays here for a
moment, for most follow at once, and is parked then.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque

from .config import Config
from .dispatching import Dispatching
from .errors import Reason
from .filling import Filling
from .journal import Journal
from .listen import Listener
from .mode import AcceptedMode, Routine
from .parking import has_ended, unread
from .past import NEW, Past
from .refuse import Refusals
from .stamps import NO_STAMPS, NOTHING, NoStamps, Record, Stamps
from .transport import peer_name

WAITING = 128
# Accepted in one go, so that reaping and signals get their turn.
_BATCH = 64
# Without a first byte: so many, and so long.
_YOUNG = 64
_YOUTH = 0.02
# After a failed accept or fork: how long until the next try.
_PAUSE = 0.1

# accept(2): that one connection is gone already, or was of no use; the next may do.
_GONE = frozenset(
    (
        errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EOPNOTSUPP, errno.ETIMEDOUT,
    )
)  # fmt: skip


class _Waiting:
    __slots__ = ("past", "peer", "record", "since", "sock")

    def __init__(
        self, sock: socket.socket, peer: str, record: Record = NOTHING, past: Past = NEW
    ) -> None:
        self.sock = sock
        self.peer = peer
        self.record = record
        self.past = past
        self.since = time.monotonic()


class Acceptor:
    """Accepts, counts, refuses; gives `mode` what gets a process, and the dispatcher what needs
    none yet (None: there is no dispatcher). `filling`: the cache, of which the filler is kept here;
    None: there is none. `poll` is the master's."""

    def __init__(
        self,
        config: Config,
        *,
        listeners: list[Listener],
        mode: AcceptedMode,
        dispatching: Dispatching | None,
        refusals: Refusals,
        journal: Journal,
        poll: select.poll,
        filling: Filling | None = None,
        stamps: Stamps | NoStamps = NO_STAMPS,
    ) -> None:
        self._config = config
        self._most = config.max_connections
        self._share = config.per_client
        self._filling = filling
        self._listeners = {one.sock.fileno(): one for one in listeners}
        self._mode = mode
        self._dispatching = dispatching
        self._refusals = refusals
        self._journal = journal
        self._poll = poll
        self._stamps = stamps
        self._waiting: deque[_Waiting] = deque()
        self._young: dict[int, _Waiting] = {}  # no byte has come yet; the oldest first
        self._polled = False  # are the listeners?
        self._accept_after = 0.0
        self._fork_after = 0.0
        self._no_room_since: float | None = None
        self._reserve = -1
        self._abandoned = False
        self._last_call = False  # at the end all get in, however many wait

    # What the loop asks for, in this order.

    def routine(self) -> Routine | None:
        """Where nobody waits or lingers, and nothing has failed."""
        busy = self._waiting or self._refusals.lingering or self._mode.has_news
        failed = self._no_room_since is not None or self._fork_after or self._reserve < 0
        if busy or failed or not self._polled:
            return None
        most = self._most - self._mode.count()
        silent = self._dispatching is None
        return self._mode.routine(list(self._listeners), most, also_silent=silent)

    def prepare(self, now: float) -> None:
        self._hold_reserve()
        if self._accept_after <= now:
            self._accept_after = 0.0
        self._poll_sources(self._has_room())

    def next_due(self, _now: float, /) -> list[float | None]:
        due = [self._refusals.next_deadline()]
        if self._dispatching:
            due.append(self._dispatching.tend())
        if self._filling:
            due.append(self._filling.tend())
        if self._young:
            due.append(next(iter(self._young.values())).since + _YOUTH)
        if self._waiting:
            due.append(self._waiting[0].since + self._config.timeout_queue)
            if self._mode.count() < self._most:
                due.append(self._fork_after)
        if self._accept_after:
            due.append(self._accept_after)
        return due

    def work(self, ready: list[tuple[int, int]]) -> None:
        if self._mode.has_news:
            self._answer_crashes()
            self._serve_returned()
        if self._waiting:
            self._serve_waiting()
        self._take_in()
        if self._young or self._refusals.lingering:
            self._hear(ready)
        # Then what comes: it may get a descriptor that has just become free, not its event.
        for fd, _ in ready:
            if fd in self._listeners:
                self._accept(self._listeners[fd])
            elif self._dispatching and fd == self._dispatching.fd:
                self._take_back(self._dispatching)
        if self._refusals.lingering:
            for fd in self._refusals.expired():
                self._poll.unregister(fd)
        if self._young:
            self._park_silent()

    def _take_in(self) -> None:
        """Whom routine has accepted, and they need more. Before the listeners are forgotten."""
        for door, fd, peer in self._mode.came():
            self._admit(self._listeners[door].accepted(fd), peer, self._stamps.accepted())

    def _hear(self, ready: list[tuple[int, int]]) -> None:
        """Those who have not spoken yet, and those who have been refused."""
        for fd, _ in ready:
            if fd in self._young:
                self._speaks(fd)
            elif fd in self._refusals.lingering and self._refusals.ready(fd):
                self._poll.unregister(fd)

    def waiting(self) -> int:
        """How many wait for a process."""
        return len(self._waiting)

    def is_busy(self) -> bool:
        """Somebody waits, here or with the dispatcher, or has not yet taken a refusal."""
        return bool(
            self._waiting or self._young or self._refusals.lingering or self.has_processes()
        )

    def has_processes(self) -> bool:
        """When the server drains it lives as long as it has something to hold."""
        return any(one is not None and one.lives for one in (self._dispatching, self._filling))

    def drain(self) -> None:
        """Take what the kernel has accepted for us, then nothing more: what stayed there would be
        reset."""
        self._last_call = True
        self._take_in()
        for listener in self._listeners.values():
            listener.remove()
            for _ in range(0, self._config.backlog, _BATCH):
                if not self._accept(listener):
                    break
                self._mode.reap()
        self.close_listeners()
        self._drain_helpers()

    def _drain_helpers(self) -> None:
        if self._dispatching:
            self._dispatching.drain()
        if self._filling:
            self._filling.drain()

    def close_listeners(self) -> None:
        self._poll_sources(False)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def abandon(self) -> None:
        """Nobody gets a process any more."""
        self._take_in()
        self.close_listeners()
        while self._waiting:
            self._refuse(self._waiting.popleft(), Reason.PROCESSES_FULL)
        for fd in list(self._young):
            self._grow_up(fd).sock.close()
        self._drain_helpers()
        for one in (self._dispatching, self._filling):
            if one:
                one.end(kill=self._abandoned)
        self._abandoned = True

    def close(self) -> None:
        self._refusals.close()
        for one in (self._dispatching, self._filling):
            if one:
                one.close()

    def _has_room(self) -> bool:
        return (len(self._waiting) < WAITING or self._last_call) and not self._accept_after

    def _poll_sources(self, wanted: bool) -> None:
        """Listeners, and the dispatcher: what brings connections."""
        if wanted == self._polled:
            return
        sources = list(self._listeners)
        if self._dispatching and not self._dispatching.ended:
            sources.append(self._dispatching.fd)
        for fd in sources:
            if wanted:
                self._poll.register(fd, select.POLLIN)
            else:
                self._poll.unregister(fd)
        self._polled = wanted

    # Accepting.

    def _accept(self, listener: Listener) -> bool:
        """A batch. True: there may be more."""
        for _ in range(_BATCH):
            if not self._has_room():
                return False
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._no_descriptor(listener, error)
                return False
            self._no_room_since = None
            self._admit(sock, peer_name(address), self._stamps.accepted())
        return True

    def _no_descriptor(self, listener: Listener, error: OSError) -> None:
        """Don't spin: let the listener rest. After --timeout-queue of it, refuse in order."""
        now = time.monotonic()
        self._journal.say_often(f"accept: {error.strerror}: connections wait in the backlog")
        self._accept_after = now + _PAUSE
        if self._no_room_since is None:
            self._no_room_since = now
        if now - self._no_room_since >= self._config.timeout_queue:
            self._refuse_with_reserve(listener)

    def _hold_reserve(self) -> None:
        """A descriptor for the moment when there is no other. None to be had: later, then."""
        if self._reserve < 0:
            try:
                self._reserve = os.open(os.devnull, os.O_RDONLY)
            except OSError:
                pass

    def _refuse_with_reserve(self, listener: Listener) -> None:
        """The reserve's place takes the connection, which is refused and lingers there."""
        if self._reserve < 0:
            return
        os.close(self._reserve)
        self._reserve = -1
        try:
            sock, address = listener.accept()
        except OSError:
            return
        self._refuse(_Waiting(sock, peer_name(address)), Reason.OUT_OF_DESCRIPTORS)

    def _admit(self, sock: socket.socket, peer: str, record: Record) -> None:
        if self._share and peer != "unix:" and self._of_peer(peer) >= self._share:
            self._refuse(_Waiting(sock, peer, record), Reason.CLIENT_SHARE)
        elif self._dispatching and not unread(sock):
            self._await_first_byte(_Waiting(sock, peer, record))
        elif self._waiting or not self._start(sock, peer, NEW, record):
            self._enter(_Waiting(sock, peer, record))

    def _of_peer(self, peer: str) -> int:
        waiting = sum(one.peer == peer for one in (*self._waiting, *self._young.values()))
        parked = self._dispatching.of_peer(peer) if self._dispatching else 0
        return self._mode.of_peer(peer) + waiting + parked

    # Before the first byte, and between two requests.

    def _await_first_byte(self, new: _Waiting) -> None:
        if len(self._young) >= _YOUNG:
            self._park(self._grow_up(next(iter(self._young))))
        self._young[new.sock.fileno()] = new
        self._poll.register(new.sock, select.POLLIN | select.POLLRDHUP)

    def _grow_up(self, fd: int) -> _Waiting:
        self._poll.unregister(fd)
        return self._young.pop(fd)

    def _speaks(self, fd: int) -> None:
        """Or has left without a word, and costs no fork."""
        sock = self._young[fd].sock
        if unread(sock):
            self._enter(self._grow_up(fd))
        elif has_ended(sock):  # else the event was an older one's, whose number this one has got
            self._grow_up(fd).sock.close()

    def _park_silent(self) -> None:
        now = time.monotonic()
        for fd in [fd for fd, one in self._young.items() if one.since + _YOUTH <= now]:
            self._park(self._grow_up(fd))

    def _park(self, one: _Waiting) -> None:
        """Where that can't be, a process waits with it."""
        if not (self._dispatching and self._dispatching.park(one.sock, one.peer)):
            self._enter(one)

    def _take_back(self, dispatching: Dispatching) -> None:
        """A batch of those that have something to say."""
        for _ in range(_BATCH):
            if len(self._waiting) >= WAITING or not self._lend_reserve():
                return
            arrival = dispatching.take()
            if arrival is not None:
                record = self._stamps.accepted(arrival.past.requests)
                self._enter(_Waiting(arrival.sock, arrival.peer, record, arrival.past))
                continue
            if dispatching.ended and self._polled:  # or its end would wake us for ever
                self._poll.unregister(dispatching.fd)
            return

    def _lend_reserve(self) -> bool:
        """What arrives finds a descriptor; where there was none, the kernel would close it."""
        self._hold_reserve()
        if self._reserve < 0:
            self._accept_after = time.monotonic() + _PAUSE
            return False
        os.close(self._reserve)
        self._reserve = -1
        return True

    # Giving it a process, or an answer that there is none.

    def _enter(self, new: _Waiting) -> None:
        """In the order they came."""
        if self._abandoned:
            self._refuse(new, Reason.PROCESSES_FULL)
        elif self._waiting or not self._start(new.sock, new.peer, new.past, new.record):
            self._waiting.append(new)

    def _start(self, sock: socket.socket, peer: str, past: Past, record: Record) -> bool:
        if self._mode.count() >= self._most or self._abandoned:
            return False
        if self._fork_after and time.monotonic() < self._fork_after:
            return False
        if not self._mode.serve(sock, peer, past, record):
            self._fork_after = time.monotonic() + _PAUSE
            return False
        self._fork_after = 0.0
        return True

    def _serve_waiting(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if not self._start(first.sock, first.peer, first.past, first.record):
                break
            self._waiting.popleft()
        if not self._waiting:
            return
        now = time.monotonic()
        while self._waiting and self._waiting[0].since + self._config.timeout_queue <= now:
            failed = self._mode.count() < self._most
            reason = Reason.FORK_FAILED if failed else Reason.PROCESSES_FULL
            self._journal.say_often(f"reason {reason:d}: 503, {reason.meaning}")
            self._refuse(self._waiting.popleft(), reason)

    def _serve_returned(self) -> None:
        """They have waited already, and go before all others."""
        for one in reversed(self._mode.returned()):
            waiting = _Waiting(one.sock, one.peer, one.record, one.past)
            if self._abandoned and not unread(one.sock):
                one.sock.close()  # it has asked for nothing
            elif self._abandoned:
                self._refuse(waiting, Reason.PROCESSES_FULL)
            else:
                self._waiting.appendleft(waiting)

    def _answer_crashes(self) -> None:
        for crash in self._mode.crashes():
            if crash.sock is None:
                self._refusals.note(crash.peer, crash.line, crash.seconds, crash.reason)
                continue
            fd = self._refusals.refuse(
                crash.sock, crash.peer, crash.seconds, crash.reason, crash.line
            )
            if fd is not None:
                self._poll.register(fd, self._refusals.events(fd))

    def _refuse(self, one: _Waiting, reason: Reason) -> None:
        waited = time.monotonic() - one.since
        fd = self._refusals.refuse(one.sock, one.peer, waited, reason)
        if fd is not None:
            self._poll.register(fd, self._refusals.events(fd))
