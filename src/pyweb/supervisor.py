"""The first process: it keeps the listeners, starts a master, and starts another when that dies.

It lives as long as the server and knows next to nothing: no client byte, no document root, no
connection. A master is a fresh interpreter, so what the supervisor has loaded is no part of any
fork's cost. Not here: binding, and how a master serves.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from resource import struct_rusage

from . import channel as channels
from .channel import ALIVE, CHECK, DRAIN, END, LEAVING, READY, Channel
from .child import ended_children
from .clock import Backoff
from .errors import EXIT_CANNOT_START, EXIT_DONE, Reason, StartError
from .handover import Handover
from .journal import Journal
from .listen import Listener
from .notify import Notifier
from .obituary import Obituaries
from .signals import OF_THE_TERMINAL, SignalPipe

# What the fresh interpreter runs. No `site` (-S): it would double what each fork copies. So it
# must be told where the package is; last on the path, for nothing beside it may hide a module.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from pyweb.generation import main;"
    " sys.exit(main(int(sys.argv[2])))"
)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A master keeps --grace itself. One that does not is killed so many seconds later.
_BEYOND_GRACE = 5.0


class _Master:
    __slots__ = ("channel", "pid", "started")

    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self.started = time.monotonic()


class Supervisor:
    """run() until told to stop.

    handover   (descriptor of the channel, generation) -> what a new master needs
    announce   called once, when the first master serves
    """

    def __init__(
        self,
        handover: Callable[[int, int], Handover],
        *,
        listeners: list[Listener],
        announce: Callable[[], None],
        signals: SignalPipe,
        journal: Journal,
        notifier: Notifier,
        grace: float,
    ) -> None:
        self._handover = handover
        self._listeners = listeners
        self._announce = announce
        self._signals = signals
        self._journal = journal
        self._notifier = notifier
        self._grace = grace
        self._poll = select.poll()
        self._poll.register(signals.fd, select.POLLIN)
        self._master: _Master | None = None
        self._leaving: list[_Master] = []  # no longer serve; their connections end
        self._generation = 0
        self._backoff = Backoff()
        self._obituaries = Obituaries()
        self._announced = False
        self._stopping = False
        self._kill_at = 0.0  # the master, if it is still there then
        self._exit_code: int | None = None

    def run(self) -> int:
        """Gives the exit code. StartError: no process can be started at all."""
        self._start()
        while self._exit_code is None:
            self._poll.poll(self._patience())
            self._obey()
            self._hear()
            self._reap()
            self._start_again()
            self._kill_late()
            self._watch()
            self._journal.flush()
        self._journal.flush(at_once=True)
        return self._exit_code

    def _patience(self) -> int | None:
        """Milliseconds until something is due."""
        due = [self._journal.next_flush(), self._notifier.watch_at]
        if self._master is None:
            due.append(self._backoff.at)
        if self._kill_at:
            due.append(self._kill_at)
        known = [moment for moment in due if moment is not None]
        return max(0, int((min(known) - time.monotonic()) * 1000) + 1) if known else None

    # Starting.

    def _start(self) -> None:
        """A master. StartError."""
        try:
            channel, theirs = channels.pair()
            with theirs:
                pid = self._spawn(theirs)
        except OSError as error:
            raise StartError(
                f"can't start a process: {error.strerror}; raise the limit (ulimit)"
            ) from None
        self._master = _Master(pid, channel)
        self._poll.register(channel.fd, select.POLLIN)

    def _spawn(self, channel: socket.socket) -> int:
        handover = self._handover(channel.fileno(), self._generation + 1)
        source, sink = os.pipe()
        inherited = [source, channel.fileno(), *handover.listeners]
        if handover.log >= 0:
            inherited.append(handover.log)
        try:
            for fd in inherited:
                os.set_inheritable(fd, True)
            # The terminal's signals would end one that can't ignore them yet, with a traceback.
            pid = os.posix_spawn(
                sys.executable, _command(source), os.environ, setsigmask=OF_THE_TERMINAL
            )
            self._generation += 1
        except BaseException:
            os.close(sink)
            raise
        finally:
            os.close(source)
        _write_all(sink, handover.to_bytes())
        return pid

    def _start_again(self) -> None:
        if (
            self._master
            or self._stopping
            or self._exit_code is not None
            or self._backoff.at > time.monotonic()
        ):
            return
        try:
            self._start()
        except StartError as error:
            self._journal.say_often(str(error))
            self._backoff.ended(time.monotonic())

    def _hear(self) -> None:
        master = self._master
        if master is None or master.channel.gone:
            return
        heard = master.channel.hear()
        if READY in heard:
            self._ready()
        if ALIVE in heard:
            self._notifier.watchdog()
        if LEAVING in heard and not self._stopping:
            self._leaving.append(master)
            self._master = None
        if self._master is not master or master.channel.gone:
            self._poll.unregister(master.channel.fd)

    def _ready(self) -> None:
        if self._stopping:
            return
        if not self._announced:
            self._announced = True
            self._announce()
        urls = " ".join(listener.url for listener in self._listeners)
        self._notifier.ready(f"generation {self._generation} serves {urls}")

    def _watch(self) -> None:
        """Not we but the master's loop is what systemd watches: one that hangs, or that can't be
        started, must not be hidden. At the end we only wait, and --grace bounds that."""
        if not self._notifier.is_time():
            return
        if self._stopping:
            self._notifier.watchdog()
        elif self._master is not None:
            self._master.channel.say(CHECK)

    # Ending.

    def _obey(self) -> None:
        for number in self._signals.read() - {signal.SIGCHLD}:
            at_once = self._stopping or number == signal.SIGQUIT
            self._stop(END if at_once else DRAIN)

    def _stop(self, order: bytes) -> None:
        """The names of unix sockets, and our copies of the listeners, must be gone before the
        master takes what is left: what came later would wait for nobody."""
        self._stopping = True
        self._notifier.stopping(
            f"connections have {self._grace:g} s" if order == DRAIN else "at once"
        )
        for listener in self._listeners:
            listener.close()
        for master in self._all():
            master.channel.say(order)
        grace = 0.0 if order == END else self._grace
        kill_at = time.monotonic() + grace + _BEYOND_GRACE
        # Whoever asks again and again must not put it off.
        self._kill_at = min(self._kill_at or kill_at, kill_at)

    def _all(self) -> list[_Master]:
        return self._leaving + ([self._master] if self._master else [])

    def _kill_late(self) -> None:
        if self._kill_at and time.monotonic() >= self._kill_at:
            self._kill_at = 0.0
            for master in self._all():
                self._journal.say(f"master {master.pid} does not end: it is killed")
                os.kill(master.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Also what a dead master has left behind, where we are the first process of all."""
        for pid, code, usage in ended_children():
            for master in self._all():
                if master.pid == pid:
                    self._bury(master, code, usage)
        if self._stopping and not self._all():
            self._exit_code = EXIT_DONE

    def _bury(self, master: _Master, code: int, usage: struct_rusage) -> None:
        if master is self._master:
            self._hear()  # its last words
        if master is self._master:
            self._master = None
            if not master.channel.gone:
                self._poll.unregister(master.channel.fd)
            if not self._stopping:
                self._lost(master, code, usage)
        else:
            self._leaving.remove(master)
        master.channel.close()

    def _lost(self, master: _Master, code: int, usage: struct_rusage) -> None:
        """The one that served, or was about to."""
        if not self._announced and code > 0:
            self._exit_code = code  # it has said why
            return
        how = self._obituaries.tell(code, usage) if code else "left"
        then = "; another is started" if self._announced else " before it served"
        self._journal.say(f"reason {Reason.MASTER_DIED:d}: master {master.pid} {how}{then}")
        self._notifier.status(f"master {master.pid} {how}{then}")
        if not self._announced:
            self._exit_code = EXIT_CANNOT_START
        self._backoff.ended(master.started)


def _command(source: int) -> list[str]:
    """As this interpreter was started, as far as it matters."""
    options = ["-P", "-S", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
    options += [f"-W{one}" for one in sys.warnoptions]
    return [sys.executable, *options, "-c", _BOOT, _PACKAGE, str(source)]


def _write_all(sink: int, data: bytes) -> None:
    """Into a pipe; a master that has died already is heard of otherwise."""
    try:
        with os.fdopen(sink, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass
