"""What the processes of a mode have lost, said by the master: once a second for all of them, for
in mode fork each would say it for itself. They count in their slots; what stands there is shown,
never trusted. Not here: what is done about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import Reason
from .journal import LINES_LOST, Journal
from .scoreboard import LOST_LINES, STARVED, Slot

_STARVED = f"reason {Reason.NO_MEMORY:d}: 503, {Reason.NO_MEMORY.meaning}"
_KINDS = ((LOST_LINES, LINES_LOST), (STARVED, _STARVED))


class Losses:
    """lines   of the access log, so far"""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.lines = 0

    @staticmethod
    def none() -> list[int]:
        """What has been told of a new process."""
        return [0] * len(_KINDS)

    def tell(self, slots: Sequence[Slot], told: list[int]) -> None:
        """Of one process, what has not been told yet."""
        counts = [0, 0]
        for slot in slots:
            counts[0] += slot.get(LOST_LINES)
            counts[1] += slot.get(STARVED)
        if counts == told:
            return
        for at, (word, text) in enumerate(_KINDS):
            more = counts[at] - told[at]
            if more > 0:
                self._journal.say_often(text, more)
                self.lines += more if word == LOST_LINES else 0
        told[:] = counts
