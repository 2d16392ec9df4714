"""A request head by the RFC's grammar: the reference, the oracle and the fallback.

The same two functions stand in `_fastparse.pyx` as a byte loop; both give the same verdict on
every input, whole or cut anywhere:
- a tuple: parsed, and how many bytes;
- None: right so far, need more;
- ParseError(code, offset): the byte at `offset` can't be right, whatever follows.
Syntax only. What a head *means* (framing, Host, versions) is decided in parse.py, once.
"""

from __future__ import annotations

import re

from .errors import ParseError, Reason
from .grammar import FIELD, TARGET, TCHAR

RawHead = tuple[int, bytes, bytes, int, int, tuple[tuple[bytes, bytes], ...]]
RawFields = tuple[int, tuple[tuple[bytes, bytes], ...]]


def _any_of(octets: bytes) -> re.Pattern[bytes]:
    return re.compile(b"[" + b"".join(b"\\x%02x" % c for c in octets) + b"]*")


_TOKEN, _TARGET, _FIELD, _OWS = _any_of(TCHAR), _any_of(TARGET), _any_of(FIELD), _any_of(b" \t")
_CR, _LF, _SP, _COLON = 13, 10, 32, 58
# HTTP-version = "HTTP" "/" DIGIT "." DIGIT ; None stands for a digit
_VERSION = (72, 84, 84, 80, 47, None, 46, None)


class _NeedMore(Exception):
    """The bytes end where the grammar goes on."""


def parse_head(data: bytes, limit_line: int, limit_head: int, limit_fields: int) -> RawHead | None:
    """[CRLF] request-line *( field-line CRLF ) CRLF  (RFC 9112 2.1, 2.2)

    limit_line: bytes of the request line without CRLF; limit_head: bytes of the whole head;
    limit_fields: field lines. Gives (bytes consumed, method, target, major, minor, fields), the
    field names in lower case.
    """
    window = data[:limit_head]
    try:
        start = _line_end(window, 0) if window[:1] in (b"\r", b"\n") else 0
        pos, method, target, major, minor = _request_line(window, start, limit_line)
        end, fields = _fields(window, pos, limit_fields)
    except _NeedMore:
        _refuse_too_large(data, limit_head)
        return None
    return end, method, target, major, minor, fields


def parse_fields(data: bytes, limit_head: int, limit_fields: int) -> RawFields | None:
    """*( field-line CRLF ) CRLF: a trailer section (RFC 9112 7.1.2)."""
    try:
        return _fields(data[:limit_head], 0, limit_fields)
    except _NeedMore:
        _refuse_too_large(data, limit_head)
        return None


def _refuse_too_large(data: bytes, limit_head: int) -> None:
    if len(data) > limit_head:
        raise ParseError(Reason.HEAD_TOO_LARGE, limit_head)


def _request_line(data: bytes, start: int, limit: int) -> tuple[int, bytes, bytes, int, int]:
    """request-line = method SP request-target SP HTTP-version CRLF  (RFC 9112 3)"""
    stop = start + limit + 2
    window = data[:stop]
    try:
        pos = _some(window, start, _TOKEN, Reason.BAD_METHOD)
        method = window[start:pos]
        start = _one(window, pos, _SP, Reason.BAD_METHOD)
        pos = _some(window, start, _TARGET, Reason.BAD_TARGET)
        target = window[start:pos]
        pos = _one(window, pos, _SP, Reason.BAD_TARGET)
        for expected in _VERSION:
            pos = _one(window, pos, expected, Reason.BAD_VERSION)
        version = window[pos - 3], window[pos - 1]
        return _line_end(window, pos, Reason.BAD_VERSION), method, target, *_numbers(version)
    except _NeedMore:
        if len(data) > stop:
            raise ParseError(Reason.LINE_TOO_LONG, stop) from None
        raise


def _numbers(version: tuple[int, int]) -> tuple[int, int]:
    return version[0] - 48, version[1] - 48


def _fields(data: bytes, pos: int, limit: int) -> RawFields:
    """field-line = field-name ":" OWS field-value OWS  (RFC 9112 5)"""
    fields: list[tuple[bytes, bytes]] = []
    while True:
        first = _at(data, pos)
        if first in (_CR, _LF):
            return _line_end(data, pos), tuple(fields)
        if first in b" \t":
            raise ParseError(Reason.OBS_FOLD, pos)
        if len(fields) == limit:
            raise ParseError(Reason.TOO_MANY_FIELDS, pos)
        colon = _some(data, pos, _TOKEN, Reason.BAD_FIELD_NAME)
        name = data[pos:colon].lower()
        start = _skip(data, _one(data, colon, _COLON, Reason.BAD_FIELD_NAME), _OWS)
        end = _skip(data, start, _FIELD)
        pos = _line_end(data, end, Reason.BAD_FIELD_VALUE)
        fields.append((name, data[start:end].rstrip(b" \t")))


def _at(data: bytes, pos: int) -> int:
    if pos >= len(data):
        raise _NeedMore
    return data[pos]


def _skip(data: bytes, pos: int, pattern: re.Pattern[bytes]) -> int:
    """The end of the longest match, which may be empty."""
    match = pattern.match(data, pos)
    assert match is not None  # each of the patterns matches the empty string
    return match.end()


def _some(data: bytes, pos: int, pattern: re.Pattern[bytes], flaw: Reason) -> int:
    end = _skip(data, pos, pattern)
    if end == pos:
        _at(data, pos)
        raise ParseError(flaw, pos)
    return end


def _one(data: bytes, pos: int, expected: int | None, flaw: Reason) -> int:
    """Past one octet; None stands for a digit."""
    octet = _at(data, pos)
    if octet != expected and not (expected is None and 48 <= octet <= 57):
        raise ParseError(flaw, pos)
    return pos + 1


def _line_end(data: bytes, pos: int, flaw: Reason = Reason.BARE_LF) -> int:
    """Past CRLF. A bare CR or LF is never a line's end (RFC 9112 2.2 allows to refuse it)."""
    octet = _at(data, pos)
    if octet == _LF:
        raise ParseError(Reason.BARE_LF, pos)
    if octet != _CR:
        raise ParseError(flaw, pos)
    if _at(data, pos + 1) != _LF:
        raise ParseError(Reason.BARE_CR, pos)
    return pos + 2
