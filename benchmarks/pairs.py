"""A and B in turn inside one measurement, so that a machine that slows down slows both.

`compare` gives the ratio time(B) / time(A) as the median over pairs, with a bootstrap interval.
The order within a pair alternates (ABBA): what favours the first of two favours both in turn.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

Work = Callable[[], object]


def _seconds(work: Work, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def _told(work: Work, times: int) -> float:
    return sum(float(work()) for _ in range(times))  # type: ignore[arg-type]


def compare(
    a: Work, b: Work, times: int, pairs: int = 21, *, told: bool = False
) -> dict[str, float]:
    """`times` calls of each in each of `pairs` pairs. told: they give their seconds themselves."""
    measure = _told if told else _seconds
    found_a, found_b = [], []
    for number in range(pairs):
        order = ((a, found_a), (b, found_b)) if number % 2 == 0 else ((b, found_b), (a, found_a))
        for work, found in order:
            found.append(measure(work, times) / times)
    ratios = [y / x for x, y in zip(found_a, found_b, strict=True)]
    low, high = interval(ratios)
    return {
        "a_us": statistics.median(found_a) * 1e6,
        "b_us": statistics.median(found_b) * 1e6,
        "b_over_a": statistics.median(ratios),
        "low": low,
        "high": high,
    }


def interval(values: list[float], rounds: int = 2000) -> tuple[float, float]:
    """95 % of bootstrapped medians."""
    dice = random.Random(1)  # the same data give the same interval
    medians = sorted(statistics.median(dice.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(rounds * 0.025)], medians[int(rounds * 0.975)]


TOLD: list[str] = []


def note(line: str) -> None:
    """As tell, in words."""
    TOLD.append(line)


def tell(what: str, found: dict[str, float]) -> None:
    """Remember a ratio and its interval; conftest prints them where a person looks."""
    TOLD.append("{:40} {b_over_a:8.2f}  [{low:.2f}, {high:.2f}]".format(what, **found))
