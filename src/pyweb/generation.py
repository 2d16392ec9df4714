"""A fresh interpreter becomes a master: one generation, from what its supervisor hands over.

The supervisor starts it (supervisor.py) as `main(FD)`: at the descriptor stands the Handover.
Everything a child will share is opened and made here, in order, before the first fork. Not here:
options, binding, the loop.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .accept import Acceptor
from .accesslog import AccessLog
from .account import Account
from .backlog import Backlog
from .channel import READY, Channel
from .child import Child
from .config import Config
from .dispatching import AVAILABLE, Dispatching
from .docroot import DocRoot, open_root
from .errors import EXIT_CANNOT_START, EXIT_DONE, EXIT_USAGE, StartError, UsageError
from .filling import Filling
from .fork_mode import ForkMode
from .handover import Handover, read_all
from .introduce import introduction
from .journal import Journal, Sink, complain
from .listen import Listener
from .master import Master
from .parse import ENGINES
from .pool_mode import PoolMode, slots_of
from .refuse import Refusals
from .repeating import lanes, repeating, why_not
from .route import Router
from .scoreboard import DISPATCHER, Scoreboard
from .service import Service
from .signals import FOR_THE_SUPERVISOR, HEARD_BY_MASTER, SignalPipe
from .stamps import NO_STAMPS, NoStamps, Stamps
from .static import StaticSite
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

# A mode's half of the cache: forks, or lanes.
Repeating = TypeVar("Repeating")


def main(fd: int) -> int:
    """Serve until told to stop. Gives the exit code."""
    for number in FOR_THE_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_SUPERVISOR)  # as the supervisor left them
    signals = SignalPipe(HEARD_BY_MASTER)
    try:
        given = Handover.from_bytes(read_all(fd), ENGINES)
        _serve(given, signals)
    except UsageError as error:
        return complain(str(error), EXIT_USAGE)
    except StartError as error:
        return complain(str(error), EXIT_CANNOT_START)
    except MemoryError:
        return complain("no memory; raise the limit (ulimit -v)", EXIT_CANNOT_START)
    finally:
        signals.deafen()
    return EXIT_DONE


def _serve(given: Handover, signals: SignalPipe) -> None:
    config = given.config
    if config.batch:
        _take_turns()
    stamps = _stamps(config)
    root = open_root(config.directory, stamps.opened if stamps.on else None)
    journal = Journal(Sink(2))
    log = AccessLog(_log_sink(config, given.log), config.log_format)
    listeners = [Listener(socket.socket(fileno=fd)) for fd in given.listeners]
    channel = Channel(socket.socket(fileno=given.channel))
    index = tuple(map(os.fsencode, config.index))
    router = Router(StaticSite(root, index, config.no_listing))
    service = Service(config, router.answer, log, journal, stamps)
    try:
        _run(given, service, root, listeners, channel, signals)
    finally:
        for listener in listeners:
            listener.close()
        channel.close()


def _take_turns() -> None:
    """All that this process starts, too (sched(7)). StartError.

    A client on this machine that has sent a request to a sleeping process loses its CPU to it at
    once, and each request is two switches; a process in SCHED_BATCH waits until the other sleeps,
    or its turn ends, and by then there is more to do."""
    if not hasattr(os, "SCHED_BATCH"):
        raise StartError("batch: this system has no SCHED_BATCH; leave --batch out")
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        cure = "leave --batch out, and have who starts pyweb do it"
        raise StartError(f"batch: {error.strerror}; {cure}") from None


def _stamps(config: Config) -> Stamps | NoStamps:
    """StartError."""
    try:
        return Stamps.make(config.stamps) if config.stamps else NO_STAMPS
    except OSError as error:
        raise StartError(f"stamps: {error.strerror}; lower --stamps, or raise the limit") from None


def _log_sink(config: Config, fd: int) -> Sink | None:
    if config.access_log == "off":
        return None
    return Sink(1) if config.access_log == "-" else Sink(fd)


class _Ground:
    """What a mode and its entrance stand on. `shared`: descriptors that all processes have.
    StartError."""

    def __init__(self, given: Handover, service: Service, root: DocRoot) -> None:
        config, log, journal = service.config, service.log, service.journal
        self.service = service
        self.root = root
        try:
            self.lifeline, self.lifeline_of_master = os.pipe()
            self.board = Scoreboard(
                slots_of(config) + 1 if config.mode != "fork" else config.max_connections + 2,
                generation=given.generation,
                supervisor=given.supervisor,
            )
        except OSError as error:
            raise StartError(f"{error.strerror}; raise the limit (ulimit), or lower ours") from None
        sinks = [journal.sink.fd, *([log.sink.fd] if log.sink else [])]
        self.shared = (root.fd, self.lifeline, *sinks)
        self.refusals = Refusals(log, journal, config.header, int(config.timeout_queue))
        self.poll = select.poll()


def _forking(
    ground: _Ground, listeners: list[Listener]
) -> tuple[ForkMode, Acceptor, Dispatching | None]:
    """StartError."""
    service, board = ground.service, ground.board
    config, journal = service.config, service.journal
    dispatching = None
    if AVAILABLE and not config.no_parking:
        dispatching = _dispatching(service, board, ground.shared, ground.lifeline)
    parker = dispatching.parker if dispatching else None
    filling, forks = _cached(
        ground,
        lambda: repeating(service, ground.root, board, ground.shared, ground.lifeline, parker),
    )
    if config.spares and not (forks and forks.may_be_bare):
        why = why_not(service, ground.root) or ("LD_PRELOAD" if forks else "no cache")
        journal.say(f"no spares: {why}: each process is forked when its connection has come")
    keep = (*ground.shared, filling.wishes.fileno()) if filling else ground.shared
    child = Child(service, keep, ground.lifeline, parker, forks.again if forks else None)
    watchdog = Watchdog(config.timeout_request, "child", journal)
    mode = ForkMode(
        child, board, journal, watchdog, dispatching, filling, forks, stamps=service.stamps
    )
    acceptor = Acceptor(
        config,
        listeners=listeners,
        mode=mode,
        dispatching=dispatching,
        refusals=ground.refusals,
        journal=journal,
        poll=ground.poll,
        filling=filling,
        stamps=service.stamps,
    )
    return mode, acceptor, dispatching


def _cached(
    ground: _Ground, make: Callable[[], tuple[Filling, Repeating]]
) -> tuple[Filling, Repeating] | tuple[None, None]:
    """Who repeats decisions, and who keeps them; None: all are made anew."""
    if why_not(ground.service, ground.root):
        return None, None
    try:
        return make()
    except OSError as error:
        ground.service.journal.say(f"no cache: {error.strerror}: each answer is decided anew")
        return None, None


def _pooling(ground: _Ground, listeners: list[Listener]) -> tuple[PoolMode, Backlog]:
    service = ground.service
    filling, found = _cached(
        ground,
        lambda: lanes(service, ground.root, ground.board, ground.shared, ground.lifeline),
    )
    pool = PoolMode(
        service.config,
        service,
        listeners=[one.sock for one in listeners],
        lifeline=ground.lifeline,
        keep=ground.shared,
        scoreboard=ground.board,
        journal=service.journal,
        filling=filling,
        lanes=found,
    )
    backlog = Backlog(
        service.config,
        listeners=listeners,
        pool=pool,
        refusals=ground.refusals,
        journal=service.journal,
        poll=ground.poll,
    )
    return pool, backlog


def _run(
    given: Handover,
    service: Service,
    root: DocRoot,
    listeners: list[Listener],
    channel: Channel,
    signals: SignalPipe,
) -> None:
    config, log, journal = service.config, service.log, service.journal
    ground = _Ground(given, service, root)
    mode: ForkMode | PoolMode
    entrance: Acceptor | Backlog
    dispatching = None
    if config.mode == "fork":
        mode, entrance, dispatching = _forking(ground, listeners)
    else:
        mode, entrance = _pooling(ground, listeners)

    def reopen(fd: int) -> None:
        if dispatching:
            dispatching.pass_log(fd)
        if log.sink is None:
            os.close(fd)
        else:
            log.sink.turn_to(fd)

    account = Account(ground.board, mode=mode, entrance=entrance, refusals=ground.refusals)
    directory, urls = _absolute(config.directory), [one.url for one in listeners]
    words = introduction(config, root, directory, urls)
    account.describe(config, urls, directory, words.items())
    if not ground.board.has_memfd:
        journal.say("no memfd here: pyweb status will not find this server")
    master = Master(
        config,
        listeners=listeners,
        mode=mode,
        entrance=entrance,
        signals=signals,
        channel=channel,
        journal=journal,
        lifeline=ground.lifeline_of_master,
        poll=ground.poll,
        publish=account.publish,
        reopen=reopen,
        stamps=service.stamps,
    )
    for key, text in words.items():
        journal.say(f"{key} {text}" if key == "serving" else f"{key}: {text}")
    _prepare(journal)
    channel.say(READY)
    master.run()
    lost = mode.lost_lines + ground.refusals.lost_lines
    journal.say(
        f"stopped: {mode.served} connections served,"
        f" {ground.refusals.count + mode.refused} refused, {mode.cut} cut"
        + (f"; {lost} log lines lost" if lost else "")
    )


def _dispatching(
    service: Service, board: Scoreboard, keep: tuple[int, ...], lifeline: int
) -> Dispatching:
    """StartError."""
    config, log, journal = service.config, service.log, service.journal
    slot = board.take(int(time.time() * 1000), DISPATCHER)

    def make(inbox: socket.socket, master: socket.socket) -> Dispatcher:
        from .dispatcher import Dispatcher  # in its own process: it brings what no master needs

        refusals = Refusals(log, journal, config.header, int(config.timeout_queue))
        return Dispatcher(
            config,
            inbox=inbox,
            master=master,
            lifeline=lifeline,
            refusals=refusals,
            journal=journal,
            slot=slot,
            log=log.sink,
        )

    try:
        return Dispatching(make, keep, journal, slot)
    except OSError as error:
        raise StartError(f"{error.strerror}; raise the limit (ulimit), or lower ours") from None


def _prepare(journal: Journal) -> None:
    """The last things before the first fork."""
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
