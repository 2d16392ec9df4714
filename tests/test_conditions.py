"""Conditional requests: who is told 304, 412 or the whole, by RFC 9110 section 13."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyweb.clock import http_date
from pyweb.conditions import FAILED, NOT_MODIFIED, PROCEED, evaluate, matches, range_holds
from pyweb.message import Head

ETAG = b'"17f-2a"'
MODIFIED = 1_700_000_000
SAME = http_date(MODIFIED)
OLDER, NEWER = http_date(MODIFIED - 1), http_date(MODIFIED + 1)
LATER = MODIFIED + 3600


def head(*fields: tuple[str, bytes], method: bytes = b"GET") -> Head:
    raw = tuple((name.encode(), value) for name, value in fields)
    return Head(method, b"/", 1, raw, path=b"/")


def verdict(*fields: tuple[str, bytes]) -> int:
    return evaluate(head(*fields), ETAG, MODIFIED)


# ---- lists of entity tags (8.8.3, 13.1.1, 13.1.2) ------------------------------------------------

TAGS = [
    # value, matches strongly, matches weakly
    (b"*", True, True),
    (ETAG, True, True),
    (b"W/" + ETAG, False, True),
    (b'"other"', False, False),
    (b'"a", ' + ETAG, True, True),
    (ETAG + b',"a"', True, True),
    (b'"a" \t, \t' + ETAG + b" , W/" + ETAG, True, True),
    (b'W/"a", W/' + ETAG, False, True),
    # Empty members (5.6.1.2).
    (b", ," + ETAG + b", ,", True, True),
    (b",,,", False, False),
    # A comma and what looks like another tag are text within the quotes.
    (b'"a,' + ETAG.strip(b'"') + b'"', False, False),
    (b'"a, ' + ETAG + b"b", False, False),
    (b'"\xe9", ' + ETAG, True, True),
    # Malformed: no member at all, though one of them reads well.
    (b"", False, False),
    (ETAG.strip(b'"'), False, False),
    (b"w/" + ETAG, False, False),
    (b"W/ " + ETAG, False, False),
    (ETAG + b" x", False, False),
    (ETAG + b' "a"', False, False),
    (ETAG + b"; x", False, False),
    (ETAG + b', "a', False, False),
    (b"*, " + ETAG, False, False),
    (ETAG + b", *", False, False),
    (b'"a b", ' + ETAG, False, False),
    (b"'17f-2a'", False, False),
]


@pytest.mark.parametrize(("value", "strongly", "weakly"), TAGS)
def test_a_list_of_tags(value: bytes, strongly: bool, weakly: bool) -> None:
    assert matches(value, ETAG, strong=True) is strongly
    assert matches(value, ETAG, strong=False) is weakly


def test_a_weak_tag_of_ours_never_matches_strongly() -> None:
    assert not matches(b"W/" + ETAG, b"W/" + ETAG, strong=True)
    assert matches(ETAG, b"W/" + ETAG, strong=False)


_CHAR = st.integers(0x21, 0xFF).filter(lambda c: c not in (0x22, 0x7F))
_TAG = st.tuples(st.sampled_from([b"", b"W/"]), st.lists(_CHAR).map(bytes)).map(
    lambda tag: tag[0] + b'"' + tag[1] + b'"'
)


@given(st.lists(_TAG, min_size=1), st.sampled_from([b",", b", ", b" ,, \t"]))
def test_each_member_is_found(tags: list[bytes], comma: bytes) -> None:
    value = comma.join(tags)
    for tag in tags:
        assert matches(value, tag, strong=False)
        assert matches(value, tag, strong=True) is not tag.startswith(b"W/")


@given(st.lists(_TAG, min_size=1))
def test_a_flaw_anywhere_spoils_the_list(tags: list[bytes]) -> None:
    assert not matches(b", ".join([*tags, b"flaw"]), tags[0], strong=False)
    assert not matches(b", ".join([b'"', *tags]), tags[0], strong=False)


@pytest.mark.parametrize("value", [b",", b" ", b'"a",', b'"a"', b'"', b"W/", b"\t,", b'"a" , ,'])
def test_a_long_list_is_no_work(value: bytes) -> None:
    """Sixty thousand bytes that almost match; an expression that backtracks would never end."""
    for tail in (b"", b"x", b'"', b'"a" x'):
        matches(value * (60000 // len(value)) + tail, ETAG, strong=True)


# ---- precedence (13.2.2) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # 13.1.1 If-Match
        ([("if-match", ETAG)], PROCEED),
        ([("if-match", b"*")], PROCEED),
        ([("if-match", b'"no"')], FAILED),
        ([("if-match", b"W/" + ETAG)], FAILED),
        ([("if-match", b"flaw")], FAILED),
        ([("if-match", b'"no"'), ("if-match", ETAG)], PROCEED),
        # 13.1.2 If-None-Match
        ([("if-none-match", ETAG)], NOT_MODIFIED),
        ([("if-none-match", b"W/" + ETAG)], NOT_MODIFIED),
        ([("if-none-match", b"*")], NOT_MODIFIED),
        ([("if-none-match", b'"no"')], PROCEED),
        ([("if-none-match", b"flaw")], PROCEED),
        ([("if-none-match", b'"no"'), ("if-none-match", ETAG)], NOT_MODIFIED),
        # 13.1.3 If-Modified-Since
        ([("if-modified-since", SAME)], NOT_MODIFIED),
        ([("if-modified-since", NEWER)], NOT_MODIFIED),
        ([("if-modified-since", OLDER)], PROCEED),
        ([("if-modified-since", b"yesterday")], PROCEED),
        ([("if-modified-since", b"")], PROCEED),
        ([("if-modified-since", SAME), ("if-modified-since", SAME)], PROCEED),
        # 13.1.4 If-Unmodified-Since
        ([("if-unmodified-since", SAME)], PROCEED),
        ([("if-unmodified-since", NEWER)], PROCEED),
        ([("if-unmodified-since", OLDER)], FAILED),
        ([("if-unmodified-since", b"yesterday")], PROCEED),
        # Step 1 before 2: If-Match decides, the date is not read.
        ([("if-match", ETAG), ("if-unmodified-since", OLDER)], PROCEED),
        ([("if-match", b'"no"'), ("if-unmodified-since", NEWER)], FAILED),
        # Step 3 before 4: the same with If-None-Match.
        ([("if-none-match", b'"no"'), ("if-modified-since", NEWER)], PROCEED),
        ([("if-none-match", ETAG), ("if-modified-since", OLDER)], NOT_MODIFIED),
        # 1 and 2 before 3 and 4.
        ([("if-match", b'"no"'), ("if-none-match", ETAG)], FAILED),
        ([("if-match", ETAG), ("if-none-match", ETAG)], NOT_MODIFIED),
        ([("if-unmodified-since", OLDER), ("if-none-match", ETAG)], FAILED),
        ([("if-unmodified-since", OLDER), ("if-modified-since", NEWER)], FAILED),
        ([("if-unmodified-since", SAME), ("if-modified-since", SAME)], NOT_MODIFIED),
        ([], PROCEED),
    ],
)
def test_precedence(fields: list[tuple[str, bytes]], expected: int) -> None:
    assert verdict(*fields) == expected


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("if-match", b"*", PROCEED),
        ("if-match", ETAG, FAILED),
        ("if-none-match", b"*", NOT_MODIFIED),
        ("if-none-match", ETAG, PROCEED),
        ("if-modified-since", NEWER, PROCEED),
        ("if-unmodified-since", OLDER, PROCEED),
    ],
)
def test_without_validators(field: str, value: bytes, expected: int) -> None:
    """A listing has none: "*" means it, no tag does, and dates are ignored (13.1.3, 13.1.4)."""
    assert evaluate(head((field, value)), None, None) == expected


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]),
        st.sampled_from([b"*", ETAG, b"W/" + ETAG, b'"no"', b"flaw", OLDER, SAME, NEWER]),
    ),
    unique_by=lambda field: field[0],
)


@given(FIELDS)
def test_as_the_rfc_writes_it(fields: list[tuple[str, bytes]]) -> None:
    """13.2.2 once more, step by step, with nothing shared but what one tag is."""
    given_fields = dict(fields)
    dates = {OLDER: MODIFIED - 1, SAME: MODIFIED, NEWER: MODIFIED + 1}

    def step_1_or_2_fails() -> bool:
        if "if-match" in given_fields:
            return given_fields["if-match"] not in (b"*", ETAG)
        date = dates.get(given_fields.get("if-unmodified-since", b""))
        return date is not None and date < MODIFIED

    def step_3_or_4_fails() -> bool:
        if "if-none-match" in given_fields:
            return given_fields["if-none-match"] in (b"*", ETAG, b"W/" + ETAG)
        date = dates.get(given_fields.get("if-modified-since", b""))
        return date is not None and date >= MODIFIED

    expected = FAILED if step_1_or_2_fails() else NOT_MODIFIED if step_3_or_4_fails() else PROCEED
    assert verdict(*fields) == expected


# ---- If-Range (13.1.5) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (None, True),
        (ETAG, True),
        (b'"no"', False),
        (b"W/" + ETAG, False),  # a weak one must not be used, and never matches
        (b"*", False),
        (ETAG + b', "a"', False),  # one tag, not a list
        (SAME, True),
        (OLDER, False),
        (NEWER, False),  # not "unless modified since": the very date
        (SAME.replace(b"GMT", b"UTC"), False),
        (b"", False),
        (b"flaw", False),
    ],
)
def test_if_range(value: bytes | None, holds: bool) -> None:
    fields = [] if value is None else [("if-range", value)]
    assert range_holds(head(*fields), ETAG, MODIFIED, LATER) is holds


def test_if_range_in_another_form_of_the_date() -> None:
    asctime = time.asctime(time.gmtime(MODIFIED)).encode()
    assert range_holds(head(("if-range", asctime)), ETAG, MODIFIED, LATER)


def test_a_date_is_weak_while_its_second_runs() -> None:
    """8.8.2.2: the file may change again before the second is over, and keep its date."""
    request = head(("if-range", SAME))
    assert not range_holds(request, ETAG, MODIFIED, MODIFIED)
    assert range_holds(request, ETAG, MODIFIED, MODIFIED + 1)
    assert range_holds(head(("if-range", ETAG)), ETAG, MODIFIED, MODIFIED)


def test_a_weak_tag_of_ours_holds_no_range() -> None:
    weak = b"W/" + ETAG
    assert not range_holds(head(("if-range", weak)), weak, MODIFIED, LATER)
