"""One event, one line, one write. Nothing that a client sends can look like anything else.

Two formats: combined, as Apache writes it, and JSON by an encoder. The last field is the number
of the Reason. Not here: where lines go and what is lost on the way (journal.py).
"""

from __future__ import annotations

import os
import re
import time

from .clock import MONTHS
from .errors import Reason
from .journal import PIPE_BUF, Sink
from .message import Head

# What can't stand in a quoted field: the quote, the backslash, controls, and all beyond ASCII.
_UNSAFE = re.compile(rb'[^\x20-\x7e]|["\\]')
# A line for a pipe must fit into PIPE_BUF; clipped so, four fields and the rest do.
_CLIP = 200
# No line grows without bound either: each octet may take four when it is escaped.
_LONGEST = 8192


class Entry:
    """What is told of one answer, or of a request that got none (status 0).

    line      of a request that could not be parsed: its first bytes; else empty
    size      bytes of content that the socket took
    seconds   from the head's first byte to the answer's last
    """

    __slots__ = ("head", "line", "peer", "reason", "seconds", "size", "status")

    def __init__(
        self,
        peer: str,
        head: Head | None,
        line: bytes,
        status: int,
        size: int,
        seconds: float,
        reason: Reason,
    ) -> None:
        self.peer = peer
        self.head = head
        self.line = line
        self.status = status
        self.size = size
        self.seconds = seconds
        self.reason = reason

    def field(self, name: bytes) -> bytes | None:
        return self.head.get(name) if self.head else None


class AccessLog:
    """Writes entries; None of a sink: writes nothing."""

    def __init__(self, sink: Sink | None, log_format: str) -> None:
        self._sink = sink
        self._format = json_line if log_format == "json" else combined_line
        if sink is not None and log_format == "json":
            import json  # noqa: F401  loaded before the fork, not in each child

    def write(self, entry: Entry) -> bool:
        """False: the line is lost."""
        if self._sink is None:
            return True
        line = self._format(entry, _LONGEST)
        if self._sink.is_pipe and len(line) > PIPE_BUF:
            line = self._format(entry, _CLIP)
        return self._sink.write(line)

    @property
    def sink(self) -> Sink | None:
        return self._sink


def _clip(value: bytes, limit: int) -> bytes:
    return value[:limit] + b"..." if len(value) > limit else value


def _quote(value: bytes | None, limit: int) -> bytes:
    if not value:
        return b'"-"'
    return b'"' + escaped(_clip(value, limit)) + b'"'


def escaped(value: bytes) -> bytes:
    """As it may stand in a quoted field. Octet by octet: none depends on another."""
    return _UNSAFE.sub(_escape, value)


def _escape(match: re.Match[bytes]) -> bytes:
    octet = match[0]
    return b"\\" + octet if octet in b'"\\' else b"\\x%02x" % octet[0]


def _request_line(entry: Entry) -> bytes:
    head = entry.head
    if head is None:
        return entry.line
    return b"%s %s HTTP/1.%d" % (head.method, head.target, head.minor)


_second: tuple[int, bytes] = (-1, b"")


def _clf_time(now: float) -> bytes:
    """[24/Nov/2026:09:55:41 +0000], rendered once a second."""
    global _second  # noqa: PLW0603  a cache of one; each process has its own
    if _second[0] != int(now):
        t = time.localtime(now)
        sign, offset = "-" if t.tm_gmtoff < 0 else "+", abs(t.tm_gmtoff) // 60
        text = (
            f"[{t.tm_mday:02d}/{MONTHS[t.tm_mon - 1]}/{t.tm_year}:{t.tm_hour:02d}:{t.tm_min:02d}"
            f":{t.tm_sec:02d} {sign}{offset // 60:02d}{offset % 60:02d}]"
        )
        _second = (int(now), text.encode())
    return _second[1]


def combined_line(entry: Entry, limit: int) -> bytes:
    """host ident user [time] "request" status bytes "referer" "user-agent" reason"""
    return b"%s - - %s %s %03d %d %s %s %d\n" % (
        entry.peer.encode(),
        _clf_time(time.time()),
        _quote(_request_line(entry), limit),
        entry.status,
        entry.size,
        _quote(entry.field(b"referer"), limit),
        _quote(entry.field(b"user-agent"), limit),
        entry.reason,
    )


def json_line(entry: Entry, limit: int) -> bytes:
    import json

    def text(value: bytes | None) -> str | None:
        return None if value is None else _clip(value, limit).decode("utf-8", "backslashreplace")

    now = time.time()
    head = entry.head
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    event = {
        "time": f"{stamp}.{int(now * 1000) % 1000:03d}Z",
        "peer": entry.peer,
        "method": text(head.method) if head else None,
        "target": text(head.target if head else entry.line),
        "version": f"HTTP/1.{head.minor}" if head else None,
        "status": entry.status,
        "bytes": entry.size,
        "seconds": round(entry.seconds, 6),
        "pid": os.getpid(),
        "user_agent": text(entry.field(b"user-agent")),
        "referer": text(entry.field(b"referer")),
        "reason": int(entry.reason),
    }
    return json.dumps(event).encode() + b"\n"
