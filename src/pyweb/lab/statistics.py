"""Numbers in, numbers out: medians, intervals, ratios of interleaved pairs, and when to doubt.

Where one side of a comparison runs first and the other second, the order alternates (ABBA): what
favours the first of two, favours both in turn. A run is many blocks; in a block each side has one
value, and only values of one block are compared. Not here: what is measured, and words for people.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The same data give the same interval.
_SEED = 1
_ROUNDS = 4000
# An A/A comparison outside of this, and the run is called noisy.
QUIET = 0.98, 1.02


@dataclass(frozen=True)
class Estimate:
    """A value and its interval of 95 %, in whatever unit the data had."""

    value: float
    low: float
    high: float

    def meets(self, other: Estimate) -> bool:
        """Do the intervals have a value in common?"""
        return self.low <= other.high and other.low <= self.high

    def has(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, by: float) -> Estimate:
        low, high = sorted((self.low * by, self.high * by))
        return Estimate(self.value * by, low, high)

    def as_list(self) -> list[float]:
        return [self.value, self.low, self.high]


def midmean(values: Sequence[float]) -> float:
    """The mean of the middle half: as little moved by what the machine did meanwhile as the
    median, and additive where parts of the same things are averaged (`middle`)."""
    return statistics.fmean(values[i] for i in middle(values))


def middle(values: Sequence[float]) -> list[int]:
    """The places of the middle half, or of all when there are few."""
    order = sorted(range(len(values)), key=values.__getitem__)
    cut = len(order) // 4
    return sorted(order[cut : len(order) - cut])


def median(values: Sequence[float]) -> Estimate:
    """Of independent values, one a block; the interval is bootstrapped (percentiles)."""
    data = np.asarray(values, dtype=float)
    if len(data) == 1:
        return Estimate(float(data[0]), float("-inf"), float("inf"))
    dice = np.random.default_rng(_SEED)
    found = np.median(data[dice.integers(0, len(data), (_ROUNDS, len(data)))], axis=1)
    low, high = np.percentile(found, (2.5, 97.5))
    return Estimate(float(np.median(data)), float(low), float(high))


def ratio(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """b / a, block by block."""
    return median([y / x for x, y in zip(a, b, strict=True)])


def difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """b - a, block by block."""
    return median([y - x for x, y in zip(a, b, strict=True)])


def is_quiet(same: Estimate) -> bool:
    """Of a comparison of one thing with itself."""
    return QUIET[0] <= same.value <= QUIET[1]


def turns(count: int, block: int) -> list[int]:
    """In which order the sides have their turn in this block: there, and back, and there."""
    order = list(range(count))
    return order if block % 2 == 0 else order[::-1]
