"""Range requests (RFC 9110 section 14): from the field to slices; no file, no answer.

Bounded, because a request of a few hundred bytes must not make an answer of many times the file
(RFC 9110 17.15): more than MAX_RANGES, or slices that overlap so that they are together larger
than the representation, are answered with the whole of it.
"""

from __future__ import annotations

import re

MAX_RANGES = 32

# RFC 9110 14.1.1, with the empty members that a recipient must put up with (5.6.1.2).
_UNIT = rb"[bB][yY][tT][eE][sS]="
_SPEC = rb"(?:[0-9]+-[0-9]*|-[0-9]+)"
_COMMA = rb"(?:[ \t]*,[ \t,]*)"
_RANGES = re.compile(
    _UNIT + _COMMA + rb"?" + _SPEC + rb"(?:" + _COMMA + _SPEC + rb")*" + _COMMA + rb"?"
)
_ONE = re.compile(rb"([0-9]*)-([0-9]*)")

Slice = tuple[int, int]  # offset, count
Spec = tuple[bytes, bytes]  # first and last position; one of them may be empty


class Unsatisfiable(Exception):
    """Well-formed, and no byte of it exists: 416."""


def slices(value: bytes | None, length: int) -> list[Slice] | None:
    """The slices that are asked for, in the order asked; None: the whole representation.

    None too for another unit, malformed ranges (14.2: ignored) and too many. Raises
    Unsatisfiable.
    """
    if value is None or not _RANGES.fullmatch(value):
        return None
    specs = [(_plain(a), _plain(b)) for a, b in _ONE.findall(value, value.index(b"=") + 1)]
    if len(specs) > MAX_RANGES or any(map(_is_backwards, specs)):
        return None
    if not length and any(not first and last != b"0" for first, last in specs):
        return None  # the last n bytes of nothing: all of it, which Content-Range can't say
    found = [s for s in (_slice(*spec, length) for spec in specs) if s is not None]
    if not found:
        raise Unsatisfiable
    if len(found) > 1 and sum(count for _, count in found) > length:
        return None
    return found


def _plain(digits: bytes) -> bytes:
    """Without leading zeros. What is empty stays so."""
    return digits and (digits.lstrip(b"0") or b"0")


def _number(digits: bytes) -> int:
    """20 digits are beyond every file; int() of thousands would cost time, or refuse."""
    return int(digits) if len(digits) < 20 else 1 << 64


def _is_backwards(spec: Spec) -> bool:
    """Compared as digits: however long they are, this is syntax (14.1.2), not arithmetic."""
    first, last = spec
    return bool(first and last) and (len(last), last) < (len(first), first)


def _slice(first: bytes, last: bytes, length: int) -> Slice | None:
    """None: unsatisfiable."""
    if not first:
        count = min(_number(last), length)
        return (length - count, count) if count else None
    start = _number(first)
    if start >= length:
        return None
    end = min(_number(last), length - 1) if last else length - 1
    return start, end - start + 1


def content_range(piece: Slice, length: int) -> bytes:
    return b"bytes %d-%d/%d" % (piece[0], piece[0] + piece[1] - 1, length)


def unsatisfied_range(length: int) -> bytes:
    return b"bytes */%d" % length
