"""Children that a zygote forks: asked for now, known by their pids later.

The zygote (_fastzygote.pyx) is a process of the master's without an interpreter; it is started,
replaced when it dies or what its children share has changed, and asked. Whoever asks has a ticket,
by which the child's pid is told. Not here: who gets such a child, and what becomes of it; which
children it has forked beforehand (spares.py).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from resource import struct_rusage
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .clock import Backoff, earliest
from .errors import Reason
from .journal import Journal
from .obituary import Obituaries
from .spares import Spares

if TYPE_CHECKING:
    from ._fastzygote import Zygote

# Of an answer, which takes a fork: a zygote that is silent for so long (s) is no help.
_SILENCE = 5.0
# Of spares whose zygote is dead: to tell what they took, and leave (s).
_LAST_WORDS = 0.2
# So many may be asked for before their pids are heard: a socket holds no more than a few hundred.
_UNHEARD = 64
# The others' are above (_fastporter.pyx).
_MOST_TICKETS = (1 << 30) - 1

Child = TypeVar("Child")
# In which memory a child finds its slot and its record, and how many requests it has had before.
Order = tuple[int, bytes, int, int, int, int]


class Others(Protocol[Child]):
    """Who asks the zygote as well (see _fastporter.pyx), and hears it for both.

    untold          so many are not known
    turn_to         this one forks from here on; None: there is none
    told            of those who were asked for here, as Zygote.told
    give_up_untold  those that are not known are ours from here on: their tickets, and when they
                    were asked for
    """

    @property
    def untold(self) -> int: ...
    def turn_to(self, zygote: Zygote | None) -> None: ...
    def told(self, zygote: Zygote, most: int) -> list[tuple[int, int]]: ...
    def give_up_untold(self) -> list[tuple[int, Child, float]]: ...


class Nursery(Generic[Child]):
    """`make`: another zygote; OSError. None: there is never one. `spares`: that it keeps."""

    def __init__(
        self,
        make: Callable[[], Zygote] | None,
        journal: Journal,
        others: Others[Child],
        spares: int = 0,
    ) -> None:
        self._make = make
        self._others = others
        self._spares = Spares(spares)
        self._journal = journal
        self._zygote: Zygote | None = None
        self._started = 0.0
        self._backoff = Backoff()
        self._tickets = 0
        self._asked: dict[int, tuple[Child, float]] = {}  # by ticket, in the order of asking
        self._known: list[tuple[int, Child]] = []
        self._retired: set[int] = set()
        self._is_stale = False  # it should be another, and was asked for too much

    def __bool__(self) -> bool:
        """Children were asked for, and are not known yet."""
        return bool(self._asked or self._known or self._others.untold)

    # Asking.

    def ask(self, child: Child, order: Order) -> bool:
        """False: not now."""
        ticket = self._tickets % _MOST_TICKETS + 1
        if self._zygote is None or not self._zygote.order(*order, ticket):
            return False
        self._tickets = ticket
        self._asked[ticket] = child, time.monotonic()
        if len(self._asked) >= _UNHEARD:
            self._hear()
        return True

    def told(self) -> list[tuple[int, Child]]:
        """Those that are known now, by their pids. Below 0, -errno: there is no such child."""
        if self._asked or self._others.untold:
            self._hear()
        found, self._known = self._known, []
        return found

    def _hear(self) -> None:
        """All that has been told; where there are no spares no more than has been asked."""
        zygote = self._zygote
        if zygote is None:
            return
        most = 0 if self._spares.wanted else len(self._asked)
        for ticket, pid in self._others.told(zygote, most):
            if ticket:
                self._know(ticket, pid)
            else:
                self._spares.is_there(pid)

    def _know(self, ticket: int, pid: int) -> None:
        self._spares.has_taken(pid)
        if ticket in self._asked:
            self._known.append((pid, self._asked.pop(ticket)[0]))

    def take_over(self) -> None:
        """Those that the others have asked for and that are not known."""
        more = self._others.give_up_untold()
        if more:
            self._asked |= {ticket: (child, asked) for ticket, child, asked in more}
            self._asked = dict(sorted(self._asked.items(), key=lambda one: one[1][1]))

    # Keeping it.

    def tend(self) -> float | None:
        """Start it where there is none; one that tells nothing is ended. The moment (monotonic)
        when to ask again."""
        if self._is_stale and not self._asked:
            self.renew()
        if self._zygote is None:
            return self._start()
        if self._spares.wanted:
            self._hear()
        for _ in range(self._spares.owed()):
            self._zygote.want_more()
        if not self._asked:
            return self._spares.due()
        silent = next(iter(self._asked.values()))[1] + _SILENCE
        if time.monotonic() >= silent:
            os.kill(self._zygote.pid, signal.SIGKILL)
        return earliest(self._spares.due(), silent)

    def _start(self) -> float | None:
        if self._make is None or time.monotonic() < self._backoff.at:
            return earliest(self._backoff.at or None)
        self._started = time.monotonic()
        try:
            self._zygote = self._make()
            self._others.turn_to(self._zygote)
        except OSError as error:
            self._journal.say_often(f"zygote: {error.strerror}: children are forked whole")
            self._backoff.ended(self._started)
            return self._backoff.at
        return None

    def bury(self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries) -> bool:
        """Was it the zygote, or a spare? What was asked for and is not done, will not be done."""
        if pid in self._retired:
            self._retired.discard(pid)
            return True
        zygote = self._zygote
        if zygote is None:
            return False
        if pid != zygote.pid:
            return self._bury_spare(pid, code, usage, obituaries)
        how = obituaries.tell(code, usage) if code else "left"
        self._journal.say(f"reason {Reason.ZYGOTE_DIED:d}: zygote {pid} {how}; another is started")
        self.take_over()
        self._hear_out(zygote)
        if zygote.last != zygote.newest_told and self._asked and not self._spares.wanted:
            self._know(next(iter(self._asked)), zygote.last)  # it was forked, and not yet told
        for ticket in list(self._asked):
            self._know(ticket, -1)
        self._retire(zygote)
        self._backoff.ended(self._started)
        return True

    def _bury_spare(
        self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries
    ) -> bool:
        """One that has taken an order has told so first, and is none any more."""
        if self._spares.wanted:
            self._hear()
        if not self._spares.has_died(pid):
            return False
        how = obituaries.tell(code, usage) if code else "left"
        said = f"reason {Reason.CHILD_DIED:d}: spare {pid} {how}; another is forked"
        self._journal.say_often(said)
        return True

    def _hear_out(self, zygote: Zygote) -> None:
        """Of a dead one, until its children have told what they took, and its spares have left.
        One that doesn't is ended, and what it took another does."""
        zygote.end_orders()
        self._listen(zygote, _LAST_WORDS)
        if not zygote.is_over:
            zygote.hang_up()
            self._hear()
            for pid in self._untaken(zygote):
                os.kill(pid, signal.SIGKILL)

    def _listen(self, zygote: Zygote, patience: float, *, to_all: bool = True) -> None:
        """Until it hangs up, or all who were asked for are known, but no longer than that (s)."""
        until = time.monotonic() + patience
        poll = select.poll()
        poll.register(zygote.fileno(), select.POLLIN)
        while not zygote.is_over and (to_all or self._asked):
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                return
            self._hear()

    def _untaken(self, zygote: Zygote) -> set[int]:
        """Spares; and one that it may have forked and not told of."""
        spares, last = set(self._spares.idle), zygote.last
        known = last in (0, zygote.newest_told) or last in self._spares.dead
        if self._spares.wanted and not known:
            spares.add(last)
        return spares

    def _retire(self, zygote: Zygote) -> None:
        """It is closed; its spares leave, and it, if it lives."""
        self._retired |= self._untaken(zygote)
        self._spares.forget()
        self._others.turn_to(None)
        zygote.close()
        self._zygote = None

    def renew(self) -> None:
        """What its children share has changed: another takes its place, when it has done what it
        was asked for."""
        self.settle()
        self._is_stale = bool(self._zygote and self._asked)
        if self._zygote and not self._asked:
            self._hear()
            self._retired.add(self._zygote.pid)
            self._retire(self._zygote)

    def settle(self) -> None:
        """Wait until all that were asked for are known."""
        self.take_over()
        if self._zygote:
            self._listen(self._zygote, _SILENCE, to_all=False)

    def close(self) -> None:
        """When nobody is asked for any more."""
        zygote, self._make = self._zygote, None
        if zygote is None:
            return
        os.kill(zygote.pid, signal.SIGKILL)  # it may be stopped
        os.waitpid(zygote.pid, 0)
        self.take_over()
        self._hear()
        spares = self._untaken(zygote)
        self._retire(zygote)
        for pid in spares:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
