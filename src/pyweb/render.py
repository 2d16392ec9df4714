"""A Response's header section as bytes: the one place where an answer's fields are put together.

Not here: what an answer says. Each value was made by us or checked when the configuration was
read; a value with a control character in it is a defect and ends in 500, never on the wire.
"""

from __future__ import annotations

import re

from .clock import now_date
from .message import PHRASES, Fields, Response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# 1xx, 204 and 304 have no content, and so no length (RFC 9110 8.6; for 304 it would be the 200's).
_NO_LENGTH = (204, 304)
# A Vary of --header joins ours: without ours a cache would give one coding to all.
_ADDED = {b"vary"}
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {PHRASES[status]}\r\n".encode()


def header_bytes(response: Response, minor: int, keep_alive: bool, extra: Fields) -> bytes:
    """Status line, fields and the empty line. `extra`: --header; it wins over the answer's own."""
    own = {name.lower() for name, _ in extra} - _ADDED
    fields = [(b"Date", now_date()), (b"Server", b"pyweb"), *response.fields]
    fields = [pair for pair in fields if pair[0].lower() not in own]
    if response.status not in _NO_LENGTH:
        fields.append((b"Content-Length", b"%d" % response.length))
    fields.extend(extra)
    fields.extend(_connection(minor, keep_alive))
    section = [b"%s: %s" % pair for pair in fields]
    if any(map(_CONTROL.search, section)):
        raise ValueError("a control character in a field of an answer")
    return status_line(response.status) + b"\r\n".join(section) + b"\r\n\r\n"


def _connection(minor: int, keep_alive: bool) -> Fields:
    """RFC 9112 9.3: said where it isn't the version's default; a closing one always says so."""
    if not keep_alive:
        return ((b"Connection", b"close"),)
    return () if minor else ((b"Connection", b"keep-alive"),)
