"""Children that a zygote forks: asked for now, known by their pids later.

The zygote (_fastzygote.pyx) is a process of the master's without an interpreter; it is started,
replaced when it dies or what its children share has changed, and asked. It tells pids in the order
in which children were asked for, so those who are not yet known stand in a queue. Not here: who
gets such a child, and what becomes of it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from resource import struct_rusage
from typing import Generic, Protocol, TypeVar

from .clock import Backoff, earliest
from .errors import Reason
from .journal import Journal
from .obituary import Obituaries

# Of an answer, which takes a fork: a zygote that is silent for so long (s) is no help.
_SILENCE = 5.0
# So many may be asked for before their pids are heard: a socket holds no more than a few hundred.
_UNHEARD = 64

Child = TypeVar("Child")
# In which memory a child finds its slot and its record, and how many requests it has had before.
Order = tuple[int, bytes, int, int, int, int]


class Zygote(Protocol):
    """See _fastzygote.Zygote."""

    pid: int

    @property
    def last(self) -> int: ...
    def order(
        self, sock: int, peer: bytes, slot_at: int, record_at: int, number: int, requests: int, /
    ) -> bool: ...
    def told(self) -> list[int]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Nursery(Generic[Child]):
    """`make`: another zygote; OSError. None: there is never one."""

    def __init__(self, make: Callable[[], Zygote] | None, journal: Journal) -> None:
        self._make = make
        self._journal = journal
        self._zygote: Zygote | None = None
        self._started = 0.0
        self._backoff = Backoff()
        self._asked: deque[tuple[Child, float]] = deque()
        self._known: list[tuple[int, Child]] = []
        self._newest = 0  # the last pid that was told
        self._retired: set[int] = set()

    def __len__(self) -> int:
        """Children that were asked for, and are not known yet."""
        return len(self._asked) + len(self._known)

    # Asking.

    def ask(self, child: Child, order: Order) -> bool:
        """False: not now."""
        if self._zygote is None or not self._zygote.order(*order):
            return False
        self._asked.append((child, time.monotonic()))
        if len(self._asked) >= _UNHEARD:
            self._hear()
        return True

    def told(self) -> list[tuple[int, Child]]:
        """Those that are known now, by their pids. Below 0, -errno: there is no such child."""
        self._hear()
        found, self._known = self._known, []
        return found

    def _hear(self) -> None:
        if self._zygote is not None:
            for pid in self._zygote.told():
                self._know(pid)

    def _know(self, pid: int) -> None:
        if self._asked:
            self._known.append((pid, self._asked.popleft()[0]))
            self._newest = max(pid, 0) or self._newest

    # Keeping it.

    def tend(self) -> float | None:
        """Start it where there is none; one that tells nothing is ended. The moment (monotonic)
        when to ask again."""
        if self._zygote is None:
            return self._start()
        self._hear()
        if not self._asked:
            return None
        due = self._asked[0][1] + _SILENCE
        if time.monotonic() >= due:
            os.kill(self._zygote.pid, signal.SIGKILL)
        return due

    def _start(self) -> float | None:
        if self._make is None or time.monotonic() < self._backoff.at:
            return earliest(self._backoff.at or None)
        self._started = time.monotonic()
        try:
            self._zygote = self._make()
        except OSError as error:
            self._journal.say_often(f"zygote: {error.strerror}: children are forked whole")
            self._backoff.ended(self._started)
            return self._backoff.at
        return None

    def bury(self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries) -> bool:
        """Was it the zygote? What it was asked for and has not done, is not done."""
        if pid in self._retired:
            self._retired.discard(pid)
            return True
        zygote = self._zygote
        if zygote is None or pid != zygote.pid:
            return False
        how = obituaries.tell(code, usage) if code else "left"
        self._journal.say(f"reason {Reason.ZYGOTE_DIED:d}: zygote {pid} {how}; another is started")
        self._hear()
        if zygote.last != self._newest:
            self._know(zygote.last)  # it was forked, and not yet told
        self._give_up()
        self._backoff.ended(self._started)
        return True

    def _give_up(self) -> None:
        while self._asked:
            self._know(-1)
        if self._zygote:
            self._zygote.close()
        self._zygote = None
        self._newest = 0

    def renew(self) -> None:
        """What its children share has changed: another takes its place, when it has done what it
        was asked for."""
        self.settle()
        if self._zygote and not self._asked:
            self._retired.add(self._zygote.pid)
            self._zygote.close()
            self._zygote = None
            self._newest = 0

    def settle(self) -> None:
        """Wait until all that were asked for are known."""
        poll = select.poll()
        if self._zygote:
            poll.register(self._zygote.fileno(), select.POLLIN)
        while self._zygote and self._asked and poll.poll(_SILENCE * 1000):
            before = len(self._asked)
            self._hear()
            if len(self._asked) == before:
                return  # it hangs up

    def close(self) -> None:
        """When nobody is asked for any more."""
        if self._zygote is None:
            return
        pid = self._zygote.pid
        self._zygote.close()
        self._zygote, self._make = None, None
        os.kill(pid, signal.SIGKILL)  # it may be stopped
        os.waitpid(pid, 0)
