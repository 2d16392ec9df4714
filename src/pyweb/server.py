"""A configuration becomes a running server: what must outlive a master is opened here, in order.

What can fail for a reason of the system (ports, log files) fails here with a StartError, before
the first process is started. Not here: options, what a master makes for itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from .config import Config
from .errors import StartError
from .holdings import INHERITED, hold, inherit
from .journal import Journal, Sink
from .signals import HEARD, SignalPipe
from .spawn import READY_FD
from .supervisor import Supervisor


def serve(config: Config, read_config: Callable[[], Config]) -> int:
    """Until told to stop. Gives the exit code. StartError: before anything was started.

    read_config  the configuration once more, when SIGHUP asks for it
    """
    stdout, journal = Sink(1), Journal(Sink(2))
    inherited = inherit(os.environ.pop(INHERITED, ""))
    ready = _ready_fd()
    signals = SignalPipe(_heard())  # from here on a signal ends us in order
    holdings = hold(config, inherited)

    def announce() -> None:
        if ready >= 0:  # to whom we replace: it has told the addresses
            holdings.take_over()
            os.write(ready, b".")
            os.close(ready)
            return
        for listener in holdings.listeners:
            stdout.write(listener.url.encode("utf-8", "surrogateescape") + b"\n")

    try:
        return Supervisor(
            holdings,
            read_config=read_config,
            announce=announce,
            signals=signals,
            journal=journal,
        ).run()
    finally:
        holdings.stop_listening()
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
