"""One connection, of median length: who did what from when to when, by everybody's own stamps.

Client, master and child are a line each, on one clock; what they do overlaps, and on a CPU that
two of them share one stretch has what the other did meanwhile. Not here: means over connections,
in which no time is counted twice (phases.py), and how it is drawn.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import stamps
from .phases import MEANINGS, PHASES, Attempt

MASTER, CHILD, CLIENT = "master", "child", "client"
# The stamps of each, in order; a stretch has the name of the phase that its second stamp ends.
_MASTER = ("AWAKE", "ACCEPTED", "FORK_BEGIN", "FORK_END", "WAITS")
# The header's stamp is left out: it lies within `send`.
_CHILD = ("CHILD", "FIRST_BYTE", "PARSED", "OPENED", "DECIDED", "BODY_SENT", "LOGGED", "EXIT",
          "NOTICED")  # fmt: skip
_AFTERWARDS = ("NOTICED", "REAPED", "RESTS")
# A connection is shown when it has all these.
_NEEDED = ("AWAKE", "ACCEPTED", "FORK_END", "CHILD", "BODY_SENT", "EXIT", "REAPED")
_WHOLE = [stamps.WORDS.index(word) for word in _NEEDED]
_ENDED_BY = {word: name for word, name, _ in PHASES}
_CLIENT = (
    ("connect", "connect(2), until the kernel has shaken hands"),
    ("send", "the request into the socket"),
    ("wait", "until the first byte of the answer is there"),
    ("read", "until the end of the connection is seen"),
)


@dataclass(frozen=True)
class Stretch:
    """`begin` and `end`: us since the client called connect(2)."""

    who: str
    phase: str
    what: str
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """`wall`: us, from the client's connect(2) until it has seen the end."""

    wall: float
    stretches: tuple[Stretch, ...]

    def as_data(self) -> dict[str, Any]:
        return {"wall": self.wall, "stretches": [asdict(one) for one in self.stretches]}


def median_connection(
    records: Sequence[tuple[int, ...]], attempts: Sequence[Attempt]
) -> Timeline | None:
    """Of those that have all stamps; None: there is none (a pool has no forks)."""
    pairs = sorted(_pairs(records, attempts), key=lambda pair: pair[0].end - pair[0].begin)
    return _timeline(*pairs[len(pairs) // 2]) if pairs else None


def middle_of(found: Sequence[Timeline]) -> Timeline | None:
    """Of one each block: that of median length."""
    in_order = sorted(found, key=lambda one: one.wall)
    return in_order[len(in_order) // 2] if in_order else None


def _pairs(
    records: Sequence[tuple[int, ...]], attempts: Sequence[Attempt]
) -> Iterator[tuple[Attempt, tuple[int, ...]]]:
    """Clients come one after the other, so the server's accept tells whose record it is."""
    begins = [one.begin for one in attempts]
    for record in records:
        if not all(record[word] for word in _WHOLE):
            continue
        place = bisect.bisect_right(begins, record[stamps.ACCEPTED]) - 1
        if place >= 0 and record[stamps.ACCEPTED] <= attempts[place].end:
            yield attempts[place], record


def _timeline(attempt: Attempt, record: tuple[int, ...]) -> Timeline:
    times = {CLIENT: attempt.begin} | dict(zip(stamps.WORDS, record, strict=True))
    start = attempt.begin

    def stretch(who: str, phase: str, what: str, begin: int, end: int) -> Stretch:
        return Stretch(who, phase, what, (begin - start) / 1e3, (end - start) / 1e3)

    def chain(who: str, words: Sequence[str]) -> Iterator[Stretch]:
        for before, after in itertools.pairwise([word for word in words if times[word]]):
            phase = _ENDED_BY[after]
            yield stretch(who, phase, MEANINGS[phase], times[before], times[after])

    clients = (attempt.begin, attempt.connected, attempt.sent, attempt.first_byte, attempt.end)
    found = [
        stretch(CLIENT, phase, what, *pair)
        for (phase, what), pair in zip(_CLIENT, itertools.pairwise(clients), strict=True)
    ]
    found += chain(MASTER, (CLIENT, *_MASTER))
    # Whichever of the two comes first out of fork(2).
    came = "FORK_END" if times["CHILD"] > times["FORK_END"] else "FORK_BEGIN"
    found += chain(CHILD, (came, *_CHILD))
    found += chain(MASTER, _AFTERWARDS)
    found.sort(key=lambda one: one.begin)
    return Timeline((attempt.end - attempt.begin) / 1e3, tuple(found))
