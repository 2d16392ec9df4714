"""A configuration becomes a running server: what must outlive a master is opened here, in order.

What can fail for a reason of the system (ports, log files) fails here with a StartError, before
the first process is started. Not here: options, what a master makes for itself.
"""

from __future__ import annotations

import os

from .config import Config
from .errors import StartError
from .handover import Handover
from .journal import Journal, Sink
from .listen import Listener, listen
from .signals import SignalPipe
from .supervisor import Supervisor


def serve(config: Config) -> int:
    """Until told to stop. Gives the exit code. StartError: before anything was started."""
    stdout, journal = Sink(1), Journal(Sink(2))
    log = _log_file(config)
    signals = SignalPipe()  # from here on a signal ends us in order
    listeners = listen_on_all(config)

    def handover(channel: int, generation: int) -> Handover:
        fds = tuple(one.sock.fileno() for one in listeners)
        return Handover(config, fds, log, channel, generation, os.getpid())

    def announce() -> None:
        for listener in listeners:
            stdout.write(listener.url.encode("utf-8", "surrogateescape") + b"\n")

    try:
        return Supervisor(
            handover,
            listeners=listeners,
            announce=announce,
            signals=signals,
            journal=journal,
            grace=config.grace,
        ).run()
    finally:
        for listener in listeners:
            listener.close()
        signals.deafen()


def listen_on_all(config: Config) -> list[Listener]:
    """All or none. StartError."""
    listeners: list[Listener] = []
    try:
        for address in config.bind:
            listeners.append(listen(address, config.backlog))
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
