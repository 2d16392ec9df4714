"""A child, from fork to exit: it serves one connection and is gone.

It leaves by os._exit, never through the interpreter's finalisation, and before it reads a byte it
has closed every descriptor that isn't its own. Its exit code is 0 unless pyweb itself failed.
"""

from __future__ import annotations

import faulthandler
import math
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from resource import struct_rusage
from types import FrameType
from typing import NoReturn

from .clock import Deadline
from .connection import Connection
from .errors import Ended, Reason
from .journal import Journal
from .parking import pass_on
from .past import NEW, Owed, Past, Progress
from .scoreboard import STEP, Slot
from .service import Service
from .stamps import CHILD, EXIT, NOTHING, Record
from .transport import Transport
from .wait import DRAINED, HEAD, IDLE, READ, READY, TIMED_OUT, TURN, Steps, Wait

EXIT_DEFECT = 70
# Of a child without an interpreter (_fastzygote.pyx): another, with one, must go on.
EXIT_HANDED_BACK = 71
# The master's signals are such as nobody else sends: an operator's SIGUSR1 to all that is called
# pyweb must end nothing. (A system without those has no others that are free.)
# Leave now: what is being answered is logged as broken off, with ENDED.
END = getattr(signal, "SIGRTMIN", signal.SIGUSR1)
# The watchdog's question where a process hangs: Python's stack goes to stderr, at once and in C.
STACK = signal.SIGRTMIN + 1 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
# Held back around a fork: what the master handles, and what a child handles in its own way; the
# rest is ignored in both. (To name all 64 would cost 90 us a fork: Python makes an enum member of
# each that was blocked.)
HELD = (signal.SIGTERM, signal.SIGCHLD, END, STACK)
# At which a conversation is Python's, where C leads it.
INTERRUPTS = (signal.SIGTERM, END)
# How long (s) a child stays for the next request, or for the rest of a head at which it is the
# first to look, before it parks the connection. A page's next request follows within a round
# trip; a process that sleeps so long costs less than another fork.
LINGER = 0.05
# After C could answer none of those that it was left, so many answers are given here first, twice
# as many each time. (fork_mode.py doubts bare children in the same way.)
MOST_DOUBT = 64

# Serve on in C: a socket, its peer's name, its slot, and how many were answered. None: it is over.
Again = Callable[[socket.socket, str, Slot, int], Progress | None]

_FOR_EVER = Deadline(float("inf"))


class Parked(Exception):
    """The connection has been parked: it lives on without this process."""


class GoesOn(Exception):
    """The connection idles, and what it asks next may be answered in C."""


class Driver:
    """Drives one conversation with poll, which also watches the lifeline: the read end of a pipe
    whose write end only the master holds. A byte that nobody reads says that another serves now:
    the connection ends with its next answer, or when it has idled too long. When the pipe hangs
    up, the master is draining or dead: an idle connection ends, and another with its present
    answer.

    dispatcher   where connections are parked; None: they keep their process
    clock        where the watchdog reads whether a step is being taken; None: there is none
    stays        so many answers of those that C could have given are given here, at the least;
                 None: all
    """

    def __init__(
        self,
        connection: Connection,
        sock: socket.socket,
        lifeline: int,
        dispatcher: socket.socket | None = None,
        clock: Slot | None = None,
        stays: int | None = None,
    ) -> None:
        self._connection = connection
        self._stays = stays
        self._sock = sock
        self._lifeline = lifeline
        self._dispatcher = dispatcher
        self._clock = clock
        self._poll = select.poll()
        self._hung_up = False
        self._poll.register(sock, READ)
        if lifeline >= 0:
            self._poll.register(lifeline, READ)

    def run(
        self, steps: Steps[Reason], hear: Callable[[], None] | None = None, *, owes: bool = False
    ) -> Reason | None:
        """To the end, or (None) until it is parked. GoesOn, where it does not stay; Ended: the
        conversation has logged what that broke off.

        hear   signals were held back, and are not any more
        owes   an answer: the conversation begins before they are heard
        """
        try:
            wait = next(steps) if owes else None
            if hear:
                hear()
            self._listen(self._poll.poll(0))  # what is here already may be answered without a wait
            self._tick()
            wait = wait or next(steps)
            while True:
                wait = self._next(steps, wait)
        except StopIteration as end:
            self._tick()
            reason: Reason = end.value
            return reason
        except Parked:
            steps.close()
            return None
        except GoesOn:
            steps.close()
            raise
        except Ended as end:
            steps.throw(end)  # unless that is where it comes from
            raise

    def _next(self, steps: Steps[Reason], wait: Wait) -> Wait:
        self._tick()
        outcome = self._outcome(wait)
        self._tick()
        return steps.send(outcome)

    def _tick(self) -> None:
        """A step begins, or has ended: while it waits for its client nobody is hanging."""
        if self._clock is not None:
            self._clock.add(STEP, 1)

    def _outcome(self, wait: Wait) -> int:
        if wait.kind == TURN:
            self._listen(self._poll.poll(0))
            return READY
        if self._stays is not None and wait.kind == IDLE and self._may_leave():
            self._stays -= 1
            if self._stays <= 0:
                raise GoesOn
        self._poll.modify(self._sock, wait.events)
        linger = self._linger(wait)
        while True:
            gone = self._hung_up and wait.kind == IDLE
            left = min(wait.deadline.left(), linger.left())
            # Rounded up: a poll that wakes a moment early would spin until the deadline.
            patience = 0 if gone else min(math.ceil(left * 1000), 1 << 30)
            ready = self._poll.poll(patience)
            self._listen(ready)
            if any(fd == self._sock.fileno() for fd, _ in ready):
                return READY  # a request that is there already gets its answer, the last
            if gone:
                return DRAINED
            if not ready and not wait.deadline.left():
                return TIMED_OUT
            if not ready:
                linger = self._park()

    def _may_leave(self) -> bool:
        one = self._connection
        return one.repeats and not one.drained and one.past() is not None

    def _linger(self, wait: Wait) -> Deadline:
        """How long to wait before the connection is parked."""
        if self._dispatcher is None or wait.kind not in (IDLE, HEAD) or self._connection.drained:
            return _FOR_EVER
        past = self._connection.past()
        if past is None:
            return _FOR_EVER
        return Deadline(0.0 if past.tries > 1 else LINGER)

    def _park(self) -> Deadline:
        """Parked, or how long to wait until the next try."""
        past = self._connection.past()
        if self._dispatcher is None or past is None or self._connection.drained:
            return _FOR_EVER
        if pass_on(self._dispatcher, self._sock, past, self._connection.peer):
            raise Parked
        return Deadline(LINGER)

    def _listen(self, ready: list[tuple[int, int]]) -> None:
        """To the lifeline: to each of its words once."""
        for fd, events in ready:
            if fd == self._lifeline:
                self._connection.drained = True
                self._hung_up = events != READ
                if self._hung_up:
                    self._poll.unregister(fd)
                else:
                    self._poll.modify(fd, 0)


class Child:
    """What a child must know beside its connection. `keep`: descriptors that all children share
    (log, stderr, document root, lifeline). `dispatcher`: see Driver. `again`: None where there is
    nothing to be repeated."""

    def __init__(
        self,
        service: Service,
        keep: tuple[int, ...],
        lifeline: int,
        dispatcher: socket.socket | None = None,
        again: Again | None = None,
    ) -> None:
        self._again = again
        self._service = service
        self._keep = keep if dispatcher is None else (*keep, dispatcher.fileno())
        self._lifeline = lifeline
        self._dispatcher = dispatcher

    def go_on(
        self,
        sock: socket.socket,
        peer: str,
        slot: Slot,
        past: Past,
        record: Record,
        progress: Progress,
    ) -> NoReturn:
        """Where the process has served already, in C."""
        requests, owed = progress
        if requests != past.requests:
            past, record = Past(requests), NOTHING
        self.run(sock, peer, slot, past, record, Owed(*owed) if owed else None)

    def run(
        self,
        sock: socket.socket,
        peer: str,
        slot: Slot,
        past: Past = NEW,
        record: Record = NOTHING,
        owed: Owed | None = None,
    ) -> NoReturn:
        """In the forked process, all signals blocked."""
        if not owed:
            record.mark(CHILD)
        code = EXIT_DEFECT
        try:
            files = owed.files() if owed else ()
            become_a_child(
                {sock.fileno(), *self._keep, *files}, term=self._drain, end=_end, hears=False
            )
            clock = None
            if self._service.config.timeout_request:
                show_stack_when_asked(self._service.journal)
                clock = slot
            self.serve(sock, peer, slot, past, record, owed, clock)
            code = 0
        except Ended:
            code = 0  # the connection has logged what it broke off
        except BaseException:
            tell_defect(self._service.journal)
        finally:
            # END may come here as well, and must not unwind into what only the master does.
            try:
                record.mark(EXIT)
            finally:
                os._exit(code)

    def serve(
        self,
        sock: socket.socket,
        peer: str,
        slot: Slot,
        past: Past,
        record: Record,
        owed: Owed | None,
        clock: Slot | None,
    ) -> None:
        """Here, and in C where that can be: a request that needs Python may be followed by many
        that don't. Signals are held back when it begins, and maybe when it ends. Ended."""
        doubt = 1
        while True:
            sock.setblocking(False)
            connection = Connection(
                self._service,
                Transport(sock, self._service.config.engine),
                peer,
                slot,
                past=past,
                peeks=self._dispatcher is not None,
                record=record,
                owed=owed,
            )
            stays = doubt if self._again else None
            driver = Driver(connection, sock, self._lifeline, self._dispatcher, clock, stays)
            try:
                driver.run(connection.serve(), _hear, owes=owed is not None)
                return
            except GoesOn:
                before = connection.requests
            progress = self._repeat(sock, peer, slot, before)
            if progress is None:
                return
            requests, left = progress
            # One that it did not have to answer is worth several ways to C and back.
            doubt = 1 if left or requests > before else min(2 * doubt, MOST_DOUBT)
            past, record, owed = Past(requests), NOTHING, Owed(*left) if left else None

    def _repeat(self, sock: socket.socket, peer: str, slot: Slot, requests: int) -> Progress | None:
        """In C signals are held back, as in a child that begins there: it looks for them. They are
        heard again with what it has left."""
        assert self._again is not None
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        return self._again(sock, peer, slot, requests)

    def _drain(self) -> None:
        """SIGTERM for this process alone, or for all of a process group or a systemd unit: leave
        after the answer that is being sent, as if the master had hung up."""
        try:
            ours, theirs = os.pipe()
            os.close(theirs)
            os.dup2(ours, self._lifeline)
            os.close(ours)
        except OSError:
            pass


def _end() -> None:
    signal.signal(END, signal.SIG_IGN)
    raise Ended


def _hear() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_a_child(
    keep: set[int], *, term: Callable[[], None], end: Callable[[], None], hears: bool = True
) -> None:
    """From here on a process of its own: its signals, its descriptors. All signals are blocked
    when it begins, and where it does not yet hear them still. `term`, `end`: what SIGTERM and END
    do."""

    def on_term(_number: int, _frame: FrameType | None) -> None:
        term()

    def on_end(_number: int, _frame: FrameType | None) -> None:
        end()

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(END, on_end)
    close_all_but({0, 1, 2, *keep})
    if hears:
        _hear()


def show_stack_when_asked(journal: Journal) -> None:
    """Here and not in the master: nobody asks it, and what it does with the signal is its own."""
    try:
        faulthandler.register(STACK, journal.sink.fd)
    except (OSError, ValueError):
        pass  # stderr is closed


def name_process(name: str) -> None:
    """For `ps` and `top`, at most 15 bytes; not for what lives as short as a child."""
    try:
        with open("/proc/self/comm", "w") as file:
            file.write(name)
    except OSError:
        pass


def tell_defect(journal: Journal) -> None:
    """In an `except`: the last words of a process that fails. That memory is at an end is no
    defect, and a traceback would need some."""
    if isinstance(sys.exc_info()[1], MemoryError):
        reason = Reason.NO_MEMORY
        journal.say(f"reason {reason:d}: {reason.meaning}: process {os.getpid()} ends")
        return
    for line in traceback.format_exc().splitlines():
        journal.say(f"{Reason.INTERNAL:d} {line}")


def ended_children() -> Iterator[tuple[int, int, struct_rusage]]:
    """Pid, exit code (below 0: the signal) and what it used, of each that has ended; a zombie
    less for each."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, os.waitstatus_to_exitcode(status), usage


def how_it_ended(code: int) -> str:
    """For a code that is not 0."""
    return f"was ended by {signal_name(-code)}" if code < 0 else f"left with code {code}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names


def close_all_but(kept: set[int]) -> None:
    """Close every other descriptor, gap by gap: os.closerange is one close_range(2) where the
    kernel has it."""
    low = 0
    for fd in sorted(kept):
        if fd > low:
            os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, _highest() + 1)


def _highest() -> int:
    """The last descriptor that can be open."""
    try:
        return max(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return int(os.sysconf("SC_OPEN_MAX"))
