"""Time: deadlines on the monotonic clock, and the HTTP date.

A deadline is for a whole phase (head, body, write, idle), never for one recv, and never on the
wall clock: a clock that jumps ends no connection. Not here: what happens when one has passed.
"""

from __future__ import annotations

import re
import time

# RFC 9110 5.6.7. Not time.strftime, which speaks the locale's language.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Deadline:
    """`seconds` from now on; each byte moved adds 1 / min_rate of a second, but the deadline is
    never further away than `seconds`.

    So a slow but honest transfer lives, a trickle dies, and so does a client that stalls: what
    the kernel's buffers took at once buys no time. min_rate (bytes/s) 0: no rate is asked for,
    and each byte moved starts the `seconds` anew.
    """

    __slots__ = ("_min_rate", "_seconds", "at")

    def __init__(self, seconds: float, min_rate: int = 0) -> None:
        self._seconds = seconds
        self._min_rate = min_rate
        self.at = time.monotonic() + seconds

    def moved(self, count: int) -> None:
        fullest = time.monotonic() + self._seconds
        earned = self.at + count / self._min_rate if self._min_rate else fullest
        self.at = min(fullest, earned)

    def left(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self.at - time.monotonic())


def earliest(*moments: float | None) -> float | None:
    """None: never."""
    return min((one for one in moments if one is not None), default=None)


class Backoff:
    """When to start what has ended: at once, unless it died young; then after pauses that double
    from `first` to `longest` seconds. `at`: the moment (monotonic); 0: any.
    """

    __slots__ = ("_first", "_longest", "_pause", "_young", "at")

    def __init__(self, *, young: float = 1.0, first: float = 0.1, longest: float = 5.0) -> None:
        self._young = young
        self._first = self._pause = first
        self._longest = longest
        self.at = 0.0

    def ended(self, started: float) -> None:
        """What was started then (monotonic) has failed."""
        now = time.monotonic()
        if now - started >= self._young:
            self.worked()
            return
        self.at = now + self._pause
        self._pause = min(2 * self._pause, self._longest)

    def worked(self) -> None:
        self._pause = self._first
        self.at = 0.0


_date = (-1, b"")


def now_date() -> bytes:
    """The Date field's value, rendered once a second."""
    global _date  # noqa: PLW0603  a cache of one; each process has its own
    second = int(time.time())
    if _date[0] != second:
        _date = (second, http_date(second))
    return _date[1]


def http_date(seconds: float) -> bytes:
    """IMF-fixdate, as in "Sun, 06 Nov 1994 08:49:37 GMT"."""
    t = time.gmtime(int(seconds))
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    ).encode()


# The three forms that a recipient must understand (RFC 9110 5.6.7); case matters.
_DAY = "(?:" + "|".join(_DAYS) + ")"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MON = "(?P<month>" + "|".join(MONTHS) + ")"
_HMS = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMS = tuple(
    re.compile(form.encode())
    for form in (
        rf"{_DAY}, (?P<day>\d\d) {_MON} (?P<year>\d{{4}}) {_HMS} GMT",
        rf"{_LONG_DAY}, (?P<day>\d\d)-{_MON}-(?P<year>\d\d) {_HMS} GMT",
        rf"{_DAY} {_MON} (?P<day>[ \d]\d) {_HMS} (?P<year>\d{{4}})",
    )
)


def parse_http_date(value: bytes) -> int | None:
    """Seconds since the epoch; None for what is no HTTP date (whoever sent it is ignored)."""
    for form in _FORMS:
        match = form.fullmatch(value)
        if match:
            return _seconds(match.groupdict())
    return None


def _seconds(part: dict[str, bytes]) -> int | None:
    year, month, day = int(part["year"]), MONTHS.index(part["month"].decode()) + 1, int(part["day"])
    hour, minute, second = int(part["hour"]), int(part["minute"]), int(part["second"])
    if len(part["year"]) == 2:
        year = _full_year(year, (month, day, hour, minute, second))
    if hour > 23 or minute > 59 or second > 60 or not 1 <= day <= _days_in(year, month):
        return None
    return ((_days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second


def _full_year(digits: int, rest: tuple[int, ...]) -> int:
    """The century of two digits: never more than 50 years in the future (RFC 9110 5.6.7)."""
    now = time.gmtime()
    year = now.tm_year - now.tm_year % 100 + digits
    is_too_late = (year, *rest) > (now.tm_year + 50, *now[1:6])
    return year - 100 if is_too_late else year


def _days_in(year: int, month: int) -> int:
    after = (year + 1, 1) if month == 12 else (year, month + 1)
    return _days_before(*after) - _days_before(year, month)


def _days_before(year: int, month: int) -> int:
    """Days from 1970-01-01 to the first of the month (the calendar module would load datetime)."""
    # March first, so that the leap day is the last of its year.
    y, m = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 - 719468
