"""Range requests: from the field to slices, by RFC 9110 section 14, and never more than asked."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyweb.ranges import (
    MAX_RANGES,
    Slice,
    Unsatisfiable,
    content_range,
    slices,
    unsatisfied_range,
)

LARGEST = (1 << 63) - 1  # of a file


def text(value: bytes, length: int) -> str | None:
    """The slices as they would be called in Content-Range; "416"."""
    try:
        found = slices(value, length)
    except Unsatisfiable:
        return "416"
    return None if found is None else ",".join(f"{a}-{a + n - 1}" for a, n in found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # 14.1.2, with the RFC's own examples for 10,000 bytes
        (b"bytes=0-499", "0-499"),
        (b"bytes=500-999", "500-999"),
        (b"bytes=-500", "9500-9999"),
        (b"bytes=9500-", "9500-9999"),
        (b"bytes=0-0,-1", "0-0,9999-9999"),
        (b"bytes= 0-0,-1", None),
        (b"bytes=0-999, 4500-5499, -1000", "0-999,4500-5499,9000-9999"),
        (b"bytes=500-600,601-999", "500-600,601-999"),
        (b"bytes=500-700,601-999", "500-700,601-999"),
        # ends beyond the file
        (b"bytes=0-", "0-9999"),
        (b"bytes=0-9999", "0-9999"),
        (b"bytes=0-10000", "0-9999"),
        (b"bytes=9999-9999", "9999-9999"),
        (b"bytes=9999-", "9999-9999"),
        (b"bytes=-9999", "1-9999"),
        (b"bytes=-10000", "0-9999"),
        (b"bytes=-10001", "0-9999"),
        # 14.1: range units are case-insensitive
        (b"BYTES=0-1", "0-1"),
        (b"Bytes=0-1", "0-1"),
        # leading zeros
        (b"bytes=00-0001", "0-1"),
        (b"bytes=-" + b"0" * 5000 + b"1", "9999-9999"),
        # 5.6.1.2: empty members and white space around commas
        (b"bytes=0-1 , \t 3-4", "0-1,3-4"),
        (b"bytes=,,0-1,, ,3-4,", "0-1,3-4"),
        (b"bytes= ,0-1", "0-1"),
        # 15.5.17: nothing of it exists
        (b"bytes=10000-", "416"),
        (b"bytes=10000-10001", "416"),
        (b"bytes=-0", "416"),
        (b"bytes=-00", "416"),
        (b"bytes=10000-,-0", "416"),
        (b"bytes=" + b"9" * 5000 + b"-", "416"),
        # 14.2: one that can be satisfied is enough
        (b"bytes=10000-,0-1", "0-1"),
        (b"bytes=0-1,-0", "0-1"),
    ],
)
def test_ten_thousand_bytes(value: bytes, expected: str | None) -> None:
    assert text(value, 10000) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=0",
        b"bytes=--1",
        b"bytes=1-0",
        b"bytes=0-1,5-4",
        b"bytes=" + b"2" * 30 + b"-" + b"1" * 30,
        b"bytes=" + b"1" * 31 + b"-" + b"2" * 30,
        b"bytes=0-1;2-3",
        b"bytes=0-1 2-3",
        b"bytes=0 -1",
        b"bytes=0- 1",
        b"bytes =0-1",
        b"bytes:0-1",
        b"bytes 0-1/5",
        b"bytes=0x0-0x1",
        b"bytes=+0-1",
        b"bytes=a-b",
        b"bytes=0-1,x",
        b"bytes=0-1-2",
        b"bytes=*",
        b"bytes=0-1\n",
        "bytes=\u0660-\u0661".encode(),
        b"lines=0-1",
        b"bites=0-1",
        b"bytes=0-1, lines=0-1",
        b"0-1",
    ],
)
def test_what_is_ignored(value: bytes | None) -> None:
    """14.2: another unit, or no ranges-specifier: the whole, as if the field were not there."""
    assert slices(value, 10000) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"bytes=0-", "416"),
        (b"bytes=0-0", "416"),
        (b"bytes=-0", "416"),
        # "If the representation is shorter than the suffix-length, all of it is used": nothing,
        # and no Content-Range can say so.
        (b"bytes=-1", None),
        (b"bytes=0-0,-1", None),
        (b"bytes=1-0", None),
    ],
)
def test_an_empty_file(value: bytes, expected: str | None) -> None:
    assert text(value, 0) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"bytes=5368709120-5368709129", "5368709120-5368709129"),
        (b"bytes=-1", f"{LARGEST - 1}-{LARGEST - 1}"),
        (b"bytes=9223372036854775806-", f"{LARGEST - 1}-{LARGEST - 1}"),
        (b"bytes=9223372036854775807-", "416"),
        (b"bytes=1000000000000000000-1000000000000000000", f"{10**18}-{10**18}"),
        # Cut after 19 digits they would be 10**18, a place that this file has.
        (b"bytes=10000000000000000000-", "416"),
        (b"bytes=100000000000000000000000-", "416"),
        (b"bytes=5-100000000000000000000000", f"5-{LARGEST - 1}"),
    ],
)
def test_the_largest_file(value: bytes, expected: str) -> None:
    assert text(value, LARGEST) == expected


# ---- bounds (17.15) ------------------------------------------------------------------------------


def test_a_bounded_number() -> None:
    few = b"bytes=" + b",".join(b"%d-%d" % (i, i) for i in range(MAX_RANGES))
    assert len(slices(few, 10000) or ()) == MAX_RANGES
    assert slices(few + b",9000-9000", 10000) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"bytes=0-,0-", None),
        (b"bytes=0-99,0-0", None),
        (b"bytes=0-98,0-0", "0-98,0-0"),
        (b"bytes=0-49,50-99", "0-49,50-99"),
        (b"bytes=50-99,0-49", "50-99,0-49"),
        (b"bytes=-100,-1", None),
    ],
)
def test_bounded_overlap(value: bytes, expected: str | None) -> None:
    """Together never more than the file; in the order that was asked for (15.3.7.2)."""
    assert text(value, 100) == expected


NUMBER = st.integers(0, 300) | st.integers(0, 1 << 70)
SPEC = st.one_of(
    st.builds("{}-{}".format, NUMBER, NUMBER),
    st.builds("{}-".format, NUMBER),
    st.builds("-{}".format, NUMBER),
)
COMMA = st.sampled_from([",", ", ", " ,", ",,", " , ,\t"])


@given(st.lists(SPEC, min_size=1, max_size=40), COMMA, st.integers(0, 300))
def test_slices_are_inside(specs: list[str], comma: str, length: int) -> None:
    try:
        found = slices(b"bytes=" + comma.join(specs).encode(), length)
    except Unsatisfiable:
        return
    if found is None:
        return
    assert 1 <= len(found) <= MAX_RANGES
    assert sum(count for _, count in found) <= length
    for offset, count in found:
        assert count > 0
        assert 0 <= offset <= offset + count <= length


def by_the_book(specs: list[str], length: int) -> list[Slice] | str | None:
    """14.1.2 for well-formed specs, in the RFC's words."""
    found = []
    for first, last in (spec.split("-") for spec in specs):
        if first and last and int(last) < int(first):
            return None
        if first:
            satisfiable = int(first) < length
            positions = range(int(first), min(int(last) + 1 if last else length, length))
        else:
            satisfiable = int(last) > 0
            positions = range(max(0, length - int(last)), length)
        if satisfiable:
            found.append((positions.start, len(positions)))
    return found or "416"


@given(st.lists(SPEC, min_size=1, max_size=4), st.integers(1, 300))
@example(["200-100"], 300)
@example(["0-0", f"{1 << 70}-{(1 << 70) - 1}"], 300)
def test_as_the_rfc_writes_it(specs: list[str], length: int) -> None:
    expected = by_the_book(specs, length)
    if isinstance(expected, list) and len(expected) > 1 and sum(n for _, n in expected) > length:
        expected = None
    try:
        found: list[Slice] | str | None = slices(b"bytes=" + ",".join(specs).encode(), length)
    except Unsatisfiable:
        found = "416"
    assert found == expected


@given(st.text("bytes=0123456789-, \tx", max_size=30).map(str.encode) | st.binary(max_size=30))
def test_anything_at_all(value: bytes) -> None:
    text(value, 100)


@pytest.mark.parametrize("piece", [b"9", b"0", b",", b" ", b"-", b"1-", b"0-0,", b", ", b"-1,"])
def test_a_long_field_is_no_work(piece: bytes) -> None:
    """Sixty thousand bytes; int() would refuse or take long, a poor expression would never end."""
    filler = piece * (60000 // len(piece))
    for value in (filler, b"0-" + filler, filler + b"-", b"0-0" + filler + b"x", b"-" + filler):
        text(b"bytes=" + value, 10000)


# ---- Content-Range (14.4) ------------------------------------------------------------------------


def test_content_range() -> None:
    assert content_range((0, 500), 1234) == b"bytes 0-499/1234"
    assert content_range((1233, 1), 1234) == b"bytes 1233-1233/1234"
    assert unsatisfied_range(1234) == b"bytes */1234"
