"""A configuration becomes a running server: what must outlive a master is opened here, in order.

What can fail for a reason of the system (ports, log files) fails here with a StartError, before
the first process is started. Not here: options, what a master makes for itself.
"""

from __future__ import annotations

import os

from .config import DEFAULT_BIND, Config
from .errors import StartError
from .handover import Handover
from .inherited import OWN, inherited_listeners
from .journal import Journal, Sink
from .listen import Listener, listen
from .notify import Notifier
from .pidfile import PidFile
from .signals import SignalPipe
from .supervisor import Supervisor


def serve(config: Config) -> int:
    """Until told to stop. Gives the exit code. StartError: before anything was started."""
    stdout, journal = Sink(1), Journal(Sink(2))
    notifier = Notifier(os.environ, os.getpid())
    log = _log_file(config)
    signals = SignalPipe()  # from here on a signal ends us in order
    predecessor = os.getppid() if OWN in os.environ else 0
    listeners = _listeners(config, journal)
    pid_file: PidFile | None = None

    def handover(channel: int, generation: int) -> Handover:
        fds = tuple(one.sock.fileno() for one in listeners)
        return Handover(config, fds, log, channel, generation, os.getpid())

    def announce() -> None:
        for listener in listeners:
            stdout.write(listener.url.encode("utf-8", "surrogateescape") + b"\n")

    try:
        if config.pid_file != "off":
            pid_file = PidFile(config.pid_file, os.getpid(), predecessor)
        return Supervisor(
            handover,
            listeners=listeners,
            announce=announce,
            signals=signals,
            journal=journal,
            notifier=notifier,
            grace=config.grace,
        ).run()
    finally:
        for listener in listeners:
            listener.close()
        if pid_file is not None:
            pid_file.remove()
        signals.deafen()


def _listeners(config: Config, journal: Journal) -> list[Listener]:
    """Those that we are given, or else those of --bind. StartError."""
    is_successor = OWN in os.environ
    given = inherited_listeners(os.environ, os.getpid())
    if given and not is_successor and config.bind != DEFAULT_BIND:
        journal.say("bind and port are not obeyed: systemd passes the listeners (LISTEN_FDS)")
    return given or listen_on_all(config)


def listen_on_all(config: Config) -> list[Listener]:
    """All or none. StartError."""
    listeners: list[Listener] = []
    try:
        for address in config.bind:
            one = listen(address, config.backlog, config.socket_mode, config.socket_owner)
            listeners.append(one)
    except StartError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _log_file(config: Config) -> int:
    """The descriptor of --access-log's file; -1: there is none."""
    if config.access_log in ("-", "off"):
        return -1
    try:
        return Sink.open(config.access_log).fd
    except OSError as error:
        raise StartError(
            f"access-log: {config.access_log!r}: {error.strerror}; name a file that can be written"
        ) from None
