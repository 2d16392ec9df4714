"""From the bytes of a head to a `Head`, or to the reason why not. The policy of RFC 9110/9112.

Both parsers stand below this file and neither knows any of it: which versions, what Host must
be, how long the body is, whether the connection stays. It is decided here, once. Strictness has
one measure: nothing that two programs in a row could understand in two ways is let through
(RFC 9112 section 11.2, request smuggling).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from . import _pyparse
from .errors import HTTPError, ParseError, Reason
from .grammar import HOST
from .message import Fields, Head, index_fields

try:
    from . import _fastparse
except ImportError:
    _fastparse = None  # type: ignore[assignment]

ENGINES = ("cython", "python") if _fastparse else ("python",)

_HOST = re.compile(HOST)
_ABSOLUTE = re.compile(rb"[hH][tT][tT][pP][sS]?://([^/?]*)(/[^?]*)?(?:\?(.*))?", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]+")


class Limits:
    """What a request may measure, in bytes (fields: in lines). max_body 0: no limit."""

    __slots__ = ("body", "fields", "head", "line")

    def __init__(self, line: int, head: int, fields: int, body: int) -> None:
        self.line = line
        self.head = head
        self.fields = fields
        self.body = body


RawParser = Callable[[bytes, int, int, int], "_pyparse.RawHead | None"]
FieldParser = Callable[[bytes, int, int], "_pyparse.RawFields | None"]


class Parser:
    """parse(data) on one engine ("cython" or "python")."""

    def __init__(self, engine: str, limits: Limits) -> None:
        module = _fastparse if engine == "cython" else _pyparse
        self._parse_head: RawParser = module.parse_head
        self.parse_fields: FieldParser = module.parse_fields
        self.limits = limits

    def parse(self, data: bytes) -> tuple[Head, int] | None:
        """A head and the number of its bytes; None: need more; HTTPError: refused."""
        limits = self.limits
        try:
            raw = self._parse_head(data, limits.line, limits.head, limits.fields)
        except ParseError as flaw:
            raise HTTPError(flaw.reason, close=True) from None
        if raw is None:
            return None
        consumed, method, target, major, minor, fields = raw
        if major != 1:
            raise HTTPError(Reason.VERSION_UNKNOWN, close=True)
        return understand(method, target, min(minor, 1), fields, limits.body), consumed


def understand(method: bytes, target: bytes, minor: int, fields: Fields, max_body: int) -> Head:
    """What a well-formed head means. A minor version above 1 is 1 (RFC 9110 2.5)."""
    index = index_fields(fields)
    host = _host(fields, minor)
    path, query, authority = _target(method, target)
    return Head(
        method,
        target,
        minor,
        fields,
        path=path,
        query=query,
        authority=host if authority is None else authority,
        length=_body_length(fields, index, minor, max_body),
        keep_alive=_keep_alive(index, minor),
        expects_continue=_expects_continue(index, minor),
    )


def _refuse(reason: Reason) -> HTTPError:
    """Framing or authority is in doubt: answer and close."""
    return HTTPError(reason, close=True)


def _values(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value for name, value in fields if name == wanted]


def _host(fields: Fields, minor: int) -> bytes | None:
    """RFC 9112 3.2: exactly one well-formed Host in HTTP/1.1; at most one in HTTP/1.0."""
    hosts = _values(fields, b"host")
    if not hosts:
        if minor:
            raise _refuse(Reason.HOST_MISSING)
        return None
    if len(hosts) > 1:
        raise _refuse(Reason.HOST_REPEATED)
    if not is_authority(hosts[0]):
        raise _refuse(Reason.HOST_MALFORMED)
    return hosts[0]


def is_authority(value: bytes) -> bool:
    """uri-host [ ":" port ]; the host may be empty (RFC 9110 7.2), user information may not be."""
    if not _HOST.fullmatch(value):
        return False
    port = value.rpartition(b":")[2] if not value.endswith(b"]") and b":" in value else b""
    return not port or int(port) <= 65535


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes | None, bytes | None]:
    """Path, query, authority (RFC 9112 3.2): origin, absolute, authority and asterisk form."""
    if target[:1] == b"/":
        path, mark, query = target.partition(b"?")
        return path, query if mark else None, None
    if method == b"CONNECT" or (method == b"OPTIONS" and target == b"*"):
        return target, None, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[1] or match[1][:1] == b":" or not is_authority(match[1]):
        raise _refuse(Reason.TARGET_FORM)
    # RFC 9112 3.2.4: OPTIONS of a bare authority asks about the server.
    empty = b"*" if method == b"OPTIONS" and match[3] is None else b"/"
    return match[2] or empty, match[3], match[1]


def _body_length(
    fields: Fields, index: dict[bytes, bytes], minor: int, max_body: int
) -> int | None:
    """RFC 9112 6.3, without its leniencies. None: chunked."""
    coding = index.get(b"transfer-encoding")
    lengths = _values(fields, b"content-length")
    if coding is not None:
        _check_coding(coding, minor, bool(lengths))
        return None
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise _refuse(Reason.LENGTH_REPEATED)
    return _content_length(lengths[0], max_body)


def _content_length(value: bytes, max_body: int) -> int:
    if not _LENGTH.fullmatch(value):
        raise _refuse(Reason.LENGTH_MALFORMED)
    digits = value.lstrip(b"0") or b"0"
    # 19 digits: beyond every file, and short of what int() takes seconds for.
    if len(digits) > 18 or (max_body and int(digits) > max_body):
        raise _refuse(Reason.BODY_TOO_LARGE)
    return int(digits)


def _check_coding(value: bytes, minor: int, has_length: bool) -> None:
    """RFC 9112 6.1: chunked, once, last; nothing else is understood."""
    if not minor:
        raise _refuse(Reason.CODING_IN_HTTP10)
    if has_length:
        raise _refuse(Reason.LENGTH_AND_CODING)
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        raise _refuse(Reason.CODING_MALFORMED)
    if len(codings) > 1:
        raise _refuse(Reason.CODING_UNKNOWN)


def _keep_alive(index: dict[bytes, bytes], minor: int) -> bool:
    """RFC 9112 9.3: the default of HTTP/1.1, a wish in HTTP/1.0."""
    value = index.get(b"connection")
    options = {o.strip(b" \t").lower() for o in value.split(b",")} if value else ()
    if b"close" in options:
        return False
    return bool(minor) or b"keep-alive" in options


def _expects_continue(index: dict[bytes, bytes], minor: int) -> bool:
    """RFC 9110 10.1.1: HTTP/1.0 can't wait for 100, so it never gets one."""
    value = index.get(b"expect")
    if value is None:
        return False
    if value.lower() != b"100-continue":
        raise _refuse(Reason.EXPECTATION_UNKNOWN)
    return bool(minor)
