"""One connection's stretches, from stamps that are known."""

from __future__ import annotations

from pyweb import stamps
from pyweb.lab.phases import Attempt
from pyweb.lab.timeline import Timeline, median_connection, middle_of


def record(**times: int) -> tuple[int, ...]:
    """us after connect(2), which is at 1,000,000 ns."""
    words = dict.fromkeys(stamps.WORDS, 0) | {
        name: 1_000_000 + 1000 * us for name, us in times.items()
    }
    return tuple(words.values())


WHOLE = {
    "AWAKE": 10, "ACCEPTED": 20, "FORK_BEGIN": 30, "FORK_END": 60, "WAITS": 80, "CHILD": 70,
    "FIRST_BYTE": 75, "PARSED": 90, "OPENED": 100, "DECIDED": 110, "HEADER_SENT": 115,
    "BODY_SENT": 120, "LOGGED": 130, "EXIT": 140, "NOTICED": 170, "REAPED": 180, "RESTS": 190,
}  # fmt: skip


def attempt(at: int = 0, took: int = 150) -> Attempt:
    begin = 1_000_000 + 1000 * at
    return Attempt(begin, begin + 5000, begin + 7000, begin + 118_000, begin + 1000 * took)


def seen(found: Timeline, who: str) -> list[tuple[str, float, float]]:
    return [(one.phase, one.begin, one.end) for one in found.stretches if one.who == who]


def test_each_has_its_line() -> None:
    found = median_connection([record(**WHOLE)], [attempt()])
    assert found is not None
    assert found.wall == 150
    assert seen(found, "client") == [
        ("connect", 0, 5), ("send", 5, 7), ("wait", 7, 118), ("read", 118, 150)
    ]  # fmt: skip
    assert seen(found, "master") == [
        ("wake", 0, 10), ("accept", 10, 20), ("admit", 20, 30), ("fork", 30, 60),
        ("books", 60, 80), ("reap", 170, 180), ("round", 180, 190),
    ]  # fmt: skip
    assert seen(found, "child") == [
        ("start", 60, 70), ("prepare", 70, 75), ("parse", 75, 90), ("open", 90, 100),
        ("decide", 100, 110), ("send", 110, 120), ("log", 120, 130), ("leave", 130, 140),
        ("exit", 140, 170),
    ]  # fmt: skip


def test_a_child_that_comes_first_out_of_the_fork() -> None:
    found = median_connection([record(**WHOLE | {"CHILD": 50})], [attempt()])
    assert found is not None
    assert seen(found, "child")[0] == ("start", 30, 50)


def test_the_median_is_shown() -> None:
    """And whose record is whose, by the clock and not by its number."""
    attempts = [attempt(at, took) for at, took in ((0, 150), (1000, 290), (2000, 200))]
    records = [record(**{k: v + at for k, v in WHOLE.items()}) for at in (2000, 1000, 0)]
    found = median_connection(records, attempts)
    assert found is not None
    assert found.wall == 200
    assert seen(found, "master")[0] == ("wake", 0, 10)


def test_what_is_not_whole_is_not_shown() -> None:
    assert median_connection([record(**WHOLE | {"REAPED": -1000})], [attempt()]) is None
    assert median_connection([record(**WHOLE)], [attempt(at=5000)]) is None
    assert middle_of([]) is None


def test_of_all_blocks_the_middle_one() -> None:
    lines = [Timeline(wall, ()) for wall in (5.0, 1.0, 9.0)]
    assert middle_of(lines) == Timeline(5.0, ())
