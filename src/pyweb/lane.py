"""Workers' lanes: what is repeated in C for many connections at once, put together for a pool.

A lane (_fastlane.pyx) has those connections of a worker that idle, or whose requests have a
decision that is known (cache.py); Python has the others, and gets one wherever there is something
to decide. Not here: what a worker does with it (worker.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import Config
from .connection import first_words
from .ledger import LIMIT, Ledger
from .scoreboard import Slot
from .shares import MOST, ROW, Shares, places

if TYPE_CHECKING:
    from ._fastserve import Repeater

try:
    from . import _fastlane, _fastshares
except ImportError:  # not built: then nobody makes lanes
    _fastlane = _fastshares = None  # type: ignore[assignment]


class Lanes:
    """Of a process: one for each of its workers."""

    def __init__(self, config: Config, repeater: Repeater) -> None:
        self._config = config
        self._repeater = repeater

    def lane(
        self,
        slot: Slot,
        poll: int,
        doors: list[int],
        orders: tuple[int, ...],
        ledger: Ledger,
        shares: Shares | None,
        quota: tuple[int, int],
    ) -> _fastlane.Lane:
        """`quota`: after so many requests, or connections, it returns; 0: never. MemoryError."""
        config = self._config
        requests, connections = quota
        return _fastlane.Lane(
            self._repeater,
            slot.at,
            poll,
            doors,
            orders,
            ledger.words,
            ledger.texts,
            self._row(shares, slot.number) if shares else None,
            limit=LIMIT,
            first=first_words(config),
            idle=config.timeout_idle,
            requests=requests,
            connections=connections,
        )

    def _row(self, shares: Shares, number: int) -> _fastshares.Row:
        return _fastshares.Row(
            shares.counters,
            shares.used,
            places,
            row=number,
            row_size=ROW,
            most=MOST,
            limit=self._config.per_client,
        )
