"""A process of the master's that serves nobody: it is started, and replaced when it dies.

Not here: what it does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from resource import struct_rusage

from .child import END, EXIT_DEFECT, HELD, become_a_child, name_process, tell_defect
from .clock import Backoff
from .errors import Ended, Reason
from .journal import Journal
from .obituary import Obituaries
from .scoreboard import IDLE_WORKER, OPEN, PID, STATE, Slot


class Helper:
    """name    as `ps` shows it, and as it is called when it dies
    work       what it does, until the lifeline hangs up
    keep       descriptors that it shares with us; the others are closed in it
    without    what does not happen as long as there is none
    reason     under which its death is told
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        keep: tuple[int, ...],
        *,
        without: str,
        reason: Reason,
        journal: Journal,
        slot: Slot,
    ) -> None:
        self._name = name
        self._work = work
        self._keep = keep
        self._without = without
        self._reason = reason
        self._journal = journal
        self._slot = slot
        self._backoff = Backoff()
        self._started = 0.0
        self._draining = False
        self.pid = 0

    def tend(self) -> float | None:
        """Start it where there is none; the moment (monotonic) when to try again."""
        if self.pid or self._draining:
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
                self._be_it()
        except OSError as error:
            self._journal.say_often(f"fork: {error.strerror}: {self._without}")
            self._backoff.ended(self._started)
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.pid = pid
        return True

    def _be_it(self) -> None:
        code = EXIT_DEFECT
        try:
            name_process(f"pyweb-{self._name[:8]}")  # at most 15 bytes
            self._slot.set(PID, os.getpid())
            self._slot.set(STATE, IDLE_WORKER)
            become_a_child(set(self._keep), term=_heed_the_lifeline_alone, end=_end)
            self._work()
            code = 0
        except Ended:
            code = 0  # before it held anything
        except BaseException:
            tell_defect(self._journal)
        finally:
            os._exit(code)

    def bury(self, pid: int, code: int, usage: struct_rusage, obituaries: Obituaries) -> bool:
        """Was it this one?"""
        if pid != self.pid:
            return False
        self.pid = 0
        self._slot.set(PID, 0)
        self._slot.set(OPEN, 0)
        if not self._draining:
            how = obituaries.tell(code, usage) if code else "left"
            self._journal.say(
                f"reason {self._reason:d}: {self._name} {pid} {how}; another is started"
            )
            self._backoff.ended(self._started)
        return True

    def drain(self) -> None:
        """The lifeline tells it; there will be no other."""
        self._draining = True

    def end(self, *, kill: bool) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL if kill else END)


def _heed_the_lifeline_alone() -> None:
    """SIGTERM for a whole process group is for the master, which tells us."""


def _end() -> None:
    signal.signal(END, signal.SIG_IGN)
    raise Ended
