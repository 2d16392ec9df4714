"""Stamps to phases, on data that is known: each stretch of time has one name, and none is lost."""

from __future__ import annotations

import itertools

import pytest

from pyweb import stamps
from pyweb.lab.phases import CLIENT, NAMES, PHASES, Attempt, breakdown
from pyweb.lab.run import Failed

# How long each phase of every connection lasts, ns.
LENGTHS = {
    "AWAKE": 100, "ACCEPTED": 7, "FORK_BEGIN": 5, "FORK_END": 300, "WAITS": 20, "CHILD": 50,
    "FIRST_BYTE": 30, "PARSED": 11, "OPENED": 12, "DECIDED": 13, "HEADER_SENT": 14,
    "BODY_SENT": 1, "LOGGED": 16, "EXIT": 17, "NOTICED": 200, "REAPED": 18, "RESTS": 19,
}  # fmt: skip
POOL = ("AWAKE", "ACCEPTED", "FIRST_BYTE", "PARSED", "OPENED", "DECIDED", "HEADER_SENT",
        "BODY_SENT", "LOGGED", "EXIT")  # fmt: skip


def record(number: int, start: int, lengths: dict[str, int]) -> tuple[tuple[int, ...], int]:
    """One that begins to wake at `start`; and when it ended."""
    words = dict.fromkeys(stamps.WORDS, 0) | {"NUMBER": number}
    now = start
    for name, length in lengths.items():
        now += length
        words[name] = now
    return tuple(words.values()), now


def attempt(begin: int) -> Attempt:
    return Attempt(begin, begin + 1, begin + 2, begin + 3, begin + 4)


def many(lengths: dict[str, int], thinks: int, count: int = 9) -> tuple[
    list[tuple[int, ...]], list[Attempt]
]:  # fmt: skip
    """The client begins so long after the server has rested; below 0: before it."""
    records, attempts, now = [], [], 1_000_000
    for number in range(1, count + 1):
        begin = now + thinks
        attempts.append(attempt(begin))
        one, now = record(number, max(begin, now), lengths)
        records.append(one)
    return records, attempts


@pytest.mark.parametrize("thinks", [0, 40, -60])
def test_each_stretch_has_its_name(thinks: int) -> None:
    found = breakdown(*many(LENGTHS, thinks))
    wanted = dict.fromkeys(NAMES, 0.0)
    for word, name, _ in PHASES:
        wanted[name] += LENGTHS[word] / 1e3
    wanted[CLIENT] = max(0, thinks) / 1e3
    assert found.phases == pytest.approx(wanted)
    assert found.wall == pytest.approx(sum(wanted.values()))
    assert found.connections == 8  # from accept to accept


def test_a_pool_has_no_phases_of_a_process() -> None:
    found = breakdown(*many({name: LENGTHS[name] for name in POOL}, 10))
    assert {name for name, value in found.phases.items() if value} == {
        "wake", "accept", "prepare", "parse", "open", "decide", "send", "log", "leave", CLIENT,
    }  # fmt: skip
    assert found.counts == {}


def test_a_child_that_runs_before_its_parent() -> None:
    """Time goes to whoever stamps next: a stretch is never counted twice."""
    words = list(LENGTHS)
    early = {name: LENGTHS[name] for name in words if name not in ("FORK_END", "WAITS")}
    records, attempts = many(early, 10)
    moved = []
    for one in records:
        child = one[stamps.CHILD]
        changed = list(one)
        changed[stamps.FORK_END], changed[stamps.WAITS] = child + 5, child + 9
        moved.append(tuple(changed))
    plain, mixed = breakdown(records, attempts), breakdown(moved, attempts)
    assert mixed.wall == pytest.approx(plain.wall)
    assert mixed.phases["fork"] == pytest.approx(0.005)
    assert mixed.phases["books"] == pytest.approx(0.004)
    assert mixed.phases["prepare"] == pytest.approx(plain.phases["prepare"] - 0.009)


def test_what_disturbs_a_few_moves_nothing() -> None:
    records, attempts = many(LENGTHS, 10, 20)
    late = [tuple(w + 10_000_000 if w > 1000 else w for w in one) for one in records[17:]]
    hit = [attempt(one.begin + 10_000_000) for one in attempts[17:]]
    quiet = breakdown(records, attempts)
    assert breakdown(records[:17] + late, attempts[:17] + hit).phases == pytest.approx(quiet.phases)


def test_warm_up_is_not_counted() -> None:
    records, attempts = many(LENGTHS, 10, 20)
    assert breakdown(records, attempts[12:]).connections == 7


def test_counts_are_those_of_reaped_children() -> None:
    records, attempts = many(LENGTHS, 10)
    told = []
    for one, faults in zip(records, itertools.cycle((30, 31)), strict=False):
        changed = list(one)
        changed[stamps.MINOR_FAULTS], changed[stamps.USER_US], changed[stamps.SYSTEM_US] = (
            faults, 100, 200,
        )  # fmt: skip
        told.append(tuple(changed))
    counts = breakdown(told, attempts).counts
    assert 30 <= counts["MINOR_FAULTS"] <= 31
    assert counts["CPU_US"] == 300


def test_too_few_are_an_error() -> None:
    records, attempts = many(LENGTHS, 10, 4)
    with pytest.raises(Failed, match="4 are the least"):
        breakdown(records, attempts)
