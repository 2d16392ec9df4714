"""A request's content from a connection: bytes received under a deadline, decoded by body.py.

Not here: what the content is for, or what happens to a body that nobody reads.
"""

from __future__ import annotations

from . import body, render
from .clock import Deadline
from .errors import Disconnected, Reason
from .message import Head
from .service import Service
from .transport import Transport
from .wait import BODY, READ, WRITE, Steps, until


class BodyReader:
    """A request's content, piece by piece. Whoever reads it first asks the client to send it.

    `done`: it has ended; `rest`: the bytes behind it; `wire`: bytes received for it.
    """

    def __init__(self, service: Service, transport: Transport, head: Head, buffered: bytes) -> None:
        parser, config = service.parser, service.config
        self._decoder = body.decoder(head, parser.limits, parser.parse_fields)
        self._transport = transport
        self._deadline = Deadline(config.timeout_body, config.min_rate)
        self._owes_continue = head.expects_continue and not buffered
        self.rest = buffered
        self.wire = len(buffered)
        self._fresh = bool(buffered)

    @property
    def done(self) -> bool:
        return self._decoder.done

    def read(self) -> Steps[bytes]:
        """Some content; b"" when done. HTTPError, TimedOut, Disconnected(CLIENT_LEFT)."""
        content = b""
        while not content and not self._decoder.done:
            if not self._fresh:
                yield from self._receive()
            content, self.rest = self._decoder.feed(self.rest)
            self._fresh = False
        return content

    def _receive(self) -> Steps[None]:
        if self._owes_continue:
            self._owes_continue = False
            yield from self._send_continue()
        data = self._transport.receive()
        while data is None:
            yield from until(READ, self._deadline, BODY)
            data = self._transport.receive()
        if not data:
            raise Disconnected(Reason.CLIENT_LEFT)
        self._deadline.moved(len(data))
        self.wire += len(data)
        self.rest += data

    def _send_continue(self) -> Steps[None]:
        self._transport.start(render.CONTINUE, ())
        while not self._transport.all_sent:
            if not self._transport.push():
                yield from until(WRITE, self._deadline, BODY)
