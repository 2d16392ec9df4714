"""The master's side of the dispatcher: it is started, replaced when it dies, and talked to.

Both sockets to it outlive it, so what is on its way when it dies reaches the next one; what it
held is lost. Without epoll (not Linux) there is none, and connections keep their process. Not
here: what the dispatcher does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from resource import struct_rusage

from .child import END, EXIT_DEFECT, HELD, become_a_child, name_process, tell_defect
from .clock import Backoff
from .connection import NEW
from .dispatcher import Dispatcher
from .errors import Ended, Reason
from .journal import Journal
from .obituary import Obituaries
from .parking import Arrival, Count, pair, pass_log, pass_on, receive
from .scoreboard import IDLE_WORKER, OPEN, PID, STATE, Slot

AVAILABLE = hasattr(select, "epoll")

# (inbox, master) -> the dispatcher, made in its own process.
Make = Callable[[socket.socket, socket.socket], Dispatcher]


class Dispatching:
    """fd      readable when a connection wants a process
    ended   nothing will ever come from there any more
    parker  where children park theirs
    """

    def __init__(self, make: Make, keep: tuple[int, ...], journal: Journal, slot: Slot) -> None:
        """OSError."""
        self._make = make
        self._keep = keep
        self._journal = journal
        self._slot = slot
        self._inbox, self.parker = pair()
        self._to_master, self._from_dispatcher = pair()
        self.fd = self._from_dispatcher.fileno()
        self._parked: Counter[str] = Counter()
        self._backoff = Backoff()
        self._started = 0.0
        self._pid = 0
        self._draining = False
        self.ended = False

    # Keeping it.

    def tend(self) -> float | None:
        """Start it where there is none; the moment (monotonic) when to try again."""
        if self._pid or self._draining:
            return None
        if time.monotonic() >= self._backoff.at and self._spawn():
            return None
        return self._backoff.at

    def _spawn(self) -> bool:
        self._started = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_the_dispatcher()
        except OSError as error:
            self._journal.say_often(f"fork: {error.strerror}: no dispatcher, nothing is parked")
            self._backoff.ended(self._started)
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._pid = pid
        return True

    def _be_the_dispatcher(self) -> None:
        code = EXIT_DEFECT
        try:
            name_process("pyweb-dispatch")
            self._slot.set(PID, os.getpid())
            self._slot.set(STATE, IDLE_WORKER)
            keep = {self._inbox.fileno(), self._to_master.fileno(), *self._keep}
            become_a_child(keep, term=_heed_the_lifeline_alone, end=_end)
            self._make(self._inbox, self._to_master).run()
            code = 0
        except Ended:
            code = 0  # before it held anything
        except BaseException:
            tell_defect(self._journal)
        finally:
            os._exit(code)

    def bury(self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries) -> None:
        """If it was this one."""
        if pid != self._pid:
            return
        self._pid = 0
        self._parked.clear()
        self._slot.set(PID, 0)
        self._slot.set(OPEN, 0)
        if not self._draining:
            how = obituaries.tell(code, usage) if code else "left"
            self._journal.say(
                f"reason {Reason.DISPATCHER_DIED:d}: dispatcher {pid} {how}; another is started"
            )
            self._backoff.ended(self._started)

    @property
    def lives(self) -> bool:
        return bool(self._pid) or (self._draining and not self.ended)

    # Talking to it.

    def park(self, sock: socket.socket, peer: str) -> bool:
        """One that is silent so far. True: the socket is no longer ours."""
        if not self._pid or not pass_on(self.parker, sock, NEW, peer):
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
        if self._pid:
            pass_log(self._from_dispatcher, fd)

    # Ending.

    def drain(self) -> None:
        """The lifeline tells it; there will be no other, so what is on its way to it must end
        with it."""
        self._draining = True
        self._inbox.close()
        self._to_master.close()

    def end(self, *, kill: bool) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL if kill else END)

    def close(self) -> None:
        for sock in (self._inbox, self.parker, self._to_master, self._from_dispatcher):
            sock.close()


def _heed_the_lifeline_alone() -> None:
    """SIGTERM for a whole process group is for the master, which tells us."""


def _end() -> None:
    signal.signal(END, signal.SIG_IGN)
    raise Ended
