"""The conversation on one connected socket: receive, parse, route, send, log, until it ends.

One loop, the same in every mode. It raises nothing: whatever happens becomes an answer, a log
line and a reason. Not here: processes, and what an answer says.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable

from . import body, render, scoreboard
from .accesslog import AccessLog, Entry
from .clock import Deadline
from .config import Config
from .errors import BY_NUMBER, Disconnected, HTTPError, Reason
from .journal import Journal
from .message import Fields, Head, Response
from .parse import Limits, Parser
from .route import refusal
from .transport import Drained, TimedOut, Transport

Answer = Callable[[Head], Response]

# A body that nobody reads is read away up to here; a longer one costs the connection.
DRAIN_BYTES = 65536
# Of a request that could not be parsed, the log gets so much.
_LOGGED_LINE = 512


class Service:
    """What all connections share: made once, before the first fork."""

    def __init__(self, config: Config, answer: Answer, log: AccessLog, journal: Journal) -> None:
        self.config = config
        self.answer = answer
        self.log = log
        self.journal = journal
        limits = Limits(config.limit_line, config.limit_head, config.limit_fields, config.max_body)
        self.parser = Parser(config.engine, limits)
        self.extra: Fields = config.header


class Connection:
    """serve() the requests of one connection. `slot` is where it is counted."""

    def __init__(
        self, service: Service, transport: Transport, peer: str, slot: scoreboard.Slot
    ) -> None:
        self._service = service
        self._config = service.config
        self._transport = transport
        self._peer = peer
        self._slot = slot
        self._buffer = b""
        self._requests = 0
        self._began = time.monotonic()

    def serve(self) -> Reason:
        """Until the connection ends; why it did. The socket is closed."""
        try:
            while self._exchange():
                pass
            reason = BY_NUMBER[self._slot.get(scoreboard.REASON)]
        except Disconnected as end:
            reason = end.reason
        self._slot.set(scoreboard.REASON, reason)
        self._transport.close()
        return reason

    # One exchange: a request and its answer. True: another may follow.

    def _exchange(self) -> bool:
        try:
            head = self._receive_head()
        except HTTPError as error:
            return self._refuse(error)
        if head is None:
            return False
        self._requests += 1
        self._slot.set(scoreboard.STATE, scoreboard.ANSWERING)
        try:
            whole = self._drain(head)
        except HTTPError as error:
            return self._respond(refusal(error), head, False)
        except (Disconnected, TimedOut):
            self._log(head, 0, 0, Reason.CLIENT_LEFT)
            return False
        return self._respond(self._answer(head), head, whole)

    def _answer(self, head: Head) -> Response:
        try:
            return self._service.answer(head)
        except Exception:
            return self._defect()

    def _defect(self) -> Response:
        """In an `except`: the traceback is for stderr, the client gets a bare 500."""
        for line in traceback.format_exc().splitlines():
            self._service.journal.say(line)
        return refusal(HTTPError(Reason.INTERNAL, close=True))

    # Receiving.

    def _receive_head(self) -> Head | None:
        """None: the client is silent, idle or gone, and is owed nothing. HTTPError: refused."""
        self._slot.set(scoreboard.STATE, scoreboard.IDLE)
        if not self._buffer and not self._wait_for_first_byte():
            return None
        self._began = time.monotonic()
        self._slot.set(scoreboard.STATE, scoreboard.READING)
        deadline = Deadline(self._config.timeout_header)
        while True:
            found = self._service.parser.parse(self._buffer)
            if found is not None:
                head, size = found
                self._buffer = self._buffer[size:]
                return head
            if not self._receive_more(deadline):
                return None

    def _wait_for_first_byte(self) -> bool:
        seconds = self._config.timeout_idle
        if not self._requests:
            # Neither has a new connection sent its head, nor may it idle longer than others.
            seconds = min(seconds, self._config.timeout_header)
        try:
            self._buffer = self._transport.receive(Deadline(seconds), idle=True)
        except (TimedOut, Drained, Disconnected):
            return False
        return bool(self._buffer)

    def _receive_more(self, deadline: Deadline) -> bool:
        """More of a head that has begun. False: the client is gone."""
        owed = self._buffer not in (b"\r", b"\r\n")  # an empty line alone is no request
        try:
            data = self._transport.receive(deadline, idle=not owed)
        except TimedOut:
            if owed:
                raise HTTPError(Reason.HEAD_TIMEOUT, close=True) from None
            return False
        except Drained:
            return False
        except Disconnected:
            data = b""
        self._buffer += data
        if not data and owed:
            self._log(None, 0, 0, Reason.CLIENT_LEFT)
        return bool(data)

    def _drain(self, head: Head) -> bool:
        """Read a body that nobody wants. False: it was not read, and nothing can follow it.

        A client that waits for 100 gets its final answer instead, and may or may not send the
        body after it: nobody can tell where its next request would begin (RFC 9110 10.1.1).
        """
        if head.length == 0:
            return True
        if head.expects_continue or (head.length or 0) > DRAIN_BYTES:
            return False
        reader = BodyReader(self._service, self._transport, head, self._buffer)
        size = 0
        try:
            while not reader.done and size <= DRAIN_BYTES:
                size += len(reader.read())
        except TimedOut:
            raise HTTPError(Reason.BODY_TIMEOUT, close=True) from None
        self._buffer = reader.rest
        return reader.done

    # Answering.

    def _refuse(self, error: HTTPError) -> bool:
        """Answer a head that is no request."""
        return self._respond(refusal(error), None, False)

    def _respond(self, response: Response, head: Head | None, whole: bool) -> bool:
        try:
            return self._send(response, head, whole)
        finally:
            for fd in response.files:
                os.close(fd)

    def _send(self, response: Response, head: Head | None, whole: bool) -> bool:
        keep = whole and not response.close and head is not None and self._may_keep(head)
        minor = head.minor if head else 1
        try:
            header = render.header_bytes(response, minor, keep, self._service.extra)
        except ValueError:
            response, keep = self._defect(), False
            header = render.header_bytes(response, minor, keep, self._service.extra)
        parts = () if head and head.method == b"HEAD" else response.parts
        deadline = Deadline(self._config.timeout_write, self._config.min_rate)
        reason = response.reason
        try:
            self._transport.send(header, parts, deadline)
        except TimedOut:
            reason, keep = Reason.WRITE_TIMEOUT, False
        except Disconnected as end:
            reason, keep = end.reason, False
        size = max(0, self._transport.sent - len(header))
        self._log(head, response.status, size, reason)
        if not keep and reason == response.reason:
            self._say_goodbye(whole)
        return keep

    def _may_keep(self, head: Head) -> bool:
        limit = self._config.keepalive_requests
        more = not limit or self._requests < limit
        return head.keep_alive and more and not self._transport.drained

    def _say_goodbye(self, whole: bool) -> None:
        """Linger where the client has sent, or still sends, what nobody will read."""
        if not whole or self._buffer or self._transport.has_unread():
            self._slot.set(scoreboard.STATE, scoreboard.LINGERING)
            self._transport.linger()

    def _log(self, head: Head | None, status: int, size: int, reason: Reason) -> None:
        slot = self._slot
        slot.add(scoreboard.REQUESTS, 1)
        slot.add(scoreboard.BYTES, size)
        slot.set(scoreboard.REASON, reason)
        line = b"" if head else first_line(self._buffer)
        seconds = time.monotonic() - self._began
        entry = Entry(self._peer, head, line, status, size, seconds, reason)
        if not self._service.log.write(entry):
            slot.add(scoreboard.LOST_LINES, 1)


def first_line(data: bytes) -> bytes:
    """What the log shows of bytes that are no request."""
    stripped = data.lstrip(b"\r\n")[:_LOGGED_LINE]
    return stripped.split(b"\n", 1)[0].rstrip(b"\r")


class BodyReader:
    """A request's content, piece by piece. Whoever reads it first asks the client to send it.

    `done`: it has ended; `rest`: the bytes behind it.
    """

    def __init__(self, service: Service, transport: Transport, head: Head, buffered: bytes) -> None:
        parser, config = service.parser, service.config
        self._decoder = body.decoder(head, parser.limits, parser.parse_fields)
        self._transport = transport
        self._deadline = Deadline(config.timeout_body, config.min_rate)
        self._owes_continue = head.expects_continue and not buffered
        self.rest = buffered
        self._fresh = bool(buffered)

    @property
    def done(self) -> bool:
        return self._decoder.done

    def read(self) -> bytes:
        """Some content; b"" when done. HTTPError, TimedOut, Disconnected(CLIENT_LEFT)."""
        content = b""
        while not content and not self._decoder.done:
            if not self._fresh:
                self._receive()
            content, self.rest = self._decoder.feed(self.rest)
            self._fresh = False
        return content

    def _receive(self) -> None:
        if self._owes_continue:
            self._owes_continue = False
            self._transport.send(render.CONTINUE, (), self._deadline)
        data = self._transport.receive(self._deadline)
        if not data:
            raise Disconnected(Reason.CLIENT_LEFT)
        self._deadline.moved(len(data))
        self.rest += data
