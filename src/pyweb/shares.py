"""How many connections each address has in a pool, counted by all of its workers together.

Shared memory, a row for each worker, which alone writes it; the sum over the rows is what counts.
A row has no addresses but four tables of counters, in each of which an address has one place by
a keyed hash. Another address may fall on the same place, so the smallest of the sums is believed:
to be taken for another, four collisions are needed, and the key is new with each master. With
1,000 addresses at once and a share of one connection that is one newcomer in 400 (test_shares.py
counts them); two tables of twice the size would make it one in 75.

A worker that lies can have others refused; they trust each other, as they serve the same clients.
Not here: what is done with one who has too many.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

TABLES, _BITS = 4, 12
_WIDTH = 1 << _BITS
ROW = TABLES * _WIDTH
MOST = 65535


class Shares:
    """Of `workers` at the most. Made before the first fork."""

    def __init__(self, workers: int) -> None:
        # In front a word: rows from there on have never been used. Pages that nobody writes cost
        # nothing.
        self.used = memoryview(mmap.mmap(-1, 8)).cast("q")
        self._map = mmap.mmap(-1, 2 * ROW * workers)
        self.counters = memoryview(self._map).cast("H")

    def begin(self, row: int) -> None:
        """By the master, for a worker that is about to be forked: it has no connection."""
        self.used[0] = max(self.used[0], row + 1)
        self._map[2 * ROW * row : 2 * ROW * (row + 1)] = bytes(2 * ROW)

    def add(self, row: int, peer: str, more: int) -> None:
        """By that worker."""
        for place in places(peer):
            at = row * ROW + place
            self.counters[at] = max(0, min(self.counters[at] + more, MOST))

    def of(self, peer: str) -> int:
        rows = range(self.used[0])
        return min(sum(self.counters[row * ROW + at] for row in rows) for at in places(peer))


def places(peer: str) -> Iterator[int]:
    """One in each table. The interpreter keys its hashes anew each time it starts (PYTHONHASHSEED
    aside), and forks inherit the key."""
    number = hash(peer)
    for table in range(TABLES):
        yield table * _WIDTH + (number >> table * _BITS) % _WIDTH
