"""A and B in turn inside one call of pytest-benchmark, which itself runs one after the other.

A machine that slows down slows both, and the ratio stays. What is made of the figures is the
laboratory's (pyweb.lab.statistics). Not here: what is run, and what is said about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pyweb.lab import statistics

Work = Callable[[], object]


def _seconds(work: Work, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def _told(work: Work, times: int) -> float:
    return sum(float(work()) for _ in range(times))  # type: ignore[arg-type]


def in_turn(
    sides: Sequence[Work], times: int, blocks: int, *, told: bool = False
) -> list[list[float]]:
    """For each side its seconds a call, a value for each block, in which it is called `times`
    times. told: they give their seconds themselves."""
    measure = _told if told else _seconds
    found: list[list[float]] = [[] for _ in sides]
    for block in range(blocks):
        for side in statistics.turns(len(sides), block):
            found[side].append(measure(sides[side], times) / times)
    return found


def compare(
    a: Work, b: Work, times: int, pairs: int = 21, *, told: bool = False
) -> dict[str, float]:
    """For extra_info: both sides, and the ratio of their times with its interval."""
    found_a, found_b = in_turn([a, b], times, pairs, told=told)
    ratio = statistics.ratio(found_a, found_b)
    return {
        "a_us": statistics.median(found_a).value * 1e6,
        "b_us": statistics.median(found_b).value * 1e6,
        "b_over_a": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
    }
