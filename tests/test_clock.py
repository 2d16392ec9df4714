"""Time: the HTTP date in its three forms and back (RFC 9110 5.6.7), and deadlines of a phase."""

from __future__ import annotations

import calendar
import datetime
import email.utils
import locale
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyweb import clock
from pyweb.clock import Deadline, http_date, now_date, parse_http_date

NOON = 784111777  # the RFC's own example
FIRST, LAST = -62135596800, 253402300799  # years 1 to 9999
SECONDS = st.integers(FIRST, LAST)


class Clock:
    """A monotonic clock and a calendar that go when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.date = float(NOON)
        real = time.gmtime
        monkeypatch.setattr(clock.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(clock.time, "time", lambda: self.date)
        monkeypatch.setattr(
            clock.time, "gmtime", lambda s=None: real(self.date if s is None else s)
        )


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def at(*date: int) -> int:
    return calendar.timegm((*date, 0, 0, 0))


# ---- the date ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
    ],
)
def test_the_three_forms(value: bytes) -> None:
    assert parse_http_date(value) == NOON


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"784111777",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49 GMT",
        b"sun, 06 nov 1994 08:49:37 gmt",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun,  6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 06 Nov 11994 08:49:37 GMT",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sunday, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov 6 08:49:37 1994",
        b"Sun Nov   6 08:49:37 1994",
        b"Sun Nov  6 08:49:37 1994 GMT",
        b"Son, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nox 1994 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b" Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT\n",
        b"Sun, 06 Nov 1994 08:49:37 GMT; length=5",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 0\u0666 Nov 1994 08:49:37 GMT".encode(),
        b"Sun, 06 Nov 1994 08:49:37 GMT\xff",
    ],
)
def test_no_date(value: bytes) -> None:
    assert parse_http_date(value) is None


@pytest.mark.parametrize(
    ("day", "month", "year", "exists"),
    [
        (29, "Feb", 2024, True),
        (29, "Feb", 2023, False),
        (29, "Feb", 2000, True),
        (29, "Feb", 1900, False),
        (29, "Feb", 2100, False),
        (30, "Feb", 2024, False),
        (31, "Dec", 1999, True),
        (31, "Apr", 1999, False),
        (1, "Mar", 2024, True),
    ],
)
def test_days_of_a_month(day: int, month: str, year: int, exists: bool) -> None:
    found = parse_http_date(f"Mon, {day:02d} {month} {year} 00:00:00 GMT".encode())
    assert found == (at(year, clock.MONTHS.index(month) + 1, day) if exists else None)


def test_a_leap_second_is_the_next_second() -> None:
    before = parse_http_date(b"Sat, 31 Dec 2016 23:59:59 GMT")
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == before + 1


@pytest.mark.parametrize(
    ("today", "value", "year"),
    [
        (at(2026, 11, 24), b"Tuesday, 24-Nov-26 00:00:00 GMT", 2026),
        (at(2026, 11, 24), b"Tuesday, 24-Nov-99 00:00:00 GMT", 1999),
        (at(2026, 11, 24), b"Tuesday, 24-Nov-00 00:00:00 GMT", 2000),
        # Fifty years from now to the second, and a second more.
        (at(2026, 11, 24), b"Tuesday, 24-Nov-76 00:00:00 GMT", 2076),
        (at(2026, 11, 24), b"Tuesday, 24-Nov-76 00:00:01 GMT", 1976),
        (at(2026, 11, 24), b"Tuesday, 23-Nov-76 23:59:59 GMT", 2076),
        (at(1999, 12, 31), b"Tuesday, 24-Nov-00 00:00:00 GMT", 1900),
        (at(2070, 1, 1), b"Tuesday, 24-Nov-15 00:00:00 GMT", 2015),
    ],
)
def test_two_digits_of_a_year(ticking: Clock, today: int, value: bytes, year: int) -> None:
    ticking.date = float(today)
    found = parse_http_date(value)
    assert found is not None
    assert datetime.datetime.fromtimestamp(found, datetime.UTC).year == year


@given(SECONDS)
@example(0)
@example(-1)
@example(FIRST)
@example(LAST)
def test_there_and_back(seconds: int) -> None:
    value = http_date(seconds)
    assert parse_http_date(value) == seconds
    assert len(value) == 29
    # datetime as the oracle of the calendar, email.utils of the form.
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(0, seconds)
    assert value.decode() == email.utils.format_datetime(moment, usegmt=True)


@given(SECONDS)
def test_asctime_there_and_back(seconds: int) -> None:
    t = time.gmtime(seconds)
    asctime = f"{time.asctime(t)[:20]}{t.tm_year:04d}"
    assert parse_http_date(asctime.encode()) == seconds


@given(st.integers(at(1980, 1, 1), at(2069, 12, 31)))
def test_rfc850_there_and_back(seconds: int) -> None:
    value = time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(seconds))
    assert parse_http_date(value.encode()) == seconds


@given(st.binary(max_size=40) | st.text("SunNov 0123456789:,-GMT", max_size=40).map(str.encode))
def test_anything_is_a_date_or_none(value: bytes) -> None:
    found = parse_http_date(value)
    assert found is None or FIRST - 366 * 86400 <= found <= LAST + 1


def test_the_locale_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock.time, "strftime", None)
    before = locale.setlocale(locale.LC_TIME)
    try:
        locale.setlocale(locale.LC_TIME, "")
        assert http_date(NOON) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_a_fraction_belongs_to_the_second_that_runs() -> None:
    assert http_date(NOON + 0.999) == http_date(NOON)


def test_now_is_rendered_once_a_second(ticking: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_date", (-1, b""))
    first = now_date()
    assert first == b"Sun, 06 Nov 1994 08:49:37 GMT"
    ticking.date += 0.9
    assert now_date() is first
    ticking.date += 0.1
    assert now_date() == b"Sun, 06 Nov 1994 08:49:38 GMT"
    ticking.date -= 3600  # a clock that is set back
    assert now_date() == b"Sun, 06 Nov 1994 07:49:38 GMT"


# ---- deadlines -----------------------------------------------------------------------------------


def test_a_deadline_passes(ticking: Clock) -> None:
    deadline = Deadline(10)
    assert deadline.left() == 10
    ticking.now += 4
    assert deadline.left() == 6
    ticking.now += 6
    assert deadline.left() == 0
    ticking.now += 100
    assert deadline.left() == 0


def test_it_grows_with_the_bytes_moved(ticking: Clock) -> None:
    deadline = Deadline(10, min_rate=500)
    ticking.now += 4
    deadline.moved(1000)
    assert deadline.left() == 8
    ticking.now += 1
    deadline.moved(250)
    assert deadline.left() == 7.5


def test_a_burst_buys_no_more_than_the_whole_time(ticking: Clock) -> None:
    """The kernel takes the first megabytes at once, also for a client that never reads."""
    deadline = Deadline(10, min_rate=500)
    ticking.now += 3
    deadline.moved(10_000_000)
    assert deadline.left() == 10


def test_a_trickle_dies_and_an_honest_client_lives(ticking: Clock) -> None:
    trickle, honest = Deadline(10, min_rate=500), Deadline(10, min_rate=500)
    for _ in range(60):
        ticking.now += 1
        trickle.moved(1)
        honest.moved(500)
    assert trickle.left() == 0
    assert honest.left() == 10


def test_without_a_rate_each_byte_starts_it_anew(ticking: Clock) -> None:
    deadline = Deadline(10, min_rate=0)
    ticking.now += 9
    deadline.moved(1)
    assert deadline.left() == 10


def test_the_wall_clock_ends_nothing(ticking: Clock) -> None:
    deadline = Deadline(10)
    ticking.date += 86400
    assert deadline.left() == 10
