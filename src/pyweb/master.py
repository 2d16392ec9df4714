"""The accept/fork loop: one poll over signals, listeners and refused connections.

The master reads no client byte and believes nothing that a child can write. It never dies of
EAGAIN, EMFILE, ENFILE or ENOMEM and never spins: what can't be done now is tried again when a
child has ended or a moment has passed. Backpressure is a listener that is not polled.

Connections that find no process wait here, in the order they came, for --timeout-queue; there
are never more than WAITING of them, for each fork copies their descriptors. The others wait in
the kernel's backlog.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections import deque
from typing import Protocol

from .config import Config
from .errors import Reason
from .journal import Journal
from .listen import Listener
from .refuse import Refusals
from .signals import SignalPipe
from .transport import peer_name

WAITING = 128
# Accepted in one go, so that reaping and signals get their turn.
_BATCH = 64
# After a failed accept or fork: how long until the next try.
_PAUSE = 0.1
# From the word to leave to SIGKILL, for children that are ended.
_LAST_WORDS = 1.0

# accept(2): that one connection is gone already, or was of no use; the next may do.
_GONE = frozenset(
    (
        errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT,
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EOPNOTSUPP, errno.ETIMEDOUT,
    )
)  # fmt: skip


class Mode(Protocol):
    """See modes.py."""

    def serve(self, sock: socket.socket, peer: str) -> bool: ...
    def reap(self) -> None: ...
    def count(self) -> int: ...
    def of_peer(self, peer: str) -> int: ...
    def end(self, *, kill: bool) -> None: ...


class _Waiting:
    __slots__ = ("peer", "since", "sock")

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.since = time.monotonic()


class Master:
    """run() until told to stop. `lifeline`: the write end; closing it tells idle children to go."""

    def __init__(
        self,
        config: Config,
        *,
        listeners: list[Listener],
        mode: Mode,
        refusals: Refusals,
        signals: SignalPipe,
        journal: Journal,
        lifeline: int,
    ) -> None:
        self._config = config
        self._listeners = {one.sock.fileno(): one for one in listeners}
        self._mode = mode
        self._refusals = refusals
        self._signals = signals
        self._journal = journal
        self._lifeline = lifeline
        self._waiting: deque[_Waiting] = deque()
        self._poll = select.poll()
        self._poll.register(signals.fd, select.POLLIN)
        self._polled = False  # are the listeners?
        self._accept_after = 0.0
        self._fork_after = 0.0
        self._no_room_since: float | None = None
        self._reserve = -1
        self._stop_at: float | None = None  # when --grace is over; None: not stopping
        self._ending = False  # children have been told to leave

    def run(self) -> None:
        while not self._finished():
            self._hold_reserve()
            # One moment for both: what is not polled for because of it must be waited for.
            now = time.monotonic()
            self._poll_listeners(self._has_room(now))
            ready = self._poll.poll(self._patience(now))
            self._handle_signals()
            self._mode.reap()
            self._serve_waiting()
            for fd, _ in ready:
                if fd in self._listeners:
                    self._accept(self._listeners[fd].sock)
                elif fd in self._refusals and self._refusals.ready(fd):
                    self._poll.unregister(fd)
            for fd in self._refusals.expired():
                self._poll.unregister(fd)
            self._journal.flush()
        self._refusals.close()
        self._journal.flush(at_once=True)

    # Waiting for something to do.

    def _finished(self) -> bool:
        stopping = self._stop_at is not None
        lingering = len(self._refusals) and not self._ending
        return stopping and not (self._mode.count() or self._waiting or lingering)

    def _has_room(self, now: float) -> bool:
        return len(self._waiting) < WAITING and now >= self._accept_after

    def _poll_listeners(self, wanted: bool) -> None:
        if wanted == self._polled:
            return
        for fd in self._listeners:
            if wanted:
                self._poll.register(fd, select.POLLIN)
            else:
                self._poll.unregister(fd)
        self._polled = wanted

    def _patience(self, now: float) -> int | None:
        """Milliseconds until something is due; None: only an event can give us work."""
        due = [self._refusals.next_deadline(), self._journal.next_flush(), self._stop_at]
        if self._waiting:
            due.append(self._waiting[0].since + self._config.timeout_queue)
            if self._mode.count() < self._config.max_connections:
                due.append(self._fork_after)
        if self._accept_after > now:
            due.append(self._accept_after)
        known = [moment for moment in due if moment is not None]
        return max(0, int((min(known) - now) * 1000) + 1) if known else None

    # Accepting.

    def _accept(self, listener: socket.socket) -> bool:
        """A batch. True: there may be more."""
        for _ in range(_BATCH):
            if not self._has_room(time.monotonic()):
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
            self._admit(sock, peer_name(sock, address))
        return True

    def _no_descriptor(self, listener: socket.socket, error: OSError) -> None:
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

    def _refuse_with_reserve(self, listener: socket.socket) -> None:
        """The reserve's place takes the connection, which is refused and lingers there."""
        if self._reserve < 0:
            return
        os.close(self._reserve)
        self._reserve = -1
        try:
            sock, address = listener.accept()
        except OSError:
            return
        self._refuse(_Waiting(sock, peer_name(sock, address)), Reason.OUT_OF_DESCRIPTORS)

    def _admit(self, sock: socket.socket, peer: str) -> None:
        new = _Waiting(sock, peer)
        share = self._config.per_client
        if share and peer != "unix:" and self._of_peer(peer) >= share:
            self._refuse(new, Reason.CLIENT_SHARE)
        elif self._waiting or not self._start(new):
            self._waiting.append(new)

    def _of_peer(self, peer: str) -> int:
        return self._mode.of_peer(peer) + sum(one.peer == peer for one in self._waiting)

    # Giving it a process, or an answer that there is none.

    def _start(self, new: _Waiting) -> bool:
        if self._mode.count() >= self._config.max_connections:
            return False
        if time.monotonic() < self._fork_after:
            return False
        if not self._mode.serve(new.sock, new.peer):
            self._fork_after = time.monotonic() + _PAUSE
            return False
        self._fork_after = 0.0
        new.sock.close()
        return True

    def _serve_waiting(self) -> None:
        while self._waiting and self._start(self._waiting[0]):
            self._waiting.popleft()
        now = time.monotonic()
        while self._waiting and self._waiting[0].since + self._config.timeout_queue <= now:
            failed = self._mode.count() < self._config.max_connections
            reason = Reason.FORK_FAILED if failed else Reason.PROCESSES_FULL
            self._journal.say_often(f"reason {reason:d}: 503, {reason.meaning}")
            self._refuse(self._waiting.popleft(), reason)

    def _refuse(self, one: _Waiting, reason: Reason) -> None:
        waited = time.monotonic() - one.since
        fd = self._refusals.refuse(one.sock, one.peer, waited, reason)
        if fd is not None:
            self._poll.register(fd, self._refusals.events(fd))

    # Signals.

    def _handle_signals(self) -> None:
        for number in self._signals.read() - {signal.SIGCHLD}:
            if self._stop_at is None and number != signal.SIGQUIT:
                self._drain()
            else:
                self._end_children()
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self._end_children()

    def _drain(self) -> None:
        """Take what the kernel has accepted for us, then nothing more; idle children go."""
        self._journal.say(
            f"stopping: {self._mode.count()} connections have {self._config.grace:g} s"
        )
        for listener in self._listeners.values():
            listener.remove()
            for _ in range(0, self._config.backlog, _BATCH):
                if not self._accept(listener.sock):
                    break
                self._mode.reap()
        self._close_listeners()
        self._stop_at = time.monotonic() + self._config.grace

    def _close_listeners(self) -> None:
        self._poll_listeners(False)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _end_children(self) -> None:
        """--grace is over, or nobody wants to wait for it: END, and a moment later SIGKILL."""
        self._close_listeners()
        if not self._ending and self._mode.count():
            self._journal.say(f"reason {Reason.ENDED:d}: {self._mode.count()} connections are cut")
        while self._waiting:
            self._refuse(self._waiting.popleft(), Reason.PROCESSES_FULL)
        self._mode.end(kill=self._ending)
        self._ending = True
        self._stop_at = time.monotonic() + _LAST_WORDS
