"""What the master asks of a mode, and of whoever looks after those who come.

A mode is one class in one file; a fourth is a file more, and a line in generation.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol, TypeAlias

from .errors import Reason
from .past import Past
from .signals import SignalPipe
from .stamps import Record

# As a poll has found it: descriptors, and what happens there.
Ready: TypeAlias = "list[tuple[int, int]]"
# Of a round. False: there is more to do.
Routine: TypeAlias = "Callable[[Ready, SignalPipe], bool]"


class Mode(Protocol):
    """refused   connections that the mode's processes have turned away
    count     processes that serve
    reap      collect those that have ended
    tend      keep what should be there; the moment (monotonic) when to ask again
    drain     start nothing new
    renew     processes that live on are replaced, in peace: what they share has changed
    resize    a pool: by so many processes
    end       tell all to end now; kill: don't ask
    close     when all have ended
    """

    unit: str  # what a process of it serves, for people
    refused: int
    cut: int

    @property
    def served(self) -> int: ...
    @property
    def lost_lines(self) -> int: ...
    def count(self) -> int: ...
    def reap(self) -> None: ...
    def tend(self) -> float | None: ...
    def drain(self) -> None: ...
    def renew(self) -> None: ...
    def resize(self, by: int) -> None: ...
    def end(self, *, kill: bool) -> None: ...
    def close(self) -> None: ...


class Crash:
    """A process that died in the midst of a request, for this reason.

    sock     to tell the client with; None: it has got a part of its answer already
    line     of the request, as far as its process told
    seconds  that the process lived
    """

    __slots__ = ("line", "peer", "reason", "seconds", "sock")

    def __init__(
        self,
        sock: socket.socket | None,
        peer: str,
        line: bytes,
        seconds: float,
        reason: Reason,
    ) -> None:
        self.reason = reason
        self.sock = sock
        self.peer = peer
        self.line = line
        self.seconds = seconds


class Returned:
    """A connection whose process has left it for another: what it brings along, and its stamps."""

    __slots__ = ("past", "peer", "record", "sock")

    def __init__(self, sock: socket.socket, peer: str, past: Past, record: Record) -> None:
        self.sock = sock
        self.peer = peer
        self.past = past
        self.record = record


class AcceptedMode(Mode, Protocol):
    """One whose connections the master accepts.

    serve     give it a process, and the socket with it; False: not now (the system refuses).
              `past`: it has been parked meanwhile. `record`: of when what happened to it
    routine   who lets in so many at the most at these doors, and sees off others (_fastporter.pyx);
              `also_silent`: those, too, from whom no byte has come. None: nobody
    came      whom that one has accepted, and they need more: at which door, descriptor, address
    has_news  there are such as the next two give
    crashes   that have been reaped since the last time
    returned  connections whose processes have left them for others, since the last time
    of_peer   how many processes serve this address
    """

    has_news: bool

    def routine(self, doors: list[int], most: int, *, also_silent: bool) -> Routine | None: ...
    def came(self) -> list[tuple[int, int, str]]: ...
    def serve(self, sock: socket.socket, peer: str, past: Past, record: Record) -> bool: ...
    def crashes(self) -> list[Crash]: ...
    def returned(self) -> list[Returned]: ...
    def of_peer(self, peer: str) -> int: ...


class Entrance(Protocol):
    """Who looks after the listeners, for the master's loop.

    prepare        before each poll
    next_due       moments (monotonic) when there is something to do
    work           after each poll, with what it found
    routine        who does, of a round in which all is as always, all that there is to do. None:
                   nobody, or it is not
    waiting        connections that nobody serves yet
    is_busy        somebody waits, or has not yet taken a refusal
    has_processes  of its own, which have yet to end
    drain          nobody comes any more; those who wait are served
    abandon        nobody is served any more
    """

    def routine(self) -> Routine | None: ...
    def prepare(self, now: float, /) -> None: ...
    def next_due(self, now: float, /) -> list[float | None]: ...
    def work(self, ready: list[tuple[int, int]]) -> None: ...
    def waiting(self) -> int: ...
    def is_busy(self) -> bool: ...
    def has_processes(self) -> bool: ...
    def drain(self) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...
