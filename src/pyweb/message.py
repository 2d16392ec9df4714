"""The vocabulary of a conversation: what was asked, what is answered.

Values only: made once, read by all, changed by nobody. Plain classes with slots, because the
master carries what this file imports into every fork (dataclasses would bring `inspect`).
"""

from __future__ import annotations

from .errors import Reason

Fields = tuple[tuple[bytes, bytes], ...]

PHRASES = {
    100: "Continue", 200: "OK", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 304: "Not Modified",
    400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    406: "Not Acceptable", 408: "Request Timeout", 412: "Precondition Failed",
    413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable",
    417: "Expectation Failed", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip


class Head:
    """A request whose head has been accepted.

    target     as it was sent; path and query are cut from it, still percent-encoded
    query      without its "?"; None where there is none
    authority  host and port: of an absolute-form target, else of Host; None in HTTP/1.0 without
    fields     in order, names in lower case
    length     of the body in bytes; None: chunked
    """

    __slots__ = (
        "_index", "authority", "expects_continue", "fields", "keep_alive", "length", "method",
        "minor", "path", "query", "target",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        target: bytes,
        minor: int,
        fields: Fields,
        *,
        path: bytes,
        query: bytes | None = None,
        authority: bytes | None = None,
        length: int | None = 0,
        keep_alive: bool = False,
        expects_continue: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self.path = path
        self.query = query
        self.authority = authority
        self.length = length
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self._index = index_fields(fields)

    def get(self, name: bytes) -> bytes | None:
        """The field's value; several lines of one name joined by a comma (RFC 9110 5.3)."""
        return self._index.get(name)


def index_fields(fields: Fields) -> dict[bytes, bytes]:
    index: dict[bytes, bytes] = {}
    for name, value in fields:
        index[name] = index[name] + b", " + value if name in index else value
    return index


class FileBody:
    """`count` bytes of an open file from `offset` on."""

    __slots__ = ("count", "fd", "offset")

    def __init__(self, fd: int, offset: int, count: int) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count

    def __len__(self) -> int:
        return self.count


Part = bytes | FileBody


class Response:
    """An answer: status, fields, and the parts of its content in order.

    fields    without those that the connection adds (Date, Content-Length, Connection, Server)
    files     descriptors that whoever sends the answer closes after it
    reason    why it is what it is; the log's last field
    close     nothing may follow on this connection
    """

    __slots__ = ("close", "fields", "files", "parts", "reason", "status")

    def __init__(
        self,
        status: int,
        fields: Fields = (),
        parts: tuple[Part, ...] = (),
        *,
        files: tuple[int, ...] = (),
        reason: Reason = Reason.DONE,
        close: bool = False,
    ) -> None:
        self.status = status
        self.fields = fields
        self.parts = parts
        self.files = files
        self.reason = reason
        self.close = close

    @property
    def length(self) -> int:
        """Bytes of content."""
        return sum(map(len, self.parts))
