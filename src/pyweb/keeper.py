"""The keeper of a worker: a process that shares its descriptors and outlives it.

When a worker dies of a crash or is killed, the kernel closes what it had open, and with it the
connections of all its clients. But a descriptor table lives as long as somebody has it; so the
worker makes a twin with the same table (clone with CLONE_FILES), which waits until the worker has
ended. No descriptor is copied, none is passed, and nothing is done for a connection until then.
Then the ledger tells what was owed to whom; and those who are owed nothing, and wait for nothing,
are handed on to the workers that live (adoption): they don't notice.

What must never be: that the keeper opens, closes or reads anything as long as the worker lives,
for it would be the worker's; that it stays when the worker has gone.

What did not work: a handler for the fatal signals in the worker knows nothing of SIGKILL and of the
kernel's memory killer, and runs in a process that can't be trusted any more. Copies of the sockets
in the master (as in mode fork) would be a message for each connection, and every new worker would
be forked with all of them. pidfd_getfd needs the dead process to be there still.

Not here: who is forked again (the master sees to it), and what an answer looks like.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import time
from typing import NoReturn

from .child import END, EXIT_DEFECT, STACK, close_all_but, name_process, tell_defect
from .errors import Reason
from .ledger import LINGERS, OWED, QUIET, SENDING, Entry, Ledger
from .parking import pass_on
from .past import Past
from .refuse import PolledRefusals, Refusals
from .service import Service
from .transport import peer_name
from .verdicts import Judged

try:
    from ._fastfork import clone_sharing_files
except ImportError:  # not built
    clone_sharing_files = None  # type: ignore[assignment]

POSSIBLE = clone_sharing_files is not None and hasattr(os, "pidfd_open")

# What the worker obeys stays blocked in the keeper: it leaves when the worker has left.
_BLOCKED = (signal.SIGTERM, END, STACK)


_PAUSE = 0.01
_GONE = "-"


class Adoption:
    """How idle connections get to the living: `way` is where they are sent, `inbox` where any
    worker takes them. When the server stops all of them close it, and the way hangs up."""

    def __init__(self, inbox: socket.socket, way: socket.socket) -> None:
        self.inbox = inbox
        self.way = way

    def fds(self) -> set[int]:
        return {self.inbox.fileno(), self.way.fileno()}

    def close(self) -> None:
        """In the master, when the server stops: what is on its way must not wait there."""
        self.inbox.close()
        self.way.close()


def make_ledger(workers: int) -> Ledger:
    """Covering nothing where there can be no keeper to read it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Ledger(most if POSSIBLE and most >= 0 else 0, workers)


def start_keeper(service: Service, ledger: Ledger, adoption: Adoption, judged: Judged) -> None:
    """For this process, which has one thread yet. Without: a crash costs all its connections."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        worker = os.pidfd_open(os.getpid())
        name_process("pyweb-keeper")  # the twin has it from its first moment
        if clone_sharing_files() == 0:
            Keeper(service, ledger, adoption, judged).run(worker)
    except OSError as error:
        service.journal.say(
            f"keeper: {error.strerror}: a crash of this worker would cost its clients their"
            " connections"
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)


class Keeper:
    """In the twin, its signals blocked."""

    def __init__(
        self, service: Service, ledger: Ledger, adoption: Adoption, judged: Judged
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._adoption = adoption
        self._judged = judged

    def run(self, worker: int) -> NoReturn:
        code = EXIT_DEFECT
        try:
            gc.disable()  # an object that is collected may close something
            _wait_for_end_of(worker)
            self._settle(self._ledger.entries())
            code = 0
        except BaseException:
            tell_defect(self._service.journal)
        finally:
            os._exit(code)

    def _settle(self, entries: list[Entry]) -> None:
        """Everything that is open is ours now. Whoever ended well has left nothing."""
        if not entries:
            return
        service = self._service
        sinks = {service.journal.sink.fd, service.log.sink.fd if service.log.sink else 2}
        # Not the inbox: its number may be another's by now, and we adopt nobody.
        way = self._adoption.way.fileno()
        close_all_but({0, 1, 2, *sinks, way, *(one.fd for one in entries)})
        refusals = Refusals(service.log, service.journal, service.extra, 0)
        desk = PolledRefusals(refusals, select.poll())
        hung = self._judged.connections(self._ledger.turns)
        idle = []
        for one in entries:
            sock = _socket(one.fd)
            if sock is None:
                continue
            if one.mark == QUIET:
                idle.append((sock, Past(one.served)))
            else:
                _settle_one(one, sock, desk, hung.get(one.fd))
        _hand_on(idle, self._adoption, service.config.timeout_queue)
        for sock, _ in idle:
            sock.close()
        desk.work_off()


def _settle_one(one: Entry, sock: socket.socket, desk: PolledRefusals, hung: float | None) -> None:
    """hung: the seconds for which the worker was ended on its account; None: on another's."""
    reason = Reason.CHILD_DIED if hung is None else Reason.REQUEST_TIMEOUT
    if one.mark == OWED:
        desk.refuse(sock, _peer(sock), hung or 0, reason, one.request)
    elif one.mark == LINGERS:
        desk.linger(sock)
    else:
        if one.mark == SENDING:
            desk.refusals.note(_peer(sock), one.request, hung or 0, reason)
        sock.close()


def _hand_on(idle: list[tuple[socket.socket, Past]], adoption: Adoption, patience: float) -> None:
    """As many as are taken in time: there may be more than a socket holds, and nobody who lives.
    Nobody adopts when the server stops: then they end."""
    until = time.monotonic() + patience
    poll = select.poll()
    poll.register(adoption.way, select.POLLOUT)
    for sock, past in idle:
        peer = _peer(sock)
        while peer != _GONE:
            if time.monotonic() > until + _PAUSE:
                return
            ready = poll.poll(max(0, until - time.monotonic()) * 1000)
            if not ready or any(events != select.POLLOUT for _, events in ready):
                return
            if pass_on(adoption.way, sock, past, peer):
                break
            time.sleep(_PAUSE)  # so many descriptors may be on their way, and no more


def _wait_for_end_of(worker: int) -> None:
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    while not poll.poll():
        pass


def _socket(fd: int) -> socket.socket | None:
    """None: a crash has written nonsense into the ledger."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        return None


def _peer(sock: socket.socket) -> str:
    try:
        return peer_name(sock.getpeername())
    except OSError:
        return _GONE
