"""The filler: it makes decisions for the cache, and is the only one who can write there.

A child that has decided something tells the head; what the answer is, the filler finds out for
itself, from the document root. So a child that was taken over can fill the cache with what is
true, and with nothing else. Not here: how it is started (helper.py), and what is kept (cache.py).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import Protocol

from .cache import FRESH, LONGEST_HEAD, Decider
from .errors import HTTPError
from .kinds import Kind
from .parse import Parser

# Of the wishes that wait, so many in one go.
_BATCH = 64
_FRESH_NS = int(FRESH * 1e9)


class Writable(Protocol):
    """_fastcache.Cache, as far as it is written."""

    def decided(self, head: bytes) -> int: ...
    def put_kind(
        self,
        head: bytes,
        decided: int,
        keeps: bool,
        header: bytes,
        holes: Sequence[tuple[int, int]],
        directory: bytes,
        absent: Sequence[bytes],
        sends: bool,
    ) -> bool: ...
    def put(
        self,
        head: bytes,
        decided: int,
        status: int,
        reason: int,
        keeps: bool,
        header: bytes,
        date_at: int,
        offset: int,
        count: int,
        guards: list[tuple[bytes, int, int, int, int, int]],
        body: bytes | None,
        directories: list[tuple[bytes, int, int, int, int, int]],
        lasts: bool,
    ) -> bool: ...


class Filler:
    """run() until the lifeline says anything: then another serves, or nobody.

    inbox    where wishes come from
    parser   of the interpreter: what comes was not yet proved to be harmless
    """

    def __init__(
        self,
        inbox: socket.socket,
        lifeline: int,
        parser: Parser,
        decider: Decider,
        cache: Writable,
    ) -> None:
        self._inbox = inbox
        self._lifeline = lifeline
        self._parser = parser
        self._decider = decider
        self._cache = cache

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._lifeline, select.POLLIN)
        poll.register(self._inbox, select.POLLIN)
        while not any(fd == self._lifeline for fd, _ in poll.poll()):
            self._hear()

    def _hear(self) -> None:
        for _ in range(_BATCH):
            try:
                data = self._inbox.recv(LONGEST_HEAD)
            except OSError:
                return
            self.fill(data)

    def fill(self, data: bytes) -> bool:
        """Decide for a head, unless it has been done a moment ago. True: it is in the cache."""
        now = time.monotonic_ns()
        if now - self._cache.decided(data) < _FRESH_NS:
            return True
        try:
            found = self._parser.parse(data)
        except HTTPError:
            return False
        entry = self._decider.entry(found[0]) if found and found[1] == len(data) else None
        if entry is None:
            return False
        if entry.kind is not None:
            self._put_kind(data, now, entry.keeps, entry.kind)
        return self._cache.put(
            data,
            now,
            entry.status,
            0,
            entry.keeps,
            entry.header,
            entry.date_at,
            entry.offset,
            entry.count,
            entry.files,
            entry.body,
            entry.directories,
            entry.lasts,
        )

    def _put_kind(self, data: bytes, now: int, keeps: bool, kind: Kind) -> None:
        self._cache.put_kind(
            data, now, keeps, kind.header, kind.holes, kind.directory, kind.absent, kind.sends
        )
