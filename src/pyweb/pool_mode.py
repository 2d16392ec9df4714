"""A pool of long-lived workers (Apache's prefork), or one process with threads.

The workers accept for themselves; what is here keeps as many of them as are wanted: those that
end are replaced, a pool with too few idle ones grows by doubling, one with too many shrinks one
at a time. A worker that dies as soon as it starts is not replaced at once, for ever.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from resource import struct_rusage

from .child import (
    END,
    EXIT_DEFECT,
    HELD,
    become_a_child,
    ended_children,
    name_process,
    show_stack_when_asked,
    tell_defect,
)
from .clock import earliest
from .config import Config
from .errors import Reason
from .filling import Filling
from .gate import Gate
from .journal import Journal
from .keeper import POSSIBLE, Adoption, make_ledger, start_keeper
from .lane import Lanes
from .ledger import Ledger
from .losses import NOTHING_TOLD, Losses, Told
from .obituary import Obituaries, what_it_did
from .parking import pair
from .scoreboard import (
    CONNECTIONS,
    IDLE_WORKER,
    PID,
    RETIRING,
    STATE,
    TURNED_AWAY,
    WORKER,
    WORKING,
    Scoreboard,
    Slot,
)
from .service import Service
from .shares import Shares
from .verdicts import Judged, Verdicts
from .watchdog import Watchdog
from .worker import Leave, Quota, Worker, random_below

# How often the pool is looked at.
_TICK = 0.1
# Grown at most by so many in one tick, as Apache does.
_MOST = 32
# A worker that ends so soon after its start has something against starting.
_SOON = 1.0
_LONGEST_PAUSE = 5.0
# After the death of a worker its keeper answers for it; it lingers 2 s at most.
_KEEPERS_LINGER = 3.0


def slots_of(config: Config) -> int:
    """For all that may be there, those included that retire while others serve already."""
    return _limit(config) * (config.threads if config.mode == "thread" else 1)


def _limit(config: Config) -> int:
    """A process with threads retires as a whole, as often as the log is opened anew."""
    return 16 if config.mode == "thread" else 2 * config.max_connections


def keeps(config: Config) -> bool:
    """Whether workers have keepers. For those of one connection each it would double what one
    costs; but with a watchdog somebody must be there who says 504."""
    is_cheap = config.max_connections_per_child != 1 or config.timeout_request > 0
    return POSSIBLE and is_cheap


# Of the stamps' records each worker has its own; so many workers come and go in a pool of one.
_SHARES = 4


class _Process:
    __slots__ = ("pid", "retiring", "slots", "started", "told")

    def __init__(self, pid: int, slots: list[Slot]) -> None:
        self.pid = pid
        self.slots = slots
        self.started = time.monotonic()
        self.retiring = False
        self.told: Told = NOTHING_TOLD


class PoolMode:
    """`processes` of `threads` workers each.

    served   connections that a worker accepted (as the workers tell)
    cut      workers that did not end by themselves, or not well
    lanes    of workers that repeat decisions, by the cache that `filling` is of; None: all is
             decided anew
    """

    def __init__(
        self,
        config: Config,
        service: Service,
        *,
        listeners: list[socket.socket],
        lifeline: int,
        keep: tuple[int, ...],
        scoreboard: Scoreboard,
        journal: Journal,
        filling: Filling | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self._filling = filling
        self._lanes = lanes
        self._config = config
        self._service = service
        self._listeners = listeners
        self._lifeline = lifeline
        self._keep = keep
        self._scoreboard = scoreboard
        self._journal = journal
        self._threads = config.threads if config.mode == "thread" else 1
        self._least = 1 if config.mode == "thread" else config.workers
        self._most = 1 if config.mode == "thread" else max(config.workers, config.max_connections)
        # Somebody may come and go without a signal: look at the slots now and then.
        self._looks = bool(
            config.min_spare
            or config.max_spare
            or config.max_requests
            or config.max_connections_per_child
        )
        self._stamp_shares = _SHARES * self._least * self._threads
        if service.stamps.on and not config.stamps // self._stamp_shares:
            journal.say(f"stamps: {self._stamp_shares} workers share {config.stamps} records: none")
        self._shares = Shares(scoreboard.slots) if config.per_client else None
        self._adoption = Adoption(*pair()) if keeps(config) else None
        self._processes: dict[int, _Process] = {}
        self._obituaries = Obituaries()
        self._verdicts = Verdicts(scoreboard.slots)
        self._watchdog = Watchdog(config.timeout_request, "worker", journal, self._verdicts.say)
        self._spawn_after = 0.0
        self._pause = _TICK
        self._growth = 1
        self._next_look = 0.0
        self._last_burial = 0.0
        self._draining = self._ending = False
        self.served = 0
        self.refused = 0
        self.cut = 0
        self._losses = Losses(journal)

    unit = "workers"

    def count(self) -> int:
        """When the last worker has left, its keeper is about to; a moment is its due."""
        return len(self._processes) or int(self._draining and self._keepers_are_left())

    def accepted(self) -> int:
        """Connections that the workers have taken so far, as they tell."""
        living = (slot for one in self._processes.values() for slot in one.slots)
        return self.served + self.refused + sum(slot.get(CONNECTIONS) for slot in living)

    def is_small(self) -> bool:
        return self._lacks()

    def _keepers_are_left(self) -> bool:
        """They are children of ours that nobody keeps a list of: ask the kernel."""
        if not POSSIBLE or time.monotonic() > self._last_burial + _KEEPERS_LINGER:
            return False
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    # Keeping as many as are wanted.

    def tend(self) -> float | None:
        """Grow, shrink, replace. Gives the moment (monotonic) when to look again."""
        for one in self._processes.values():
            one.told = self._losses.tell(one.slots, one.told)
        watched = self._watch()
        if self._draining:
            return watched
        now = time.monotonic()
        if now >= self._spawn_after:
            self._replace()
            if now >= self._next_look:
                self._next_look = now + _TICK
                self._adjust()
        if self._lacks():
            return earliest(watched, self._spawn_after)
        if self._filling:  # where there are few processes, workers come first
            watched = earliest(watched, self._filling.tend())
        return earliest(watched, self._next_look if self._looks else None)

    def _watch(self) -> float | None:
        if self._ending:
            return None
        return self._watchdog.look((pid, one.slots) for pid, one in self._processes.items())

    def _active(self) -> list[_Process]:
        """Those that accept connections. The state of a slot is what the worker says: one that
        lies makes the pool a process larger, up to the limit."""
        return [
            one
            for one in self._processes.values()
            if not (one.retiring or self._watchdog.has_killed(one.pid))
            and all(slot.get(STATE) != RETIRING for slot in one.slots)
        ]

    def _lacks(self) -> bool:
        return len(self._active()) < self._least and self._room() > 0

    def _room(self) -> int:
        """For so many more. Those that were told to leave have their successors at once, for their
        last connections may take long. One that leaves of its own still serves, and counts."""
        there = len(self._processes)
        leaving = sum(map(self._is_to_leave, self._processes.values()))
        return min(self._most - (there - leaving), _limit(self._config) - there)

    def _is_to_leave(self, one: _Process) -> bool:
        """Somebody else may have told it so, by a signal; where it is the only one, we look."""
        is_to = one.retiring or self._watchdog.has_killed(one.pid)
        return is_to or (self._threads > 1 and any(s.get(STATE) == RETIRING for s in one.slots))

    def _replace(self) -> None:
        while self._lacks() and self._spawn():
            pass

    def _adjust(self) -> None:
        active = self._active()
        idle = list(filter(_is_idle, active))
        if len(idle) < self._config.min_spare:
            for _ in range(min(self._growth, self._room())):
                if not self._spawn():
                    return
            self._growth = min(2 * self._growth, _MOST)
            return
        self._growth = 1
        too_many = self._config.max_spare and len(idle) > self._config.max_spare
        if too_many and len(active) > self._least:
            self._retire(idle[0])

    def _spawn(self) -> bool:
        now = int(time.time() * 1000)
        slots = [self._scoreboard.take(now, WORKER) for _ in range(self._threads)]
        if self._shares:
            for slot in slots:
                self._shares.begin(slot.number)
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_a_worker(slots)
        except OSError as error:
            for slot in slots:
                self._scoreboard.give_back(slot)
            self._journal.say_often(f"fork: {error.strerror}: the pool is smaller than wanted")
            self._spawn_after = time.monotonic() + _TICK
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._processes[pid] = _Process(pid, slots)
        for slot in slots:
            slot.set(PID, pid)
        return True

    # In the worker's process.

    def _be_a_worker(self, slots: list[Slot]) -> None:
        code = EXIT_DEFECT
        try:
            leave = Leave()
            fds = {leave.fd, leave.write_fd, *(one.fileno() for one in self._listeners)}
            adoption = self._adoption
            become_a_child(
                {*fds, *self._keep, *(adoption.fds() if adoption else ()), *self._wishes()},
                term=leave.say,
                end=lambda: leave.say(at_once=True),
            )
            if self._config.timeout_request:
                show_stack_when_asked(self._journal)
            ledger = make_ledger(len(slots))
            if adoption:
                judged = Judged(self._verdicts, [slot.number for slot in slots], os.getpid())
                start_keeper(self._service, ledger, adoption, judged)
            name_process("pyweb-worker")
            gate = Gate(self._listeners, adoption.inbox if adoption else None)
            workers = [self._worker(gate, leave, slot, ledger, i) for i, slot in enumerate(slots)]
            _run_all([worker.run for worker in workers], self._journal)
            code = 0
        except BaseException:
            tell_defect(self._journal)
        finally:
            os._exit(code)

    def _wishes(self) -> tuple[int, ...]:
        return (self._filling.wishes.fileno(),) if self._filling else ()

    def _worker(self, gate: Gate, leave: Leave, slot: Slot, ledger: Ledger, place: int) -> Worker:
        return Worker(
            self._service,
            gate,
            self._lifeline,
            leave,
            slot,
            quota=self._quota(),
            ledger=ledger,
            shares=self._shares,
            place=place,
            stamps=self._service.stamps.share(slot.number, self._stamp_shares),
            lanes=self._lanes,
        )

    def _quota(self) -> Quota:
        config = self._config
        if config.mode == "thread":
            return Quota()
        requests = config.max_requests
        if requests:
            requests += random_below(config.max_requests_jitter)
        return Quota(requests, config.max_connections_per_child)

    # Ending.

    def reap(self) -> None:
        """All that have ended, in one go."""
        for pid, code, usage in ended_children():
            if pid in self._processes:
                self._bury(pid, code, usage)
            elif self._filling and self._filling.bury(pid, code, usage, self._obituaries):
                continue
            elif code:
                self._journal.say(
                    f"keeper {pid} {self._obituaries.tell(code, usage)}: a crash of its worker"
                    " would cost that one's clients their connections"
                )

    def _bury(self, pid: int, code: int, usage: struct_rusage) -> None:
        one = self._processes.pop(pid)
        doing = "".join(map(_what_it_did, one.slots))
        hung = self._watchdog.bury(pid, code, usage)
        self._losses.tell(one.slots, one.told)
        for slot in one.slots:
            turned_away = slot.get(TURNED_AWAY)
            self.served += slot.get(CONNECTIONS) - turned_away
            self.refused += turned_away
            if self._shares and code:
                self._shares.begin(slot.number)  # its connections are no longer its own
            self._scoreboard.give_back(slot)
        self._last_burial = time.monotonic()
        if code and not self._ending:
            self.cut += 1
            if code != EXIT_DEFECT and not hung:  # of those all has been said
                how = self._obituaries.tell(code, usage)
                self._journal.say(f"reason {Reason.CHILD_DIED:d}: worker {pid}{doing} {how}")
            self._hold_back(one)
        else:
            self._pause = _TICK

    def _hold_back(self, one: _Process) -> None:
        """The next one at once, unless this one died young."""
        now = time.monotonic()
        if now - one.started < _SOON:
            self._spawn_after = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    @property
    def lost_lines(self) -> int:
        return self._losses.lines

    def drain(self) -> None:
        """No new ones; the lifeline tells those that are there."""
        self._draining = True
        if self._adoption:
            self._adoption.close()
        if self._filling:
            self._filling.drain()

    def renew(self) -> None:
        """Others take their place as soon as they have heard it; their connections end there. None
        leaves that could have no successor."""
        if self._draining:
            return
        serving = [one for one in self._processes.values() if not one.retiring]
        successors = _limit(self._config) - len(self._processes)
        for one in serving[:successors]:
            self._retire(one)
        if len(serving) > successors:
            self._journal.say("too many workers retire: the others write on into the old log")

    def resize(self, by: int) -> None:
        self._least = max(1, self._least + by)
        active = self._active()
        if by < 0 and len(active) > self._least:
            self._retire(next(filter(_is_idle, active), active[-1]))

    def _retire(self, one: _Process) -> None:
        if not one.retiring:
            one.retiring = True
            os.kill(one.pid, signal.SIGTERM)

    def end(self, *, kill: bool) -> None:
        if not self._ending:
            self.cut += len(self._processes)
        self._draining = self._ending = True
        if self._filling:
            self._filling.end(kill=kill)
        for pid in self._processes:
            os.kill(pid, signal.SIGKILL if kill else END)

    def close(self) -> None:
        """There is nothing left."""


def _is_idle(one: _Process) -> bool:
    return all(slot.get(STATE) == IDLE_WORKER for slot in one.slots)


def _what_it_did(slot: Slot) -> str:
    """Of one thread. What it turned to last is of interest if it was still at it."""
    request = slot.text()
    if not request and slot.get(STATE) != WORKING:
        return ""
    return f", {what_it_did(slot.peer().decode('ascii', 'replace'), request)},"


def _run_all(works: list[Callable[[], None]], journal: Journal) -> None:
    """One here; several each in its own thread, and the signals here. Threads that the system
    does not allow are said, and the others serve."""
    if len(works) == 1:
        works[0]()
        return
    import threading  # not in a master: it would add to what each fork does

    # Each has its place from the start: to note a MemoryError must not need any.
    failed: list[BaseException | None] = [None] * len(works)
    ended = threading.Semaphore(0)

    def one(place: int) -> None:
        try:
            works[place]()
        except BaseException as error:
            failed[place] = error
        finally:
            ended.release()

    started = 0
    for place in range(len(works)):
        try:
            threading.Thread(target=one, args=(place,)).start()
        except RuntimeError as error:
            if not started:
                raise
            journal.say(f"{error}: {started} of {len(works)} serve")
            break
        started += 1
    for _ in range(started):
        ended.acquire()
        # The connections of a thread that failed would hang: better that all are answered for.
        for failure in filter(None, failed):
            raise failure
