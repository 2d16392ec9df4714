"""The listeners of a mode whose connections the master accepts: limits, and who must wait.

No client byte is read here. EMFILE, ENFILE, EAGAIN and ENOMEM end nothing and make nothing spin:
what can't be done now is tried again when a child has ended or a moment has passed. Backpressure
is a listener that is not polled.

Connections that find no process wait here, in the order they came, for --timeout-queue; there
are never more than WAITING of them, for each fork copies their descriptors. The others wait in
the kernel's backlog.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque

from .config import Config
from .errors import Reason
from .journal import Journal
from .listen import Listener
from .mode import AcceptedMode
from .refuse import Refusals
from .transport import peer_name

WAITING = 128
# Accepted in one go, so that reaping and signals get their turn.
_BATCH = 64
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
    __slots__ = ("peer", "since", "sock")

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.since = time.monotonic()


class Acceptor:
    """Accepts, counts, refuses; gives `mode` what gets a process. `poll` is the master's."""

    def __init__(
        self,
        config: Config,
        *,
        listeners: list[Listener],
        mode: AcceptedMode,
        refusals: Refusals,
        journal: Journal,
        poll: select.poll,
    ) -> None:
        self._config = config
        self._listeners = {one.sock.fileno(): one for one in listeners}
        self._mode = mode
        self._refusals = refusals
        self._journal = journal
        self._poll = poll
        self._waiting: deque[_Waiting] = deque()
        self._polled = False  # are the listeners?
        self._accept_after = 0.0
        self._fork_after = 0.0
        self._no_room_since: float | None = None
        self._reserve = -1

    # What the loop asks for, in this order.

    def prepare(self, now: float) -> None:
        self._hold_reserve()
        self._poll_listeners(self._has_room(now))

    def next_due(self, now: float) -> list[float | None]:
        due = [self._refusals.next_deadline()]
        if self._waiting:
            due.append(self._waiting[0].since + self._config.timeout_queue)
            if self._mode.count() < self._config.max_connections:
                due.append(self._fork_after)
        if self._accept_after > now:
            due.append(self._accept_after)
        return due

    def work(self, ready: list[tuple[int, int]]) -> None:
        self._answer_crashes()
        self._serve_waiting()
        for fd, _ in ready:
            if fd in self._listeners:
                self._accept(self._listeners[fd].sock)
            elif fd in self._refusals and self._refusals.ready(fd):
                self._poll.unregister(fd)
        for fd in self._refusals.expired():
            self._poll.unregister(fd)

    def is_busy(self) -> bool:
        """Somebody waits, or has not yet taken a refusal."""
        return bool(self._waiting or len(self._refusals))

    def drain(self) -> None:
        """Take what the kernel has accepted for us, then nothing more."""
        for listener in self._listeners.values():
            listener.remove()
            for _ in range(0, self._config.backlog, _BATCH):
                if not self._accept(listener.sock):
                    break
                self._mode.reap()
        self.close_listeners()

    def close_listeners(self) -> None:
        self._poll_listeners(False)
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def abandon(self) -> None:
        """Nobody gets a process any more."""
        self.close_listeners()
        while self._waiting:
            self._refuse(self._waiting.popleft(), Reason.PROCESSES_FULL)

    def close(self) -> None:
        self._refusals.close()

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

    def _answer_crashes(self) -> None:
        for crash in self._mode.crashes():
            if crash.sock is None:
                self._refusals.note(crash.peer, crash.line, crash.seconds, Reason.CHILD_DIED)
                continue
            fd = self._refusals.refuse(
                crash.sock, crash.peer, crash.seconds, Reason.CHILD_DIED, crash.line
            )
            if fd is not None:
                self._poll.register(fd, self._refusals.events(fd))

    def _refuse(self, one: _Waiting, reason: Reason) -> None:
        waited = time.monotonic() - one.since
        fd = self._refusals.refuse(one.sock, one.peer, waited, reason)
        if fd is not None:
            self._poll.register(fd, self._refusals.events(fd))
