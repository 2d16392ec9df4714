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
_TAGS = re.compile(rb"[ \t,]*" + _TAG + rb"(?:[ \t]*,[ \t,]*" + _TAG + rb")*[ \t,]*")
_ONE_TAG = re.compile(_TAG)


def evaluate(head: Head, etag: bytes, modified: int) -> int:
    """PROCEED, NOT_MODIFIED or FAILED, in the order of 13.2.2. `modified`: seconds."""
    if_match = head.get(b"if-match")
    if if_match is not None:
        if not matches(if_match, etag, strong=True):
            return FAILED
    elif _before(head.get(b"if-unmodified-since"), modified):
        return FAILED
    if_none_match = head.get(b"if-none-match")
    if if_none_match is not None:
        return NOT_MODIFIED if matches(if_none_match, etag, strong=False) else PROCEED
    since = head.get(b"if-modified-since")
    date = parse_http_date(since) if since is not None else None
    return NOT_MODIFIED if date is not None and modified <= date else PROCEED


def _before(value: bytes | None, modified: int) -> bool:
    """The representation is newer than the date; what is no date is ignored (13.1.4)."""
    date = parse_http_date(value) if value is not None else None
    return date is not None and modified > date


def matches(value: bytes, etag: bytes, *, strong: bool) -> bool:
    """Is `etag` in the list? A list that is malformed has no member."""
    if value == b"*":
        return True
    if not _TAGS.fullmatch(value):
        return False
    for tag in _ONE_TAG.findall(value):
        if strong:
            if tag == etag and not tag.startswith(b"W/"):
                return True
        elif tag.removeprefix(b"W/") == etag.removeprefix(b"W/"):
            return True
    return False


def range_holds(head: Head, etag: bytes, modified: int) -> bool:
    """If-Range (13.1.5): is the range still one of the representation that the client has?

    A date must be Last-Modified to the second; an entity tag must match strongly.
    """
    value = head.get(b"if-range")
    if value is None:
        return True
    if value.startswith((b'"', b"W/")):
        return value == etag and not etag.startswith(b"W/")
    return parse_http_date(value) == modified
