"""The first process: it keeps the listeners, starts a master, and starts another when that dies,
when the configuration is read anew, and when a new supervisor takes over.

It lives as long as the server and knows next to nothing: no client byte, no document root, no
connection. A master is a fresh interpreter, so what the supervisor has loaded is no part of any
fork's cost. What must never be: that something is given up before what replaces it serves.
Not here: what outlives a master (holdings.py), how processes are started (spawn.py), and how a
master serves.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from resource import struct_rusage

from .channel import ALIVE, CHECK, DRAIN, END, GROW, LEAVING, READY, REOPEN, RETIRE, SHRINK
from .child import ended_children
from .clock import Backoff
from .config import Config
from .errors import EXIT_CANNOT_START, EXIT_DONE, Reason, StartError, UsageError
from .holdings import Holdings
from .journal import Journal
from .notify import Notifier
from .obituary import Obituaries
from .signals import SignalPipe
from .spawn import Master, start_master
from .terminal import Terminal
from .upgrade import READY_WITHIN, SERVES, STARTING, Upgrade

# A master keeps --grace itself. One that does not is killed so many seconds later.
_BEYOND_GRACE = 5.0
# Whether a supervisor that we have replaced is still there.
_LOOK = 0.1
_MUCH = {1: "many", -1: "few"}


class _Reload:
    """A master that is to replace the one that serves, and what it was given."""

    def __init__(self, master: Master, holdings: Holdings) -> None:
        self.master = master
        self.holdings = holdings
        self.until = master.started + READY_WITHIN


class Supervisor:
    """run() until told to stop.

    read_config  the configuration as it is now. UsageError, StartError
    announce     called once, when the first master serves
    predecessor  pid of the supervisor that this one has replaced, as long as it is our parent
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        read_config: Callable[[], Config],
        announce: Callable[[], None],
        signals: SignalPipe,
        journal: Journal,
        notifier: Notifier,
    ) -> None:
        self._holdings = holdings
        self._read_config = read_config
        self._announce = announce
        self._signals = signals
        self._journal = journal
        self._notifier = notifier
        self._terminal = Terminal()
        self._poll = select.poll()
        self._poll.register(signals.fd, select.POLLIN)
        self._master: Master | None = None
        self._reload: _Reload | None = None
        self._wanted: set[int] = set()  # signals that must wait until what is started serves
        self._upgrade: Upgrade | None = None
        self._leaving: list[Master] = []  # no longer serve; their connections end
        self._generation = 0
        self._backoff = Backoff()
        self._obituaries = Obituaries()
        self._announced = False
        self._stopping = False
        self._replaced = False  # by a supervisor that serves
        self.predecessor = 0
        self._kill_at = 0.0  # the masters, if they are still there then
        self._exit_code: int | None = None

    def run(self) -> int:
        """Gives the exit code. StartError: no process can be started at all."""
        self._start()
        while self._exit_code is None:
            self._poll.poll(self._patience())
            self._obey()
            self._hear()
            self._look_at_upgrade()
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
        if not (self._master or self._reload or self._is_ending()):
            due.append(self._backoff.at)
        if self._kill_at:
            due.append(self._kill_at)
        if self._is_ending() and self._predecessor_is_there():
            due.append(time.monotonic() + _LOOK)
        due += [one.until for one in (self._reload, self._upgrade) if one]
        known = [moment for moment in due if moment is not None]
        return max(0, int((min(known) - time.monotonic()) * 1000) + 1) if known else None

    def _is_ending(self) -> bool:
        return self._stopping or self._replaced

    # Starting.

    def _start(self) -> None:
        """A master. StartError."""
        self._master = self._spawn(self._holdings)

    def _spawn(self, holdings: Holdings) -> Master:
        master = start_master(holdings.handover, self._generation + 1)
        self._generation += 1
        self._poll.register(master.channel.fd, select.POLLIN)
        return master

    def _start_again(self) -> None:
        if (
            self._master
            or self._reload
            or self._is_ending()
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
        for master in self._serving():
            if master.channel.gone:
                continue
            heard = master.channel.hear()
            if master.channel.gone:
                self._poll.unregister(master.channel.fd)
            if READY in heard:
                self._ready(master)
            if ALIVE in heard and master is self._master:
                self._notifier.watchdog()
            if LEAVING in heard and master is self._master and not self._stopping:
                self._leave(master)
                self._master = None

    def _serving(self) -> list[Master]:
        """Or about to."""
        reload = self._reload
        return [*([self._master] if self._master else []), *([reload.master] if reload else [])]

    def _leave(self, master: Master) -> None:
        """It serves no longer; its end is heard of when it is reaped."""
        if not master.channel.gone:
            self._poll.unregister(master.channel.fd)
        self._leaving.append(master)

    def _ready(self, master: Master) -> None:
        if self._is_ending():
            return
        if self._reload and master is self._reload.master:
            self._switch(self._reload)
        if not self._announced:
            self._announced = True
            self._announce()
        urls = " ".join(listener.url for listener in self._holdings.listeners)
        self._notifier.ready(f"generation {master.generation} serves {urls}")
        self._do_wanted()

    def _watch(self) -> None:
        """Not we but the master's loop is what systemd watches: one that hangs, or that can't be
        started, must not be hidden. At the end we only wait, and --grace bounds that."""
        if not self._notifier.is_time():
            return
        if self._is_ending():
            self._notifier.watchdog()
        elif self._master is not None:
            self._master.channel.say(CHECK)

    # Signals.

    def _obey(self) -> None:
        for number in self._signals.read():
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self._stop(END if self._stopping or number == signal.SIGQUIT else DRAIN)
            elif number == signal.SIGHUP and self._terminal.has_gone():
                self._stop(DRAIN)
            elif number != signal.SIGCHLD:
                self._manage(number)

    def _manage(self, number: int) -> None:
        if self._is_ending():
            self._journal.say(f"{signal.Signals(number).name}: this server ends; ignored")
        elif self._is_starting():
            self._wanted.add(number)
        elif number == signal.SIGHUP:
            self._begin_reload()
        elif number == signal.SIGUSR1:
            self._reopen()
        elif number == signal.SIGUSR2:
            self._begin_upgrade()
        else:
            self._resize(1 if number == signal.SIGTTIN else -1)

    def _is_starting(self) -> bool:
        """The first master, or what will replace something."""
        return not self._announced or bool(self._reload or self._upgrade)

    def _do_wanted(self) -> None:
        wanted, self._wanted = self._wanted, set()
        for number in sorted(wanted):
            self._manage(number)

    # SIGHUP: the configuration is read anew, and a new master serves it.

    def _begin_reload(self) -> None:
        self._notifier.reloading()
        try:
            holdings = self._holdings.changed(self._read_config())
        except (UsageError, StartError) as error:
            self._say_not_reloaded(str(error))
            return
        try:
            self._reload = _Reload(self._spawn(holdings), holdings)
        except StartError as error:
            holdings.close_all_but(self._holdings)
            self._say_not_reloaded(str(error))

    def _say_not_reloaded(self, why: str) -> None:
        self._journal.say(f"not reloaded, all is as it was: {why}")
        self._notifier.ready(f"not reloaded: {why}")

    def _switch(self, reload: _Reload) -> None:
        """The new one serves; only now the old one stops accepting."""
        old, self._master, self._reload = self._master, reload.master, None
        before, self._holdings = self._holdings, reload.holdings
        before.close_all_but(self._holdings)
        self._holdings.apply_backlog()
        self._backoff.worked()
        self._journal.say(f"reloaded: generation {self._master.generation} serves")
        if old:
            old.channel.say(RETIRE)
            self._leave(old)

    def _not_reloaded(self, reload: _Reload, how: str) -> None:
        self._reload = None
        reload.holdings.close_all_but(self._holdings)
        self._say_not_reloaded(f"master {reload.master.pid} {how}")
        self._do_wanted()

    # SIGUSR1, SIGTTIN, SIGTTOU.

    def _reopen(self) -> None:
        try:
            log = self._holdings.reopen_log()
        except StartError as error:
            self._journal.say(f"the old log is written on: {error}")
            return
        if log < 0:
            self._journal.say("no log was opened anew: --access-log names no file")
            return
        for master in self._all():
            if master.access_log == self._holdings.config.access_log:
                master.channel.say(REOPEN, log)
        self._journal.say("the log has been opened anew")

    def _resize(self, by: int) -> None:
        """Until the next reload."""
        config = self._holdings.config
        workers = config.workers + by
        if config.mode != "prefork":
            self._journal.say(f"mode {config.mode} has no pool that could grow or shrink")
        elif not 1 <= workers <= config.max_connections:
            self._journal.say(f"the pool stays: {workers} workers are too {_MUCH[by]}")
        else:
            self._holdings.config = config._replace(workers=workers)
            if self._master:
                self._master.channel.say(GROW if by > 0 else SHRINK)
            self._journal.say(f"the pool is to have {workers} workers")

    # SIGUSR2: a new supervisor.

    def _begin_upgrade(self) -> None:
        if os.getpid() == 1:
            self._journal.say("no upgrade: PID 1 can't leave; start another container")
            return
        try:
            self._upgrade = Upgrade(self._holdings.held, self._notifier.environ())
        except StartError as error:
            self._journal.say(f"no upgrade: {error}")
            return
        self._poll.register(self._upgrade.fd, select.POLLIN)
        self._journal.say(f"supervisor {self._upgrade.pid} is started to take over")

    def _look_at_upgrade(self) -> None:
        upgrade = self._upgrade
        state = upgrade.state() if upgrade else STARTING
        if upgrade is None or state == STARTING:
            return
        self._end_upgrade(upgrade)
        if state == SERVES:
            self._replaced = True
            self._notifier.main_pid(upgrade.pid)
            self._journal.say(f"supervisor {upgrade.pid} serves; this one ends")
            for number in sorted(self._wanted):
                upgrade.tell(number)
            self._holdings.disown()
            self._holdings.stop_listening()
            for master in self._serving():
                master.channel.say(RETIRE)
        else:
            upgrade.take_back()
            self._journal.say("no upgrade: the new supervisor did not serve; this one serves on")
            self._do_wanted()

    def _end_upgrade(self, upgrade: Upgrade) -> None:
        self._upgrade = None
        self._poll.unregister(upgrade.fd)
        upgrade.close()

    # Ending.

    def _stop(self, order: bytes) -> None:
        """The names of unix sockets, and our copies of the listeners, must be gone before the
        master takes what is left: what came later would wait for nobody."""
        self._stopping = True
        grace = 0.0 if order == END else self._holdings.config.grace
        self._notifier.stopping(f"connections have {grace:g} s" if grace else "at once")
        if self._upgrade:
            self._upgrade.take_back()
            self._end_upgrade(self._upgrade)
        self._holdings.stop_listening()
        if self._reload:
            self._reload.holdings.stop_listening()
        for master in self._all():
            master.channel.say(order)
        if self._predecessor_is_there():  # it has connections, whose server this is
            os.kill(self.predecessor, signal.SIGQUIT if order == END else signal.SIGTERM)
        kill_at = time.monotonic() + grace + _BEYOND_GRACE
        # Whoever asks again and again must not put it off.
        self._kill_at = min(self._kill_at or kill_at, kill_at)

    def _all(self) -> list[Master]:
        return [*self._leaving, *self._serving()]

    def _kill_late(self) -> None:
        now = time.monotonic()
        if self._kill_at and now >= self._kill_at:
            self._kill_at = 0.0
            for master in self._all():
                self._journal.say(f"master {master.pid} does not end: it is killed")
                os.kill(master.pid, signal.SIGKILL)
        elif self._reload and now >= self._reload.until:
            self._reload.until = now + READY_WITHIN
            self._journal.say(f"master {self._reload.master.pid} does not serve: it is killed")
            os.kill(self._reload.master.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Also what a dead master has left behind, where we are the first process of all."""
        for pid, code, usage in ended_children():
            if self._upgrade and self._upgrade.pid == pid:
                self._upgrade.has_ended = True
            for master in self._all():
                if master.pid == pid:
                    self._bury(master, code, usage)
        if self._is_ending() and not self._all() and not self._predecessor_is_there():
            self._exit_code = EXIT_DONE

    def _predecessor_is_there(self) -> bool:
        """A service manager takes our end for the service's, and kills who is left."""
        return bool(self.predecessor) and os.getppid() == self.predecessor

    def _bury(self, master: Master, code: int, usage: struct_rusage) -> None:
        if master not in self._leaving:
            self._hear()  # its last words
        if master in self._leaving:
            self._leaving.remove(master)
        else:
            if not master.channel.gone:
                self._poll.unregister(master.channel.fd)
            self._lost(master, code, usage)
        master.channel.close()

    def _lost(self, master: Master, code: int, usage: struct_rusage) -> None:
        """The one that served, or was about to."""
        how = self._obituaries.tell(code, usage) if code else "left"
        if self._reload and master is self._reload.master:
            if self._is_ending():
                self._reload = None
            else:
                self._not_reloaded(self._reload, f"{how} before it served")
            return
        self._master = None
        if self._is_ending():
            return
        if not self._announced and code > 0:
            self._exit_code = code  # it has said why
            return
        then = "; another is started" if self._announced else " before it served"
        self._journal.say(f"reason {Reason.MASTER_DIED:d}: master {master.pid} {how}{then}")
        self._notifier.status(f"master {master.pid} {how}{then}")
        if not self._announced:
            self._exit_code = EXIT_CANNOT_START
        self._backoff.ended(master.started)
