"""The conversation on one connected socket: receive, parse, route, send, log, until it ends.

One loop, the same in every mode: a generator that yields where it has to wait (wait.py). It
raises nothing but Disconnected(ENDED): whatever happens becomes an answer, a log line and a
reason. Not here: processes, polling, and what an answer says.
"""

from __future__ import annotations

import os
import time
import traceback

from . import render, scoreboard, stamps
from .accesslog import Entry
from .bodyreader import BodyReader
from .cache import may_be_repeated
from .clock import Deadline
from .config import Config
from .errors import BY_NUMBER, Disconnected, Ended, HTTPError, Reason
from .linger import linger
from .message import Head, Part, Response
from .past import NEW, Owed, Past
from .route import refusal
from .service import Service
from .stamps import NOTHING, Record
from .transport import Transport
from .wait import (
    ANSWER,
    HEAD,
    IDLE,
    READ,
    WRITE,
    YOUR_TURN,
    Drained,
    Steps,
    TimedOut,
    until,
)

# A body that nobody reads is read away up to here; a longer one costs the connection.
DRAIN_BYTES = 65536
# For a new connection to speak when the server drains.
_FIRST_WORDS = 0.5
# Of a request that could not be parsed, the log gets so much.
_LOGGED_LINE = 512
# The first look at a head; most are smaller.
_PEEK = 4096


def first_words(config: Config) -> float:
    """Seconds for a new connection: neither has it sent its head, nor may it idle longer than
    others."""
    return min(config.timeout_idle, config.timeout_header)


class Connection:
    """serve() the requests of one connection. `slot` is where it is counted.

    peeks     a head stays in the kernel until it is whole, so that the connection can be handed
              on before: at an IDLE or HEAD wait `past()` tells what goes with it
    drained   set by the driver: the answer that is being made is the last
    record    of when what happened, in the first exchange
    owed      an answer that has to be finished first; then the first wait is for a turn
    received  bytes that others have taken from the socket; None: they had no memory for them
    repeats   the last answer was such that it may be repeated
    requests  understood so far, on whichever way
    """

    def __init__(
        self,
        service: Service,
        transport: Transport,
        peer: str,
        slot: scoreboard.Slot,
        *,
        past: Past = NEW,
        peeks: bool = False,
        record: Record = NOTHING,
        owed: Owed | None = None,
        received: bytes | None = b"",
    ) -> None:
        self.repeats = False
        self._owed = owed
        self.peer = peer
        self.drained = False
        self._service = service
        self._config = service.config
        self._transport = transport
        self._slot = slot
        self._peeks = peeks and transport.can_peek
        self._record = self._whole = record
        self._buffer = received or b""
        self._lacks_memory = received is None
        self._past = past
        self._head_began = past.began
        self._seen = b""  # of a head that is not whole; what stays in the kernel
        self._requests = past.requests
        self._began = time.monotonic()
        # Of the exchange at hand, should it be broken off: has it begun, and how far is it?
        self._begun = False
        self._head: Head | None = None
        self._status = 0
        self._header_size = 0
        self._raw = b""  # the head as it came

    def serve(self) -> Steps[Reason]:
        """Until the connection ends; why it did. The socket is closed."""
        try:
            more = yield from self._finish(self._owed) if self._owed else self._exchange()
            while more:
                # A client that pipelines must not keep others waiting.
                if self._buffer or self._seen:
                    self._slot.set(scoreboard.STATE, scoreboard.READING)  # and is owed an answer
                    yield YOUR_TURN
                more = yield from self._exchange()
            reason = BY_NUMBER[self._slot.get(scoreboard.REASON)]
        except Disconnected as end:
            reason = end.reason
        except Ended:
            self._log_broken_off(Reason.ENDED)
            raise
        except MemoryError:
            reason = self._no_memory()
            self._log_broken_off(reason)
        self._slot.set(scoreboard.REASON, reason)
        # Before the descriptor can be another's.
        self._slot.set(scoreboard.STATE, scoreboard.FREE)
        # Somebody may hold a copy of the socket (fork_mode.py): the client must not wait for it.
        self._transport.say_no_more()
        self._transport.close()
        self._whole.mark(stamps.EXIT)
        return reason

    def _log_broken_off(self, reason: Reason) -> None:
        if self._begun:
            size = max(0, self._transport.sent - self._header_size)
            self._log(self._head, self._status, size if self._status else 0, reason)

    def has_more(self) -> bool:
        """Has something arrived that has not been read?"""
        return self._transport.has_unread()

    def past(self) -> Past | None:
        """For who takes over; None: not now, bytes have been taken from the socket."""
        if self._buffer:
            return None
        if not self._head_began:
            return Past(self._requests)
        if not self._peeks:
            return None
        same = self._requests == self._past.requests
        tries = self._past.tries + 1 if same else 1
        seen = self._seen
        return Past(self._requests, self._head_began, len(seen), _is_owed(seen), tries)

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def family(self) -> int:
        """Of its address."""
        return self._transport.sock.family

    def part(self) -> int:
        """Where it idles: for who goes on without it, the descriptor; with `past`."""
        return self._transport.detach()

    # One exchange: a request and its answer. True: another may follow.

    def _exchange(self) -> Steps[bool]:
        starved = False
        try:
            head = yield from self._receive_head()
        except HTTPError as error:
            return (yield from self._respond(refusal(error), None, False))
        except MemoryError:
            starved = True  # there is little done about it in here: what failed is still held
        if starved:
            self._buffer = self._buffer[:_PEEK]  # for the log
            return (yield from self._respond(self._without_memory(), None, False))
        if head is None:
            self._begun = False
            return False
        self._record.mark(stamps.PARSED)
        self._understood(head)
        try:
            whole = yield from self._drain(head)
        except HTTPError as error:
            return (yield from self._respond(refusal(error), head, False))
        except (Disconnected, TimedOut):
            self._log(head, 0, 0, Reason.CLIENT_LEFT)
            return False
        response = self._answer(head)
        self._record.mark(stamps.DECIDED)
        self._wish(head, response)
        return (yield from self._respond(response, head, whole))

    def _understood(self, head: Head) -> None:
        self._head = head
        self._slot.say(_name(head))
        self._requests += 1
        self._slot.set(scoreboard.STATE, scoreboard.ANSWERING)

    def _finish(self, owed: Owed) -> Steps[bool]:
        """Of a request that has been understood, and whose decision was repeated."""
        self._began, self._begun = owed.began, True
        self.repeats = True
        [head, _] = self._service.parser.parse(owed.head) or (None, 0)
        if head is not None:
            self._understood(head)
        self._slot.add(scoreboard.REPEATED, 1)
        try:
            return (
                yield from self._deliver(
                    Response(owed.status),
                    owed.header,
                    owed.parts(),
                    head,
                    True,
                    owed.keeps,
                    owed.sent,
                )
            )
        finally:
            owed.close()

    def _wish(self, head: Head, response: Response) -> None:
        """That the decision be repeated where the same is asked again."""
        wishes = self._service.wishes
        self.repeats = wishes is not None and may_be_repeated(head, response)
        if wishes is not None and self.repeats:
            try:
                wishes.send(self._raw)
            except OSError:
                pass  # whoever fills the cache is busy, or not there

    def _answer(self, head: Head) -> Response:
        self._service.stamps.answering(self._record)
        try:
            return self._service.answer(head)
        except MemoryError:
            return self._without_memory()
        except Exception:
            return self._defect()

    def _no_memory(self) -> Reason:
        self._slot.add(scoreboard.STARVED, 1)
        return Reason.NO_MEMORY

    def _without_memory(self) -> Response:
        return refusal(HTTPError(self._no_memory(), close=True))

    def _defect(self) -> Response:
        """In an `except`: the traceback is for stderr, the client gets a bare 500."""
        for line in traceback.format_exc().splitlines():
            self._service.journal.say(line)
        return refusal(HTTPError(Reason.INTERNAL, close=True))

    # Receiving.

    def _receive_head(self) -> Steps[Head | None]:
        """None: the client is silent, idle or gone, and is owed nothing. HTTPError: refused."""
        self._slot.set(scoreboard.STATE, scoreboard.IDLE)
        if self._lacks_memory:
            raise MemoryError
        began, self._head_began = self._head_began, 0.0
        here = self._buffer or self._seen or began
        if not here and not (yield from self._wait_for_first_byte()):
            return None
        self._began = began or time.monotonic()
        deadline = Deadline(self._config.timeout_header)
        deadline.at += self._began - time.monotonic()
        self._record.mark(stamps.FIRST_BYTE)
        self._slot.set(scoreboard.STATE, scoreboard.READING)
        self._begun = True
        peeks = self._peeks and not self._buffer
        self._head_began = self._began
        head = yield from (self._peek_head(deadline) if peeks else self._read_head(deadline))
        self._head_began = 0.0
        return head

    def _wait_for_first_byte(self) -> Steps[bool]:
        config = self._config
        seconds = config.timeout_idle if self._requests else first_words(config)
        try:
            yield from until(READ, Deadline(seconds), IDLE)
        except Drained:
            return (yield from self._last_chance())
        except TimedOut:
            return False
        return True

    def _last_chance(self) -> Steps[bool]:
        """Draining: one that has idled after an answer can go; one that is new, and whose first
        request may be on its way, has a moment."""
        if self._requests:
            return False
        try:
            yield from until(READ, Deadline(_FIRST_WORDS), HEAD)
        except TimedOut:
            return False
        return True

    def _read_head(self, deadline: Deadline) -> Steps[Head | None]:
        """Take bytes until they are a head."""
        while True:
            if self._buffer:
                found = self._service.parser.parse(self._buffer)
                if found is not None:
                    self._raw = self._buffer[: found[1]]
                    self._buffer = self._buffer[found[1] :]
                    return found[0]
            if not (yield from self._receive_more(deadline)):
                return None

    def _receive_more(self, deadline: Deadline) -> Steps[bool]:
        """More of a head that has begun. False: the client is gone."""
        try:
            data = self._transport.receive()
            while data is None:
                yield from self._await_head(deadline, self._buffer)
                data = self._transport.receive()
        except Disconnected:
            data = b""
        except Drained:
            return False
        self._buffer += data
        if not data and _is_owed(self._buffer):
            self._log(None, 0, 0, Reason.CLIENT_LEFT)
        return bool(data)

    def _await_head(self, deadline: Deadline, seen: bytes) -> Steps[None]:
        """HTTPError(HEAD_TIMEOUT) if a request has begun; Drained: nothing is owed."""
        try:
            yield from until(READ, deadline, HEAD)
        except TimedOut:
            if _is_owed(seen):
                raise HTTPError(Reason.HEAD_TIMEOUT, close=True) from None
            raise Drained from None

    def _peek_head(self, deadline: Deadline) -> Steps[Head | None]:
        """Look at the bytes until they are a head; only then take them. What follows it is
        remembered as seen, unless it belongs to a body."""
        seen = self._seen
        try:
            while True:
                found = self._service.parser.parse(seen) if seen else None
                if found is not None:
                    head, size = found
                    self._transport.take(size)
                    self._raw = seen[:size]
                    self._seen = seen[size:] if head.length == 0 else b""
                    return head
                self._seen = seen
                if seen:
                    self._transport.wake_beyond(len(seen))
                    yield from self._await_head(deadline, seen)
                data = self._peek(seen)
                if data == seen and self._transport.peer_has_ended():
                    if _is_owed(seen):
                        self._buffer = seen
                        self._log(None, 0, 0, Reason.CLIENT_LEFT)
                    self._transport.take(len(seen))  # see refuse.discard
                    return None
                if data == seen:
                    return (yield from self._give_up_peeking(seen, deadline))
                seen = data
        except HTTPError:
            self._buffer = seen  # for the log, and to be lingered for
            raise
        except Drained:
            self._transport.take(len(seen))
            return None
        finally:
            self._transport.wake_beyond(0)

    def _give_up_peeking(self, seen: bytes, deadline: Deadline) -> Steps[Head | None]:
        """The kernel's buffer is full, though no more is in it than was seen: a few bytes can pin
        all of the segment that they came in. Nothing more will come until they are taken."""
        self._transport.take(len(seen))
        self._transport.wake_beyond(0)
        self._buffer, self._seen = seen, b""
        return (yield from self._read_head(deadline))

    def _peek(self, seen: bytes) -> bytes:
        """All that is there, when it is more than was seen."""
        size = max(_PEEK, 4 * len(seen))
        while True:
            data = self._transport.peek(size) or b""
            if len(data) < size or size > self._config.limit_head:
                return data
            size *= 4

    def _drain(self, head: Head) -> Steps[bool]:
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
            while not reader.done and size <= DRAIN_BYTES and reader.wire <= 4 * DRAIN_BYTES:
                size += len((yield from reader.read()))
        except TimedOut:
            raise HTTPError(Reason.BODY_TIMEOUT, close=True) from None
        self._buffer = reader.rest
        return reader.done

    # Answering.

    def _respond(self, response: Response, head: Head | None, whole: bool) -> Steps[bool]:
        try:
            return (yield from self._send(response, head, whole))
        finally:
            for fd in response.files:
                os.close(fd)

    def _send(self, response: Response, head: Head | None, whole: bool) -> Steps[bool]:
        keep = whole and not response.close and head is not None and self._may_keep(head)
        minor = head.minor if head else 1
        try:
            header = render.header_bytes(response, minor, keep, self._service.extra)
        except ValueError:
            response, keep = self._defect(), False
            header = render.header_bytes(response, minor, keep, self._service.extra)
        parts = () if self._is_head(head) else response.parts
        return (yield from self._deliver(response, header, parts, head, whole, keep))

    def _deliver(
        self,
        response: Response,
        header: bytes,
        parts: tuple[Part, ...],
        head: Head | None,
        whole: bool,
        keep: bool,
        sent: int | None = None,
    ) -> Steps[bool]:
        """`sent`: so many bytes have left already, by others. Then there is a turn before more
        leaves: from there on it is logged if it is broken off."""
        self._transport.start(header, parts, sent or 0)
        self._status, self._header_size = response.status, len(header)
        self._slot.set(scoreboard.SENT, sent or 1)
        if sent is not None:
            yield YOUR_TURN
        reason = response.reason
        try:
            yield from self._push_all()
        except TimedOut:
            reason, keep = Reason.WRITE_TIMEOUT, False
        except Disconnected as end:
            reason, keep = end.reason, False
        size = max(0, self._transport.sent - len(header))
        self._log(head, response.status, size, reason)
        if not keep and reason == response.reason:
            ours = head is not None and head.keep_alive  # the client may not expect it to end
            yield from self._say_goodbye(whole and not ours)
        return keep

    def _push_all(self) -> Steps[None]:
        deadline = Deadline(self._config.timeout_write, self._config.min_rate)
        while not self._transport.all_sent:
            moved = self._transport.push()
            if moved:
                if self._transport.sent == moved:
                    self._record.mark(stamps.HEADER_SENT)
                self._slot.set(scoreboard.SENT, self._transport.sent)
                deadline.moved(moved)
            else:
                yield from until(WRITE, deadline, ANSWER)
        self._record.mark(stamps.BODY_SENT)

    def _is_head(self, head: Head | None) -> bool:
        """Also of a request that was refused before it was understood: no content for HEAD."""
        if head is not None:
            return head.method == b"HEAD"
        return self._buffer.lstrip(b"\r\n").startswith(b"HEAD ")

    def _may_keep(self, head: Head) -> bool:
        limit = self._config.keepalive_requests
        more = not limit or self._requests < limit
        return head.keep_alive and more and not self.drained

    def _say_goodbye(self, expected: bool) -> Steps[None]:
        """Linger where the client has sent, or may still send, what nobody will read."""
        if expected and not self._buffer and not self._transport.has_unread():
            return
        self._slot.set(scoreboard.STATE, scoreboard.LINGERING)
        self._transport.say_no_more()
        yield from linger(self._transport, self._config.timeout_write)

    def _log(self, head: Head | None, status: int, size: int, reason: Reason) -> None:
        slot = self._slot
        slot.add(scoreboard.REQUESTS, 1)
        slot.add(scoreboard.BYTES, size)
        slot.set(scoreboard.REASON, reason)
        slot.set(scoreboard.ACTIVE_MS, int(time.time() * 1000))
        self._begun, self._head, self._status = False, None, 0
        slot.set(scoreboard.SENT, 0)
        slot.say(b"")
        line = b"" if head else first_line(self._buffer)
        seconds = time.monotonic() - self._began
        entry = Entry(self.peer, head, line, status, size, seconds, reason)
        if not self._service.log.write(entry):
            slot.add(scoreboard.LOST_LINES, 1)
        self._record.mark(stamps.LOGGED)
        self._record = NOTHING


def _name(head: Head | None) -> bytes:
    """What the slot says is being served."""
    return head.method + b" " + head.target if head else b""


def _is_owed(seen: bytes) -> bool:
    """An empty line alone is no request, and owed no answer."""
    return seen not in (b"", b"\r", b"\r\n")


def first_line(data: bytes) -> bytes:
    """What the log shows of bytes that are no request."""
    stripped = data.lstrip(b"\r\n")[:_LOGGED_LINE]
    return stripped.split(b"\n", 1)[0].rstrip(b"\r")
