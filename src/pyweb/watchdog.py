"""The request watchdog: a process that hangs over a request for --timeout-request is ended.

A process that hangs can't say so: it is seen from outside. It counts in its slot when it begins a
step of a conversation and when it ends it (scoreboard.STEP): an odd number that stays the same,
with nothing sent meanwhile, is a process that hangs. So the time is that for which the process
alone is to blame. What waits for its client takes no step (--timeout-body and --timeout-write are
for that), and what makes progress counts anew with each byte that leaves: a long download is not
cut, and no slow client can have a worker ended in which others are served.

The time is measured here, from look to look, on our clock: a request lives for --timeout-request
and up to a look more. What stands in the slot is compared with what stood there before, and shown:
a process that lies there lives on, or has itself ended.

First it is asked where it is, by a signal at which Python's stack goes to stderr; a moment later it
is killed, whatever has become of that. If it has gone on in this moment it lives.

Not here: what the client is told, and who takes the place of the dead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from resource import struct_rusage

from . import procfs
from .child import STACK
from .clock import earliest
from .errors import Reason
from .journal import Journal
from .obituary import what_it_did, what_it_used
from .scoreboard import SENT, STEP, THREAD, Slot

# So many looks in --timeout-request, and how long from one to the next.
_LOOKS = 10
_SHORTEST, _LONGEST = 0.02, 1.0
# For the stack to be written. Nobody waits for it: the master goes on meanwhile.
_LAST_WORDS = 0.5

# A process, and its slots: of each of its threads one.
Process = tuple[int, Sequence[Slot]]
# Slot, pid and seconds of one that is about to be killed, for who must know before.
Say = Callable[[int, int, float], None]


class Hang:
    """A step that lasts. `since` when (monotonic) we have seen it; `seconds` and `cpu` it has
    lasted and used when we looked last (cpu None: the system does not tell)."""

    __slots__ = ("_cpu_before", "_slot", "_thread", "_what", "cpu", "pid", "seconds", "since")

    def __init__(self, pid: int, slot: Slot, now: float) -> None:
        self.pid = pid
        self.since = now
        self.seconds = 0.0
        self.cpu: float | None = None
        self._slot = slot
        self._what = _step(slot)
        self._thread = slot.get(THREAD)
        self._cpu_before = _cpu_seconds(pid, self._thread)

    @property
    def slot(self) -> int:
        return self._slot.number

    def lasts(self) -> bool:
        return _step(self._slot) == self._what

    def measure(self, now: float) -> None:
        self.seconds = now - self.since
        cpu = _cpu_seconds(self.pid, self._thread)
        if cpu is not None and self._cpu_before is not None:
            self.cpu = cpu - self._cpu_before

    def doing(self) -> str:
        """As it says itself."""
        return what_it_did(self._slot.peer().decode("ascii", "replace"), self._slot.text())

    def lasted(self) -> str:
        used = "" if self.cpu is None else f" and {self.cpu:.1f} s of CPU"
        return f"{self.seconds:.1f} s{used}"


class _Sentence:
    """What is about to be killed, or (`at` None) has been."""

    __slots__ = ("at", "hangs")

    def __init__(self, at: float, hangs: list[Hang]) -> None:
        self.at: float | None = at
        self.hangs = hangs


class Watchdog:
    """Of the processes of a mode, which are called `kind`. `seconds` 0: there is none."""

    def __init__(self, seconds: float, kind: str, journal: Journal, say: Say | None = None) -> None:
        self._seconds = seconds
        self._kind = kind
        self._journal = journal
        self._say = say
        self._pause = max(_SHORTEST, min(seconds / _LOOKS, _LONGEST))
        self._next_look = 0.0
        self._hangs: dict[int, Hang] = {}  # by slot; not yet too long
        self._sentences: dict[int, _Sentence] = {}  # by pid

    def look(self, processes: Iterable[Process]) -> float | None:
        """At all that live, in each round of the loop. The moment (monotonic) for the next; None:
        there will be none."""
        if not self._seconds:
            return None
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + self._pause
            for pid, slots in processes:
                if pid not in self._sentences:
                    self._look_at(pid, slots, now)
        for pid in [pid for pid, one in self._sentences.items() if one.at and one.at <= now]:
            self._execute(pid, now)
        return earliest(self._next_look, *(one.at for one in self._sentences.values()))

    def has_killed(self, pid: int) -> bool:
        """It may still be there: the system lets it finish what can't be interrupted."""
        sentence = self._sentences.get(pid)
        return sentence is not None and sentence.at is None

    def bury(self, pid: int, code: int, usage: struct_rusage) -> list[Hang]:
        """It has ended. If by us, that is said; gives for what."""
        sentence = self._sentences.pop(pid, None)
        if sentence is None or code not in (-signal.SIGKILL, -STACK):
            return []
        if code == -signal.SIGKILL and sentence.at is not None:
            return []  # somebody was faster
        for hang in sentence.hangs:
            self._journal.say(
                f"reason {Reason.REQUEST_TIMEOUT:d}: {self._kind} {pid}, {hang.doing()}, was ended"
                f" by our watchdog after {hang.lasted()} (--timeout-request {self._seconds:g});"
                f" {what_it_used(usage)}"
            )
        return sentence.hangs

    def _look_at(self, pid: int, slots: Sequence[Slot], now: float) -> None:
        hangs = [hang for slot in slots if (hang := self._hang(pid, slot, now))]
        late = [hang for hang in hangs if now - hang.since >= self._seconds]
        if late:
            self._sentence(pid, late, now)

    def _hang(self, pid: int, slot: Slot, now: float) -> Hang | None:
        """None: it is at no step."""
        if not slot.get(STEP) & 1:
            self._hangs.pop(slot.number, None)
            return None
        hang = self._hangs.get(slot.number)
        if hang is None or hang.pid != pid or not hang.lasts():
            hang = self._hangs[slot.number] = Hang(pid, slot, now)
        return hang

    def _sentence(self, pid: int, hangs: list[Hang], now: float) -> None:
        for hang in hangs:
            del self._hangs[hang.slot]
            hang.measure(now)
            self._journal.say(
                f"{self._kind} {pid}, {hang.doing()}, hangs for {hang.lasted()}; Python's stack:"
            )
        os.kill(pid, STACK)
        self._sentences[pid] = _Sentence(now + _LAST_WORDS, hangs)

    def _execute(self, pid: int, now: float) -> None:
        sentence = self._sentences[pid]
        sentence.hangs = [hang for hang in sentence.hangs if hang.lasts()]
        if not sentence.hangs:
            del self._sentences[pid]
            self._journal.say(f"{self._kind} {pid} has gone on, and lives")
            return
        for hang in sentence.hangs:
            hang.measure(now)
            if self._say:
                self._say(hang.slot, pid, hang.seconds)
        os.kill(pid, signal.SIGKILL)
        sentence.at = None


def _step(slot: Slot) -> tuple[int, int]:
    return slot.get(STEP), slot.get(SENT)


def _cpu_seconds(pid: int, thread: int) -> float | None:
    try:
        return procfs.cpu_seconds(pid, thread)
    except OSError:
        return None
