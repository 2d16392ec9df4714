"""How figures are written on the page: the one place where numbers become text, for people and to
be copied.

An estimate comes as JSON has it: [value, low, high]; null, and there is no figure. Not here: what
it means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .statistics import Estimate, estimate

# An estimate of JSON.
Listed = Sequence[float | None] | None
NONE = "–"


@dataclass(frozen=True)
class Cell:
    """`text`: as it is read. `copied`: as it is copied, one or three columns (value, low, high)."""

    text: str
    interval: str = ""
    copied: tuple[str, ...] = ()
    is_number: bool = False
    is_bad: bool = False


def number(value: float) -> str:
    """Three digits that matter, or all before the point."""
    return f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    size = abs(value)
    if size == 0 or size >= 100:
        return 0
    return max(0, 2 - math.floor(math.log10(size))) if size >= 0.001 else 5


def percent(share: float) -> str:
    return f"{share * 100:.{0 if abs(share) >= 0.1 else 1}f} %"


def interval(found: Estimate) -> str:
    """[?]: of so few blocks there is none."""
    if not found.is_bounded:
        return "[?]"
    # A value near 0 has digits that its wide interval has not.
    digits = min(_digits(found.value), _digits(found.high - found.low))
    return f"[{found.low:,.{digits}f}, {found.high:,.{digits}f}]"


def words(found: Estimate | None, unit: str = "") -> str:
    """In a sentence."""
    if found is None:
        return "not known"
    return " ".join(filter(None, (number(found.value), unit, interval(found))))


def text(value: object, *, bad: bool = False) -> Cell:
    shown = NONE if value in (None, "") else str(value)
    return Cell(shown, copied=("" if shown == NONE else shown,), is_bad=bad)


def plain(value: float | None) -> Cell:
    """A number without interval; what was counted has no fractions."""
    if value is None:
        return Cell(NONE, copied=("",), is_number=True)
    shown = f"{value:,}" if isinstance(value, int) else number(value)
    return Cell(shown, copied=(_copied(value),), is_number=True)


def share(value: float | None) -> Cell:
    if value is None:
        return Cell(NONE, copied=("",), is_number=True)
    return Cell(percent(value), copied=(_copied(value),), is_number=True)


def figure(listed: Listed, by: float = 1.0) -> Cell:
    """An estimate, times `by`."""
    found = estimate(listed)
    if found is None:
        return Cell(NONE, copied=("", "", ""), is_number=True)
    found = found.scaled(by)
    ends = (_copied(end) if math.isfinite(end) else "" for end in (found.low, found.high))
    return Cell(number(found.value), interval(found), (_copied(found.value), *ends), True)


def _copied(value: float) -> str:
    return f"{value:.7g}"
