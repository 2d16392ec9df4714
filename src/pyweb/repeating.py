"""Children, and workers, that repeat decisions, put together: memory, filler, and who repeats.

Where a part can't be had (no compiler, a kernel without openat2 or sealed memory, a log whose
lines C doesn't write) there are none, and every answer is Python's. Not here: what is repeated
(cache.py), when a child is forked (fork_mode.py), and a worker's lane (lane.py).
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Collection

from . import linger
from .cache import BROKEN_OFF, FRESH, GOOD, NAMES, Decider, escapes
from .child import END, INTERRUPTS, LINGER
from .config import Config
from .connection import first_words
from .docroot import BENEATH, PATH, READ, DocRoot, RecordingRoot
from .filler import Filler
from .filling import MEMFD_NAME, Filling
from .fork_mode import Forks
from .lane import Lanes
from .listen import NOT_SENT
from .memory import sealed_memory
from .parking import idle_message
from .parse import Limits, Parser
from .past import Progress
from .route import Router
from .scoreboard import FILLER, Scoreboard, Slot
from .service import Service
from .stamps import Record
from .static import StaticSite

# ld.so(8)
_PRELOADED = "/etc/ld.so.preload"

try:
    from . import _fastcache, _fastfork, _fastporter, _fastserve, _fastzygote
except ImportError:
    _fastcache = None  # type: ignore[assignment]


def why_not(service: Service, root: DocRoot) -> str:
    """Why no decision is repeated; empty: they are."""
    config, sink = service.config, service.log.sink
    if config.mode != "fork" and (config.no_parking or service.stamps.on):
        return "--no-parking and --stamps watch each connection of a pool"
    if not config.cache:
        return "--cache 0"
    if config.engine != "cython" or _fastcache is None:
        return "needs the compiled engine"
    if not root.by_kernel:
        return "needs openat2"
    if config.timeout_request:
        return "--timeout-request watches Python"
    if sink is not None and (config.log_format != "combined" or not sink.is_plain):
        return "needs a log in the combined format, to a file or a pipe of its own"
    return ""


def repeating(
    service: Service,
    root: DocRoot,
    board: Scoreboard,
    shared: tuple[int, ...],
    lifeline: int,
    parker: socket.socket | None,
) -> tuple[Filling, Forks]:
    """For mode fork. OSError. `shared`: descriptors that all processes have."""
    filling, repeater = _common(service, root, board, shared, lifeline, parker)
    keep = {0, 1, 2, *shared, filling.wishes.fileno()}
    if parker is not None:
        keep.add(parker.fileno())
    config = service.config
    porter = None
    if not (config.no_porter or config.per_client):  # who counts addresses sees each one
        porter = _fastporter.Porter(repeater, board, service.stamps)
    return filling, _Forks(repeater, keep, config, porter)


def lanes(
    service: Service, root: DocRoot, board: Scoreboard, shared: tuple[int, ...], lifeline: int
) -> tuple[Filling, Lanes]:
    """For a pool. As repeating."""
    filling, repeater = _common(service, root, board, shared, lifeline, None)
    return filling, Lanes(service.config, repeater)


def _common(
    service: Service,
    root: DocRoot,
    board: Scoreboard,
    shared: tuple[int, ...],
    lifeline: int,
    parker: socket.socket | None,
) -> tuple[Filling, _fastserve.Repeater]:
    config = service.config
    limits = (config.limit_line, config.limit_head, config.limit_fields)
    writable, readable = sealed_memory(MEMFD_NAME, _fastcache.size_of(config.cache))

    def work(inbox: socket.socket, memory: mmap.mmap) -> None:
        recording = RecordingRoot(root)
        index = tuple(map(os.fsencode, config.index))
        site = StaticSite(recording, index, config.no_listing)
        largest = _fastcache.LARGEST_BODY
        decider = Decider(
            Router(site).answer, recording, service.extra, largest, kinds=not config.no_kinds
        )
        parser = Parser("python", Limits(*limits, config.max_body))
        cache = _fastcache.Cache(memory, NAMES, limits, writable=True)
        Filler(inbox, lifeline, parser, decider, cache).run()

    slot = board.take(int(time.time() * 1000), FILLER)
    filling = Filling(writable, work, shared, service.journal, slot)
    service.wishes = filling.wishes
    sink = service.log.sink
    parked, parked_requests = idle_message()
    repeater = _fastserve.Repeater(
        _fastcache.Cache(readable, NAMES, limits, writable=False),
        board.memory,
        service.stamps.memory,
        root=root.fd,
        log=sink.fd if sink else -1,
        log_is_socket=sink is not None and sink.is_socket,
        lifeline=lifeline,
        wishes=filling.wishes.fileno(),
        fresh=FRESH,
        good=GOOD,
        linger=LINGER,
        first=first_words(config),
        idle=config.timeout_idle,
        keepalive_requests=config.keepalive_requests,
        flags=READ,
        path_flags=PATH,
        resolve=BENEATH,
        escapes=escapes(),
        silence=linger.SILENCE,
        timeout_write=config.timeout_write,
        min_rate=config.min_rate,
        not_sent=NOT_SENT,
        reasons=BROKEN_OFF,
        heard=INTERRUPTS,
        ends=END,
        parker=parker.fileno() if parker else -1,
        parked=parked,
        parked_requests=parked_requests,
    )
    return filling, repeater


class _Forks:
    """See fork_mode.Forks."""

    def __init__(
        self,
        repeater: _fastserve.Repeater,
        keep: Collection[int],
        config: Config,
        porter: _fastporter.Porter | None,
    ) -> None:
        self._repeater = repeater
        self._keep = keep
        self.spares = config.spares
        self._porter = porter
        self._forker = _fastfork.Forker(repeater, keep)
        # An object that gets between us and libc has data of its own, which a bare child lacks.
        preloaded = bool(os.environ.get("LD_PRELOAD")) or os.path.exists(_PRELOADED)
        self.may_be_bare = not config.no_bare and not preloaded

    def zygote(self) -> _fastzygote.Zygote:
        return _fastzygote.Zygote(self._repeater, self._keep, self.spares)

    def porter(self) -> _fastporter.Porter | None:
        return self._porter

    def whole(
        self, sock: socket.socket, peer: str, slot: Slot, record: Record, requests: int
    ) -> int | Progress:
        return self._forker.fork(sock.fileno(), peer.encode(), slot.at, *record.place, requests)

    def again(self, sock: socket.socket, peer: str, slot: Slot, requests: int) -> Progress | None:
        return self._repeater.serve(sock.fileno(), peer.encode(), slot.at, requests)
