"""The laboratory's statistics on data whose truth is known; all dice are seeded."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from pyweb.lab.statistics import (
    Estimate,
    difference,
    is_quiet,
    median,
    middle,
    midmean,
    ratio,
    turns,
)


def lognormal(dice: random.Random) -> float:
    return dice.lognormvariate(0, 0.3)


def with_outliers(dice: random.Random) -> float:
    """What a busy machine does: one in ten is far too large, none far too small."""
    value = dice.lognormvariate(0, 0.02)
    return value * 3 if dice.random() < 0.1 else value


MEDIAN_WITH_OUTLIERS = math.exp(0.02 * 0.1397)  # of the 90 %: their 5/9 quantile

DISTRIBUTIONS = [
    (lambda dice: dice.gauss(1, 0.05), 1.0),
    (lognormal, 1.0),
    (lambda dice: dice.expovariate(1), math.log(2)),
    (with_outliers, MEDIAN_WITH_OUTLIERS),
]


@pytest.mark.parametrize("blocks", [6, 8, 12, 20, 21])
@pytest.mark.parametrize(
    ("draw", "truth"), DISTRIBUTIONS, ids=["normal", "lognormal", "exponential", "outliers"]
)
def test_the_interval_has_the_truth_in_95_of_100(
    draw: Callable[[random.Random], float], truth: float, blocks: int
) -> None:
    """4000 runs: sqrt(0.95 * 0.05 / 4000) is 0.0034. The bootstrap had 0.92 of 8 and of 21 blocks,
    whole order statistics 0.99 of 8."""
    dice = random.Random(blocks)
    runs = 4000
    hits = sum(median([draw(dice) for _ in range(blocks)]).has(truth) for _ in range(runs))
    assert 0.935 < hits / runs < 0.965


def test_more_blocks_tell_more() -> None:
    dice = random.Random(1)

    def width(blocks: int) -> float:
        found = [median([dice.gauss(0, 1) for _ in range(blocks)]) for _ in range(500)]
        return sum(one.high - one.low for one in found) / len(found)

    widths = [width(blocks) for blocks in (6, 12, 24, 48)]
    assert widths == sorted(widths, reverse=True)
    assert 0.4 < widths[3] / widths[1] < 0.6  # by the root of their number


def test_a_median_and_its_interval() -> None:
    """Of ten: between the second value and the third, and of this way 0.323 (by hand: 2.15 % and
    10.9 % of the tosses lie outside, so 8 * 0.325 / (2 + 6 * 0.325))."""
    found = median([float(n) for n in range(1, 11)])
    assert found.value == 5.5
    outside = 22 / 1024, 112 / 1024
    excess = (0.05 - outside[0]) / (outside[1] - outside[0])
    share = 8 * excess / (2 + 6 * excess)
    assert found.low == pytest.approx(2 + share)
    assert found.high == pytest.approx(9 - share)


def test_order_does_not_matter() -> None:
    values = [3.0, 1.0, 2.0, 7.0, 5.0, 4.0, 6.0]
    assert median(values) == median(sorted(values))


def test_an_outlier_moves_nothing() -> None:
    quiet = [1.0 + n / 100 for n in range(20)]
    assert median([*quiet[:-1], 1000.0]) == median(quiet)


def test_it_scales_with_the_data() -> None:
    values = [1.5, 2.0, 3.0, 1.0, 4.0, 2.5, 8.0]
    found, doubled = median(values), median([2 * value for value in values])
    assert doubled.as_list() == pytest.approx(found.scaled(2).as_list())
    turned = median([-value for value in values])
    assert turned.as_list() == pytest.approx(found.scaled(-1).as_list())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_blocks_bound_nothing(count: int) -> None:
    """All five on one side of the truth: 1 in 16. No interval of them has it in 95 %."""
    found = median([float(n) for n in range(count)])
    assert found == Estimate((count - 1) / 2, -math.inf, math.inf)
    assert median([1.0, 2, 3, 4, 5, 6]).low >= 1


@pytest.mark.parametrize("work", [median, midmean])
def test_nothing_measured(work: Callable[[list[float]], object]) -> None:
    with pytest.raises(ValueError, match="nothing has been measured"):
        work([])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="no number"):
        median([1.0, value])


def test_ratio_and_difference_are_of_one_block_each() -> None:
    """A machine that slows down by the factor of ten changes no ratio."""
    pace = [1.0, 10.0, 1.0, 10.0, 3.0, 7.0, 2.0, 9.0]
    a = [2.0 * p for p in pace]
    b = [3.0 * p for p in pace]
    assert ratio(a, b).as_list() == pytest.approx([1.5] * 3)
    assert ratio(b, a).value == pytest.approx(2 / 3)
    assert difference([1.0] * 8, [3.0] * 8) == Estimate(2, 2, 2)
    assert difference([3.0] * 8, [1.0] * 8).value == -2


@pytest.mark.parametrize("work", [ratio, difference])
def test_sides_with_other_blocks(work: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="one side has 2 blocks, the other 3"):
        work([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("a", "b"), [([0.0], [1.0]), ([1.0], [0.0]), ([-1.0], [1.0])])
def test_a_ratio_of_what_was_not_measured(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ratio(a, b)


def test_there_and_back() -> None:
    assert [turns(2, block) for block in range(4)] == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert [turns(3, block) for block in range(2)] == [[0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize("sides", [2, 3, 5])
def test_drift_favours_nobody(sides: int) -> None:
    """Each turn a little slower than the one before: over two blocks all have lost the same."""
    times = [turn for block in range(2) for turn in turns(sides, block)]
    lost = [sum(place for place, side in enumerate(times) if side == one) for one in range(sides)]
    assert len(set(lost)) == 1


def test_the_middle_half() -> None:
    assert midmean([1.0, 2.0, 3.0, 100.0]) == 2.5
    assert midmean([5.0, 0.0, 6.0, 100.0, 7.0, 8.0, -50.0, 6.0]) == 6.0
    assert midmean([1.0, 2.0, 6.0]) == 3.0  # too few to leave any out
    assert middle([9.0, 1.0, 5.0, 6.0]) == [2, 3]
    assert len(middle([float(n) for n in range(40)])) == 20


def test_parts_of_the_middle_add_up() -> None:
    """What stamps of one connection are: averaged over the same connections they are its whole."""
    dice = random.Random(2)
    parts = [[dice.expovariate(1) for _ in range(50)] for _ in range(4)]
    whole = [sum(values) for values in zip(*parts, strict=True)]
    places = middle(whole)
    means = [sum(part[i] for i in places) / len(places) for part in parts]
    assert sum(means) == pytest.approx(midmean(whole))


@pytest.mark.parametrize(
    ("value", "quiet"), [(0.98, True), (1.02, True), (0.97, False), (1.03, False)]
)
def test_what_is_quiet(value: float, quiet: bool) -> None:
    assert is_quiet(Estimate(value, 0, 2)) is quiet


def test_intervals_meet() -> None:
    one = Estimate(2, 1, 3)
    assert one.meets(Estimate(4, 3, 5))
    assert Estimate(4, 3, 5).meets(one)
    assert not one.meets(Estimate(4, 3.5, 5))
    assert not Estimate(4, 3.5, 5).meets(one)
    assert one.has(1)
    assert not one.has(3.1)
    assert one.scaled(-2) == Estimate(-4, -6, -2)
