"""Where a request's body ends: bytes in, content out; no socket, no deadline.

A decoder is fed what follows the head and says how much of it was body. It never takes a byte
of the next request, and refuses every chunk that two parsers could measure differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import HTTPError, ParseError, Reason
from .grammar import CHUNK_LINE
from .message import Head
from .parse import FieldParser, Limits

_CHUNK_LINE = re.compile(CHUNK_LINE)
# A chunk's size and extensions; extensions mean nothing to us, so they get little room.
_LINE_LIMIT = 1024
_EXTENSIONS_LIMIT = 16384


class Decoder:
    """`feed(data)` gives (content, rest): the body's bytes in data, and what lies behind them.

    While the body goes on, `rest` is what must come again with more bytes in front of it.
    `done` is true when the body has ended: then `rest` belongs to the next request.
    """

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        raise NotImplementedError


class Sized(Decoder):
    """Content-Length (RFC 9112 6.2)."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        content, rest = data[: self._left], data[self._left :]
        self._left -= len(content)
        self.done = self._left == 0
        return content, rest


class Chunked(Decoder):
    """chunked-body = *chunk last-chunk trailer-section CRLF (RFC 9112 7.1)

    HTTPError: BAD_CHUNK, BODY_TOO_LARGE, or a flaw of the trailers.
    """

    def __init__(self, limits: Limits, parse_fields: FieldParser) -> None:
        self._limits = limits
        self._parse_fields = parse_fields
        self._step: Callable[[bytes, int, list[bytes]], int] = self._size_line
        self._left = 0
        self._total = 0
        self._extensions = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        content: list[bytes] = []
        pos, more = 0, True
        while more and not self.done:
            before = pos, self._step
            pos = self._step(data, pos, content)
            more = (pos, self._step) != before
        return b"".join(content), data[pos:]

    # Each step takes what it can from data[pos:] and gives where it stopped. Nothing is cut off
    # in between: a flood of one-byte chunks would copy what follows for each of them.

    def _size_line(self, data: bytes, pos: int, _content: list[bytes]) -> int:
        end = data.find(b"\r\n", pos, pos + _LINE_LIMIT)
        if end < 0:
            self._refuse_early(data[pos : pos + _LINE_LIMIT])
            return pos
        match = _CHUNK_LINE.fullmatch(data, pos, end)
        if match is None:
            raise _bad()
        self._extensions += end - pos - len(match[1])
        self._left = int(match[1], 16)
        self._total += self._left
        if self._extensions > _EXTENSIONS_LIMIT:
            raise _bad()
        if self._limits.body and self._total > self._limits.body:
            raise HTTPError(Reason.BODY_TOO_LARGE, close=True)
        self._step = self._data if self._left else self._trailers
        return end + 2

    def _refuse_early(self, data: bytes) -> None:
        """A size line that has not ended, but can't be right whatever follows."""
        if len(data) >= _LINE_LIMIT or b"\n" in data or b"\r" in data[:-1]:
            raise _bad()
        if data and data[:1] not in b"0123456789abcdefABCDEF":
            raise _bad()

    def _data(self, data: bytes, pos: int, content: list[bytes]) -> int:
        piece = data[pos : pos + self._left]
        content.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._step = self._data_end
        return pos + len(piece)

    def _data_end(self, data: bytes, pos: int, _content: list[bytes]) -> int:
        end = data[pos : pos + 2]
        if not b"\r\n".startswith(end):
            raise _bad()
        if len(end) < 2:
            return pos
        self._step = self._size_line
        return pos + 2

    def _trailers(self, data: bytes, pos: int, _content: list[bytes]) -> int:
        """Checked and dropped: no trailer may become a field (RFC 9110 6.5.1)."""
        try:
            raw = self._parse_fields(data[pos:], self._limits.head, self._limits.fields)
        except ParseError as flaw:
            raise HTTPError(flaw.reason, close=True) from None
        if raw is None:
            return pos
        self.done = True
        return pos + raw[0]


def _bad() -> HTTPError:
    return HTTPError(Reason.BAD_CHUNK, close=True)


def decoder(head: Head, limits: Limits, parse_fields: FieldParser) -> Decoder:
    """The one that the head's framing asks for."""
    if head.length is None:
        return Chunked(limits, parse_fields)
    return Sized(head.length)
