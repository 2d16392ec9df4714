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
        self._published: tuple[tuple[int, int], ...] = ((-1, 0),) * 5

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
        mode, refusals = self._mode, self._refusals
        counts = (
            (SERVED, mode.served),
            (CUT, mode.cut),
            (REFUSED, refusals.count + mode.refused),
            (LOST, mode.lost_lines + refusals.lost_lines),
            (WAITING, self._entrance.waiting()),
        )
        for one, before in zip(counts, self._published, strict=True):
            if one != before:
                self._board.set(*one)
        self._published = counts
