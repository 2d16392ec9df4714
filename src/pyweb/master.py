"""The master's loop: one poll over signals, the supervisor's orders and what its mode needs.

The master reads no client byte and believes nothing that a child can write. It knows no mode: it
tells it to reap, to tend to its processes, to drain, to end. Nor does it know who looks after
those who come: where the master accepts, accept.py; where a pool does for itself, backlog.py.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

from .channel import ALIVE, CHECK, DRAIN, END, GROW, LEAVING, REOPEN, RETIRE, SHRINK, Channel
from .config import Config
from .errors import Reason
from .journal import Journal
from .listen import Listener
from .mode import Entrance, Mode, Ready
from .signals import SignalPipe
from .stamps import NO_STAMPS, NoStamps, Stamps

# From the word to leave to SIGKILL, for children that are ended.
_LAST_WORDS = 2.0
# Routine lasts so long (s) at the most, and ends where nothing comes for so long (ms).
_ROUTINE = 0.02
_MOMENT = 2


class Master:
    """run() until told to stop. `lifeline`: the write end; closing it tells idle children to go.
    `publish` is called once a round: what has been counted goes where it can be read. `reopen`:
    the log goes to this descriptor from now on."""

    def __init__(
        self,
        config: Config,
        *,
        listeners: list[Listener],
        mode: Mode,
        entrance: Entrance,
        signals: SignalPipe,
        channel: Channel,
        journal: Journal,
        lifeline: int,
        poll: select.poll,
        publish: Callable[[], None],
        reopen: Callable[[int], None],
        stamps: Stamps | NoStamps = NO_STAMPS,
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._mode = mode
        self._entrance = entrance
        self._signals = signals
        self._channel = channel
        self._journal = journal
        self._lifeline = lifeline
        self._poll = poll
        self._publish = publish
        self._reopen = reopen
        self._stamps = stamps
        self._poll.register(signals.fd, select.POLLIN)
        self._poll.register(channel.fd, select.POLLIN)
        self._retired = False  # another serves, and there is no hurry
        self._stop_at: float | None = None  # when --grace is over; None: not stopping
        self._ending = False  # children have been told to leave

    def run(self) -> None:
        while not self._finished():
            # One moment for both: what is not polled for because of it must be waited for.
            now = time.monotonic()
            self._entrance.prepare(now)
            patience = self._patience(now)
            ready = self._routine(self._poll_for(patience))
            self._obey([fd for fd, _ in ready])
            self._entrance.work(ready)
            self._journal.flush()
            self._publish()
        self._mode.close()
        self._entrance.close()
        self._journal.flush(at_once=True)

    def _poll_for(self, patience: int | None) -> Ready:
        if not self._stamps.on:
            return self._poll.poll(patience)
        self._stamps.waits()
        ready = self._poll.poll(patience)
        self._stamps.woke()
        return ready

    def _routine(self, ready: Ready) -> Ready:
        """As long as nothing happens but that some come and others have ended, a round is that
        and nothing else: what may be due, and what is told of it all, can wait for a moment. Gives
        what the poll has found where that is not so."""
        do = self._entrance.routine() if ready else None
        if do is None:
            return ready
        until = time.monotonic() + _ROUTINE
        while do(ready, self._signals):
            if time.monotonic() >= until:
                return []
            ready = self._poll_for(_MOMENT)
            if not ready:
                break
        return ready

    def _finished(self) -> bool:
        if not (self._retired or self._stop_at) or self._mode.count():
            return False
        if self._ending:  # nobody waits for those who linger
            return not self._entrance.has_processes()
        return not self._entrance.is_busy()

    def _patience(self, now: float) -> int | None:
        """Milliseconds until something is due; None: only an event can give us work."""
        due = [self._mode.tend(), self._journal.next_flush(), self._stop_at]
        due += self._entrance.next_due(now)
        known = [moment for moment in due if moment is not None]
        return max(0, int((min(known) - now) * 1000) + 1) if known else None

    # Orders.

    def _obey(self, ready: list[int]) -> None:
        """SIGTERM for this process alone, an order, or a supervisor that is gone: each is heard
        as often as it comes, and drains once. Who has ended is reaped first: what it had may be
        given to others now."""
        heard = self._signals.read() if self._signals.fd in ready else ()
        if heard and heard != {signal.SIGCHLD} and self._stop_at is None:
            self._channel.say(LEAVING)
            self._drain()
        if self._channel.fd in ready and not self._channel.gone:
            self._hear()
        if signal.SIGCHLD in heard or not ready:
            self._mode.reap()
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self._end_children()

    def _hear(self) -> None:
        for order in self._channel.hear():
            self._do(order)
        if self._channel.gone:
            self._poll.unregister(self._channel.fd)
            self._drain()

    def _do(self, order: bytes) -> None:
        if order == END:
            self._end_children()
        elif order == DRAIN:
            self._drain()
        elif order == RETIRE:
            self._retire()
        elif order == CHECK:
            self._channel.say(ALIVE)
        elif order == REOPEN and self._channel.fds:
            self._reopen(self._channel.fds.popleft())
            self._mode.renew()
        elif order == REOPEN:
            self._journal.say("the log was not opened anew: no descriptor is left; try again")
        elif order in (GROW, SHRINK) and not self._retired:
            self._mode.resize(1 if order == GROW else -1)

    def _retire(self) -> None:
        """Another serves. Nothing that is open is hurried: a connection ends with its next
        answer, or when it has idled for as long as it may."""
        if self._retired or self._stop_at is not None:
            return
        self._retired = True
        self._entrance.drain()
        os.write(self._lifeline, b".")
        self._mode.drain()
        self._close_listeners()

    def _drain(self) -> None:
        """No new connections; idle children go, the others have --grace."""
        if self._stop_at is not None:
            return
        self._stop_at = time.monotonic() + self._config.grace
        if not self._retired:
            self._entrance.drain()
        self._close()
        self._journal.say(
            f"stopping: {self._mode.count()} {self._mode.unit} have {self._config.grace:g} s"
        )

    def _close(self) -> None:
        """Listeners and lifeline: whoever watches it knows."""
        self._mode.drain()
        self._close_listeners()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _end_children(self) -> None:
        """--grace is over, or nobody wants to wait for it: END, and a moment later SIGKILL. To no
        pid that has been waited for in C, and may be another's by now."""
        self._mode.reap()
        if not self._ending and self._mode.count():
            self._journal.say(
                f"reason {Reason.ENDED:d}: {self._mode.count()} {self._mode.unit} are cut"
            )
        self._entrance.abandon()
        self._close()
        self._mode.end(kill=self._ending)
        self._ending = True
        self._stop_at = time.monotonic() + _LAST_WORDS
