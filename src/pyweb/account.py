"""What the master has counted, in the scoreboard's head, where `pyweb status` reads it.

Written once in each round of the master's loop: a few stores, no system call. Not here: what the
processes tell of themselves, which stands in their slots.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import __version__
from .config import Config
from .mode import Entrance, Mode
from .refuse import Refusals
from .scoreboard import CUT, LOST, REFUSED, SERVED, WAITING, Scoreboard


class Account:
    def __init__(
        self, board: Scoreboard, *, mode: Mode, entrance: Entrance, refusals: Refusals
    ) -> None:
        self._board = board
        self._mode = mode
        self._entrance = entrance
        self._refusals = refusals

    def describe(
        self, config: Config, urls: Iterable[str], directory: str, words: Iterable[tuple[str, str]]
    ) -> None:
        """`words`: what else is to be shown of it (introduce.py)."""
        self._board.describe(
            [
                *(("url", url) for url in urls),
                ("directory", directory),
                ("mode", config.mode),
                ("engine", config.engine),
                ("max-connections", str(config.max_connections)),
                ("version", __version__),
                *words,
            ]
        )

    def publish(self) -> None:
        board, mode = self._board, self._mode
        board.set(SERVED, mode.served)
        board.set(CUT, mode.cut)
        board.set(REFUSED, self._refusals.count + mode.refused)
        board.set(LOST, mode.lost_lines + self._refusals.lost_lines)
        board.set(WAITING, self._entrance.waiting())
