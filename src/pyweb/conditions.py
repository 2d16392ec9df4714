"""Conditional requests (RFC 9110 section 13): pure functions of fields and validators.

Only for a request that would be answered 200 without its conditions (13.2.1). Not here: which
file, what the validators are made of, how 304 and 412 look.
"""

from __future__ import annotations

import re

from .clock import parse_http_date
from .message import Head

PROCEED, NOT_MODIFIED, FAILED = 200, 304, 412

# RFC 9110 8.8.3: entity-tag = [ weak ] opaque-tag, in a list
_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_COMMA = rb"(?:[ \t]*,[ \t,]*)"
_TAGS = re.compile(_COMMA + rb"?" + _TAG + rb"(?:" + _COMMA + _TAG + rb")*" + _COMMA + rb"?")
_ONE_TAG = re.compile(_TAG)


def evaluate(head: Head, etag: bytes | None, modified: int | None) -> int:
    """PROCEED, NOT_MODIFIED or FAILED, in the order of 13.2.2. `modified`: seconds.

    None: the representation has no such validator. Then no tag matches, "*" does, and dates are
    ignored.
    """
    if_match = head.get(b"if-match")
    if if_match is not None:
        if not matches(if_match, etag, strong=True):
            return FAILED
    elif _changed_since(head, b"if-unmodified-since", modified):
        return FAILED
    if_none_match = head.get(b"if-none-match")
    if if_none_match is not None:
        return NOT_MODIFIED if matches(if_none_match, etag, strong=False) else PROCEED
    changed = _changed_since(head, b"if-modified-since", modified)
    return NOT_MODIFIED if changed is False else PROCEED


def _changed_since(head: Head, name: bytes, modified: int | None) -> bool | None:
    """Is the representation newer than the field's date? None: one of the two is missing, and the
    field is ignored (13.1.3, 13.1.4); so is one that holds no date."""
    value = head.get(name)
    date = None if value is None else parse_http_date(value)
    return None if date is None or modified is None else modified > date


def matches(value: bytes, etag: bytes | None, *, strong: bool) -> bool:
    """Is `etag` in the list? A list that is malformed has no member."""
    if value == b"*":
        return True
    if etag is None or not _TAGS.fullmatch(value):
        return False
    for tag in _ONE_TAG.findall(value):
        if strong:
            if tag == etag and not tag.startswith(b"W/"):
                return True
        elif tag.removeprefix(b"W/") == etag.removeprefix(b"W/"):
            return True
    return False


def range_holds(head: Head, etag: bytes, modified: int, now: int) -> bool:
    """If-Range (13.1.5): is the range still one of the representation that the client has?

    An entity tag must match strongly. A date must be Last-Modified, and that second must be over:
    before, the file could change again and keep its date (8.8.2.2).
    """
    value = head.get(b"if-range")
    if value is None:
        return True
    if value.startswith((b'"', b"W/")):
        return value == etag and not etag.startswith(b"W/")
    return modified < now and parse_http_date(value) == modified
