"""A configuration becomes a running server: what must outlive a master is opened here, in order.

What can fail for a reason of the system (ports, log files) fails here with a StartError, before
the first process is started. Not here: options, what a master makes for itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from .config import DEFAULT_BIND, Config
from .errors import StartError
from .holdings import hold
from .inherited import inherited_listeners
from .journal import Journal, Sink
from .notify import Notifier
from .pidfile import PidFile
from .signals import HEARD, SignalPipe
from .spawn import READY_FD
from .supervisor import Supervisor


def serve(config: Config, read_config: Callable[[], Config]) -> int:
    """Until told to stop. Gives the exit code. StartError: before anything was started.

    read_config  the configuration once more, when SIGHUP asks for it
    """
    stdout, journal = Sink(1), Journal(Sink(2))
    notifier = Notifier(os.environ, os.getpid())
    ready = _ready_fd()
    given = inherited_listeners(os.environ, os.getpid())
    signals = SignalPipe(_heard())  # from here on a signal ends us in order
    holdings = hold(config, given)
    if any(where is None for where, _ in given) and config.bind != DEFAULT_BIND:
        journal.say("bind and port are not obeyed: systemd passes the listeners (LISTEN_FDS)")
    pid_file: PidFile | None = None

    def write_pid_file(predecessor: int = 0) -> None:
        nonlocal pid_file
        if config.pid_file != "off":
            pid_file = PidFile(config.pid_file, os.getpid(), predecessor)

    def announce() -> None:
        if ready >= 0:
            succeed()
            return
        for listener in holdings.listeners:
            stdout.write(listener.url.encode("utf-8", "surrogateescape") + b"\n")

    def succeed() -> None:
        """Whom we replace has told the addresses; its file stands until here."""
        holdings.take_over()
        supervisor.predecessor = os.getppid()
        try:
            write_pid_file(supervisor.predecessor)
        except StartError as error:
            journal.say(str(error))
        try:
            os.write(ready, b".")
        except BrokenPipeError:
            journal.say("the supervisor that this one replaces is gone already")
        os.close(ready)

    supervisor = Supervisor(
        holdings,
        read_config=read_config,
        announce=announce,
        signals=signals,
        journal=journal,
        notifier=notifier,
    )
    try:
        if ready < 0:
            write_pid_file()
        return supervisor.run()
    finally:
        holdings.stop_listening()
        if pid_file is not None:
            pid_file.remove()
        signals.deafen()


def _ready_fd() -> int:
    """-1: we replace nobody. StartError."""
    text = os.environ.pop(READY_FD, "")
    if not text:
        return -1
    try:
        os.set_inheritable(int(text), False)
        return int(text)
    except (ValueError, OSError):
        raise StartError(f"{READY_FD}={text}: start pyweb without this variable") from None


def _heard() -> tuple[int, ...]:
    """nohup(1) has SIGHUP ignored, and so it stays."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return tuple(one for one in HEARD if not (ignored and one == signal.SIGHUP))
