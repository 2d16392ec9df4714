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
# Of each kind so many.
Told = tuple[int, int]
NOTHING_TOLD: Told = (0, 0)
_KINDS = ((LOST_LINES, LINES_LOST), (STARVED, _STARVED))


class Losses:
    """lines   of the access log, so far"""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.lines = 0

    def tell(self, slots: Sequence[Slot], told: Told) -> Told:
        """Of one process, what has not been told yet; gives what has been then."""
        lines = starved = 0
        for slot in slots:
            lines += slot.get(LOST_LINES)
            starved += slot.get(STARVED)
        counts = lines, starved
        if counts != told:
            for (word, text), count, before in zip(_KINDS, counts, told, strict=True):
                if count > before:
                    self._journal.say_often(text, count - before)
                    self.lines += count - before if word == LOST_LINES else 0
        return counts
