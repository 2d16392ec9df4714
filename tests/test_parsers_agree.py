"""The two parsers give one verdict on every input: the same tuple, None, or flaw and offset.

Inputs are the cases, everything near them (hypothesis), and every prefix. The compiled one also
runs with its input ending at a forbidden page: one byte read beyond the end would be a SIGSEGV.
"""

from __future__ import annotations

import ctypes
import mmap

import pytest
from cases import CASES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyweb import _pyparse
from pyweb.errors import ParseError, Reason

_fastparse = pytest.importorskip("pyweb._fastparse", reason="the pure build has one parser")

LIMITS = 8190, 65536, 100
PIECES = [
    b"GET ", b"POST ", b" ", b"/", b"/a?b", b"*", b"http://h/", b"HTTP/1.1", b" HTTP/1.1",
    b"\r\n", b"\n", b"\r", b"Host: h\r\n", b"Host", b":", b"X: ", b"\t", b"\r\n\r\n", b"\0",
    b"\x7f", b"\xff", b"#", b'"', b"Content-Length: 5\r\n", b"HTTP/", b"1", b".", b"2", b"\x80",
    b"(", b"A" * 30,
]  # fmt: skip


def verdict(module: object, data: bytes, limits: tuple[int, int, int] = LIMITS) -> object:
    try:
        return module.parse_head(data, *limits)  # type: ignore[attr-defined]
    except ParseError as flaw:
        return flaw.reason, flaw.offset


def agree(data: bytes, limits: tuple[int, int, int] = LIMITS) -> object:
    fast, reference = verdict(_fastparse, data, limits), verdict(_pyparse, data, limits)
    assert fast == reference
    return fast


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_cases_and_their_prefixes(case: object) -> None:
    """A prefix is never refused when the whole is not, and a flaw is found at its byte."""
    data = case.data[:3000]  # type: ignore[attr-defined]
    last = agree(data)
    for end in range(len(data)):
        early = agree(data[:end])
        if isinstance(last, tuple) and isinstance(last[0], Reason):
            assert early in (None, last)
        elif last is None:
            assert early is None
        else:
            assert early is None or early == last


near = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=14).map(b"".join)
mutated = st.builds(
    lambda case, at, new: case.data[: at % 200] + new + case.data[at % 200 + 1 :],
    st.sampled_from(CASES), st.integers(0, 199), st.binary(max_size=2),
)  # fmt: skip
small = st.tuples(st.integers(0, 40), st.integers(0, 120), st.integers(0, 4))


@settings(max_examples=3000, deadline=None)
@given(near | mutated)
@example(b"GET  \r\n\r\n")
def test_on_anything(data: bytes) -> None:
    agree(data)


@settings(max_examples=3000, deadline=None)
@given(near | mutated, small)
@example(b"\r\n", (5, 1, 1))
@example(b"\r", (0, 0, 0))
def test_with_small_limits(data: bytes, limits: tuple[int, int, int]) -> None:
    agree(data, limits)


@settings(max_examples=1500, deadline=None)
@given(near, st.integers(0, 80), st.integers(0, 3))
def test_trailers(data: bytes, limit_head: int, limit_fields: int) -> None:
    def trailer_verdict(module: object) -> object:
        try:
            return module.parse_fields(data, limit_head, limit_fields)  # type: ignore[attr-defined]
        except ParseError as flaw:
            return flaw.reason, flaw.offset

    assert trailer_verdict(_fastparse) == trailer_verdict(_pyparse)


def test_flaws_have_the_numbers_of_reasons() -> None:
    assert _fastparse.flaws() == {name: Reason[name] for name in _fastparse.flaws()}
    assert {r.name for r in Reason if 20 <= r <= 30} == set(_fastparse.flaws())


def test_each_flaw_occurs() -> None:
    found = [found[0] for found in map(agree, [c.data for c in CASES]) if isinstance(found, tuple)]
    flaws = {reason for reason in found if isinstance(reason, Reason)}
    assert flaws == {r for r in Reason if 20 <= r <= 30}


class Guarded:
    """Two pages, the second of them forbidden; bytes are put right before it."""

    def __init__(self) -> None:
        self._size = 1 << 17
        self._map = mmap.mmap(-1, self._size + mmap.PAGESIZE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        end = ctypes.c_void_p(self._start + self._size)
        assert libc.mprotect(end, mmap.PAGESIZE, 0) == 0

    def put(self, data: bytes) -> int:
        """The address of a copy that ends where reading is death."""
        self._map[self._size - len(data) : self._size] = data
        return self._start + self._size - len(data)


@pytest.fixture(scope="module")
def guarded() -> Guarded:
    return Guarded()


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_never_reads_beyond_the_end(guarded: Guarded, case: object) -> None:
    data = case.data  # type: ignore[attr-defined]
    ends = [*range(min(len(data), 600)), len(data)]
    for end in ends:
        piece = data[:end]
        try:
            found = _fastparse.parse_head_at(guarded.put(piece), len(piece), *LIMITS)
        except ParseError as flaw:
            found = flaw.reason, flaw.offset
        assert found == verdict(_pyparse, piece)


def test_the_forbidden_page_is_forbidden() -> None:
    """The guard itself can fail: a child that reads one byte too far must die of it."""
    import os
    import signal

    guard = Guarded()
    pid = os.fork()
    if pid == 0:
        ctypes.string_at(guard.put(b"x"), 2)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGSEGV


def test_more_fields_than_a_head_has_room_for() -> None:
    """config.MAX_FIELDS is what the struct holds; beyond it the parser refuses, not overflows."""
    from pyweb.config import MAX_FIELDS

    data = b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * MAX_FIELDS + b"\r\n"
    assert len(verdict(_fastparse, data, (8190, 65536, MAX_FIELDS))[5]) == MAX_FIELDS  # type: ignore[index]
    more = b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * (MAX_FIELDS + 1) + b"\r\n"
    flaw = verdict(_fastparse, more, (8190, 65536, MAX_FIELDS * 2))
    assert flaw == (Reason.TOO_MANY_FIELDS, len(more) - 7)


def test_names_that_are_remembered_are_the_right_ones() -> None:
    """More of them than are remembered, in spellings that differ in one letter, again and again."""
    names = [f"{a}{b}-{c}{d}" for a in "Xx" for b in "Yy" for c in "abcdefgh" for d in "zZ90"]
    for _ in range(3):
        for name in [*names, *reversed(names), "a" * 32, "a" * 33, "A" * 33, "a"]:
            head = f"GET / HTTP/1.1\r\n{name}: 1\r\n\r\n".encode()
            [*_, fields] = _fastparse.parse_head(head, 8190, 65536, 100)
            assert fields == ((name.lower().encode(), b"1"),)
