"""A configuration becomes a running server: everything is opened and made here, in order.

What can fail for a reason of the system (ports, log files) fails here with a StartError, before
the first fork. Not here: options, the loop.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select

from .accept import Acceptor
from .accesslog import AccessLog
from .account import Account
from .child import Child
from .config import Config
from .docroot import DocRoot
from .errors import StartError, UsageError
from .fork_mode import ForkMode
from .journal import Journal, Sink
from .listen import Listener, listen
from .master import Master
from .pool_mode import PoolMode
from .refuse import Refusals
from .route import Router
from .scoreboard import Scoreboard
from .service import Service
from .signals import SignalPipe
from .static import StaticSite


def serve(config: Config) -> None:
    """Until told to stop. StartError, UsageError: before anything was served."""
    root = open_root(config.directory)
    stdout, journal = Sink(1), Journal(Sink(2))
    log = AccessLog(_log_sink(config, stdout), config.log_format)
    signals = SignalPipe()  # from here on a signal ends us in order
    listeners = listen_on_all(config)
    try:
        for listener in listeners:
            stdout.write(listener.url.encode("utf-8", "surrogateescape") + b"\n")
        _run(config, root, log, journal, listeners, signals)
    finally:
        for listener in listeners:
            listener.close()


def _run(
    config: Config,
    root: DocRoot,
    log: AccessLog,
    journal: Journal,
    listeners: list[Listener],
    signals: SignalPipe,
) -> None:
    index = tuple(map(os.fsencode, config.index))
    router = Router(StaticSite(root, index, config.no_listing))
    service = Service(config, router.answer, log, journal)
    try:
        lifeline, lifeline_of_master = os.pipe()
        board = Scoreboard(config.max_connections + config.threads)
    except OSError as error:
        raise StartError(f"{error.strerror}; raise the limit (ulimit), or lower ours") from None
    shared = [root.fd, lifeline, journal.sink.fd]
    if log.sink is not None:
        shared.append(log.sink.fd)
    refusals = Refusals(log, journal, config.header, int(config.timeout_queue))
    poll = select.poll()
    mode: ForkMode | PoolMode
    acceptor = None
    if config.mode == "fork":
        mode = ForkMode(Child(service, tuple(shared), lifeline), board, journal)
        acceptor = Acceptor(
            config, listeners=listeners, mode=mode, refusals=refusals, journal=journal, poll=poll
        )
    else:
        mode = PoolMode(
            config,
            service,
            listeners=[one.sock for one in listeners],
            lifeline=lifeline,
            keep=tuple(shared),
            scoreboard=board,
            journal=journal,
        )
    account = Account(board, mode=mode, acceptor=acceptor, refusals=refusals)
    account.describe(config, [one.url for one in listeners], _absolute(config.directory))
    if not board.has_memfd:
        journal.say("no memfd here: pyweb status will not find this server")
    master = Master(
        config,
        listeners=listeners,
        mode=mode,
        acceptor=acceptor,
        signals=signals,
        journal=journal,
        lifeline=lifeline_of_master,
        poll=poll,
        publish=account.publish,
    )
    _prepare(config, journal)
    master.run()
    lost = mode.lost_lines + refusals.lost_lines
    journal.say(
        f"stopped: {mode.served} connections served, {refusals.count} refused, {mode.cut} cut"
        + (f"; {lost} log lines lost" if lost else "")
    )


def _prepare(config: Config, journal: Journal) -> None:
    """The last things before the first fork."""
    journal.say(
        f"serving {_absolute(config.directory)}: mode {config.mode},"
        f" engine {config.engine}, up to {config.max_connections} processes"
    )
    # A crash leaves its Python stack on stderr; the children inherit it.
    try:
        faulthandler.enable(journal.sink.fd)
    except (OSError, ValueError):
        pass  # stderr is closed
    # What lives now lives until the end: a collection in a child must not touch, and so copy, it.
    gc.collect()
    gc.freeze()


def _absolute(directory: str) -> str:
    try:
        return os.path.abspath(directory)
    except OSError:
        return directory  # the current directory has been removed


def open_root(directory: str) -> DocRoot:
    """UsageError."""
    try:
        root = DocRoot(directory)
    except OSError as error:
        raise UsageError(
            f"directory: {directory!r}: {error.strerror}; name an existing directory"
        ) from None
    if not os.access(".", os.X_OK, dir_fd=root.fd, effective_ids=True):
        root.close()
        raise UsageError(
            f"directory: {directory!r}: Permission denied; name one that this user may enter"
        )
    return root


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


def _log_sink(config: Config, stdout: Sink) -> Sink | None:
    if config.access_log == "off":
        return None
    if config.access_log == "-":
        return stdout
    try:
        return Sink.open(config.access_log)
    except OSError as error:
        raise StartError(
            f"access-log: {config.access_log!r}: {error.strerror}; name a file that can be written"
        ) from None
